"""The cache file's tables, and the steps that lead from an older file to today's."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable

__all__ = ["APPLICATION_ID", "VERSION", "migrate"]

APPLICATION_ID = 0x6C6D737A  # "lmsz"

Migration = Callable[[sqlite3.Connection], None]
_MIGRATIONS: list[Migration] = []

TABLES_1 = (
    """CREATE TABLE IF NOT EXISTS results (
        row_id TEXT PRIMARY KEY, json_result TEXT NOT NULL, prompt_hash TEXT)""",
    """CREATE TABLE tasks (
        id INTEGER PRIMARY KEY, fingerprint TEXT NOT NULL UNIQUE, backend TEXT NOT NULL, api TEXT NOT NULL,
        endpoint TEXT NOT NULL, model TEXT NOT NULL, prompt TEXT NOT NULL, system TEXT NOT NULL, schema TEXT NOT NULL,
        options TEXT NOT NULL, prompt_hash TEXT NOT NULL, system_hash TEXT NOT NULL, schema_hash TEXT NOT NULL,
        options_hash TEXT NOT NULL, created REAL NOT NULL DEFAULT (unixepoch('subsec')))""",
    """CREATE TABLE request_templates (
        id INTEGER PRIMARY KEY, sha256 BLOB NOT NULL UNIQUE, head TEXT NOT NULL, tail TEXT NOT NULL)""",
    """CREATE TABLE requests (
        id INTEGER PRIMARY KEY, task_id INTEGER NOT NULL, run_id TEXT NOT NULL, template_id INTEGER NOT NULL,
        user TEXT NOT NULL, reply TEXT NOT NULL, form TEXT NOT NULL, outcome TEXT NOT NULL, model TEXT NOT NULL,
        provider_request_id TEXT NOT NULL, input_tokens INTEGER, output_tokens INTEGER, cached_tokens INTEGER,
        cache_write_tokens INTEGER, reasoning_tokens INTEGER, cost REAL, latency_s REAL NOT NULL,
        attempts INTEGER NOT NULL, n_rows INTEGER NOT NULL, n_answers INTEGER NOT NULL, created REAL NOT NULL)""",
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


def _migration(step: Migration) -> Migration:
    _MIGRATIONS.append(step)
    return step


@_migration
def _first(connection: sqlite3.Connection) -> None:
    """Lay out our tables beside the seed package's ``results``, which may be there already."""
    for statement in TABLES_1:
        connection.execute(statement)
    columns = {row[1] for row in connection.execute("PRAGMA table_info(results)")}
    if "prompt_hash" not in columns:
        connection.execute("ALTER TABLE results ADD COLUMN prompt_hash TEXT")


VERSION = len(_MIGRATIONS)


def migrate(connection: sqlite3.Connection) -> None:
    """Bring an open file up to date, each step in one transaction with its version number.

    Several kernels may do so at once: the step is looked up again once the write lock is held.
    """
    while (version := _version(connection)) < VERSION:
        connection.execute("BEGIN IMMEDIATE")
        try:
            if _version(connection) == version:
                _MIGRATIONS[version](connection)
                connection.execute(f"PRAGMA user_version = {version + 1}")
                connection.execute(f"PRAGMA application_id = {APPLICATION_ID}")
            connection.execute("COMMIT")
        except BaseException:
            connection.execute("ROLLBACK")
            raise


def _version(connection: sqlite3.Connection) -> int:
    return int(connection.execute("PRAGMA user_version").fetchone()[0])
