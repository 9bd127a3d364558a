"""Closed sets of values in a JSON Schema, ``enum`` and ``const``: of one type, each once, and within the bounds beside
them. Pure.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from lmsyz.schema_normal import CONSTRAINTS, NULL, Node, Path, refusal
from lmsyz.schema_rules import read_constraint, rule

__all__ = ["read_values", "values_node"]

_HINTS = ("format", "pattern")


def read_values(raw: Mapping[str, Any], types: list[str], path: Path) -> list[Node]:
    """Return the nodes of a closed set of values; null among them, or among the types, is one of its own."""
    values = raw["enum"] if "enum" in raw else [raw["const"]]
    if not isinstance(values, list) or not values:
        raise refusal(path, "has no allowed values", "List at least one.")
    if "enum" in raw and "const" in raw and [(type(v), v) for v in values] != [(type(raw["const"]), raw["const"])]:
        # The const alone holds; to read the enum would accept what it forbids.
        raise refusal(path, "has 'const' beside an 'enum' of other values", "Leave out the one that is not meant.")
    kept = [value for value in values if value is not None]
    # ["string", "null"] with an enum that forgets null means null all the same; to read it to the
    # letter would force the model to make a value up.
    may_be_null = len(kept) < len(values) or "null" in types
    core = [_closed(kept, [t for t in types if t != "null"], path)] if kept else []
    for node in core:
        _hold_to_bounds(node, raw, path)
    return [*core, NULL] if may_be_null else core


def _closed(values: list[Any], types: list[str], path: Path) -> Node:
    """Make the node of some non-null values, all of one type."""
    found = {_type_of(value) for value in values}
    name = "number" if found == {"integer", "number"} else next(iter(found)) if len(found) == 1 else None
    if name is None or name == "other":
        raise refusal(path, f"allows values of several kinds, {_some(values)}", "Write them all as text.")
    if types and name not in types and not (name == "integer" and "number" in types):
        raise refusal(path, f"has the type {types[0]!r} but allows {_some(values)}", "Make them agree.")
    if len(set(values)) < len(values):
        twice = next(value for value in values if values.count(value) > 1)
        raise refusal(path, f"allows {twice!r} twice", "List every value once.")
    return values_node(name, values)


def _hold_to_bounds(node: Node, raw: Mapping[str, Any], path: Path) -> None:
    """Refuse allowed values that a bound beside them forbids; format and pattern there are often no more than hints."""
    for keyword in CONSTRAINTS.get(node["type"], ()):
        if keyword not in raw or keyword in _HINTS or (bound := read_constraint(keyword, raw[keyword], path)) is None:
            continue
        holds, words = rule(keyword, bound) or (None, "")
        for value in node.get("enum", ()):
            if holds and not holds(value):
                raise refusal(path, f'allows {value!r}, which breaks its own rule "{words}"', "List only what fits.")


def values_node(name: str, values: list[Any]) -> Node:
    """Return the node of values of one type; both booleans together are no restriction."""
    is_plain = name == "boolean" and set(values) == {True, False}
    return {"type": name} if is_plain else {"type": name, "enum": values}


def _type_of(value: Any) -> str:
    """JSON's name for the type of a scalar."""
    if isinstance(value, float) and not math.isfinite(value):
        return "other"
    names = {str: "string", bool: "boolean", int: "integer", float: "number"}
    return names.get(type(value), "other")


def _some(values: list[Any]) -> str:
    """Show some values within a line."""
    shown = ", ".join(repr(value) for value in values[:4])
    return f"{shown[:80]}, ..." if len(values) > 4 or len(shown) > 80 else shown
