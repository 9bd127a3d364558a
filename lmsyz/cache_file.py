"""One SQLite file, open: who may use it, how it is locked, and what is said when it cannot be used.

One connection under one lock serves all threads of a process. SQLite runs without Python's lock, but
waits for it at every row, so a connection a thread gains nothing and costs file handles. A forked process
opens its own connection. Kernels share the file by short write transactions in WAL mode, and take turns.

Text is stored as UTF-8. A lone surrogate has no UTF-8 form and is stored, and looked up, as U+FFFD.
"""

from __future__ import annotations

import os
import sqlite3
import threading
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from itertools import islice
from pathlib import Path
from typing import Any, Self, TypeVar

from lmsyz.cache_schema import VERSION, check_ours, migrate
from lmsyz.errors import CacheError

__all__ = ["CacheFile", "clean", "marks", "numbers", "parts"]

T = TypeVar("T")

PARTS_AT_ONCE = 2000
PAUSE_S = 0.01
BUSY = (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED)
NO_LOG = (sqlite3.SQLITE_CANTOPEN, sqlite3.SQLITE_READONLY)
NO_SHARED_MEMORY = (sqlite3.SQLITE_CANTOPEN, sqlite3.SQLITE_IOERR, sqlite3.SQLITE_PROTOCOL)
WHAT_TO_DO = {
    sqlite3.SQLITE_NOTADB: "is no SQLite database and was left as it is. Give another cache_path",
    sqlite3.SQLITE_READONLY: "is not writable. Change its rights, or give another cache_path",
    sqlite3.SQLITE_PERM: "is not writable. Change its rights, or give another cache_path",
    sqlite3.SQLITE_CANTOPEN: "cannot be opened. Check its rights and its directory's, or give another cache_path",
    sqlite3.SQLITE_FULL: "cannot grow: the disk is full. What was stored is safe; make room and run again",
    sqlite3.SQLITE_IOERR: "cannot be read or written: the disk reports an error. Copy it to another"
    " disk and give that as cache_path",
    sqlite3.SQLITE_CORRUPT: "is damaged and was left as it is. Give another cache_path; SQLite's own"
    " shell saves what can be saved, with its command .recover",
}

# SQLite forbids closing a connection in a process that inherited it: what a fork brought along is kept.
_inherited: list[sqlite3.Connection] = []


class CacheFile:
    """A cache file and its connection.

    Parameters
    ----------
    path : str or Path
        The file; made, readable by its owner alone, if it is not there and its directory is.
    read_only : bool
        Only read: the file must be there; an empty one and the seed package's are read as they are, one of an older
        lmsyz has to be brought up to date first.
    busy_timeout_s : float
        Seconds to wait while another program writes.

    Raises
    ------
    CacheError
        The path is no cache file, cannot be written, is locked for too long, or comes from a newer lmsyz.
    """

    def __init__(self, path: str | os.PathLike[str], *, read_only: bool = False, busy_timeout_s: float = 30.0) -> None:
        self.path = Path(path).expanduser()
        self.read_only = read_only
        self._place = self.path.absolute()  # so that a later chdir does not lead to another file
        self._busy_timeout_s = busy_timeout_s
        self._lock = threading.RLock()
        self._pid = os.getpid()
        self._templates: dict[tuple[str, str], int] = {}
        self._connection: sqlite3.Connection | None = None
        self._connection = self._open()

    def close(self) -> None:
        """Close the file; using the cache again opens it again."""
        with self._own_lock():
            connection, self._connection = self._connection, None
            if connection is not None:
                connection.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"{type(self).__name__}({str(self.path)!r}{', read_only=True' if self.read_only else ''})"

    @contextmanager
    def _reading(self) -> Iterator[sqlite3.Connection]:
        """Hold the connection; an error of SQLite's comes out as ours."""
        with self._own_lock():
            try:
                if self._connection is None:
                    self._templates.clear()
                    self._connection = self._open()
                yield self._connection
            except sqlite3.Error as error:
                raise self._told(error) from error

    @contextmanager
    def _writing(self) -> Iterator[sqlite3.Connection]:
        """Hold the connection inside one transaction: all of it is kept, or nothing."""
        with self._reading() as db:
            try:
                db.execute("BEGIN IMMEDIATE")
                yield db
                db.execute("COMMIT")
            except BaseException:
                if db.in_transaction:
                    db.execute("ROLLBACK")
                raise

    def _own_lock(self) -> threading.RLock:
        if self._pid != os.getpid():
            # A thread that does not exist here may have held the lock when the process was forked.
            self._lock, self._pid = threading.RLock(), os.getpid()
            if self._connection is not None:
                _inherited.append(self._connection)
            self._connection = None
        return self._lock

    # --- opening ----------------------------------------------------------------------------------

    def _open(self) -> sqlite3.Connection:
        self._make_place()
        try:
            return self._opened("ro" if self.read_only else "rw")
        except sqlite3.Error as error:
            if self.read_only and _code(error) in NO_LOG and not self._has_log():
                # A WAL file in a directory that cannot be written, as of an archived study, opens only so.
                with suppress(sqlite3.Error):
                    return self._opened("ro&immutable=1")
            raise self._told(error) from error

    def _opened(self, mode: str) -> sqlite3.Connection:
        db = sqlite3.connect(
            f"{self._place.as_uri()}?mode={mode}",
            uri=True,
            timeout=self._busy_timeout_s,
            check_same_thread=False,
            isolation_level=None,
            cached_statements=64,
        )
        try:
            version = check_ours(db, self._name())
            if self.read_only and version == 0:
                return _upgraded_copy(db)
            if self.read_only:
                self._check_version(version)
            else:
                set_journal(db, self._busy_timeout_s)
                migrate(db)
                # Found out now, not after the first answer is paid for.
                db.execute("BEGIN IMMEDIATE")
                db.execute("ROLLBACK")
        except BaseException:
            db.close()
            raise
        return db

    def _make_place(self) -> None:
        """Make an empty file where there is none, or say why that cannot be."""
        if self._place.is_dir():
            raise CacheError(f"{self._name()} is a directory. Give a file in it: {str(self.path / 'cache.sqlite')!r}")
        if not self._place.parent.is_dir():
            raise CacheError(
                f"{self._name()} cannot be made: there is no directory {str(self.path.parent)!r}."
                f" Make it first: Path({str(self.path.parent)!r}).mkdir(parents=True)"
            )
        if self.read_only:
            if not self._place.exists():
                raise CacheError(f"{self._name()} is not there; check the path, or leave read_only out to make it")
            return
        try:
            # Private from the first byte on: texts and answers are the user's own business. O_EXCL, because
            # closing a file that SQLite has open in this process would drop SQLite's locks on it.
            os.close(os.open(self._place, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600))
        except FileExistsError:
            return
        except OSError as error:
            raise CacheError(
                f"{self._name()} cannot be made ({error.strerror}). Give a cache_path in a directory you may write to"
            ) from error

    def _check_version(self, version: int) -> None:
        if version < VERSION:
            raise CacheError(
                f"{self._name()} was written by an older version and has to be brought up to date first:"
                f" open it once with SqliteCache({str(self.path)!r})"
            )

    def _has_log(self) -> bool:
        log = self._place.with_name(self._place.name + "-wal")
        return log.exists() and log.stat().st_size > 0

    # --- saying what is wrong ---------------------------------------------------------------------

    def _name(self) -> str:
        return f"cache file {str(self.path)!r}"

    def _told(self, error: sqlite3.Error) -> CacheError:
        code = _code(error)
        if code in BUSY:
            return CacheError(
                f"{self._name()} was locked by another program for more than {self._busy_timeout_s:g} s."
                " Close what holds it, or give another cache_path"
            )
        if code == sqlite3.SQLITE_READONLY and self.read_only and self._connection is not None:
            return CacheError(f"{self._name()} was opened with read_only=True. Open it without, to write")
        return CacheError(f"{self._name()} {WHAT_TO_DO.get(code, 'cannot be used')} ({error})")


