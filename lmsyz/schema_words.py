"""A row schema in words for a prompt, since some servers enforce a schema that they never show to the model. Pure."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

from lmsyz.schema_normal import constraint_words, of_constraints, reference_name, without_null

if TYPE_CHECKING:
    from lmsyz.schema import RowSchema

__all__ = ["describe", "example"]

_Node = Mapping[str, Any]
_ONE: Mapping[str, str] = {
    "string": "text",
    "integer": "whole number",
    "number": "number",
    "boolean": "true or false",
    "object": "object",
}
_MANY: Mapping[str, str] = {
    "string": "texts",
    "integer": "whole numbers",
    "number": "numbers",
    "boolean": "true or false values",
    "object": "objects",
}
_LONGEST_PLACEHOLDER = 80


def describe(schema: RowSchema) -> str:
    """Return the fields as lines for a prompt: type, allowed values, rules in words, description, nesting.

    Parameters
    ----------
    schema : RowSchema
        What is asked for.

    Returns
    -------
    str
        One line a field, the fields of an object indented below it.

    Examples
    --------
    >>> from lmsyz.schema import read_schema
    >>> print(describe(read_schema({"tone": ["good", "bad"], "people": [{"name": (str, "in full")}]})))
    - tone (one of "good", "bad")
    - people (list of objects)
      - name (text): in full
    """
    row = schema.json_schema
    lines = [_line(row["description"])] if "description" in row else []
    lines += _fields(row, "")
    for name, node in schema.defs.items():
        said = f" ({_line(node['description'])})" if "description" in node else ""
        lines += [f"Each {name} object{said} has:", *_inside(node, "")]
    return "\n".join(lines)


def example(schema: RowSchema) -> dict[str, Any]:
    """Return an object of the schema's shape that holds placeholders, never values.

    Parameters
    ----------
    schema : RowSchema
        What is asked for.

    Returns
    -------
    dict
        Every field, in order.

    Examples
    --------
    >>> from lmsyz.schema import read_schema
    >>> example(read_schema({"tone": ["good", "bad"], "people": [{"age": int | None}]}))
    {'tone': "<one of 'good', 'bad'>", 'people': [{'age': '<whole number or null>'}]}
    """
    return _example_object(schema.json_schema)


def _fields(node: _Node, indent: str) -> Iterator[str]:
    for name, each in node["properties"].items():
        core, _ = without_null(each)
        said = f": {_line(core['description'])}" if "description" in core else ""
        yield f"{indent}- {name} ({_phrase_of(node, name)}){said}"
        yield from _inside(core, indent + "  ")


def _inside(node: _Node, indent: str) -> Iterator[str]:
    """Say the fields of the objects that a value is, lists or may be."""
    objects = list(_objects(node))
    for n, each in enumerate(objects, 1):
        if len(objects) > 1:
            said = f": {_line(each['description'])}" if "description" in each else ""
            yield f"{indent}either (form {n} of {len(objects)}){said}"
        yield from _fields(each, indent + "  " if len(objects) > 1 else indent)


def _objects(node: _Node) -> Iterator[_Node]:
    if node.get("type") == "object":
        yield node
    for each in (*node.get("anyOf", ()), *([node["items"]] if "items" in node else ())):
        yield from _objects(each)


def _phrase_of(parent: _Node, name: str) -> str:
    """Say the type of an object's field."""
    core, may_be_null = without_null(parent["properties"][name])
    return _phrase(core, " or null" if may_be_null or name not in parent["required"] else "")


def _phrase(node: _Node, or_null: str = "") -> str:
    if "anyOf" in node:
        core, may_be_null = without_null(node)
        choices = [_phrase(each) for each in core.get("anyOf", [core])] + (["null"] if may_be_null else [])
        return " or ".join(dict.fromkeys(choices)) + or_null
    if "$ref" in node:
        return f"{reference_name(node)} object{or_null}"
    if "enum" in node:
        return f"{'one of ' if len(node['enum']) > 1 else 'always '}{_values(node)}{or_null}"
    if node["type"] == "array":
        return "; ".join([f"list of {_plural(node['items'])}{or_null}", *_rules(node)])
    return ", ".join([f"{_ONE[node['type']]}{or_null}", *_rules(node)])


def _plural(node: _Node) -> str:
    if "anyOf" in node:
        return f"items, each {_phrase(node)}"
    if "$ref" in node:
        return f"{reference_name(node)} objects"
    if "enum" in node:
        return f"values among {_values(node)}"
    if node["type"] == "array":
        return "; ".join([f"lists of {_plural(node['items'])}", *(f"each {rule}" for rule in _rules(node))])
    return ", ".join([_MANY[node["type"]], *(f"each {rule}" for rule in _rules(node))])


def _rules(node: _Node) -> list[str]:
    return [constraint_words(keyword, value) for keyword, value in of_constraints(node)]


def _values(node: _Node) -> str:
    return ", ".join(json.dumps(value, ensure_ascii=False) for value in node["enum"])


def _line(text: str) -> str:
    return " ".join(text.split())


def _example_object(node: _Node) -> dict[str, Any]:
    return {name: _placeholder(each, _phrase_of(node, name)) for name, each in node["properties"].items()}


def _placeholder(node: _Node, phrase: str) -> Any:
    core, _ = without_null(node)
    shapes = [each for each in core.get("anyOf", [core]) if each.get("type") in ("object", "array")]
    if shapes and shapes[0]["type"] == "object":
        return _example_object(shapes[0])
    if shapes:
        return [_placeholder(shapes[0]["items"], _phrase(shapes[0]["items"]))]
    if len(phrase) > _LONGEST_PLACEHOLDER:
        phrase = "one of the allowed values" if "enum" in core else f"{phrase[: _LONGEST_PLACEHOLDER - 1]}…"
    return f"<{phrase}>".replace('"', "'")
