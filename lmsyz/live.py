"""The threadpool engine: a bounded window of chunks, worker threads that send, one coordinator that keeps the books.

Who owns what
-------------
*Workers* (daemon threads) take a job, pack it, wait for the limiter, send it, retry what passes, and hold the reply
against its rows. They touch neither store nor screen.

The *coordinator* (a daemon thread of its own, always) owns the store, the counts and what is to be asked again. It
writes each reply to disk as soon as it sees it; several that wait at once go into one transaction.

The *caller* only waits in short slices. An interrupt ends the waiting, not the bookkeeping: what is queued is dropped,
what is in flight is paid for and still lands in the store.

A row's states: waiting -> in flight -> good | asked again (missing, invalid, cut off) | failed | cancelled.
A chunk that could not be used as a whole is halved, down to one row.
"""

from __future__ import annotations

import itertools
import json
import logging
import math
import queue
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field

from lmsyz.engine import Plan, Settled, settle
from lmsyz.errors import (
    BlockedError,
    LmsyzError,
    ProviderError,
    RateLimitError,
    RejectedError,
    RequestError,
    TooLongError,
    UnavailableError,
    UnsupportedFormError,
)
from lmsyz.events import ChunkDone, Observer, RequestRetried, RequestSent, RowsFailed, RunFinished, emit
from lmsyz.ladder import Ladder
from lmsyz.pricing import Pricer
from lmsyz.providers.base import Call, Form, Provider, Raw, Reply, Usage, dump_body
from lmsyz.ratelimit import Limiter
from lmsyz.retry import RetryEvent, RetryPolicy, Stopped, call_with_retry
from lmsyz.rows import Chunk, Rows, chunk_positions, estimate_tokens, make_chunk
from lmsyz.store import AnswerRecord, RequestRecord, Store
from lmsyz.task import Task

__all__ = ["LiveEngine", "LiveOptions"]

log = logging.getLogger(__name__)

WINDOW_PER_WORKER = 2
ASKS_PER_ROW = 4  # besides the halvings that lead to a chunk of one
REFUSED_REQUESTS_BEFORE_STOP = 3
UNREADABLE_REPLIES_BEFORE_STOP = 8
EXAMPLES_PER_REASON = 5


@dataclass(frozen=True, slots=True, kw_only=True)
class LiveOptions:
    """How to run.

    Parameters
    ----------
    chunk_size : int
        Rows in a request, at most.
    token_budget : int
        Estimated tokens of text in a request, at most (a single longer row goes alone).
    max_workers : int
        Requests in flight, at most.
    requests_per_minute, tokens_per_minute : float or None
        The user's own caps.
    policy : RetryPolicy
        When to give up on a request that fails in a way that passes.
    """

    chunk_size: int
    token_budget: int
    max_workers: int
    requests_per_minute: float | None = None
    tokens_per_minute: float | None = None
    policy: RetryPolicy = field(default_factory=RetryPolicy)


@dataclass(frozen=True, slots=True)
class _Outcome:
    """What became of one job, as a worker hands it to the coordinator."""

    positions: tuple[int, ...]
    form: Form | None = None
    chunk: Chunk | None = None
    body: str = ""
    raw: Raw | None = None
    reply: Reply | None = None
    settled: Settled | None = None
    attempts: int = 1
    error: Exception | None = None


