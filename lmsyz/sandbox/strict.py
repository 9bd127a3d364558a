"""What each provider's strict schema mode refuses, by its documented rules. A schema's checks are cached by its text.

OpenAI strict: the root is an object and no anyOf; every object has ``additionalProperties: false`` and requires all
its properties; no ``allOf``, ``not``, ``if``, ``dependent*``, ``default`` and the like; 5,000 properties, 10 levels,
1,000 enum values, 120,000 characters of names and enum values, 15,000 in one enum of more than 250 values.

Anthropic: every object has ``additionalProperties: false``; no recursion, no references outside, no bounds or lengths,
``minItems`` of 0 or 1 only; 24 optional and 16 union-typed properties.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from functools import lru_cache
from typing import Any

__all__ = ["anthropic_fault", "draft_fault", "openai_fault"]

Node = Mapping[str, Any]
TYPES = ("object", "array", "string", "integer", "number", "boolean", "null")

_OPENAI_KEYWORDS = {
    "type", "properties", "required", "additionalProperties", "items", "enum", "const", "anyOf", "$ref", "$defs",
    "definitions", "description", "title", "pattern", "format", "minimum", "maximum", "exclusiveMinimum",
    "exclusiveMaximum", "multipleOf", "minItems", "maxItems", "$schema", "$id",
}  # fmt: skip
_OPENAI_FORMATS = {"date-time", "time", "date", "duration", "email", "hostname", "ipv4", "ipv6", "uuid"}
_CLAUDE_FORMATS = _OPENAI_FORMATS | {"uri"}
_CLAUDE_KEYWORDS = {
    "type", "properties", "required", "additionalProperties", "items", "enum", "const", "anyOf", "allOf", "$ref",
    "$defs", "definitions", "description", "title", "format", "minItems", "default", "$schema", "$id", "examples",
}  # fmt: skip
_CLAUDE_OPTIONAL, _CLAUDE_UNIONS = 24, 16


def openai_fault(schema: Any) -> str | None:
    """Return what OpenAI's strict mode says against a schema, None where it takes it."""
    return _openai(json.dumps(schema))


def anthropic_fault(schema: Any) -> str | None:
    """Return what Anthropic's structured output says against a schema, None where it takes it."""
    return _anthropic(json.dumps(schema))


def draft_fault(schema: Any) -> str | None:
    """Return what is wrong with a value as JSON Schema draft 2020-12, None where nothing is."""
    return _draft(json.dumps(schema))


@lru_cache(maxsize=256)
def _draft(text: str) -> str | None:
    from jsonschema import Draft202012Validator
    from jsonschema.exceptions import SchemaError

    try:
        Draft202012Validator.check_schema(json.loads(text))
    except SchemaError as error:
        return error.message
    return None


@lru_cache(maxsize=256)
def _openai(text: str) -> str | None:
    schema = json.loads(text)
    if not isinstance(schema, dict) or schema.get("type") != "object":
        found = schema.get("type") if isinstance(schema, dict) else None
        return f"schema must be a JSON Schema of 'type: \"object\"', got 'type: \"{found}\"'."
    if "anyOf" in schema:
        return "In context=(), 'anyOf' is not permitted at the root."
    return _draft(text) or next(_openai_faults(schema, (), 1, schema), None) or next(_openai_sizes(schema), None)


def _context(path: tuple[str, ...]) -> str:
    return f"In context={path!r}"


def _openai_faults(node: Any, path: tuple[str, ...], level: int, root: Node) -> Iterator[str]:
    where = _context(path)
    if not isinstance(node, Mapping):
        yield f"{where}, a schema must be an object."
        return
    for keyword in node:
        if keyword not in _OPENAI_KEYWORDS:
            yield f"{where}, '{keyword}' is not permitted."
    if "$ref" in node:
        if _target(root, str(node["$ref"])) is None:
            yield f"{where}, reference to component '{node['$ref']}' which was not found in the schema."
        beside = sorted(set(node) - {"$ref"})
        if beside and path:
            yield f"{where}, $ref cannot have keywords {set(beside)!r}."
    elif not {"type", "anyOf", "enum", "const"} & set(node):
        yield f"{where}, schema must have a 'type' key."
    if _is(node, "array") and "items" not in node:
        yield f"{where}, array schema missing items."
    if node.get("format") is not None and node["format"] not in _OPENAI_FORMATS:
        yield f"{where}, '{node['format']}' is not a valid format."
    if _is(node, "object"):
        yield from _openai_object(node, path, where)
    if level > 10 and _is(node, "object"):
        yield f"{where}, the schema exceeds the maximum of 10 levels of nesting."
    for step, child, deeper in _children(node):
        yield from _openai_faults(child, (*path, *step), level + deeper, root)


def _openai_object(node: Node, path: tuple[str, ...], where: str) -> Iterator[str]:
    if node.get("additionalProperties") is not False:
        yield f"{where}, 'additionalProperties' is required to be supplied and to be false."
    properties = node.get("properties") or {}
    required = node.get("required")
    told = "'required' is required to be supplied and to be an array including every key in properties."
    missing = [p for p in properties if not isinstance(required, list) or p not in required]
    extra = [p for p in required or [] if p not in properties]
    if missing:
        yield f"{where}, {told} Missing '{missing[0]}'."
    if extra:
        yield f"{where}, {told} Extra required key '{extra[0]}' supplied."


