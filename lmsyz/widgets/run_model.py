"""What there is to say of a run at one moment; knows no widget."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

from lmsyz.report import STATUSES, Counts, reason_word
from lmsyz.run_report import dollars, number

if TYPE_CHECKING:
    from lmsyz.ratelimit import LimiterState
    from lmsyz.run import Run

__all__ = ["ROLES", "RunModel", "RunState"]

ROLES = {
    "cached": "cached",
    "ok": "ok",
    "in flight": "active",
    "waiting": "wait",
    "refused": "warn",
    "truncated": "warn",
    "invalid": "bad",
    "missing": "bad",
    "failed": "bad",
    "cancelled": "wait",
}
SPAN_S = 20.0  # over which a rate is measured: long enough to be calm, short enough to follow a change
KINDS_SHOWN = 8
WORDS_SHOWN = 240  # characters of a reason


@dataclass(frozen=True, slots=True, kw_only=True)
class RunState:
    """One moment of a run, in words and numbers ready to be shown.

    Attributes
    ----------
    parts : tuple of (name, count)
        Rows by status, in the order of :data:`ROLES`.
    pairs : tuple of (name, value)
        Everything else.
    errors : tuple of (kind, reason, rows, examples)
        Newest first within a kind, the kind with the newest error first.
    """

    title: str
    parts: tuple[tuple[str, int], ...]
    n_rows: int
    pairs: tuple[tuple[str, str], ...]
    errors: tuple[tuple[str, str, int, str], ...]
    n_failed: int
    is_live: bool
    is_paused: bool
    is_stopping: bool


class RunModel:
    """Reads a run, and remembers how it went lately for its rate.

    Parameters
    ----------
    run : Run
        Which one; :meth:`follow` turns to another.
    """

    def __init__(self, run: Run) -> None:
        self.follow(run)

    def follow(self, run: Run) -> None:
        """Turn to another run."""
        self._seen: deque[tuple[float, int]] = deque()
        self.run = run

    def state(self) -> RunState:
        """Return the run at this moment."""
        run = self.run
        is_live = run.is_live
        counts = run.counts
        limiter = run.engine.limiter.state if run.engine is not None and is_live else None
        rate = self._rate(counts, is_live)
        is_stopping = is_live and run.engine is not None and run.engine.stopped
        is_paused = limiter is not None and limiter.paused
        how = "stopping" if is_stopping else "paused" if is_paused else "running" if is_live else counts.how
        return RunState(
            title=f"Run {run.run_id}: {how}, {counts.n_done:,} of {counts.n_rows:,} rows",
            parts=tuple(self._parts(counts, limiter)),
            n_rows=counts.n_rows,
            pairs=tuple(self._pairs(counts, limiter, rate)),
            errors=_errors(counts),
            n_failed=sum(counts.n_failed.values()),
            is_live=is_live,
            is_paused=is_paused,
            is_stopping=is_stopping,
        )

    def _rate(self, counts: Counts, is_live: bool) -> float | None:
        """Return rows a second lately; over the whole run once it has ended."""
        asked = counts.n_done - counts.n_cached
        if not is_live:
            return asked / counts.wall_s if asked and counts.wall_s > 0 else None
        now = time.monotonic()
        seen = self._seen
        seen.append((now, asked))
        while len(seen) > 2 and seen[0][0] < now - SPAN_S:
            seen.popleft()
        passed = now - seen[0][0]
        if passed < 0.5:  # a first look has nothing to compare with
            return asked / counts.wall_s if asked and counts.wall_s > 0 else None
        return (asked - seen[0][1]) / passed

    def _parts(self, counts: Counts, limiter: LimiterState | None) -> Iterator[tuple[str, int]]:
        per_request = int(self.run.how_asked.get("chunk_size") or 1)
        in_flight = min(counts.n_waiting, limiter.in_flight * per_request) if limiter else 0
        known = {
            "cached": counts.n_cached,
            "ok": counts.n_ok,
            "in flight": in_flight,
            "waiting": counts.n_waiting - in_flight,
            **{word: counts.n_failed.get(word, 0) for word in STATUSES if word in ROLES},
        }
        known["failed"] += sum(n for word, n in counts.n_failed.items() if word not in ROLES)
        return ((name, known[name]) for name in ROLES)

    def _pairs(self, c: Counts, limiter: LimiterState | None, rate: float | None) -> Iterator[tuple[str, str]]:
        run, saved = self.run, self.run.saved
        share = _share(c)
        yield "cache hits", f"{c.n_cached:,} rows; saved {dollars(saved.cost)}"
        yield "rate", "not known yet" if rate is None else f"{rate:,.1f} rows a second"
        yield "time", _times(c, rate, limiter)
        yield "requests", _requests(c, limiter)
        if limiter is not None or c.waited_s:
            yield "rate limits", _limits(c, limiter)
        so_far = " so far" if run.is_live else ""
        tokens = f"{number(c.input_tokens)} in, {number(c.output_tokens)} out{so_far}"
        if share and c.input_tokens and c.output_tokens:
            tokens += f"; about {c.input_tokens / share:,.0f} in, {c.output_tokens / share:,.0f} out in all"
        yield "tokens", tokens
        cost = f"{dollars(c.cost)}{so_far}"
        yield "cost", cost + (f"; about {dollars(c.cost / share)} in all" if share and c.cost is not None else "")
        returned = ", ".join(m for m in c.models if m) or "no reply yet"
        yield "model", f"{run.task.model} at {run.task.endpoint} ({run.task.backend}); returned: {returned}"
        if run.task.endpoint == "sandbox":
            yield "note", "answers come from the sandbox's rules, not from a language model"
        yield "stored in", str(run.cache_path)
        error = run.engine.error if run.engine is not None else None
        if error is not None:
            yield "ended by", f"{type(error).__name__}: {error}"


def _share(c: Counts) -> float | None:
    """Return which share of the rows to be asked is done while some are left; None where that says nothing."""
    done, asked = c.n_done - c.n_cached, c.n_rows - c.n_cached
    return done / asked if done and c.n_waiting and c.n_ok else None


def _times(c: Counts, rate: float | None, limiter: LimiterState | None) -> str:
    so_far = _duration(c.wall_s)
    if limiter is None or not c.n_waiting:
        return so_far
    if limiter.paused:
        return f"{so_far}; paused"
    return f"{so_far}; {_duration(c.n_waiting / rate)} left" if rate else f"{so_far}; time left not known yet"


def _requests(c: Counts, limiter: LimiterState | None) -> str:
    sent = f"{c.n_requests:,} sent, {c.n_retries:,} retries"
    if c.n_reasked:
        sent += f", {c.n_reasked:,} rows asked again"
    if limiter is None:
        return sent
    probing = " (one at a time until the first answer)" if limiter.probing else ""
    return f"{limiter.in_flight:,} in flight of {limiter.limit:,} allowed now{probing}; {sent}"


def _limits(c: Counts, limiter: LimiterState | None) -> str:
    parts = []
    if limiter is not None and limiter.held_s > 0:
        parts.append(f"waiting {_duration(limiter.held_s)} as the provider asks")
    refused = limiter.n_rate_limited if limiter is not None else c.retries.get("rate_limited", 0)
    parts.append(f"{refused:,} requests refused")
    parts.append(f"{c.waited_s:,.1f} s waited between tries")
    if limiter is not None and limiter.rate_per_s is not None and limiter.n_rate_limited:
        parts.append(f"pace {limiter.rate_per_s:,.1f} requests a second")
    return ", ".join(parts)


def _errors(c: Counts) -> tuple[tuple[str, str, int, str], ...]:
    newest = list(c.reasons.items())[::-1]
    kinds = list(dict.fromkeys(reason_word(reason) for reason, _ in newest))
    rows = [
        (kind, reason.partition(": ")[2][:WORDS_SHOWN], n, ", ".join(str(e)[:40] for e in examples))
        for kind in kinds
        for reason, (n, examples) in newest
        if reason_word(reason) == kind
    ]
    return tuple(rows[:KINDS_SHOWN])


def _duration(seconds: float) -> str:
    if seconds < 60:
        return f"{seconds:.0f} s"
    minutes, left = divmod(int(seconds), 60)
    return f"{minutes} min {left:02d} s" if minutes < 60 else f"{minutes // 60} h {minutes % 60:02d} min"
