"""Looking through a cache file: groups, rows page by page, one row opened; deleting, and marking to be asked again.

Pages go by answer number, newest first, and a search looks at slices until its time is over, so that a file of a
million rows answers as soon as a small one. An answer that is marked stale is moved to a table of its own: looking up
does not find it there, so that the next run asks again, and browsing does.
"""

from __future__ import annotations

import sqlite3
import time
from collections import defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import replace
from typing import Any

from lmsyz.cache_archive import TASK_COLUMNS, Archive, task_record
from lmsyz.cache_file import marks, numbers, parts
from lmsyz.cache_rows import STALE, STORED, FoundPage, FoundRow, Group, RowDetail, RowFilter, unix_time
from lmsyz.cache_search import NEWEST, answers, search, with_inputs
from lmsyz.errors import CacheError, UsageError
from lmsyz.store import TaskRecord

__all__ = ["Browse"]

EXPORT_PAGE = 500


class Browse(Archive):
    """What a user looks for in a cache file, and does with what is found."""

    def groups(self) -> list[Group]:
        """Return what the file holds, task by task: prompt, model, rows, dates, tokens and cost.

        Returns
        -------
        list of Group
            The one asked last first.
        """
        sql = (
            f"SELECT t.id, {','.join('t.' + c for c in TASK_COLUMNS)},"
            " (SELECT count(*) FROM answers a WHERE a.task_id = t.id),"
            " (SELECT count(*) FROM stale_answers s WHERE s.task_id = t.id),"
            " r.n, r.input, r.output, r.unknown, r.cost, r.first, r.last FROM tasks t LEFT JOIN"
            " (SELECT task_id, count(*) n, sum(input_tokens) input, sum(output_tokens) output,"
            " sum(cost IS NULL) unknown, sum(cost) cost, min(created) first, max(created) last"
            " FROM requests GROUP BY task_id) r ON r.task_id = t.id ORDER BY r.last DESC, t.id DESC"
        )
        with self._reading() as db:
            return [_group(row) for row in db.execute(sql).fetchall()]

    def reuse_of_runs(self) -> tuple[int, int, int]:
        """Return how much the runs on this file found in it.

        Returns
        -------
        tuple of (int, int, int)
            Runs, the rows that they were called with, and how many of these were stored already.
        """
        rows = "coalesce(sum(json_extract(manifest, '$.rows.{}')), 0)"
        sql = f"SELECT count(*), {rows.format('total')}, {rows.format('cached')} FROM runs WHERE json_valid(manifest)"
        with self._reading() as db:
            runs, total, cached = db.execute(sql).fetchone()
        return int(runs), int(total), int(cached)

    def find(
        self,
        wanted: RowFilter | None = None,
        *,
        before_id: int | None = None,
        limit: int = 50,
        budget_s: float = 0.08,
    ) -> FoundPage:
        """Return the next rows that a filter lets through, newest first.

        Parameters
        ----------
        wanted : RowFilter, optional
            Which rows; all stored ones if left out.
        before_id : int, optional
            The ``next_id`` of the page before.
        limit : int
            Rows a page.
        budget_s : float
            Seconds after which a search stops and tells how far it came.

        Returns
        -------
        FoundPage

        Examples
        --------
        >>> import tempfile, lmsyz
        >>> with lmsyz.SqliteCache(tempfile.mkdtemp() + "/answers.sqlite") as cache:
        ...     cache.find().rows
        []
        """
        if limit < 1:
            raise UsageError(f"limit={limit}: a page has at least one row")
        wanted = wanted or RowFilter()
        until = time.monotonic() + budget_s
        with self._reading() as db:
            tasks = self._matching_tasks(db, wanted)
            page = FoundPage(next_id=before_id or NEWEST)
            while tasks and page.next_id is not None and len(page.rows) < limit:
                page = search(db, wanted, tasks, page, limit)
                if time.monotonic() >= until:
                    break
        return page if tasks else FoundPage()

    def export_rows(self, wanted: RowFilter | None = None) -> Iterator[FoundRow]:
        """Go through all rows that a filter lets through, newest first; the file is not held between two pages.

        Parameters
        ----------
        wanted : RowFilter, optional
            Which rows; all stored ones if left out.

        Yields
        ------
        FoundRow
        """
        at: int | None = None
        while True:
            page = self.find(wanted, before_id=at, limit=EXPORT_PAGE)
            yield from page.rows
            at = page.next_id
            if at is None:
                return

    def show(self, answer_id: int) -> RowDetail:
        """Return one row opened: its text, its answer, the exact exchange, and other answers to the same text.

        Parameters
        ----------
        answer_id : int
            As :meth:`find` gives it; negative for a stale answer.

        Returns
        -------
        RowDetail

        Raises
        ------
        CacheError
            There is no such answer, or no longer.
        """
        with self._reading() as db:
            tasks = self._all_tasks(db)
            rows = answers(db, f"a.id = {abs(int(answer_id))}", STORED if answer_id > 0 else STALE, tasks)
            if not rows:
                raise CacheError(f"{self._name()} has no answer number {answer_id}; it may have been deleted since")
            row = with_inputs(db, rows)[0]
            same = [r for status in (STORED, STALE) for r in answers(db, "a.key = ?", status, tasks, (row.key,))]
            has_request = db.execute("SELECT 1 FROM requests WHERE id = ?", (row.request_id,)).fetchone()
            return RowDetail(
                row=row,
                task=tasks[row.task_id],
                request=self.request(row.request_id) if has_request else None,
                others=[
                    replace(other, row_id=row.row_id, text=row.text)
                    for other in sorted(same, key=lambda r: -r.created)
                    if other.id != row.id
                ],
            )

    def delete(self, answer_ids: Iterable[int]) -> int:
        """Delete answers for good. The exchanges they came from stay, as the record of what was paid for.

        Parameters
        ----------
        answer_ids : iterable of int
            As :meth:`find` gives them. Where a text has an older answer under the same task, that one counts again.

        Returns
        -------
        int
            How many there were.
        """
        ids = [int(i) for i in answer_ids]
        with self._writing() as db:
            n = sum(
                db.execute(f"DELETE FROM stale_answers WHERE id IN {numbers(part)}").rowcount
                for part in parts(db, [-i for i in ids if i < 0])
            )
            return n + _remove(db, [i for i in ids if i > 0], keep=False)

    def ask_again(self, answer_ids: Iterable[int]) -> int:
        """Mark answers as stale: the next run asks these rows again, and the old answers stay readable.

        Parameters
        ----------
        answer_ids : iterable of int
            As :meth:`find` gives them. Older answers to the same text under the same task are marked with them.

        Returns
        -------
        int
            How many answers were marked.
        """
        ids = [int(i) for i in answer_ids if int(i) > 0]
        with self._writing() as db:
            same = [
                row[0]
                for part in parts(db, ids)
                for row in db.execute(
                    "SELECT b.id FROM answers a JOIN answers b ON b.key = a.key AND b.task_id = a.task_id"
                    f" WHERE a.id IN {numbers(part)} AND a.task_id > 0"
                ).fetchall()
            ]
            return _remove(db, sorted(set(same)), keep=True)

    def marked(self, task_ids: Iterable[int], keys: Iterable[bytes]) -> set[bytes]:
        """Return those of some texts whose answers under some tasks are marked to be asked again.

        Parameters
        ----------
        task_ids : iterable of int
            The tasks.
        keys : iterable of bytes
            The texts' keys.

        Returns
        -------
        set of bytes
        """
        sql = f"SELECT key FROM stale_answers WHERE task_id IN {numbers(task_ids)} AND key IN "
        with self._reading() as db:
            return {
                bytes(row[0]) for part in parts(db, keys) for row in db.execute(sql + marks(len(part)), part).fetchall()
            }

    def _matching_tasks(self, db: sqlite3.Connection, wanted: RowFilter) -> dict[int, TaskRecord]:
        return {
            number: task
            for number, task in self._all_tasks(db).items()
            if (not wanted.prompt or wanted.prompt in (task.prompt, task.prompt_hash))
            and (not wanted.model or wanted.model == task.model)
            and (wanted.task_ids is None or number in wanted.task_ids)
        }

    def _all_tasks(self, db: sqlite3.Connection) -> dict[int, TaskRecord]:
        rows = db.execute(f"SELECT id, {','.join(TASK_COLUMNS)} FROM tasks WHERE id > 0").fetchall()
        return {row[0]: task_record(row[1:]) for row in rows}


