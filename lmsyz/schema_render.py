"""One row schema as each provider's own structured output wants it, an ``all_results`` envelope within limits. Pure.

The two differ in how a field may be left out. OpenAI's strict mode wants every property in ``required``, so what is
optional takes null instead. Claude lets 24 properties be absent and 16 be of more than one type, null among them, so
what is optional is spread over both. What a provider cannot enforce is said in the description; every answer is
validated here anyway. Limits as the providers documented them in November 2026.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Literal

from lmsyz.rows import ID_FIELD, OPENING_FIELD
from lmsyz.schema import ENVELOPE, RowSchema
from lmsyz.schema_normal import (
    Node,
    Path,
    constraint_words,
    described,
    nullable,
    of_constraints,
    reference_name,
    refusal,
    without_null,
)

__all__ = ["Target", "render"]

Target = Literal["openai", "anthropic"]

OPENAI_PROPERTIES, OPENAI_LEVELS, OPENAI_ENUM_VALUES, OPENAI_CHARACTERS = 5_000, 10, 1_000, 120_000
OPENAI_LONG_ENUM, OPENAI_LONG_ENUM_CHARACTERS = 250, 15_000
CLAUDE_OPTIONAL, CLAUDE_UNIONS = 24, 16

_FORMATS = frozenset(("date-time", "time", "date", "duration", "email", "hostname", "ipv4", "ipv6", "uuid"))
_CLAUDE_FORMATS = _FORMATS | {"uri"}
_OPENAI_BOUNDS = frozenset(
    ("minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum", "multipleOf", "minItems", "maxItems")
)
# Lookaround, named groups and references back are no regular language, so no grammar can hold a model to them.
_IRREGULAR = re.compile(r"\(\?(?!:)|\\[1-9]|\\k<")
_SPLIT = "Ask for some of the fields in a second call."


def render(schema: RowSchema | None, target: Target, *, verify: bool = False) -> dict[str, Any]:
    """Return the schema of a whole reply.

    It is made once for each schema, target and `verify`, and is to be read, not changed.

    Parameters
    ----------
    schema : RowSchema or None
        One row's answer; None asks for the ids alone.
    target : str
        ``"openai"`` or ``"anthropic"``.
    verify : bool
        Whether each row also repeats its opening words.

    Returns
    -------
    dict
        JSON Schema of ``{"all_results": [{"input_id": ..., <fields>}, ...]}``.

    Raises
    ------
    UsageError
        The schema is beyond the provider's limits; names the field that is.

    Examples
    --------
    >>> from lmsyz.schema import read_schema
    >>> rows = render(read_schema({"year": int | None}), "openai")["properties"]["all_results"]
    >>> rows["items"]["properties"]["year"]
    {'anyOf': [{'type': 'integer'}, {'type': 'null'}]}
    """
    return _render(schema, target, verify)


@lru_cache(maxsize=128)
def _render(schema: RowSchema | None, target: Target, verify: bool) -> dict[str, Any]:
    row: Node = schema.json_schema if schema else {"type": "object", "properties": {}, "required": []}
    own = {ID_FIELD: {"type": "string"}} | ({OPENING_FIELD: {"type": "string"}} if verify else {})
    full = {**row, "properties": own | row["properties"], "required": [*own, *row["required"]]}
    writer = _openai_writer() if target == "openai" else _claude_writer(full)
    envelope: Node = {
        "type": "object",
        "properties": {ENVELOPE: {"type": "array", "items": writer.value(full, ())}},
        "required": [ENVELOPE],
        "additionalProperties": False,
    }
    if "$defs" in row:
        envelope["$defs"] = {name: writer.value(node, (name,)) for name, node in row["$defs"].items()}
    if target == "openai":
        _hold_to_openai(envelope)
    return envelope


@dataclass(frozen=True, slots=True, kw_only=True)
class _Writer:
    """Turns normal nodes into a provider's own.

    Parameters
    ----------
    enforces : callable
        Whether the provider enforces a constraint, given its keyword and value.
    optional : callable
        Writes an optional property, given its node, its path and this writer: the node, and whether it is required.
    reference : callable
        Writes a reference, given its node and its path.
    """

    enforces: Callable[[str, Any], bool]
    optional: Callable[[Node, Path, _Writer], tuple[Node, bool]]
    reference: Callable[[Node, Path], Node]

    def value(self, node: Node, path: Path) -> Node:
        if "$ref" in node:
            return self.reference(node, path)
        if "anyOf" in node:
            core, may_be_null = without_null(node)
            if may_be_null:
                return nullable(self.value(core, path))
            return {**node, "anyOf": [self.value(n, (*path, f"|{i}")) for i, n in enumerate(node["anyOf"])]}
        if node["type"] == "object":
            return self._object(node, path)
        node = self._in_words(node)
        return {**node, "items": self.value(node["items"], (*path, "[]"))} if "items" in node else node

    def _object(self, node: Node, path: Path) -> Node:
        properties: dict[str, Node] = {}
        required = []
        for name, each in node["properties"].items():
            place = (*path, name)
            core, may_be_null = without_null(each)
            if may_be_null or name not in node["required"]:
                properties[name], is_required = self.optional(each if may_be_null else core, place, self)
            else:
                properties[name], is_required = self.value(each, place), True
            if is_required:
                required.append(name)
        shape = {"type": "object", "properties": properties, "required": required, "additionalProperties": False}
        return described(shape, node.get("description"))

    def _in_words(self, node: Node) -> Node:
        """Move what the provider cannot enforce into the description."""
        moved = {k: v for k, v in of_constraints(node) if not self.enforces(k, v)}
        if not moved:
            return node
        words = ", ".join(constraint_words(k, v) for k, v in moved.items())
        said = f"{node['description']} ({words})" if "description" in node else words[0].upper() + words[1:]
        return described({k: v for k, v in node.items() if k not in moved}, said)


# --- OpenAI ------------------------------------------------------------------------------------------


def _openai_writer() -> _Writer:
    return _Writer(enforces=_openai_enforces, optional=_null_instead, reference=_bare_reference)


def _openai_enforces(keyword: str, value: Any) -> bool:
    if keyword == "format":
        return value in _FORMATS
    if keyword == "pattern":
        return not _IRREGULAR.search(value)
    return keyword in _OPENAI_BOUNDS


def _null_instead(node: Node, path: Path, writer: _Writer) -> tuple[Node, bool]:
    return nullable(writer.value(without_null(node)[0], path)), True


def _bare_reference(node: Node, path: Path) -> Node:
    # A $ref may have no keyword beside it there, so a description stands around it.
    if "description" not in node:
        return node
    return {"anyOf": [{"$ref": node["$ref"]}], "description": node["description"]}


def _hold_to_openai(envelope: Node) -> None:
    """Refuse what is over the limits of strict mode, at the field that goes over."""
    n_properties = n_values = n_characters = 0
    for node, path, level in _openai_nodes(envelope):
        if level > OPENAI_LEVELS:
            instead = "Use a flatter shape; the reply's own object, list and row are three of the levels."
            raise refusal(path, f"is nested deeper than OpenAI's {OPENAI_LEVELS} levels", instead)
        names, values = list(node.get("properties", {})), node.get("enum", [])
        size = sum(len(str(value)) for value in values)
        if len(values) > OPENAI_LONG_ENUM and size > OPENAI_LONG_ENUM_CHARACTERS:
            problem = f"has {len(values):,} allowed values of {size:,} characters"
            limit = f"OpenAI takes {OPENAI_LONG_ENUM_CHARACTERS:,} where there are more than {OPENAI_LONG_ENUM} values"
            raise refusal(path, problem, f"{limit}; use shorter codes, or str.")
        n_properties += len(names)
        n_values += len(values)
        n_characters += size + sum(map(len, names)) + sum(map(len, node.get("$defs", ())))
        for n, most, what in (
            (n_properties, OPENAI_PROPERTIES, "properties"),
            (n_values, OPENAI_ENUM_VALUES, "allowed values"),
            (n_characters, OPENAI_CHARACTERS, "characters of names and allowed values"),
        ):
            if n > most:
                raise refusal(path, f"takes the schema to {n:,} {what}; OpenAI takes {most:,}", _SPLIT)


def _openai_nodes(envelope: Node) -> Iterator[tuple[Node, Path, int]]:
    """Go through a rendered schema: each node, its path from the row down, and its level among objects and lists."""
    yield envelope, (), 1
    row = envelope["properties"][ENVELOPE]["items"]
    yield from _nodes(row, (), 3)
    for name, node in envelope.get("$defs", {}).items():
        yield from _nodes(node, (name,), 2)


def _nodes(node: Node, path: Path, level: int) -> Iterator[tuple[Node, Path, int]]:
    yield node, path, level if node.get("type") in ("object", "array") else level - 1
    for i, each in enumerate(node.get("anyOf", ())):
        yield from _nodes(each, (*path, f"|{i}"), level)
    if "items" in node:
        yield from _nodes(node["items"], (*path, "[]"), level + 1)
    for name, each in node.get("properties", {}).items():
        yield from _nodes(each, (*path, name), level + 1)


# --- Anthropic ---------------------------------------------------------------------------------------


def _claude_writer(row: Node) -> _Writer:
    allowance = _Allowance(_own_unions(row))
    return _Writer(enforces=_claude_enforces, optional=allowance.optional, reference=_no_recursion)


def _claude_enforces(keyword: str, value: Any) -> bool:
    return value in _CLAUDE_FORMATS if keyword == "format" else keyword == "minItems" and value <= 1


def _no_recursion(node: Node, path: Path) -> Node:
    instead = "Write it out to the depth you need, ask for a flat list with a 'parent' field, or use another backend."
    raise refusal(
        path, f"contains itself ({reference_name(node)}), which Claude's structured output cannot express", instead
    )


class _Allowance:
    """What is left of Claude's optional and union-typed properties in one schema."""

    def __init__(self, n_unions: int) -> None:
        self._unions = CLAUDE_UNIONS - n_unions
        self._optional = CLAUDE_OPTIONAL

    def optional(self, node: Node, path: Path, writer: _Writer) -> tuple[Node, bool]:
        """Write an optional property: null in place while unions last if it has null, otherwise by leaving it out."""
        core, may_be_null = without_null(node)
        value = writer.value(core, path)
        if "anyOf" in core:  # counted already, and null costs nothing more
            return nullable(value), True
        if self._unions and (may_be_null or not self._optional):
            self._unions -= 1
            return nullable(value), True
        if self._optional:
            self._optional -= 1
            return value, False
        problem = (
            f"is one too many that may be null or absent: Claude takes {CLAUDE_OPTIONAL} optional fields and"
            f" {CLAUDE_UNIONS} of more than one type, null among them, in one schema"
        )
        raise refusal(path, problem, f"{_SPLIT} Or make some of them plain, without Optional.")


def _own_unions(row: Node) -> int:
    """Count what has more than one type whatever is done about null, and refuse more than Claude takes."""
    places = list(_unions(row, (), False))
    if len(places) > CLAUDE_UNIONS:
        problem = f"is one too many of more than one type: Claude takes {CLAUDE_UNIONS} in one schema"
        raise refusal(places[CLAUDE_UNIONS], problem, f"{_SPLIT} Or give it one type.")
    return len(places)


def _unions(node: Mapping[str, Any], path: Path, is_property: bool) -> Iterator[Path]:
    core, may_be_null = without_null(node)
    # A property that may be null can be left out instead; an item of a list cannot.
    if "anyOf" in core or (may_be_null and not is_property):
        yield path
    for i, each in enumerate(core.get("anyOf", ())):
        yield from _unions(each, (*path, f"|{i}"), False)
    if "items" in core:
        yield from _unions(core["items"], (*path, "[]"), False)
    for name, each in core.get("properties", {}).items():
        yield from _unions(each, (*path, name), True)
