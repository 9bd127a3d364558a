"""A batch job killed between every two of its steps: run again, each row is paid for once, and all of them are home.

The child process is forked, runs the job, and kills itself at the k-th step; the steps are counted by wrapping what
touches disk and network, so that a step that is added later is killed in as well.
"""

from __future__ import annotations

import functools
import itertools
import os
import shutil
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from lmsyz import batch, batch_files, batch_frame, batch_ledger, batch_settle
from lmsyz.batch_job import BatchJob
from lmsyz.cache import SqliteCache
from lmsyz.providers.anthropic_batches import AnthropicBatches
from lmsyz.providers.openai_batches import OpenAIBatches

pytestmark = [
    pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork"),
    pytest.mark.usefixtures("quick_batches"),
]

PROMPT, SCHEMA = "Give the digest of each text.", {"digest": str}
DF = pd.DataFrame({"text": [f"Row {i} is one of a dozen." for i in range(12)]})
STEPS: list[tuple[Any, str]] = [
    (batch_ledger.Ledger, "save"),
    (batch_files.PartWriter, "write"),
    (batch_frame.FrameFile, "write"),
    (batch, "write_failures"),
    (batch_settle, "write_failures"),
    (SqliteCache, "put_chunks"),
    (SqliteCache, "save_run"),
    *(
        (kind, name)
        for kind in (OpenAIBatches, AnthropicBatches)
        for name in ("upload", "create", "retrieve", "download")
    ),
]


def run_job(backend: str) -> BatchJob:
    job: BatchJob = DF.ie.batch(
        PROMPT, schema=SCHEMA, backend=backend, job_id="job", cache_path="a.sqlite", max_requests_per_batch=2
    )
    job.wait(interval=0.05, timeout=60)
    return job


def kill_at(k: int) -> None:
    """Count what touches disk and network, before and after each, and die at the k-th."""
    counter = itertools.count()

    def dying(func: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(func)
        def wrapper(*args: Any, **kwargs: Any) -> Any:
            step()
            result = func(*args, **kwargs)
            step()
            return result

        return wrapper

    def step() -> None:
        if next(counter) == k:
            os.kill(os.getpid(), signal.SIGKILL)

    for home, name in STEPS:
        setattr(home, name, dying(getattr(home, name)))


def killed(k: int, backend: str) -> bool:
    """Run the job in a child that dies at step k; False once it has come to its end without."""
    pid = os.fork()
    if pid == 0:
        try:
            kill_at(k)
            run_job(backend)
        finally:
            os._exit(0)
    _, status = os.waitpid(pid, 0)
    return os.WIFSIGNALED(status)


@pytest.mark.parametrize("backend", ["openai", "anthropic"])
def test_a_kill_between_any_two_steps_loses_no_row_and_pays_for_none_twice(
    sandbox_default: Any, backend: str, tmp_path: Path
) -> None:
    n_kills = 0
    for k in itertools.count():
        shutil.rmtree("batch_jobs", ignore_errors=True)
        for path in tmp_path.glob("a.sqlite*"):
            path.unlink()
        sandbox_default.reset()
        sandbox_default.set_faults(batch_s=0.1)
        if not killed(k, backend):
            break
        n_kills += 1
        sandbox_default.advance(1)  # what was created has ended, and can tell whose it is
        job = run_job(backend)
        out = job.results()
        assert out["ie_error"].isna().all(), f"killed at step {k}: {job.status()}"
        assert rows_paid(sandbox_default) == dict.fromkeys(DF["text"], 1), f"killed at step {k}"
        n_requests = sandbox_default.stats()["n_requests"]
        live = DF.ie.extract(PROMPT, schema=SCHEMA, backend=backend, cache_path="a.sqlite")
        pd.testing.assert_frame_equal(live, out)
        assert sandbox_default.stats()["n_requests"] == n_requests
    assert n_kills > 40


def rows_paid(handle: Any) -> dict[str, int]:
    """How often each text was answered by a batch, and so paid for."""
    paid: dict[str, int] = handle.stats()["batch_rows_paid"]
    return {text: paid.get(text, 0) for text in DF["text"]}
