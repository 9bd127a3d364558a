"""JSON Schema read into the one dialect."""

from typing import Any

import pytest

from lmsyz.errors import UsageError
from lmsyz.schema_normal import constraint_words, nullable, show_path, without_null
from lmsyz.schema_reader import normalise

STRING, NUMBER, NULL = {"type": "string"}, {"type": "number"}, {"type": "null"}


def node(raw: Any) -> Any:
    return normalise(raw)[0]


def in_object(raw: Any) -> Any:
    return {"type": "object", "properties": {"x": raw}, "required": ["x"]}


def refused(raw: Any) -> str:
    with pytest.raises(UsageError) as error:
        normalise(in_object(raw))
    return str(error.value)


@pytest.mark.parametrize(
    ("raw", "normal"),
    [
        ({"type": "string", "title": "T", "default": "a", "examples": ["b"], "x-mine": 1}, STRING),
        ({"type": ["string"]}, STRING),
        ({"type": ["null", "string"]}, {"anyOf": [STRING, NULL]}),
        ({"type": "string", "nullable": True}, {"anyOf": [STRING, NULL]}),
        ({"anyOf": [NULL, STRING]}, {"anyOf": [STRING, NULL]}),
        ({"oneOf": [STRING, NUMBER]}, {"anyOf": [STRING, NUMBER]}),
        ({"anyOf": [{"anyOf": [STRING, NULL]}, NUMBER]}, {"anyOf": [STRING, NUMBER, NULL]}),
        ({"anyOf": [STRING, STRING]}, STRING),
        ({"type": ["integer", "number"]}, NUMBER),
        ({"allOf": [STRING], "description": "d"}, STRING | {"description": "d"}),
        ({"anyOf": [STRING | {"description": "in"}, NULL]}, {"anyOf": [STRING, NULL], "description": "in"}),
        ({"anyOf": [STRING | {"description": "in"}], "description": "out"}, STRING | {"description": "out"}),
        ({"type": "string", "description": " "}, STRING),
        ({"const": "a"}, {"type": "string", "enum": ["a"]}),
        ({"const": "a", "enum": ["a"], "minLength": 1}, {"type": "string", "enum": ["a"]}),
        (
            {"enum": ["n/a", "2024-01-31"], "format": "date", "pattern": r"\p{L}"},
            {"type": "string", "enum": ["n/a", "2024-01-31"]},
        ),
        ({"enum": ["a", None]}, {"anyOf": [{"type": "string", "enum": ["a"]}, NULL]}),
        ({"type": ["string", "null"], "enum": ["a"]}, {"anyOf": [{"type": "string", "enum": ["a"]}, NULL]}),
        ({"type": "number", "enum": [1, 2]}, {"type": "integer", "enum": [1, 2]}),
        ({"enum": [1, 2.5]}, {"type": "number", "enum": [1, 2.5]}),
        ({"enum": [True, False]}, {"type": "boolean"}),
        ({"enum": [True]}, {"type": "boolean", "enum": [True]}),
        ({"anyOf": [{"const": "a"}, {"enum": ["b", "a"]}]}, {"type": "string", "enum": ["a", "b"]}),
        ({"anyOf": [{"const": True}, {"const": False}]}, {"type": "boolean"}),
        ({"items": STRING}, {"type": "array", "items": STRING}),
        ({"type": "integer", "maximum": 5.0, "minimum": 0}, {"type": "integer", "minimum": 0, "maximum": 5}),
        ({"type": "string", "minLength": 0, "minimum": 3}, STRING),
        (
            {"type": ["integer", "null"], "minimum": 1},
            {"anyOf": [{"type": "integer", "minimum": 1}, NULL]},
        ),
        ({"type": "array", "items": STRING, "uniqueItems": False}, {"type": "array", "items": STRING}),
    ],
)
def test_every_spelling_has_one_normal_form(raw: Any, normal: Any) -> None:
    assert node(raw) == normal
    assert list(node(raw)) == list(normal)
    assert node(normal) == normal


def test_an_object_is_closed_and_its_required_fields_come_in_its_own_order() -> None:
    raw = {"properties": {"a": STRING, "b": STRING, "c": STRING}, "required": ["c", "a"]}
    assert node(raw)["required"] == ["a", "c"]
    assert node(raw)["additionalProperties"] is False


