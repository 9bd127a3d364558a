"""Answers the requests of a batch whose time is over, by the live endpoints' own code, into result files.

In a thread of its own, one request after another and in an order of its own, from disk to disk: a batch of any size
takes no memory to speak of, and whoever asks for it meanwhile is told that it is not done yet. What comes of it follows
from the seed and the faults at its creation, so that a server that is killed in the middle does the same again.
"""

from __future__ import annotations

import asyncio
import json
import random
import threading
from array import array
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO

from lmsyz.sandbox.answers import Row
from lmsyz.sandbox.batch_input import request_of
from lmsyz.sandbox.batch_lines import anthropic_line, loosened, openai_line
from lmsyz.sandbox.batch_shelf import Shelf, opened_private
from lmsyz.sandbox.batches import OPENAI_LABELS, Batch
from lmsyz.sandbox.faults import Draws, Faults
from lmsyz.sandbox.replies import cache_told, refusal_of, reply_to
from lmsyz.sandbox.wire import Api, ApiError, Ask, JsonObject, Outcome

__all__ = ["Runner"]

PATIENCE_S = 2.0
PLAIN, AGAIN, FOREIGN = range(3)  # what a line of the results is: a request's, once more, or nobody's


class Runner:
    """Sees that batches whose time is over are answered.

    Parameters
    ----------
    shelf : Shelf
        Where they lie.
    apis : iterable of Api
        The endpoints that answer.
    fell : callable
        Counts faults.
    """

    def __init__(self, shelf: Shelf, apis: Iterable[Api], fell: Callable[..., None]) -> None:
        self.shelf = shelf
        self._apis = {api.label: api for api in apis}
        self._fell = fell
        self._pool = ThreadPoolExecutor(max_workers=1, thread_name_prefix="batches")
        self._under_way: dict[str, asyncio.Future[Counter[str]]] = {}
        self._stopping = threading.Event()
        self._lock = threading.Lock()

    async def settle(self, *batches: Batch, patience_s: float = PATIENCE_S) -> None:
        """Have those answered whose time is over; return when they are, or when patience is at its end."""
        now = self.shelf.now()
        due = [b for b in batches if b.is_over(now) and not b.has_ended(now)]
        if due:
            done, _ = await asyncio.wait([self._started(b) for b in due], timeout=patience_s)
            for future in done:
                future.result()

    def _started(self, batch: Batch) -> asyncio.Future[Counter[str]]:
        future = self._under_way.get(batch.id)
        if future is None:
            loop = asyncio.get_running_loop()
            future = self._under_way[batch.id] = loop.run_in_executor(self._pool, self._answer, batch)
            future.add_done_callback(lambda done: self._finished(batch, done))
        return future

    def _finished(self, batch: Batch, future: asyncio.Future[Counter[str]]) -> None:
        self._under_way.pop(batch.id, None)
        if not future.cancelled() and future.exception() is None:
            self._fell(*future.result().elements())

    def _answer(self, batch: Batch) -> Counter[str]:
        with self._lock:
            if batch.is_answered or batch.id not in self.shelf.batches or self._stopping.is_set():
                return Counter()
            return _Run(self.shelf, self._apis[batch.label], batch, self._stopping).answer()

    def reset(self) -> None:
        """Forget all batches, also what is being answered just now."""
        self._stopping.set()
        with self._lock:
            self.shelf.reset()
        self._stopping.clear()

    def close(self) -> None:
        """Stop for good."""
        self._stopping.set()
        self._pool.shutdown(cancel_futures=True)
        self.shelf.close()


@dataclass(slots=True, kw_only=True)
class _Tally:
    counts: Counter[str] = field(default_factory=Counter)
    usage: Counter[str] = field(default_factory=Counter)
    faults: Counter[str] = field(default_factory=Counter)
    n_rows_paid: int = 0


