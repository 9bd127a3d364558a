"""One limiter for all workers of a run: how many requests may be in flight, and when the next may leave.

State, all under one lock
-------------------------
*Queue.* Workers leave in the order they came. Only the first in the queue looks at the clock, so nobody is woken in
vain, and what changes meanwhile (a refusal, a pause, a stop) counts at once.

*Probe.* One request at a time until :meth:`Limiter.open`; then at once the full concurrency. Where a probe fails, the
next in the queue is the probe.

*Pace.* How fast, see :mod:`lmsyz.pace`. A refusal slows everybody, not only the worker that met it, for as long as
slowing down makes refusals fewer.

*Concurrency.* A storm of 5xx and timeouts cuts the number in flight, and every answer gives one back.
"""

from __future__ import annotations

import random
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from lmsyz.pace import LONG_WAIT_S, Pace
from lmsyz.ratelimit_headers import read_limits

__all__ = ["Limiter", "LimiterState"]

KEPT_AFTER_FAILURE = 0.97  # of the concurrency
LONGEST_LOOK_S = 1.0  # a stop that nobody announced is seen after that


@dataclass(frozen=True, slots=True, kw_only=True)
class LimiterState:
    """The limiter at one moment, for a panel."""

    in_flight: int
    limit: int
    rate_per_s: float | None
    n_rate_limited: int
    probing: bool
    paused: bool
    held_s: float  # for which refusals let nothing leave


class Limiter:
    """Decides when the next request may leave.

    Parameters
    ----------
    max_concurrency : int
        Requests in flight, at most.
    requests_per_minute, tokens_per_minute : float, optional
        The user's own caps.
    stop : threading.Event
        Once set, :meth:`acquire` returns False; :meth:`wake` makes that immediate.
    clock : callable
        Monotonic seconds.
    rng : random.Random, optional
        Spreads the pauses; give a seeded one for a repeatable run.
    """

    def __init__(
        self,
        *,
        max_concurrency: int,
        requests_per_minute: float | None = None,
        tokens_per_minute: float | None = None,
        stop: threading.Event,
        clock: Callable[[], float] = time.monotonic,
        rng: random.Random | None = None,
    ) -> None:
        self._max = max_concurrency
        self._limit = float(max_concurrency)
        self._stop = stop
        self._clock = clock
        self._pace = Pace(
            clock(), requests_per_minute=requests_per_minute, tokens_per_minute=tokens_per_minute, rng=rng
        )
        self._lock = threading.Lock()
        self._queue: deque[threading.Condition] = deque()
        self._in_flight = 0
        self._is_probing = True
        self._is_paused = False

    def acquire(self, tokens: int) -> bool:
        """Wait until a request of about so many tokens may leave; False once the run is stopped."""
        with self._lock:
            me = threading.Condition(self._lock)
            self._queue.append(me)
            try:
                while not self._stop.is_set():
                    wait = self._wait_s(tokens) if self._queue[0] is me else LONGEST_LOOK_S
                    if wait <= 0:
                        self._in_flight += 1
                        self._pace.send(self._clock(), tokens)
                        return True
                    me.wait(min(wait, LONGEST_LOOK_S))
                return False
            finally:
                self._queue.remove(me)
                self._call_first()

    def release(
        self,
        *,
        headers: Mapping[str, str] | None,
        outcome: str,
        retry_after: float | None = None,
        tokens_used: int | None = None,
        tokens_estimated: int = 0,
        sent_at: float | None = None,
    ) -> None:
        """Take note of how a request ended.

        Parameters
        ----------
        headers : mapping or None
            The answer's headers, names in lower case.
        outcome : str
            ``ok``, ``rate_limited``, ``unavailable`` or ``other``.
        retry_after : float, optional
            Seconds that the provider asks to wait.
        tokens_used : int, optional
            What the request cost, where the answer tells.
        tokens_estimated : int
            What :meth:`acquire` was told.
        sent_at : float, optional
            :meth:`now` at the time the request left.
        """
        with self._lock:
            now = self._clock()
            sent_at = now if sent_at is None else sent_at
            self._in_flight -= 1
            if headers:
                self._pace.learn(now, read_limits(headers), self._in_flight)
            if tokens_used is not None:
                self._pace.used(now, tokens_used - tokens_estimated)
            if outcome == "ok":
                self._pace.admitted(now, sent_at)
                self._limit = min(float(self._max), self._limit + 1.0)
            elif outcome == "rate_limited":
                self._pace.refused(now, sent_at, retry_after)
            elif outcome == "unavailable":
                self._limit = max(1.0, self._limit * KEPT_AFTER_FAILURE)
                if retry_after is not None and retry_after > LONG_WAIT_S:
                    self._pace.pause(now, retry_after)
            self._call_first()

    def open(self) -> None:
        """The probe came back well: full speed from here."""
        if self._is_probing:
            with self._lock:
                self._is_probing = False
                self._call_first()

    def pause(self) -> None:
        """Let nothing leave until :meth:`resume`."""
        with self._lock:
            self._is_paused = True

    def resume(self) -> None:
        """Go on after :meth:`pause`."""
        with self._lock:
            self._is_paused = False
            self._call_first()

    def wake(self) -> None:
        """Let everyone who waits see that the run is stopped."""
        with self._lock:
            for waiting in self._queue:
                waiting.notify()

    def now(self) -> float:
        """Return the limiter's own time, for ``sent_at``."""
        return self._clock()

    @property
    def state(self) -> LimiterState:
        """The limiter at this moment."""
        with self._lock:
            return LimiterState(
                in_flight=self._in_flight,
                limit=self._allowed(),
                rate_per_s=self._pace.rate_per_s,
                n_rate_limited=self._pace.n_refused,
                probing=self._is_probing,
                paused=self._is_paused,
                held_s=self._pace.pause_left(self._clock()),
            )

    # --- under the lock ---------------------------------------------------------------------------------------

    def _allowed(self) -> int:
        return 1 if self._is_probing else max(1, int(self._limit))

    def _wait_s(self, tokens: int) -> float:
        """Return how long the first in the queue has to wait as things are; 0 is its turn."""
        if self._is_paused or self._in_flight >= self._allowed():
            return LONGEST_LOOK_S
        now = self._clock()
        return self._pace.next_at(now, tokens) - now

    def _call_first(self) -> None:
        if self._queue:
            self._queue[0].notify()
