"""The store as one SQLite file: tasks, their answers and the exact exchange behind each.

Opening and locking are in `cache_file`, tables in `cache_schema`, looking up in `cache_lookup`, reading
back in `cache_archive`, browsing in `cache_browse`, the seed package's table in `cache_seed`; tasks and
chunks are written down here. Nothing outside these modules knows SQL.

Runs only ever add answers, and a user's delete is the one thing that takes any out. The newest of a task's
answers to a text is the one with the highest number.
"""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import astuple
from hashlib import sha256
from typing import Any

from lmsyz.cache_archive import REQUEST_COLUMNS, TASK_COLUMNS, task_record
from lmsyz.cache_browse import Browse
from lmsyz.cache_file import clean, marks, parts
from lmsyz.cache_lookup import Lookup
from lmsyz.cache_seed import SeedFace
from lmsyz.errors import UsageError
from lmsyz.store import AnswerRecord, ChunkRecord, RequestRecord, TaskRecord

__all__ = ["SqliteCache"]

# The final system prompt holds the user's prompt, so it is compared for both.
COMPARED = {
    "backend": "backend",
    "api": "api",
    "endpoint": "endpoint",
    "model": "model",
    "system": "system_hash",
    "schema": "schema_hash",
    "options": "options_hash",
}
ROWS_A_STATEMENT = 100
TEMPLATES_KEPT = 256
REQUEST_INSERT = ("requests", ("task_id", "template_id", "n_answers", *REQUEST_COLUMNS))
ANSWER_INSERT = ("answers", ("task_id", "key", "answer", "request_id"))
ROW_ID_INSERT = ("row_ids", ("task_id", "row_id", "key"))


