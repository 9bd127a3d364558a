"""A batch that may have been created without our hearing of it is found again, whatever clocks and results say."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable
from typing import Any

import pandas as pd
import pytest

from lmsyz import batch
from lmsyz.batch import BatchEngine
from lmsyz.batch_job import BatchJob
from lmsyz.batch_ledger import Ledger
from lmsyz.batch_setup import make_engine
from lmsyz.batch_submit import submit_batch
from lmsyz.errors import UnavailableError

pytestmark = pytest.mark.usefixtures("quick_batches")

PROMPT, SCHEMA = "Give the digest of each text.", {"digest": str}
DF = pd.DataFrame({"text": [f"Row {i} is one of a dozen." for i in range(12)]})
HOUR_S = 3600.0


def unheard(server: Any, backend: str, clock: Callable[[], float]) -> BatchJob:
    """Submit a job whose six batches are created without an answer, by a clock of its own."""
    server.set_faults(batch_s=0.05, create_timeout=1.0, batch_foreign=1.0)
    job = submit_batch(
        DF,
        PROMPT,
        schema=SCHEMA,
        backend=backend,
        job_id="job",
        cache_path="a.sqlite",
        chunk_size=2,
        max_requests_per_batch=1,
        send=False,
    )
    errors = engine(job, clock).push()
    assert errors
    assert all(isinstance(e, UnavailableError) for e in errors)
    return job


def engine(job: BatchJob, clock: Callable[[], float]) -> BatchEngine:
    made = make_engine(Ledger.load(job.folder), job._connected())
    made._clock = clock
    return made


def assert_created_once(server: Any, job: BatchJob, clock: Callable[[], float]) -> None:
    server.set_faults(batch_s=0.05)
    server.advance(1)
    for _ in range(4):
        engine(job, clock).push()
        server.advance(1)
    out = job.results()
    assert out["ie_error"].isna().all(), out["ie_error"].value_counts()
    assert server.stats()["n_batches_created"] == 6


@pytest.mark.parametrize("wrong_by_s", [2 * HOUR_S, 14 * HOUR_S, -14 * HOUR_S])
def test_a_clock_that_is_wrong_by_hours_creates_no_batch_twice(
    sandbox_default: Any, backend: str, wrong_by_s: float
) -> None:
    job = unheard(sandbox_default, backend, lambda: time.time() + wrong_by_s)
    assert_created_once(sandbox_default, job, lambda: time.time() + wrong_by_s)


def test_a_clock_that_is_set_right_after_the_creation_creates_no_batch_twice(
    sandbox_default: Any, backend: str
) -> None:
    job = unheard(sandbox_default, backend, lambda: time.time() + 40 * HOUR_S)
    assert_created_once(sandbox_default, job, time.time)


def test_a_clock_that_is_set_back_does_not_make_a_part_wait_until_it_has_caught_up(
    sandbox_default: Any, backend: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(batch, "GRACE_S", 60.0)
    job = unheard(sandbox_default, backend, lambda: time.time() + 14 * HOUR_S)
    monkeypatch.setattr(type(job._connected().batches), "recent", lambda *args: iter(()))  # nothing was created
    sandbox_default.set_faults(batch_s=0.05)
    engine(job, time.time).push()
    assert sandbox_default.stats()["n_batches_created"] == 6
    engine(job, lambda: time.time() + 61).push()
    assert sandbox_default.stats()["n_batches_created"] == 12


def test_a_batch_is_ours_wherever_in_its_results_our_ids_are(sandbox_default: Any) -> None:
    job = unheard(sandbox_default, "anthropic", time.time)
    assert_created_once(sandbox_default, job, time.time)
    assert sandbox_default.stats()["n_faults"]["batch_foreign"] == 6


def test_an_ended_batch_without_results_may_be_ours_and_is_not_created_again(sandbox_default: Any) -> None:
    job = unheard(sandbox_default, "anthropic", time.time)
    sandbox_default.advance(1)
    sandbox_default.set_faults(batch_s=0.05, results_gone=True)
    engine(job, time.time).push()
    assert {str(p.state) for p in Ledger.load(job.folder).parts} == {"unsure"}
    assert_created_once(sandbox_default, job, time.time)


def test_a_web_page_in_place_of_results_is_not_taken_for_them(
    sandbox_default: Any, backend: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    job = unheard(sandbox_default, backend, time.time)
    kind = type(job._connected().batches)

    def portal(self: Any, file: Any, path: Any, call: Any) -> None:
        path.write_bytes(b"<!doctype html><title>Sign in</title>")

    with monkeypatch.context() as patch:
        patch.setattr(kind, "download", portal)
        sandbox_default.advance(1)
        errors = engine(job, time.time).push()
        assert "a web page came in place of the output file" in str(errors[-1])
    assert_created_once(sandbox_default, job, time.time)


@pytest.mark.parametrize("broken_by", [UnavailableError, KeyboardInterrupt])
def test_a_batch_whose_creation_took_minutes_is_given_its_time_to_appear(
    sandbox_default: Any, backend: str, monkeypatch: pytest.MonkeyPatch, broken_by: type[BaseException]
) -> None:
    monkeypatch.setattr(batch, "GRACE_S", 60.0)
    sandbox_default.set_faults(batch_s=0.05)
    job = submit_batch(DF, PROMPT, schema=SCHEMA, backend=backend, job_id="job", cache_path="a.sqlite", send=False)
    kind, late_s = type(job._connected().batches), [0.0]
    create = kind.create

    def slow(*args: Any) -> None:
        create(*args)
        late_s[0] += 300.0
        raise broken_by("the line was cut")

    def clock() -> float:
        return time.time() + late_s[0]

    with monkeypatch.context() as patch:
        patch.setattr(kind, "create", slow)
        with contextlib.suppress(KeyboardInterrupt):
            engine(job, clock).push()
        patch.setattr(kind, "create", create)
        patch.setattr(kind, "recent", lambda *args: iter(()))  # not listed yet
        engine(job, clock).push()
    late_s[0] += 5.0
    sandbox_default.advance(1)
    engine(job, clock).push()
    assert sandbox_default.stats()["n_batches_created"] == 1
    assert job.results()["ie_error"].isna().all()
