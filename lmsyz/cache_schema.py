"""The cache file's tables, how a file is told to be ours, and the steps that lead to today's.

``PRAGMA user_version`` counts the steps taken. Version 0 is an empty file or one that the seed package wrote,
which holds the single table ``results``. A step is never edited once a file may have taken it: add another.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Sequence

from lmsyz.errors import CacheError

__all__ = ["APPLICATION_ID", "VERSION", "check_ours", "migrate"]

APPLICATION_ID = 0x6C6D737A  # "lmsz"

Migration = Callable[[sqlite3.Connection], None]
_MIGRATIONS: list[Migration] = []

SEED_COLUMNS = ({"row_id", "json_result"}, {"row_id", "json_result", "prompt_hash"})

TABLES_1 = (
    """CREATE TABLE IF NOT EXISTS results (
        row_id TEXT PRIMARY KEY, json_result TEXT NOT NULL, prompt_hash TEXT)""",
    """CREATE TABLE tasks (
        id INTEGER PRIMARY KEY, fingerprint TEXT NOT NULL UNIQUE, backend TEXT NOT NULL, api TEXT NOT NULL,
        endpoint TEXT NOT NULL, model TEXT NOT NULL, prompt TEXT NOT NULL, system TEXT NOT NULL,
        schema TEXT NOT NULL, options TEXT NOT NULL, prompt_hash TEXT NOT NULL, system_hash TEXT NOT NULL,
        schema_hash TEXT NOT NULL, options_hash TEXT NOT NULL, created REAL NOT NULL)""",
    """CREATE TABLE request_templates (
        id INTEGER PRIMARY KEY, sha256 BLOB NOT NULL UNIQUE, head TEXT NOT NULL, tail TEXT NOT NULL)""",
    """CREATE TABLE requests (
        id INTEGER PRIMARY KEY, task_id INTEGER NOT NULL, run_id TEXT NOT NULL, template_id INTEGER NOT NULL,
        user TEXT NOT NULL, reply TEXT NOT NULL, form TEXT NOT NULL, outcome TEXT NOT NULL,
        model TEXT NOT NULL, provider_request_id TEXT NOT NULL, input_tokens INTEGER, output_tokens INTEGER,
        cached_tokens INTEGER, cache_write_tokens INTEGER, reasoning_tokens INTEGER, cost REAL,
        latency_s REAL NOT NULL, attempts INTEGER NOT NULL, n_rows INTEGER NOT NULL,
        n_answers INTEGER NOT NULL, created REAL NOT NULL)""",
    "CREATE INDEX requests_by_run ON requests(run_id)",
    """CREATE TABLE answers (
        id INTEGER PRIMARY KEY, task_id INTEGER NOT NULL, key BLOB NOT NULL, answer TEXT NOT NULL,
        request_id INTEGER NOT NULL)""",
    "CREATE INDEX answers_by_key ON answers(key, task_id)",
    "CREATE INDEX answers_by_task ON answers(task_id)",
    """CREATE TABLE row_ids (
        task_id INTEGER NOT NULL, row_id TEXT NOT NULL, key BLOB NOT NULL, PRIMARY KEY (row_id, task_id))
        WITHOUT ROWID""",
    """CREATE TABLE adopted (
        row_id TEXT NOT NULL, prompt_hash TEXT NOT NULL, task_id INTEGER NOT NULL,
        PRIMARY KEY (row_id, prompt_hash)) WITHOUT ROWID""",
    """CREATE TABLE runs (
        run_id TEXT PRIMARY KEY, task_id INTEGER NOT NULL, started REAL NOT NULL, ended REAL,
        manifest TEXT NOT NULL)""",
)

# The seed's table has no dates. A trigger fires whichever package writes, so a mark says which of our answers
# were there before the row, and which task has taken the row over: none, once it is written again.
TABLES_2 = (
    """CREATE TABLE seed_marks (
        row_id TEXT PRIMARY KEY, after_answer INTEGER NOT NULL DEFAULT 0, task_id INTEGER) WITHOUT ROWID""",
    """INSERT INTO seed_marks (row_id, task_id) SELECT a.row_id, a.task_id FROM adopted a
        JOIN results s ON s.row_id = a.row_id AND coalesce(s.prompt_hash, '') = a.prompt_hash""",
    "DROP TABLE adopted",
    """CREATE TRIGGER results_written AFTER INSERT ON results BEGIN
        INSERT OR REPLACE INTO seed_marks (row_id, after_answer, task_id)
        VALUES (new.row_id, (SELECT coalesce(max(id), 0) FROM answers), NULL); END""",
)

# Answers that a user wants asked again: out of the way of looking up, and still there to be read.
TABLES_3 = (
    """CREATE TABLE stale_answers (
        id INTEGER PRIMARY KEY AUTOINCREMENT, task_id INTEGER NOT NULL, key BLOB NOT NULL, answer TEXT NOT NULL,
        request_id INTEGER NOT NULL)""",
    "CREATE INDEX stale_answers_by_key ON stale_answers(key, task_id)",
)


def _migration(step: Migration) -> Migration:
    _MIGRATIONS.append(step)
    return step


@_migration
def _first(db: sqlite3.Connection) -> None:
    """Lay out our tables beside the seed package's ``results``, which may be there already."""
    for statement in TABLES_1:
        db.execute(statement)
    if "prompt_hash" not in _columns(db, "results"):
        db.execute("ALTER TABLE results ADD COLUMN prompt_hash TEXT")


