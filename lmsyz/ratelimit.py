"""One limiter for all workers of a run: how many requests may be in flight, and how fast they may leave.

State, all under one lock
-------------------------
*Probe.* One request at a time until :meth:`Limiter.open`; then at once the full concurrency. There is no slow start:
what the provider told in the probe's headers already sets the pace.

*Pace.* Token buckets, one for requests and one for tokens, each from the user's cap and from the headers
(``limit`` a minute, the level kept down to ``remaining``). A worker reserves its moment under the lock and waits for
it outside, so that nobody is woken in vain.

*Backing off.* A 429 cuts the pace once for all: requests sent before the cut do not cut again. Without headers the
rate is what was admitted in the last second, then grown by the second. An overload (529) and a storm of 5xx also cut
the concurrency, which grows back with every success.
"""

from __future__ import annotations

import random
import re
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime

__all__ = ["Limiter", "LimiterState", "Limits", "read_limits", "retry_after_s"]

HEADROOM = 0.98  # of a limit that the provider names: its clock is not ours
ADMITTED_WINDOW_S = 1.0
GROWTH_PER_S = 1.07
LONG_PAUSE_S = 5.0
LONGEST_RETRY_AFTER_S = 86_400.0
DURATION = re.compile(r"(\d+(?:\.\d+)?)(ms|s|m|h|d)")
SECONDS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86_400.0}


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """What a provider's headers tell of its limits a minute; None where they do not."""

    requests: float | None = None
    requests_remaining: float | None = None
    tokens: float | None = None
    tokens_remaining: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class LimiterState:
    """The limiter at one moment, for a panel."""

    in_flight: int
    limit: int
    rate_per_s: float | None
    n_rate_limited: int
    probing: bool
    paused: bool


def read_limits(headers: Mapping[str, str]) -> Limits:
    """Read OpenAI's and Anthropic's rate-limit headers (names in lower case); they are advisory.

    Examples
    --------
    >>> read_limits({"x-ratelimit-limit-requests": "3000", "x-ratelimit-remaining-requests": "2999"}).requests
    3000.0
    """

    def number(*names: str) -> float | None:
        for name in names:
            try:
                value = float(headers[name])
            except (KeyError, ValueError):
                continue
            # Azure answers -1 or 0 for a limit that it does not tell.
            if value > 0 or (value == 0 and "remaining" in name):
                return value
        return None

    return Limits(
        requests=number("x-ratelimit-limit-requests", "anthropic-ratelimit-requests-limit"),
        requests_remaining=number("x-ratelimit-remaining-requests", "anthropic-ratelimit-requests-remaining"),
        tokens=number("x-ratelimit-limit-tokens", "anthropic-ratelimit-tokens-limit"),
        tokens_remaining=number("x-ratelimit-remaining-tokens", "anthropic-ratelimit-tokens-remaining"),
    )


def retry_after_s(headers: Mapping[str, str], now: Callable[[], float] = time.time) -> float | None:
    """Return the seconds that a provider asks to wait, None where it does not say.

    Examples
    --------
    >>> retry_after_s({"retry-after-ms": "1500"})
    1.5
    """
    for name, unit in (("retry-after-ms", 1000.0), ("retry-after", 1.0)):
        try:
            seconds = float(headers[name]) / unit
        except (KeyError, ValueError):
            continue
        if 0 <= seconds <= LONGEST_RETRY_AFTER_S:
            return seconds
    try:
        at = parsedate_to_datetime(headers["retry-after"])
    except (KeyError, ValueError, TypeError, IndexError):
        return None
    at = at if at.tzinfo else at.replace(tzinfo=UTC)
    return min(max(at.timestamp() - now(), 0.0), LONGEST_RETRY_AFTER_S)


def read_duration(text: str, now: Callable[[], float] = time.time) -> float | None:
    """Return the seconds of a reset header: ``120ms``, ``6m0s`` or an RFC 3339 moment."""
    parts = DURATION.findall(text)
    if parts and "".join(n + u for n, u in parts) == text.strip():
        return sum(float(n) * SECONDS[u] for n, u in parts)
    try:
        return max(datetime.fromisoformat(text).timestamp() - now(), 0.0)
    except ValueError:
        return None


