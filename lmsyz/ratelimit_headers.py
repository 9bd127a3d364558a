"""What response headers tell of a provider's rate limits, and how long it asks to wait. Pure."""

from __future__ import annotations

import math
import re
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from functools import partial

__all__ = ["Limits", "read_limits", "retry_after_s"]

LONGEST_RETRY_AFTER_S = 86_400.0
# What is kept by the minute is full again within a minute; the rest is for a clock that is not ours.
LONGEST_RESET_S = 90.0
DURATION = re.compile(r"(\d+(?:\.\d+)?)(ms|s|m|h|d)")
SECONDS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86_400.0}


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """What a provider tells of its limits a minute; None where it does not."""

    requests: float | None = None
    requests_remaining: float | None = None
    tokens: float | None = None
    tokens_remaining: float | None = None


def read_limits(headers: Mapping[str, str], now: Callable[[], float] = time.time) -> Limits:
    """Read OpenAI's and Anthropic's rate-limit headers (names in lower case).

    A limit that is full again only after more than a minute is one a day (Groq's, OpenAI's free models'); as a pace
    it would be far too fast, so it is left out.

    Examples
    --------
    >>> read_limits({"x-ratelimit-limit-requests": "3000", "x-ratelimit-remaining-requests": "2999"}).requests
    3000.0
    """
    now = partial(_moment_of, headers, now)
    requests = _limit(headers, "requests", now) or (None, None)
    tokens = _limit(headers, "tokens", now) or _limit(headers, "input-tokens", now) or (None, None)
    return Limits(requests=requests[0], requests_remaining=requests[1], tokens=tokens[0], tokens_remaining=tokens[1])


def retry_after_s(headers: Mapping[str, str], now: Callable[[], float] = time.time) -> float | None:
    """Return the seconds that a provider asks to wait, None where it does not say.

    Examples
    --------
    >>> retry_after_s({"retry-after-ms": "1500"})
    1.5
    """
    for name, unit in (("retry-after-ms", 1000.0), ("retry-after", 1.0)):
        seconds = _number(headers.get(name))
        if seconds is not None and seconds >= 0:
            return min(seconds / unit, LONGEST_RETRY_AFTER_S)
    at = _date(headers.get("retry-after"))
    return None if at is None else min(max(at - _moment_of(headers, now), 0.0), LONGEST_RETRY_AFTER_S)


def _moment_of(headers: Mapping[str, str], now: Callable[[], float]) -> float:
    """Return when an answer was sent, by its server's clock if it tells that: ours may be wrong by hours."""
    at = _date(headers.get("date"))
    return now() if at is None else at


def _date(text: str | None) -> float | None:
    try:
        at = parsedate_to_datetime(text or "")
        return (at if at.tzinfo else at.replace(tzinfo=UTC)).timestamp()
    except (ValueError, TypeError, IndexError, OverflowError):
        return None


def _limit(headers: Mapping[str, str], what: str, now: Callable[[], float]) -> tuple[float, float | None] | None:
    """Return a limit and what is left of it, None where there is none that is kept by the minute."""
    for limit, remaining, reset in (
        (f"x-ratelimit-limit-{what}", f"x-ratelimit-remaining-{what}", f"x-ratelimit-reset-{what}"),
        (
            f"anthropic-ratelimit-{what}-limit",
            f"anthropic-ratelimit-{what}-remaining",
            f"anthropic-ratelimit-{what}-reset",
        ),
    ):
        value = _number(headers.get(limit))
        # Azure answers -1 or 0 for a limit that it does not tell.
        if value is None or value <= 0:
            continue
        until_full = _until(headers.get(reset) or "", now)
        if until_full is not None and until_full > LONGEST_RESET_S:
            continue
        left = _number(headers.get(remaining))
        return value, left if left is not None and left >= 0 else None
    return None


def _until(text: str, now: Callable[[], float]) -> float | None:
    """Return the seconds of a reset header: ``120ms``, ``6m0s``, or a moment as RFC 3339 has it."""
    parts = DURATION.findall(text)
    if parts and "".join(number + unit for number, unit in parts) == text.strip():
        return sum(float(number) * SECONDS[unit] for number, unit in parts)
    try:
        at = datetime.fromisoformat(text)
    except ValueError:
        return None
    return (at if at.tzinfo else at.replace(tzinfo=UTC)).timestamp() - now()


def _number(text: str | None) -> float | None:
    try:
        value = float(text or "")
    except ValueError:
        return None
    return value if math.isfinite(value) else None