class SqliteCache(Lookup, Browse, SeedFace):
    """Answers and exchanges in one SQLite file; threads and kernels may share it.

    Parameters
    ----------
    path : str or Path
        The file. It is made, readable by its owner alone, if it is not there and its directory is. A file
        that the seed package wrote is taken over as it is, and the seed package can still use it.
    read_only : bool
        Only read: the file must be there; an empty one and the seed package's are read as they are, one of an older
        lmsyz has to be brought up to date first.
    busy_timeout_s : float
        Seconds to wait while another program writes.

    Raises
    ------
    CacheError
        The path is no cache file, cannot be written, is locked for too long, or comes from a newer lmsyz.
        Methods raise it where the file fails later on.

    Examples
    --------
    >>> import tempfile
    >>> cache = SqliteCache(tempfile.mkdtemp() + "/answers.sqlite")
    >>> cache.put("r1", {"tone": "positive"})
    >>> cache.get("r1")
    {'tone': 'positive'}
    >>> cache.close()
    """

    # --- tasks ------------------------------------------------------------------------------------

    def task_id(self, record: TaskRecord) -> int:
        """Return a task's number, writing the task down if it is new.

        Parameters
        ----------
        record : TaskRecord
            What is asked; its fingerprint alone decides whether it is there already.

        Returns
        -------
        int
        """
        find = "SELECT id FROM tasks WHERE fingerprint = ?"
        with self._reading() as db:
            row = db.execute(find, (record.fingerprint,)).fetchone()
        if row:
            return int(row[0])
        columns = (*TASK_COLUMNS, "created")
        sql = f"INSERT OR IGNORE INTO tasks ({','.join(columns)}) VALUES {marks(len(columns))}"
        with self._writing() as db:
            db.execute(sql, [*map(clean, astuple(record)), time.time()])
            return int(db.execute(find, (record.fingerprint,)).fetchone()[0])

    def similar_tasks(self, record: TaskRecord, *, ignoring: Collection[str]) -> list[tuple[int, TaskRecord]]:
        """Return the stored tasks that differ from a task at most in the named parts.

        Parameters
        ----------
        record : TaskRecord
            The task to compare with; it need not be stored, and is among the answers if it is.
        ignoring : collection of str
            Of ``backend``, ``api``, ``endpoint``, ``model``, ``prompt``, ``system``, ``schema``, ``options``.
            The system prompt holds the prompt: to ignore the prompt, name both.

        Returns
        -------
        list of (int, TaskRecord)
            Oldest first.

        Raises
        ------
        UsageError
            A name is none of these.
        """
        if unknown := sorted(set(ignoring) - {*COMPARED, "prompt"}):
            raise UsageError(f"a task has no part {unknown[0]!r}; it has prompt, {', '.join(COMPARED)}")
        compared = [column for part, column in COMPARED.items() if part not in ignoring]
        where = " AND ".join(f"{c} = ?" for c in compared) or "1"
        values = [clean(getattr(record, c)) for c in compared]
        with self._reading() as db:
            rows = db.execute(f"SELECT id, {','.join(TASK_COLUMNS)} FROM tasks WHERE {where} ORDER BY id", values)
            return [(row[0], task_record(row[1:])) for row in rows.fetchall()]

    def reading_tasks(self, record: TaskRecord, ignore_prompt: bool = False) -> list[int]:
        """Return the tasks whose answers may be reused for a task.

        Parameters
        ----------
        record : TaskRecord
            What is asked.
        ignore_prompt : bool
            Whether the answers to other prompts do, all else being equal.

        Returns
        -------
        list of int
            The task itself, if it is stored, and those others.
        """
        ignoring = ("prompt", "system") if ignore_prompt else ()
        return [task_id for task_id, _ in self.similar_tasks(record, ignoring=ignoring)]

    # --- putting ----------------------------------------------------------------------------------

    def put_chunk(self, task_id: int, request: RequestRecord, answers: Sequence[AnswerRecord]) -> int:
        """Write one exchange and its answers, all or nothing; see :meth:`put_chunks`.

        Parameters
        ----------
        task_id : int
            What was asked.
        request : RequestRecord
            The exchange.
        answers : sequence of AnswerRecord
            What it brought; may be empty.

        Returns
        -------
        int
            The number of the exchange.
        """
        return self.put_chunks([(task_id, request, answers)])[0]

    def put_chunks(self, chunks: Sequence[ChunkRecord]) -> list[int]:
        """Write several exchanges and their answers in one transaction: all or nothing.

        Parameters
        ----------
        chunks : sequence of (int, RequestRecord, sequence of AnswerRecord)
            Task, exchange and answers. Older answers to the same texts stay.

        Returns
        -------
        list of int
            The numbers of the exchanges.
        """
        if not chunks:
            return []
        templates: dict[tuple[str, str], int] = {}
        with self._writing() as db:
            requests = [
                self._request_row(db, task_id, request, len(found), templates) for task_id, request, found in chunks
            ]
            ids = _insert(db, *REQUEST_INSERT, requests)
            with_ids = list(zip(chunks, ids, strict=True))
            _insert(
                db,
                *ANSWER_INSERT,
                [(task, a.key, clean(a.answer), i) for (task, _, found), i in with_ids for a in found],
            )
            row_ids = [(task, clean(r), a.key) for task, _, found in chunks for a in found for r in a.row_ids]
            _insert(db, *ROW_ID_INSERT, row_ids)
        if len(self._templates) > TEMPLATES_KEPT:
            self._templates.clear()
        self._templates.update(templates)
        return ids

    def _request_row(
        self,
        db: sqlite3.Connection,
        task_id: int,
        request: RequestRecord,
        n_answers: int,
        templates: dict[tuple[str, str], int],
    ) -> list[Any]:
        head, user, tail = map(clean, _split(request.body, request.user))
        template = self._templates.get((head, tail)) or templates.get((head, tail))
        if template is None:
            template = templates[head, tail] = _template_id(db, head, tail)
        values = [clean(getattr(request, c)) if c != "user" else user for c in REQUEST_COLUMNS]
        return [task_id, template, n_answers, *values]

    def adopt(self, task_id: int, rows: Iterable[tuple[str, bytes, str]], run_id: str) -> set[str]:
        """Take rows of the seed package's table over into a task; no other task can take them over again.

        Parameters
        ----------
        task_id : int
            The task.
        rows : iterable of (str, bytes, str)
            Row id, key of the row's text, answer as JSON text.
        run_id : str
            The run that does so.

        Returns
        -------
        set of str
            The ids that were taken over: another kernel may have been first with the others.
        """
        offered = {clean(row_id): (row_id, key, answer) for row_id, key, answer in rows}
        with self._writing() as db:
            free = [
                offered[row[0]]
                for part in parts(db, offered)
                for row in db.execute(
                    f"SELECT s.row_id FROM results s LEFT JOIN seed_marks m ON m.row_id = s.row_id"
                    f" WHERE s.row_id IN {marks(len(part))} AND m.task_id IS NULL",
                    part,
                ).fetchall()
            ]
            if not free:
                return set()
            request = self._request_row(db, task_id, _seed_request(run_id, len(free)), len(free), {})
            request_id = _insert(db, *REQUEST_INSERT, [request])[0]
            answers = [(task_id, key, clean(answer), request_id) for _, key, answer in free]
            _insert(db, *ANSWER_INSERT, answers)
            _insert(db, *ROW_ID_INSERT, [(task_id, clean(row_id), key) for row_id, key, _ in free])
            db.executemany(
                "INSERT INTO seed_marks (row_id, task_id) VALUES (?, ?)"
                " ON CONFLICT (row_id) DO UPDATE SET task_id = excluded.task_id",
                [(clean(row_id), task_id) for row_id, _, _ in free],
            )
        return {row_id for row_id, _, _ in free}


