"""Answers held against a schema: what passes, what is coerced, and what each refusal says."""

from typing import Annotated, Any, Literal

import pytest
from pydantic import (
    Field,
)

from lmsyz.schema import RowSchema, read_schema
from lmsyz.schema_check import InvalidAnswer, check

NAN, INFINITY = float("nan"), float("inf")


def read(obj: Any) -> RowSchema:
    schema = read_schema(obj)
    assert schema is not None
    return schema


def checked(kind: Any, value: Any) -> Any:
    found = check(read({"x": kind}), {"x": value})["x"]
    return found


def refused(obj: Any, answer: Any) -> InvalidAnswer:
    with pytest.raises(InvalidAnswer) as error:
        check(read(obj), answer)
    return error.value


@pytest.mark.parametrize(
    ("kind", "value", "wanted"),
    [
        (int, 1999.0, 1999),
        (int, -(2**63), -(2**63)),
        (float, 3, 3.0),
        (float, 2**53, 9007199254740992.0),
        (bool, False, False),
        (str, "", ""),
        (str, "naïve 😀", "naïve 😀"),
        (["Good", "bad"], " good ", "Good"),
        (["Very good", "bad"], "VERY  good", "Very good"),
        (["Caf\u00e9", "bar"], "CAFE\u0301", "Caf\u00e9"),
        (["Cafe\u0301", "bar"], "Caf\u00e9", "Cafe\u0301"),
        (["a", "A"], "A", "A"),
        ([1, 2], 2.0, 2),
        ([1.5, 2], 2, 2),
        ([True], True, True),
        (int | None, None, None),
        ([int], [1.0, 2], [1, 2]),
        ([["a", "b"]], ["A"], ["a"]),
        ([int | None], [1.0, None], [1, None]),
        ({"a": float, "b": [str]}, {"a": 1, "b": ["x"], "c": 3}, {"a": 1.0, "b": ["x"]}),
        (int | str, "5", "5"),
        (str | int, 5, 5),
        (int | str, 5.0, 5),
        (Literal["yes"] | int, "YES", "yes"),
    ],
)
def test_only_lossless_changes_are_made(kind: Any, value: Any, wanted: Any) -> None:
    found = checked(kind, value)
    assert found == wanted
    assert type(found) is type(wanted)


def test_a_value_that_fits_one_choice_as_it_is_stays_as_it_is() -> None:
    kind = {"anyOf": [{"type": "string", "enum": ["good"]}, {"type": "string", "maxLength": 4}]}
    assert checked(kind, "GOOD") == "GOOD"


def test_all_fields_come_in_the_schemas_order_and_no_others() -> None:
    schema = read({"b": str, "a": int | None, "c": {"type": "string"}})
    found = check(schema, {"z": 1, "c": "x", "b": "y"})
    assert found == {"b": "y", "a": None, "c": "x"}
    assert list(found) == ["b", "a", "c"]


def test_what_may_be_absent_is_null_at_any_depth() -> None:
    inner = {"type": "object", "properties": {"a": {"type": "string"}, "b": {"type": "integer"}}, "required": ["a"]}
    row = {"type": "object", "properties": {"n": {"type": "integer"}, "inner": inner}, "required": ["inner"]}
    assert check(read(row), {"inner": {"a": "x"}}) == {"n": None, "inner": {"a": "x", "b": None}}
    assert check(read(row), {"n": None, "inner": {"a": "x", "b": None}}) == {"n": None, "inner": {"a": "x", "b": None}}


