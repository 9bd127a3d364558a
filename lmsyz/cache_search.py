"""The slices of a search through a cache file, and rows with the texts they answer: SQL for `cache_browse`."""

from __future__ import annotations

import json
import sqlite3
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import replace
from typing import Any

from lmsyz.cache_file import clean, marks, parts
from lmsyz.cache_rows import FAILED, STALE, STORED, FoundPage, FoundRow, RowFilter, all_inputs, inputs_of, unix_time
from lmsyz.rows import folded
from lmsyz.store import TaskRecord

__all__ = ["NEWEST", "answers", "search", "with_inputs"]

BLOCK = 4000
TEXT_BLOCK = 200  # rows whose exchange is read as well
TASKS_BY_INDEX = 100
NEWEST = 2**62


def search(
    db: sqlite3.Connection, wanted: RowFilter, tasks: dict[int, TaskRecord], page: FoundPage, limit: int
) -> FoundPage:
    """Look at the next slice and return the page with what it holds."""
    size = TEXT_BLOCK if _reads_inputs(wanted) else BLOCK if wanted.answer_text else limit
    slice_sql, values = _slice(wanted, tasks, page.next_id or NEWEST, size)
    n, last = db.execute(f"SELECT count(*), min(id) FROM ({slice_sql})", values).fetchone()
    room = limit - len(page.rows)
    if not n:
        return replace(page, next_id=None)
    found = _matches(db, wanted, tasks, slice_sql, values)
    if len(found) > room or (len(found) == room and abs(found[-1].id) != last):
        found = found[:room]
        last = abs(found[-1].id)
        n = db.execute(f"SELECT count(*) FROM ({slice_sql}) WHERE id >= {last}", values).fetchone()[0]
        at: int | None = last
    else:
        at = last if n >= size else None
    if wanted.status in (STORED, STALE) and not _reads_inputs(wanted):
        found = with_inputs(db, found)
    if _is_by_id(wanted):
        found = [replace(row, row_id=wanted.row_id) for row in found]
    return FoundPage(rows=page.rows + found, next_id=at, n_searched=page.n_searched + n)


def _is_by_id(wanted: RowFilter) -> bool:
    return bool(wanted.row_id) and wanted.status == STORED


def _reads_inputs(wanted: RowFilter) -> bool:
    return bool(wanted.input_text or (wanted.row_id and not _is_by_id(wanted)) or wanted.status not in (STORED, STALE))


def _slice(wanted: RowFilter, tasks: dict[int, TaskRecord], before: int, size: int) -> tuple[str, list[Any]]:
    """Return SQL for the numbers of the next rows to look at, without looking at them."""
    if _is_by_id(wanted):
        sql = (
            "SELECT a.id FROM row_ids i JOIN answers a ON a.key = i.key AND a.task_id = i.task_id"
            " WHERE i.row_id = ? AND a.id < ? ORDER BY a.id DESC LIMIT ?"
        )
        return sql, [clean(wanted.row_id), before, size]
    is_some = bool(wanted.prompt or wanted.model or wanted.task_ids is not None)
    if wanted.status == STORED and is_some and len(tasks) <= TASKS_BY_INDEX:
        # Each task's newest by its index: a task's few rows in a large file are not searched for.
        each = (
            "SELECT * FROM (SELECT id FROM answers INDEXED BY answers_by_task"
            " WHERE task_id = {} AND id < ? ORDER BY id DESC LIMIT ?)"
        )
        sql = " UNION ALL ".join(each.format(int(task)) for task in tasks)
        return f"SELECT id FROM ({sql}) ORDER BY id DESC LIMIT ?", [*[before, size] * len(tasks), size]
    return f"SELECT id FROM {_table(wanted.status)} WHERE id < ? ORDER BY id DESC LIMIT ?", [before, size]


def _table(status: str) -> str:
    return {STORED: "answers", STALE: "stale_answers"}.get(status, "requests")


