"""The store as one SQLite file in WAL mode: answers, the exact exchange behind each, runs. Nothing else knows SQL.

One connection under one lock, used by whichever thread calls; a process that was forked opens its own. Every chunk is
one short write transaction, so several kernels can share a file. Text is stored as UTF-8; a lone surrogate, which has
no UTF-8 form, is stored as U+FFFD.
"""

from __future__ import annotations

import json
import os
import sqlite3
import threading
import time
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import astuple, fields
from hashlib import sha256
from pathlib import Path
from typing import Any

from lmsyz.cache_schema import APPLICATION_ID, VERSION, migrate
from lmsyz.errors import CacheError
from lmsyz.store import AnswerRecord, ChunkRecord, RequestRecord, Saved, TaskRecord

__all__ = ["SqliteCache"]

KEYS_AT_ONCE = 500
SCAN_FROM = 2000  # from this many keys on, reading a whole task beats looking each key up
TASK_COLUMNS = tuple(f.name for f in fields(TaskRecord))
REQUEST_COLUMNS = tuple(f.name for f in fields(RequestRecord) if f.name != "body")
PARTS = {
    "prompt": ("prompt", "prompt_hash"),
    "system": ("system", "system_hash"),
    "schema": ("schema", "schema_hash"),
    "options": ("options", "options_hash"),
}
COMPARED = ("backend", "api", "endpoint", "model", "system_hash", "schema_hash", "options_hash")