def test_references_are_put_in_place() -> None:
    raw = in_object({"$ref": "#/$defs/A", "description": "out"}) | {
        "$defs": {"A": {"$ref": "#/definitions/B~1C"}},
        "definitions": {"B/C": STRING | {"description": "in"}},
    }
    assert node(raw)["properties"]["x"] == STRING | {"description": "out"}


def test_a_part_with_definitions_of_its_own_uses_them_first() -> None:
    part = {"$ref": "#/$defs/A", "$defs": {"A": STRING}}
    raw = {"type": "object", "properties": {"x": part, "y": {"$ref": "#/$defs/A"}}, "$defs": {"A": NUMBER}}
    assert node(raw)["properties"] == {"x": STRING, "y": NUMBER}


def test_a_definition_uses_the_names_of_its_own_document() -> None:
    part = {"$ref": "#/$defs/B", "$defs": {"A": STRING}}
    raw = {"type": "object", "properties": {"x": part}, "$defs": {"A": NUMBER, "B": {"$ref": "#/$defs/A"}}}
    assert node(raw)["properties"] == {"x": NUMBER}


def test_only_what_contains_itself_stays_a_reference() -> None:
    tree = {
        "type": "object",
        "properties": {"name": STRING, "next": {"anyOf": [{"$ref": "#/$defs/Tree"}, NULL]}},
        "required": ["name", "next"],
    }
    whole, defs = normalise(in_object({"$ref": "#/$defs/Tree"}) | {"$defs": {"Tree": tree}})
    assert whole["properties"]["x"] == defs["Tree"]
    assert defs["Tree"]["properties"]["next"] == {"anyOf": [{"$ref": "#/$defs/Tree"}, NULL]}


def test_two_definitions_that_contain_each_other_are_both_kept() -> None:
    raw = {
        "type": "object",
        "properties": {"a": {"$ref": "#/$defs/A"}, "b": {"$ref": "#/$defs/B"}},
        "$defs": {
            "A": {"type": "object", "properties": {"bs": {"type": "array", "items": {"$ref": "#/$defs/B"}}}},
            "B": {"type": "object", "properties": {"as": {"type": "array", "items": {"$ref": "#/$defs/A"}}}},
        },
    }
    assert sorted(normalise(raw)[1]) == ["A", "B"]


def test_a_reference_to_the_whole_document_is_called_row() -> None:
    raw = {"type": "object", "properties": {"kids": {"type": "array", "items": {"$ref": "#"}}}}
    assert list(normalise(raw)[1]) == ["Row"]