def _matches(
    db: sqlite3.Connection, wanted: RowFilter, tasks: dict[int, TaskRecord], slice_sql: str, values: list[Any]
) -> list[FoundRow]:
    if wanted.status not in (STORED, STALE):
        found = _failed(db, wanted.status, tasks, slice_sql, values)
        needle = wanted.row_id
        return [
            r
            for r in found
            if _holds(r.text, wanted.input_text)
            and _holds(r.answer, wanted.answer_text)
            and (not needle or needle in r.row_id.split(", "))
        ]
    where, more = f"a.id IN ({slice_sql})", list(values)
    # As the text stands in JSON, where a quotation mark or a line break is written otherwise.
    needle = json.dumps(clean(wanted.answer_text), ensure_ascii=False)[1:-1]
    if needle and needle.isascii():
        where += " AND a.answer LIKE ? ESCAPE '!'"
        more.append(f"%{needle.replace('!', '!!').replace('%', '!%').replace('_', '!_')}%")
    rows = answers(db, where, wanted.status, tasks, more)
    if not needle.isascii():
        # SQLite's LIKE takes a capital and a small letter for the same only in English.
        rows = [r for r in rows if _holds(r.answer, needle)]
    if wanted.input_text or (wanted.row_id and not _is_by_id(wanted)):
        known = with_inputs(db, rows)
        return [
            r for r in known if _holds(r.text, wanted.input_text) and (not wanted.row_id or r.row_id == wanted.row_id)
        ]
    return rows


def _holds(text: str, needle: str) -> bool:
    return folded(needle) in folded(text)


def answers(
    db: sqlite3.Connection, where: str, status: str, tasks: dict[int, TaskRecord], values: Iterable[Any] = ()
) -> list[FoundRow]:
    """Return answers of some tasks without their texts, newest first.

    Parameters
    ----------
    db : sqlite3.Connection
        The open file.
    where : str
        SQL about ``a``, made of no stranger's text.
    status : str
        ``stored`` or ``stale``.
    tasks : dict
        The tasks by number.
    values : iterable
        For the marks in `where`.

    Returns
    -------
    list of FoundRow
    """
    sql = (
        f"SELECT a.id, a.task_id, a.request_id, a.key, a.answer, r.created FROM {_table(status)} a"
        f" LEFT JOIN requests r ON r.id = a.request_id WHERE {where} ORDER BY a.id DESC"
    )
    sign = -1 if status == STALE else 1
    return [
        FoundRow(
            id=sign * number,
            status=status,
            task_id=task_id,
            request_id=request_id,
            key=bytes(key) if isinstance(key, bytes) else b"",
            row_id="",
            text="",
            answer=str(answer),
            model=str(tasks[task_id].model),
            prompt=str(tasks[task_id].prompt),
            created=unix_time(created),
        )
        for number, task_id, request_id, key, answer, created in db.execute(sql, list(values)).fetchall()
        if task_id in tasks
    ]


def with_inputs(db: sqlite3.Connection, rows: list[FoundRow]) -> list[FoundRow]:
    """Return rows with id and text as their exchanges sent them."""
    keys: dict[int, set[bytes]] = defaultdict(set)
    for row in rows:
        keys[row.request_id].add(row.key)
    known: dict[tuple[int, bytes], Any] = {}
    for part in parts(db, keys):
        for number, user in db.execute(f"SELECT id, user FROM requests WHERE id IN {marks(len(part))}", part):
            known |= {(number, key): found for key, found in inputs_of(user, keys[number]).items()}
    return [
        replace(row, row_id=clean(found.row_id), text=clean(found.text))
        if (found := known.get((row.request_id, row.key)))
        else row
        for row in rows
    ]


def _failed(
    db: sqlite3.Connection, status: str, tasks: dict[int, TaskRecord], slice_sql: str, values: list[Any]
) -> list[FoundRow]:
    sql = (
        "SELECT id, task_id, user, reply, outcome, created FROM requests WHERE n_answers < n_rows"
        f" AND id IN ({slice_sql}) AND (? = '{FAILED}' OR outcome = ?) ORDER BY id DESC"
    )
    rows = []
    for number, task_id, user, reply, outcome, created in db.execute(sql, [*values, status, status]).fetchall():
        if task_id in tasks:
            inputs = list(all_inputs(user))
            about: dict[str, Any] = {"model": str(tasks[task_id].model), "prompt": str(tasks[task_id].prompt)}
            rows.append(
                FoundRow(
                    id=number,
                    status=str(outcome),
                    task_id=task_id,
                    request_id=number,
                    key=b"",
                    row_id=clean(", ".join(i.row_id for i in inputs)),
                    text=clean("\n".join(i.text for i in inputs)),
                    answer=str(reply),
                    created=unix_time(created),
                    **about,
                )
            )
    return rows
