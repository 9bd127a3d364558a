"""The way back from a reply to its rows. Pure.

A reply is distrusted: an answer under an id that was not asked (foreign), or under an id that comes twice
(duplicate), is never assigned; with ``verify`` an answer whose ``input_opening`` fits another row better than its
own (swapped) is not either.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from difflib import SequenceMatcher
from typing import Any
from unicodedata import normalize

from lmsyz.errors import MalformedError
from lmsyz.rows import ID_FIELD, OPENING_FIELD, Chunk, is_unspaced, letters

__all__ = ["Alignment", "align", "read_results", "salvage_results"]

ENVELOPE_KEYS = ("all_results", "results", "all results")
ALIKE = 0.8  # an echo this close to its own row's opening, and closer than to any other row's, fits


@dataclass(frozen=True, slots=True, kw_only=True)
class Alignment:
    """Which answers of a reply belong to which rows of the chunk, by position, and what did not fit."""

    answers: dict[int, Mapping[str, Any]]
    missing: tuple[int, ...]
    duplicated: tuple[int, ...]
    swapped: tuple[int, ...]
    foreign: tuple[str, ...]


def align(results: Sequence[object], chunk: Chunk, *, verify: bool = False) -> Alignment:
    """Match a reply's results to the rows of the chunk by their ids.

    Parameters
    ----------
    results : sequence
        The reply's list; whatever is not an object with a known id is foreign.
    chunk : Chunk
        The rows that were asked.
    verify : bool
        Also hold each answer's ``input_opening`` against its row; not for a chunk of one, which has no other row.

    Returns
    -------
    Alignment
        Matched answers without ``input_id`` and ``input_opening``, and what was missing, duplicated, swapped, foreign.
    """
    by_id = dict(zip(chunk.wire_ids, range(len(chunk)), strict=True))
    found: dict[int, Mapping[str, Any]] = {}
    foreign: list[str] = []
    counts: Counter[int] = Counter()
    for result in results:
        index = _index_of(result, by_id, alone=len(chunk) == 1 == len(results))
        if index is None or not isinstance(result, Mapping):
            foreign.append(_id_of(result))
            continue
        counts[index] += 1
        found[index] = result
    duplicated = {i for i, n in counts.items() if n > 1}
    swapped = set()
    if verify and len(chunk) > 1:
        swapped = {i for i, result in found.items() if i not in duplicated and not _fits(result, i, chunk)}
    at = chunk.positions
    own = (ID_FIELD, OPENING_FIELD)
    return Alignment(
        answers={
            at[i]: {k: v for k, v in result.items() if k not in own}
            for i, result in found.items()
            if i not in duplicated and i not in swapped
        },
        missing=tuple(at[i] for i in range(len(chunk)) if i not in found),
        duplicated=tuple(at[i] for i in sorted(duplicated)),
        swapped=tuple(at[i] for i in sorted(swapped)),
        foreign=tuple(foreign),
    )


def read_results(text: str) -> list[Any]:
    """Read the list of results out of a complete reply.

    Strict JSON first; then the same within a code fence, after a ``<think>`` block, or as the outermost object in
    prose. Nothing is repaired: a reply that is cut or broken is a :class:`MalformedError`.

    Examples
    --------
    >>> read_results('```json\\n{"all_results": [{"input_id": "1"}]}\\n```')
    [{'input_id': '1'}]
    """
    try:
        return _results_of(_loads(text))
    except ValueError:
        pass
    body = text.rpartition("</think>")[2]
    if body.lstrip().startswith("<think>"):
        raise MalformedError(f"the reply stopped while the model was thinking (got {_shorten(text)!r})")
    starts = [i for i in (body.find("{"), body.find("[")) if i >= 0]
    end = max(body.rfind("}"), body.rfind("]"))
    if not starts or end < min(starts):
        raise MalformedError(f"the reply holds no JSON (got {_shorten(text)!r})")
    try:
        return _results_of(_loads(body[min(starts) : end + 1]))
    except ValueError as error:
        # Without the place of the error, which differs from reply to reply: equal causes are counted together.
        why = getattr(error, "msg", error)
        raise MalformedError(f"the reply is not valid JSON: {why} (got {_shorten(text)!r})") from error


def salvage_results(text: str) -> list[Any]:
    """Return the results of a cut reply that were complete before the cut; what follows is never repaired.

    Examples
    --------
    >>> salvage_results('{"all_results": [{"input_id": "1", "n": 3}, {"input_id": "2", "n": 4')
    [{'input_id': '1', 'n': 3}]
    """
    # What a model thinks is a draft, and one that never stopped thinking has answered nothing.
    text = text.rpartition("</think>")[2]
    if "<think>" in text:
        return []
    results: list[Any] = []
    at = 0
    while (start := _next_list(text, at)) >= 0:
        # Of several lists the last one counts: those before it were drafts.
        results, at = _whole_results(text, start)
    return results


def _next_list(text: str, at: int) -> int:
    """Return where the next list of results begins, -1 where there is none."""
    starts = [found for found in (text.find(f'"{key}"', at) for key in ENVELOPE_KEYS) if found >= 0]
    return text.find("[", min(starts)) if starts else -1


def _whole_results(text: str, start: int) -> tuple[list[Any], int]:
    """Return the whole results of a list, and where it ends: at its bracket, or where the text is cut or broken."""
    results: list[Any] = []
    at = start + 1
    while True:
        while at < len(text) and text[at] in " \t\r\n,":
            at += 1
        if at >= len(text) or text[at] != "{":
            return results, at if text[at : at + 1] == "]" else len(text)
        try:
            value, at = _decoder.raw_decode(text, at)
        except (ValueError, RecursionError):
            return results, len(text)
        results.append(value)


def _results_of(payload: object) -> list[Any]:
    if isinstance(payload, list):
        return payload
    if not isinstance(payload, dict):
        raise ValueError("not an object")
    for key in ENVELOPE_KEYS:
        rows = payload.get(key)
        if isinstance(rows, list):
            return rows
        if isinstance(rows, dict):
            return [rows]
    if ID_FIELD in payload:
        return [payload]
    raise ValueError('no "all_results" list')


def _loads(text: str) -> object:
    try:
        return _decoder.decode(text)
    except RecursionError as error:
        raise ValueError("nested too deeply") from error


def _refuse_constant(name: str) -> object:
    raise ValueError(f"{name} is not JSON")


# Made once: with options, json.loads makes one at every call, which costs more than a row.
_decoder = json.JSONDecoder(parse_constant=_refuse_constant)


def _index_of(result: object, by_id: Mapping[str, int], *, alone: bool) -> int | None:
    if not isinstance(result, Mapping):
        return None
    wire_id = result.get(ID_FIELD)
    if wire_id is None:
        # One row asked and one answer back with no id at all: there is no other row it could belong to.
        return 0 if alone else None
    if isinstance(wire_id, bool) or not isinstance(wire_id, (str, int, float)):
        return None
    index = by_id.get(str(wire_id))
    return _alike(str(wire_id), by_id) if index is None else index


def _alike(wire_id: str, by_id: Mapping[str, int]) -> int | None:
    """Return the one row whose id this is in another Unicode form, as a file's name may have; None for none or two."""
    if wire_id.isascii():
        return None
    found = [index for known, index in by_id.items() if normalize("NFC", known) == normalize("NFC", wire_id)]
    return found[0] if len(found) == 1 else None


def _id_of(result: object) -> str:
    return _shorten(str(result.get(ID_FIELD))) if isinstance(result, Mapping) else type(result).__name__


def _fits(result: Mapping[str, Any], index: int, chunk: Chunk) -> bool:
    echo = letters(str(result.get(OPENING_FIELD) or ""))[:200]
    own = chunk.openings[index]
    if echo != own and is_unspaced(own):
        # What eight words are is then the model's to judge, and it may copy a whole sentence.
        echo = echo[: 2 * len(own)]
    others = [o for i, o in enumerate(chunk.openings) if i != index]
    if echo == own:
        return own not in others
    likeness = _likeness(echo, own)
    return likeness >= ALIKE and all(likeness > _likeness(echo, other) for other in others)


def _likeness(a: str, b: str) -> float:
    # A model that copies a word more or less still names its row, so only the shorter length is compared.
    n = min(len(a), len(b))
    if not n:
        return 0.0
    return SequenceMatcher(None, a[:n], b[:n], autojunk=False).ratio() * min(1.0, n / (0.5 * max(len(a), len(b))))


def _shorten(text: str, n: int = 80) -> str:
    return text if len(text) <= n else text[: n - 1] + "…"
