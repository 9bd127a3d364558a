"""Who tries again, how often and after how long: tenacity decides, by the class of our own errors.

One owner of retries
--------------------
The SDK clients are built with ``max_retries=0``: stacked retries multiply, and an SDK's sleep cannot be interrupted.

:func:`call_with_retry` is the live engine's. It calls once, and enters tenacity only after a failure that passes.
A failure of kind ``unavailable`` and one of kind ``rate_limited`` have budgets of their own: a 429 says that the
provider is well and we are too fast, a 529 that all its users together are, and both may come often. The wait is full
jitter, or what the provider asked for. The sleep ends at once when the run is stopped, and then :class:`Stopped` is
raised and nothing is sent again.

:func:`retry_api_call` is the decorator for a user's own calls, around our functions or around an SDK's. It knows the
SDKs' exceptions by their attributes and class names, so that neither SDK is imported here.
"""

from __future__ import annotations

import logging
import random
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal, NoReturn, ParamSpec, TypeVar, overload

from tenacity import RetryCallState, Retrying, before_sleep_log, retry, retry_if_exception, stop_after_attempt
from tenacity import retry_if_exception_type as retry_if_type

from lmsyz.errors import ProviderError, RateLimitError, UnavailableError
from lmsyz.ratelimit_headers import retry_after_s
from lmsyz.transient import codes_of, is_out_of_credit, is_transient_status

__all__ = ["Kind", "RetryEvent", "RetryPolicy", "Stopped", "call_with_retry", "retry_api_call"]

log = logging.getLogger(__name__)
P = ParamSpec("P")
T = TypeVar("T")

Kind = Literal["unavailable", "rate_limited"]

_CONNECTION_ERRORS = frozenset({"APIConnectionError", "APITimeoutError"})


