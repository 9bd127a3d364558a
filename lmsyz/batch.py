"""The batch engine: a job's parts moved on, step by step, each step safe to be killed in and run again.

Nothing here waits: `push` does what can be done now and writes down how far each part has come (see `batch_ledger`).
What came home goes through the same `settle` as a live reply and into the same store, so frames, resume and "run the
cell again" need no code of their own.

Which kill leads where
----------------------
while building: the part is not in the ledger; its file is written anew. While uploading: the file is sent again, which
costs nothing. While creating: the provider is asked whether the batch is there, see :meth:`BatchEngine._find`. While
polling or downloading: done again; a file counts only once it is whole. While settling: exchanges that are in the
store already are not stored twice.
"""

from __future__ import annotations

import json
import tempfile
import time
import uuid
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import IO

from lmsyz.batch_files import Asked, input_path, read_index, result_lines, result_path, write_failures
from lmsyz.batch_ledger import Ledger, Part, PartState, known_remotes
from lmsyz.engine import settle
from lmsyz.errors import BatchError, LmsyzError, MalformedError, ProviderError, RequestError, UnavailableError
from lmsyz.pricing import BATCH_TIER, Pricer
from lmsyz.providers.base import Call, Provider, Usage
from lmsyz.providers.batches import Batches, BatchResult, BatchState, RemoteBatch
from lmsyz.store import AnswerRecord, ChunkRecord, RequestRecord, Store
from lmsyz.task import Task

__all__ = ["BatchEngine", "part_run_id"]


# A request that timed out here may still be worked on there; a batch that is not listed after this is not coming.
GRACE_S = 60.0
CLOCK_SKEW_S = 600.0
HOLD_S = 900.0
NOT_FOUND_YET_S = 600.0
CHUNKS_A_WRITE = 200
MISSING = "missing: the batch brought no result for this row"


