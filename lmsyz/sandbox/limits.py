"""Requests and tokens per minute: two buckets that fill with time, and what their headers tell."""

from __future__ import annotations

import math
import time
from collections.abc import Callable

from lmsyz.sandbox.faults import Faults
from lmsyz.sandbox.wire import LimitState

__all__ = ["Limits"]

# What the headers show where no limit is set: far beyond what one machine asks.
OPEN_REQUESTS, OPEN_TOKENS = 1_000_000, 1_000_000_000
BURST_S = {"requests": 1.0, "tokens": 10.0}


class _Bucket:
    """A bucket that holds a few seconds' worth and fills at a rate per minute."""

    def __init__(self, per_minute: float, burst_s: float, clock: Callable[[], float]) -> None:
        self.per_minute = per_minute
        self.per_second = per_minute / 60
        self.capacity = max(1.0, self.per_second * burst_s)
        self.level = self.capacity
        self._clock = clock
        self._filled_at = clock()

    def wait_s(self, cost: float) -> float:
        """Return the seconds until a cost may be taken; 0 for now."""
        now = self._clock()
        self.level = min(self.capacity, self.level + (now - self._filled_at) * self.per_second)
        self._filled_at = now
        return max(0.0, (min(cost, self.capacity) - self.level) / self.per_second)

    def state(self) -> tuple[int, int, float]:
        """Return limit, what is left, and seconds until all is back."""
        missing = self.capacity - self.level
        return math.floor(self.per_minute), max(0, math.floor(self.level)), missing / self.per_second


class Limits:
    """The limits of one sandbox.

    Parameters
    ----------
    faults : Faults
        Holds ``requests_per_minute`` and ``tokens_per_minute``.
    clock : callable
        Monotonic seconds.
    """

    def __init__(self, faults: Faults, clock: Callable[[], float] = time.monotonic) -> None:
        self._buckets: dict[str, _Bucket] = {}
        for name, rate in (("requests", faults.requests_per_minute), ("tokens", faults.tokens_per_minute)):
            if rate is not None:
                self._buckets[name] = _Bucket(rate, BURST_S[name], clock)

    def admit(self, tokens: int) -> tuple[str, float] | None:
        """Take one request of this size, or return which limit stops it and the seconds to wait."""
        costs = {"requests": 1.0, "tokens": float(tokens)}
        for name, bucket in self._buckets.items():
            wait_s = bucket.wait_s(costs[name])
            if wait_s > 1e-9:
                return name, wait_s
        for name, bucket in self._buckets.items():
            bucket.level -= costs[name]
        return None

    def spend(self, tokens: int) -> None:
        """Take the tokens of a reply, which may leave the bucket in debt."""
        if "tokens" in self._buckets:
            self._buckets["tokens"].level -= tokens

    def state(self) -> LimitState:
        """Return what the headers tell."""
        open_requests = (OPEN_REQUESTS, OPEN_REQUESTS - 1, 0.0)
        open_tokens = (OPEN_TOKENS, OPEN_TOKENS - 1, 0.0)
        requests, tokens = self._buckets.get("requests"), self._buckets.get("tokens")
        return LimitState(
            requests=requests.state() if requests else open_requests,
            tokens=tokens.state() if tokens else open_tokens,
        )
