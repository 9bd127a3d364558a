"""A run as the user sees it: wait for it, steer it, read what it did."""

from __future__ import annotations

import html
import json
import platform
import threading
import time
import uuid
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lmsyz.errors import ExtractionError, ProviderError, RunInterrupted
from lmsyz.events import RunFinished
from lmsyz.live import LiveEngine
from lmsyz.progress import ProgressBar
from lmsyz.report import Counts, Tally, reason_word
from lmsyz.rows import Rows
from lmsyz.store import Saved
from lmsyz.task import Task, canonical_json, redacted

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["Run", "last_run"]

SLICE_S = 0.1
MANIFEST_PACKAGES = ("lmsyz", "openai", "anthropic", "pandas", "tenacity", "genai-prices")

_last: Run | None = None
_unsettled: set[Run] = set()
_lock = threading.Lock()


def last_run() -> Run | None:
    """Return the latest run of this kernel, None before the first.

    Examples
    --------
    >>> last_run() is None or last_run().counts.n_rows >= 0
    True
    """
    return _last


@dataclass(eq=False, kw_only=True)
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
    cache_path: Path
    rows: Rows
    index: pd.Index
    tally: Tally
    engine: LiveEngine | None
    answers: Mapping[bytes, str]
    saved: Saved
    chunk_size: int
    max_workers: int
    on_error: str = "keep"
    n_seed: int = 0
    save: Callable[[Run], None] = field(repr=False, default=lambda run: None)
    started: float = field(default_factory=time.time)
    _progress: ProgressBar | None = field(default=None, repr=False)
    _observed: bool = field(default=False, repr=False)

    # --- steering ---------------------------------------------------------------------------------------------

    def start(self, *, show_progress: bool) -> None:
        """Start the work; returns at once."""
        global _last
        _last = self
        if show_progress and self.rows:
            self._progress = ProgressBar(len(self.rows), show=True)
        if self.engine is None:
            self.tally(RunFinished(how="done"))
            self._settled()
            return
        with _lock:
            _unsettled.add(self)
        threading.Thread(target=self._close_books, name="lmsyz-run", daemon=True).start()
        self.engine.start()

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

    def wait(self, timeout: float | None = None) -> bool:
        """Wait for the end, painting the progress bar; return whether it has come.

        Parameters
        ----------
        timeout : float, optional
            Seconds to wait at most.
        """
        until = None if timeout is None else time.monotonic() + timeout
        finished = self.engine.finished if self.engine else None
        while finished is not None and not finished.wait(SLICE_S):
            self._paint()
            if until is not None and time.monotonic() > until:
                return False
        self._close_bar()
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
        finally:
            if self.engine is None or self.engine.stopped or self.engine.finished.is_set():
                self._close_bar()
        if not done:
            raise TimeoutError(f"the run has not ended after {timeout:g} s; it goes on ({self._line()})")
        if self.engine and self.engine.error:
            raise self._told(self.engine.error)
        return self._frame()

    def __await__(self) -> Any:
        """Wait for the result without blocking the event loop of a notebook: ``await run``."""
        import asyncio

        return asyncio.to_thread(self.result).__await__()

    # --- reading ----------------------------------------------------------------------------------------------

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
        return self.engine.failures if self.engine else {}

    @property
    def errors(self) -> pd.DataFrame:
        """The rows without an answer: position, row id, kind and reason, at the frame's own index."""
        from lmsyz.frames import errors_frame

        return errors_frame(self.index, self.rows, self.answers, self.failures)

    def manifest(self) -> dict[str, Any]:
        """Return what a paper's appendix needs to say of this run; no texts, no keys.

        Returns
        -------
        dict
            JSON-able: task with hashes, model as asked and as returned, options, versions, counts, dates, cost.
        """
        return _manifest(self)

    def manifest_json(self) -> str:
        """Return :meth:`manifest` as indented JSON text."""
        return json.dumps(self.manifest(), indent=2, ensure_ascii=False)

    def __repr__(self) -> str:
        lines = [f"<lmsyz run {self.run_id}: {self._line()}>"]
        lines += [f"  {name}: {value}" for name, value in self._facts()]
        lines += [f"  {n:,} x {reason}{_eg(examples)}" for reason, (n, examples) in self._top_reasons()]
        return "\n".join(lines)

    def _repr_html_(self) -> str:
        """Show the report as a small table; everything in it is escaped, since some of it came from a model."""
        rows = "".join(
            f'<tr><th style="text-align:left">{html.escape(name)}</th>'
            f'<td style="text-align:left">{html.escape(value)}</td></tr>'
            for name, value in self._facts()
        )
        errors = "".join(
            f"<li>{html.escape(f'{n:,} × {reason}{_eg(examples)}')}</li>"
            for reason, (n, examples) in self._top_reasons()
        )
        title = html.escape(f"lmsyz run {self.run_id}: {self._line()}")
        return f"<div><b>{title}</b><table>{rows}</table>{f'<ul>{errors}</ul>' if errors else ''}</div>"

    # --- inside -----------------------------------------------------------------------------------------------

    def _frame(self) -> pd.DataFrame:
        from lmsyz.frames import ERROR_COLUMN, answers_frame

        frame = answers_frame(self.index, self.rows, self.answers, self.failures, self.task.schema)
        bad = frame[ERROR_COLUMN].notna()
        if self.on_error == "drop":
            return frame[~bad]
        if self.on_error == "raise" and bad.any():
            raise ExtractionError(self._failure_words(int(bad.sum())), frame)
        return frame

    def _failure_words(self, n_bad: int) -> str:
        reasons = "; ".join(
            f"{n:,} {reason}{_eg(examples)}" for reason, (n, examples) in self._top_reasons(3)
        )
        return (
            f"{n_bad:,} of {len(self.rows):,} rows have no answer: {reasons}. The others are stored in"
            f" {self.cache_path}; the same call asks only these again. The error's .result holds the whole frame."
        )

    def _told(self, error: BaseException) -> BaseException:
        counts = self.counts
        kept = counts.n_cached + counts.n_ok
        if isinstance(error, ProviderError) and not getattr(error, "__notes__", None):
            error.add_note(
                f"The run stopped: {kept:,} of {counts.n_rows:,} rows have an answer and are stored in"
                f" {self.cache_path}; the same call goes on from there."
            )
        return error

    def _interrupt_words(self) -> str:
        counts = self.counts
        kept = counts.n_cached + counts.n_ok
        return f"Interrupted: {kept:,} of {counts.n_rows:,} rows are done and stored; run the cell again to continue."

    def _close_books(self) -> None:
        assert self.engine is not None
        self.engine.finished.wait()
        self._settled()
        with _lock:
            _unsettled.discard(self)

    def _settled(self) -> None:
        self.save(self)

    def _paint(self) -> None:
        if self._progress:
            self._progress.paint(self.counts)

    def _close_bar(self) -> None:
        if self._progress:
            progress, self._progress = self._progress, None
            progress.close(self.counts)

    def _line(self) -> str:
        c = self.counts
        failed = sum(c.n_failed.values())
        parts = [
            f"{c.n_rows:,} rows",
            f"{c.n_cached:,} cached",
            f"{c.n_ok:,} answered",
            f"{failed:,} without answer",
        ]
        if c.n_waiting:
            parts.append(f"{c.n_waiting:,} waiting")
        return f"{', '.join(parts)} ({c.how})"

    def _facts(self) -> list[tuple[str, str]]:
        c = self.counts
        asked = f"{self.task.model} at {self.task.endpoint} ({self.task.backend})"
        returned = ", ".join(m for m in c.models if m) or "no reply"
        tokens = f"{_int(c.input_tokens)} in, {_int(c.output_tokens)} out"
        facts = [
            ("model", f"{asked}; returned: {returned}"),
            ("requests", f"{c.n_requests:,} sent, {c.n_retries:,} retries, {c.n_reasked:,} rows asked again"),
            ("tokens", tokens),
            ("cost", _dollars(c.cost)),
            ("saved by the cache", f"{self.saved.n_rows:,} rows, {_dollars(self.saved.cost)}"),
            ("time", f"{c.wall_s:.1f} s"),
            ("stored in", str(self.cache_path)),
        ]
        if self.task.endpoint == "sandbox":
            facts.insert(1, ("note", "answers come from the sandbox's rules, not from a language model"))
        if self.n_seed:
            facts.append(
                ("seed rows", f"{self.n_seed:,} taken over from a cache that recorded no text and no model")
            )
        return facts

    def _top_reasons(self, most: int = 8) -> list[tuple[str, tuple[int, tuple[str, ...]]]]:
        return sorted(self.counts.reasons.items(), key=lambda item: -item[1][0])[:most]

    def _json(self) -> str:
        return canonical_json(self.manifest())