class BatchEngine:
    """Moves the parts of one job on; used under the job's lock.

    Parameters
    ----------
    ledger : Ledger
        The job.
    task : Task
        What is asked.
    provider, batches : Provider, Batches
        Read replies, and carry files and batches.
    call : Call
        Extra headers and the deadline of a call.
    store_factory : callable
        Opens the store.
    clock : callable
        Unix seconds.
    """

    def __init__(
        self,
        ledger: Ledger,
        *,
        task: Task,
        provider: Provider,
        batches: Batches,
        call: Call,
        store_factory: Callable[[], Store],
        clock: Callable[[], float] = time.time,
    ) -> None:
        self.ledger = ledger
        self._task = task
        self._provider = provider
        self._batches = batches
        self._call = call
        self._store_factory = store_factory
        self._clock = clock

    def push(self, *, poll: bool = True) -> list[LmsyzError]:
        """Move every open part as far as it goes now; what one part meets does not hold up the others.

        Parameters
        ----------
        poll : bool
            Whether to ask the provider how batches are doing, and fetch those that have ended.

        Returns
        -------
        list of LmsyzError
            What went wrong with parts that stay where they are; calling again goes on from there.
        """
        errors: list[LmsyzError] = []
        for part in self.ledger.parts:
            if not part.state.is_open:
                continue
            try:
                self._send(part)
                if poll:
                    self._receive(part)
            except (ProviderError, BatchError) as error:
                errors.append(error)
        return errors

    def cancel(self) -> None:
        """Ask the provider to cancel what runs; what was done by then still comes home."""
        for part in self.ledger.parts:
            if part.state in (PartState.BUILT, PartState.UPLOADED, PartState.HELD):
                self._give_up(part, "cancelled: the job was cancelled before this row was sent")
            elif part.state is PartState.SUBMITTED:
                self._note(part, self._batches.cancel(part.remote, self._call))
                self.ledger.save()

    def adopt(self, part: Part, remote: str) -> None:
        """Take a batch at the provider for a part of which we did not know whether it was created."""
        self._submitted(part, self._batches.retrieve(remote, self._call))

    def create_again(self, part: Part) -> None:
        """Create a part anew, on the user's word that no batch of it exists."""
        part.state, part.candidates = PartState.UPLOADED, []
        self._send(part)

    def give_up(self, part: Part) -> None:
        """Wait for a part no longer; its rows without an answer are failed, and can be asked again."""
        self._give_up(part, f"failed: batch {part.remote or part.n} was given up")

    # --- one step after the other -------------------------------------------------------------------------------

    def _send(self, part: Part) -> None:
        if part.state is PartState.HELD and self._has_room(part):
            self._step(part, PartState.UPLOADED)
        if part.state is PartState.BUILT:
            part.upload_id = self._batches.upload(input_path(self.ledger, part), self._call)
            self._step(part, PartState.UPLOADED)
        if part.state in (PartState.CREATING, PartState.UNSURE):
            self._find(part)
        if part.state is PartState.UPLOADED:
            self._create(part)

    def _receive(self, part: Part) -> None:
        if part.state is PartState.SUBMITTED:
            self._poll(part)
        if part.state is PartState.FETCHED:
            self._settle(part)

    def _step(self, part: Part, state: PartState) -> None:
        part.state = state
        self.ledger.save()

    def _create(self, part: Part) -> None:
        part.intent, part.intent_at = uuid.uuid4().hex, self._clock()
        self._step(part, PartState.CREATING)
        about = {"lmsyz_job": self.ledger.job_id, "lmsyz_intent": part.intent}
        try:
            remote = self._batches.create(input_path(self.ledger, part), part.upload_id, about, self._call)
        except UnavailableError:
            # It may have been created all the same: looked for at the next push, and not created before.
            raise
        except ProviderError as error:
            # A refusal: nothing was created. A file that is gone by now is sent again.
            gone = isinstance(error, RequestError) and error.status == 404 and part.upload_id
            self._step(part, PartState.BUILT if gone else PartState.UPLOADED)
            raise
        self._submitted(part, remote)

    def _submitted(self, part: Part, remote: RemoteBatch) -> None:
        part.remote, part.candidates = remote.id, []
        part.submitted = remote.created or self._clock()
        self._note(part, remote)
        self._step(part, PartState.SUBMITTED)

    def _note(self, part: Part, remote: RemoteBatch) -> None:
        part.remote_state = str(remote.state)
        part.n_ok, part.n_failed = remote.n_ok, remote.n_failed
        part.expires, part.ended = remote.expires or part.expires, remote.ended
        for problem in remote.problems:
            words = f"{problem.code}: {problem.message}"
            if words not in part.problems:
                part.problems.append(words)

    # --- was it created? ----------------------------------------------------------------------------------------

    def _find(self, part: Part) -> None:
        """Find out whether a part that we wished to create has become a batch.

        OpenAI keeps our intent id with a batch, which decides. Anthropic keeps nothing of ours: a new batch of the
        same size may be this one. Once it has ended its results tell, by their ids; until then only a person can.
        """
        known = known_remotes(self.ledger.folder.parent)
        since = part.intent_at - CLOCK_SKEW_S
        new = [r for r in self._batches.recent(since, self._call) if r.id not in known]
        mine = [r for r in new if r.metadata.get("lmsyz_intent") == part.intent]
        if not mine and not self._batches.keeps_metadata:
            alike = [r for r in new if r.n_total in (None, part.n_requests)]
            mine = [r for r in alike if r.state.is_terminal and self._is_ours(part, r)]
            part.candidates = [] if mine else [r.id for r in alike if not r.state.is_terminal]
        if mine:
            self._submitted(part, mine[0])
        elif part.candidates:
            self._step(part, PartState.UNSURE)
        elif self._clock() - part.intent_at >= GRACE_S:
            self._step(part, PartState.UPLOADED)

    def _is_ours(self, part: Part, remote: RemoteBatch) -> bool:
        ours = {asked.custom_id for asked in read_index(self.ledger, part)}
        with tempfile.TemporaryDirectory(dir=self.ledger.folder) as folder:
            for file in remote.result_files:
                path = Path(folder, file.kind)
                self._batches.download(file, path, self._call)
                for line in result_lines(path):
                    return self._batches.read_result(line).custom_id in ours
        return False

    # --- polling and fetching -----------------------------------------------------------------------------------

    def _has_room(self, part: Part) -> bool:
        others = [p for p in self.ledger.parts if p is not part and p.state is PartState.SUBMITTED]
        return not others or self._clock() - part.intent_at > HOLD_S

    def _poll(self, part: Part) -> None:
        try:
            remote = self._batches.retrieve(part.remote, self._call)
        except ProviderError as error:
            if error.status == 404 and self._clock() - (part.submitted or 0.0) < NOT_FOUND_YET_S:
                return  # just created, and not everywhere yet
            if error.status == 404:
                raise _unknown_batch(self.ledger, part, error) from error
            raise
        self._note(part, remote)
        if not remote.state.is_terminal:
            self.ledger.save()
        elif remote.is_over_token_limit and not remote.result_files:
            part.remote = ""
            self._step(part, PartState.HELD)
        else:
            self._fetch(part, remote)

    def _fetch(self, part: Part, remote: RemoteBatch) -> None:
        for file in remote.result_files:
            path = result_path(self.ledger, part, file.kind)
            if path.exists():
                continue  # it counts only once it is whole
            try:
                self._batches.download(file, path, self._call)
            except ProviderError as error:
                if error.status not in (404, 410):
                    raise
                part.problems.append(f"the {file.kind} file is gone: {error}")
        self._step(part, PartState.FETCHED)

    # --- settling -----------------------------------------------------------------------------------------------

    def _settle(self, part: Part) -> None:
        store = self._store_factory()
        try:
            Settling(self, part, store).run()
        finally:
            store.close()
        self._step(part, PartState.SETTLED)

    def _give_up(self, part: Part, reason: str) -> None:
        failures = {key: reason for asked in read_index(self.ledger, part) for key in asked.keys}
        write_failures(self.ledger, part, failures)
        part.n_good, part.n_bad = 0, len(failures)
        self._step(part, PartState.SETTLED)


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
    engine : BatchEngine
        Whose part it is.
    part : Part
        A part whose files are home.
    store : Store
        Where answers go.
    """

    def __init__(self, engine: BatchEngine, part: Part, store: Store) -> None:
        self._engine, self._part, self._store = engine, part, store
        self._task, self._provider, self._ledger = engine._task, engine._provider, engine.ledger
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
        reason = _reason_without_result(self._part)
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
                    yield self._engine._batches.read_result(line)
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
            sent.seek(asked.body_at)
            body = sent.read(asked.body_n).decode("utf-8", "replace")
            request = RequestRecord(
                body=body,
                user=body[asked.user_at : asked.user_at + asked.user_n],
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
        part.n_good, part.n_bad = sums.n_good, len(sums.failures)
        part.cost, part.input_tokens, part.output_tokens = sums.cost, sums.input_tokens, sums.output_tokens
        manifest = {"job_id": self._ledger.job_id, "part": asdict(part), "task": asdict(self._ledger.record)}
        text = json.dumps(manifest, ensure_ascii=False)
        self._store.save_run(self._run_id, self._task_id, part.submitted or 0.0, part.ended, text)
        for n, what in ((sums.n_foreign, "under ids that were not sent"), (sums.n_unreadable, "unreadable")):
            if n:
                part.problems.append(f"{n:,} result lines {what} were not used")


def part_run_id(ledger: Ledger, part: Part) -> str:
    """Return the name under which a part's exchanges lie in the store."""
    return f"batch-{ledger.job_id}-{part.n}"


def _reason_without_result(part: Part) -> str:
    if part.remote_state == BatchState.EXPIRED:
        return "failed: the batch expired before this row's request was run"
    if part.remote_state == BatchState.CANCELLED:
        return "cancelled: the batch was cancelled before this row's request was run"
    if part.remote_state == BatchState.FAILED:
        return "failed: the provider refused the batch" + (f" ({part.problems[0]})" if part.problems else "")
    return MISSING


def _plus(total: int | None, tokens: int | None) -> int | None:
    return None if total is None or tokens is None else total + tokens


def _unknown_batch(ledger: Ledger, part: Part, error: ProviderError) -> BatchError:
    return BatchError(
        f"the provider knows no batch {part.remote!r} (part {part.n} of job {ledger.job_id!r}): it was deleted, is past"
        " its retention, or was made with another account's key. With the right key, call refresh() again; to wait for"
        f" it no longer, job.give_up({part.n}), after which job.retry() asks its rows again. ({error})"
    )
