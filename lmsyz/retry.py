"""Trying again: tenacity decides, by the class of our own errors; the wait can be stopped at any moment."""

from __future__ import annotations

import functools
import random
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ParamSpec, TypeVar, overload

from tenacity import RetryCallState, Retrying, retry, retry_if_exception, stop_after_attempt

from lmsyz.errors import ProviderError, RateLimitError, UnavailableError

__all__ = ["RetryEvent", "RetryPolicy", "Stopped", "call_with_retry", "retry_api_call"]

P = ParamSpec("P")
T = TypeVar("T")

TRANSIENT_STATUSES = (408, 409, 429)
PERMANENT_CODES = {
    "insufficient_quota",
    "billing_hard_limit_reached",
    "credits_exhausted",
    "credit_balance_exhausted",
    "enforced_spend_limit_reached",
    "contract_spend_limit_reached",
}
CONNECTION_ERRORS = {"APIConnectionError", "APITimeoutError"}


class Stopped(Exception):  # noqa: N818 - not an error: the run was told to stop
    """The run was told to stop while a request waited to be sent."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RetryPolicy:
    """When to give up on a request that fails in a way that passes.

    Parameters
    ----------
    max_unavailable, max_rate_limited : int
        Tries that may end with a 5xx or a lost connection, and with a 429; each has its own budget.
    max_time_s : float
        Seconds that one request may be tried in all.
    base_s, max_wait_s : float
        The wait before retry n is drawn from 0 to ``min(max_wait_s, base_s * 2**n)`` (full jitter).
    """

    max_unavailable: int = 6
    max_rate_limited: int = 20
    max_time_s: float = 600.0
    base_s: float = 0.5
    max_wait_s: float = 30.0


@dataclass(frozen=True, slots=True, kw_only=True)
class RetryEvent:
    """A request is about to wait and be sent again."""

    attempt: int
    wait_s: float
    kind: str
    error: BaseException


def call_with_retry(
    func: Callable[[], T],
    *,
    policy: RetryPolicy,
    stop: threading.Event,
    on_retry: Callable[[RetryEvent], None] | None = None,
    rng: random.Random | None = None,
) -> T:
    """Call `func`, and again while it fails in a way that passes.

    Parameters
    ----------
    func : callable
        Raises :class:`RateLimitError` or :class:`UnavailableError` where trying again may help.
    policy : RetryPolicy
        When to give up.
    stop : threading.Event
        Ends a wait at once; `func` is not called after that.
    on_retry : callable, optional
        Told before each wait.
    rng : random.Random, optional
        Where the jitter comes from.

    Returns
    -------
    What `func` returns.

    Raises
    ------
    Stopped
        The stop event was set during a wait.
    ProviderError
        The last error, once the budget is used up.
    """
    started = time.monotonic()
    try:
        return func()
    except (RateLimitError, UnavailableError) as error:
        first: ProviderError | None = error
    budget = _Budget(policy, rng or random.Random(), started)

    def again() -> T:
        nonlocal first
        if first is not None:
            error, first = first, None
            raise error
        return func()

    def sleep(seconds: float) -> None:
        if stop.wait(seconds):
            raise Stopped

    def before_sleep(state: RetryCallState) -> None:
        error = state.outcome.exception() if state.outcome else None
        if on_retry and error is not None and not stop.is_set():
            wait = state.next_action.sleep if state.next_action else 0.0
            on_retry(RetryEvent(attempt=state.attempt_number, wait_s=wait, kind=_kind(error), error=error))

    return Retrying(
        retry=retry_if_exception(lambda e: isinstance(e, (RateLimitError, UnavailableError))),
        stop=budget.used_up,
        wait=budget.wait,
        sleep=sleep,
        before_sleep=before_sleep,
        reraise=True,
    )(again)


class _Budget:
    """What one request has used of its policy."""

    def __init__(self, policy: RetryPolicy, rng: random.Random, started: float) -> None:
        self._policy = policy
        self._rng = rng
        self._started = started
        self._n = {"rate_limited": 0, "unavailable": 0}

    def used_up(self, state: RetryCallState) -> bool:
        error = state.outcome.exception() if state.outcome else None
        if error is None:
            return False
        self._n[_kind(error)] += 1
        left = self._policy.max_time_s - (time.monotonic() - self._started)
        asked = getattr(error, "retry_after", None) or 0.0
        return (
            self._n["rate_limited"] >= self._policy.max_rate_limited
            or self._n["unavailable"] >= self._policy.max_unavailable
            or left <= asked
        )

    def wait(self, state: RetryCallState) -> float:
        error = state.outcome.exception() if state.outcome else None
        cap = min(self._policy.max_wait_s, self._policy.base_s * 2 ** (state.attempt_number - 1))
        jitter = self._rng.uniform(0.0, cap)
        asked = getattr(error, "retry_after", None)
        return jitter if asked is None else asked + min(jitter, 0.25 * asked + 0.05)


def _kind(error: BaseException) -> str:
    return "rate_limited" if isinstance(error, RateLimitError) else "unavailable"


@overload
def retry_api_call(func: Callable[P, T], /) -> Callable[P, T]: ...


@overload
def retry_api_call(*, attempts: int = ..., max_wait_s: float = ...) -> Callable[[Callable[P, T]], Callable[P, T]]: ...


def retry_api_call(func: Any = None, /, *, attempts: int = 5, max_wait_s: float = 30.0) -> Any:
    """Retry a function that calls a provider: the seed package's decorator.

    Parameters
    ----------
    func : callable
        Calls a provider, through lmsyz or an SDK of its own.
    attempts : int
        Tries in all.
    max_wait_s : float
        The longest wait between two of them.

    Returns
    -------
    callable
        With the same signature. Errors that trying again cannot mend are raised at once.

    Examples
    --------
    >>> @retry_api_call
    ... def ask() -> str:
    ...     return "answer"
    >>> ask()
    'answer'
    """
    if func is None:
        return functools.partial(_decorated, attempts=attempts, max_wait_s=max_wait_s)
    return _decorated(func, attempts=attempts, max_wait_s=max_wait_s)


def _decorated(func: Callable[P, T], *, attempts: int, max_wait_s: float) -> Callable[P, T]:
    policy = RetryPolicy(max_wait_s=max_wait_s)

    def wait(state: RetryCallState) -> float:
        return _Budget(policy, random.Random(), time.monotonic()).wait(state)

    return retry(
        retry=retry_if_exception(_passes), stop=stop_after_attempt(attempts), wait=wait, reraise=True
    )(func)


def _passes(error: BaseException) -> bool:
    """Tell whether trying again may help, for our own errors and for what the SDKs raise."""
    if isinstance(error, ProviderError):
        return isinstance(error, (RateLimitError, UnavailableError))
    if any(cls.__name__ in CONNECTION_ERRORS for cls in type(error).__mro__):
        return True
    status = getattr(error, "status_code", None)
    if not isinstance(status, int):
        return False
    if status == 429 and {getattr(error, "code", None), getattr(error, "type", None)} & PERMANENT_CODES:
        return False
    return status in TRANSIENT_STATUSES or status >= 500