def new_run_id() -> str:
    """Return an id that sorts by time and does not collide."""
    return time.strftime("%Y%m%dT%H%M%S", time.gmtime()) + "-" + uuid.uuid4().hex[:8]


def settle_interrupted(cache_path: Path) -> None:
    """Wait until what an interrupted run still has in flight on this store has landed: it is paid for already."""
    with _lock:
        waiting = [r for r in _unsettled if r.cache_path == cache_path and r.engine and r.engine.stopped]
    for run in waiting:
        assert run.engine is not None
        while not run.engine.finished.wait(SLICE_S):
            pass


def _manifest(run: Run) -> dict[str, Any]:
    c = run.counts
    record = run.task.record
    return {
        "run_id": run.run_id,
        "backend": record.backend,
        "api": record.api,
        "endpoint": record.endpoint,
        "model_asked": record.model,
        "models_returned": sorted(m for m in c.models if m),
        "task_fingerprint": record.fingerprint,
        "prompt": record.prompt,
        "prompt_sha256": _sha(record.prompt),
        "system_prompt_sha256": record.system_hash,
        "schema": json.loads(record.schema) if record.schema else None,
        "schema_sha256": record.schema_hash if record.schema else None,
        "request_options": json.loads(canonical_json(redacted(run.task.options))),
        "chunk_size": run.chunk_size,
        "max_workers": run.max_workers,
        "verify_rows": run.task.verify,
        "shuffle_seed": 42,
        "rows": {
            "total": c.n_rows,
            "cached": c.n_cached,
            "answered": c.n_ok,
            "without_answer": dict(c.n_failed),
            "taken_from_seed_cache": run.n_seed,
        },
        "requests": {"sent": c.n_requests, "retries": dict(c.retries), "outcomes": dict(c.outcomes)},
        "tokens": {
            "input": c.input_tokens,
            "output": c.output_tokens,
            "input_from_prompt_cache": c.cached_tokens,
        },
        "cost_usd": c.cost,
        "saved_by_cache_usd": run.saved.cost,
        "wall_s": round(c.wall_s, 3),
        "started": _date(run.started),
        "ended": _date(run.started + c.wall_s),
        "how_it_ended": c.how,
        "rules_not_a_language_model": record.endpoint == "sandbox",
        "versions": _versions(),
    }


def _versions() -> dict[str, str]:
    versions = {"python": platform.python_version()}
    for package in MANIFEST_PACKAGES:
        try:
            versions[package] = version(package)
        except PackageNotFoundError:
            versions[package] = "not installed as a package"
    return versions


def _sha(text: str) -> str:
    import hashlib

    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()


def _date(at: float) -> str:
    return datetime.fromtimestamp(at, UTC).isoformat(timespec="seconds")


def _known(value: float | None) -> Any:
    import pandas as pd

    return pd.NA if value is None else value


def _dollars(value: float | None) -> str:
    return "<NA> (price unknown)" if value is None else f"${value:,.4f}"


def _int(value: int | None) -> str:
    return "<NA>" if value is None else f"{value:,}"


def _eg(examples: tuple[str, ...]) -> str:
    return f" (rows {', '.join(examples[:5])})" if examples else ""


def reasons_by_kind(run: Run) -> dict[str, int]:
    """Return how many rows failed for each kind of reason."""
    kinds: dict[str, int] = {}
    for reason, (n, _) in run.counts.reasons.items():
        kinds[reason_word(reason)] = kinds.get(reason_word(reason), 0) + n
    return kinds
