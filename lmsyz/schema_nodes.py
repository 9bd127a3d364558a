"""JSON Schema nodes brought to the few keywords that both providers can enforce. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from lmsyz.errors import UsageError

__all__ = ["Node", "normalize", "nullable", "split_null"]

Node = dict[str, Any]

KEPT = (
    "description",
    "format",
    "pattern",
    "minimum",
    "maximum",
    "exclusiveMinimum",
    "exclusiveMaximum",
    "multipleOf",
    "minLength",
    "maxLength",
    "minItems",
    "maxItems",
)
DROPPED = {
    "title",
    "default",
    "examples",
    "example",
    "$schema",
    "$id",
    "$comment",
    "$defs",
    "definitions",
    "strict",
}
REFUSED = {
    "not": "say what is allowed instead",
    "if": "split it into fields of their own",
    "then": "split it into fields of their own",
    "else": "split it into fields of their own",
    "dependentRequired": "make the fields Optional",
    "dependentSchemas": "make the fields Optional",
    "patternProperties": "name the fields, or ask for a list of {'name': str, 'value': ...}",
    "prefixItems": "ask for an object with named fields",
}
TYPES = {"string", "integer", "number", "boolean", "null", "array", "object"}


def normalize(source: Mapping[str, Any], path: str = "schema") -> Node:
    """Return a node with references inlined, unions as ``anyOf``, and only keywords that can be asked for strictly.

    Raises
    ------
    UsageError
        A keyword cannot be asked for; its place and what to type instead are named.
    """
    defs = {**source.get("definitions", {}), **source.get("$defs", {})}
    return _node(source, path, defs, ())


def split_null(node: Node) -> tuple[Node, bool]:
    """Return a node without its null, and whether it had one.

    Examples
    --------
    >>> split_null({"anyOf": [{"type": "string"}, {"type": "null"}]})
    ({'type': 'string'}, True)
    """
    options = node.get("anyOf")
    if not options:
        return node, False
    rest = [o for o in options if o.get("type") != "null"]
    if len(rest) == len(options):
        return node, False
    outer = {k: v for k, v in node.items() if k != "anyOf"}
    return (rest[0] | outer if len(rest) == 1 else outer | {"anyOf": rest}), True


def nullable(node: Node) -> Node:
    """Return a node that also takes null."""
    if split_null(node)[1]:
        return node
    if set(node) <= {"anyOf", "description"} and "anyOf" in node:
        return node | {"anyOf": [*node["anyOf"], {"type": "null"}]}
    inner = {k: v for k, v in node.items() if k != "description"}
    outer = {"description": node["description"]} if "description" in node else {}
    return outer | {"anyOf": [inner, {"type": "null"}]}


def _node(source: Any, path: str, defs: Mapping[str, Any], seen: tuple[str, ...]) -> Node:
    if not isinstance(source, Mapping):
        raise UsageError(f"{path}: a JSON Schema is an object, got {source!r:.60}")
    if "$ref" in source:
        return _reference(source, path, defs, seen)
    source = _merged(source, path)
    for keyword, advice in REFUSED.items():
        if keyword in source:
            raise UsageError(f"{path}: {keyword!r} cannot be asked for strictly; {advice}")
    kept = {k: source[k] for k in KEPT if k in source}
    if "enum" in source or "const" in source:
        return _enumeration(source, path, kept)
    options = source.get("anyOf") or source.get("oneOf")
    if options:
        return kept | {"anyOf": _union(options, path, defs, seen)}
    kind = source.get("type")
    if isinstance(kind, list):
        options = [{**source, "type": k} if k != "null" else {"type": "null"} for k in kind]
        return _union_or_one(options, path, defs, seen)
    if kind not in TYPES:
        raise UsageError(f"{path} has no type that can be asked for ({kind!r}); use one of {sorted(TYPES)}")
    if kind == "array":
        if "items" not in source:
            raise UsageError(f"{path}: an array needs items, as in [str]")
        return {"type": "array", "items": _node(source["items"], f"{path}[]", defs, seen)} | kept
    if kind == "object":
        return _object(source, path, defs, seen) | kept
    return {"type": kind} | kept


def _merged(source: Mapping[str, Any], path: str) -> Mapping[str, Any]:
    """Pydantic wraps a single reference into ``allOf``; more than one cannot be asked for."""
    if "allOf" not in source:
        return source
    parts = source["allOf"]
    if len(parts) != 1:
        raise UsageError(f"{path}: 'allOf' cannot be asked for strictly; write the merged object out")
    return {k: v for k, v in source.items() if k != "allOf"} | dict(parts[0])


def _reference(source: Mapping[str, Any], path: str, defs: Mapping[str, Any], seen: tuple[str, ...]) -> Node:
    ref = str(source["$ref"])
    name = ref.rpartition("/")[2]
    if not ref.startswith("#/") or name not in defs:
        raise UsageError(f"{path}: reference {ref!r} is not among the schema's own $defs")
    if name in seen:
        raise UsageError(
            f"{path}: {name!r} contains itself, which cannot be asked for; unroll it to a fixed depth"
        )
    node = _node(defs[name], path, defs, (*seen, name))
    return node | {k: source[k] for k in ("description",) if k in source}


def _enumeration(source: Mapping[str, Any], path: str, kept: Node) -> Node:
    values = list(source["enum"]) if "enum" in source else [source["const"]]
    plain = [v for v in values if v is not None]
    if not plain or not all(isinstance(v, (str, int, float, bool)) for v in plain):
        raise UsageError(f"{path}: an enum lists plain values (text or numbers), got {values!r:.80}")
    kinds = {_kind(v) for v in plain}
    node: Node = {"enum": plain} | {k: v for k, v in kept.items() if k == "description"}
    if len(kinds) == 1:
        node = {"type": kinds.pop()} | node
    return nullable(node) if len(plain) < len(values) else node


def _kind(value: object) -> str:
    if isinstance(value, bool):
        return "boolean"
    return "string" if isinstance(value, str) else "integer" if isinstance(value, int) else "number"


def _union(options: Any, path: str, defs: Mapping[str, Any], seen: tuple[str, ...]) -> list[Node]:
    flat: list[Node] = []
    for option in options:
        node = _node(option, path, defs, seen)
        flat += node["anyOf"] if set(node) == {"anyOf"} else [node]
    return [n for i, n in enumerate(flat) if n not in flat[:i]]


def _union_or_one(options: Any, path: str, defs: Mapping[str, Any], seen: tuple[str, ...]) -> Node:
    nodes = _union(options, path, defs, seen)
    return nodes[0] if len(nodes) == 1 else {"anyOf": nodes}


def _object(source: Mapping[str, Any], path: str, defs: Mapping[str, Any], seen: tuple[str, ...]) -> Node:
    properties = source.get("properties") or {}
    if source.get("additionalProperties") not in (None, False) and (
        source["additionalProperties"] is not True or not properties
    ):
        raise UsageError(
            f"{path}: an object with free field names cannot be asked for; name the fields, or ask for a list of"
            " {'name': str, 'value': ...}"
        )
    if not properties:
        raise UsageError(f"{path}: an object needs named fields")
    nodes = {str(name): _node(sub, f"{path}.{name}", defs, seen) for name, sub in properties.items()}
    required = [name for name in nodes if name in set(source.get("required") or [])]
    return {"type": "object", "properties": nodes, "required": required}
