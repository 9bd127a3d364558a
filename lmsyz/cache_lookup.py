"""Looking answers up in a cache file, telling what they cost or why there are none: the hot path."""

from __future__ import annotations

import sqlite3
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from typing import Any

from lmsyz.cache_file import CacheFile, clean, marks, numbers, parts
from lmsyz.store import Saved

__all__ = ["Lookup"]

BLOCK = 2048
SCAN_SHARE = 3  # reading a whole task costs a row about a third of what looking a key up does (measured)
SEPARATOR = "\x1e"  # JSON text never holds it unescaped


class Lookup(CacheFile):
    """What a cache file knows about texts and rows."""

    def answers(self, task_ids: Sequence[int], keys: Collection[bytes] | None = None) -> dict[bytes, str]:
        """Return the newest answer of each text under any of the tasks.

        Parameters
        ----------
        task_ids : sequence of int
            The tasks, as :meth:`reading_tasks` gives them.
        keys : collection of bytes, optional
            The texts' keys; all that the tasks have if left out.

        Returns
        -------
        dict
            JSON text by key; a text without an answer is not in it.
        """
        return self._newest(("answer",), task_ids, keys)[0]

    def reuse(
        self, task_ids: Sequence[int], keys: Collection[bytes], *, after: int = 0
    ) -> tuple[dict[bytes, str], Saved]:
        """Return :meth:`answers` and :meth:`saved` from one reading.

        Parameters
        ----------
        task_ids : sequence of int
            The tasks.
        keys : collection of bytes
            The texts' keys.
        after : int
            Only answers that came after the one of this number, see :meth:`last_answer`.

        Returns
        -------
        tuple of dict and Saved
        """
        answers, requests = self._newest(("answer", "request_id"), task_ids, keys, after=after)
        return answers, self._cost_of(Counter(requests.values()))

    def last_answer(self) -> int:
        """Return the number of the newest answer, 0 where there is none; no number is ever given away again.

        Returns
        -------
        int
        """
        with self._reading() as db:
            return int(db.execute("SELECT max(id) FROM answers").fetchone()[0] or 0)

    def saved(self, task_ids: Sequence[int], keys: Collection[bytes]) -> Saved:
        """Return what answers cost when they were bought: each its share of its exchange.

        Parameters
        ----------
        task_ids : sequence of int
            The tasks.
        keys : collection of bytes
            The texts' keys.

        Returns
        -------
        Saved
        """
        return self._cost_of(Counter(self._newest(("request_id",), task_ids, keys)[0].values()))

    def _cost_of(self, used: Mapping[str, int]) -> Saved:
        """Sum up exchanges, each times the answers of it that are used."""
        asked = {int(request): n for request, n in used.items()}
        sums = [0, 0, 0.0, 0.0, 0.0]
        share = "sum(n * %s * 1.0 / max(n_answers, 1))"
        with self._reading() as db:
            for part in parts(db, asked.items(), 2):
                # Summed by SQLite: fetching a row of each exchange would cost more than the sums.
                row = db.execute(
                    f"WITH asked(id, n) AS (VALUES {marks(len(part), 2)}) SELECT sum(n),"
                    f" sum(n * (cost IS NULL)), {share % 'cost'}, {share % 'input_tokens'},"
                    f" {share % 'output_tokens'} FROM asked JOIN requests r ON r.id = asked.id",
                    [v for pair in part for v in pair],
                ).fetchone()
                sums = [total + (value or 0) for total, value in zip(sums, row, strict=True)]
        return Saved(
            n_rows=int(sums[0]),
            cost=None if sums[1] else sums[2],
            input_tokens=sums[3],
            output_tokens=sums[4],
            n_cost_unknown=int(sums[1]),
        )

    def tasks_with(self, keys: Collection[bytes]) -> dict[bytes, list[int]]:
        """Return the tasks that hold an answer to a text: why a row is asked again.

        Parameters
        ----------
        keys : collection of bytes
            The texts' keys.

        Returns
        -------
        dict
            Task numbers by key, the one that answered last first; a text without any answer is not in it.
        """
        found: dict[bytes, dict[int, None]] = {}
        with self._reading() as db:
            for part in parts(db, keys):
                keys_found, tasks = _columns(db, ("task_id",), f"key IN {marks(len(part))}", part)
                for key, task_id in zip(reversed(keys_found), reversed(tasks), strict=True):
                    found.setdefault(key, {})[int(task_id)] = None
        return {key: list(tasks) for key, tasks in found.items()}

    def ids_with_other_text(self, task_ids: Sequence[int], pairs: Mapping[str, bytes]) -> set[str]:
        """Return the rows that tasks know, but only under another text.

        Parameters
        ----------
        task_ids : sequence of int
            The tasks.
        pairs : mapping of str to bytes
            The key of its text by row id.

        Returns
        -------
        set of str
        """
        asked = {clean(row_id): row_id for row_id in pairs}
        changed: set[str] = set()
        with self._reading() as db:
            for part in parts(db, asked.items(), 2):
                rows = db.execute(
                    f"WITH asked(row_id, key) AS (VALUES {marks(len(part), 2)}) SELECT asked.row_id"
                    " FROM asked CROSS JOIN row_ids r ON r.row_id = asked.row_id"
                    f" WHERE r.task_id IN {numbers(task_ids)} GROUP BY asked.row_id"
                    " HAVING max(r.key = asked.key) = 0",
                    [value for stored, row_id in part for value in (stored, pairs[row_id])],
                ).fetchall()
                changed.update(asked[row[0]] for row in rows)
        return changed

    def _newest(
        self, columns: Sequence[str], task_ids: Sequence[int], keys: Collection[bytes] | None, *, after: int = 0
    ) -> list[dict[bytes, str]]:
        """Return columns of the newest answer, each by key, by reading whole tasks or by looking keys up."""
        found: list[dict[bytes, str]] = [{} for _ in columns]
        if not task_ids or (keys is not None and not keys):
            return found
        tasks = f"task_id IN {numbers(task_ids)}" + (f" AND id > {int(after)}" if after else "")
        with self._reading() as db:
            if keys is not None and _is_few(db, tasks, len(keys)):
                for part in parts(db, keys):
                    _add(found, _columns(db, columns, f"key IN {marks(len(part))} AND {tasks}", part))
                return found
            first, last = db.execute(f"SELECT min(id), max(id) FROM answers WHERE {tasks}").fetchone()
            for start in range((first or 1) - 1, last or 0, BLOCK):
                block = f"id > ? AND id <= ? AND {tasks}"
                _add(found, _columns(db, columns, block, (start, start + BLOCK), "answers_by_task"))
        return found if keys is None else _only(found, set(keys))


