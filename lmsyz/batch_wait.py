"""Waiting for a batch job: look, tell, pause, until everything is home or only a person can tell how to go on."""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Callable
from typing import SupportsFloat

from lmsyz.batch_ledger import PartState
from lmsyz.batch_status import BatchStatus
from lmsyz.errors import BatchError, LmsyzError, RateLimitError, RunInterrupted, UnavailableError, UsageError
from lmsyz.progress import ProgressBar

__all__ = ["check_interval", "usual_pause_s", "wait_for"]

SHORTEST_POLL_S, LONGEST_POLL_S = 1.0, 60.0
POLL_AGE_SHARE = 20  # a job that is twenty minutes old is looked at every minute


def check_interval(interval: object) -> None:
    """Refuse what is no number of seconds between two looks."""
    if interval is None or (isinstance(interval, SupportsFloat) and 0 <= float(interval) <= threading.TIMEOUT_MAX):
        return
    raise UsageError(f"interval= is the seconds between two looks, a number from 0 up; got {interval!r:.60}")


def usual_pause_s(age_s: float) -> float:
    """Return the seconds between two looks at a job of this age: the older, the longer."""
    return min(max(age_s / POLL_AGE_SHARE, SHORTEST_POLL_S), LONGEST_POLL_S)


def wait_for(
    look: Callable[[], tuple[BatchStatus, list[LmsyzError]]],
    status: BatchStatus,
    *,
    interval: float | None,
    timeout: float | None,
    show: bool,
) -> BatchStatus:
    """Look again and again, as :meth:`lmsyz.BatchJob.wait` says.

    Parameters
    ----------
    look : callable
        Moves the job on; returns how it is doing, and what went wrong.
    status : BatchStatus
        How it is doing before.
    interval, timeout
        As there.
    show : bool
        Whether to paint a progress bar.

    Returns
    -------
    BatchStatus
    """
    started = time.monotonic()
    with ProgressBar(status.n_requests, status.n_requests_done, show=show, unit="request") as bar:
        try:
            while True:
                status, errors = look()
                _raise_what_does_not_pass(errors)
                bar.show(status.n_requests_done, _postfix(status, errors), label=f"batch {status.state}")
                left = None if timeout is None else timeout - (time.monotonic() - started)
                if status.is_done or (left is not None and left <= 0):
                    return status
                _ask_where_stuck(status)
                time.sleep(_pause_s(status, interval, left))
        except KeyboardInterrupt:
            raise RunInterrupted(
                f"Interrupted: the waiting, not the job. Batch job {status.job_id} goes on at the provider;"
                f" job.wait() or lmsyz.BatchJob.load({status.job_id!r}).wait() goes on waiting."
            ) from None


def _raise_what_does_not_pass(errors: list[LmsyzError]) -> None:
    for error in errors:
        if not isinstance(error, (UnavailableError, RateLimitError)):
            raise error


def _ask_where_stuck(status: BatchStatus) -> None:
    """Stop where every part that is left may or may not have been created, and only a person can tell."""
    unsure = [p for p in status.parts if p.state is PartState.UNSURE and p.candidates]
    if unsure and len(unsure) == sum(p.state.is_open for p in status.parts):
        part = unsure[0]
        raise BatchError(
            f"part {part.n} of job {status.job_id!r} may have been created just before the connection or the kernel"
            f" was lost: {', '.join(part.candidates)} at the provider has as many requests ({part.n_requests:,}). If it"
            f" is yours, job.adopt({part.n}, {part.candidates[0]!r}); if none is, job.create_again({part.n}). Once it"
            " has ended its results will tell, so waiting until then and calling job.wait() again decides it too."
        )


def _pause_s(status: BatchStatus, interval: float | None, left: float | None) -> float:
    age = time.time() - (status.submitted or time.time())
    pause = (usual_pause_s(age) if interval is None else interval) * random.uniform(0.9, 1.1)
    return pause if left is None else min(pause, left)


def _postfix(status: BatchStatus, errors: list[LmsyzError]) -> dict[str, object]:
    shown: dict[str, object] = {"answered": f"{status.n_good:,}"}
    if status.n_bad:
        shown["failed"] = f"{status.n_bad:,}"
    if status.expires:
        shown["expires"] = time.strftime("%a %H:%M", time.localtime(status.expires))
    if errors:
        shown["last look failed"] = type(errors[0]).__name__
    return shown
