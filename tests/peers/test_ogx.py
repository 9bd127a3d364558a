"""Both batch APIs against OGX, whose answers come from the sandbox: every row comes home once, or says why not."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import anthropic
import pandas as pd
import pytest
from known_answers import FIRMS, check_right, firms, wait

import lmsyz
from lmsyz.errors import ProviderError, UnavailableError

pytestmark = [pytest.mark.peer, pytest.mark.timeout(600)]  # the first of them may install OGX

BACKENDS = ["openai", "anthropic"]
PROMPT, SCHEMA = "Name the company.", {"company": str}
LONG = "Omega Corp lost money again and again and again. " * 300
OTHER_KERNEL = """
import sys
import pandas as pd
import lmsyz
options = {"progress": False, "api_key": "no-key", "model": "up/sandbox-rules", "schema": {"company": str}}
df = pd.DataFrame({"text": sys.argv[3:]})
df.ie.batch("Name the company.", backend=sys.argv[1], base_url=sys.argv[2], job_id="job", chunk_size=1, **options)
"""


def submit(ogx: Any, backend: str, df: pd.DataFrame, **options: Any) -> lmsyz.BatchJob:
    options = {"model": "up/sandbox-rules", "chunk_size": 1, "job_id": "job"} | options
    where = {"backend": backend, "base_url": ogx.base_url(backend), "api_key": "no-key"}
    job: lmsyz.BatchJob = df.ie.batch(PROMPT, schema=SCHEMA, progress=False, **where, **options)
    return job


def times_answered(sandbox: Any, df: pd.DataFrame) -> list[int]:
    """How often a request of each text was answered by the model behind OGX."""
    bodies = [json.dumps(r["body"]) for r in sandbox.requests(1000) if r["api"] == "chat" and r["status"] == 200]
    return [sum(text in body for body in bodies) for text in df["text"]]


@pytest.mark.parametrize("backend", BACKENDS)
def test_every_row_comes_home_with_its_own_answer_and_was_asked_once(ogx: Any, sandbox: Any, backend: str) -> None:
    df = firms(12)
    job = submit(ogx, backend, df, chunk_size=2, max_requests_per_batch=4)
    assert check_right(df, wait(job)).all()
    assert times_answered(sandbox, df) == [1] * 12
    assert [p.n_requests for p in job.status().parts] == [4, 2]


@pytest.mark.parametrize("backend", BACKENDS)
def test_texts_with_every_kind_of_line_break_and_script_come_home(ogx: Any, backend: str) -> None:
    df = firms(4)
    df["text"] += ["\u2028\u2029\x85\r\n\t", ' "quoted" \\ {}', " Größe, 北京, 🙂, e\u0301", " <b>&amp;</b>"]
    assert check_right(df, wait(submit(ogx, backend, df, chunk_size=2))).all()


@pytest.mark.parametrize("backend", BACKENDS)
def test_the_same_call_again_sends_nothing(ogx: Any, sandbox: Any, backend: str) -> None:
    df = firms(3)
    wait(submit(ogx, backend, df))
    assert check_right(df, wait(submit(ogx, backend, df))).all()
    assert times_answered(sandbox, df) == [1] * 3


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_request_that_fails_fails_alone_and_is_asked_again_alone(ogx: Any, sandbox: Any, backend: str) -> None:
    df = pd.DataFrame({"text": [FIRMS[0] + " won.", LONG, FIRMS[2] + " lost."]})
    sandbox.set_faults(context_tokens=1000)
    job = submit(ogx, backend, df)
    out = wait(job)
    assert check_right(df, out).tolist() == [True, False, True]
    assert "maximum context length is 1000 tokens" in out["ie_error"].iloc[1]
    sandbox.set_faults()
    job.retry()
    assert check_right(df, wait(job)).all()
    assert times_answered(sandbox, df) == [1, 1, 1]


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_reply_that_was_cut_is_truncated_and_never_an_answer(ogx: Any, sandbox: Any, backend: str) -> None:
    sandbox.set_faults(max_output_tokens=3)
    out = wait(submit(ogx, backend, firms(2)))
    assert out["ie_error"].str.startswith("truncated").all()
    assert out["company"].isna().all()


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_model_that_is_not_there_is_named_in_every_row(ogx: Any, backend: str) -> None:
    out = wait(submit(ogx, backend, firms(3), model="nobody"))
    assert out["ie_error"].str.contains("Model 'nobody'").all()


@pytest.mark.parametrize("backend", BACKENDS)
def test_what_is_cancelled_in_time_is_not_paid_and_can_be_asked_again(ogx: Any, sandbox: Any, backend: str) -> None:
    df = firms(5)
    sandbox.set_faults(latency_s=60)
    job = submit(ogx, backend, df, max_requests_per_batch=2)
    job.cancel()
    out = wait(job)
    assert out["ie_error"].str.startswith("cancelled").all()
    assert job.cancel().is_done, "once more does no harm"
    sandbox.set_faults()
    assert [p.n_requests for p in job.retry().parts] == [2, 2, 1, 2, 2, 1]
    assert check_right(df, wait(job)).all()


def stopped_halfway(ogx: Any, sandbox: Any, backend: str, df: pd.DataFrame) -> lmsyz.BatchJob:
    """A job that was cancelled when some of its requests were answered, and others were not."""
    sandbox.set_faults(latency_s=0.2)
    job = submit(ogx, backend, df)
    while sum(times_answered(sandbox, df)) < 2:  # one at a time: the second is answered once OGX has noted the first
        time.sleep(0.05)
    sandbox.set_faults(latency_s=60)
    job.cancel()
    return job


def test_what_was_answered_before_a_cancel_comes_home_and_is_not_asked_again(ogx: Any, sandbox: Any) -> None:
    df = firms(200)
    job = stopped_halfway(ogx, sandbox, "anthropic", df)
    out = wait(job)
    good = check_right(df, out)
    assert 0 < good.sum() < 200
    assert out.loc[~good, "ie_error"].str.startswith("cancelled").all()
    sandbox.set_faults()
    job.retry()
    assert check_right(df, wait(job)).all()
    n_times = pd.Series(times_answered(sandbox, df))
    assert (n_times[good] == 1).all()


def test_answers_that_the_server_drops_with_a_cancelled_batch_are_said_to_be_lost(ogx: Any, sandbox: Any) -> None:
    df = firms(200)
    job = stopped_halfway(ogx, sandbox, "openai", df)
    out = wait(job)
    assert not check_right(df, out).any()
    n_ok = job.status().parts[0].n_ok
    words = f"cancelled: of the {n_ok} requests that the provider counts as answered it gave none back"
    assert n_ok
    assert (out["ie_error"] == words).all()


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_job_of_one_kernel_is_collected_by_another(ogx: Any, sandbox: Any, backend: str) -> None:
    df = firms(4)
    line = [sys.executable, "-c", OTHER_KERNEL, backend, ogx.base_url(backend), *df["text"]]
    subprocess.run(line, check=True, capture_output=True)
    assert check_right(df, wait(lmsyz.BatchJob.load("job", api_key="no-key"))).all()
    assert times_answered(sandbox, df) == [1] * 4


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_batch_whose_creation_was_not_written_down_is_found_again(ogx: Any, sandbox: Any, backend: str) -> None:
    df = firms(3)
    submit(ogx, backend, df, job_id="lost")
    forget_that_it_was_created(Path("batch_jobs", "lost", "job.json"))
    if backend == "anthropic":
        wait_until_the_last_batch_ended(ogx)  # it keeps nothing of ours: only results tell whose a batch is
    assert check_right(df, wait(submit(ogx, backend, df, job_id="lost"))).all()
    assert times_answered(sandbox, df) == [1] * 3


def forget_that_it_was_created(path: Path) -> None:
    """Leave the ledger as a kernel leaves it that dies between the provider's answer and its own note of it."""
    ledger = json.loads(path.read_text())
    ledger["parts"][0] |= {"state": "creating", "remote": "", "remote_state": "", "submitted": None}
    path.write_text(json.dumps(ledger))


