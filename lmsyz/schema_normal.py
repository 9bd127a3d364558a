"""The one small dialect of JSON Schema that lmsyz itself speaks, and the words for it. Pure.

A normal node is one of::

    {"type": "string" | "integer" | "number" | "boolean", constraints...}
    {"type": "string" | "integer" | "number" | "boolean", "enum": [values of that type]}
    {"type": "array", "items": node, constraints...}
    {"type": "object", "properties": {name: node}, "required": [names], "additionalProperties": False}
    {"anyOf": [node, ..., {"type": "null"}]}      null last; the only form in which null occurs
    {"$ref": "#/$defs/Name"}                      only to a definition that contains itself

each with an optional ``description`` at the outermost level. Keywords come in one fixed order and properties in the
order given, so that two equal schemas have one and the same JSON text. ``schema_reader`` reads any JSON Schema into it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from lmsyz.errors import UsageError

__all__ = [
    "CONSTRAINTS",
    "JSON_TYPES",
    "NULL",
    "Node",
    "Path",
    "constraint_words",
    "described",
    "nullable",
    "of_constraints",
    "reference_name",
    "refusal",
    "shorten",
    "show_path",
    "without_null",
]

Node = dict[str, Any]
Path = tuple[str, ...]  # field names from the row down; "[]" for a list's items, "|0" for a union's first choice

JSON_TYPES = ("string", "integer", "number", "boolean", "array", "object", "null")
NULL: Node = {"type": "null"}

_NUMERIC = ("minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum", "multipleOf")
CONSTRAINTS: Mapping[str, tuple[str, ...]] = {
    "string": ("format", "pattern", "minLength", "maxLength"),
    "integer": _NUMERIC,
    "number": _NUMERIC,
    "array": ("minItems", "maxItems", "uniqueItems"),
}

_WORDS: Mapping[str, str] = {
    "minimum": "at least {}",
    "maximum": "at most {}",
    "exclusiveMinimum": "more than {}",
    "exclusiveMaximum": "less than {}",
    "multipleOf": "a multiple of {}",
    "minLength": "at least {} characters long",
    "maxLength": "at most {} characters long",
    "pattern": "matching the pattern {}",
    "minItems": "with at least {} items",
    "maxItems": "with at most {} items",
    "uniqueItems": "with no item twice",
}
_FORMATS: Mapping[str, str] = {
    "date": "a date as YYYY-MM-DD",
    "date-time": "a date and time as YYYY-MM-DDThh:mm:ss",
    "time": "a time as hh:mm:ss",
}


def constraint_words(keyword: str, value: Any) -> str:
    """Say one constraint in words, for a prompt, a description or a reason.

    Examples
    --------
    >>> constraint_words("maximum", 5)
    'at most 5'
    """
    if keyword == "format":
        return _FORMATS.get(value, f"in the format {value}")
    words = _WORDS[keyword].format(value)
    return words.replace(" items", " item").replace(" characters", " character") if value == 1 else words


def of_constraints(node: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    """Go through a node's constraints, in their fixed order."""
    for keyword in CONSTRAINTS.get(node.get("type", ""), ()):
        if keyword in node:
            yield keyword, node[keyword]


def without_null(node: Mapping[str, Any]) -> tuple[Node, bool]:
    """Split a normal node into what it is when it is not null, with its description, and whether it may be null.

    Examples
    --------
    >>> without_null({"anyOf": [{"type": "string"}, {"type": "null"}]})
    ({'type': 'string'}, True)
    """
    choices = node.get("anyOf")
    if not choices or choices[-1] != NULL:
        return dict(node), False
    core = dict(choices[0]) if len(choices) == 2 else {"anyOf": choices[:-1]}
    return described(core, node.get("description")), True


def nullable(node: Node) -> Node:
    """Return a normal node that takes null as well, its description at the outermost level."""
    core, _ = without_null(node)
    said = core.pop("description", None)
    return described({"anyOf": [*core.get("anyOf", [core]), NULL]}, said)


def described(node: Node, description: str | None) -> Node:
    """Give a node this description, last among its keywords, or leave it the one it has."""
    if description is None:
        return node
    return {**{k: v for k, v in node.items() if k != "description"}, "description": description}


def reference_name(node: Mapping[str, Any]) -> str:
    """Return the name of the definition that a node refers to."""
    return str(node["$ref"]).rpartition("/")[2]


def show_path(path: Path) -> str:
    """Show where a node is, as a user would write it; empty for the row itself.

    Examples
    --------
    >>> show_path(("people", "[]", "name"))
    'people[].name'
    """
    shown = ""
    for step in path:
        if step == "[]":
            shown += step
        elif not step.startswith("|"):
            shown += f".{step}" if shown else step
    return shown


def refusal(path: Path, problem: str, instead: str) -> UsageError:
    """Make the error for a schema that cannot be used: where, what is wrong there, and what to type."""
    where = f"field {show_path(path)!r}" if show_path(path) else "the row"
    return UsageError(f"schema: {where} {problem}. {instead}")


def shorten(value: Any, n: int = 60) -> str:
    """Show a value within so many characters."""
    shown = repr(value)
    return shown if len(shown) <= n else f"{shown[: n - 1]}…"