def _upgraded_copy(file: sqlite3.Connection) -> sqlite3.Connection:
    """Return a file that has none of our tables as a copy in memory that has them: looking must not write into it."""
    db = sqlite3.connect(":memory:", check_same_thread=False, isolation_level=None)
    try:
        file.backup(db)
        migrate(db)
        db.execute("PRAGMA query_only = 1")
    except BaseException:
        db.close()
        raise
    file.close()
    return db


def set_journal(db: sqlite3.Connection, patience_s: float) -> None:
    """Switch a file to WAL where its file system has shared memory; elsewhere the rollback journal stays.

    Parameters
    ----------
    db : sqlite3.Connection
        The open file.
    patience_s : float
        Seconds to try: SQLite does not itself wait when two kernels switch the same new file.
    """
    mode = db.execute("PRAGMA journal_mode").fetchone()[0]
    until = time.monotonic() + patience_s
    while mode != "wal":
        try:
            mode = db.execute("PRAGMA journal_mode = WAL").fetchone()[0]
            break
        except sqlite3.OperationalError as error:
            if _code(error) in NO_SHARED_MEMORY:
                break
            if _code(error) not in BUSY or time.monotonic() > until:
                raise
            time.sleep(PAUSE_S)
    # In WAL mode NORMAL can lose the last commits to a power cut but never damages the file; a rollback
    # journal needs FULL for that.
    db.execute(f"PRAGMA synchronous = {'NORMAL' if mode == 'wal' else 'FULL'}")


def _code(error: sqlite3.Error) -> int:
    """Return SQLite's primary result code, 0 for an error of Python's own module."""
    return int(getattr(error, "sqlite_errorcode", None) or 0) & 0xFF


def parts(db: sqlite3.Connection, items: Iterable[T], values_each: int = 1) -> Iterator[list[T]]:
    """Cut items into lists, each of which fits into one statement's parameters."""
    room = db.getlimit(sqlite3.SQLITE_LIMIT_VARIABLE_NUMBER) - 10
    size = max(1, min(PARTS_AT_ONCE, room) // values_each)
    iterator = iter(items)
    while part := list(islice(iterator, size)):
        yield part


def marks(n: int, values_each: int = 0) -> str:
    """Return ``(?,?,...)`` for an IN, or ``(?,?),(?,?),...`` for VALUES."""
    if not values_each:
        return f"({','.join('?' * n)})"
    return ",".join([f"({','.join('?' * values_each)})"] * n)


def numbers(ids: Iterable[int]) -> str:
    """Return row numbers as the list of an IN."""
    return f"({','.join(str(int(i)) for i in ids)})"


def clean(value: Any) -> Any:
    """Return a text that has a UTF-8 form: lone surrogates become U+FFFD. Anything else stays as it is."""
    if isinstance(value, str) and not value.isascii():
        return value.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")
    return value
