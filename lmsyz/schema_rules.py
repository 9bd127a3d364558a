"""The constraints of a schema: read when it is, and tested on every answer. Pure."""

from __future__ import annotations

import ipaddress
import json
import math
import operator
import re
import uuid
from collections.abc import Callable, Mapping
from datetime import date, datetime, time
from fractions import Fraction
from typing import Any

from lmsyz.schema_normal import Path, constraint_words, refusal, shorten

__all__ = ["Rule", "read_constraint", "rule"]

Rule = tuple[Callable[[Any], bool], str]  # whether a value holds to it, and the rule in words


def read_constraint(keyword: str, value: Any, path: Path) -> Any:
    """Check and normalise one constraint's value; None where it constrains nothing."""
    is_good, wanted = _VALUES.get(keyword, (_is_number, "a number"))
    if not is_good(value):
        raise refusal(path, f"has {keyword} {shorten(value)}", f"It must be {wanted}.")
    if keyword == "uniqueItems" or (keyword in ("minLength", "minItems") and not value):
        return value or None
    return int(value) if isinstance(value, float) and value.is_integer() else value


def _is_number(value: Any) -> bool:
    return (isinstance(value, int) and not isinstance(value, bool)) or (
        isinstance(value, float) and math.isfinite(value)
    )


def _is_count(value: Any) -> bool:
    return _is_number(value) and value >= 0 and int(value) == value


def _is_pattern(value: Any) -> bool:
    try:
        return isinstance(value, str) and re.compile(value) is not None
    except (re.error, OverflowError, RecursionError):
        return False


_VALUES: Mapping[str, tuple[Callable[[Any], bool], str]] = {
    "format": (lambda value: isinstance(value, str) and bool(value.strip()), "text"),
    "pattern": (_is_pattern, "a regular expression"),
    "multipleOf": (lambda value: _is_number(value) and value > 0, "a number above 0"),
    "uniqueItems": (lambda value: isinstance(value, bool), "true or false"),
    **dict.fromkeys(("minLength", "maxLength", "minItems", "maxItems"), (_is_count, "a whole number from 0")),
}


def rule(keyword: str, bound: Any) -> Rule | None:
    """Make the test of one constraint; None for a format that is not checked."""
    words = constraint_words(keyword, bound)
    if keyword in _ORDER:
        compare = _ORDER[keyword]
        return lambda value: compare(value, bound), words
    if keyword in _SIZE:
        compare = _SIZE[keyword]
        return lambda value: compare(len(value), bound), words
    if keyword == "multipleOf":
        # By the digits as written, where 0.3 is three times 0.1; a Decimal has no remainder beyond 28 of them.
        step = Fraction(str(bound))
        return lambda value: Fraction(str(value)) % step == 0, words
    if keyword == "uniqueItems":
        return _is_unique, words
    if keyword == "pattern":
        search = re.compile(bound).search
        return lambda value: search(value) is not None, words
    read = _FORMATS.get(bound)
    return (lambda value: _reads(read, value), words) if read else None


_ORDER: Mapping[str, Callable[[Any, Any], bool]] = {
    "minimum": operator.ge,
    "maximum": operator.le,
    "exclusiveMinimum": operator.gt,
    "exclusiveMaximum": operator.lt,
}
_SIZE: Mapping[str, Callable[[Any, Any], bool]] = {
    "minLength": operator.ge,
    "maxLength": operator.le,
    "minItems": operator.ge,
    "maxItems": operator.le,
}


def _is_unique(items: list[Any]) -> bool:
    return len({json.dumps(each, sort_keys=True) for each in items}) == len(items)


def _reads(read: Callable[[str], Any], value: str) -> bool:
    try:
        read(value)
    except ValueError:
        return False
    return True


def _date(text: str) -> None:
    # 20240131 and 2024-W05-3 are ISO 8601 too, but no YYYY-MM-DD.
    if date.fromisoformat(text).isoformat() != text:
        raise ValueError


def _date_time(text: str) -> None:
    _date(text[:10])
    datetime.fromisoformat(text)
    if len(text) < 16:
        raise ValueError


def _time(text: str) -> None:
    time.fromisoformat(text)
    if text[2:3] != ":":  # 09 and 0930 are ISO 8601 too, but tell no hh:mm
        raise ValueError


def _email(text: str) -> None:
    name, at, host = text.rpartition("@")
    if not (name and at and host) or " " in text:
        raise ValueError


_FORMATS: Mapping[str, Callable[[str], Any]] = {
    "date": _date,
    "date-time": _date_time,
    "time": _time,
    "uuid": uuid.UUID,
    "ipv4": ipaddress.IPv4Address,
    "ipv6": ipaddress.IPv6Address,
    "email": _email,
}
