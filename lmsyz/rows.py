"""Rows, and the chunks in which they are asked. Pure.

A *row* is one text to ask about. A *chunk* is the rows packed into one request. On the wire every row carries an
``input_id``: the user's own id where there is one, otherwise a short opaque tag drawn from the text's hash, so that a
model that skips a row and renumbers the rest is caught, and nothing private leaves.
"""

from __future__ import annotations

import json
import random
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from hashlib import sha256
from typing import Any
from unicodedata import normalize

from lmsyz.images import IMAGE_FIELD, Image

__all__ = [
    "ID_FIELD",
    "OPENING_FIELD",
    "Chunk",
    "LongRows",
    "Merge",
    "Rows",
    "answer_json",
    "chunk_positions",
    "estimate_tokens",
    "folded",
    "is_unspaced",
    "letters",
    "make_chunk",
    "text_key",
    "text_keys",
]

ID_FIELD = "input_id"
TEXT_FIELD = "input_text"
OPENING_FIELD = "input_opening"
OPENING_WORDS = 8
UNSPACED_LETTERS = 16  # about as many are eight words of Chinese or Japanese
SHUFFLE_SEED = 42
LOOK_AHEAD = 200  # rows passed over for one that opens otherwise; looking through all of them takes hours for 100,000
Merge = Callable[[list[dict[str, Any]]], Mapping[str, Any]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Rows:
    """The rows of one call, column by column.

    Parameters
    ----------
    texts : sequence of str or None
        What is sent, None where there is nothing to send. With ``named_fields`` each is the JSON text of an object.
    keys : sequence of bytes
        16 bytes a row that stand for its text in the store, empty where there is no text.
    ids : sequence of str or None
        The user's row ids, None where rows are told apart by position and text.
    named_fields : bool
        Whether several columns were given, so that a text is an object of named fields.
    images : sequence of Image or None, optional
        Each row's image, None for a row without; None where the call names no column of images.
    long : LongRows or None
        What becomes of texts that are too long; None where there are none.
    """

    texts: Sequence[str | None]
    keys: Sequence[bytes]
    ids: Sequence[str] | None = None
    named_fields: bool = False
    images: Sequence[Image | None] | None = None
    long: LongRows | None = None

    def __len__(self) -> int:
        return len(self.texts)

    def has_image(self, position: int) -> bool:
        """Whether a row has an image."""
        return self.images is not None and self.images[position] is not None

    @property
    def asked(self) -> Rows:
        """The rows as they are asked: the parts in the place of a text that was cut."""
        return self.long.asked if self.long else self

    def asked_as(self, asked: Rows) -> Rows:
        """Return the same rows, asked in this way."""
        return replace(self, long=replace(self.long, asked=asked)) if self.long else asked


@dataclass(frozen=True, slots=True, kw_only=True)
class LongRows:
    """What becomes of texts that are too long: asked in parts, or not at all.

    Parameters
    ----------
    parts : mapping
        The keys of its parts, in order, by the key of the whole text.
    refused : mapping
        Why a text is not sent, by its key.
    asked : Rows
        The rows as they are asked, one for each part.
    at : sequence of int
        For each of them the position of the row that it is of.
    merge : callable or None
        The user's own way from the parts' answers to the row's.
    merge_name : str
        What it is called; empty where there is none.
    """

    parts: Mapping[bytes, tuple[bytes, ...]]
    refused: Mapping[bytes, str]
    asked: Rows
    at: Sequence[int]
    merge: Merge | None = None
    merge_name: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Chunk:
    """The rows of one request: their positions, their ids on the wire, and the user message that holds them.

    ``images`` are the ids of the rows that have one, with it, in the order of their numbers.
    """

    positions: tuple[int, ...]
    wire_ids: tuple[str, ...]
    openings: tuple[str, ...]
    user: str
    tokens: int
    images: tuple[tuple[str, Image], ...] = ()

    def __len__(self) -> int:
        return len(self.positions)


def text_key(text: str, *, occurrence: int = 0, named_fields: bool = False, image: str = "") -> bytes:
    r"""Return the 16 bytes that stand for a text, and its image, in the store (the head of its SHA-256).

    Parameters
    ----------
    text : str
        The text as sent.
    occurrence : int
        0 for the first row with this text; k for its k-th repetition where repetitions are asked on their own.
    named_fields : bool
        Whether the text is the JSON of several named columns.
    image : str
        What the store calls the row's image (its SHA-256, or its web address); empty for none.

    Examples
    --------
    >>> text_key("a").hex() == text_key("a").hex() != text_key("a", occurrence=1).hex()
    True
    """
    digest = sha256(text.encode("utf-8", "surrogatepass")).digest()
    if occurrence or named_fields:
        # The mark goes beside the text's digest and not into the text, which could hold it itself.
        digest = sha256(b"%d\0%d\0" % (occurrence, named_fields) + digest).digest()
    if image:
        digest = sha256(b"image\0" + image.encode() + b"\0" + digest).digest()
    return digest[:16]


def text_keys(texts: Sequence[str | None], *, named_fields: bool = False) -> list[bytes]:
    """Return :func:`text_key` of many texts that hold no lone surrogates; empty where there is no text."""
    if named_fields:
        return [text_key(text, named_fields=True) if text is not None else b"" for text in texts]
    return [sha256(text.encode()).digest()[:16] if text is not None else b"" for text in texts]


def estimate_tokens(text: str) -> int:
    """Estimate a text's tokens as a quarter of its UTF-8 bytes; rough, and meant for budgets only."""
    return (len(text) if text.isascii() else len(text.encode("utf-8", "replace"))) // 4 + 1


def answer_json(answer: Mapping[str, Any]) -> str:
    """Return an answer as compact JSON text."""
    return _dumps(answer)


def chunk_positions(
    rows: Rows, positions: Sequence[int], *, size: int, token_budget: int, distinct_openings: bool = False
) -> Iterator[tuple[int, ...]]:
    """Cut positions into chunks of at most `size` rows and about `token_budget` tokens, in a fixed shuffled order.

    The shuffle (seed 42, as in the seed package) spreads long texts over the run. With `distinct_openings` rows that
    open with the same words never share a chunk, since an echo could not tell them apart.
    """
    order = list(positions)
    random.Random(SHUFFLE_SEED).shuffle(order)
    pending: list[int] = []
    openings: set[str] = set()
    tokens = n_passed = 0
    queue: Iterable[tuple[int, str]] = (
        (position, _opening(rows.texts[position] or "") if distinct_openings else "") for position in order
    )
    while True:
        waiting: list[tuple[int, str]] = []
        for position, opening in queue:
            is_taken = distinct_openings and opening in openings
            if is_taken and n_passed < LOOK_AHEAD:
                n_passed += 1
                waiting.append((position, opening))
                continue
            cost = estimate_tokens(rows.texts[position] or "")
            if is_taken or (pending and (len(pending) >= size or tokens + cost > token_budget)):
                yield tuple(pending)
                pending, openings, tokens, n_passed = [], set(), 0, 0
            pending.append(position)
            openings.add(opening)
            tokens += cost
        if pending:
            yield tuple(pending)
            pending, openings, tokens, n_passed = [], set(), 0, 0
        if not waiting:
            return
        queue = waiting


def make_chunk(rows: Rows, positions: Sequence[int], *, verify: bool = True) -> Chunk:
    """Pack rows into one user message: a JSON array of ``{"input_id", "input_text"}`` objects.

    Openings are drawn only with `verify`. A row that has an image names it by its number, see :mod:`lmsyz.images`.
    """
    wire_ids = _wire_ids(rows, positions)
    images: list[tuple[str, Image]] = []
    parts = []
    openings = []
    for position, wire_id in zip(positions, wire_ids, strict=True):
        text = rows.texts[position] or ""
        value = text if rows.named_fields else _dumps(text)
        named = ""
        if rows.images is not None and (image := rows.images[position]) is not None:
            images.append((wire_id, image))
            named = f',"{IMAGE_FIELD}":{len(images)}'
            value = value if text else "null"
        parts.append(f'{{"{ID_FIELD}":{_dumps(wire_id)},"{TEXT_FIELD}":{value}{named}}}')
        openings.append(_opening(text) if verify else "")
    user = "[" + ",".join(parts) + "]"
    return Chunk(
        positions=tuple(positions),
        wire_ids=wire_ids,
        openings=tuple(openings),
        user=user,
        tokens=estimate_tokens(user) + sum(image.tokens for _, image in images),
        images=tuple(images),
    )


# Made once: with options, json.dumps makes one at every call, which costs more than a row.
_dumps = json.JSONEncoder(ensure_ascii=False, separators=(",", ":")).encode


def _wire_ids(rows: Rows, positions: Sequence[int]) -> tuple[str, ...]:
    if rows.ids is not None:
        return tuple(rows.ids[p] for p in positions)
    tags = []
    seen: set[str] = set()
    for position in positions:
        tag = rows.keys[position].hex()
        n = 8
        while tag[:n] in seen:
            n += 4
        seen.add(tag[:n])
        tags.append(tag[:n])
    return tuple(tags)


def _opening(text: str) -> str:
    words = text[:400].split()[:OPENING_WORDS]
    if text[:400].isascii():
        return letters(" ".join(words))
    opening = ""
    for word in map(letters, words):
        if len(word) > UNSPACED_LETTERS and is_unspaced(word):
            return opening + word[:UNSPACED_LETTERS]
        opening += word
    return opening


def is_unspaced(opening: str) -> bool:
    """Whether an opening is of a script that may have no spaces between words, as Chinese: few letters have a case."""
    return sum(c.isalpha() and c.lower() == c.upper() for c in opening) > len(opening) // 2


def letters(text: str) -> str:
    """Return a text's letters and digits alone, in lower case, as openings are compared."""
    return "".join(c for c in folded(text) if c.isalnum())


def folded(text: str) -> str:
    """Return a text as texts are compared: case aside, and an accented letter the same as one character or as two."""
    return text.casefold() if text.isascii() else normalize("NFC", text.casefold())