class _Bucket:
    """A token bucket from which a future moment can be reserved: its level may go below zero."""

    def __init__(self, rate: float, capacity: float, now: float, level: float | None = None) -> None:
        self.rate = rate
        self.capacity = max(capacity, 1.0)
        self.level = self.capacity if level is None else level
        self.at = now

    def refill(self, now: float) -> None:
        if now > self.at:
            self.level = min(self.capacity, self.level + (now - self.at) * self.rate)
            self.at = now

    def reserve(self, now: float, amount: float) -> float:
        """Take an amount and return how long to wait until it is there."""
        self.refill(now)
        self.level -= amount
        return max(0.0, -self.level / self.rate)

    def lower(self, now: float, level: float) -> None:
        self.refill(now)
        self.level = min(self.level, level)


class Limiter:
    """Decides when the next request may leave.

    Parameters
    ----------
    max_concurrency : int
        Requests in flight, at most.
    requests_per_minute, tokens_per_minute : float, optional
        The user's own caps.
    stop : threading.Event
        Once set, :meth:`acquire` returns False; call :meth:`wake` after setting it.
    clock : callable
        Monotonic seconds.
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
        self._rng = rng or random.Random()
        self._free = threading.Condition(threading.Lock())
        self._in_flight = 0
        self._probing = True
        self._paused = False
        self._pause_until = 0.0
        now = clock()
        self._caps = [
            (_Bucket(cap / 60.0, max(1.0, cap / 60.0), now), by_tokens)
            for cap, by_tokens in ((requests_per_minute, False), (tokens_per_minute, True))
            if cap
        ]
        self._requests: _Bucket | None = None
        self._tokens: _Bucket | None = None
        self._told_rate: float | None = None
        self._admitted: deque[float] = deque(maxlen=4096)
        self._last_cut = self._last_growth = -1e9
        self._n_rate_limited = 0

    def acquire(self, tokens: int) -> bool:
        """Wait until a request of about so many tokens may leave; False once the run is stopped."""
        with self._free:
            while not self._stop.is_set() and (self._paused or self._in_flight >= self._allowed()):
                self._free.wait()
            if self._stop.is_set():
                return False
            self._in_flight += 1
            wait = self._reserve(tokens)
        while wait > 0:
            if self._stop.wait(wait):
                self._leave()
                return False
            with self._free:
                # Whoever waited through a pause for all spreads out behind it.
                wait = self._pause_until - self._clock()
                if wait > 0 and self._requests:
                    wait += self._requests.reserve(self._pause_until, 1.0)
        return True

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
        """Take note of an answer: ``ok``, ``rate_limited``, ``unavailable`` or ``other``."""
        with self._free:
            now = self._clock()
            if headers:
                self._learn(read_limits(headers), now)
            if tokens_used is not None:
                self._correct(tokens_used - tokens_estimated, now)
            if outcome == "ok":
                self._admit(now)
            elif outcome == "rate_limited":
                self._back_off(now, retry_after, now if sent_at is None else sent_at)
            elif outcome == "unavailable":
                self._limit = max(1.0, self._limit * 0.97)
            self._in_flight -= 1
            self._free.notify()

    def open(self) -> None:
        """The probe came back well: full speed from here."""
        if self._probing:
            with self._free:
                self._probing = False
                self._free.notify_all()

    def pause(self) -> None:
        """Let nothing leave until :meth:`resume`."""
        with self._free:
            self._paused = True

    def resume(self) -> None:
        """Go on after :meth:`pause`."""
        with self._free:
            self._paused = False
            self._free.notify_all()

    def wake(self) -> None:
        """Let everyone who waits see that the run is stopped."""
        with self._free:
            self._free.notify_all()

    def now(self) -> float:
        """Return the limiter's own time, for ``sent_at``."""
        return self._clock()

    @property
    def state(self) -> LimiterState:
        """The limiter at this moment."""
        with self._free:
            return LimiterState(
                in_flight=self._in_flight,
                limit=int(self._allowed()),
                rate_per_s=self._requests.rate if self._requests else None,
                n_rate_limited=self._n_rate_limited,
                probing=self._probing,
                paused=self._paused,
            )

    # --- under the lock ---------------------------------------------------------------------------------------

    def _allowed(self) -> float:
        return 1.0 if self._probing else max(1.0, self._limit)

    def _reserve(self, tokens: int) -> float:
        now = max(self._clock(), self._pause_until)
        waits = [b.reserve(now, float(tokens) if by_tokens else 1.0) for b, by_tokens in self._caps]
        if self._requests:
            waits.append(self._requests.reserve(now, 1.0))
        if self._tokens:
            waits.append(self._tokens.reserve(now, float(tokens)))
        return now - self._clock() + max(waits, default=0.0)

    def _leave(self) -> None:
        with self._free:
            self._in_flight -= 1
            self._free.notify()

    def _learn(self, limits: Limits, now: float) -> None:
        if limits.requests:
            self._told_rate = limits.requests / 60.0 * HEADROOM
            remaining = limits.requests_remaining
            if self._requests is None:
                level = limits.requests if remaining is None else remaining
                self._requests = _Bucket(self._told_rate, limits.requests, now, level - self._in_flight)
            self._requests.capacity = limits.requests
            if now - self._last_cut > 1.0:
                self._requests.rate = min(self._told_rate, self._requests.rate * 1.02)
            if remaining is not None:
                self._requests.lower(now, remaining)
        if limits.tokens:
            rate, remaining = limits.tokens / 60.0 * HEADROOM, limits.tokens_remaining
            if self._tokens is None:
                self._tokens = _Bucket(rate, limits.tokens, now, remaining)
            self._tokens.rate, self._tokens.capacity = rate, limits.tokens
            if remaining is not None:
                self._tokens.lower(now, remaining)

    def _correct(self, more: int, now: float) -> None:
        buckets = [b for b, by_tokens in self._caps if by_tokens] + ([self._tokens] if self._tokens else [])
        for bucket in buckets:
            bucket.refill(now)
            bucket.level = min(bucket.capacity, bucket.level - more)

    def _admit(self, now: float) -> None:
        self._admitted.append(now)
        if self._limit < self._max:
            self._limit = min(self._max, self._limit + 1.0)
        bucket = self._requests
        if bucket and self._told_rate is None and now - max(self._last_cut, self._last_growth) >= 1.0:
            self._last_growth = now
            quiet = now - self._last_cut
            bucket.rate *= GROWTH_PER_S if quiet < LONG_PAUSE_S else GROWTH_PER_S**2

    def _back_off(self, now: float, retry_after: float | None, sent_at: float) -> None:
        self._n_rate_limited += 1
        if sent_at <= self._last_cut:
            return
        self._last_cut = now
        if self._told_rate is not None and self._requests is not None:
            self._requests.rate = max(self._requests.rate * 0.95, self._told_rate * 0.5)
            self._requests.lower(now, 0.0)
            pause = retry_after if retry_after and retry_after > LONG_PAUSE_S else 0.0
        else:
            rate = self._estimate(now)
            self._requests = _Bucket(rate, 1.0, now, 0.0)
            pause = retry_after if retry_after is not None else 1.0
        self._pause_until = max(self._pause_until, now + pause * self._rng.uniform(1.0, 1.05))

    def _estimate(self, now: float) -> float:
        """Return a rate just under what was admitted in the last second, and under the rate that was refused."""
        admitted = sum(1 for t in self._admitted if t > now - ADMITTED_WINDOW_S)
        rate = max(admitted * 0.98 / ADMITTED_WINDOW_S, 1.0)
        return min(rate, self._requests.rate * 0.95) if self._requests and admitted else rate
