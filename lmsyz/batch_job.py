"""A batch job as the user sees it: submitted in one kernel, looked after in a second, collected in a third."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lmsyz.batch import BatchEngine
from lmsyz.batch_files import read_failures, read_texts
from lmsyz.batch_frame import FrameFile
from lmsyz.batch_ledger import Ledger, Part, PartState, check_job_id, ledgers_in
from lmsyz.batch_lock import locked
from lmsyz.batch_setup import Connection, add_parts, can_build, keys_away, make_engine, reconnect, stored_task, told
from lmsyz.batch_status import BatchStatus, status_of
from lmsyz.batch_wait import check_interval, wait_for
from lmsyz.cache import SqliteCache
from lmsyz.engine import Plan, plan, stored_answers
from lmsyz.errors import (
    BatchError,
    LmsyzError,
    UsageError,
)
from lmsyz.frame_index import index_from_json
from lmsyz.in_flight import settle_earlier, store_what_is_left
from lmsyz.rows import Merge, Rows
from lmsyz.settings import load_settings

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["BATCH_ROOT", "BatchJob", "batch_jobs"]

log = logging.getLogger(__name__)

BATCH_ROOT = "batch_jobs"
GONE = "missing: neither stored nor on its way: its answer was deleted, or it was never sent; job.retry() asks it"
ALONE = ("truncated", "refused")  # rows that spoilt a packed request are asked again by themselves


class BatchJob:
    """A batch job. Made by :meth:`df.ie.batch`, or found again by :meth:`load`.

    Parameters
    ----------
    folder : Path
        Where it lies on disk.
    connection : callable
        Makes what it takes to reach the provider; called when that is needed.
    rows, index : optional
        The frame of this kernel; without them it is read from the folder.

    Examples
    --------
    >>> job = BatchJob.load("tone-2026-11")  # doctest: +SKIP
    >>> job.wait()  # doctest: +SKIP
    >>> job.results()  # doctest: +SKIP
    """

    def __init__(
        self,
        folder: Path,
        connection: Callable[[], Connection],
        *,
        rows: Rows | None = None,
        index: pd.Index | None = None,
        show_progress: bool = True,
        merge: Merge | None = None,
    ) -> None:
        self.folder = folder
        self._connect = connection
        self._connection: Connection | None = None
        self._rows, self._index = rows, index
        self._show_progress = show_progress
        self._merge = merge

    @classmethod
    def load(
        cls,
        job_id: str,
        *,
        batch_root_dir: str | os.PathLike[str] = BATCH_ROOT,
        schema: Any = None,
        api_key: str | None = None,
        base_url: str | None = None,
        client: Any = None,
        merge: Merge | None = None,
    ) -> BatchJob:
        """Find a job again, in this kernel or another.

        Parameters
        ----------
        job_id : str
            As :func:`lmsyz.batch_jobs` lists it.
        batch_root_dir : str or Path
            Where jobs lie.
        schema : pydantic model, optional
            Needed where the job was made with one: its validators cannot be kept on disk.
        api_key, base_url, client
            As in :meth:`df.ie.extract`; the settings and what the job knows will do otherwise.
        merge : callable, optional
            Needed where the job was made with one: a function's code cannot be kept on disk.

        Returns
        -------
        BatchJob

        Raises
        ------
        BatchError
            There is no such job, or its ledger cannot be read.
        """
        folder = Path(batch_root_dir).expanduser().absolute() / check_job_id(job_id)
        ledger = Ledger.load(folder)
        settings = load_settings()

        def connection() -> Connection:
            return reconnect(ledger, settings, schema=schema, api_key=api_key, base_url=base_url, client=client)

        return cls(folder, connection, show_progress=settings.progress, merge=merge)

    @property
    def job_id(self) -> str:
        """The job's name."""
        return self.folder.name

    # --- looking ----------------------------------------------------------------------------------------------

    def status(self) -> BatchStatus:
        """Return how the job is doing, as of the last look at the provider; sends nothing.

        Returns
        -------
        BatchStatus
        """
        return status_of(Ledger.load(self.folder))

    def results(self, *, on_error: str = "keep") -> pd.DataFrame:
        """Return what has come home so far, aligned to the frame; sends nothing.

        Parameters
        ----------
        on_error : {"keep", "drop"}
            What becomes of rows without an answer. Rows on their way say ``pending`` in ``ie_error``.

        Returns
        -------
        DataFrame
            As :meth:`df.ie.extract` returns it.
        """
        from lmsyz.frames import ERROR_COLUMN, answers_frame

        if on_error not in ("keep", "drop"):
            raise UsageError(f"on_error={on_error!r}; use 'keep' (marked in ie_error) or 'drop'")
        ledger = Ledger.load(self.folder)
        rows, index = self._frame(ledger)
        task = stored_task(ledger)
        with SqliteCache(ledger.cache_path) as cache:
            task_id, keys = cache.task_id(ledger.record), {k for k in rows.asked.keys if k}
            answers, _ = stored_answers(
                cache, ledger.record, task_id, keys, ignore_prompt=ledger.ignore_prompt, after=ledger.fresh_after
            )
        refused = rows.long.refused.keys() if rows.long else ()  # these are told of where the frame is made
        failures = _reasons(ledger, keys.difference(answers, refused))
        frame = answers_frame(index, rows, answers, failures, task.schema)
        return frame[frame[ERROR_COLUMN].isna()] if on_error == "drop" else frame

    # --- moving on --------------------------------------------------------------------------------------------

    def refresh(self) -> BatchStatus:
        """Look at the provider once: move on what can be, and bring home what has ended.

        Returns
        -------
        BatchStatus

        Raises
        ------
        ProviderError
            The provider could not be asked, or refused a part; everything else was moved on.
        BatchError
            Another kernel is at work on the job, or only a person can tell how to go on.
        """
        status, errors = self._push()
        if errors:
            raise errors[0]
        return status

    def wait(self, interval: float | None = None, timeout: float | None = None) -> BatchStatus:
        """Look again and again until everything is home, with a progress bar.

        Parameters
        ----------
        interval : float, optional
            Seconds between looks; without it they begin at one second and slow with the job's age, to a minute.
        timeout : float, optional
            Seconds to wait at most.

        Returns
        -------
        BatchStatus
            How the job is doing then; also after a timeout.

        Raises
        ------
        UsageError
            ``interval`` is no number of seconds.
        BatchError
            Only a person can tell how to go on.
        ProviderError
            The provider refuses (a bad key, say). A lost network or a provider that is down is waited out.
        RunInterrupted
            The cell was interrupted. The job goes on at the provider.
        """
        check_interval(interval)
        return wait_for(self._push, self.status(), interval=interval, timeout=timeout, show=self._show_progress)

    def cancel(self) -> BatchStatus:
        """Ask the provider to stop; what it had done by then is paid for and still comes home with :meth:`wait`.

        Returns
        -------
        BatchStatus

        Raises
        ------
        BatchError
            Nobody can tell yet whether a part was created, so it was not cancelled; all others were.
        ProviderError
            The provider could not be asked about a part; all others were cancelled.
        """
        with self._engine() as engine:
            errors = engine.cancel()
            status = status_of(engine.ledger)
        if errors:
            raise errors[0]
        return status

    def retry(self) -> BatchStatus:
        """Submit a new batch of just the rows that came home without an answer.

        Rows that spoilt a packed request (truncated, refused) are asked by themselves.

        Returns
        -------
        BatchStatus
        """
        self._settle_live_runs()
        with self._engine() as engine:
            planned, rows = self._unanswered(engine.ledger)
            if planned.ask:
                connection = can_build(self._connected(), self.job_id)
                add_parts(engine.ledger, connection, planned, rows.asked, alone=_alone(engine.ledger))
            errors = engine.push(poll=False)
        if errors:
            raise told(errors[0], self.job_id)
        return self.status()

    def finish_live(self) -> pd.DataFrame:
        """Ask the rows that came home without an answer through the live path, now and at the full price.

        As many rows go into a request as the job put into one.

        Returns
        -------
        DataFrame
            As :meth:`results`.
        """
        from lmsyz.extract import run_rows

        ledger = self._settle_live_runs()
        planned, rows = self._unanswered(ledger)
        if planned.ask:
            connection, index = can_build(self._connected(), self.job_id), self._frame(ledger)[1]
            run_rows(
                connection.task,
                connection.place,
                rows,
                planned,
                index,
                path=Path(ledger.cache_path),
                chunk_size=ledger.chunk_size,
                token_budget=ledger.token_budget,
                after=ledger.fresh_after,
            ).result()
        return self.results()

    def adopt(self, part: int, remote: str) -> BatchStatus:
        """Say which batch at the provider is a part of this job, where that could not be found out.

        Parameters
        ----------
        part : int
            The part's number, as :meth:`status` shows it.
        remote : str
            The provider's id of the batch.

        Returns
        -------
        BatchStatus
        """
        with self._engine() as engine:
            engine.adopt(_part(engine.ledger, part, (PartState.UNSURE, PartState.CREATING)), remote)
            return status_of(engine.ledger)

    def create_again(self, part: int) -> BatchStatus:
        """Say that no batch of a part exists, and create it; if there is one after all, its rows are paid for twice.

        Parameters
        ----------
        part : int
            The part's number.

        Returns
        -------
        BatchStatus
        """
        with self._engine() as engine:
            engine.create_again(_part(engine.ledger, part, (PartState.UNSURE, PartState.CREATING)))
            return status_of(engine.ledger)

    def give_up(self, part: int) -> BatchStatus:
        """Wait for a part no longer, where the provider knows nothing of it or will never go on with it.

        :meth:`retry` then asks its rows again.

        Parameters
        ----------
        part : int
            The part's number.

        Returns
        -------
        BatchStatus
        """
        with self._engine() as engine:
            engine.give_up(_part(engine.ledger, part, tuple(s for s in PartState if s.is_open)))
            return status_of(engine.ledger)

    def __repr__(self) -> str:
        return repr(self.status())

    def _repr_html_(self) -> str:
        return self.status()._repr_html_()

    # --- inside -----------------------------------------------------------------------------------------------

    def _push(self) -> tuple[BatchStatus, list[LmsyzError]]:
        with self._engine() as engine:
            errors = engine.push()
            return status_of(engine.ledger), errors

    @contextmanager
    def _engine(self) -> Iterator[BatchEngine]:
        """Hold the job's lock and give the engine the ledger as it is now: another kernel may have moved it on."""
        connection = self._connected()
        with locked(self.folder):
            ledger = Ledger.load(self.folder)
            yield make_engine(ledger, connection)

    def _settle_live_runs(self) -> Ledger:
        """Wait for what live runs of this kernel have in flight: rows of this job may be among it."""
        ledger = Ledger.load(self.folder)
        settle_earlier(Path(ledger.cache_path), ledger.record.fingerprint)
        return ledger

    def _connected(self) -> Connection:
        if self._connection is None:
            self._connection = self._connect()
        return self._connection

    def _frame(self, ledger: Ledger) -> tuple[Rows, pd.Index]:
        if self._rows is None or self._index is None:
            rows, about, labels = FrameFile(ledger).read()
            self._rows = _merged_by(rows, self._merge, self.job_id)
            self._index, is_same = index_from_json(about, labels, len(rows))
            if not is_same:
                log.warning("the frame's index could not be kept on disk; results have their positions instead")
        return self._rows, self._index

    def _unanswered(self, ledger: Ledger) -> tuple[Plan, Rows]:
        """Return the rows that are home without an answer, as a plan, with their texts and images as they were sent."""
        rows, _ = self._frame(ledger)
        with SqliteCache(ledger.cache_path) as cache:
            store_what_is_left(Path(ledger.cache_path), cache)
            task = self._connected().task
            planned = plan(cache, task, rows, ignore_prompt=ledger.ignore_prompt, after=ledger.fresh_after)
        away, asked = keys_away(ledger), rows.asked
        planned.ask = [p for p in planned.ask if asked.keys[p] not in away]
        if asked.images is not None or any(asked.texts[p] is None for p in planned.ask):
            asked = read_texts(ledger, asked, {asked.keys[p] for p in planned.ask})
            images = asked.images
            planned.ask = [p for p in planned.ask if asked.texts[p] is not None or (images and images[p])]
        return planned, rows.asked_as(asked)


