"""What a run did, counted as it happens: rows by status, requests, tokens, money, errors with examples."""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field

from lmsyz.events import ChunkDone, Event, RequestRetried, RequestSent, RowsFailed, RunFinished, RunStarted

__all__ = ["STATUSES", "Counts", "Tally", "cause", "reason_word"]

STATUSES = ("refused", "truncated", "invalid", "missing", "failed", "cancelled", "pending")
REASONS_KEPT = 200
EXAMPLES_KEPT = 5


def reason_word(reason: str) -> str:
    """Return the word that a reason begins with, which is its status.

    Examples
    --------
    >>> reason_word("invalid: empty text")
    'invalid'
    """
    return reason.partition(":")[0]


def cause(reason: str) -> str:
    """Return a reason without the value that came, so that rows that failed for one cause share it.

    Examples
    --------
    >>> cause("invalid: field 'n' is text, not a whole number (got 'two')")
    "invalid: field 'n' is text, not a whole number"
    """
    return reason.partition(" (got ")[0]


@dataclass(frozen=True, slots=True, kw_only=True)
class Counts:
    """The figures of a run at one moment.

    ``cost`` is None where the price of any exchange is unknown; ``n_waiting`` is what has no answer and no error yet.
    """

    n_rows: int
    n_cached: int
    n_ok: int
    n_failed: Mapping[str, int]
    n_requests: int
    n_replies: int
    n_retries: int
    n_reasked: int
    n_foreign: int
    retries: Mapping[str, int]
    waited_s: float
    input_tokens: int | None
    output_tokens: int | None
    cached_tokens: int
    cost: float | None
    models: Mapping[str, int]
    outcomes: Mapping[str, int]
    reasons: Mapping[str, tuple[int, tuple[str, ...]]]
    wall_s: float
    latency_s: float | None
    how: str

    @property
    def n_done(self) -> int:
        """Rows that have an answer or an error; those that a stopped run never asked have neither."""
        return self.n_cached + self.n_ok + sum(self.n_failed.values()) - self.n_cancelled

    @property
    def n_cancelled(self) -> int:
        """Rows that were not asked, since the run was stopped."""
        return self.n_failed.get("cancelled", 0)

    @property
    def n_waiting(self) -> int:
        """Rows that have neither yet."""
        return self.n_rows - self.n_done - self.n_cancelled


@dataclass(slots=True)
class _Sums:
    n_rows: int = 0
    n_cached: int = 0
    n_ok: int = 0
    n_requests: int = 0
    n_replies: int = 0
    n_reasked: int = 0
    n_foreign: int = 0
    waited_s: float = 0.0
    input_tokens: int | None = 0
    output_tokens: int | None = 0
    cached_tokens: int = 0
    cost: float | None = 0.0
    latency_s: float = 0.0
    how: str = "running"
    failed: Counter[str] = field(default_factory=Counter)
    retries: Counter[str] = field(default_factory=Counter)
    models: Counter[str] = field(default_factory=Counter)
    outcomes: Counter[str] = field(default_factory=Counter)
    reasons: dict[str, tuple[int, tuple[str, ...]]] = field(default_factory=dict)


class Tally:
    """An observer that counts. Its size does not grow with the rows."""

    def __init__(self) -> None:
        self._sums = _Sums()
        self._lock = threading.Lock()
        self._started = time.monotonic()
        self._ended: float | None = None

    def __call__(self, event: Event, /) -> None:
        """Take note of one event."""
        with self._lock:
            match event:
                case RequestSent():
                    self._sums.n_requests += 1
                case ChunkDone():
                    self._count_chunk(event)
                case RowsFailed():
                    self._count_failed(event)
                case RequestRetried():
                    self._sums.retries[event.kind] += 1
                    self._sums.waited_s += event.wait_s
                case RunStarted():
                    self._sums.n_rows, self._sums.n_cached = event.n_rows, event.n_cached
                    if event.n_empty:
                        self._sums.failed["invalid"] += event.n_empty
                        self._sums.reasons[event.why_empty] = (event.n_empty, ())
                case RunFinished():
                    self._sums.how = event.how
                    self._ended = time.monotonic()

    def _count_chunk(self, event: ChunkDone) -> None:
        sums = self._sums
        sums.n_ok += event.n_ok
        sums.n_replies += 1
        sums.n_reasked += event.n_reasked
        sums.n_foreign += event.n_foreign
        sums.input_tokens = _plus(sums.input_tokens, event.input_tokens)
        sums.output_tokens = _plus(sums.output_tokens, event.output_tokens)
        sums.cached_tokens += event.cached_tokens or 0
        sums.cost = None if sums.cost is None or event.cost is None else sums.cost + event.cost
        sums.latency_s += event.latency_s
        sums.models[event.model] += 1
        sums.outcomes[event.outcome] += 1

    def _count_failed(self, event: RowsFailed) -> None:
        word = reason_word(event.reason)
        self._sums.failed[word] += event.n_rows
        self._sums.n_ok -= event.n_told_ok
        reasons, reason = self._sums.reasons, cause(event.reason)
        # Reasons may quote a provider, so there can be as many as rows; the size of a tally must not grow with them.
        if reason not in reasons and len(reasons) >= REASONS_KEPT:
            reason = f"{word}: other reasons"
        n, examples = reasons.pop(reason, (0, ()))  # put back last: the newest is last
        reasons[reason] = (n + event.n_rows, (*examples, *event.examples)[:EXAMPLES_KEPT])

    def counts(self) -> Counts:
        """Return the figures of this moment."""
        with self._lock:
            s = self._sums
            return Counts(
                n_rows=s.n_rows,
                n_cached=s.n_cached,
                n_ok=s.n_ok,
                n_failed=dict(s.failed),
                n_requests=s.n_requests,
                n_replies=s.n_replies,
                n_retries=sum(s.retries.values()),
                n_reasked=s.n_reasked,
                n_foreign=s.n_foreign,
                retries=dict(s.retries),
                waited_s=s.waited_s,
                input_tokens=s.input_tokens,
                output_tokens=s.output_tokens,
                cached_tokens=s.cached_tokens,
                cost=s.cost,
                models=dict(s.models),
                outcomes=dict(s.outcomes),
                reasons=dict(s.reasons),
                wall_s=(self._ended or time.monotonic()) - self._started,
                latency_s=s.latency_s / s.n_replies if s.n_replies else None,
                how=s.how,
            )


def _plus(total: int | None, tokens: int | None) -> int | None:
    return None if total is None or tokens is None else total + tokens
