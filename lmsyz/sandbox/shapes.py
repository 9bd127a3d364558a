"""Checks a JSON value against a shape and reports the first fault, which each API then puts in its own words.

Small on purpose: what the providers' own request types say (fields, types, literals, bounds), and no more.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

__all__ = [
    "ANY",
    "Fault",
    "Shape",
    "array",
    "boolean",
    "either",
    "find_fault",
    "integer",
    "literal",
    "mapping",
    "maybe",
    "number",
    "obj",
    "string",
    "tagged",
]

Path = tuple[str | int, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Fault:
    """The first thing wrong with a value.

    Parameters
    ----------
    kind : str
        ``"unknown"``, ``"missing"``, ``"type"``, ``"value"``, ``"below"``, ``"above"``, ``"empty"``, ``"long"`` or
        ``"pattern"``.
    path : tuple
        Where.
    value : object
        What was given.
    shape : Shape
        What was expected.
    """

    kind: str
    path: Path
    value: Any
    shape: Shape


@dataclass(frozen=True, slots=True, kw_only=True)
class Shape:
    """What a JSON value must look like.

    Parameters
    ----------
    kind : str
        ``"string"``, ``"integer"``, ``"number"``, ``"boolean"``, ``"array"``, ``"object"``, ``"literal"``,
        ``"either"``, ``"tagged"`` or ``"any"``.
    nullable : bool
        Whether null will do.
    low, high : float or None
        Bounds of a number, or of the length of a string or array.
    values : tuple
        The literals allowed, or the tags.
    pattern : str
        What a string must match.
    fields : mapping
        An object's fields.
    required : tuple of str
        The fields that must be there.
    is_open : bool
        Whether an object may have other fields too.
    items : Shape or None
        An array's items, or the values of an open object.
    options : mapping
        For ``"either"`` a shape by JSON type; for ``"tagged"`` a shape by tag.
    tag : str
        The field that tells which of the options an object is.
    """

    kind: str
    nullable: bool = False
    low: float | None = None
    high: float | None = None
    values: tuple[Any, ...] = ()
    pattern: str = ""
    fields: Mapping[str, Shape] = field(default_factory=dict)
    required: tuple[str, ...] = ()
    is_open: bool = False
    items: Shape | None = None
    options: Mapping[str, Shape] = field(default_factory=dict)
    tag: str = ""


ANY = Shape(kind="any", nullable=True)


def string(*, low: int = 0, high: int | None = None, pattern: str = "") -> Shape:
    """Return the shape of a string with a length."""
    return Shape(kind="string", low=low, high=high, pattern=pattern)


def integer(low: int | None = None, high: int | None = None) -> Shape:
    """Return the shape of an integer within bounds."""
    return Shape(kind="integer", low=low, high=high)


def number(low: float | None = None, high: float | None = None) -> Shape:
    """Return the shape of a number within bounds."""
    return Shape(kind="number", low=low, high=high)


def boolean() -> Shape:
    """Return the shape of a boolean."""
    return Shape(kind="boolean")


def literal(*values: Any) -> Shape:
    """Return the shape of one of a few values."""
    return Shape(kind="literal", values=values)


def array(items: Shape, *, low: int = 0, high: int | None = None) -> Shape:
    """Return the shape of an array."""
    return Shape(kind="array", items=items, low=low, high=high)


def obj(required: str = "", /, **fields: Shape) -> Shape:
    """Return the shape of an object with these fields and no others; `required` names some, a space between."""
    return Shape(kind="object", fields=fields, required=tuple(required.split()))


def mapping(values: Shape | None = None, *, required: str = "") -> Shape:
    """Return the shape of an object with any fields, all of one shape."""
    return Shape(kind="object", is_open=True, items=values, required=tuple(required.split()))


def maybe(shape: Shape) -> Shape:
    """Return a shape that may also be null."""
    return dataclasses.replace(shape, nullable=True)


def either(*shapes: Shape) -> Shape:
    """Return a shape that is one of several, told apart by JSON type."""
    options = {"string" if s.kind == "literal" else "object" if s.kind == "tagged" else s.kind: s for s in shapes}
    return Shape(kind="either", options=options)


def tagged(tag: str, options: Mapping[str, Shape]) -> Shape:
    """Return the shape of an object whose field `tag` tells which of the options it is."""
    return Shape(kind="tagged", tag=tag, options=options, values=tuple(options))


_TYPES: Mapping[str, Callable[[Any], bool]] = {
    "string": lambda v: isinstance(v, str),
    "integer": lambda v: isinstance(v, int) and not isinstance(v, bool),
    "number": lambda v: isinstance(v, int | float) and not isinstance(v, bool),
    "boolean": lambda v: isinstance(v, bool),
    "array": lambda v: isinstance(v, list),
    "object": lambda v: isinstance(v, dict),
    "tagged": lambda v: isinstance(v, dict),
}


def find_fault(value: Any, shape: Shape, path: Path = ()) -> Fault | None:
    """Return the first fault of a value, None where it has the shape."""
    return next(_faults(value, shape, path), None)


def _faults(value: Any, shape: Shape, path: Path) -> Iterator[Fault]:
    def fault(kind: str, at: Path = path, found: Any = value, expected: Shape = shape) -> Fault:
        return Fault(kind=kind, path=at, value=found, shape=expected)

    if shape.kind == "any" or (value is None and shape.nullable):
        return
    if shape.kind == "literal":
        if not any(value == v and type(value) is type(v) for v in shape.values):
            yield fault("value")
        return
    if shape.kind == "either":
        fitting = next((s for s in shape.options.values() if _TYPES[_type_of(s)](value)), None)
        if fitting is None:
            yield fault("type")
        else:
            yield from _faults(value, fitting, path)
        return
    if not _TYPES[shape.kind](value):
        yield fault("type")
    elif shape.kind == "tagged":
        yield from _tagged_faults(value, shape, path)
    elif shape.kind == "object":
        yield from _object_faults(value, shape, path)
    else:
        yield from _size_faults(value, shape, path)
        if isinstance(value, list) and shape.items is not None:
            for i, item in enumerate(value):
                yield from _faults(item, shape.items, (*path, i))


def _type_of(shape: Shape) -> str:
    return "string" if shape.kind == "literal" else shape.kind


def _tagged_faults(value: Mapping[str, Any], shape: Shape, path: Path) -> Iterator[Fault]:
    if shape.tag not in value:
        yield Fault(kind="missing", path=(*path, shape.tag), value=None, shape=shape)
    elif value[shape.tag] not in shape.values:
        expected = literal(*shape.values)
        yield Fault(kind="value", path=(*path, shape.tag), value=value[shape.tag], shape=expected)
    else:
        yield from _faults(value, shape.options[value[shape.tag]], path)


def _object_faults(value: Mapping[str, Any], shape: Shape, path: Path) -> Iterator[Fault]:
    for name in shape.required:
        if name not in value:
            yield Fault(kind="missing", path=(*path, name), value=None, shape=shape.fields.get(name, ANY))
    for name, each in value.items():
        if name in shape.fields:
            yield from _faults(each, shape.fields[name], (*path, name))
        elif not shape.is_open:
            yield Fault(kind="unknown", path=(*path, name), value=each, shape=shape)
        elif shape.items is not None:
            yield from _faults(each, shape.items, (*path, name))


def _size_faults(value: Any, shape: Shape, path: Path) -> Iterator[Fault]:
    sized: str | Sequence[Any] | None = value if isinstance(value, str | list) else None
    size = len(sized) if sized is not None else value
    if isinstance(size, bool):
        return
    if shape.low is not None and size < shape.low:
        yield Fault(kind="below" if sized is None else "empty", path=path, value=value, shape=shape)
    if shape.high is not None and size > shape.high:
        yield Fault(kind="above" if sized is None else "long", path=path, value=value, shape=shape)
    if shape.pattern and isinstance(value, str) and not re.fullmatch(shape.pattern, value):
        yield Fault(kind="pattern", path=path, value=value, shape=shape)
