"""What becomes of a job once it is back: asked again and how, given up, or the end of the run. Pure.

A job that could not be used as a whole is halved, down to one row, so that one row that spoils a request is found in a
handful of calls. A row that is missing or invalid in an otherwise good reply is asked again without its neighbours.
Before the first good reply, failures of the request itself count for the whole run: what never works is asked a
handful of times, not once a row.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

from lmsyz.engine import Settled
from lmsyz.errors import (
    BlockedError,
    ImageError,
    LmsyzError,
    ProviderError,
    RateLimitError,
    RejectedError,
    TooLongError,
    UnavailableError,
    UnsupportedFormError,
)

__all__ = ["CANCELLED", "Judge", "Positions", "Verdict", "halves"]

Positions = tuple[int, ...]

ASKS_PER_ROW = 4  # besides the halvings that lead to a chunk of one
REFUSED_REQUESTS_BEFORE_STOP = 3
UNREADABLE_REPLIES_BEFORE_STOP = 8
FRUITLESS_ROWS_BEFORE_STOP = 40
CANCELLED = "cancelled: the run was stopped before this row was asked"


@dataclass(slots=True, kw_only=True)
class Verdict:
    """What to do after one job.

    Parameters
    ----------
    again : list of tuple of int
        Jobs to ask, by positions.
    failed : list of (tuple of int, str)
        Positions that are not asked again in this run, and the reason that ``ie_error`` shows.
    fatal : BaseException or None
        What ends the run, since no further request would escape it.
    """

    again: list[Positions] = field(default_factory=list)
    failed: list[tuple[Positions, str]] = field(default_factory=list)
    fatal: BaseException | None = None

    @property
    def n_again(self) -> int:
        """Rows that will be asked again."""
        return sum(map(len, self.again))


class Judge:
    """Judges the jobs of one run in the order they come back.

    Parameters
    ----------
    chunk_size : int
        Rows in a request, at most.
    n_workers : int
        Requests in flight, at most: so many may fail at once in one outage.
    patience_s : float
        A provider that asks to wait for longer, as at the end of a day's quota, ends the run.
    """

    def __init__(self, *, chunk_size: int, n_workers: int, patience_s: float = 600.0) -> None:
        self._patience_s = patience_s
        self._max_asks = ASKS_PER_ROW + math.ceil(math.log2(max(chunk_size, 1)))
        self._n_workers = n_workers
        self._asks: dict[int, int] = {}
        self._any_success = self._any_good = False
        self._fruitless: set[int] = set()
        self._refused_in_a_row = self._unreadable_in_a_row = self._unavailable_in_a_row = 0

    def reply(self, positions: Positions, settled: Settled) -> Verdict:
        """Judge a reply that was held against its rows.

        Parameters
        ----------
        positions : tuple of int
            The rows that were asked.
        settled : Settled
            Which of them have an answer.

        Returns
        -------
        Verdict
        """
        self._refused_in_a_row = self._unavailable_in_a_row = 0
        self._unreadable_in_a_row = 0 if settled.readable else self._unreadable_in_a_row + 1
        self._any_success = self._any_success or settled.readable
        verdict = self._ask_again(positions, settled) if settled.bad else Verdict()
        self._any_good = self._any_good or bool(settled.good)
        if not self._any_good:
            verdict.fatal = self._fruitless_error(positions, settled)
        if not self._any_success and self._unreadable_in_a_row >= UNREADABLE_REPLIES_BEFORE_STOP:
            reason = next(iter(settled.bad.values()))
            n = self._unreadable_in_a_row
            verdict.fatal = RejectedError(
                f"the first {n} replies could not be read ({reason}). Try another model, or a simpler schema"
            )
        return verdict

    def error(self, positions: Positions, error: Exception) -> Verdict:
        """Judge a request that brought no reply.

        Parameters
        ----------
        positions : tuple of int
            The rows that were asked.
        error : Exception
            What came instead, retries included.

        Returns
        -------
        Verdict
        """
        reason = f"failed: {error}"
        if isinstance(error, (UnavailableError, RateLimitError)):
            return self._unavailable(positions, reason, error)
        if isinstance(error, ImageError):  # nothing was sent: the row is found by halving, and the others are asked
            return Verdict(again=halves(positions)) if len(positions) > 1 else Verdict(failed=[(positions, reason)])
        if not isinstance(error, ProviderError) or isinstance(error, (RejectedError, UnsupportedFormError)):
            return Verdict(failed=[(positions, reason)], fatal=error)
        return self._refused(positions, error)

    def _fruitless_error(self, positions: Positions, settled: Settled) -> RejectedError | None:
        """Return what ends a run in which nothing that comes back fits: every row would be asked many times."""
        if settled.outcome in ("refused", "filtered"):
            return None  # that is about the rows, and is not asked many times
        self._fruitless.update(positions)
        if len(self._fruitless) < FRUITLESS_ROWS_BEFORE_STOP:
            return None
        reason = next(iter(settled.bad.values()))
        return RejectedError(
            f"not one of the first {len(self._fruitless)} rows has a usable answer ({reason}). Try the call on five"
            " rows, df.head().ie.extract(...), and mend the prompt, the schema or the model"
        )

    def _ask_again(self, positions: Positions, settled: Settled) -> Verdict:
        verdict = Verdict()
        alone: list[int] = []
        rest: list[int] = []
        for position, reason in settled.bad.items():
            # Only a row that was asked must be counted, so that memory does not grow with good rows.
            self._asks[position] = asks = self._asks.get(position, 0) + 1
            final = reason.startswith("refused") and len(positions) == 1
            if final or asks >= self._max_asks:
                verdict.failed.append(((position,), reason))
            else:
                (alone if position in settled.swapped else rest).append(position)
        verdict.again = [(p,) for p in alone]
        if rest:
            verdict.again += halves(rest) if len(settled.bad) == len(positions) else [tuple(rest)]
        return verdict

    def _unavailable(self, positions: Positions, reason: str, error: ProviderError) -> Verdict:
        self._unavailable_in_a_row += 1
        hopeless = (
            not self._any_success
            or self._unavailable_in_a_row > self._n_workers
            or (error.retry_after or 0.0) > self._patience_s
        )
        return Verdict(failed=[(positions, reason)], fatal=error if hopeless else None)

    def _refused(self, positions: Positions, error: LmsyzError) -> Verdict:
        about_these_rows = isinstance(error, (TooLongError, BlockedError))
        self._refused_in_a_row += not about_these_rows
        if not self._any_success and self._refused_in_a_row >= REFUSED_REQUESTS_BEFORE_STOP:
            return Verdict(failed=[(positions, f"failed: {error}")], fatal=error)
        if len(positions) > 1:
            return Verdict(again=halves(positions))
        word = "refused" if isinstance(error, BlockedError) else "failed"
        return Verdict(failed=[(positions, f"{word}: {error}")])


def halves(positions: Sequence[int]) -> list[Positions]:
    """Cut a job in two; one row stays one job.

    Examples
    --------
    >>> halves([1, 2, 3])
    [(1, 2), (3,)]
    """
    middle = (len(positions) + 1) // 2
    return [tuple(half) for half in (positions[:middle], positions[middle:]) if half]
