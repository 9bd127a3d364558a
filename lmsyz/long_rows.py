"""Rows of a frame and the parts in which they are asked: from one to the other, and counted. Pure."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from lmsyz.rows import LongRows, Rows

__all__ = [
    "LONG_TEXT_OPTIONS",
    "RowCount",
    "is_answered",
    "long_from_json",
    "long_to_json",
    "n_in_parts",
    "part_ids",
    "parts_words",
    "refusals",
    "with_parts",
]

LONG_TEXT_OPTIONS = ("long_texts", "max_text_tokens", "context_window", "merge")


def with_parts(
    rows: Rows,
    parts: Mapping[bytes, Sequence[tuple[bytes, str | None]]],
    refused: Mapping[bytes, str],
    *,
    merge: Any = None,
    merge_name: str = "",
) -> Rows:
    """Return rows that are asked in parts, or not at all, where that is so.

    Parameters
    ----------
    rows : Rows
        One for each row of the frame.
    parts : mapping
        Key and text of each part, by the key of the whole text.
    refused : mapping
        Why a text is not sent, by its key.
    merge, merge_name
        As in :class:`~lmsyz.rows.LongRows`.

    Returns
    -------
    Rows
        The rows as they are where there is neither.
    """
    if not parts and not refused:
        return rows
    at: list[int] = []
    texts: list[str | None] = []
    keys: list[bytes] = []
    for position, key in enumerate(rows.keys):
        pieces = parts.get(key) or ((key, rows.texts[position]),)
        at += [position] * len(pieces)
        keys += [part for part, _ in pieces]
        texts += [text for _, text in pieces]
    ids = part_ids(rows, {key: len(pieces) for key, pieces in parts.items()})
    # Each part of a text goes with the image of its row.
    images = None if rows.images is None else [rows.images[position] for position in at]
    asked = replace(rows, texts=texts, keys=keys, ids=ids, images=images)
    long = LongRows(
        parts={key: tuple(part for part, _ in pieces) for key, pieces in parts.items()},
        refused=dict(refused),
        asked=asked,
        at=at,
        merge=merge,
        merge_name=merge_name,
    )
    return replace(rows, long=long)


def part_ids(rows: Rows, n_parts: Mapping[bytes, int]) -> list[str] | None:
    """Return the ids of rows as they are asked, a part's as ``id#2``; with more of ``#`` where a row is called so."""
    if rows.ids is None:
        return None
    taken, mark = set(rows.ids), "#"
    long = [(row_id, n_parts[key]) for row_id, key in zip(rows.ids, rows.keys, strict=True) if key in n_parts]
    while any(f"{row_id}{mark}{n}" in taken for row_id, count in long for n in range(1, count + 1)):
        mark += "#"
    ids: list[str] = []
    for row_id, key in zip(rows.ids, rows.keys, strict=True):
        ids += [f"{row_id}{mark}{n}" for n in range(1, n_parts[key] + 1)] if key in n_parts else [row_id]
    return ids


def is_answered(long: LongRows, key: bytes, answers: Collection[bytes]) -> bool:
    """Whether a row has all that its answer is made of."""
    parts = long.parts.get(key)
    return key in answers if parts is None else all(part in answers for part in parts)


def n_in_parts(rows: Rows) -> int:
    """Return how many rows are asked in parts."""
    return sum(key in rows.long.parts for key in rows.keys) if rows.long else 0


def refusals(rows: Rows, answers: Collection[bytes]) -> dict[str, list[int]]:
    """Return the positions of rows that are too long to be sent and have no stored answer, by the reason."""
    found: dict[str, list[int]] = {}
    for position, key in enumerate(rows.keys) if rows.long and rows.long.refused else ():
        reason = rows.long.refused.get(key) if rows.long else None
        if reason and key not in answers:
            found.setdefault(reason, []).append(position)
    return found


def parts_words(rows: Rows) -> str:
    """Return how many rows are asked in how many parts, as words; empty where none is."""
    n = n_in_parts(rows)
    return f"{n:,} rows asked in {n + len(rows.asked) - len(rows):,} parts" if n else ""


def long_to_json(long: LongRows) -> dict[str, Any]:
    """Return what another kernel needs to know of long rows, JSON-able."""
    return {
        "parts": {key.hex(): [part.hex() for part in parts] for key, parts in long.parts.items()},
        "refused": {key.hex(): reason for key, reason in long.refused.items()},
        "merge": long.merge_name,
    }


def long_from_json(rows: Rows, kept: Mapping[str, Any]) -> Rows:
    """Return rows without texts as they were asked; see :func:`long_to_json`."""
    parts = {bytes.fromhex(k): [(bytes.fromhex(part), None) for part in v] for k, v in kept["parts"].items()}
    refused = {bytes.fromhex(k): str(reason) for k, reason in kept["refused"].items()}
    return with_parts(rows, parts, refused, merge_name=kept["merge"])


class RowCount:
    """Counts rows of the frame by what was asked; a row in parts when its last part is home, or its first has failed.

    Parameters
    ----------
    rows : Rows
        Of the frame.
    twins : mapping
        All positions, as asked, of a text that occurs more than once, by its key.
    stored : collection of bytes
        Keys that have an answer already.
    """

    def __init__(self, rows: Rows, twins: Mapping[bytes, Sequence[int]], stored: Collection[bytes]) -> None:
        self._rows, self._asked, self._twins = rows, rows.asked, twins
        self._n_of: Counter[bytes] = Counter()
        self._left: dict[bytes, set[bytes]] = {}
        self._whole: defaultdict[bytes, list[bytes]] = defaultdict(list)
        self._failed: set[bytes] = set()
        if rows.long and rows.long.parts:
            self._n_of.update(key for key in rows.keys if key in rows.long.parts)
            for key, parts in rows.long.parts.items():
                self._left[key] = {part for part in parts if part not in stored}
                for part in self._left[key]:
                    self._whole[part].append(key)

    def answered(self, positions: Iterable[int]) -> int:
        """Return how many rows have an answer by these, and had none before."""
        return sum(self._n_plain(p) + self._completed(self._asked.keys[p]) for p in positions)

    def failed(self, positions: Iterable[int]) -> int:
        """Return how many rows will have no answer for these."""
        return sum(self._n_plain(p) + self._spoilt(self._asked.keys[p]) for p in positions)

    def name(self, position: int) -> str:
        """Return what a user calls a row: its id, or its position in the frame."""
        if self._asked.ids is not None:
            return self._asked.ids[position]
        return str(self._rows.long.at[position] if self._rows.long else position)

    def _n_plain(self, position: int) -> int:
        """Return how many rows are this text itself, and no part of another."""
        key = self._asked.keys[position]
        sharing = self._twins.get(key, (position,))
        if key not in self._whole or self._rows.long is None:
            return len(sharing)
        at = self._rows.long.at
        return sum(self._rows.keys[at[p]] == key for p in sharing)

    def _completed(self, part: bytes) -> int:
        n = 0
        for whole in self._whole.get(part, ()):
            self._left[whole].discard(part)
            if not self._left[whole] and whole not in self._failed:
                n += self._n_of[whole]
        return n

    def _spoilt(self, part: bytes) -> int:
        wholes = [whole for whole in self._whole.get(part, ()) if whole not in self._failed]
        self._failed.update(wholes)
        return sum(self._n_of[whole] for whole in wholes)