@_migration
def _second(db: sqlite3.Connection) -> None:
    """Mark the seed's rows: when written, and by which task taken over."""
    for statement in TABLES_2:
        db.execute(statement)


@_migration
def _third(db: sqlite3.Connection) -> None:
    """Make room for answers that are to be asked again."""
    for statement in TABLES_3:
        db.execute(statement)


VERSION = len(_MIGRATIONS)


def check_ours(db: sqlite3.Connection, name: str) -> int:
    """Tell whether a database is a cache file, without changing it.

    Parameters
    ----------
    db : sqlite3.Connection
        The open file, in autocommit.
    name : str
        What to call the file in a message.

    Returns
    -------
    int
        The file's version; 0 for an empty file and for one of the seed package.

    Raises
    ------
    CacheError
        The file is another program's database, or comes from a newer lmsyz.
    """
    # One transaction: a kernel that lays the tables out at this moment is seen either before or after.
    db.execute("BEGIN")
    try:
        version, application = _pragma(db, "user_version"), _pragma(db, "application_id")
        names = db.execute("SELECT name FROM sqlite_master WHERE type IN ('table', 'view') ORDER BY name")
        tables = [row[0] for row in names if not row[0].startswith("sqlite_")]
        columns = _columns(db, "results")
    finally:
        db.execute("ROLLBACK")
    if application == APPLICATION_ID:
        if version > VERSION:
            raise CacheError(
                f"{name} was written by a newer lmsyz (format {version}; this one reads up to {VERSION})."
                " Update it with: pip install -U lmsyz, or give another cache_path"
            )
        return version
    blank = application == version == 0 and (not tables or (tables == ["results"] and columns in SEED_COLUMNS))
    if not blank:
        raise CacheError(
            f"{name} is another program's database ({_shown(tables)}) and was left as it is."
            " Give a path of its own to lmsyz, such as cache_path='lmsyz_cache.sqlite'"
        )
    return 0


def migrate(db: sqlite3.Connection) -> None:
    """Bring a cache file up to date, each step in one transaction with its version number.

    Several kernels may do so at once: the version is looked up again once the write lock is held.

    Parameters
    ----------
    db : sqlite3.Connection
        The open file, in autocommit, found to be ours by :func:`check_ours`.
    """
    while _pragma(db, "user_version") < VERSION:
        try:
            db.execute("BEGIN IMMEDIATE")
            version = _pragma(db, "user_version")
            if version < VERSION:
                _MIGRATIONS[version](db)
                db.execute(f"PRAGMA user_version = {version + 1}")
                db.execute(f"PRAGMA application_id = {APPLICATION_ID}")
            db.execute("COMMIT")
        except BaseException:
            if db.in_transaction:
                db.execute("ROLLBACK")
            raise


def _pragma(db: sqlite3.Connection, name: str) -> int:
    return int(db.execute(f"PRAGMA {name}").fetchone()[0])


def _columns(db: sqlite3.Connection, table: str) -> set[str]:
    return {row[1] for row in db.execute(f"PRAGMA table_info({table})")}


def _shown(tables: Sequence[str]) -> str:
    more = ", ..." if len(tables) > 5 else ""
    return f"tables {', '.join(tables[:5])}{more}" if tables else "its application_id is not ours"
