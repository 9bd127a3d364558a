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

import tempfile
import time
import uuid
from collections.abc import Callable
from pathlib import Path

from lmsyz.batch_files import input_path, read_index, read_keys, result_lines, result_path, write_failures
from lmsyz.batch_ledger import Ledger, Part, PartState, known_remotes
from lmsyz.batch_settle import Settling, common_reasons
from lmsyz.errors import BatchError, LmsyzError, MalformedError, ProviderError, RequestError, UnavailableError
from lmsyz.providers.base import Call, Provider
from lmsyz.providers.batches import Batches, BatchState, RemoteBatch, ResultFile
from lmsyz.store import Store
from lmsyz.task import Task

__all__ = ["BatchEngine"]


# A request that timed out here may still be worked on there; a batch that is not listed after this is not coming.
GRACE_S = 60.0
# This machine's clock, or time zone, may be wrong by hours; a batch that is not found for it would be paid for twice.
CLOCK_SKEW_S = 86_400.0
HOLD_S = 900.0
NOT_FOUND_YET_S = 600.0
# Files of results may be named a while after a batch is said to be complete.
RESULTS_DUE_S = 600.0


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
        # How each came about is a screen of a notebook, and tells a user nothing that its words do not.
        errors: list[LmsyzError] = []
        for part in self.ledger.parts:
            if not part.state.is_open:
                continue
            try:
                self._send(part)
                if poll:
                    self._receive(part)
            except (ProviderError, BatchError) as error:
                errors.append(error.with_traceback(None))
        return errors

    def cancel(self) -> list[LmsyzError]:
        """Ask the provider to cancel what runs; what was done by then still comes home.

        Returns
        -------
        list of LmsyzError
            What kept parts from being cancelled, among them parts of which nobody can tell yet whether they exist.
        """
        errors: list[LmsyzError] = []
        for part in self.ledger.parts:
            try:
                self._cancel(part)
            except (ProviderError, BatchError) as error:
                errors.append(error.with_traceback(None))
        return errors

    def _cancel(self, part: Part) -> None:
        if part.state in (PartState.CREATING, PartState.UNSURE):
            self._find(part)
        if part.state in (PartState.CREATING, PartState.UNSURE):
            raise _unknown_creation(self.ledger, part)
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
        except BaseException as error:
            if isinstance(error, ProviderError) and not isinstance(error, UnavailableError):
                # A refusal: nothing was created. A file that is gone by now is sent again.
                self._step(part, PartState.BUILT if part.upload_id and _names_no_file(error) else PartState.UPLOADED)
                raise
            # It may have been created all the same: looked for at the next push, and not created before. A large file
            # is sent for minutes, so that the time it is given to appear begins only now.
            part.intent_at = self._clock()
            self.ledger.save()
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
        if part.intent_at > self._clock():  # the clock has been set back since: the grace begins now
            part.intent_at = self._clock()
            self.ledger.save()
        since = part.intent_at - CLOCK_SKEW_S
        new = [r for r in self._batches.recent(since, self._call) if r.id not in known]
        mine = [r for r in new if r.metadata.get("lmsyz_intent") == part.intent]
        if not mine and not self._batches.keeps_metadata:
            alike = [r for r in new if r.n_total in (None, part.n_requests)]
            mine = [r for r in alike if r.state.is_terminal and self._is_ours(part, r)]
            # One that ended and shows no results, as past their retention, may be ours as well: only a person knows.
            untold = [r.id for r in alike if not (r.state.is_terminal and r.result_files)]
            part.candidates = [] if mine else untold
        if mine:
            self._submitted(part, mine[0])
        elif part.candidates:
            self._step(part, PartState.UNSURE)
        elif self._clock() - part.intent_at >= GRACE_S:
            self._step(part, PartState.UPLOADED)
        elif part.state is PartState.UNSURE:  # nobody's word decides where there is nothing to choose from
            self._step(part, PartState.CREATING)

    def _is_ours(self, part: Part, remote: RemoteBatch) -> bool:
        ours = {asked.custom_id for asked in read_index(self.ledger, part)}
        with tempfile.TemporaryDirectory(dir=self.ledger.folder) as folder:
            for file in remote.result_files:
                path = Path(folder, file.kind)
                self._download(file, path)
                if any(self._custom_id(line) in ours for line in result_lines(path)):
                    return True
        return False

    def _download(self, file: ResultFile, path: Path) -> None:
        self._batches.download(file, path, self._call)
        if next(result_lines(path), b"").startswith(b"<"):
            # A captive portal's or a proxy's page: taken for results, it would lose all replies of the part.
            path.unlink()
            raise UnavailableError(f"a web page came in place of the {file.kind} file; it is fetched again next time")

    def _custom_id(self, line: bytes) -> str:
        try:
            return self._batches.read_result(line).custom_id
        except MalformedError:
            return ""  # as when settling: one line that cannot be read says nothing of the others

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
        if not remote.state.is_terminal or self._is_before_its_files(remote):
            self.ledger.save()
        elif remote.is_over_token_limit and not remote.result_files:
            part.remote = ""
            self._step(part, PartState.HELD)
        else:
            self._fetch(part, remote)

    def _is_before_its_files(self, remote: RemoteBatch) -> bool:
        """Tell whether a batch that has just ended counts answers and names no file yet: they are paid for."""
        if remote.state is not BatchState.COMPLETED or not remote.n_ok or remote.result_files:
            return False
        return remote.ended is not None and self._clock() - remote.ended < RESULTS_DUE_S

    def _fetch(self, part: Part, remote: RemoteBatch) -> None:
        for file in remote.result_files:
            path = result_path(self.ledger, part, file.kind)
            if path.exists():
                continue  # it counts only once it is whole
            try:
                self._download(file, path)
            except ProviderError as error:
                if error.status not in (404, 410):
                    raise
                part.problems.append(f"the {file.kind} file is gone: {error}")
        self._step(part, PartState.FETCHED)

    # --- settling -----------------------------------------------------------------------------------------------

    def _settle(self, part: Part) -> None:
        store = self._store_factory()
        try:
            Settling(
                self.ledger, part, task=self._task, provider=self._provider, batches=self._batches, store=store
            ).run()
        finally:
            store.close()
        self._step(part, PartState.SETTLED)

    def _give_up(self, part: Part, reason: str) -> None:
        failures = dict.fromkeys(read_keys(self.ledger, part), reason)
        write_failures(self.ledger, part, failures)
        part.n_good, part.n_bad, part.reasons = 0, len(failures), common_reasons(failures)
        self._step(part, PartState.SETTLED)


def _unknown_creation(ledger: Ledger, part: Part) -> BatchError:
    which = f" It may be one of {', '.join(part.candidates)}: job.adopt({part.n}, <its id>)." if part.candidates else ""
    return BatchError(
        f"part {part.n} of job {ledger.job_id!r} was not cancelled: it may or may not have been created, and the"
        f" provider does not tell yet.{which} All other parts were seen to; call cancel() again in a minute"
    )


def _unknown_batch(ledger: Ledger, part: Part, error: ProviderError) -> BatchError:
    return BatchError(
        f"the provider knows no batch {part.remote!r} (part {part.n} of job {ledger.job_id!r}): it was deleted, is past"
        " its retention, or was made with another account's key. With the right key, call refresh() again; to wait for"
        f" it no longer, job.give_up({part.n}), after which job.retry() asks its rows again. ({error})"
    )


def _names_no_file(error: ProviderError) -> bool:
    # OpenAI says it of a batch's input with status 400.
    return (isinstance(error, RequestError) and error.status == 404) or "no such file" in str(error).lower()
