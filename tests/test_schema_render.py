"""The envelope as each provider wants it, held against each provider's rules written down a second time here."""

import copy
import json
from collections.abc import Iterator
from typing import Any

import anthropic
import pytest
from jsonschema import Draft202012Validator

from lmsyz.errors import UsageError
from lmsyz.schema import RowSchema, read_schema
from lmsyz.schema_render import render

TARGETS = ("openai", "anthropic")
STRING_FORMATS = {"date-time", "time", "date", "duration", "email", "hostname", "ipv4", "ipv6", "uuid"}
OPENAI_KEYWORDS = {
    *("type", "properties", "required", "additionalProperties", "items", "enum", "anyOf", "$ref", "$defs"),
    *("description", "pattern", "format", "multipleOf", "minimum", "maximum", "exclusiveMinimum"),
    *("exclusiveMaximum", "minItems", "maxItems"),
}
CLAUDE_KEYWORDS = {
    *("type", "properties", "required", "additionalProperties", "items", "enum", "anyOf", "description", "format"),
    "minItems",
}

RICH: dict[str, Any] = {
    "type": "object",
    "description": "A deal.",
    "properties": {
        "tone": {"type": "string", "enum": ["good", "bad"]},
        "year": {"type": "integer", "minimum": 1900, "maximum": 2100, "description": "when it closed"},
        "share": {"type": "number", "exclusiveMinimum": 0, "multipleOf": 0.5},
        "code": {"type": "string", "pattern": "^[A-Z]+$", "minLength": 2, "maxLength": 4},
        "odd": {"type": "string", "pattern": "^(?=a).*$"},
        "on": {"type": "string", "format": "date"},
        "site": {"type": ["string", "null"], "format": "uri"},
        "secret": {"type": "string", "format": "password"},
        "people": {
            "type": "array",
            "minItems": 1,
            "maxItems": 3,
            "uniqueItems": True,
            "items": {"type": "object", "properties": {"name": {"type": "string"}, "age": {"type": "integer"}}},
        },
        "pair": {"type": "array", "minItems": 2, "items": {"type": ["number", "null"]}},
        "either": {"type": ["string", "boolean"]},
    },
    "required": ["tone", "year", "site", "people"],
}
TREE: dict[str, Any] = {
    "$ref": "#/$defs/Tree",
    "$defs": {
        "Tree": {
            "type": "object",
            "properties": {
                "name": {"type": "string"},
                "left": {"anyOf": [{"$ref": "#/$defs/Tree"}, {"type": "null"}], "description": "the left one"},
                "right": {"$ref": "#/$defs/Tree", "description": "the right one"},
                "more": {"type": "array", "items": {"$ref": "#/$defs/Tree"}},
            },
            "required": ["name", "left", "more"],
        }
    },
}


def read(obj: Any) -> RowSchema:
    schema = read_schema(obj)
    assert schema is not None
    return schema


def row(obj: Any, target: Any, **kwargs: Any) -> dict[str, Any]:
    found: dict[str, Any] = render(read(obj), target, **kwargs)["properties"]["all_results"]["items"]
    return found


def nodes(node: Any, level: int = 1) -> Iterator[tuple[dict[str, Any], int]]:
    """Every node of a rendered schema, with the number of objects and lists around and at it."""
    yield node, level
    inside = level + (node.get("type") in ("object", "array"))
    for each in (*node.get("properties", {}).values(), *node.get("$defs", {}).values()):
        yield from nodes(each, inside)
    for each in (*node.get("anyOf", ()), *([node["items"]] if "items" in node else ())):
        yield from nodes(each, inside if "items" in node else level)


def openai_faults(schema: Any) -> list[str]:
    """What OpenAI's strict mode would refuse, as its guide states it."""
    faults = []
    everything = list(nodes(schema))
    objects = [n for n, _ in everything if n.get("type") == "object"]
    for node, _ in everything:
        faults += [f"keyword {k}" for k in set(node) - OPENAI_KEYWORDS]
        if "$ref" in node and len(node) > 1:
            faults.append("keywords beside $ref")
        if sum(k in node for k in ("type", "anyOf", "$ref")) != 1:
            faults.append("not one of type, anyOf, $ref")
        if node.get("format", "date") not in STRING_FORMATS:
            faults.append(f"format {node['format']}")
        if "(?" in node.get("pattern", ""):
            faults.append("pattern with lookaround")
        if len(node.get("enum", ())) > 250 and sum(map(len, map(str, node["enum"]))) > 15_000:
            faults.append("long enum")
    for node in objects:
        if node.get("additionalProperties") is not False or node["required"] != list(node["properties"]):
            faults.append("open object, or one with optional properties")
    names = [name for n in objects for name in n["properties"]] + list(schema.get("$defs", {}))
    values = [str(v) for n, _ in everything for v in n.get("enum", ())]
    if sum(len(n["properties"]) for n in objects) > 5_000:
        faults.append("properties")
    if len(values) > 1_000:
        faults.append("enum values")
    if sum(map(len, names + values)) > 120_000:
        faults.append("characters")
    if max(level for n, level in everything if n.get("type") in ("object", "array")) > 10:
        faults.append("levels")
    if schema.get("type") != "object":
        faults.append("root")
    return faults


