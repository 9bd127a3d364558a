"""One answer from the answers to a text's parts, by rules that are the same every time. Pure.

Field by field, null where every part says null: of lists, all entries in the parts' order and none twice; of yes and
no, yes where any part says yes; of objects, the same field by field; of all else (words of a list, texts, numbers) the
value that most parts give, of equally many the earliest part's. A part's null never outweighs another part's value.
A row has an answer only once all its parts have one.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from lmsyz.errors import UsageError
from lmsyz.rows import LongRows, Rows, answer_json
from lmsyz.schema import RowSchema
from lmsyz.schema_check import InvalidAnswer, check
from lmsyz.task import canonical_json

__all__ = ["invalid_merges", "merge_answers", "merged"]


def merge_answers(answers: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Return one answer from the answers to a text's parts.

    Parameters
    ----------
    answers : sequence of mappings
        In the order of the parts.

    Returns
    -------
    dict

    Examples
    --------
    >>> merge_answers([{"tone": None, "who": ["A"], "risk": True}, {"tone": "bad", "who": ["B", "A"], "risk": False}])
    {'tone': 'bad', 'who': ['A', 'B'], 'risk': True}
    """
    names = dict.fromkeys(name for answer in answers for name in answer)
    return {name: _merge_values([answer.get(name) for answer in answers]) for name in names}


def merged(
    rows: Rows, answers: Mapping[bytes, str], failures: Mapping[bytes, str], schema: RowSchema | None
) -> tuple[Mapping[bytes, str], Mapping[bytes, str]]:
    """Return answers and reasons by the keys of whole texts, where some were asked in parts or not at all.

    Parameters
    ----------
    rows : Rows
        Of the frame.
    answers, failures : mapping
        By the keys of texts as they were asked.
    schema : RowSchema or None
        What a merged answer is held against.

    Returns
    -------
    tuple of mappings

    Raises
    ------
    UsageError
        The answers are merged by a function of the user's own that is not here.
    """
    long = rows.long
    if long is None:
        return answers, failures
    answers, failures = dict(answers), {**long.refused, **failures}
    if long.parts and long.merge_name and long.merge is None:
        raise UsageError(
            f"the answers to parts of texts are merged by your function {long.merge_name}, whose code is not on disk:"
            f" lmsyz.BatchJob.load(..., merge={long.merge_name})"
        )
    for whole, parts in long.parts.items():
        if all(part in answers for part in parts):
            try:
                answers[whole] = _merge(long, [json.loads(answers[part]) for part in parts], schema)
            except InvalidAnswer as error:
                failures[whole] = f"invalid: the parts' merged answer: {error}" + _shown(error)
        elif reason := _reason(parts, answers, failures):
            failures[whole] = reason
    return answers, failures


def invalid_merges(rows: Rows, answers: Mapping[bytes, str], schema: RowSchema | None) -> dict[str, list[int]]:
    """Return the positions in the frame of rows whose parts are all answered, but not well together, by the reason.

    Parameters
    ----------
    rows : Rows
        Of the frame.
    answers : mapping
        By the keys of texts as they were asked.
    schema : RowSchema or None
        What a merged answer is held against.

    Returns
    -------
    dict
        Empty also where the answers are merged by a function of the user's own that is not here.
    """
    long, found = rows.long, dict[str, list[int]]()
    if long is None or not long.parts or (long.merge_name and long.merge is None):
        return found
    whole, failures = merged(rows, answers, {}, schema)
    for position, key in enumerate(rows.keys):
        if key in long.parts and key in failures and key not in whole:
            found.setdefault(failures[key], []).append(position)
    return found


def _merge(long: LongRows, answers: list[dict[str, Any]], schema: RowSchema | None) -> str:
    if long.merge is None:
        one = merge_answers(answers)
        # What a pydantic model made of each part need not be what it would take in again.
        return answer_json(check(schema, one) if schema and schema.model is None else one)
    try:
        own = long.merge(answers)
    except Exception as error:  # whatever the user's code raises is about this row, and the others go on
        raise InvalidAnswer(f"merge= raised {type(error).__name__}", str(error)) from error
    if not isinstance(own, Mapping):
        raise InvalidAnswer(f"merge= returned {type(own).__name__}, not a dict")
    checked = check(schema, own) if schema else dict(own)
    try:
        return answer_json(checked)
    except (TypeError, ValueError) as error:
        raise InvalidAnswer(f"merge= returned what is no JSON ({error})") from error


def _reason(parts: Sequence[bytes], answers: Mapping[bytes, str], failures: Mapping[bytes, str]) -> str:
    """Return why a row in parts has no answer, by its first part that failed; empty while parts are on their way."""
    for n, part in enumerate(parts, 1):
        if part not in answers and part in failures:
            word, _, rest = failures[part].partition(": ")
            return f"{word}: part {n} of {len(parts)}: {rest}"
    return ""


def _merge_values(values: Sequence[Any]) -> Any:
    known = [value for value in values if value is not None]
    if not known:
        return None
    if all(isinstance(value, bool) for value in known):
        return any(known)
    if all(isinstance(value, list) for value in known):
        return _without_repeats(entry for value in known for entry in value)
    if all(isinstance(value, dict) for value in known):
        return merge_answers(known)
    texts = [canonical_json(value) for value in known]
    counts = Counter(texts)  # in the order of the parts, so that of equals the earliest is the largest
    return known[texts.index(max(counts, key=counts.__getitem__))]


def _without_repeats(entries: Iterable[Any]) -> list[Any]:
    first: dict[str, Any] = {}
    for entry in entries:
        first.setdefault(canonical_json(entry), entry)
    return list(first.values())


def _shown(error: InvalidAnswer) -> str:
    return f" (got {error.shown})" if error.shown else ""
