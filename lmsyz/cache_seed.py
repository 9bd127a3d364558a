"""The seed package's face: its table ``results``, and get, put and all_ids over it and our answers."""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping
from typing import Any

from lmsyz.cache_file import CacheFile, clean, marks, parts

__all__ = ["SeedFace"]

# NULL as the prompt hash asks for rows under any; a seed row without a hash matches no particular one.
OWN = (
    "SELECT a.id, a.answer FROM row_ids r JOIN tasks t ON t.id = r.task_id JOIN answers a ON a.key = r.key"
    " AND a.task_id = r.task_id WHERE r.row_id = ? AND (? IS NULL OR t.prompt_hash = ?)"
    " ORDER BY a.id DESC LIMIT 1"
)
SEED = (
    "SELECT coalesce(m.after_answer, 0), s.json_result FROM results s"
    " LEFT JOIN seed_marks m ON m.row_id = s.row_id WHERE s.row_id = ?"
    " AND (? IS NULL OR s.prompt_hash = ?)"
)


class SeedFace(CacheFile):
    """What the seed package's cache could do, by row id and prompt hash."""

    def get(self, row_id: str, prompt_hash: str | None = None) -> dict[str, Any] | None:
        """Return the newest answer to a row.

        Parameters
        ----------
        row_id : str
            The user's id of the row.
        prompt_hash : str, optional
            Only an answer under this prompt, see :func:`lmsyz.compute_prompt_hash`.

        Returns
        -------
        dict or None
            What :meth:`put` was given, or an answer of a run with its ``input_id``; None where there is none.
        """
        row_id = clean(str(row_id))
        with self._reading() as db:
            own = db.execute(OWN, (row_id, prompt_hash, prompt_hash)).fetchone()
            seed = db.execute(SEED, (row_id, prompt_hash, prompt_hash)).fetchone()
        if own and (seed is None or own[0] > seed[0]):
            return {"input_id": row_id, **json.loads(own[1])}
        return dict(json.loads(seed[1])) if seed else None

    def put(self, row_id: str, result: Mapping[str, Any], prompt_hash: str | None = None) -> None:
        """Store one row as the seed package does, replacing what it had stored under this id.

        Parameters
        ----------
        row_id : str
            The user's id of the row.
        result : dict
            Anything that JSON can hold.
        prompt_hash : str, optional
            The prompt that led to it.
        """
        sql = "INSERT OR REPLACE INTO results (row_id, json_result, prompt_hash) VALUES (?, ?, ?)"
        with self._writing() as db:
            db.execute(sql, (clean(str(row_id)), json.dumps(dict(result)), prompt_hash))

    def all_ids(self, prompt_hash: str | None = None) -> set[str]:
        """Return the ids of all rows that have an answer.

        Parameters
        ----------
        prompt_hash : str, optional
            Only answers under this prompt.

        Returns
        -------
        set of str
        """
        own = "SELECT r.row_id FROM row_ids r JOIN tasks t ON t.id = r.task_id WHERE ? IS NULL OR t.prompt_hash = ?"
        seed = "SELECT row_id FROM results WHERE ? IS NULL OR prompt_hash = ?"
        with self._reading() as db:
            return {row[0] for sql in (own, seed) for row in db.execute(sql, (prompt_hash, prompt_hash)).fetchall()}

    def seed_rows(self, prompt_hash: str | None, ids: Collection[str]) -> dict[str, str]:
        """Return rows of the seed package's table that no task has taken over yet.

        Parameters
        ----------
        prompt_hash : str or None
            Only rows under this prompt; None for any, rows from before there was a hash included.
        ids : collection of str
            The rows to look for.

        Returns
        -------
        dict
            JSON text by row id.
        """
        found: dict[str, str] = {}
        asked = {clean(i): i for i in ids}
        with self._reading() as db:
            if db.execute("SELECT 1 FROM results LIMIT 1").fetchone() is None:
                return found
            for part in parts(db, asked):
                sql = (
                    f"SELECT row_id, json_result FROM results s WHERE row_id IN {marks(len(part))}"
                    " AND (? IS NULL OR prompt_hash = ?) AND NOT EXISTS"
                    " (SELECT 1 FROM seed_marks m WHERE m.row_id = s.row_id AND m.task_id IS NOT NULL)"
                )
                for row_id, text in db.execute(sql, [*part, prompt_hash, prompt_hash]).fetchall():
                    found[asked[row_id]] = text
        return found