def wait_until_the_last_batch_ended(ogx: Any) -> None:
    with anthropic.Anthropic(api_key="no-key", base_url=ogx.base_url("anthropic")) as client:
        while client.messages.batches.list(limit=1).data[0].processing_status != "ended":
            time.sleep(0.05)


def test_a_batch_that_is_too_large_is_refused_and_sent_in_smaller_ones(ogx: Any, sandbox: Any) -> None:
    df = firms(1001)  # OGX takes 1,000 in one of Anthropic's
    with pytest.raises(ProviderError, match="at most 1000 items") as caught:
        submit(ogx, "anthropic", df)
    assert any("max_requests_per_batch=" in note for note in caught.value.__notes__)
    sandbox.set_faults(latency_s=60)
    job = submit(ogx, "anthropic", df, max_requests_per_batch=600)
    assert [(p.n_requests, p.remote != "") for p in job.status().parts] == [(600, True), (401, True)]
    job.cancel()
    assert wait(job)["ie_error"].str.startswith("cancelled").all()


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_batch_that_a_crash_of_the_server_left_behind_can_be_given_up_and_asked_again(
    ogx: Any, sandbox: Any, backend: str
) -> None:
    df = firms(3)
    sandbox.set_faults(latency_s=60)
    job = submit(ogx, backend, df)
    ogx.kill()
    try:
        with pytest.raises(UnavailableError, match="is it running"):
            job.refresh()
    finally:
        ogx.start()
    sandbox.set_faults()
    assert not job.wait(interval=0.05, timeout=0.5).is_done, "OGX never goes on with it"
    out = job.results()
    assert out["ie_error"].str.startswith("pending").all()
    job.give_up(1)
    job.retry()
    assert check_right(df, wait(job)).all()


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_job_is_finished_through_the_live_path_where_a_batch_left_rows_out(
    ogx: Any, sandbox: Any, backend: str
) -> None:
    df = pd.DataFrame({"text": [FIRMS[0] + " won.", LONG]})
    sandbox.set_faults(context_tokens=1000)
    job = submit(ogx, backend, df)
    wait(job)
    sandbox.set_faults()
    assert check_right(df, job.finish_live()).all()
    assert times_answered(sandbox, df) == [1, 1]


def test_an_endpoint_that_it_does_not_serve_in_batches_is_refused_before_anything_is_paid(
    ogx: Any, sandbox: Any
) -> None:
    with pytest.raises(ProviderError, match="Invalid endpoint: /v1/responses"):
        submit(ogx, "openai", firms(2), api="responses")
    assert times_answered(sandbox, firms(2)) == [0, 0]
    assert lmsyz.BatchJob.load("job", api_key="no-key").cancel().is_done