class LiveEngine:
    """One run over the rows that a plan left to ask.

    Parameters
    ----------
    task, rows, plan
        What is asked, of what, and what is left.
    provider : Provider
        Carries the requests.
    call : Call
        Extra headers, query and deadline of each request.
    store_factory : callable
        Opens the store in the coordinator's thread.
    options : LiveOptions
        Sizes and limits.
    observers : sequence of Observer
        Told of every event.
    run_id : str
        Written beside each exchange.
    """

    def __init__(
        self,
        *,
        task: Task,
        rows: Rows,
        plan: Plan,
        provider: Provider,
        call: Call,
        store_factory: Callable[[], Store],
        options: LiveOptions,
        observers: Sequence[Observer],
        run_id: str,
    ) -> None:
        self.task = task
        self.rows = rows
        self.plan = plan
        self.options = options
        self.failures: dict[bytes, str] = {}
        self.error: BaseException | None = None
        self.finished = threading.Event()
        self._provider = provider
        self._call = call
        self._store_factory = store_factory
        self._observers = observers
        self._run_id = run_id
        self._stop = threading.Event()
        self._work: queue.SimpleQueue[tuple[int, ...] | None] = queue.SimpleQueue()
        self._done: queue.SimpleQueue[_Outcome | None] = queue.SimpleQueue()
        self._again: deque[tuple[int, ...]] = deque()
        self._asks: dict[int, int] = {}
        self._max_asks = ASKS_PER_ROW + math.ceil(math.log2(max(options.chunk_size, 1)))
        self._ladder = Ladder(task, provider.forms(task))
        self._pricer = Pricer(task.backend, task.endpoint, task.model)
        self._any_success = False
        self._refused_in_a_row = 0
        self._unreadable_in_a_row = 0
        self._unavailable_in_a_row = 0
        self._prompt_tokens = estimate_tokens(task.system)
        self._n_workers = max(1, min(options.max_workers, len(plan.ask)))
        self.limiter = Limiter(
            max_concurrency=options.max_workers,
            requests_per_minute=options.requests_per_minute,
            tokens_per_minute=options.tokens_per_minute,
            stop=self._stop,
        )

    def start(self) -> None:
        """Start the coordinator and the workers; returns at once."""
        threading.Thread(target=self._coordinate, name="lmsyz-coordinator", daemon=True).start()

    def stop(self) -> None:
        """Send nothing more; what is in flight still lands in the store."""
        self._stop.set()
        self.limiter.wake()
        self._done.put(None)

    def pause(self) -> None:
        """Send nothing until :meth:`resume`; what is in flight still lands."""
        self.limiter.pause()

    def resume(self) -> None:
        """Go on after :meth:`pause`."""
        self.limiter.resume()

    @property
    def stopped(self) -> bool:
        """Whether the run was told to stop, by a person or by an error that ends it."""
        return self._stop.is_set()

    # --- coordinator ------------------------------------------------------------------------------------------

    def _coordinate(self) -> None:
        store: Store | None = None
        try:
            store = self._store_factory()
            for i in range(self._n_workers):
                threading.Thread(target=self._work_on, name=f"lmsyz-worker-{i}", daemon=True).start()
            self._keep_books(store)
        except BaseException as error:  # noqa: BLE001 - the caller's thread raises it
            self.error = self.error or error
            self.stop()
        finally:
            for _ in range(self._n_workers):
                self._work.put(None)
            if store is not None:
                store.close()
            how = "failed" if self.error else "stopped" if self.stopped else "done"
            emit(self._observers, RunFinished(how=how))
            self.finished.set()

    def _keep_books(self, store: Store) -> None:
        fresh = chunk_positions(
            self.rows,
            self.plan.ask,
            size=self.options.chunk_size,
            token_budget=self.options.token_budget,
            distinct_openings=self.task.verify,
        )
        window = self._n_workers * WINDOW_PER_WORKER
        out = 0
        while True:
            out += self._feed(fresh, window - out)
            if not out:
                break
            outcomes = self._next_outcomes()
            out -= len(outcomes)
            self._write(store, outcomes)
            for outcome in outcomes:
                self._judge(outcome)
        if self.stopped:
            self._cancel(itertools.chain(self._again, fresh))

    def _feed(self, fresh: Iterator[tuple[int, ...]], room: int) -> int:
        fed = 0
        while fed < room and not self.stopped:
            job = self._again.popleft() if self._again else next(fresh, None)
            if job is None:
                break
            self._work.put(job)
            fed += 1
        return fed

    def _next_outcomes(self) -> list[_Outcome]:
        """Wait for one outcome and take along all that are there already: they share a transaction."""
        outcomes = []
        first = self._done.get()
        if first is not None:
            outcomes.append(first)
        with_more = True
        while with_more:
            try:
                item = self._done.get_nowait()
            except queue.Empty:
                with_more = False
            else:
                if item is not None:
                    outcomes.append(item)
        return outcomes

    def _write(self, store: Store, outcomes: Sequence[_Outcome]) -> None:
        items = []
        for outcome in outcomes:
            if (
                outcome.raw is None
                or outcome.reply is None
                or outcome.settled is None
                or outcome.chunk is None
            ):
                continue
            answers = [self._answer_record(p, a) for p, a in outcome.settled.good.items()]
            items.append((self.plan.task_id, self._request_record(outcome), answers))
        if not items:
            return
        store.put_chunks(items)
        for outcome in outcomes:
            if outcome.settled is not None:
                self.plan.answers.update((self.rows.keys[p], a) for p, a in outcome.settled.good.items())

    def _answer_record(self, position: int, answer: str) -> AnswerRecord:
        key = self.rows.keys[position]
        ids: tuple[str, ...] = ()
        if self.rows.ids is not None:
            ids = tuple(self.rows.ids[p] for p in self.plan.twins.get(key, (position,)))
        return AnswerRecord(key=key, answer=answer, row_ids=ids)

    def _request_record(self, outcome: _Outcome) -> RequestRecord:
        assert outcome.raw and outcome.reply and outcome.settled and outcome.chunk
        usage = outcome.reply.usage
        return RequestRecord(
            body=outcome.body,
            user=json.dumps(outcome.chunk.user, ensure_ascii=False),
            reply=outcome.raw.text,
            form=str(outcome.form),
            outcome=outcome.settled.outcome,
            model=outcome.reply.model,
            provider_request_id=outcome.raw.request_id,
            input_tokens=usage.input_tokens,
            output_tokens=usage.output_tokens,
            cached_tokens=usage.cached_tokens,
            cache_write_tokens=usage.cache_write_tokens,
            reasoning_tokens=usage.reasoning_tokens,
            cost=self._pricer.cost(usage, outcome.reply.model),
            latency_s=outcome.raw.latency_s,
            attempts=outcome.attempts,
            n_rows=len(outcome.chunk),
            run_id=self._run_id,
            created=time.time(),
        )

    # --- what becomes of a job --------------------------------------------------------------------------------

    def _judge(self, outcome: _Outcome) -> None:
        if outcome.settled is not None:
            self._judge_reply(outcome, outcome.settled)
        elif isinstance(outcome.error, Stopped):
            self._cancel([outcome.positions])
        elif isinstance(outcome.error, ProviderError):
            self._judge_error(outcome.positions, outcome.error)
        else:
            self._end(outcome.positions, outcome.error or LmsyzError("a job came back without an outcome"))

    def _judge_reply(self, outcome: _Outcome, settled: Settled) -> None:
        self._refused_in_a_row = self._unavailable_in_a_row = 0
        if settled.readable:
            self._any_success = True
            self._unreadable_in_a_row = 0
        else:
            self._unreadable_in_a_row += 1
        n_reasked = self._ask_again(outcome.positions, settled)
        self._tell_chunk(outcome, settled, n_reasked)
        if not self._any_success and self._unreadable_in_a_row >= UNREADABLE_REPLIES_BEFORE_STOP:
            reason = next(iter(settled.bad.values()))
            self._end(
                (), RejectedError(f"the first {self._unreadable_in_a_row} replies were unusable ({reason})")
            )

    def _ask_again(self, positions: tuple[int, ...], settled: Settled) -> int:
        bad = settled.bad
        if not bad:
            return 0
        left: list[int] = []
        for position, reason in bad.items():
            self._asks[position] = self._asks.get(position, 0) + 1
            final = reason.startswith("refused") and len(positions) == 1
            if final or self._asks[position] >= self._max_asks:
                self._fail([position], reason)
            else:
                left.append(position)
        swapped = [p for p in left if "opening words" in bad[p]]
        self._again.extend((p,) for p in swapped)
        rest = [p for p in left if "opening words" not in bad[p]]
        self._again.extend(_halves(rest) if len(bad) == len(positions) else _whole(rest))
        return len(left)

    def _judge_error(self, positions: tuple[int, ...], error: ProviderError) -> None:
        if isinstance(error, (RejectedError, UnsupportedFormError)):
            self._end(positions, error)
        elif isinstance(error, (UnavailableError, RateLimitError)):
            self._unavailable_in_a_row += 1
            self._fail(positions, f"failed: {error}")
            if not self._any_success or self._unavailable_in_a_row > self._n_workers:
                self._end((), error)
        elif len(positions) > 1 and (isinstance(error, (TooLongError, BlockedError)) or self._any_success):
            self._again.extend(_halves(positions))
        else:
            self._refuse_request(positions, error)

    def _refuse_request(self, positions: tuple[int, ...], error: ProviderError) -> None:
        word = "refused" if isinstance(error, BlockedError) else "failed"
        self._fail(positions, f"{word}: {error}")
        if isinstance(error, RequestError) and not isinstance(error, (TooLongError, BlockedError)):
            self._refused_in_a_row += 1
            if not self._any_success and self._refused_in_a_row >= REFUSED_REQUESTS_BEFORE_STOP:
                self._end((), error)

    def _end(self, positions: Sequence[int], error: BaseException) -> None:
        """Stop the run for an error that no further request would escape; said once."""
        if self.error is None:
            self.error = error
            self.stop()
        if positions:
            self._fail(positions, f"failed: {error}")

    def _fail(self, positions: Sequence[int], reason: str) -> None:
        keys = [self.rows.keys[p] for p in positions]
        self.failures.update(dict.fromkeys(keys, reason))
        n_rows = sum(self._n_frame_rows(p) for p in positions)
        ids = self.rows.ids
        examples = tuple(ids[p] if ids is not None else str(p) for p in positions[:EXAMPLES_PER_REASON])
        emit(self._observers, RowsFailed(n_rows=n_rows, reason=reason, examples=examples))

    def _cancel(self, jobs: Iterator[tuple[int, ...]] | Sequence[tuple[int, ...]]) -> None:
        for positions in jobs:
            self._fail(positions, "cancelled: the run was stopped before this row was asked")

    def _n_frame_rows(self, position: int) -> int:
        return len(self.plan.twins.get(self.rows.keys[position], (position,)))

    def _tell_chunk(self, outcome: _Outcome, settled: Settled, n_reasked: int) -> None:
        assert outcome.raw and outcome.reply
        usage = outcome.reply.usage
        event = ChunkDone(
            n_ok=sum(self._n_frame_rows(p) for p in settled.good),
            n_reasked=n_reasked,
            outcome=settled.outcome,
            input_tokens=usage.input_tokens,
            output_tokens=usage.output_tokens,
            cached_tokens=usage.cached_tokens,
            cost=self._pricer.cost(usage, outcome.reply.model),
            latency_s=outcome.raw.latency_s,
            model=outcome.reply.model,
        )
        emit(self._observers, event)

    # --- workers ----------------------------------------------------------------------------------------------

    def _work_on(self) -> None:
        while True:
            positions = self._work.get()
            if positions is None:
                return
            try:
                outcome = self._ask(positions)
            except Exception as error:  # noqa: BLE001 - told to the coordinator, which ends the run with it
                outcome = _Outcome(positions, error=error)
            self._done.put(outcome)

    def _ask(self, positions: tuple[int, ...]) -> _Outcome:
        chunk = make_chunk(self.rows, positions)
        while True:
            form = self._ladder.form
            try:
                return self._exchange(chunk, form)
            except UnsupportedFormError as error:
                if not self._ladder.refused(form):
                    return _Outcome(positions, form, error=error)
            except (ProviderError, Stopped) as error:
                return _Outcome(positions, form, error=error)

    def _exchange(self, chunk: Chunk, form: Form) -> _Outcome:
        body = self._provider.build(self.task, chunk.user, form)
        attempts = itertools.count()

        def once() -> tuple[Raw, Reply]:
            next(attempts)
            return self._send(body, chunk)

        raw, reply = call_with_retry(
            once, policy=self.options.policy, stop=self._stop, on_retry=self._tell_retry
        )
        settled = settle(self.task, chunk, reply)
        if settled.readable:
            self._ladder.worked(form)
            self.limiter.open()
        else:
            self._ladder.unreadable(form)
        return _Outcome(chunk.positions, form, chunk, dump_body(body), raw, reply, settled, next(attempts))

    def _send(self, body: dict[str, object], chunk: Chunk) -> tuple[Raw, Reply]:
        estimate = self._prompt_tokens + chunk.tokens
        if not self.limiter.acquire(estimate):
            raise Stopped
        emit(self._observers, RequestSent())
        headers, outcome, wait, used = None, "other", None, None
        sent_at = self.limiter.now()
        try:
            raw = self._provider.send(body, self._call)
            headers, outcome = raw.headers, "ok"
            reply = self._provider.parse(raw.text)
            used = _total(reply.usage)
        except ProviderError as error:
            headers, wait = headers or error.headers, error.retry_after
            if isinstance(error, (RateLimitError, UnavailableError)):
                outcome = "rate_limited" if isinstance(error, RateLimitError) else "unavailable"
            raise
        finally:
            self.limiter.release(
                headers=headers,
                outcome=outcome,
                retry_after=wait,
                tokens_used=used,
                tokens_estimated=estimate,
                sent_at=sent_at,
            )
        return raw, reply

    def _tell_retry(self, event: RetryEvent) -> None:
        emit(self._observers, RequestRetried(kind=event.kind, wait_s=event.wait_s))


def _total(usage: Usage) -> int | None:
    if usage.input_tokens is None and usage.output_tokens is None:
        return None
    return (usage.input_tokens or 0) + (usage.output_tokens or 0)


def _halves(positions: Sequence[int]) -> list[tuple[int, ...]]:
    middle = (len(positions) + 1) // 2
    return [tuple(half) for half in (positions[:middle], positions[middle:]) if half]


def _whole(positions: Sequence[int]) -> list[tuple[int, ...]]:
    return [tuple(positions)] if positions else []
