"""What each provider's strict schema mode refuses, and in which words."""

from __future__ import annotations

from typing import Any

import pytest
from sandbox_http import row_schema

from lmsyz.sandbox.strict import anthropic_fault, draft_fault, openai_fault


def flat(required: list[str] | None = None, **properties: Any) -> dict[str, Any]:
    names = list(properties) if required is None else required
    return {"type": "object", "properties": properties, "required": names, "additionalProperties": False}


TEXT = {"type": "string"}
MAYBE = {"anyOf": [TEXT, {"type": "null"}]}
RICH = flat(
    a={"type": ["integer", "null"], "minimum": 0, "maximum": 5},
    b={"type": "array", "items": {"$ref": "#/$defs/leaf"}, "minItems": 2, "maxItems": 5},
    c={"enum": ["x", "y"], "type": "string", "description": "one of two"},
    d={"type": "string", "format": "date", "pattern": "^2"},
    e={"const": 1},
) | {"$defs": {"leaf": flat(again={"anyOf": [{"$ref": "#/$defs/leaf"}, {"type": "null"}]})}}


@pytest.mark.parametrize("schema", [row_schema(), flat(), RICH, flat(a=MAYBE)])
def test_openai_takes_what_it_documents(schema: Any) -> None:
    assert openai_fault(schema) is None


def nested(levels: int) -> dict[str, Any]:
    schema: dict[str, Any] = TEXT
    for _ in range(levels):
        schema = flat(a=schema)
    return schema


@pytest.mark.parametrize(
    ("schema", "words"),
    [
        ({"type": "array", "items": TEXT}, "'type: \"object\"', got 'type: \"array\"'"),
        ({"anyOf": [flat()]}, "got 'type: \"None\"'"),
        (flat() | {"anyOf": [flat()]}, "'anyOf' is not permitted at the root"),
        ({"type": "object", "properties": {}}, "In context=(), 'additionalProperties' is required"),
        (flat(a=flat() | {"additionalProperties": True}), "In context=('properties', 'a'), 'additionalProperties'"),
        (flat(["a"], a=TEXT, b=TEXT), "including every key in properties. Missing 'b'"),
        (flat(["a", "c"], a=TEXT), "Extra required key 'c' supplied"),
        (flat(a=TEXT | {"default": "x"}), "In context=('properties', 'a'), 'default' is not permitted"),
        (flat(a={"allOf": [TEXT], "type": "string"}), "'allOf' is not permitted"),
        (flat(a=TEXT | {"minLength": 3}), "'minLength' is not permitted"),
        (flat(a={}), "schema must have a 'type' key"),
        (flat(a={"type": "array"}), "array schema missing items"),
        (flat(a={"$ref": "#/$defs/none"}), "reference to component '#/$defs/none'"),
        (
            flat(a={"$ref": "#/$defs/x", "description": "d"}) | {"$defs": {"x": TEXT}},
            "$ref cannot have keywords {'description'}",
        ),
        (flat(a=TEXT | {"format": "uri"}), "'uri' is not a valid format"),
        (flat(a={"type": "text"}), "'text'"),
        (nested(11), "maximum of 10 levels"),
        (flat(**{f"f{i}": TEXT for i in range(5001)}), "5001 properties"),
        (flat(a={"type": "string", "enum": [str(i) for i in range(1001)]}), "1001 enum values"),
        (flat(a={"type": "string", "enum": ["x" * 60 + str(i) for i in range(260)]}), "more than 250 values"),
        (flat(**{"n" * 60_001: TEXT, "m" * 60_001: TEXT}), "120002 characters"),
    ],
)
def test_openai_refuses_what_it_documents(schema: Any, words: str) -> None:
    assert words in str(openai_fault(schema))


@pytest.mark.parametrize(
    "schema",
    [
        row_schema(),
        flat([], **{f"f{i}": TEXT for i in range(24)}),
        flat(**{f"f{i}": MAYBE for i in range(16)}),
        flat(a={"type": "array", "items": TEXT, "minItems": 1}, b=TEXT | {"format": "uri", "default": "x"}),
        flat(a={"allOf": [{"$ref": "#/$defs/x"}]}) | {"$defs": {"x": TEXT}},
    ],
)
def test_anthropic_takes_what_it_documents(schema: Any) -> None:
    assert anthropic_fault(schema) is None


@pytest.mark.parametrize(
    ("schema", "words"),
    [
        ({"type": "object", "properties": {}}, "'additionalProperties' must be explicitly set to false"),
        (flat(a={"type": "object"}), "'additionalProperties' must be explicitly set to false"),
        (flat(a={"type": "integer", "maximum": 5, "minimum": 1}), "For 'integer' type, properties maximum, minimum"),
        (flat(a=TEXT | {"maxLength": 5}), "For 'string' type, properties maxLength are not supported"),
        (flat(a={"type": "array", "items": TEXT, "minItems": 2}), "'minItems' values other than 0 or 1"),
        (flat(a=TEXT | {"format": "phone"}), "format 'phone' is not supported"),
        (flat(a={"$ref": "https://example.org/x"}), "does not point into this schema"),
        (flat(a={}), "Schema type is missing"),
        (RICH, "not supported"),
        (flat(again={"anyOf": [{"$ref": "#"}, {"type": "null"}]}), "Circular reference"),
        (flat([], **{f"f{i}": TEXT for i in range(25)}), "too many optional parameters (25)"),
        (flat(**{f"f{i}": {"type": ["string", "null"]} for i in range(17)}), "union types (17 parameters"),
        ({"type": "what"}, "what"),
    ],
)
def test_anthropic_refuses_what_it_documents(schema: Any, words: str) -> None:
    assert words in str(anthropic_fault(schema))


def test_what_is_no_json_schema_is_found_where_nothing_stricter_is_asked() -> None:
    assert draft_fault({"type": "object", "anything": "goes", "minLength": 5}) is None
    assert "'what'" in str(draft_fault({"type": "what"}))