class _Run:
    """One batch being answered."""

    def __init__(self, shelf: Shelf, api: Api, batch: Batch, stopping: threading.Event) -> None:
        self._shelf, self._api, self._batch, self._stopping = shelf, api, batch, stopping
        self._faults: Faults = batch.options
        self._tally = _Tally()
        self._prefixes: set[str] = set()

    def answer(self) -> Counter[str]:
        """Write the results and tell the batch; return the faults that fell."""
        outputs = {kind: _Output(self._shelf.new_path()) for kind in ("output", "error", "paid")}
        with ExitStack() as stack:
            for output in outputs.values():
                stack.callback(output.close)
            requests = stack.enter_context(self._shelf.path(self._batch, "in").open("rb"))
            for number, offset, what in _work(requests, self._batch):
                if self._stopping.is_set():
                    return Counter()
                requests.seek(offset)
                self._one(number, what, requests.readline(), outputs)
        self._keep(outputs)
        return self._tally.faults

    def _one(self, number: int, what: int, line: bytes, outputs: dict[str, _Output]) -> None:
        custom_id, body = request_of(line)
        kind, found, rows = self._answered(number, custom_id, body)
        if what == FOREIGN:
            custom_id = f"foreign-{number}"
        elif what == PLAIN:
            self._tally.counts[kind] += 1
            self._tally.n_rows_paid += len(rows)
            for row in rows:
                outputs["paid"].write([row.id, row.text.raw, custom_id])
        if what != PLAIN:
            self._tally.faults["batch_foreign" if what == FOREIGN else "batch_duplicated"] += 1
        if self._batch.label in OPENAI_LABELS:
            where = "output" if kind == "succeeded" else "error"
            told = openai_line(custom_id, kind, found, f"{self._batch.id[-12:]}{number:x}")
        else:
            where, told = "output", anthropic_line(custom_id, kind, found)
        outputs[where].write(loosened(told) if self._faults.loose_batches else told)

    def _answered(self, number: int, custom_id: str, body: JsonObject) -> tuple[str, JsonObject | None, list[Row]]:
        """Answer a request: how it ended, what is told of it, and the rows that were paid for."""
        if number >= self._batch.n_run:
            return ("expired" if self._batch.cancelled is None else "canceled"), None, []
        raw = json.dumps(body).encode()
        # Not of its custom_id: a client may draw that anew each time, and a run could not be repeated.
        draws = Draws(self._batch.seed, b"%d\0" % number + raw, self._batch.ordinal)
        try:
            error = self._drawn_error(draws)
            if error is not None:
                return "errored", error, []
            ask = self._api.read(raw, {"anthropic-version": self._batch.version})
            reply, rows = self._replied(ask, draws)
        except ApiError as stopped:
            return "errored", {"status": stopped.status, "body": stopped.body, "tag": draws.tag}, []
        except RecursionError:
            nested = self._api.failure("nested")
            return "errored", {"status": nested.status, "body": nested.body, "tag": draws.tag}, []
        return "succeeded", {"status": 200, "body": reply, "tag": draws.tag}, rows

    def _replied(self, ask: Ask, draws: Draws) -> tuple[JsonObject, list[Row]]:
        refusal = refusal_of(self._api, ask, self._faults, self._batch.seed)
        if refusal is not None:
            self._tally.faults[refusal[0]] += 1
            raise refusal[1]
        replied = reply_to(ask, self._faults, draws, self._batch.seed)
        self._tally.faults.update(replied.faults)
        outcome = cache_told(ask, replied.outcome, self._is_cached)
        self._count(ask, outcome)
        return self._api.reply(ask, outcome, draws), replied.rows

    def _drawn_error(self, draws: Draws) -> JsonObject | None:
        """Return the error that a fault makes of a request: passing, lasting, or none of the endpoint's at all."""
        if not self._faults.error_file_only and not draws.falls("batch_errors", self._faults.batch_errors):
            return None
        self._tally.faults["error_file_only" if self._faults.error_file_only else "batch_errors"] += 1
        way = int(3 * draws.uniform("way"))
        error = self._api.failure("batch_errors" if way == 0 else "server_error")
        return {"status": error.status, "body": error.body, "tag": draws.tag, "bare": way == 1}

    def _is_cached(self, key: str) -> bool:
        known = key in self._prefixes
        self._prefixes.add(key)
        return known

    def _count(self, ask: Ask, outcome: Outcome) -> None:
        self._tally.usage.update(
            input_tokens=ask.input_tokens,
            cached_tokens=outcome.cached_tokens,
            output_tokens=outcome.output_tokens,
            reasoning_tokens=outcome.thinking_tokens,
        )

    def _keep(self, outputs: dict[str, _Output]) -> None:
        """Put the results in place, and then say so in the batch's record."""
        batch, tally = self._batch, self._tally
        outputs["paid"].path.replace(self._shelf.path(batch, "paid"))
        if batch.label in OPENAI_LABELS:
            batch.output, batch.errors = (self._file(outputs[kind], kind) for kind in ("output", "error"))
        else:
            outputs["output"].path.replace(self._shelf.path(batch, "results"))
            outputs["error"].path.unlink()
        batch.counts, batch.usage = dict(tally.counts), dict(tally.usage)
        batch.n_rows_paid = tally.n_rows_paid
        batch.is_answered = True
        self._shelf.save(batch)

    def _file(self, output: _Output, kind: str) -> str:
        is_gone = self._faults.cancelled_files_gone and self._batch.cancelled is not None
        if is_gone:
            self._tally.faults["cancelled_files_gone"] += bool(output.n)
        if is_gone or not (output.n or self._faults.loose_batches):
            output.path.unlink()
            return ""
        name = f"{self._batch.id}_{kind}.jsonl"
        file_id = f"file-sandbox{self._batch.id[-20:]}{kind}"
        self._shelf.take_file(output.path, name, "batch_output", file_id=file_id, life_s=self._batch.result_life_s)
        return file_id


class _Output:
    """A file of JSON lines being written."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.n = 0
        self._file = opened_private(path)
        self.close = self._file.close

    def write(self, value: object) -> None:
        """Add a line."""
        self._file.write(json.dumps(value, separators=(",", ":")).encode() + b"\n")
        self.n += 1


def _work(requests: IO[bytes], batch: Batch) -> Iterator[tuple[int, int, int]]:
    """Go through what the results will hold, in their order: request's number, its place in the file, what it is."""
    offsets = array("Q")
    at = 0
    for line in requests:
        if line.strip():
            offsets.append(at)
        at += len(line)
    work = array("Q", range(0, 3 * len(offsets), 3))
    draws = Draws(batch.seed, batch.label.encode(), batch.ordinal)
    for what, kind in ((AGAIN, "batch_duplicated"), (FOREIGN, "batch_foreign")):
        rate = getattr(batch.options, kind)
        if rate:
            work.extend(3 * i + what for i in range(len(offsets)) if draws.falls(kind, rate, str(i)))
    random.Random(draws.uniform("order")).shuffle(work)
    for entry in work:
        number, what = divmod(entry, 3)
        yield number, offsets[number], what
