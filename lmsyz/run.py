"""A run as the user sees it: wait for it, steer it, read what it did."""

from __future__ import annotations

import importlib
import json
import logging
import time
import uuid
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lmsyz import in_flight
from lmsyz.errors import ExtractionError, LmsyzError, ProviderError, RunInterrupted, UsageError
from lmsyz.live import LiveEngine
from lmsyz.manifest import build_manifest
from lmsyz.progress import ProgressBar
from lmsyz.report import Counts, Tally, reason_word
from lmsyz.rows import Rows
from lmsyz.run_report import reasons_words, run_html, run_line, run_text
from lmsyz.store import Saved, Store
from lmsyz.task import Task

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["Run", "last_run", "new_run_id"]

log = logging.getLogger(__name__)

SLICE_S = 0.1

_last: Run | None = None


def last_run() -> Run | None:
    """Return the latest run of this kernel, None before the first.

    Examples
    --------
    >>> last_run() is None or last_run().counts.n_rows >= 0
    True
    """
    return _last


@dataclass(eq=False, kw_only=True, repr=False)
class Run:
    """One call of ``extract``, while it runs and after.

    Attributes
    ----------
    run_id : str
        Written beside each exchange in the store.
    task : Task
        What was asked.
    cache_path : Path
        The store.
    """

    run_id: str
    task: Task
    task_id: int
    cache_path: Path
    rows: Rows
    index: pd.Index
    tally: Tally
    answers: Mapping[bytes, str]
    saved: Saved
    how_asked: Mapping[str, Any]
    on_error: str = "keep"
    show_progress: bool | str = False
    again: Callable[[], Run] | None = None
    n_seed: int = 0
    engine: LiveEngine | None = None
    started: float = field(default_factory=time.time)
    _is_started: bool = False

    # --- steering ---------------------------------------------------------------------------------------------

    def start(self) -> None:
        """Start the work if it is not started yet; returns at once."""
        global _last
        if self._is_started:
            return
        try:
            self._is_started = True
            _last = self
            if self.engine is None:
                return
            in_flight.remember(self.run_id, self.cache_path, self.task.fingerprint, self.engine)
            self.engine.start()
        except BaseException:  # an interrupt may come before there is a thread
            if self.engine is not None:
                self.engine.abandon()
            raise

    def pause(self) -> None:
        """Send nothing more until :meth:`resume`; what is in flight still lands in the store."""
        if self.engine:
            self.engine.pause()

    def resume(self) -> None:
        """Go on after :meth:`pause`."""
        if self.engine:
            self.engine.resume()

    def stop(self) -> None:
        """Send nothing more and keep what is done; what is in flight is paid for and still lands in the store."""
        if self.engine:
            self.engine.stop()

    def retry(self) -> Run:
        """Ask the rows that have no answer again, in the background, and return that run; what is stored is kept.

        Returns
        -------
        Run
            Over the same rows; those with an answer come from the store.

        Raises
        ------
        UsageError
            This run has not ended, or cannot be repeated.
        """
        if self.is_live:
            raise UsageError("the run has not ended: wait for it, or call .stop() first, then .retry()")
        if self.again is None:
            raise UsageError("this run cannot be repeated; make the same call of df.ie.extract again")
        run = self.again()
        run.start()
        return run

    def wait(self, timeout: float | None = None) -> bool:
        """Wait for the end, painting a progress bar where one is wanted; return whether it has come.

        Parameters
        ----------
        timeout : float, optional
            Seconds to wait at most.

        Returns
        -------
        bool
        """
        self.start()
        until = None if timeout is None else time.monotonic() + timeout
        counts = self.counts
        with self._shown_progress(counts) as bar:
            try:
                while self.engine is not None and not self.engine.finished.wait(SLICE_S):
                    counts = self.counts
                    bar.paint(counts.n_done, _postfix(counts))
                    if until is not None and time.monotonic() > until:
                        return False
            finally:
                counts = self.counts
                bar.show(counts.n_done, _postfix(counts))
        return True

    def result(self, timeout: float | None = None) -> pd.DataFrame:
        """Wait for the end and return the answers, aligned to the frame that was asked about.

        Parameters
        ----------
        timeout : float, optional
            Seconds to wait at most.

        Returns
        -------
        DataFrame
            As :meth:`df.ie.extract` returns it.

        Raises
        ------
        TimeoutError
            The run goes on.
        ProviderError
            The run ended because no request of it could work (a bad key, an unknown model, no credit).
        CacheError
            The store could not be written; a note says what is not on disk.
        ExtractionError
            With ``on_error="raise"``, where some rows have no answer.
        RunInterrupted
            The cell was interrupted; everything finished is stored.
        """
        try:
            done = self.wait(timeout)
        except KeyboardInterrupt:
            self.stop()
            raise RunInterrupted(self._interrupt_words()) from None
        if not done:
            raise TimeoutError(f"the run has not ended after {timeout:g} s; it goes on ({run_line(self.counts)})")
        if self.engine and self.engine.error:
            error = self._told(self.engine.error)
            # How a worker came to it is three screens of a notebook, and tells a user nothing that the words do not.
            raise error.with_traceback(None) if isinstance(error, LmsyzError) else error
        return self._by_wish(self.frame())

    def __await__(self) -> Any:
        """Wait for the result without blocking the event loop of a notebook: ``await run``."""
        import asyncio

        return asyncio.to_thread(self.result).__await__()

    # --- reading ----------------------------------------------------------------------------------------------

    def frame(self) -> pd.DataFrame:
        """Return what has come home so far, aligned; rows still to be asked say ``pending`` in ``ie_error``.

        Returns
        -------
        DataFrame
            All rows, whatever ``on_error`` says; also after an error ended the run.
        """
        from lmsyz.frames import answers_frame

        is_over = self.engine is None or self.engine.finished.is_set()
        answers = self.answers if is_over else dict(self.answers)
        return answers_frame(self.index, self.rows, answers, self.failures, self.task.schema)

    @property
    def is_live(self) -> bool:
        """Whether the run is under way."""
        return self._is_started and self.engine is not None and not self.engine.finished.is_set()

    def panel(self) -> Any:
        """Return the panel with this run, the batch jobs and the cache; shown live in a notebook, text elsewhere.

        Returns
        -------
        lmsyz.widgets.panel.Panel
        """
        return _faces().run_panel(self)

    @property
    def counts(self) -> Counts:
        """The figures of this moment."""
        return self.tally.counts()

    @property
    def cost(self) -> Any:
        """US dollars spent by this run; ``<NA>`` where a price is unknown, never a made-up zero."""
        return _known(self.counts.cost)

    @property
    def failures(self) -> Mapping[bytes, str]:
        """Reasons of failed rows by text key."""
        return dict(self.engine.failures) if self.engine else {}

    @property
    def errors(self) -> pd.DataFrame:
        """The rows without an answer: position, row id, kind and reason, at the frame's own index."""
        from lmsyz.frames import errors_frame

        return errors_frame(self.index, self.rows, self.answers, self.failures, self.task.schema)

    @property
    def errors_by_kind(self) -> dict[str, tuple[int, tuple[str, ...]]]:
        """How many rows failed for each kind of reason, with example row ids (positions where there are none)."""
        kinds: dict[str, tuple[int, tuple[str, ...]]] = {}
        for reason, (n, examples) in self.counts.reasons.items():
            before, shown = kinds.get(reason_word(reason), (0, ()))
            kinds[reason_word(reason)] = (before + n, (*shown, *examples)[:5])
        return kinds

    def manifest(self) -> dict[str, Any]:
        """Return what a paper's appendix needs to say of this run; no texts, no keys.

        Returns
        -------
        dict
            JSON-able: task with hashes, model as asked and as returned, options, versions, counts, dates, cost.
        """
        return build_manifest(
            self.task.record,
            self.counts,
            self.saved,
            run_id=self.run_id,
            started=self.started,
            how_asked=self.how_asked,
        )

    def manifest_json(self) -> str:
        """Return :meth:`manifest` as indented JSON text."""
        return json.dumps(self.manifest(), indent=2, ensure_ascii=False)

    def save(self, store: Store) -> None:
        """Write the run and its manifest into the store."""
        ended = None if self.counts.how == "running" else time.time()
        manifest = json.dumps(self.manifest(), ensure_ascii=False)
        store.save_run(self.run_id, self.task_id, self.started, ended, manifest)

    def __repr__(self) -> str:
        return run_text(self)

    def _ipython_display_(self) -> None:
        """Show a run under way as it goes; one that is over, or has no screen, is shown as what it is by now."""
        if not self.is_live or not _faces().show_live(self):
            raise NotImplementedError  # IPython then goes on to the other forms

    def _repr_html_(self) -> str:
        """Show the report as a small table; everything in it is escaped, since some of it came from a model."""
        return run_html(self)

    # --- inside -----------------------------------------------------------------------------------------------

    def _by_wish(self, frame: pd.DataFrame) -> pd.DataFrame:
        from lmsyz.frames import ERROR_COLUMN

        bad = frame[ERROR_COLUMN].notna()
        if self.on_error == "drop":
            return frame[~bad]
        if self.on_error == "raise" and bad.any():
            raise ExtractionError(self._failure_words(int(bad.sum())), frame)
        return frame

    def _failure_words(self, n_bad: int) -> str:
        return (
            f"{n_bad:,} of {len(self.rows):,} rows have no answer: {reasons_words(self.counts)}. The others are stored"
            f" in {self.cache_path}; {self._how_to('the same call asks only these again', 'asks only these again')}."
            " The error's .result holds the whole frame."
        )

    def _told(self, error: BaseException) -> BaseException:
        if isinstance(error, ProviderError) and not any("stored in" in n for n in getattr(error, "__notes__", ())):
            error.add_note(
                f"The run stopped: {self._n_kept:,} of {self.counts.n_rows:,} rows have an answer and are stored in"
                f" {self.cache_path}; {self._how_to('the same call goes on from there', 'goes on from there')}."
            )
        return error

    def _interrupt_words(self) -> str:
        return (
            f"Interrupted: {self._n_kept:,} of {self.counts.n_rows:,} rows are done and stored;"
            f" {self._how_to('run it again to continue', 'continues')}."
        )

    def _how_to(self, plainly: str, what: str) -> str:
        """Return how to ask the rest; the same call would ask all again, or without fresh=True take old answers."""
        again = f"in this kernel, lmsyz.last_run().retry().result() {what}"
        return again if self.how_asked.get("fresh") else plainly

    def _shown_progress(self, counts: Counts) -> Any:
        """Return what shows the progress to whoever waits: the panel's view where asked for and possible, or a bar."""
        if self.show_progress == "panel":
            view = _faces().foreground(self)
            if view is not None:
                return view
        return ProgressBar(counts.n_rows, counts.n_cached, show=bool(self.show_progress), elapsed_s=counts.wall_s)

    @property
    def _n_kept(self) -> int:
        return self.counts.n_cached + self.counts.n_ok


def _faces() -> Any:
    """Return the panel's module, which imports this one; looked up by name, so that no import goes upwards."""
    return importlib.import_module("lmsyz.widgets.panel")


def new_run_id() -> str:
    """Return an id that sorts by time and does not collide."""
    return time.strftime("%Y%m%dT%H%M%S", time.gmtime()) + "-" + uuid.uuid4().hex[:8]


def _postfix(counts: Counts) -> dict[str, object]:
    shown: dict[str, object] = {
        "cached": f"{counts.n_cached:,}",
        "failed": f"{sum(counts.n_failed.values()) - counts.n_cancelled:,}",
    }
    if counts.n_cancelled:
        shown["cancelled"] = f"{counts.n_cancelled:,}"
    if counts.n_retries:
        shown["retries"] = f"{counts.n_retries:,}"
    return shown


def _known(value: float | None) -> Any:
    import pandas as pd

    return pd.NA if value is None else value