@pytest.mark.parametrize(
    ("kind", "value", "reason", "shown"),
    [
        (int, "5", "is text, not a whole number", "'5'"),
        (int, True, "is true or false, not a whole number", "True"),
        (int, 1.5, "is a number with decimals, not a whole number", "1.5"),
        (int, NAN, "is no finite number, not a whole number", "nan"),
        (int, 2**63, "is a whole number beyond 64 bits", "9223372036854775808"),
        (int, 1e300, "is a whole number beyond 64 bits", "an integer of about 301 digits"),
        pytest.param(
            int, 10**5000, "is a whole number beyond 64 bits", "an integer of about 5001 digits", id="endless"
        ),
        (int, None, "is null", ""),
        (float, "1.5", "is text, not a number", "'1.5'"),
        (float, False, "is true or false, not a number", "False"),
        (float, INFINITY, "is no finite number", "inf"),
        (float, 2**53 + 1, "is a whole number of more digits than a float can hold", "9007199254740993"),
        (float, 10**400, "is a whole number of more digits than a float can hold", "an integer of about 401 digits"),
        (bool, 1, "is a whole number, not true or false", "1"),
        (bool, "true", "is text, not true or false", "'true'"),
        (str, 5, "is a whole number, not text", "5"),
        (str, ["a"], "is a list, not text", "['a']"),
        (str, "x\ud83d", "holds half a character (a lone surrogate)", r"'x\ud83d'"),
        (["a", "b"], "c", "is 'c', none of its 2 allowed values", "'c'"),
        (["a", "b"], "item 27 of the list", "is none of its 2 allowed values", "'item 27 of the list'"),
        (["a", "b"], "w" * 99, "is none of its 2 allowed values", "'" + "w" * 38 + "…"),
        (["a", "A"], " a ", "is ' a ', none of its 2 allowed values", "' a '"),
        (["a"], "b", "is 'b', not its one allowed value", "'b'"),
        (["a", "b"], 1, "is a whole number, not text", "1"),
        ([1, 2], True, "is true or false, not a whole number", "True"),
        ([1, 2], "1", "is text, not a whole number", "'1'"),
        ([1, 2], 3, "is none of its 2 allowed values", "3"),
        ([True], 1, "is a whole number, not true or false", "1"),
        ([str], "a", "is text, not a list", "'a'"),
        (int | str, [1], "is a list, not a whole number or text", "[1]"),
        ({"a": str}, "a", "is text, not an object", "'a'"),
    ],
)
def test_a_value_that_does_not_fit_is_refused_by_field_and_kind(kind: Any, value: Any, reason: str, shown: str) -> None:
    error = refused({"ok": str, "x": kind}, {"ok": "a", "x": value})
    assert str(error) == f"field 'x' {reason}"
    assert error.shown == shown


def test_a_missing_field_and_a_null_one_are_told_apart() -> None:
    assert str(refused({"x": int}, {})) == "field 'x' is missing"
    assert str(refused({"x": int}, {"x": None})) == "field 'x' is null"
    assert str(refused({"x": [{"a": int}]}, {"x": [{"a": 1}, {}]})) == "field 'x[].a' is missing"


def test_a_reason_does_not_change_with_the_value_or_its_place_in_a_list() -> None:
    schema = {"people": [{"age": Annotated[int, Field(ge=0)]}]}
    reasons = {
        str(refused(schema, {"people": [{"age": 1}] * n + [{"age": bad}]})) for n, bad in enumerate([-1, -22, -333])
    }
    assert reasons == {"field 'people[].age' breaks its rule \"at least 0\""}
    words = {str(refused({"x": ["a", "b"]}, {"x": f"text number {n}"})) for n in range(5)}
    assert len(words) == 1


