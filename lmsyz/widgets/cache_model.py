"""What the cache view shows: filter, page, selection by answer number, actions. No widgets here."""

from __future__ import annotations

import csv
import json
import os
import time
from collections.abc import Collection, Iterable, Iterator
from dataclasses import replace
from pathlib import Path

import pandas as pd

from lmsyz.cache import SqliteCache
from lmsyz.cache_rows import STALE, STORED, FoundPage, FoundRow, Group, RowDetail, RowFilter, unix_time
from lmsyz.csv_guard import guarded_text
from lmsyz.errors import CacheError, MissingExtraError, UsageError
from lmsyz.whole_file import whole_file

__all__ = ["COLUMNS", "CacheModel", "line", "when"]

COLUMNS = ("id", "row_id", "status", "model", "prompt", "created", "text", "answer")
BUSY_S = 2.0  # a view says that the file is locked sooner than a run gives up
NBSP = "\u00a0"


class CacheModel:
    """A cache file as it is looked through.

    Parameters
    ----------
    path : str or Path
        The file; it is never made.
    task_ids : collection of int, optional
        Only rows of these tasks.
    page_rows : int, optional
        Rows a page.
    """

    def __init__(
        self, path: str | os.PathLike[str], *, task_ids: Collection[int] | None = None, page_rows: int = 50
    ) -> None:
        self.path = Path(path)
        self.wanted = RowFilter(task_ids=None if task_ids is None else tuple(task_ids))
        self.page_rows = page_rows
        self.groups: list[Group] = []
        self.reuse = (0, 0, 0)
        self.page = FoundPage()
        self.n_searched = 0
        self._starts: list[int | None] = [None]

    def _open(self, *, read_only: bool = True) -> SqliteCache:
        if not self.path.exists():
            raise CacheError(f"there is no cache file {str(self.path)!r} yet; the first extract makes it")
        if read_only:
            return _reader(self.path)
        return SqliteCache(self.path, busy_timeout_s=BUSY_S)

    # --- looking ------------------------------------------------------------------------------------------------

    def load(self) -> None:
        """Read groups and the first page anew."""
        with self._open() as cache:
            self.groups = cache.groups()
            self.reuse = cache.reuse_of_runs()
        self.first()

    def says_reuse(self) -> str:
        """Return how much the runs on this file found in it, in words."""
        runs, total, cached = self.reuse
        if not total:
            return "No run has asked for rows of this file yet."
        return f"Hit rate {cached / total:.0%}: {cached:,} of the {total:,} rows in {runs:,} runs were stored already."

    def filter(self, **changes: str) -> None:
        """Change the filter's ``status``, ``prompt``, ``model``, ``row_id``, ``answer_text`` or ``input_text``."""
        wanted = replace(self.wanted, **changes)  # type: ignore[arg-type]
        if wanted != self.wanted:
            self.wanted = wanted
            self.first()

    def first(self) -> None:
        """Go to the first page."""
        self._starts = [None]
        self.n_searched = 0
        self._read()

    def next(self) -> None:
        """Go to the next page, or search on where a search stopped for its time."""
        if self.is_searching:
            self.search_on()
        elif self.page.next_id is not None:
            self._starts.append(self.page.next_id)
            self._read()

    @property
    def is_searching(self) -> bool:
        """Whether the page is not full since the search for its rows stopped for its time."""
        return self.page.next_id is not None and len(self.page.rows) < self.page_rows

    def search_on(self) -> None:
        """Search on for rows of this page, as long as one search may take."""
        before = self.page
        with self._open() as cache:
            found = cache.find(self.wanted, before_id=before.next_id, limit=self.page_rows - len(before.rows))
        self.page = replace(found, rows=[*before.rows, *found.rows])
        self.n_searched += found.n_searched

    def previous(self) -> None:
        """Go to the page before."""
        if len(self._starts) > 1:
            self._starts.pop()
            self.n_searched = 0
            self._read()

    def _read(self) -> None:
        with self._open() as cache:
            self.page = cache.find(self.wanted, before_id=self._starts[-1], limit=self.page_rows)
        self.n_searched += self.page.n_searched

    @property
    def number(self) -> int:
        """The page's number, from 1."""
        return len(self._starts)

    @property
    def is_first(self) -> bool:
        """Whether there is no page before."""
        return len(self._starts) == 1

    @property
    def n_rows(self) -> int:
        """Rows that are stored under the tasks that the filter allows."""
        allowed = self.wanted.task_ids
        return sum(g.n_rows for g in self.groups if allowed is None or g.task_id in allowed)

    def _n_all(self) -> int:
        """Return how many there are to search: answers, or exchanges for those that failed."""
        if self.wanted.status == STORED:
            return self.n_rows
        return sum(g.n_stale if self.wanted.status == STALE else g.n_requests for g in self.groups)

    def says(self) -> str:
        """Return where this page stands, in words."""
        if self.is_searching:
            return (
                f"Searched {self.n_searched:,} of about {self._n_all():,}; {len(self.page.rows):,} found so far for"
                " this page. An open panel searches on by itself; elsewhere Next does."
            )
        more = "more follow" if self.page.next_id is not None else "no more follow"
        n = len(self.page.rows)
        of_what = " of this question" if self.wanted.task_ids is not None else ""
        return f"Page {self.number:,}: {n:,} {'row' if n == 1 else 'rows'}{of_what}, newest first; {more}."

    def show(self, answer_id: int) -> RowDetail:
        """Return one row opened."""
        with self._open() as cache:
            return cache.show(answer_id)

    # --- acting -------------------------------------------------------------------------------------------------

    def delete(self, answer_ids: Iterable[int]) -> int:
        """Delete answers for good and read the page anew; return how many there were."""
        with self._open(read_only=False) as cache:
            n = cache.delete(answer_ids)
        self.load()
        return n

    def ask_again(self, answer_ids: Iterable[int]) -> int:
        """Mark answers so that the next run asks their rows again; return how many were marked."""
        with self._open(read_only=False) as cache:
            n = cache.ask_again(answer_ids)
        self.load()
        return n

    def python(self, answer_id: int) -> str:
        """Return Python that reads an answer back, and the call that asks the same."""
        task = self.show(answer_id).task
        options = _options(task.options)
        lines = [
            "import json, lmsyz",
            f"with lmsyz.SqliteCache({str(self.path.absolute())!r}, read_only=True) as cache:",
            f"    answer = json.loads(cache.show({int(answer_id)}).row.answer)",
            "",
            "# The same question to a frame df with the column 'text':",
            "# out = df.ie.extract(",
            f"#     {task.prompt!r},",
            *([f"#     schema=json.loads({task.schema!r}),"] if task.schema else []),
            f"#     backend={task.backend!r}, model={task.model!r},",
            f"#     cache_path={str(self.path.absolute())!r},",
            *([f"#     **{options!r},"] if options else []),
            "# )",
        ]
        return "\n".join(lines)

    # --- taking along -------------------------------------------------------------------------------------------

    def rows(self) -> Iterator[FoundRow]:
        """Go through all rows that the filter lets through."""
        with self._open() as cache:
            yield from cache.export_rows(self.wanted)

    def selection(self) -> pd.DataFrame:
        """Return all rows that the filter lets through as a frame."""
        return pd.DataFrame([_cells(row) for row in self.rows()], columns=list(COLUMNS))

    def export(self, path: str | os.PathLike[str], *, guard: bool = True) -> Path:
        """Write all rows that the filter lets through to a CSV or Parquet file.

        Parameters
        ----------
        path : str or Path
            Ends in ``.csv`` or ``.parquet``; must not be there yet.
        guard : bool, optional
            Whether CSV texts that a spreadsheet would run as a formula get an apostrophe before them.

        Raises
        ------
        UsageError
            The name ends otherwise, or the file is there or cannot be written.
        MissingExtraError
            Parquet needs pyarrow.
        """
        target = Path(path).expanduser()
        kind = target.suffix.lower()
        if kind not in (".csv", ".parquet"):
            raise UsageError(f"{target.name!r} should end in .csv or .parquet")
        _check_free(target)
        try:
            with whole_file(target) as part:
                if kind == ".parquet":
                    self._write_parquet(part)
                else:
                    self._write_csv(part, guard=guard)
                _check_free(target)  # once more: writing takes its time
        except OSError as error:
            raise UsageError(f"{str(target)!r} cannot be written: {error.strerror or error}") from error
        return target

    def _write_csv(self, target: Path, *, guard: bool) -> None:
        with target.open("w", encoding="utf-8", newline="") as file:
            out = csv.writer(file)
            out.writerow(COLUMNS)
            for row in self.rows():
                cells = _cells(row)
                out.writerow([guarded_text(c) if guard else c for c in cells])

    def _write_parquet(self, target: Path) -> None:
        try:
            self.selection().to_parquet(target)
        except ImportError as error:
            raise MissingExtraError("Parquet needs pyarrow: pip install pyarrow. Or export to .csv") from error


