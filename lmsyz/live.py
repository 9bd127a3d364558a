"""The threadpool engine: worker threads that send, a job each, and one coordinator that keeps the books.

Who owns what
-------------
*Workers* (daemon threads) take a job and come back with its outcome, see `worker`. They touch neither store nor screen.

The *coordinator* (a daemon thread of its own, always) owns the store, the counts and what is to be asked again. It
writes each reply to disk as soon as it sees it; several that wait at once go into one transaction.

The *caller* only waits in short slices. An interrupt ends the waiting, not the bookkeeping: what is queued is dropped,
what is in flight is paid for and still lands in the store.

A row's states: waiting -> in flight -> good | asked again (missing, invalid, cut off) | failed | cancelled.
"""

from __future__ import annotations

import itertools
import logging
import queue
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field

from lmsyz.engine import Plan
from lmsyz.errors import CacheError, LmsyzError
from lmsyz.events import ChunkDone, Observer, RowsFailed, RunFinished, emit
from lmsyz.exchange_writer import ExchangeWriter
from lmsyz.image_rows import chunks_within
from lmsyz.judge import CANCELLED, Judge, Positions, Verdict
from lmsyz.long_rows import RowCount
from lmsyz.providers.base import Call, Provider
from lmsyz.providers.images import image_limits
from lmsyz.ratelimit import Limiter
from lmsyz.retry import RetryPolicy, Stopped
from lmsyz.rows import Rows, chunk_positions
from lmsyz.store import Store
from lmsyz.task import Task
from lmsyz.worker import Asker, Exchange, Outcome

__all__ = ["LiveEngine", "LiveOptions"]