@pytest.mark.parametrize(
    ("node", "good", "bad", "words"),
    [
        ({"type": "integer", "minimum": 1}, 1, 0, "at least 1"),
        ({"type": "integer", "maximum": 5}, 5, 6.0, "at most 5"),
        ({"type": "number", "exclusiveMinimum": 0}, 0.1, 0, "more than 0"),
        ({"type": "number", "exclusiveMaximum": 1}, 0.9, 1, "less than 1"),
        ({"type": "number", "multipleOf": 0.1}, 0.3, 0.25, "a multiple of 0.1"),
        ({"type": "number", "multipleOf": 0.01}, 1e30, 1e-30, "a multiple of 0.01"),
        ({"type": "integer", "multipleOf": 5}, 10, 11, "a multiple of 5"),
        ({"type": "string", "minLength": 2}, "é😀", "é", "at least 2 characters long"),
        ({"type": "string", "maxLength": 2}, "é😀", "abc", "at most 2 characters long"),
        ({"type": "string", "pattern": "^[A-Z]{2}$"}, "US", "usa", "matching the pattern ^[A-Z]{2}$"),
        ({"type": "array", "items": {"type": "integer"}, "minItems": 1}, [1], [], "with at least 1 item"),
        ({"type": "array", "items": {"type": "integer"}, "maxItems": 1}, [1], [1, 2], "with at most 1 item"),
        ({"type": "array", "items": {"type": "integer"}, "uniqueItems": True}, [1, 2], [1, 1.0], "with no item twice"),
        ({"type": "string", "format": "date"}, "2024-02-29", "2023-02-29", "a date as YYYY-MM-DD"),
        ({"type": "string", "format": "date"}, "2024-02-29", "20240229", "a date as YYYY-MM-DD"),
        ({"type": "string", "format": "date"}, "2024-02-29", "2024-W09-4", "a date as YYYY-MM-DD"),
        ({"type": "string", "format": "date"}, "2024-02-29", "29 February 2024", "a date as YYYY-MM-DD"),
        (
            {"type": "string", "format": "date-time"},
            "2024-02-29T09:30:00Z",
            "2024-02-29",
            "a date and time as YYYY-MM-DDThh:mm:ss",
        ),
        ({"type": "string", "format": "time"}, "09:30:00", "half past nine", "a time as hh:mm:ss"),
        ({"type": "string", "format": "time"}, "09:30", "09", "a time as hh:mm:ss"),
        ({"type": "string", "format": "email"}, "a@b.org", "a at b", "in the format email"),
        ({"type": "string", "format": "uuid"}, "0" * 32, "0", "in the format uuid"),
        ({"type": "string", "format": "ipv4"}, "127.0.0.1", "127.0.0.256", "in the format ipv4"),
        ({"type": "string", "format": "ipv6"}, "::1", "1", "in the format ipv6"),
    ],
)
def test_every_constraint_is_held_and_said_in_words(node: Any, good: Any, bad: Any, words: str) -> None:
    assert checked(node, good) == good
    assert str(refused({"x": node}, {"x": bad})) == f"field 'x' breaks its rule \"{words}\""


def test_an_unknown_format_is_not_checked() -> None:
    assert checked({"type": "string", "format": "isin"}, "anything") == "anything"


def test_the_reason_of_a_union_is_that_of_the_choice_of_the_same_kind() -> None:
    kind = {"anyOf": [{"type": "integer", "minimum": 0}, {"type": "string"}]}
    assert str(refused({"x": kind}, {"x": -1})) == "field 'x' breaks its rule \"at least 0\""
    two = {"anyOf": [{"type": "integer", "minimum": 9}, {"type": "integer", "maximum": 0}]}
    assert str(refused({"x": two}, {"x": 5})) == "field 'x' fits none of its types"


TREE: dict[str, Any] = {
    "$ref": "#/$defs/Tree",
    "$defs": {
        "Tree": {
            "type": "object",
            "properties": {
                "size": {"type": "integer"},
                "left": {"anyOf": [{"$ref": "#/$defs/Tree"}, {"type": "null"}]},
                "more": {"type": "array", "items": {"$ref": "#/$defs/Tree"}},
            },
            "required": ["size", "left"],
        }
    },
}


def test_what_contains_itself_is_checked_to_the_bottom() -> None:
    leaf = {"size": 1.0, "left": None, "x": 1}
    clean = {"size": 1, "left": None, "more": None}
    found = check(read(TREE), {"size": 3, "left": leaf, "more": [leaf, leaf | {"left": leaf}]})
    assert found == {"size": 3, "left": clean, "more": [clean, clean | {"left": clean}]}
    error = refused(TREE, {"size": 3, "left": {"size": 1, "left": {"size": "x", "left": None}}})
    assert str(error) == "field 'Tree.size' is text, not a whole number"


def test_a_bottomless_answer_is_refused_not_crashed_on() -> None:
    deep: Any = {"size": 1, "left": None}
    for _ in range(5_000):
        deep = {"size": 1, "left": deep}
    assert str(refused(TREE, deep)) == "the answer is nested too deeply"
