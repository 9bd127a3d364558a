"""A batch's results held against its rows: every reply through the engine's own `settle`, into the store.

Settling may be killed and run again: an exchange that the store has already is not stored twice, since it lies there
under the custom id of its request.
"""

from __future__ import annotations

import json
import time
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field, replace
from typing import IO

from lmsyz.batch_files import Asked, input_path, read_index, result_lines, result_path, write_failures
from lmsyz.batch_ledger import Ledger, Part
from lmsyz.engine import settle
from lmsyz.errors import MalformedError, ProviderError
from lmsyz.pricing import BATCH_TIER, Pricer
from lmsyz.providers.base import Provider, Usage
from lmsyz.providers.batches import Batches, BatchResult, BatchState
from lmsyz.report import cause
from lmsyz.store import AnswerRecord, ChunkRecord, RequestRecord, Store
from lmsyz.task import Task

__all__ = ["Settling", "common_reasons", "part_run_id"]

CHUNKS_A_WRITE = 200
REASONS_SHOWN = 5
MISSING = "missing: the batch brought no result for this row"


@dataclass(slots=True)
class _Sums:
    """What a part brought, as it is read."""

    n_good: int = 0
    cost: float | None = 0.0
    input_tokens: int | None = 0
    output_tokens: int | None = 0
    n_foreign: int = 0
    n_unreadable: int = 0
    failures: dict[bytes, str] = field(default_factory=dict)


