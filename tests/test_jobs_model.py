"""What the panel knows of batch jobs, over real sandbox batches; and how cancelling treats what nobody can tell."""

from __future__ import annotations

import shutil
import threading
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from pydantic import BaseModel

from lmsyz import batch
from lmsyz.batch_job import BatchJob
from lmsyz.errors import BatchError, UnavailableError, UsageError
from lmsyz.widgets.jobs_model import LONGEST_BACK_OFF_S, JobsModel, pause_s

ROOT = Path("batch_jobs")


@pytest.fixture
def server(sandbox_default: Any, monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.setattr(batch, "GRACE_S", 0.0)
    monkeypatch.setenv("LMSYZ_PROGRESS", "false")
    sandbox_default.set_faults(batch_s=100)
    return sandbox_default


def submit(job_id: str = "one", n: int = 4, **about: Any) -> BatchJob:
    df = pd.DataFrame({"text": [f"Row {i} of {job_id}." for i in range(n)]})
    job: BatchJob = df.ie.batch("Give the digest.", **({"schema": {"digest": str}, "job_id": job_id} | about))
    return job


def do(model: JobsModel, job_id: str, action: str) -> Any:
    thread = model.start(job_id, action)
    assert thread is not None
    thread.join(30)
    return next(card for card in model.cards()[0] if card.job_id == job_id)


def test_a_job_goes_from_submitted_to_collected(server: Any) -> None:
    submit()
    model = JobsModel(ROOT)
    assert model.cards()[0][0].status.n_pending == 4
    server.advance(1000)
    card = do(model, "one", "collect")
    assert card.status.is_done
    assert "4 answers are home" in card.said
    assert card.checked
    assert not card.doing
    assert not card.problem


def test_a_job_is_cancelled_and_its_rows_are_sent_again(server: Any) -> None:
    submit()
    model = JobsModel(ROOT)
    assert "stop" in do(model, "one", "cancel").said
    server.advance(1000)
    n_bad = do(model, "one", "refresh").status.n_bad
    assert n_bad > 0
    assert do(model, "one", "retry").said == f"Sent {n_bad} texts again."


def test_a_job_that_cannot_be_refreshed_says_why_and_shows_its_ledger(server: Any) -> None:
    class Tone(BaseModel):
        digest: str

    submit(schema=Tone)
    card = do(JobsModel(ROOT), "one", "refresh")
    assert "schema=Tone" in card.problem
    assert card.status.n_pending == 4


def test_a_job_with_a_pydantic_model_says_in_another_kernel_what_to_pass(server: Any) -> None:
    class Tone(BaseModel):
        digest: str

    submit(schema=Tone)
    with pytest.raises(UsageError, match=r"BatchJob.load\('one', schema=Tone\)"):
        BatchJob.load("one").wait()


def test_a_damaged_ledger_is_shown_as_such_beside_the_others(server: Any) -> None:
    submit("good")
    (ROOT / "bad").mkdir()
    (ROOT / "bad" / "job.json").write_text("{")
    cards, n = JobsModel(ROOT).cards()
    assert [c.job_id for c in cards] == ["good", "bad"]
    assert n == 2
    assert cards[1].status is None
    assert "cannot be read" in cards[1].problem


def test_the_newest_jobs_are_shown_and_a_removed_one_is_forgotten(server: Any) -> None:
    for name in ("a", "b", "c"):
        submit(name, 1)
    model = JobsModel(ROOT)
    cards, n = model.cards(2)
    assert ([c.job_id for c in cards], n) == (["c", "b"], 3)
    shutil.rmtree(ROOT / "c")
    assert model.cards(1)[0][0].job_id == "b"


def test_a_job_has_one_poller_in_a_kernel_until_that_is_closed(server: Any) -> None:
    submit()
    server.advance(1000)
    first, second = JobsModel(ROOT), JobsModel(ROOT)
    card = first.cards()[0][0]
    assert first._is_due(card)
    second.poll_once(10)
    assert not second.cards()[0][0].status.is_done
    first.close()
    second.poll_once(10)
    assert second.cards()[0][0].status.is_done
    second.close()


def test_a_second_action_on_a_busy_job_is_not_begun(server: Any) -> None:
    submit()
    go, entered = threading.Event(), threading.Event()

    def load(job_id: str) -> BatchJob:
        entered.set()
        go.wait(30)
        return BatchJob.load(job_id)

    model = JobsModel(ROOT, load=load)
    thread = model.start("one", "refresh")
    assert thread is not None
    assert entered.wait(30)
    assert model.cards()[0][0].doing == "Refreshing"
    assert model.start("one", "cancel") is None
    go.set()
    thread.join(30)
    assert model.cards()[0][0].doing == ""


def test_polling_slows_with_age_and_with_failures_up_to_a_bound() -> None:
    assert pause_s(0, 0) < 2 < pause_s(1200, 0) < 70
    assert pause_s(1200, 2) > 200
    assert pause_s(1e6, 50) <= LONGEST_BACK_OFF_S * 1.1


def test_the_watch_ends_with_the_model(server: Any) -> None:
    model = JobsModel(ROOT)
    model.watch(lambda: 10)
    assert model._poller is not None
    assert model._poller.daemon
    model.close()
    model._poller.join(30)
    assert not model._poller.is_alive()


# --- cancelling and files ---------------------------------------------------------------------------


def test_cancel_finds_a_batch_created_without_an_answer_and_cancels_it(server: Any) -> None:
    server.set_faults(batch_s=100, create_timeout=1.0)
    with pytest.raises(UnavailableError):
        submit()
    server.set_faults(batch_s=100)
    job = BatchJob.load("one")
    assert job.status().parts[0].state == "creating"
    status = job.cancel()
    assert status.parts[0].remote
    assert status.parts[0].remote_state == "cancelling"


def test_cancel_says_so_where_nobody_can_tell_whether_a_part_exists(server: Any) -> None:
    server.set_faults(batch_s=1000, create_timeout=1.0)
    with pytest.raises(UnavailableError):
        submit(backend="anthropic")
    server.set_faults(batch_s=1000)
    job = BatchJob.load("one")
    with pytest.raises(BatchError, match=r"part 1 of job 'one' was not cancelled.*adopt\(1"):
        job.cancel()
    assert job.status().state == "unsure"


def test_only_requests_end_in_jsonl_and_a_job_of_the_older_naming_still_comes_home(server: Any) -> None:
    job = submit()
    inputs = ROOT / "one" / "batch_input"
    assert [p.name for p in inputs.glob("*.jsonl")] == ["batch_1.jsonl"]
    (inputs / "batch_1.rows").rename(inputs / "batch_1.rows.jsonl")
    server.advance(1000)
    assert BatchJob.load(job.job_id).refresh().n_good == 4