def _group(row: tuple[Any, ...]) -> Group:
    n_rows, n_stale, n, tokens_in, tokens_out, unknown, cost, first, last = row[-9:]
    return Group(
        task_id=row[0],
        task=task_record(row[1:-9]),
        n_rows=n_rows,
        n_stale=n_stale,
        n_requests=n or 0,
        input_tokens=tokens_in or 0,
        output_tokens=tokens_out or 0,
        cost=None if unknown else cost or 0.0,
        first=unix_time(first) or None,
        last=unix_time(last) or None,
    )


def _remove(db: sqlite3.Connection, ids: list[int], *, keep: bool) -> int:
    """Take answers out, kept as stale ones or not, and the ids of rows that have no answer left."""
    highest = db.execute("SELECT max(id) FROM answers").fetchone()[0]
    gone: dict[int, set[bytes]] = defaultdict(set)
    n = 0
    for part in parts(db, ids):
        which = f"id IN {numbers(part)} AND task_id > 0"
        for task_id, key in db.execute(f"SELECT task_id, key FROM answers WHERE {which}").fetchall():
            gone[task_id].add(key)
        if keep:
            columns = "task_id, key, answer, request_id"
            db.execute(f"INSERT INTO stale_answers ({columns}) SELECT {columns} FROM answers WHERE {which} ORDER BY id")
        n += db.execute(f"DELETE FROM answers WHERE {which}").rowcount
    if n and highest in ids:
        # An answer's number is never given away again: a selection made before would mean another row.
        sql = "INSERT OR IGNORE INTO answers (id, task_id, key, answer, request_id) VALUES (?, 0, x'', '{}', 0)"
        db.execute(sql, (highest,))
    for task_id, keys in gone.items():
        for some in parts(db, keys):
            db.execute(
                f"DELETE FROM row_ids WHERE task_id = ? AND key IN {marks(len(some))} AND NOT EXISTS"
                " (SELECT 1 FROM answers a WHERE a.key = row_ids.key AND a.task_id = row_ids.task_id)",
                [task_id, *some],
            )
    return n
