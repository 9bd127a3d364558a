"""What browsing a cache file asks for and gets: filters, rows, groups; and which input an answer belongs to. Pure."""

from __future__ import annotations

import json
from collections.abc import Collection, Iterator
from dataclasses import dataclass, field
from typing import Any

from lmsyz.images import IMAGE_FIELD, image_names, rows_text
from lmsyz.rows import ID_FIELD, text_key
from lmsyz.store import RequestRecord, TaskRecord

__all__ = [
    "FAILED",
    "STALE",
    "STORED",
    "FoundPage",
    "FoundRow",
    "Group",
    "Input",
    "RowDetail",
    "RowFilter",
    "all_inputs",
    "inputs_of",
    "unix_time",
]

STORED, STALE, FAILED = "stored", "stale", "failed"
LATEST = 4e9  # a Unix time in 2096
REPEATS = 50  # as many repetitions of one text are told apart; dedupe=False alone makes any


@dataclass(frozen=True, slots=True, kw_only=True)
class RowFilter:
    """Which rows of a cache file are wanted; all of what is given must hold.

    Parameters
    ----------
    status : str
        ``stored``; ``stale`` for answers marked to be asked again; ``failed`` for exchanges that left rows without an
        answer, or one outcome of these, such as ``refused`` or ``truncated``.
    prompt, model : str, optional
        Exactly this prompt (or its hash), this model.
    row_id : str, optional
        Exactly this row id.
    answer_text, input_text : str, optional
        What the answer's JSON text (of a failed exchange the reply) or the row's text contains, capitals or not.
    task_ids : tuple of int, optional
        Only these tasks.
    """

    status: str = STORED
    prompt: str = ""
    model: str = ""
    row_id: str = ""
    answer_text: str = ""
    input_text: str = ""
    task_ids: tuple[int, ...] | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class FoundRow:
    """One row as a list shows it.

    Parameters
    ----------
    id : int
        The answer's number, negative where it is marked stale; for a failed row the exchange's number.
    status : str
        ``stored``, ``stale``, or the outcome of an exchange that left rows unanswered.
    task_id, request_id : int
        What was asked, and in which exchange.
    key : bytes
        The key of the row's text; empty for a failed one.
    row_id, text : str
        As they were sent; empty where the exchange does not tell.
    answer : str
        JSON text.
    model, prompt : str
        The task's.
    created : float
        Unix time of the exchange; 0 where the file has none.
    """

    id: int
    status: str
    task_id: int
    request_id: int
    key: bytes
    row_id: str
    text: str
    answer: str
    model: str
    prompt: str
    created: float


@dataclass(frozen=True, slots=True, kw_only=True)
class FoundPage:
    """A page of rows, and where to go on.

    Parameters
    ----------
    rows : list of FoundRow
        Newest first; may be empty although there is more to search.
    next_id : int or None
        What to give as ``before_id`` for what follows; None where all was searched.
    n_searched : int
        Rows that were looked at for this page.
    """

    rows: list[FoundRow] = field(default_factory=list)
    next_id: int | None = None
    n_searched: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Group:
    """What a cache file holds under one task: one prompt, one model, one schema and set of options.

    Parameters
    ----------
    task_id : int
        Its number.
    task : TaskRecord
        What was asked.
    n_rows, n_stale : int
        Answers, and answers marked to be asked again.
    n_requests : int
        Exchanges.
    input_tokens, output_tokens : int
        Of all its exchanges, where the provider counted them.
    cost : float or None
        US dollars; None where the price of any exchange is unknown.
    first, last : float or None
        Unix times of the first and the last exchange; None where the file has none.
    """

    task_id: int
    task: TaskRecord
    n_rows: int
    n_stale: int
    n_requests: int
    input_tokens: int
    output_tokens: int
    cost: float | None
    first: float | None
    last: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class RowDetail:
    """One row opened: the row, what was asked, the exact exchange, and the other answers to the same text."""

    row: FoundRow
    task: TaskRecord
    request: RequestRecord | None
    others: list[FoundRow]


@dataclass(frozen=True, slots=True, kw_only=True)
class Input:
    """One row of a request: its id on the wire, its text, and what the store calls its image."""

    row_id: str
    text: str
    named_fields: bool = False
    image: str = ""


def unix_time(value: object) -> float:
    """Return a time that is one, 0 for what is none: the column of a file from elsewhere may hold anything."""
    return float(value) if isinstance(value, int | float) and 0 < value < LATEST else 0.0


def inputs_of(user: str, keys: Collection[bytes]) -> dict[bytes, Input]:
    """Return the rows of a user message that answers belong to.

    Parameters
    ----------
    user : str
        As :class:`lmsyz.store.RequestRecord` keeps it.
    keys : collection of bytes
        The answers' keys.

    Returns
    -------
    dict
        By key; a key that no text of the message leads to is not in it.
    """
    found: dict[bytes, Input] = {}
    left = set(keys)
    rows = list(all_inputs(user))
    for occurrence in range(REPEATS):
        for row in rows:
            key = text_key(row.text, occurrence=occurrence, named_fields=row.named_fields, image=row.image)
            if key in left:
                found[key] = row
                left.discard(key)
        if not left:
            break
    return found


def all_inputs(user: str) -> Iterator[Input]:
    """Go through the rows of a user message; there are none where it is not ours."""
    content = _loaded(user)
    rows, images = _loaded(rows_text(content)), image_names(content)
    for row in rows if isinstance(rows, list) else ():
        if isinstance(row, dict) and "input_text" in row:
            number = row.get(IMAGE_FIELD)
            image = images[number - 1] if isinstance(number, int) and 0 < number <= len(images) else ""
            text = "" if image and row["input_text"] is None else row["input_text"]
            named = not isinstance(text, str)
            shown = json.dumps(text, ensure_ascii=False, separators=(",", ":")) if named else text
            yield Input(row_id=str(row.get(ID_FIELD, "")), text=shown, named_fields=named, image=image)


def _loaded(text: Any) -> Any:
    try:
        return json.loads(text) if isinstance(text, str) else None
    except (ValueError, RecursionError):
        return None