@pytest.mark.parametrize(
    ("raw", "message"),
    [
        ("string", "is 'string', no JSON Schema"),
        ({"type": "strin"}, "has the type 'strin'. Use one of string, integer"),
        ({"description": "d"}, "has no type"),
        ({"type": "string", "description": 5}, "has the description 5"),
        ({"type": "array"}, "is a list of anything"),
        ({"type": "array", "items": True}, "is a list of anything"),
        ({"type": "array", "items": [STRING, NUMBER]}, "a type for each position"),
        ({"type": "array", "items": NULL}, "is a list of nulls"),
        ({"type": "array", "prefixItems": [STRING]}, "uses 'prefixItems', which strict output cannot express"),
        ({"type": "object"}, "is an object without fields"),
        ({"type": "object", "additionalProperties": STRING}, "is an object with free keys"),
        ({"type": "object", "properties": {"a": STRING}, "patternProperties": {}}, "uses 'patternProperties'"),
        ({"type": "object", "properties": {"a": STRING}, "required": ["b"]}, "requires 'b', which it does not have"),
        ({"type": "object", "properties": {"a": STRING}, "required": "a"}, "has required: 'a'"),
        ({"type": "object", "properties": {"a": STRING}, "required": [[]]}, "has required: [[]]"),
        ({"type": "object", "properties": {"a": NULL}}, "field 'x.a' is always null"),
        ({"allOf": [STRING, {"minLength": 3}]}, "uses 'allOf'"),
        ({"type": "integer", "minimum": 3, "allOf": [{"minimum": 5}]}, "has 'minimum' both in 'allOf' and beside it"),
        (
            {"allOf": [{"type": "object", "properties": {"a": STRING}}], "properties": {"b": STRING}},
            "has 'properties' both in 'allOf' and beside it",
        ),
        ({"type": "string", "not": {"const": "a"}}, "uses 'not'"),
        ({"type": "object", "anyOf": [STRING]}, "has 'type' beside 'anyOf'"),
        ({"anyOf": []}, "an empty list of choices"),
        ({"enum": []}, "has no allowed values"),
        ({"enum": [["a"]]}, "allows values of several kinds"),
        ({"enum": [1, True]}, "allows values of several kinds"),
        ({"type": "string", "enum": [1]}, "has the type 'string' but allows 1"),
        ({"enum": ["a", "a"]}, "allows 'a' twice"),
        ({"const": "a", "enum": ["a", "b"]}, "has 'const' beside an 'enum' of other values"),
        ({"const": 1, "enum": [True]}, "has 'const' beside an 'enum' of other values"),
        ({"enum": ["a", "bb"], "minLength": 2}, "allows 'a', which breaks its own rule \"at least 2 characters long\""),
        ({"enum": [1, 2.5], "maximum": 2}, 'allows 2.5, which breaks its own rule "at most 2"'),
        ({"type": "string", "pattern": "("}, "has pattern '('. It must be a regular expression."),
        ({"type": "string", "maxLength": -1}, "It must be a whole number from 0."),
        ({"type": "integer", "minimum": "0"}, "It must be a number."),
        ({"type": "integer", "minimum": float("nan")}, "It must be a number."),
        ({"type": "number", "multipleOf": 0}, "It must be a number above 0."),
        ({"type": "integer", "minimum": 5, "maximum": 1}, "has minimum above maximum"),
        ({"$ref": "other.json#/A"}, "refers to 'other.json#/A', outside the schema"),
        ({"$ref": "#anchor"}, "outside the schema"),
        ({"$ref": "#/$defs/A"}, "refers to '#/$defs/A', which is not there"),
        ({"$ref": "#/$defs/A", "$defs": {"A": {"$ref": "#/$defs/A"}}}, "refers only to itself"),
    ],
)
def test_what_strict_output_cannot_express_is_refused_at_its_field(raw: Any, message: str) -> None:
    assert message in refused(raw)
    assert "field 'x" in refused(raw)


def test_a_deep_field_is_named_by_its_whole_path() -> None:
    raw = {"type": "array", "items": {"type": "object", "properties": {"y": {"type": "array"}}}}
    assert "field 'x[].y'" in refused(raw)
    assert show_path(("x", "|1", "[]", "y")) == "x[].y"


def test_a_bound_may_be_larger_than_a_float() -> None:
    assert node({"type": "integer", "minimum": 10**400})["minimum"] == 10**400


def test_a_very_deep_or_wide_schema_is_refused() -> None:
    deep: Any = STRING
    for _ in range(100):
        deep = in_object(deep)
    assert "nested more than 50 deep" in refused(deep)
    defs: Any = {"A0": STRING}
    for i in range(1, 20):
        both = {"a": {"$ref": f"#/$defs/A{i - 1}"}, "b": {"$ref": f"#/$defs/A{i - 1}"}}
        defs[f"A{i}"] = {"type": "object", "properties": both}
    assert "over 20,000 parts" in refused({"$ref": "#/$defs/A19", "$defs": defs})


def test_null_can_be_taken_off_and_put_on() -> None:
    for each in (STRING, {"anyOf": [STRING, NUMBER]}, STRING | {"description": "d"}):
        assert without_null(nullable(each)) == (each, True)
        assert nullable(nullable(each)) == nullable(each)


@pytest.mark.parametrize(
    ("keyword", "value", "words"),
    [
        ("maximum", 5, "at most 5"),
        ("minItems", 1, "with at least 1 item"),
        ("minItems", 2, "with at least 2 items"),
        ("format", "date", "a date as YYYY-MM-DD"),
        ("format", "uuid", "in the format uuid"),
    ],
)
def test_a_constraint_can_be_said_in_words(keyword: str, value: Any, words: str) -> None:
    assert constraint_words(keyword, value) == words