class Settling:
    """Reads one part's result files into the store.

    Parameters
    ----------
    ledger : Ledger
        The job.
    part : Part
        A part whose files are home.
    task : Task
        What is asked.
    provider, batches : Provider, Batches
        Read replies and result lines.
    store : Store
        Where answers go.
    """

    def __init__(
        self, ledger: Ledger, part: Part, *, task: Task, provider: Provider, batches: Batches, store: Store
    ) -> None:
        self._ledger, self._part, self._task = ledger, part, task
        self._provider, self._batches, self._store = provider, batches, store
        record = self._ledger.record
        self._pricer = Pricer(record.backend, record.endpoint, record.model)
        self._task_id = store.task_id(record)
        self._run_id = part_run_id(self._ledger, part)
        self._stored = store.exchange_names(self._run_id)
        self._waiting: list[ChunkRecord] = []
        self._sums = _Sums()

    def run(self) -> None:
        """Store every answer, and write down why the other rows have none."""
        index = {asked.custom_id: asked for asked in read_index(self._ledger, self._part)}
        answered: set[str] = set()
        with input_path(self._ledger, self._part).open("rb") as sent:
            for result in self._results():
                asked = index.get(result.custom_id)
                if asked is None:
                    self._sums.n_foreign += 1
                elif result.custom_id not in answered and self._take(result, asked, sent):
                    answered.add(result.custom_id)
        self._write()
        reason = _reason_without_result(self._part, is_kept=bool(answered))
        for custom_id, asked in index.items():
            if custom_id not in answered:
                for key in asked.keys:
                    self._sums.failures.setdefault(key, reason)
        self._close()

    def _results(self) -> Iterator[BatchResult]:
        paths = dict.fromkeys(result_path(self._ledger, self._part, kind) for kind in ("output", "error"))
        for path in paths:
            for line in result_lines(path) if path.exists() else ():
                try:
                    yield self._batches.read_result(line)
                except MalformedError:
                    self._sums.n_unreadable += 1

    def _take(self, result: BatchResult, asked: Asked, sent: IO[bytes]) -> bool:
        """Take one result in; return whether it was a reply."""
        if result.reply is None:
            self._fail(asked, result.reason)
            return False
        try:
            reply = self._provider.parse(result.reply)
        except ProviderError as error:
            self._fail(asked, f"failed: {error}")
            return False
        chunk = asked.chunk()
        settled = settle(self._task, chunk, reply)
        usage = replace(reply.usage, service_tier=BATCH_TIER)
        cost = self._pricer.cost(usage, reply.model)
        self._count(usage, cost, n_good=len(settled.good))
        for position, key in enumerate(asked.keys):
            if position in settled.good:
                self._sums.failures.pop(key, None)
            else:
                self._sums.failures[key] = settled.bad[position]
        if result.custom_id not in self._stored:
            row_ids = asked.row_ids
            answers = [AnswerRecord(key=asked.keys[p], answer=a, row_ids=row_ids[p]) for p, a in settled.good.items()]
            body, user = asked.as_stored(sent)
            request = RequestRecord(
                body=body,
                user=user,
                reply=result.reply,
                form=self._part.form,
                outcome=settled.outcome,
                model=reply.model,
                provider_request_id=result.custom_id,
                input_tokens=usage.input_tokens,
                output_tokens=usage.output_tokens,
                cached_tokens=usage.cached_tokens,
                cache_write_tokens=usage.cache_write_tokens,
                reasoning_tokens=usage.reasoning_tokens,
                cost=cost,
                latency_s=max((self._part.ended or 0.0) - (self._part.submitted or 0.0), 0.0),
                attempts=1,
                n_rows=len(asked.keys),
                run_id=self._run_id,
                created=time.time(),
            )
            self._waiting.append((self._task_id, request, answers))
            if len(self._waiting) >= CHUNKS_A_WRITE:
                self._write()
        return True

    def _fail(self, asked: Asked, reason: str) -> None:
        for key in asked.keys:
            self._sums.failures[key] = reason

    def _count(self, usage: Usage, cost: float | None, *, n_good: int) -> None:
        sums = self._sums
        sums.n_good += n_good
        sums.cost = None if sums.cost is None or cost is None else sums.cost + cost
        sums.input_tokens = _plus(sums.input_tokens, usage.input_tokens)
        sums.output_tokens = _plus(sums.output_tokens, usage.output_tokens)

    def _write(self) -> None:
        self._store.put_chunks(self._waiting)
        self._waiting = []

    def _close(self) -> None:
        part, sums = self._part, self._sums
        write_failures(self._ledger, part, sums.failures)
        part.n_good, part.n_bad, part.reasons = sums.n_good, len(sums.failures), common_reasons(sums.failures)
        part.cost, part.input_tokens, part.output_tokens = sums.cost, sums.input_tokens, sums.output_tokens
        manifest = {"job_id": self._ledger.job_id, "part": asdict(part), "task": asdict(self._ledger.record)}
        text = json.dumps(manifest, ensure_ascii=False)
        self._store.save_run(self._run_id, self._task_id, part.submitted or 0.0, part.ended, text)
        for n, what in ((sums.n_foreign, "under ids that were not sent"), (sums.n_unreadable, "unreadable")):
            if n:
                part.problems.append(f"{n:,} result lines {what} were not used")


def common_reasons(failures: Mapping[bytes, str]) -> dict[str, int]:
    """Return the reasons that most rows have, with how many have it."""
    return dict(Counter(map(cause, failures.values())).most_common(REASONS_SHOWN))


def part_run_id(ledger: Ledger, part: Part) -> str:
    """Return the name under which a part's exchanges lie in the store."""
    # A job id may be used again, in another folder or after this one was deleted; that is another run.
    return f"batch-{ledger.job_id}-{part.n}-{part.intent[:8]}"


def _reason_without_result(part: Part, *, is_kept: bool) -> str:
    if part.n_ok and not is_kept:
        # Some servers drop what was answered of a batch that was cancelled or failed.
        word = "cancelled" if part.remote_state == BatchState.CANCELLED else "failed"
        return f"{word}: of the {part.n_ok:,} requests that the provider counts as answered it gave none back"
    if part.remote_state == BatchState.EXPIRED:
        return "failed: the batch expired before this row's request was run"
    if part.remote_state == BatchState.CANCELLED:
        return "cancelled: the batch was cancelled before this row's request was run"
    if part.remote_state == BatchState.FAILED:
        return "failed: the provider refused the batch" + (f" ({part.problems[0]})" if part.problems else "")
    return MISSING


def _plus(total: int | None, tokens: int | None) -> int | None:
    return None if total is None or tokens is None else total + tokens
