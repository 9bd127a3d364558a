"""How many requests go into one batch: what was asked for holds for a job's life, and can be lowered where it must."""

from __future__ import annotations

from typing import Any

import pandas as pd
import pytest

import lmsyz
from lmsyz import batch
from lmsyz.errors import RateLimitError

BACKENDS = ["openai", "anthropic"]
DF = pd.DataFrame({"text": [f"Row {i} is one of five." for i in range(5)]})


@pytest.fixture(autouse=True)
def at_once(sandbox_default: Any) -> Any:
    """Batches that end as they begin."""
    sandbox_default.set_faults(batch_s=0.0)
    return sandbox_default


def submit(backend: str, **options: Any) -> lmsyz.BatchJob:
    options = {"schema": {"digest": str}, "chunk_size": 1, "progress": False, "job_id": "job"} | options
    job: lmsyz.BatchJob = DF.ie.batch("Give the digest.", backend=backend, **options)
    return job


def sizes(job: lmsyz.BatchJob) -> list[int]:
    return [part.n_requests for part in job.status().parts]


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_retry_makes_batches_no_larger_than_the_job_was_told_to(backend: str, sandbox: Any) -> None:
    sandbox.set_faults(batch_s=0.0, refused=1.0)
    job = submit(backend, max_requests_per_batch=2)
    job.wait(interval=0.05)
    sandbox.set_faults(batch_s=0.0)
    job.retry()
    assert sizes(job) == [2, 2, 1, 2, 2, 1]


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_batch_that_was_never_created_is_sent_in_smaller_ones_where_that_is_asked(backend: str, sandbox: Any) -> None:
    sandbox.set_faults(batch_s=0.0, rate_limited=1.0)
    with pytest.raises(RateLimitError):
        submit(backend)
    sandbox.set_faults(batch_s=0.0)
    job = submit(backend, max_requests_per_batch=3)
    assert sizes(job) == [3, 2]
    job.wait(interval=0.05)
    assert job.results()["ie_error"].isna().all()
    assert set(sandbox.stats()["batch_rows_paid"].values()) == {1}


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_retry_that_was_never_created_is_sent_in_smaller_ones_too(backend: str, sandbox: Any) -> None:
    sandbox.set_faults(batch_s=0.0, refused=1.0)
    job = submit(backend)
    job.wait(interval=0.05)
    sandbox.set_faults(batch_s=0.0, rate_limited=1.0)
    with pytest.raises(RateLimitError):
        job.retry()
    sandbox.set_faults(batch_s=0.0)
    job = submit(backend, max_requests_per_batch=3)
    assert sizes(job) == [5, 3, 2]
    job.wait(interval=0.05)
    assert job.results()["ie_error"].isna().all()


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_batch_that_was_created_stays_as_it_is_whatever_size_is_asked(backend: str) -> None:
    submit(backend)
    assert sizes(submit(backend, max_requests_per_batch=2)) == [5]


@pytest.mark.parametrize("backend", BACKENDS)
def test_answers_that_are_counted_and_not_given_back_are_said_to_be_lost(
    backend: str, sandbox: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(batch, "RESULTS_DUE_S", 0.0)
    sandbox.set_faults(batch_s=0.0, results_gone=True)
    job = submit(backend)
    job.wait(interval=0.05)
    words = "failed: of the 5 requests that the provider counts as answered it gave none back"
    assert (job.results()["ie_error"] == words).all()