def batch_jobs(batch_root_dir: str | os.PathLike[str] = BATCH_ROOT) -> pd.DataFrame:
    """List the batch jobs on this disk, as of the last look at the provider; sends nothing.

    Parameters
    ----------
    batch_root_dir : str or Path
        Where jobs lie.

    Returns
    -------
    DataFrame
        One row a job, the latest first: job_id, backend, model, state, rows, sent, answered, failed, pending, parts,
        submitted, expires (UTC) and cost (US dollars). A job whose ledger is damaged has the state ``damaged``.

    Examples
    --------
    >>> batch_jobs("no such folder").empty
    True
    """
    from lmsyz.frames import jobs_frame

    ledgers = list(ledgers_in(Path(batch_root_dir).expanduser()))
    for damaged in (found for found in ledgers if isinstance(found, BatchError)):
        log.warning("%s", damaged)
    return jobs_frame([status_of(found) for found in ledgers if isinstance(found, Ledger)])


def _merged_by(rows: Rows, merge: Merge | None, job_id: str) -> Rows:
    """Return rows with the user's function, where the answers to parts of theirs are merged by one."""
    long = rows.long
    if long is None or not long.parts or not long.merge_name:
        return rows
    if merge is None:
        raise UsageError(
            f"job {job_id!r} asks about parts of texts, and your function {long.merge_name} merges their answers. Its"
            f" code is not on disk: lmsyz.BatchJob.load({job_id!r}, merge={long.merge_name})"
        )
    return replace(rows, long=replace(long, merge=merge))


def _alone(ledger: Ledger) -> frozenset[bytes]:
    return frozenset(key for key, reason in read_failures(ledger).items() if reason.startswith(ALONE))


def _reasons(ledger: Ledger, unanswered: set[bytes]) -> dict[bytes, str]:
    """Return why texts have no answer, for those that are not on their way (again)."""
    away = keys_away(ledger) if unanswered else set()
    failures = read_failures(ledger)
    return {key: failures.get(key, GONE) for key in unanswered - away}


def _part(ledger: Ledger, n: int, states: tuple[PartState, ...]) -> Part:
    for part in ledger.parts:
        if part.n == n and part.state in states:
            return part
    able = [p.n for p in ledger.parts if p.state in states]
    raise UsageError(f"part {n} of job {ledger.job_id!r} is not in that state; parts that are: {able or 'none'}")
