"""Reading a cache file back long after: tasks, runs, the exchange behind a row, answers page by page."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import fields
from typing import Any

from lmsyz.cache_file import CacheFile, clean
from lmsyz.errors import CacheError
from lmsyz.store import RequestRecord, StoredAnswer, StoredRun, StoredTask, TaskRecord

__all__ = ["REQUEST_COLUMNS", "TASK_COLUMNS", "Archive", "task_record"]

TASK_COLUMNS = tuple(f.name for f in fields(TaskRecord))
REQUEST_COLUMNS = tuple(f.name for f in fields(RequestRecord) if f.name != "body")
ANSWER_COLUMNS = "a.id, a.task_id, a.request_id, a.key, a.answer, r.created"
PAGE = 1000


class Archive(CacheFile):
    """What can be read back from a cache file."""

    def tasks(self) -> list[StoredTask]:
        """List all tasks, oldest first, with the number of answers each has.

        Returns
        -------
        list of StoredTask
            Tuples of number, record, number of answers (older ones of the same text included), and when the
            first and the last of them came.
        """
        end = "SELECT request_id FROM answers WHERE task_id = t.id ORDER BY id"
        sql = (
            f"SELECT id, {','.join(TASK_COLUMNS)}, (SELECT count(*) FROM answers WHERE task_id = t.id),"
            f" (SELECT created FROM requests WHERE id = ({end} LIMIT 1)),"
            f" (SELECT created FROM requests WHERE id = ({end} DESC LIMIT 1)) FROM tasks t ORDER BY id"
        )
        with self._reading() as db:
            rows = db.execute(sql).fetchall()
        return [StoredTask(row[0], task_record(row[1:-3]), *row[-3:]) for row in rows]

    def request(self, request_id: int) -> RequestRecord:
        """Return one exchange, its body byte for byte as it was sent.

        Parameters
        ----------
        request_id : int
            As :meth:`request_of` and :meth:`requests_for_row` give it.

        Returns
        -------
        RequestRecord

        Raises
        ------
        CacheError
            There is no such exchange.
        """
        columns = ",".join(f"r.{c}" for c in REQUEST_COLUMNS)
        sql = (
            f"SELECT t.head, t.tail, {columns} FROM requests r"
            " JOIN request_templates t ON t.id = r.template_id WHERE r.id = ?"
        )
        with self._reading() as db:
            row = db.execute(sql, (request_id,)).fetchone()
        if row is None:
            raise CacheError(f"cache file {str(self.path)!r} has no exchange number {request_id}")
        head, tail, *values = row
        record: dict[str, Any] = dict(zip(REQUEST_COLUMNS, values, strict=True))
        body = head + record["user"] + tail
        if not (head or tail):  # a body that was stored whole, see SqliteCache.put_chunks
            record["user"] = ""
        return RequestRecord(body=body, **record)

    def request_of(self, task_id: int, key: bytes) -> int | None:
        """Return the number of the exchange that the newest answer to a text came from.

        Parameters
        ----------
        task_id : int
            The task.
        key : bytes
            The key of the text.

        Returns
        -------
        int or None
            None where the task has no answer to the text.
        """
        sql = "SELECT request_id FROM answers WHERE key = ? AND task_id = ? ORDER BY id DESC LIMIT 1"
        with self._reading() as db:
            row = db.execute(sql, (key, task_id)).fetchone()
        return int(row[0]) if row else None

    def requests_for_row(self, row_id: str) -> list[int]:
        """Return the numbers of the exchanges that answered a row, under any task.

        Parameters
        ----------
        row_id : str
            The user's id. Its latest text under each task is what counts.

        Returns
        -------
        list of int
            Newest first.
        """
        sql = (
            "SELECT a.request_id FROM row_ids r JOIN answers a ON a.key = r.key AND a.task_id = r.task_id"
            " WHERE r.row_id = ? ORDER BY a.id DESC"
        )
        with self._reading() as db:
            return [row[0] for row in db.execute(sql, (clean(row_id),)).fetchall()]

    def save_run(self, run_id: str, task_id: int, started: float, ended: float | None, manifest: str) -> None:
        """Write a run down, or what has become of it.

        Parameters
        ----------
        run_id : str
            A run that is there already is replaced.
        task_id : int
            What was asked.
        started, ended : float
            Unix times; ``ended`` is None while the run goes on.
        manifest : str
            JSON text.
        """
        sql = "INSERT OR REPLACE INTO runs (run_id, task_id, started, ended, manifest) VALUES (?, ?, ?, ?, ?)"
        with self._writing() as db:
            db.execute(sql, (run_id, task_id, started, ended, clean(manifest)))

    def run(self, run_id: str) -> StoredRun | None:
        """Return one run.

        Parameters
        ----------
        run_id : str
            Its name.

        Returns
        -------
        StoredRun or None
            None where there is no such run.
        """
        return next(iter(self._runs("WHERE run_id = ?", (run_id,))), None)

    def runs(self) -> list[StoredRun]:
        """List all runs, the latest first.

        Returns
        -------
        list of StoredRun
        """
        return self._runs("ORDER BY started DESC, run_id DESC", ())

    def _runs(self, which: str, values: Sequence[str]) -> list[StoredRun]:
        with self._reading() as db:
            rows = db.execute(f"SELECT run_id, task_id, started, ended, manifest FROM runs {which}", values)
            return [
                StoredRun(run_id=r[0], task_id=r[1], started=r[2], ended=r[3], manifest=r[4]) for r in rows.fetchall()
            ]

    def exchange_names(self, run_id: str) -> set[str]:
        """Return what the exchanges of a run are called by the provider.

        Parameters
        ----------
        run_id : str
            The run.

        Returns
        -------
        set of str
            The ``provider_request_id`` of each; for a batch, the custom ids of its requests.
        """
        with self._reading() as db:
            sql = "SELECT provider_request_id FROM requests WHERE run_id = ?"
            return {row[0] for row in db.execute(sql, (run_id,)).fetchall()}

    def answers_of_run(self, run_id: str) -> Iterator[StoredAnswer]:
        """Go through the answers that a run brought home.

        Parameters
        ----------
        run_id : str
            The run.

        Yields
        ------
        StoredAnswer
            In the order they came. The file is not held between two of them.
        """
        with self._reading() as db:
            row = db.execute("SELECT task_id FROM requests WHERE run_id = ? LIMIT 1", (run_id,)).fetchone()
        after = 0
        while row is not None:
            page = self._page("AND a.task_id = ? AND r.run_id = ?", after, (row[0], run_id), PAGE)
            if not page:
                return
            yield from page
            after = page[-1].id

    def page_answers(self, *, after_id: int = 0, limit: int = 50, task_id: int | None = None) -> list[StoredAnswer]:
        """Return the next answers after a number, oldest first.

        Parameters
        ----------
        after_id : int
            The number of the last answer seen; 0 for the first page.
        limit : int
            Answers a page.
        task_id : int, optional
            Only this task's.

        Returns
        -------
        list of StoredAnswer
            Empty where there are no more.
        """
        if task_id is None:
            return self._page("", after_id, (), limit)
        return self._page("AND a.task_id = ?", after_id, (task_id,), limit)

    def _page(self, which: str, after: int, values: Sequence[Any], limit: int) -> list[StoredAnswer]:
        # CROSS JOIN keeps SQLite to this order: a walk along the answers, not along the requests.
        sql = (
            f"SELECT {ANSWER_COLUMNS} FROM answers a CROSS JOIN requests r ON r.id = a.request_id"
            f" WHERE a.id > ? {which} ORDER BY a.id LIMIT ?"
        )
        with self._reading() as db:
            rows = db.execute(sql, (after, *values, limit)).fetchall()
        return [StoredAnswer(id=r[0], task_id=r[1], request_id=r[2], key=r[3], answer=r[4], created=r[5]) for r in rows]


def task_record(values: Sequence[str]) -> TaskRecord:
    """Return a task from the values of ``TASK_COLUMNS``."""
    return TaskRecord(**dict(zip(TASK_COLUMNS, values, strict=True)))