class SqliteCache:
    """Answers and exchanges in one SQLite file.

    Parameters
    ----------
    path : str or Path
        The file; made if it is not there, in a directory that is.
    busy_timeout_s : float
        Seconds to wait while another kernel writes.

    Raises
    ------
    CacheError
        The path is no cache file, cannot be written, is locked for too long, or comes from a newer lmsyz.

    Examples
    --------
    >>> import tempfile
    >>> cache = SqliteCache(Path(tempfile.mkdtemp()) / "answers.sqlite")
    >>> cache.put("r1", {"tone": "positive"})
    >>> cache.get("r1")
    {'tone': 'positive'}
    """

    def __init__(self, path: str | Path, *, busy_timeout_s: float = 30.0) -> None:
        self.path = Path(path)
        self._busy_timeout_s = busy_timeout_s
        self._lock = threading.RLock()
        self._pid = os.getpid()
        self._templates: dict[bytes, int] = {}
        self._connection: sqlite3.Connection | None = self._open()

    # --- tasks ------------------------------------------------------------------------------------------------

    def task_id(self, record: TaskRecord) -> int:
        """Return the task's number, writing the task down if it is new."""
        find = "SELECT id FROM tasks WHERE fingerprint = ?"
        with self._reading() as db:
            row = db.execute(find, (record.fingerprint,)).fetchone()
        if row:
            return int(row[0])
        marks = ",".join("?" * len(TASK_COLUMNS))
        with self._writing() as db:
            db.execute(
                f"INSERT OR IGNORE INTO tasks ({','.join(TASK_COLUMNS)}) VALUES ({marks})",
                [_clean(v) for v in astuple(record)],
            )
            return int(db.execute(find, (record.fingerprint,)).fetchone()[0])

    def similar_tasks(self, record: TaskRecord, *, ignoring: Collection[str]) -> list[tuple[int, TaskRecord]]:
        """Return the tasks that differ from a task at most in the named parts (``prompt``, ``model``, ...)."""
        loose = {name for part in ignoring for name in PARTS.get(part, (part,))}
        compared = [c for c in COMPARED if c not in loose]
        where = " AND ".join(f"{c} = ?" for c in compared) or "1"
        values = [getattr(record, c) for c in compared]
        with self._reading() as db:
            rows = db.execute(
                f"SELECT id,{','.join(TASK_COLUMNS)} FROM tasks WHERE {where} ORDER BY id", values
            )
            return [(int(row[0]), _task_record(row[1:])) for row in rows.fetchall()]

    def reading_tasks(self, record: TaskRecord, ignore_prompt: bool = False) -> list[int]:
        """Return the tasks whose answers may be reused for a task: itself, or also the same under other prompts."""
        ignoring = {"prompt", "system"} if ignore_prompt else set()
        return [task_id for task_id, _ in self.similar_tasks(record, ignoring=ignoring)]

    def tasks(self) -> list[tuple[int, TaskRecord, int]]:
        """Return all tasks with the number of answers each has."""
        count = "(SELECT count(*) FROM answers a WHERE a.task_id = t.id)"
        with self._reading() as db:
            rows = db.execute(
                f"SELECT id,{','.join(TASK_COLUMNS)},{count} FROM tasks t ORDER BY id"
            ).fetchall()
        return [(int(row[0]), _task_record(row[1:-1]), int(row[-1])) for row in rows]

    # --- answers ----------------------------------------------------------------------------------------------

    def answers(self, task_ids: Sequence[int], keys: Collection[bytes]) -> dict[bytes, str]:
        """Return the newest answer of each key under any of the tasks."""
        if not keys or not task_ids:
            return {}
        tasks = ",".join(str(int(i)) for i in task_ids)
        with self._reading() as db:
            if len(keys) >= SCAN_FROM:
                found = dict(
                    db.execute(
                        f"SELECT key, answer FROM answers WHERE task_id IN ({tasks}) ORDER BY id"
                    ).fetchall()
                )
                wanted = keys if isinstance(keys, (set, frozenset, dict)) else set(keys)
                return found if found.keys() <= wanted else {k: v for k, v in found.items() if k in wanted}
            found = {}
            for part in _parts(keys):
                marks = ",".join("?" * len(part))
                sql = f"SELECT key, answer FROM answers WHERE key IN ({marks}) AND task_id IN ({tasks}) ORDER BY id"
                found.update(db.execute(sql, part).fetchall())
            return found

    def put_chunks(self, chunks: Sequence[ChunkRecord]) -> None:
        """Write several exchanges and their answers in one transaction: all or nothing."""
        with self._writing() as db:
            for task_id, request, answers in chunks:
                request_id = self._insert_request(db, task_id, request, len(answers))
                self._insert_answers(db, task_id, request_id, answers)

    def _insert_request(
        self, db: sqlite3.Connection, task_id: int, request: RequestRecord, n_answers: int
    ) -> int:
        head, user, tail = _split(request.body, request.user)
        values = [_clean(getattr(request, c)) for c in REQUEST_COLUMNS]
        values[REQUEST_COLUMNS.index("user")] = _clean(user)
        columns = ("task_id", "template_id", "n_answers", *REQUEST_COLUMNS)
        template = self._template_id(db, _clean(head), _clean(tail))
        cursor = db.execute(
            f"INSERT INTO requests ({','.join(columns)}) VALUES ({','.join('?' * len(columns))})",
            [task_id, template, n_answers, *values],
        )
        return int(cursor.lastrowid or 0)

    def _template_id(self, db: sqlite3.Connection, head: str, tail: str) -> int:
        digest = sha256(f"{len(head)}\0{head}\0{tail}".encode()).digest()
        known = self._templates.get(digest)
        if known is not None:
            return known
        sql = "INSERT OR IGNORE INTO request_templates (sha256, head, tail) VALUES (?, ?, ?)"
        db.execute(sql, (digest, head, tail))
        row = db.execute("SELECT id FROM request_templates WHERE sha256 = ?", (digest,)).fetchone()
        self._templates[digest] = int(row[0])
        return int(row[0])

    @staticmethod
    def _insert_answers(
        db: sqlite3.Connection, task_id: int, request_id: int, answers: Sequence[AnswerRecord]
    ) -> None:
        db.executemany(
            "INSERT INTO answers (task_id, key, answer, request_id) VALUES (?, ?, ?, ?)",
            [(task_id, a.key, _clean(a.answer), request_id) for a in answers],
        )
        ids = [(task_id, _clean(i), a.key) for a in answers for i in a.row_ids]
        if ids:
            db.executemany("INSERT OR REPLACE INTO row_ids (task_id, row_id, key) VALUES (?, ?, ?)", ids)

    def tasks_with(self, keys: Collection[bytes]) -> dict[bytes, list[int]]:
        """Return for each key the tasks that hold an answer, newest first."""
        found: dict[bytes, list[int]] = {}
        with self._reading() as db:
            for part in _parts(keys):
                marks = ",".join("?" * len(part))
                sql = f"SELECT key, task_id FROM answers WHERE key IN ({marks}) ORDER BY id DESC"
                for key, task_id in db.execute(sql, part):
                    tasks = found.setdefault(key, [])
                    if task_id not in tasks:
                        tasks.append(task_id)
        return found

    def ids_with_other_text(self, task_ids: Sequence[int], pairs: Mapping[str, bytes]) -> set[str]:
        """Return the row ids that these tasks know, but under another text."""
        changed: set[str] = set()
        tasks = ",".join(str(int(i)) for i in task_ids)
        with self._reading() as db:
            for part in _parts(pairs):
                marks = ",".join("?" * len(part))
                sql = f"SELECT row_id, key FROM row_ids WHERE row_id IN ({marks}) AND task_id IN ({tasks})"
                known = db.execute(sql, part).fetchall()
                changed.update(row_id for row_id, key in known if pairs[row_id] != key)
        return changed

    def saved(self, task_ids: Sequence[int], keys: Collection[bytes]) -> Saved:
        """Return what the answers to these keys cost when they were bought: each its share of its exchange."""
        if not keys:
            return Saved()
        tasks = ",".join(str(int(i)) for i in task_ids)
        per_key: dict[bytes, tuple[float | None, float, float]] = {}
        with self._reading() as db:
            share = {
                row[0]: row[1:]
                for row in db.execute(
                    "SELECT id, cost / max(n_answers, 1), coalesce(input_tokens, 0) * 1.0 / max(n_answers, 1),"
                    f" coalesce(output_tokens, 0) * 1.0 / max(n_answers, 1) FROM requests WHERE task_id IN ({tasks})"
                )
            }
            unknown = (None, 0.0, 0.0)
            sql = f"SELECT key, request_id FROM answers WHERE task_id IN ({tasks}) ORDER BY id"
            if len(keys) >= SCAN_FROM:
                pairs: Iterable[tuple[bytes, int]] = db.execute(sql)
            else:
                pairs = self._requests_of(db, tasks, keys)
            for key, request_id in pairs:
                if key in keys:
                    per_key[key] = share.get(request_id, unknown)
        costs = [c for c, _, _ in per_key.values()]
        return Saved(
            n_rows=len(per_key),
            cost=None if any(c is None for c in costs) else sum(c for c in costs if c is not None),
            input_tokens=sum(i for _, i, _ in per_key.values()),
            output_tokens=sum(o for _, _, o in per_key.values()),
        )

    @staticmethod
    def _requests_of(
        db: sqlite3.Connection, tasks: str, keys: Collection[bytes]
    ) -> Iterator[tuple[bytes, int]]:
        for part in _parts(keys):
            marks = ",".join("?" * len(part))
            sql = f"SELECT key, request_id FROM answers WHERE key IN ({marks}) AND task_id IN ({tasks}) ORDER BY id"
            yield from db.execute(sql, part).fetchall()

    # --- exchanges and runs -----------------------------------------------------------------------------------

    def request(self, request_id: int) -> RequestRecord:
        """Return one exchange, its body byte for byte as it was sent."""
        columns = ",".join(f"r.{c}" for c in REQUEST_COLUMNS)
        sql = f"SELECT t.head, t.tail, {columns} FROM requests r JOIN request_templates t ON t.id = r.template_id"
        with self._reading() as db:
            row = db.execute(f"{sql} WHERE r.id = ?", (request_id,)).fetchone()
        if row is None:
            raise CacheError(f"{self.path} has no exchange number {request_id}")
        values: dict[str, Any] = dict(zip(REQUEST_COLUMNS, row[2:], strict=True))
        return RequestRecord(body=row[0] + values["user"] + row[1], **values)

    def request_of(self, task_id: int, key: bytes) -> int | None:
        """Return the number of the exchange that the newest answer to a text came from."""
        sql = "SELECT request_id FROM answers WHERE key = ? AND task_id = ? ORDER BY id DESC LIMIT 1"
        with self._reading() as db:
            row = db.execute(sql, (key, task_id)).fetchone()
        return int(row[0]) if row else None

    def requests_for_row(self, row_id: str) -> list[int]:
        """Return the numbers of the exchanges that answered a row id, newest first."""
        sql = (
            "SELECT a.request_id FROM row_ids r JOIN answers a ON a.key = r.key AND a.task_id = r.task_id"
            " WHERE r.row_id = ? ORDER BY a.id DESC"
        )
        with self._reading() as db:
            return [int(row[0]) for row in db.execute(sql, (row_id,))]

    def save_run(self, run_id: str, task_id: int, started: float, ended: float | None, manifest: str) -> None:
        """Write a run down, or what has become of it."""
        sql = "INSERT OR REPLACE INTO runs (run_id, task_id, started, ended, manifest) VALUES (?, ?, ?, ?, ?)"
        with self._writing() as db:
            db.execute(sql, (run_id, task_id, started, ended, _clean(manifest)))

    def run(self, run_id: str) -> dict[str, Any] | None:
        """Return a run's manifest, None where there is no such run."""
        with self._reading() as db:
            row = db.execute("SELECT manifest FROM runs WHERE run_id = ?", (run_id,)).fetchone()
        return json.loads(row[0] or "{}") if row else None

    def answers_of_run(self, run_id: str) -> dict[bytes, str]:
        """Return the answers that a run brought home, by text key."""
        sql = (
            "SELECT a.key, a.answer FROM answers a JOIN requests r ON r.id = a.request_id WHERE r.run_id = ?"
        )
        with self._reading() as db:
            return dict(db.execute(f"{sql} ORDER BY a.id", (run_id,)).fetchall())

    # --- the seed package's table -----------------------------------------------------------------------------

    def get(self, row_id: str, prompt_hash: str | None = None) -> dict[str, Any] | None:
        """Return the newest answer to a row id, under one prompt hash or any; None where there is none."""
        own = (
            "SELECT a.answer FROM row_ids r JOIN tasks t ON t.id = r.task_id JOIN answers a ON a.key = r.key AND"
            " a.task_id = r.task_id WHERE r.row_id = ? AND (? IS NULL OR t.prompt_hash = ?) ORDER BY a.id DESC LIMIT 1"
        )
        seed = "SELECT json_result FROM results WHERE row_id = ? AND (? IS NULL OR prompt_hash = ?)"
        with self._reading() as db:
            values = (str(row_id), prompt_hash, prompt_hash)
            row = db.execute(own, values).fetchone() or db.execute(seed, values).fetchone()
        return None if row is None else dict(json.loads(row[0]))

    def put(self, row_id: str, result: Mapping[str, Any], prompt_hash: str | None = None) -> None:
        """Write one row as the seed package does, replacing what it had stored under this id."""
        sql = "INSERT OR REPLACE INTO results (row_id, json_result, prompt_hash) VALUES (?, ?, ?)"
        with self._writing() as db:
            db.execute(sql, (_clean(str(row_id)), _clean(json.dumps(dict(result))), prompt_hash))

    def all_ids(self, prompt_hash: str | None = None) -> set[str]:
        """Return all row ids that have an answer, under one prompt hash or any."""
        own = "SELECT r.row_id FROM row_ids r JOIN tasks t ON t.id = r.task_id WHERE ? IS NULL OR t.prompt_hash = ?"
        seed = "SELECT row_id FROM results WHERE ? IS NULL OR prompt_hash = ?"
        with self._reading() as db:
            values = (prompt_hash, prompt_hash)
            return {row[0] for sql in (own, seed) for row in db.execute(sql, values)}

    def seed_rows(self, prompt_hash: str | None, ids: Collection[str]) -> dict[str, str]:
        """Return rows of the seed package's table that no task has taken over yet, as JSON text by row id."""
        found: dict[str, str] = {}
        with self._reading() as db:
            if db.execute("SELECT 1 FROM results LIMIT 1").fetchone() is None:
                return found
            for part in _parts(ids):
                marks = ",".join("?" * len(part))
                sql = (
                    f"SELECT row_id, json_result FROM results s WHERE row_id IN ({marks}) AND (? IS NULL OR"
                    " prompt_hash = ?) AND NOT EXISTS (SELECT 1 FROM adopted a WHERE a.row_id = s.row_id AND"
                    " a.prompt_hash = coalesce(s.prompt_hash, ''))"
                )
                found.update(db.execute(sql, [*part, prompt_hash, prompt_hash]).fetchall())
        return found

    def adopt(self, task_id: int, rows: Iterable[tuple[str, bytes, str]], run_id: str) -> None:
        """Take seed rows over into a task; no other task can take them over again."""
        taken = list(rows)
        request = _seed_request(run_id, len(taken))
        with self._writing() as db:
            request_id = self._insert_request(db, task_id, request, len(taken))
            records = [
                AnswerRecord(key=key, answer=answer, row_ids=(row_id,)) for row_id, key, answer in taken
            ]
            self._insert_answers(db, task_id, request_id, records)
            db.executemany(
                "INSERT OR IGNORE INTO adopted (row_id, prompt_hash, task_id)"
                " SELECT row_id, coalesce(prompt_hash, ''), ? FROM results WHERE row_id = ?",
                [(task_id, row_id) for row_id, _, _ in taken],
            )

    # --- the file ---------------------------------------------------------------------------------------------

    def close(self) -> None:
        """Close the file; using the cache again opens it again."""
        with self._lock:
            if self._connection is not None and self._pid == os.getpid():
                self._connection.close()
            self._connection = None

    def __enter__(self) -> SqliteCache:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"SqliteCache({str(self.path)!r})"

    @contextmanager
    def _reading(self) -> Iterator[sqlite3.Connection]:
        with self._lock:
            try:
                yield self._live_connection()
            except sqlite3.Error as error:
                raise self._told(error) from error

    @contextmanager
    def _writing(self) -> Iterator[sqlite3.Connection]:
        with self._reading() as db:
            db.execute("BEGIN IMMEDIATE")
            try:
                yield db
            except BaseException:
                self._templates.clear()
                if db.in_transaction:
                    db.execute("ROLLBACK")
                raise
            db.execute("COMMIT")

    def _live_connection(self) -> sqlite3.Connection:
        if self._connection is None or self._pid != os.getpid():
            self._pid = os.getpid()
            self._connection = self._open()
        return self._connection

    def _open(self) -> sqlite3.Connection:
        self._check_place()
        connection: sqlite3.Connection | None = None
        try:
            connection = sqlite3.connect(
                self.path, timeout=self._busy_timeout_s, check_same_thread=False, isolation_level=None
            )
            self._check_ours(connection)
            connection.execute("PRAGMA journal_mode = WAL")
            connection.execute("PRAGMA synchronous = NORMAL")
            migrate(connection)
        except sqlite3.Error as error:
            if connection is not None:
                connection.close()
            raise self._told(error) from error
        except BaseException:
            if connection is not None:
                connection.close()
            raise
        return connection

    def _check_place(self) -> None:
        if self.path.is_dir():
            raise CacheError(
                f"cache_path={str(self.path)!r} is a directory; give a file in it, such as answers.sqlite"
            )
        if not self.path.exists():
            if not self.path.parent.is_dir():
                raise CacheError(
                    f"cache_path={str(self.path)!r}: there is no directory {str(self.path.parent)!r}; make it first,"
                    f" with Path({str(self.path.parent)!r}).mkdir(parents=True)"
                )
            try:
                # Private from the first byte on: answers and texts are the user's own business.
                os.close(os.open(self.path, os.O_CREAT | os.O_WRONLY, 0o600))
            except OSError as error:
                raise CacheError(f"cache_path={str(self.path)!r} cannot be made: {error.strerror}") from error
        if not os.access(self.path, os.W_OK):
            raise CacheError(
                f"cache_path={str(self.path)!r} is not writable; give another path or change its rights"
            )

    def _check_ours(self, connection: sqlite3.Connection) -> None:
        version = int(connection.execute("PRAGMA user_version").fetchone()[0])
        app = int(connection.execute("PRAGMA application_id").fetchone()[0])
        tables = {r[0] for r in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}
        if app not in (0, APPLICATION_ID) or (
            app == 0 and tables - {"results"} and not self._half_made(tables)
        ):
            raise CacheError(
                f"cache_path={str(self.path)!r} is another program's database (tables {sorted(tables)[:5]}); give a path"
                " of its own to lmsyz"
            )
        if version > VERSION:
            raise CacheError(
                f"{str(self.path)!r} was written by a newer lmsyz (format {version}, this one reads up to {VERSION});"
                " update lmsyz or give another cache_path"
            )

    @staticmethod
    def _half_made(tables: set[str]) -> bool:
        # Another kernel may be laying the tables out at this moment.
        return {"tasks", "answers", "requests"} <= tables

    def _told(self, error: sqlite3.Error) -> CacheError:
        name = getattr(error, "sqlite_errorname", "") or ""
        where = f"cache file {str(self.path)!r}"
        if name.startswith(("SQLITE_BUSY", "SQLITE_LOCKED")):
            return CacheError(
                f"{where} was locked by another program for more than {self._busy_timeout_s:g} s; close what holds it"
                " or give another cache_path"
            )
        if name == "SQLITE_NOTADB":
            return CacheError(f"{where} is no SQLite database; it was left as it is. Give another cache_path")
        if name.startswith("SQLITE_READONLY") or name.startswith("SQLITE_CANTOPEN"):
            return CacheError(
                f"{where} cannot be written ({error}); give another cache_path or change its rights"
            )
        if name == "SQLITE_FULL":
            return CacheError(
                f"the disk is full: {where} could not be written. What was stored before is safe"
            )
        return CacheError(f"{where}: {error}")