def _is_few(db: sqlite3.Connection, tasks: str, n_keys: int) -> bool:
    """Tell whether looking keys up is cheaper than reading the tasks, without counting all that they have."""
    some = f"SELECT 1 FROM answers WHERE {tasks} LIMIT {n_keys * SCAN_SHARE + 1}"
    return int(db.execute(f"SELECT count(*) FROM ({some})").fetchone()[0]) > n_keys * SCAN_SHARE


def _only(found: list[dict[bytes, str]], wanted: set[bytes]) -> list[dict[bytes, str]]:
    if found[0].keys() <= wanted:
        return found
    return [{k: v for k, v in values.items() if k in wanted} for values in found]


def _add(found: list[dict[bytes, str]], read: Sequence[Sequence[Any]]) -> None:
    keys, *columns = read
    for values, column in zip(found, columns, strict=True):
        values.update(zip(keys, column, strict=True))


def _columns(
    db: sqlite3.Connection,
    columns: Sequence[str],
    where: str,
    values: Sequence[Any],
    index: str = "answers_by_key",
) -> Sequence[Sequence[Any]]:
    """Return the keys and some columns, as text, of some answers, oldest first.

    They come as one row: at each row SQLite hands Python's lock over and waits for it again, which beside a
    busy thread costs 5 ms a row.
    """
    # Without statistics SQLite would rather walk through the whole task than look keys up.
    rows = f"SELECT key, {', '.join(columns)} FROM answers INDEXED BY {index} WHERE {where} ORDER BY id"
    joined = ", ".join(f"group_concat({column}, '{SEPARATOR}')" for column in columns)
    n, keys, *texts = db.execute(f"SELECT count(*), group_concat(hex(key)), {joined} FROM ({rows})", values).fetchone()
    if not n:
        return [()] * (1 + len(columns))
    found = [text.split(SEPARATOR) for text in texts]
    if any(len(column) != n for column in found):
        return list(zip(*((key, *map(str, row)) for key, *row in db.execute(rows, values)), strict=True))
    return [list(map(bytes.fromhex, keys.split(","))), *found]