def _openai_sizes(schema: Node) -> Iterator[str]:
    nodes = list(_all_nodes(schema))
    names = [p for n in nodes for p in (n.get("properties") or {})]
    enums = [n["enum"] for n in nodes if isinstance(n.get("enum"), list)]
    characters = sum(map(len, names)) + sum(len(str(v)) for values in enums for v in values)
    if len(names) > 5000:
        yield f"the schema has {len(names)} properties in total; the limit is 5000."
    if sum(map(len, enums)) > 1000:
        yield f"the schema has {sum(map(len, enums))} enum values in total; the limit is 1000."
    if characters > 120_000:
        yield f"names and enum values have {characters} characters in total; the limit is 120000."
    for values in enums:
        if len(values) > 250 and sum(len(str(v)) for v in values) > 15_000:
            yield "one enum has more than 250 values and more than 15000 characters in total."


def _is(node: Node, kind: str) -> bool:
    found = node.get("type")
    return found == kind or (isinstance(found, list) and kind in found)


def _children(node: Node) -> Iterator[tuple[tuple[str, ...], Any, int]]:
    """Yield the schemas within a schema: the step to each, the schema, and by how many levels it lies deeper."""
    for keyword in ("properties", "$defs", "definitions"):
        for name, child in (node.get(keyword) or {}).items():
            yield (keyword, name), child, int(keyword == "properties")
    if "items" in node:
        yield ("items",), node["items"], 1
    for keyword in ("anyOf", "allOf"):
        for i, child in enumerate(node.get(keyword) or []):
            yield (keyword, str(i)), child, 0


def _all_nodes(node: Any) -> Iterator[Node]:
    if isinstance(node, Mapping):
        yield node
        for _, child, _ in _children(node):
            yield from _all_nodes(child)


def _target(root: Node, ref: str) -> Any:
    if not ref.startswith("#"):
        return None
    node: Any = root
    for part in ref.removeprefix("#").strip("/").split("/") if ref != "#" else []:
        node = node.get(part.replace("~1", "/").replace("~0", "~")) if isinstance(node, Mapping) else None
    return node


@lru_cache(maxsize=256)
def _anthropic(text: str) -> str | None:
    schema = json.loads(text)
    if not isinstance(schema, dict):
        return "Input should be a valid dictionary"
    return (
        _draft(text)
        or next(_anthropic_faults(schema, schema), None)
        or ("Circular reference detected in schema definitions" if _recursive(schema) else None)
        or next(_anthropic_sizes(schema), None)
    )


def _anthropic_faults(node: Any, root: Node) -> Iterator[str]:
    if not isinstance(node, Mapping):
        yield "schema nodes must be objects"
        return
    kind = node.get("type")
    said = f"For '{kind}' type" if isinstance(kind, str) else "In a schema"
    unknown = sorted(k for k in node if k not in _CLAUDE_KEYWORDS)
    if unknown:
        yield f"{said}, properties {', '.join(unknown)} are not supported"
    if _is(node, "object") and node.get("additionalProperties") is not False:
        yield "For 'object' type, 'additionalProperties' must be explicitly set to false"
    if node.get("minItems", 0) not in (0, 1):
        yield f"For 'array' type, 'minItems' values other than 0 or 1 are not supported (got {node['minItems']})"
    if node.get("format") is not None and node["format"] not in _CLAUDE_FORMATS:
        yield f"For 'string' type, format '{node['format']}' is not supported"
    ref = node.get("$ref")
    if ref is not None and _target(root, str(ref)) is None:
        yield f"Reference '{ref}' does not point into this schema"
    if not {"type", "anyOf", "allOf", "enum", "const", "$ref"} & set(node):
        yield "Schema type is missing: every schema needs a 'type', 'enum', 'const', 'anyOf', 'allOf' or '$ref'"
    for _, child, _ in _children(node):
        yield from _anthropic_faults(child, root)


def _recursive(schema: Node) -> bool:
    """Return whether following references from any node leads back to it."""

    def visit(node: Any, open_refs: tuple[str, ...]) -> bool:
        if not isinstance(node, Mapping):
            return False
        ref = node.get("$ref")
        if isinstance(ref, str):
            return ref in open_refs or visit(_target(schema, ref), (*open_refs, ref))
        own = [c for step, c, _ in _children(node) if step[0] not in ("$defs", "definitions")]
        return any(visit(child, open_refs) for child in own)

    return visit(schema, ("#",))


def _anthropic_sizes(schema: Node) -> Iterator[str]:
    optional = unions = 0
    for node in _all_nodes(schema):
        properties = node.get("properties") or {}
        required = set(node.get("required") or [])
        optional += sum(name not in required for name in properties)
        unions += sum(
            isinstance(p, Mapping) and ("anyOf" in p or isinstance(p.get("type"), list)) for p in properties.values()
        )
    if optional > _CLAUDE_OPTIONAL:
        yield (
            f"Schemas contains too many optional parameters ({optional}), which would make grammar compilation"
            f" inefficient. Reduce the number of optional parameters in your schemas (limit: {_CLAUDE_OPTIONAL})."
        )
    if unions > _CLAUDE_UNIONS:
        yield (
            f"Schemas contains too many parameters with union types ({unions} parameters with type arrays or anyOf)"
            f" which would cause exponential compilation cost (limit: {_CLAUDE_UNIONS} parameters with unions)."
        )