class Stopped(Exception):
    """The run was told to stop while a request waited for its turn; internal, never shown to a user."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RetryPolicy:
    """When to give up on a request that fails in a way that passes, and how long to wait between tries.

    Parameters
    ----------
    max_attempts_unavailable : int
        Failures of the kind 5xx, timeout, lost connection that one request may have.
    max_attempts_rate_limited : int
        Failures of the kind 429 or 529 that one request may have.
    max_time_s : float
        Seconds from the first failure to the next try. What a request waits for its turn before it first fails
        does not count: under a low rate limit that is no fault of the request.
    base_s, max_wait_s : float
        The wait after failure ``n`` (from 1) is drawn from ``0 .. min(max_wait_s, base_s * 2**(n - 1))``.
    """

    max_attempts_unavailable: int = 6
    max_attempts_rate_limited: int = 20
    max_time_s: float = 600.0
    base_s: float = 0.5
    max_wait_s: float = 30.0


@dataclass(frozen=True, slots=True, kw_only=True)
class RetryEvent:
    """A failure that will be tried again: the try that failed (from 1), the wait before the next, and why."""

    attempt: int
    wait_s: float
    kind: Kind
    error: ProviderError


def call_with_retry(
    func: Callable[[], T],
    *,
    policy: RetryPolicy,
    stop: threading.Event,
    on_retry: Callable[[RetryEvent], None] | None = None,
    rng: random.Random | None = None,
    sleep: Callable[[float], object] | None = None,
    clock: Callable[[], float] = time.monotonic,
) -> T:
    """Call ``func`` until it answers, fails for good, or has used up its budget.

    Parameters
    ----------
    func : callable
        Sends once. Each try takes and gives back its own place at the limiter.
    policy : RetryPolicy
        The budgets and the waits.
    stop : threading.Event
        Once set, ``func`` is not called again.
    on_retry : callable, optional
        Told before each wait.
    rng : random.Random, optional
        Draws the jitter; give a seeded one for a repeatable run.
    sleep : callable, optional
        Waits so many seconds; a true return means stopped. Default ``stop.wait``.
    clock : callable
        Monotonic seconds.

    Returns
    -------
    object
        What ``func`` returned.

    Raises
    ------
    RateLimitError, UnavailableError
        The last failure, with a note that says how often and how long it was tried.
    Stopped
        ``stop`` was set.

    Notes
    -----
    Anything else that ``func`` raises comes through at once.
    """
    if stop.is_set():
        raise Stopped
    try:
        return func()
    except (RateLimitError, UnavailableError) as error:
        tries = _Tries(error, policy, clock)
    # Outside of the except block: what follows is not raised "during handling" of the first failure.
    return _go_on(func, tries, stop, on_retry, rng or random.Random(), sleep or stop.wait)


class _Tries:
    """What one request has been through since its first failure."""

    def __init__(self, first: ProviderError, policy: RetryPolicy, clock: Callable[[], float]) -> None:
        self.policy = policy
        self.clock = clock
        self.started = clock()
        self.counts: dict[Kind, int] = {"unavailable": 0, "rate_limited": 0}
        self.first: ProviderError | None = first

    def replay_first(self) -> None:
        """Give tenacity the failure that came before it was asked."""
        if self.first is not None:
            error, self.first = self.first, None
            raise error

    def is_over(self, state: RetryCallState) -> bool:
        error = _failure(state)
        kind = _kind(error)
        self.counts[kind] += 1
        budgets: dict[Kind, int] = {
            "unavailable": self.policy.max_attempts_unavailable,
            "rate_limited": self.policy.max_attempts_rate_limited,
        }
        return self.counts[kind] >= budgets[kind] or self._is_too_late(state.upcoming_sleep)

    def _is_too_late(self, wait_s: float) -> bool:
        return self.clock() - self.started + wait_s > self.policy.max_time_s

    def give_up(self, state: RetryCallState) -> NoReturn:
        error = _failure(state)
        asked = error.retry_after
        if asked is not None and asked > self.policy.max_time_s:
            error.args = (
                f"{error} (the provider asks to wait {asked:.0f} s, longer than the {self.policy.max_time_s:.0f} s"
                " that one request may keep trying: run the same call again after that, finished rows are stored)",
            )
        spent = self.clock() - self.started
        error.add_note(f"gave up after {state.attempt_number} attempts and {spent:.1f} s of retries")
        raise error


def _go_on(
    func: Callable[[], T],
    tries: _Tries,
    stop: threading.Event,
    on_retry: Callable[[RetryEvent], None] | None,
    rng: random.Random,
    sleep: Callable[[float], object],
) -> T:
    def attempt() -> T:
        tries.replay_first()
        return func()

    def tell(state: RetryCallState) -> None:
        error = _failure(state)
        if on_retry is not None:
            on_retry(
                RetryEvent(attempt=state.attempt_number, wait_s=state.upcoming_sleep, kind=_kind(error), error=error)
            )

    def wait_or_stop(seconds: float) -> None:
        if sleep(seconds) or stop.is_set():
            raise Stopped

    policy = tries.policy
    retrying = Retrying(
        retry=retry_if_type((RateLimitError, UnavailableError)),
        wait=lambda state: _wait_s(
            _failure(state).retry_after, state.attempt_number, policy.base_s, policy.max_wait_s, rng
        ),
        stop=tries.is_over,
        sleep=wait_or_stop,
        before_sleep=tell,
        retry_error_callback=tries.give_up,
    )
    return retrying(attempt)


def _failure(state: RetryCallState) -> ProviderError:
    error = state.outcome.exception() if state.outcome is not None else None
    assert isinstance(error, ProviderError)
    return error


def _kind(error: ProviderError) -> Kind:
    return "rate_limited" if isinstance(error, RateLimitError) else "unavailable"


def _wait_s(retry_after: float | None, attempt: int, base_s: float, max_wait_s: float, rng: random.Random) -> float:
    """Return what was asked for plus a little, so that not all come back at one moment; else full jitter."""
    if retry_after is not None:
        return retry_after + rng.uniform(0.0, min(1.0, 0.05 + 0.1 * retry_after))
    # The exponent is bounded: 2.0**1024 overflows, and no wait is that long.
    return rng.uniform(0.0, min(max_wait_s, base_s * 2.0 ** min(attempt - 1, 60)))


# --- the decorator ----------------------------------------------------------------------------------------------


@overload
def retry_api_call(func: Callable[P, T]) -> Callable[P, T]: ...


@overload
def retry_api_call(
    *, max_attempts: int = ..., base_s: float = ..., max_wait_s: float = ...
) -> Callable[[Callable[P, T]], Callable[P, T]]: ...


def retry_api_call(
    func: Callable[..., Any] | None = None,
    *,
    max_attempts: int = 5,
    base_s: float = 2.0,
    max_wait_s: float = 30.0,
) -> Callable[..., Any]:
    """Try a call again while it fails in a way that passes, with growing jittered waits.

    Parameters
    ----------
    func : callable, optional
        The call. Left out where the decorator is used with arguments.
    max_attempts : int, default 5
        Tries in all; five is the seed's number.
    base_s, max_wait_s : float, default 2.0 and 30.0
        The wait after failure ``n`` (from 1) is drawn from ``0 .. min(max_wait_s, base_s * 2**(n - 1))``, unless
        the provider said how long to wait.

    Returns
    -------
    callable
        The same signature. It raises the last error itself once the tries are used up.

    Notes
    -----
    Tried again: :class:`~lmsyz.errors.RateLimitError`, :class:`~lmsyz.errors.UnavailableError`, and from the openai
    and anthropic SDKs connection errors, timeouts, 408, 409, 429 and everything from 500 on. Not: a 429 that says
    that quota or credit is used up, any other status, any other exception, and a Retry-After above ten minutes.
    An SDK retries within each try too, unless its client has ``max_retries=0``.

    Examples
    --------
    >>> @retry_api_call
    ... def ask(text):
    ...     return client.chat.completions.create(model=model, messages=[{"role": "user", "content": text}])
    """
    if func is None:
        return lambda wrapped: _with_retries(wrapped, max_attempts, base_s, max_wait_s)
    return _with_retries(func, max_attempts, base_s, max_wait_s)


def _with_retries(func: Callable[P, T], max_attempts: int, base_s: float, max_wait_s: float) -> Callable[P, T]:
    rng = random.Random()

    def wait(state: RetryCallState) -> float:
        error = state.outcome.exception() if state.outcome is not None else None
        return _wait_s(_asked_wait_s(error), state.attempt_number, base_s, max_wait_s, rng)

    return retry(
        reraise=True,
        retry=retry_if_exception(_is_transient),
        stop=stop_after_attempt(max_attempts),
        wait=wait,
        before_sleep=before_sleep_log(log, logging.WARNING),
    )(func)


def _is_transient(error: BaseException) -> bool:
    """Tell whether trying again can help: one of our errors, or an SDK's by its attributes and class names."""
    if isinstance(error, ProviderError):
        passes = isinstance(error, (RateLimitError, UnavailableError))
    elif _CONNECTION_ERRORS & {cls.__name__ for cls in type(error).__mro__}:
        passes = True
    else:
        status = getattr(error, "status_code", None)
        passes = isinstance(status, int) and is_transient_status(status) and not is_out_of_credit(_codes(error))
    asked = _asked_wait_s(error) if passes else None
    return passes and (asked is None or asked <= RetryPolicy().max_time_s)


def _codes(error: BaseException) -> set[str]:
    """Collect every place where the two SDKs keep a machine-readable reason."""
    body = getattr(error, "body", None)
    body = body if isinstance(body, Mapping) else {}
    inner = body.get("error")
    named = {getattr(error, name, None) for name in ("code", "error_code")}
    return codes_of(inner if isinstance(inner, Mapping) else body) | {c for c in named if isinstance(c, str)}


def _asked_wait_s(error: BaseException | None) -> float | None:
    if isinstance(error, ProviderError):
        return error.retry_after
    headers = getattr(getattr(error, "response", None), "headers", None)
    return retry_after_s(headers) if headers is not None else None