def _task_record(values: Sequence[str]) -> TaskRecord:
    return TaskRecord(**dict(zip(TASK_COLUMNS, values, strict=True)))


def _seed_request(run_id: str, n_rows: int) -> RequestRecord:
    unknown: dict[str, Any] = dict.fromkeys(
        ("input_tokens", "output_tokens", "cached_tokens", "cache_write_tokens", "reasoning_tokens", "cost")
    )
    empty: dict[str, Any] = dict.fromkeys(("body", "user", "reply", "model", "provider_request_id"), "")
    return RequestRecord(
        **unknown,
        **empty,
        form="seed",
        outcome="seed",
        latency_s=0.0,
        attempts=0,
        n_rows=n_rows,
        run_id=run_id,
        created=time.time(),
    )


def _split(body: str, user: str) -> tuple[str, str, str]:
    """Cut a body into what is before the user message, the message, and what is after."""
    if user and body.count(user) == 1:
        head, _, tail = body.partition(user)
        return head, user, tail
    return "", body, ""


def _parts(keys: Iterable[Any]) -> Iterator[list[Any]]:
    part = []
    for key in keys:
        part.append(key)
        if len(part) == KEYS_AT_ONCE:
            yield part
            part = []
    if part:
        yield part


def _clean(value: Any) -> Any:
    if isinstance(value, str) and not value.isascii():
        return value.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")
    return value
