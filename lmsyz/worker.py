"""One job from positions to an outcome: packed, sent at its turn, retried, and held against its rows.

Runs in the worker threads. It touches neither store nor screen; what it found out goes back as an `Outcome`.
"""

from __future__ import annotations

import itertools
import logging
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass

from lmsyz.engine import Settled, settle
from lmsyz.errors import LmsyzError, ProviderError, RateLimitError, UnavailableError, UnsupportedFormError
from lmsyz.events import Observer, RequestRetried, RequestSent, emit
from lmsyz.images import image_parts
from lmsyz.judge import Positions
from lmsyz.ladder import Ladder
from lmsyz.pricing import Pricer
from lmsyz.providers.base import Call, Form, JsonObject, Provider, Raw, Reply, Usage, dump_body, dump_content
from lmsyz.ratelimit import Limiter
from lmsyz.ratelimit_headers import retry_after_s
from lmsyz.retry import RetryEvent, RetryPolicy, Stopped, call_with_retry
from lmsyz.rows import Chunk, Rows, estimate_tokens, make_chunk
from lmsyz.task import Task

__all__ = ["Asker", "Exchange", "Outcome"]

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class Exchange:
    """A reply that came, was paid for, and was held against its rows.

    ``body`` and ``user`` are as they are stored: as sent, but with references in place of images. ``cost`` is in US
    dollars, None where the price is unknown.
    """

    chunk: Chunk
    form: Form
    body: str
    user: str
    raw: Raw
    reply: Reply
    settled: Settled
    attempts: int
    cost: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """What became of one job: an exchange, or the error that came instead."""

    positions: Positions
    exchange: Exchange | None = None
    error: Exception | None = None


class Asker:
    """Asks about the rows of one run; shared by all worker threads.

    Parameters
    ----------
    task, rows
        What is asked, of what.
    provider : Provider
        Carries the requests.
    call : Call
        Extra headers, query and deadline of each request.
    limiter : Limiter
        Whose turn it is.
    policy : RetryPolicy
        When to give up on a request that fails in a way that passes.
    stop : threading.Event
        Once set, nothing is sent.
    observers : sequence of Observer
        Told of requests and retries.
    """

    def __init__(
        self,
        *,
        task: Task,
        rows: Rows,
        provider: Provider,
        call: Call,
        limiter: Limiter,
        policy: RetryPolicy,
        stop: threading.Event,
        observers: Sequence[Observer],
    ) -> None:
        self._pricer = Pricer(task.backend, task.endpoint, task.model)
        self._task = task
        self._rows = rows
        self._provider = provider
        self._call = call
        self._limiter = limiter
        self._policy = policy
        self._stop = stop
        self._observers = observers
        self._ladder = Ladder(task, provider.forms(task))
        self._prompt_tokens = estimate_tokens(task.system)

    def ask(self, positions: Positions) -> Outcome:
        """Ask about some rows in one request; what goes wrong is in the outcome, never raised."""
        try:
            chunk = make_chunk(self._rows, positions, verify=self._task.verify)
            return Outcome(positions=positions, exchange=self._exchange(chunk))
        except Exception as error:  # noqa: BLE001 - told to the coordinator, which judges it
            return Outcome(positions=positions, error=error)
        except BaseException as error:  # noqa: BLE001 - as a validator's sys.exit(): it must not end a thread unseen
            return Outcome(positions=positions, error=LmsyzError(f"{type(error).__name__} in a worker: {error}"))

    def _exchange(self, chunk: Chunk) -> Exchange:
        while True:
            form = self._ladder.form
            try:
                return self._exchange_as(chunk, form)
            except UnsupportedFormError:
                if not self._ladder.refused(form):
                    raise

    def _exchange_as(self, chunk: Chunk, form: Form) -> Exchange:
        body = self._provider.build(self._task, chunk.user, form, image_parts(chunk.images))
        attempts = itertools.count()
        queued_s = 0.0

        def once() -> tuple[Raw, Reply]:
            nonlocal queued_s
            next(attempts)
            queued_s += self._queue(chunk)
            return self._send(body, chunk)

        raw, reply = call_with_retry(
            once,
            policy=self._policy,
            stop=self._stop,
            on_retry=self._tell_retry,
            # Waiting for its turn is no fault of a request, so it does not use up its time.
            clock=lambda: time.monotonic() - queued_s,
        )
        settled = settle(self._task, chunk, reply)
        if settled.good:
            self._ladder.worked(form)
        elif not settled.readable:
            self._ladder.unreadable(form)
        if settled.readable:
            self._limiter.open()
        stored = image_parts(chunk.images, as_stored=True)
        return Exchange(
            chunk=chunk,
            form=form,
            body=dump_body(self._provider.build(self._task, chunk.user, form, stored) if stored else body),
            user=dump_content(self._provider.content(chunk.user, stored)),
            raw=raw,
            reply=reply,
            settled=settled,
            attempts=next(attempts),
            cost=self._cost(reply),
        )

    def _cost(self, reply: Reply) -> float | None:
        try:
            return self._pricer.cost(reply.usage, reply.model)
        except Exception:
            log.exception("an exchange could not be priced")  # which must not keep it from the store
            return None

    def _queue(self, chunk: Chunk) -> float:
        """Wait for this request's turn, and return for how long."""
        queued_at = time.monotonic()
        if not self._limiter.acquire(self._tokens(chunk)):
            raise Stopped
        return time.monotonic() - queued_at

    def _tokens(self, chunk: Chunk) -> int:
        return self._prompt_tokens + chunk.tokens

    def _send(self, body: JsonObject, chunk: Chunk) -> tuple[Raw, Reply]:
        emit(self._observers, RequestSent())
        headers, outcome, wait, used = None, "other", None, None
        sent_at = self._limiter.now()
        try:
            raw = self._provider.send(body, self._call)
            headers, outcome = raw.headers, "ok"
            reply = self._provider.parse(raw.text)
            used = _total(reply.usage)
        except ProviderError as error:
            headers = headers or error.headers
            wait = error.retry_after if error.retry_after is not None else retry_after_s(headers)
            if isinstance(error, (RateLimitError, UnavailableError)):
                outcome = "rate_limited" if isinstance(error, RateLimitError) else "unavailable"
            raise
        finally:
            self._limiter.release(
                headers=headers,
                outcome=outcome,
                retry_after=wait,
                tokens_used=used,
                tokens_estimated=self._tokens(chunk),
                sent_at=sent_at,
            )
        return raw, reply

    def _tell_retry(self, event: RetryEvent) -> None:
        emit(self._observers, RequestRetried(kind=event.kind, wait_s=event.wait_s))


def _total(usage: Usage) -> int | None:
    if usage.input_tokens is None and usage.output_tokens is None:
        return None
    return (usage.input_tokens or 0) + (usage.output_tokens or 0)
