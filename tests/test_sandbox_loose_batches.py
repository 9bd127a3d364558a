"""Batch APIs that are loose, as OGX 1.5 is: no row is lost, wrong or paid twice, and the words say how to go on."""

from __future__ import annotations

import json
from typing import Any

import anthropic
import openai
import pandas as pd
import pytest
from known_answers import check_right, firms, wait
from sandbox_batches import create, ended, line, lines_of, requests

import lmsyz
from lmsyz.errors import ProviderError, UnavailableError, UsageError
from lmsyz.sandbox import Faults

BACKENDS = ["openai", "anthropic"]


@pytest.fixture(autouse=True)
def _by_default(sandbox_default: Any) -> None:
    """Calls go to the sandbox."""


def submit(backend: str, df: pd.DataFrame, **options: Any) -> lmsyz.BatchJob:
    options = {"schema": {"company": str}, "chunk_size": 1, "progress": False, "job_id": "job"} | options
    job: lmsyz.BatchJob = df.ie.batch("Name the company.", backend=backend, **options)
    return job


def times_paid(sandbox: Any, df: pd.DataFrame) -> list[int]:
    paid = sandbox.stats()["batch_rows_paid"]
    return [paid.get(text, 0) for text in df["text"]]


def let_days_pass(job: lmsyz.BatchJob) -> None:
    """Leave the ledger as one that was written three days ago."""
    path = job.folder / "job.json"
    ledger = json.loads(path.read_text())
    for name in ("submitted", "expires"):
        if ledger["parts"][0][name] is not None:
            ledger["parts"][0][name] -= 3 * 86_400
    path.write_text(json.dumps(ledger))


# --- batches that end otherwise, or never ---------------------------------------------------------------------------


def test_a_cancelled_batch_whose_answers_are_dropped_says_so_and_its_rows_can_be_asked_again(sandbox: Any) -> None:
    df = firms(20)
    sandbox.set_faults(batch_s=100, cancelled_files_gone=True)
    job = submit("openai", df)
    sandbox.advance(50)
    job.cancel()
    sandbox.advance(1)
    out = wait(job)
    n_ok = job.status().parts[0].n_ok
    assert n_ok is not None
    assert 0 < n_ok < 20
    words = f"cancelled: of the {n_ok} requests that the provider counts as answered it gave none back"
    assert (out["ie_error"] == words).all()
    assert sum(times_paid(sandbox, df)) == n_ok
    sandbox.set_faults(batch_s=0)
    job.retry()
    assert check_right(df, wait(job)).all()
    assert sum(times_paid(sandbox, df)) == n_ok + 20, "what was dropped is asked once more, and nothing beside"


@pytest.mark.parametrize("is_loose", [False, True])
@pytest.mark.parametrize("backend", BACKENDS)
def test_a_batch_over_a_lower_limit_is_refused_and_sent_in_smaller_ones(
    sandbox: Any, backend: str, is_loose: bool
) -> None:
    df = firms(5)
    sandbox.set_faults(batch_s=0, max_batch_requests=3, loose_batches=is_loose)
    with pytest.raises(ProviderError, match="at most 3 items, not 5") as caught:
        submit(backend, df)
    assert any("max_requests_per_batch=" in note for note in caught.value.__notes__)
    assert "option" not in str(caught.value), "the input file is no option of the call"
    assert sandbox.stats()["n_batches_created"] == 0
    job = submit(backend, df, max_requests_per_batch=3)
    assert [p.n_requests for p in job.status().parts] == [3, 2]
    assert check_right(df, wait(job)).all()
    assert times_paid(sandbox, df) == [1] * 5


@pytest.mark.parametrize("is_cancelled", [False, True])
@pytest.mark.parametrize("backend", BACKENDS)
def test_a_batch_that_never_ends_can_be_given_up_and_asked_again(
    sandbox: Any, backend: str, is_cancelled: bool
) -> None:
    df = firms(3)
    sandbox.set_faults(batch_s=10, batch_stuck=True, loose_batches=is_cancelled)
    job = submit(backend, df)
    if is_cancelled:
        job.cancel()
    sandbox.advance(1_000_000)
    status = job.wait(interval=0.05, timeout=0)
    assert status.state == ("cancelling" if is_cancelled else "in_progress")
    assert job.results()["ie_error"].str.startswith("pending").all()
    assert "give_up" not in repr(job)
    let_days_pass(job)
    assert "job.give_up(1), then job.retry()" in repr(job)
    job.give_up(1)
    assert "give_up(" not in repr(job)
    assert job.results()["ie_error"].str.contains("given up").all()
    sandbox.set_faults(batch_s=0)
    job.retry()
    assert check_right(df, wait(job)).all()
    assert times_paid(sandbox, df) == [1] * 3


# --- results and errors that are loose ------------------------------------------------------------------------------


@pytest.mark.parametrize("backend", BACKENDS)
def test_loose_results_come_home_each_to_its_row(sandbox: Any, backend: str) -> None:
    df = firms(12)
    sandbox.set_faults(batch_s=0, loose_batches=True)
    job = submit(backend, df, chunk_size=2)
    assert check_right(df, wait(job)).all()
    assert times_paid(sandbox, df) == [1] * 12
    assert not job.status().problems, "an empty error file is nothing to speak of"


