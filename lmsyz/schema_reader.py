"""Any JSON Schema a user may bring, read into the dialect of ``schema_normal``. Pure.

References are put in place; only a definition that contains itself stays one. Titles, defaults and examples are left
out, and so is every keyword that JSON Schema itself gives no meaning at that place. What strict output cannot express
is refused, with the field's name and what to write instead.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from typing import Any
from urllib.parse import unquote

from lmsyz.schema_normal import CONSTRAINTS, JSON_TYPES, NULL, Node, Path, described, refusal, shorten
from lmsyz.schema_rules import read_constraint
from lmsyz.schema_values import read_values, values_node

__all__ = ["normalise"]

Docs = tuple[Mapping[str, Any], ...]  # the enclosing documents that have definitions, innermost first

# What says nothing about which answers are right; it is left out, or read as the description.
_ANNOTATIONS = {
    *("title", "description", "default", "examples", "example", "deprecated", "readOnly", "writeOnly"),
    *("discriminator", "nullable", "strict", "$schema", "$id", "$comment", "$defs", "definitions"),
}
_BY_KEY = (
    "Name every key as a field and leave 'additionalProperties' out, or ask for a list of objects with the fields"
    " 'key' and 'value'."
)
_BY_POSITION = "Use a list of one type, or an object with one field for each position."
_IN_WORDS = "Leave it out and say the rule in the prompt or in the field's description."
_MERGED = "Write the merged schema out."
_REFUSED: Mapping[str, str] = {
    **dict.fromkeys(("patternProperties", "propertyNames", "minProperties", "maxProperties"), _BY_KEY),
    **dict.fromkeys(("unevaluatedProperties",), _BY_KEY),
    **dict.fromkeys(("prefixItems", "additionalItems", "unevaluatedItems"), _BY_POSITION),
    **dict.fromkeys(("contains", "minContains", "maxContains"), _IN_WORDS),
    **dict.fromkeys(("not", "if", "then", "else"), _IN_WORDS),
    **dict.fromkeys(("dependentRequired", "dependentSchemas", "dependencies"), _IN_WORDS),
    **dict.fromkeys(("$dynamicRef", "$recursiveRef"), "Use a local '$ref' into '$defs'."),
    "allOf": _MERGED,
}
_MEANINGFUL = (
    *("type", "enum", "const", "$ref", "anyOf", "oneOf", "properties", "required", "items", "additionalProperties"),
    *dict.fromkeys(keyword for keywords in CONSTRAINTS.values() for keyword in keywords),
)
_BOUNDS = (("minimum", "maximum"), ("minLength", "maxLength"), ("minItems", "maxItems"))
# Putting definitions in place may multiply them; both providers refuse far less than this.
_MAX_NODES = 20_000
_MAX_DEPTH = 50


def normalise(raw: Mapping[str, Any]) -> tuple[Node, dict[str, Node]]:
    """Read a JSON Schema document into the normal dialect.

    Parameters
    ----------
    raw : mapping
        A JSON Schema. Parts of it may carry ``$defs`` of their own.

    Returns
    -------
    tuple of dict and dict
        The normal node of the whole, and the definitions that contain themselves.

    Raises
    ------
    UsageError
        If it cannot be expressed in the strict mode of the providers; names the field.

    Examples
    --------
    >>> normalise({"type": ["string", "null"], "title": "Firm"})[0]
    {'anyOf': [{'type': 'string'}, {'type': 'null'}]}
    """
    reader = _Reader()
    return reader.node(raw, (), (raw,)), reader.defs


class _Reader:
    """One pass over one document."""

    def __init__(self) -> None:
        self.defs: dict[str, Node] = {}
        self._open: list[tuple[int, str]] = []  # the references being followed, outermost first
        self._names: dict[tuple[int, str], str] = {}  # those that contain themselves
        self._n_nodes = 0

    def node(self, raw: Any, path: Path, docs: Docs) -> Node:
        self._n_nodes += 1
        if self._n_nodes > _MAX_NODES:
            raise refusal(path, f"takes the schema over {_MAX_NODES:,} parts", "Ask for fewer fields at a time.")
        if len(path) + len(self._open) > _MAX_DEPTH:
            raise refusal(path, f"is nested more than {_MAX_DEPTH} deep", "Use a flatter shape.")
        if not isinstance(raw, Mapping):
            raise refusal(path, f"is {shorten(raw)}, no JSON Schema", 'Give it a type, such as {"type": "string"}.')
        if ("$defs" in raw or "definitions" in raw) and raw is not docs[0]:
            docs = (raw, *docs)
        raw = _single_all_of(raw, path)
        for keyword, instead in _REFUSED.items():
            if keyword in raw:
                raise refusal(path, f"uses '{keyword}', which strict output cannot express", instead)
        node = self._core(raw, path, docs)
        if raw.get("nullable") is True:  # OpenAPI 3.0's way
            node = _union([node, NULL])
        return described(node, _description(raw, path))

    def _core(self, raw: Mapping[str, Any], path: Path, docs: Docs) -> Node:
        for keyword in ("$ref", "anyOf", "oneOf"):
            if keyword in raw:
                beside = sorted(set(raw) - _ANNOTATIONS - {keyword})
                if beside:
                    problem = f"has {', '.join(map(repr, beside))} beside '{keyword}'"
                    raise refusal(path, problem, f"Move it into what '{keyword}' holds.")
                if keyword == "$ref":
                    return self._reference(raw["$ref"], path, docs)
                return self._choices(raw[keyword], path, docs)
        types = _types(raw, path)
        if "enum" in raw or "const" in raw:
            return _union(read_values(raw, types, path))
        return _union([self._typed(name, raw, path, docs) for name in types])

    def _choices(self, choices: Any, path: Path, docs: Docs) -> Node:
        if not isinstance(choices, list) or not choices:
            raise refusal(path, "has an empty list of choices", "Give at least one type.")
        return _union([self.node(each, (*path, f"|{i}"), docs) for i, each in enumerate(choices)])

    def _reference(self, pointer: Any, path: Path, docs: Docs) -> Node:
        docs, target = _resolve(pointer, path, docs)
        key = (id(docs[0]), pointer)
        if key in self._open:
            return {"$ref": f"#/$defs/{self._name(key)}"}
        self._open.append(key)
        node = self.node(target, path, docs)
        self._open.pop()
        if key in self._names:
            if "$ref" in node:
                raise refusal(path, "refers only to itself", "Give it a type.")
            self.defs[self._names[key]] = node
        return node

    def _name(self, key: tuple[int, str]) -> str:
        if key not in self._names:
            name = re.sub(r"\W", "_", key[1].rpartition("/")[2].strip("#")) or "Row"
            taken = set(self._names.values())
            self._names[key] = name if name not in taken else f"{name}_{len(taken)}"
        return self._names[key]

    def _typed(self, name: str, raw: Mapping[str, Any], path: Path, docs: Docs) -> Node:
        if name == "null":
            return NULL
        if name == "object":
            return self._object(raw, path, docs)
        node: Node = {"type": name}
        if name == "array":
            node["items"] = self._items(raw, path, docs)
        for keyword in CONSTRAINTS.get(name, ()):
            value = read_constraint(keyword, raw[keyword], path) if keyword in raw else None
            if value is not None:
                node[keyword] = value
        for least, most in _BOUNDS:
            if node.get(least, -math.inf) > node.get(most, math.inf):
                raise refusal(path, f"has {least} above {most}, so that no answer fits", "Correct them.")
        return node

    def _items(self, raw: Mapping[str, Any], path: Path, docs: Docs) -> Node:
        items = raw.get("items")
        if isinstance(items, list):
            raise refusal(path, "is a list with a type for each position", _BY_POSITION)
        if not items or items is True:
            raise refusal(path, "is a list of anything", "Say of what: [str], [float], [{...}].")
        node = self.node(items, (*path, "[]"), docs)
        if node.get("type") == "null":
            raise refusal(path, "is a list of nulls", "Say of what: [str], [float], [{...}].")
        return node

    def _object(self, raw: Mapping[str, Any], path: Path, docs: Docs) -> Node:
        properties, required = raw.get("properties"), raw.get("required", [])
        # Absent means closed here, as strict mode has it; JSON Schema's own default would be open.
        if raw.get("additionalProperties", False) is not False:
            raise refusal(path, "is an object with free keys", _BY_KEY)
        if not isinstance(properties, Mapping) or not properties:
            raise refusal(path, "is an object without fields", 'Name its fields, such as {"name": str}.')
        if not isinstance(required, list) or not all(isinstance(name, str) for name in required):
            raise refusal(path, f"has required: {shorten(required)}", "It must be a list of field names.")
        if not set(required) <= set(properties):
            unknown = next(name for name in required if name not in properties)
            raise refusal(path, f"requires {unknown!r}, which it does not have", "Correct 'required'.")
        nodes = {_key(name, path): self._property(name, each, path, docs) for name, each in properties.items()}
        wanted = [name for name in nodes if name in required]
        return {"type": "object", "properties": nodes, "required": wanted, "additionalProperties": False}

    def _property(self, name: str, raw: Any, path: Path, docs: Docs) -> Node:
        node = self.node(raw, (*path, name), docs)
        if node.get("type") == "null":
            raise refusal((*path, name), "is always null", "Give it a type, such as str.")
        return node


def _key(name: Any, path: Path) -> str:
    if not isinstance(name, str) or not name.strip():
        raise refusal(path, f"has a field named {name!r}", "Name every field with a word.")
    return name


def _single_all_of(raw: Mapping[str, Any], path: Path) -> Mapping[str, Any]:
    """Unwrap allOf with one member, which older pydantic writes around every reference."""
    parts = raw.get("allOf")
    if not isinstance(parts, list) or len(parts) != 1 or not isinstance(parts[0], Mapping):
        return raw
    # Both hold: where they differ, taking one alone would lose fields or bounds in silence.
    differ = [k for k in _MEANINGFUL if k in parts[0] and k in raw and raw[k] != parts[0][k]]
    if differ:
        raise refusal(path, f"has {differ[0]!r} both in 'allOf' and beside it", _MERGED)
    return {**parts[0], **{k: v for k, v in raw.items() if k != "allOf"}}


def _description(raw: Mapping[str, Any], path: Path) -> str | None:
    description = raw.get("description")
    if description is None or (isinstance(description, str) and not description.strip()):
        return None
    if not isinstance(description, str):
        raise refusal(path, f"has the description {shorten(description)}", "Write it as text.")
    return description.strip()


def _resolve(pointer: Any, path: Path, docs: Docs) -> tuple[Docs, Any]:
    """Find what a local reference names, in the nearest enclosing document that has it (then first)."""
    if not isinstance(pointer, str) or not (pointer == "#" or pointer.startswith("#/")):
        raise refusal(path, f"refers to {shorten(pointer)}, outside the schema", "Put the definition into '$defs'.")
    steps = [unquote(s).replace("~1", "/").replace("~0", "~") for s in pointer[1:].split("/")[1:]]
    for i, doc in enumerate(docs):
        target: Any = doc
        for step in steps:
            target = target.get(step) if isinstance(target, Mapping) else None
        if target is not None:
            return docs[i:], target
    raise refusal(path, f"refers to {pointer!r}, which is not there", "Add it to '$defs'.")


def _types(raw: Mapping[str, Any], path: Path) -> list[str]:
    """Read the type names of a node, guessing only where one keyword leaves no doubt."""
    given = raw.get("type")
    names: list[Any] = given if isinstance(given, list) else [given]
    if given is None:
        names = ["object"] if "properties" in raw else ["array"] if "items" in raw else []
    if not names and ("enum" in raw or "const" in raw):
        return []
    unknown = [name for name in names if name not in JSON_TYPES]
    if unknown:
        raise refusal(path, f"has the type {shorten(unknown[0])}", f"Use one of {', '.join(JSON_TYPES)}.")
    if not names:
        raise refusal(path, "has no type", "Give it one, such as str, or a list of the allowed values.")
    return names


# --- unions ------------------------------------------------------------------------------------------


def _union(nodes: list[Node]) -> Node:
    """Join nodes into one that allows what any of them allows: flat, without repeats, null last."""
    flat = [each for node in nodes for each in node.get("anyOf", [node])]
    may_be_null = any(each.get("type") == "null" for each in flat)
    core = _distinct([each for each in flat if each.get("type") != "null"])
    if not core:
        return NULL
    # One description for the whole: its own where a single type is left, otherwise that of a nested union.
    own = core[0].get("description") if len(core) == 1 else None
    said = next((node["description"] for node in nodes if "anyOf" in node and "description" in node), own)
    if len(core) == 1:
        alone = {k: v for k, v in core[0].items() if k != "description"}
        return described({"anyOf": [alone, NULL]} if may_be_null else alone, said)
    return described({"anyOf": [*core, NULL] if may_be_null else core}, said)


def _distinct(nodes: list[Node]) -> list[Node]:
    """Leave out what another choice says already: a repeat, an integer beside a number; join sets of values."""
    core = [each for i, each in enumerate(nodes) if each not in nodes[:i]]
    if {"type": "number"} in core:
        core = [each for each in core if each != {"type": "integer"}]
    kinds = {each.get("type") for each in core}
    if len(core) > 1 and len(kinds) == 1 and all(set(each) == {"type", "enum"} for each in core):
        values = list(dict.fromkeys(value for each in core for value in each["enum"]))
        return [values_node(core[0]["type"], values)]
    return core
