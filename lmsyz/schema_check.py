"""Hold one answer against the row schema: validated, and coerced only where nothing can be lost. Pure.

Lossless coercions: ``1999.0`` becomes ``1999`` where an integer is asked, an integer becomes a float where a number is,
an enum's value in other letter case or with spaces around becomes the enum's own, an absent field that may be null
becomes null. Text is never read as a number. Fields that were not asked for are dropped.
"""

from __future__ import annotations

import math
import weakref
from collections.abc import Callable, Mapping
from typing import Any

from lmsyz.schema import Field, RowSchema

__all__ = ["InvalidAnswer", "check"]

SIMPLE_KEYWORDS = {"type", "enum", "description"}
Checker = Callable[[Any], Any]

_checkers: weakref.WeakKeyDictionary[RowSchema, dict[str, Checker]] = weakref.WeakKeyDictionary()


class InvalidAnswer(ValueError):
    """An answer does not fit the schema; the text says which field and how."""


def check(schema: RowSchema, answer: Mapping[str, Any]) -> dict[str, Any]:
    """Return an answer's fields, validated and coerced.

    Parameters
    ----------
    schema : RowSchema
        What was asked for.
    answer : mapping
        What came back for one row.

    Raises
    ------
    InvalidAnswer
        A field is missing or has a value that it cannot have.

    Examples
    --------
    >>> from lmsyz.schema import read_schema
    >>> check(read_schema({"year": int}), {"year": 1999.0, "note": "x"})
    {'year': 1999}
    """
    if schema.model is not None:
        return _by_model(schema, answer)
    checkers = _checkers.get(schema)
    if checkers is None:
        checkers = _checkers[schema] = {f.name: _checker(f) for f in schema.fields}
    out = {}
    for field in schema.fields:
        value = answer.get(field.name)
        if value is None:
            if not field.nullable:
                what = "is null" if field.name in answer else "is missing"
                raise InvalidAnswer(f"field {field.name!r} {what}")
            out[field.name] = None
            continue
        out[field.name] = checkers[field.name](value)
    return out


def _by_model(schema: RowSchema, answer: Mapping[str, Any]) -> dict[str, Any]:
    from pydantic import ValidationError

    given = {f.name: answer[f.name] for f in schema.fields if f.name in answer}
    for field in schema.fields:
        # Asked for as "or null" by a provider that knows no optional field: null means that it was left out.
        if given.get(field.name, 0) is None and not field.required:
            del given[field.name]
    try:
        model = schema.model.model_validate(given)
    except ValidationError as error:
        first = error.errors(include_input=False, include_url=False)[0]
        where = ".".join(str(part) for part in first["loc"]) or "the answer"
        raise InvalidAnswer(f"field {where!r}: {first['msg']}") from None
    dumped: dict[str, Any] = model.model_dump(mode="json", by_alias=True)
    return {f.name: dumped.get(f.name) for f in schema.fields}


def _checker(field: Field) -> Checker:
    name, node = field.name, field.schema
    if "enum" in node:
        return _enum_checker(name, node["enum"])
    simple = SIMPLE.get(str(node.get("type"))) if set(node) <= SIMPLE_KEYWORDS else None
    if simple is not None:
        return lambda value: simple(name, value)
    return _schema_checker(name, node)


def _string(name: str, value: Any) -> str:
    if not isinstance(value, str):
        raise _wrong(name, value, "text")
    return value


def _integer(name: str, value: Any) -> int:
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise _wrong(name, value, "a whole number")
    if isinstance(value, float):
        if not math.isfinite(value) or value != int(value):
            raise _wrong(name, value, "a whole number")
        return int(value)
    return value


def _number(name: str, value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise _wrong(name, value, "a number")
    try:
        number = float(value)
    except OverflowError:
        raise _wrong(name, value, "a number that fits") from None
    if not math.isfinite(number):
        raise _wrong(name, value, "a finite number")
    return number


def _boolean(name: str, value: Any) -> bool:
    if not isinstance(value, bool):
        raise _wrong(name, value, "true or false")
    return value


SIMPLE: dict[str, Callable[[str, Any], Any]] = {
    "string": _string,
    "integer": _integer,
    "number": _number,
    "boolean": _boolean,
}


def _enum_checker(name: str, values: list[Any]) -> Checker:
    exact = {(type(v) if isinstance(v, bool) else None, v): v for v in values}
    folded: dict[str, list[str]] = {}
    for value in values:
        if isinstance(value, str):
            folded.setdefault(value.strip().casefold(), []).append(value)

    def check_enum(value: Any) -> Any:
        if isinstance(value, (str, int, float)):
            found = exact.get((type(value) if isinstance(value, bool) else None, value))
            if found is not None:
                return found
        near = folded.get(value.strip().casefold(), []) if isinstance(value, str) else []
        if len(near) == 1:
            return near[0]
        raise _wrong(name, value, f"one of {values!r:.80}")

    return check_enum


def _schema_checker(name: str, node: Mapping[str, Any]) -> Checker:
    from jsonschema import Draft202012Validator

    validator = Draft202012Validator(node)

    def check_schema(value: Any) -> Any:
        value = _coerce(value, node)
        error = next(validator.iter_errors(value), None)
        if error is not None:
            where = "".join(f"[{p!r}]" for p in error.absolute_path)
            raise InvalidAnswer(f"field {name!r}{where}: {error.message:.120}")
        return value

    return check_schema


def _coerce(value: Any, node: Mapping[str, Any]) -> Any:
    """Turn whole floats into integers, numbers into floats and near enum values into the enum's own, at any depth."""
    if "anyOf" in node:
        return value
    if "enum" in node:
        try:
            return _enum_checker("", node["enum"])(value)
        except InvalidAnswer:
            return value
    kind = node.get("type")
    if kind == "array" and isinstance(value, list):
        return [_coerce(v, node["items"]) for v in value]
    if kind == "object" and isinstance(value, Mapping):
        known = node["properties"]
        return {k: _coerce(v, known[k]) for k, v in value.items() if k in known and not _left_out(k, v, node)}
    if kind == "integer" and isinstance(value, float) and math.isfinite(value) and value == int(value):
        return int(value)
    return value


def _left_out(key: str, value: Any, node: Mapping[str, Any]) -> bool:
    return value is None and key not in node.get("required", [])


def _wrong(name: str, value: Any, wanted: str) -> InvalidAnswer:
    shown = repr(value)
    return InvalidAnswer(f"field {name!r} is {shown if len(shown) <= 40 else shown[:39] + '…'}, not {wanted}")