def _check_free(target: Path) -> None:
    if target.exists():
        raise UsageError(f"{str(target)!r} is there already; give another name")


def _reader(path: Path) -> SqliteCache:
    """Open a file to read; one of an older version is brought up to date first, where that may be."""
    try:
        return SqliteCache(path, read_only=True, busy_timeout_s=BUSY_S)
    except CacheError as error:
        if "older version" not in str(error):
            raise
        return SqliteCache(path, busy_timeout_s=BUSY_S)


def _options(text: str) -> dict[str, object]:
    try:
        found = json.loads(text or "{}")
    except ValueError:
        return {}
    return found if isinstance(found, dict) else {}


def _cells(row: FoundRow) -> tuple[object, ...]:
    created = pd.Timestamp(row.created, unit="s") if row.created else pd.NaT
    return row.id, row.row_id, row.status, row.model, row.prompt, created, row.text, row.answer


def when(created: float | None) -> str:
    """Return a moment as it is shown; nothing for what a file from elsewhere may hold instead of one."""
    known = unix_time(created)
    return time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime(known)) if known else ""


def line(row: FoundRow) -> str:
    """Return a row as one line of fixed columns, with what cannot be seen made visible."""
    cells = (
        (str(row.id), 9),
        (row.row_id, 14),
        (row.status, 9),
        (row.model, 16),
        (when(row.created), 20),
        (row.text, 40),
        (row.answer, 60),
    )
    return NBSP.join(_fixed(text, width) for text, width in cells)


def _fixed(text: str, width: int) -> str:
    shown = "".join(c if c.isprintable() else {"\n": "⏎", "\t": "⇥"}.get(c, "�") for c in text[: width + 1])
    cut = shown[: width - 1] + "…" if len(shown) > width else shown
    return cut.ljust(width).replace(" ", NBSP)