def _insert(db: sqlite3.Connection, table: str, columns: Sequence[str], rows: Sequence[Sequence[Any]]) -> list[int]:
    """Insert rows, many in a statement, and return their numbers where the table gives them any."""
    head = f"INSERT OR REPLACE INTO {table} ({','.join(columns)}) VALUES "
    ids: list[int] = []
    size = min(ROWS_A_STATEMENT, db.getlimit(sqlite3.SQLITE_LIMIT_VARIABLE_NUMBER) // len(columns))
    for start in range(0, len(rows), size):
        part = rows[start : start + size]
        values = [value for row in part for value in row]
        last = db.execute(head + marks(len(part), len(columns)), values).lastrowid or 0
        # In one statement, with the write lock held, numbers follow on one another.
        ids += range(last - len(part) + 1, last + 1)
    return ids


def _template_id(db: sqlite3.Connection, head: str, tail: str) -> int:
    """Return the number of what requests have in common, writing it down if it is new."""
    digest = sha256(f"{len(head)}\0{head}\0{tail}".encode()).digest()
    sql = "INSERT OR IGNORE INTO request_templates (sha256, head, tail) VALUES (?, ?, ?)"
    db.execute(sql, (digest, head, tail))
    return int(db.execute("SELECT id FROM request_templates WHERE sha256 = ?", (digest,)).fetchone()[0])


def _split(body: str, user: str) -> Iterator[str]:
    """Cut a body into what is before the user message, the message, and what is after.

    Where the message is not in it, or more than once, the body stays whole.
    """
    return iter(body.partition(user) if user and body.count(user) == 1 else ("", body, ""))


def _seed_request(run_id: str, n_rows: int) -> RequestRecord:
    unknown: dict[str, Any] = dict.fromkeys(
        ("input_tokens", "output_tokens", "cached_tokens", "cache_write_tokens", "reasoning_tokens", "cost")
    )
    empty: dict[str, Any] = dict.fromkeys(("body", "user", "reply", "model", "provider_request_id"), "")
    about: dict[str, Any] = {"n_rows": n_rows, "run_id": run_id, "created": time.time()}
    return RequestRecord(**unknown, **empty, **about, form="seed", outcome="seed", latency_s=0.0, attempts=0)