@pytest.mark.parametrize("backend", BACKENDS)
def test_flat_errors_are_the_reasons_of_their_rows_which_alone_are_asked_again(sandbox: Any, backend: str) -> None:
    df = firms(30)
    sandbox.set_faults(batch_s=0, loose_batches=True, batch_errors=0.6)
    job = submit(backend, df)
    out = wait(job)
    good = check_right(df, out)
    assert 0 < good.sum() < 30
    reasons = out.loc[~good, "ie_error"]
    assert reasons.str.startswith("failed: ").all()
    assert reasons.str.contains("The sandbox fails this request, as its faults ask it to.").any()
    assert times_paid(sandbox, df) == good.astype(int).tolist()
    sandbox.set_faults(batch_s=0, loose_batches=True)
    job.retry()
    assert check_right(df, wait(job)).all()
    assert times_paid(sandbox, df) == [1] * 30


@pytest.mark.parametrize("backend", BACKENDS)
def test_what_was_not_run_of_a_loose_batch_says_that_it_expired(sandbox: Any, backend: str) -> None:
    df = firms(10)
    sandbox.set_faults(batch_s=0, loose_batches=True, batch_expires_at=0.5)
    out = wait(submit(backend, df))
    good = check_right(df, out)
    assert good.sum() == 5
    assert out.loc[~good, "ie_error"].str.contains("expired").all()


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_broken_download_is_begun_anew_where_a_range_is_ignored(sandbox: Any, backend: str, tmp_path: Any) -> None:
    df = firms(60)
    sandbox.set_faults(batch_s=0, loose_batches=True)
    job = submit(backend, df)
    sandbox.set_faults(batch_s=0, loose_batches=True, broken_download=1.0)
    with pytest.raises(UnavailableError, match="received"):
        job.refresh()
    (part,) = tmp_path.rglob("*.part")
    assert part.stat().st_size > 5000, "enough to ask for the rest alone"
    sandbox.set_faults(batch_s=0, loose_batches=True)
    assert check_right(df, wait(job)).all()
    assert times_paid(sandbox, df) == [1] * 60


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_create_that_only_a_loose_server_heard_of_is_found_again(sandbox: Any, backend: str) -> None:
    df = firms(3)
    sandbox.set_faults(batch_s=0, loose_batches=True, create_timeout=1.0)
    with pytest.raises(UnavailableError):
        submit(backend, df)
    sandbox.set_faults(batch_s=0, loose_batches=True)
    assert check_right(df, wait(submit(backend, df))).all()
    assert sandbox.stats()["n_batches_created"] == 1
    assert times_paid(sandbox, df) == [1] * 3


# --- as the SDKs see it ---------------------------------------------------------------------------------------------


def test_loose_files_lines_and_lists_are_as_ogx_gives_them(sandbox: Any) -> None:
    sandbox.set_faults(batch_s=100, loose_batches=True)
    with openai.OpenAI(api_key="k", base_url=sandbox.openai_base_url, max_retries=0) as gpt:
        wrong = line("b", body={"model": "sandbox-rules"})
        done, failed = (ended(sandbox, gpt, create(gpt, made)) for made in (line("a"), wrong))
        assert (lines_of(gpt, done.error_file_id), lines_of(gpt, failed.output_file_id)) == ([], [])
        assert done.expires_at is None
        (told,) = lines_of(gpt, done.output_file_id)
        assert isinstance(told["response"]["body"], str)
        (told,) = lines_of(gpt, failed.error_file_id)
        assert told.keys() == {"id", "custom_id", "error"}
        assert told["error"].keys() == {"type", "message"}
        assert [b.id for b in gpt.batches.list(after="batch_none")] == [failed.id, done.id]
        with pytest.raises(openai.NotFoundError) as caught:
            gpt.batches.retrieve("batch_none")
        assert caught.value.response.json()["error"].keys() == {"message"}
    assert sandbox.stats()["n_faults"]["loose_batches"] == 2


def test_loose_lists_and_errors_of_anthropics_are_as_ogx_gives_them(sandbox: Any) -> None:
    sandbox.set_faults(batch_s=0, loose_batches=True)
    with anthropic.Anthropic(api_key="k", base_url=sandbox.anthropic_base_url, max_retries=0) as claude:
        batch = claude.messages.batches.create(requests=requests("a"))
        assert [b.id for b in claude.messages.batches.list(after_id="msgbatch_none")] == [batch.id]
        with pytest.raises(anthropic.NotFoundError) as caught:
            claude.messages.batches.retrieve("msgbatch_none")
        assert caught.value.response.json()["error"].keys() == {"message"}


@pytest.mark.parametrize(
    "wrong", [{"batch_stuck": 1}, {"loose_batches": "yes"}, {"cancelled_files_gone": 0}, {"max_batch_requests": 0}]
)
def test_a_loose_fault_out_of_range_is_refused_by_name(wrong: dict[str, Any]) -> None:
    with pytest.raises(UsageError, match=next(iter(wrong))):
        Faults(**wrong)