def claude_faults(schema: Any) -> list[str]:
    """What Claude's structured output would refuse, as its guide states it."""
    faults = []
    everything = [n for n, _ in nodes(schema)]
    for node in everything:
        faults += [f"keyword {k}" for k in set(node) - CLAUDE_KEYWORDS]
        if node.get("format", "date") not in STRING_FORMATS | {"uri"}:
            faults.append(f"format {node['format']}")
        if node.get("minItems", 0) > 1:
            faults.append("minItems")
        if isinstance(node.get("type"), list):
            faults.append("a list of types")
    objects = [n for n in everything if n.get("type") == "object"]
    if any(n.get("additionalProperties") is not False for n in objects):
        faults.append("open object")
    if sum(len(n["properties"]) - len(n["required"]) for n in objects) > 24:
        faults.append("optional properties")
    if sum("anyOf" in n for n in everything) > 16:
        faults.append("union types")
    return faults


FAULTS = {"openai": openai_faults, "anthropic": claude_faults}


@pytest.mark.parametrize("verify", [False, True])
@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize("obj", [{"a": str}, RICH, {"a": {"b": [{"c": int | None}]}}, {"a": [["x", "y"]]}])
def test_what_is_rendered_is_json_schema_within_the_providers_rules(obj: Any, target: Any, verify: bool) -> None:
    schema = render(read(obj), target, verify=verify)
    Draft202012Validator.check_schema(schema)
    assert FAULTS[target](schema) == []
    assert json.loads(json.dumps(schema)) == schema


def test_anthropics_own_transformer_finds_nothing_to_move() -> None:
    def bare(node: Any) -> Any:
        """Without the type beside allowed values, which it leaves out."""
        if isinstance(node, list):
            return [bare(each) for each in node]
        if not isinstance(node, dict):
            return node
        return {k: bare(v) for k, v in node.items() if not ("enum" in node and k == "type")}

    schema = render(read(RICH), "anthropic", verify=True)
    assert bare(anthropic.transform_schema(copy.deepcopy(schema))) == bare(schema)


@pytest.mark.parametrize("target", TARGETS)
def test_the_id_comes_first_and_the_opening_next(target: Any) -> None:
    assert list(row({"a": str}, target)["properties"]) == ["input_id", "a"]
    assert list(row({"a": str}, target, verify=True)["properties"]) == ["input_id", "input_opening", "a"]
    assert row({"a": str}, target, verify=True)["required"] == ["input_id", "input_opening", "a"]


@pytest.mark.parametrize("target", TARGETS)
def test_without_a_schema_the_ids_alone_are_asked(target: Any) -> None:
    assert list(render(None, target)["properties"]["all_results"]["items"]["properties"]) == ["input_id"]


def test_openai_gets_null_for_what_may_be_absent() -> None:
    properties = row(RICH, "openai")["properties"]
    assert properties["share"]["anyOf"][-1] == {"type": "null"}
    assert properties["either"] == {"anyOf": [{"type": "string"}, {"type": "boolean"}, {"type": "null"}]}
    people = properties["people"]["items"]["properties"]
    assert people["age"] == {"anyOf": [{"type": "integer"}, {"type": "null"}]}


def test_claude_may_leave_out_what_may_be_absent_and_say_null_where_null_is_an_answer() -> None:
    found = row(RICH, "anthropic")
    assert found["required"] == ["input_id", "tone", "year", "site", "people", "either"]
    assert found["properties"]["share"]["type"] == "number"
    assert found["properties"]["site"]["anyOf"] == [{"type": "string", "format": "uri"}, {"type": "null"}]


def test_what_a_provider_cannot_enforce_is_said_in_the_description() -> None:
    openai, claude = row(RICH, "openai")["properties"], row(RICH, "anthropic")["properties"]
    assert openai["year"]["minimum"] == 1900
    assert openai["year"]["description"] == "when it closed"
    assert claude["year"]["description"] == "when it closed (at least 1900, at most 2100)"
    assert claude["share"]["description"] == "More than 0, a multiple of 0.5"
    assert (
        claude["code"]["description"]
        == "Matching the pattern ^[A-Z]+$, at least 2 characters long, at most 4 characters long"
    )
    assert openai["code"]["description"] == "At least 2 characters long, at most 4 characters long"
    assert "pattern" not in openai["odd"]["anyOf"][0]
    assert openai["odd"]["description"] == "Matching the pattern ^(?=a).*$"
    assert claude["people"]["description"] == "With at most 3 items, with no item twice"
    assert claude["people"]["minItems"] == 1
    assert claude["pair"]["description"] == "With at least 2 items"
    assert openai["site"]["description"] == "In the format uri"


def test_the_rows_own_description_is_kept() -> None:
    assert row(RICH, "openai")["description"] == row(RICH, "anthropic")["description"] == "A deal."


