"""Exchanges of a live run on their way to the store: made into records, written together, kept where writing fails."""

from __future__ import annotations

import time
from collections.abc import Sequence

from lmsyz.engine import Plan
from lmsyz.errors import CacheError
from lmsyz.rows import Rows
from lmsyz.store import AnswerRecord, ChunkRecord, RequestRecord, Store
from lmsyz.worker import Exchange

__all__ = ["ExchangeWriter"]


class ExchangeWriter:
    """Writes the exchanges of one run; used by its coordinator alone.

    Parameters
    ----------
    rows : Rows
        As they are asked.
    plan : Plan
        Names the task's number and the rows that share a text.
    run_id : str
        Written beside each exchange.

    Attributes
    ----------
    unstored : list of ChunkRecord
        What is paid for and could not be written.
    """

    def __init__(self, rows: Rows, plan: Plan, run_id: str) -> None:
        self._rows, self._plan, self._run_id = rows, plan, run_id
        self.unstored: list[ChunkRecord] = []

    def write(self, store: Store, exchanges: Sequence[Exchange]) -> CacheError | None:
        """Write exchanges in one transaction; what cannot be written is kept, and the reason returned.

        After a write that failed nothing more is tried: a disk that is full for one would be so for each that follows.
        """
        if not exchanges:
            return None
        chunks = [self._chunk_record(e) for e in exchanges]
        try:
            if self.unstored:
                raise CacheError("an earlier write failed")
            store.put_chunks(chunks)
        except CacheError as error:
            self.unstored += chunks
            return error
        return None

    def write_left(self, store: Store) -> None:
        """Write what could not be written, now that nothing else is under way: what stood against it may have passed.

        Raises
        ------
        CacheError
            It cannot be written yet; it tells how to save it.
        """
        if not self.unstored:
            return
        try:
            store.put_chunks(self.unstored)
        except CacheError as error:
            n = sum(len(answers) for _, _, answers in self.unstored)
            error.add_note(
                f"{n:,} answers are paid for and not on disk. This kernel still has them:"
                " lmsyz.last_run().frame() returns them; save that frame before you close it."
            )
            raise
        self.unstored.clear()

    def _chunk_record(self, exchange: Exchange) -> ChunkRecord:
        answers = [self._answer_record(p, a) for p, a in exchange.settled.good.items()]
        return self._plan.task_id, self._request_record(exchange), answers

    def _answer_record(self, position: int, answer: str) -> AnswerRecord:
        key = self._rows.keys[position]
        ids: tuple[str, ...] = ()
        if self._rows.ids is not None:
            ids = tuple(self._rows.ids[p] for p in self._plan.twins.get(key, (position,)))
        return AnswerRecord(key=key, answer=answer, row_ids=ids)

    def _request_record(self, exchange: Exchange) -> RequestRecord:
        reply, usage = exchange.reply, exchange.reply.usage
        return RequestRecord(
            body=exchange.body,
            user=exchange.user,
            reply=exchange.raw.text,
            form=str(exchange.form),
            outcome=exchange.settled.outcome,
            model=reply.model,
            provider_request_id=exchange.raw.request_id,
            input_tokens=usage.input_tokens,
            output_tokens=usage.output_tokens,
            cached_tokens=usage.cached_tokens,
            cache_write_tokens=usage.cache_write_tokens,
            reasoning_tokens=usage.reasoning_tokens,
            cost=exchange.cost,
            latency_s=exchange.raw.latency_s,
            attempts=exchange.attempts,
            n_rows=len(exchange.chunk),
            run_id=self._run_id,
            created=time.time(),
        )