log = logging.getLogger(__name__)

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
    on_end : callable
        Called with the open store when all is over, before :attr:`finished` is set.
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
        on_end: Callable[[Store], None],
    ) -> None:
        self.rows = rows.asked
        self.plan = plan
        self._count = RowCount(rows, plan.twins, plan.answers)
        self.failures: dict[bytes, str] = {}
        self.error: BaseException | None = None
        self.finished = threading.Event()
        self._turn = threading.Lock()  # whoever takes it first decides whether there is a run at all
        self._store_factory = store_factory
        self._observers = observers
        self._writer = ExchangeWriter(self.rows, plan, run_id)
        self._on_end = on_end
        self._provider = provider
        self._stop = threading.Event()
        self._work: queue.SimpleQueue[Positions | None] = queue.SimpleQueue()
        self._done: queue.SimpleQueue[Outcome | None] = queue.SimpleQueue()
        self._again: deque[Positions] = deque()
        self._n_out = 0
        self._n_workers = max(1, min(options.max_workers, len(plan.ask)))
        self._judge = Judge(
            chunk_size=options.chunk_size, n_workers=self._n_workers, patience_s=options.policy.max_time_s
        )
        self._fresh = self._chunks(task, options)
        self.limiter = Limiter(
            max_concurrency=options.max_workers,
            requests_per_minute=options.requests_per_minute,
            tokens_per_minute=options.tokens_per_minute,
            stop=self._stop,
        )
        self._asker = Asker(
            task=task,
            rows=self.rows,
            provider=provider,
            call=call,
            limiter=self.limiter,
            policy=options.policy,
            stop=self._stop,
            observers=observers,
        )

    def _chunks(self, task: Task, options: LiveOptions) -> Iterator[Positions]:
        chunks = chunk_positions(
            self.rows,
            self.plan.ask,
            size=options.chunk_size,
            token_budget=options.token_budget,
            distinct_openings=task.verify,
        )
        return chunks_within(chunks, self.rows, image_limits(task.backend))

    def start(self) -> None:
        """Start the coordinator and the workers; returns at once."""
        try:
            threading.Thread(target=self._coordinate, name="lmsyz-coordinator", daemon=True).start()
        except RuntimeError as error:  # no thread to be had
            self.error = error
            raise

    def abandon(self) -> None:
        """Stop, and be over at once where there is no coordinator yet: nobody must wait for one that never comes."""
        self.stop()
        if self._turn.acquire(blocking=False):
            emit(self._observers, RunFinished(how="failed" if self.error else "stopped"))
            self.finished.set()

    def store_what_is_left(self, store: Store) -> None:
        """Store what came home and could not be stored then; for a later run on the same store."""
        self._writer.write_left(store)

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

    @property
    def is_settled(self) -> bool:
        """Whether nothing of it is on its way, and all of it that was paid for is on disk."""
        return self.finished.is_set() and not self._writer.unstored

    # --- coordinator ------------------------------------------------------------------------------------------

    def _coordinate(self) -> None:
        if not self._turn.acquire(blocking=False):
            return
        store: Store | None = None
        try:
            store = self._store_factory()
            for i in range(self._n_workers):
                threading.Thread(target=self._work_on, name=f"lmsyz-worker-{i}", daemon=True).start()
            self._keep_books(store)
        except BaseException as error:  # noqa: BLE001 - the caller's thread raises it
            self._end(error)
            self._bring_home(store)
        finally:
            for _ in range(self._n_workers):
                self._work.put(None)
            self._finish(store)

    def _bring_home(self, store: Store | None) -> None:
        """After a fault of ours: what is in flight is paid for, so it is waited for and stored all the same."""
        while self._n_out and store is not None:
            outcomes = self._next_outcomes()
            self._n_out -= len(outcomes)
            for exchange in (o.exchange for o in outcomes if o.exchange is not None):
                try:
                    self._keep(store, [exchange])
                except Exception:
                    log.exception("an exchange could not be stored")

    def _finish(self, store: Store | None) -> None:
        how = "failed" if self.error else "stopped" if self.stopped else "done"
        emit(self._observers, RunFinished(how=how))
        try:
            self._provider.close()
            if store is not None:
                self._on_end(store)
                store.close()
        except Exception as error:  # noqa: BLE001 - the caller's thread raises it
            self._end(error)
        finally:
            self.finished.set()

    def _work_on(self) -> None:
        while (positions := self._work.get()) is not None:
            self._done.put(self._asker.ask(positions))

    def _keep_books(self, store: Store) -> None:
        while True:
            self._feed()
            if not self._n_out:
                break
            outcomes = self._next_outcomes()
            self._n_out -= len(outcomes)
            self._keep(store, [o.exchange for o in outcomes if o.exchange is not None])
            for outcome in outcomes:
                self._follow(outcome)
        if self.stopped:
            self._cancel(itertools.chain(self._again, self._fresh))
        try:
            self._writer.write_left(store)
        except CacheError as error:
            self.error = error

    def _feed(self) -> None:
        """Give a job to each worker whose last one is stored and judged.

        So a kill costs what is in flight and no more, and after an error that ends the run nothing more is sent.
        """
        while self._n_out < self._n_workers and not self.stopped:
            job = self._again.popleft() if self._again else next(self._fresh, None)
            if job is None:
                break
            self._work.put(job)
            self._n_out += 1

    def _next_outcomes(self) -> list[Outcome]:
        """Wait for one outcome and take along all that are there by then: they share a transaction."""
        outcomes = [self._done.get()]
        while True:
            try:
                outcomes.append(self._done.get_nowait())
            except queue.Empty:
                return [o for o in outcomes if o is not None]

    def _keep(self, store: Store, exchanges: Sequence[Exchange]) -> None:
        """Write exchanges down; where that fails the run stops, and what is still in flight is waited for."""
        error = self._writer.write(store, exchanges)
        if error is not None:
            self._end(error)
        for exchange in exchanges:
            self.plan.answers.update((self.rows.keys[p], a) for p, a in exchange.settled.good.items())

    # --- what becomes of a job --------------------------------------------------------------------------------

    def _follow(self, outcome: Outcome) -> None:
        """Do what the judge says about an outcome, and tell the observers."""
        if isinstance(outcome.error, Stopped):
            self._cancel([outcome.positions])
            return
        if outcome.exchange is None:
            error = outcome.error or LmsyzError("a job came back without an outcome")
            self._carry_out(self._judge.error(outcome.positions, error))
            return
        verdict = self._judge.reply(outcome.positions, outcome.exchange.settled)
        self._tell_chunk(outcome.exchange, verdict.n_again)
        self._carry_out(verdict)

    def _carry_out(self, verdict: Verdict) -> None:
        self._again.extend(verdict.again)
        for positions, reason in verdict.failed:
            self._fail(positions, reason)
        if verdict.fatal is not None:
            self._end(verdict.fatal)

    def _end(self, error: BaseException) -> None:
        """Stop the run for an error that no further request would escape; the first one is the one that is said."""
        self.error = self.error or error
        if not self.stopped:
            self.stop()

    def _fail(self, positions: Sequence[int], reason: str) -> None:
        self.failures.update(dict.fromkeys((self.rows.keys[p] for p in positions), reason))
        examples = tuple(map(self._count.name, positions[:EXAMPLES_PER_REASON]))
        n_rows = self._count.failed(positions)
        emit(self._observers, RowsFailed(n_rows=n_rows, reason=reason, examples=examples))

    def _cancel(self, jobs: Iterable[Positions]) -> None:
        for positions in jobs:
            self._fail(positions, CANCELLED)

    def _tell_chunk(self, exchange: Exchange, n_again: int) -> None:
        reply, usage = exchange.reply, exchange.reply.usage
        event = ChunkDone(
            n_ok=self._count.answered(exchange.settled.good),
            n_reasked=n_again,
            n_foreign=exchange.settled.n_foreign,
            outcome=exchange.settled.outcome,
            input_tokens=usage.input_tokens,
            output_tokens=usage.output_tokens,
            cached_tokens=usage.cached_tokens,
            cost=exchange.cost,
            latency_s=exchange.raw.latency_s,
            model=reply.model,
        )
        emit(self._observers, event)