def test_openai_may_be_asked_for_what_contains_itself() -> None:
    schema = render(read(TREE), "openai", verify=True)
    Draft202012Validator.check_schema(schema)
    assert openai_faults(schema) == []
    leaf = {"name": "b", "left": None, "right": None, "more": []}
    tree = {"input_id": "1", "input_opening": "x", "name": "a", "left": leaf, "right": None, "more": [leaf]}
    assert Draft202012Validator(schema).is_valid({"all_results": [tree]})
    assert not Draft202012Validator(schema).is_valid({"all_results": [tree | {"left": {"name": "b"}}]})


def test_claude_is_not_asked_for_what_contains_itself() -> None:
    with pytest.raises(UsageError, match=r"field 'left' contains itself \(Tree\).* Write it out to the depth"):
        render(read(TREE), "anthropic")


def test_a_schema_is_rendered_once() -> None:
    assert render(read(RICH), "openai", verify=True) is render(read(RICH), "openai", verify=True)
    assert render(read(RICH), "openai") is not render(read(RICH), "openai", verify=True)


# --- limits ------------------------------------------------------------------------------------------


def test_claude_takes_forty_optional_fields_and_no_more() -> None:
    within = {f"f{i}": str | None for i in range(40)}
    assert claude_faults(render(read(within), "anthropic")) == []
    with pytest.raises(UsageError, match=r"field 'f40' is one too many.*24 optional fields and 16 of more than one"):
        render(read({f"f{i}": str | None for i in range(41)}), "anthropic")


@pytest.mark.parametrize("n", [16, 17, 24, 25, 40])
def test_null_is_said_outright_while_claudes_unions_last(n: int) -> None:
    found = row({f"f{i}": str | None for i in range(n)}, "anthropic")
    assert sum("anyOf" in node for node in found["properties"].values()) == min(n, 16)
    assert len(found["properties"]) - len(found["required"]) == max(0, n - 16)


@pytest.mark.parametrize("n", [24, 25, 40])
def test_a_field_that_may_be_absent_is_left_out_while_claudes_optional_fields_last(n: int) -> None:
    properties = {f"f{i}": {"type": "string"} for i in range(n)}
    found = row({"type": "object", "properties": properties}, "anthropic")
    assert len(found["properties"]) - len(found["required"]) == 24
    assert sum("anyOf" in node for node in found["properties"].values()) == n - 24


def test_claude_takes_sixteen_fields_of_several_types_and_no_more() -> None:
    within = {f"f{i}": str | int for i in range(16)} | {f"g{i}": str | None for i in range(24)}
    assert claude_faults(render(read(within), "anthropic")) == []
    for over in ({f"f{i}": str | int for i in range(17)}, {f"f{i}": [str | None] for i in range(17)}):
        with pytest.raises(UsageError, match=r"field 'f16(\[\])?' is one too many of more than one type"):
            render(read(over), "anthropic")


def test_null_costs_claude_nothing_in_a_field_of_several_types() -> None:
    within = {f"f{i}": str | int | None for i in range(16)}
    found = row(within, "anthropic")
    assert len(found["required"]) == 17
    assert claude_faults(render(read(within), "anthropic")) == []


OWN_CHARACTERS = len("all_results" + "input_id")


def nested(n: int, leaf: Any) -> Any:
    for _ in range(n):
        leaf = {"a": leaf}
    return leaf


def listed(n: int) -> Any:
    kind: Any = str
    for _ in range(n):
        kind = [kind]
    return {"a": kind}


@pytest.mark.parametrize(
    ("within", "over"),
    [
        # all_results and input_id are properties too, and count
        ({f"f{i}": str for i in range(4_998)}, {f"f{i}": str for i in range(4_999)}),
        ({"a": [str(i) for i in range(1_000)]}, {"a": [str(i) for i in range(1_001)]}),
        ({"a": [f"{i:060}" for i in range(250)]}, {"a": [f"{i:060}" for i in range(251)]}),
        (
            {"x" * (120_000 - len("all_results" + "input_id")): str},
            {"x" * (120_001 - len("all_results" + "input_id")): str},
        ),
        # the reply's own object, its list and the row are levels too
        (nested(8, str), nested(9, str)),
        (listed(7), listed(8)),
    ],
)
def test_openai_takes_as_much_as_its_guide_says_and_no_more(within: Any, over: Any) -> None:
    assert openai_faults(render(read(within), "openai")) == []
    with pytest.raises(UsageError, match=r"schema: (field|the row)"):
        render(read(over), "openai")


def test_over_a_limit_the_field_and_the_limit_are_named() -> None:
    with pytest.raises(UsageError, match=r"field 'b' takes the schema to 1,001 allowed values; OpenAI takes 1,000"):
        render(read({"a": [str(i) for i in range(999)], "b": ["x", "y"]}), "openai")
    with pytest.raises(UsageError, match=r"field '(a\.){7}a' is nested deeper than OpenAI's 10 levels"):
        render(read(nested(8, [str])), "openai")
