"""Every accepted form of a schema, and every refusal."""

import json
import pickle
import weakref
from dataclasses import dataclass
from datetime import date, datetime
from enum import Enum
from pathlib import Path
from typing import Annotated, Any, Literal, Optional

import numpy as np
import pandas as pd
import pytest
from pydantic import BaseModel, Field

from lmsyz.errors import UsageError
from lmsyz.schema import RowSchema, read_schema

TONES = ["good", "bad"]
ROW = {
    "type": "object",
    "properties": {
        "tone": {"type": "string", "enum": TONES},
        "score": {"type": "number"},
        "year": {"anyOf": [{"type": "integer"}, {"type": "null"}]},
        "people": {
            "type": "array",
            "items": {"type": "object", "properties": {"name": {"type": "string"}}, "required": ["name"]},
        },
    },
    "required": ["tone", "score", "year", "people"],
}
ENVELOPE = {
    "type": "object",
    "properties": {
        "all_results": {
            "type": "array",
            "items": ROW
            | {
                "properties": {"input_id": {"type": "string"}, **ROW["properties"]},
                "required": ["input_id", *ROW["required"]],
            },
        }
    },
    "required": ["all_results"],
}
SHORTHAND = {"tone": TONES, "score": float, "year": int | None, "people": [{"name": str}]}


class Tone(Enum):
    GOOD = "good"
    BAD = "bad"


class Person(BaseModel):
    name: str


class Review(BaseModel):
    tone: Literal["good", "bad"]
    score: float
    year: int | None
    people: list[Person]


class ReviewWithId(Review):
    input_id: int


class Reviews(BaseModel):
    all_results: list[ReviewWithId]


@dataclass
class ReviewData:
    tone: Tone
    score: float
    year: int | None
    people: list[Person]


def read(obj: Any) -> RowSchema:
    schema = read_schema(obj)
    assert schema is not None
    return schema


def refused(obj: Any) -> str:
    with pytest.raises(UsageError) as error:
        read_schema(obj)
    return str(error.value)


def a_field(kind: Any) -> Any:
    return read({"x": kind}).fields[0]


def test_no_schema_is_none() -> None:
    assert read_schema(None) is None


def test_what_was_read_before_is_handed_back() -> None:
    schema = read(SHORTHAND)
    assert read_schema(schema) is schema


@pytest.mark.parametrize(
    "form",
    [
        SHORTHAND,
        SHORTHAND | {"year": Optional[int], "tone": Literal["good", "bad"]},  # noqa: UP045
        SHORTHAND | {"tone": Tone, "people": list[Person]},
        SHORTHAND | {"tone": [Tone.GOOD, Tone.BAD], "people": [Person]},
        SHORTHAND | {"score": {"type": "number"}, "year": {"type": ["integer", "null"]}},
        {"all_results": [{"input_id": str, **SHORTHAND}]},
        Review,
        Reviews,
        ReviewData,
        ROW,
        ROW
        | {"additionalProperties": False, "title": "Review", "$schema": "https://json-schema.org/draft/2020-12/schema"},
        ENVELOPE,
        {"type": "json_schema", "json_schema": {"name": "row", "strict": True, "schema": ROW}},
        {"type": "json_schema", "name": "row", "strict": True, "schema": ENVELOPE},
        {"name": "row", "strict": True, "schema": ROW},
        {"name": "row", "schema": ROW},
    ],
)
def test_forms_that_say_the_same_give_the_same_schema(form: Any) -> None:
    assert read(form).canonical == read(SHORTHAND).canonical
    assert read(form).fields == read(SHORTHAND).fields
    assert read(form).sha256 == read(SHORTHAND).sha256


@pytest.mark.parametrize(
    "obj",
    [
        ROW,
        ENVELOPE,
        {"tone": TONES, "score": "float", "year": {"type": ["integer", "null"]}, "people": [{"name": "str"}]},
    ],
)
def test_a_json_file_may_hold_any_dict_form(obj: Any, tmp_path: Path) -> None:
    path = tmp_path / "schema.json"
    path.write_text(json.dumps(obj), encoding="utf-8-sig")
    assert read(path) == read(str(path)) == read(SHORTHAND)


@pytest.mark.parametrize(
    ("kind", "dtype"),
    [
        (str, "string"),
        (int, "Int64"),
        (float, "Float64"),
        (int | float, "Float64"),
        (bool, "boolean"),
        ([True, False], "boolean"),
        (TONES, "category"),
        ([1, 2, 3], "category"),
        (list(np.array([1, 2])), "category"),
        (date, "string"),
        (datetime, "string"),
        ([str], "object"),
        ([TONES], "object"),
        ({"a": str}, "object"),
        (int | str, "object"),
        (Annotated[int, Field(ge=0)] | float, "Float64"),
    ],
)
def test_every_type_has_its_column(kind: Any, dtype: str) -> None:
    assert a_field(kind).dtype == dtype


def test_a_category_keeps_its_values_in_the_order_given() -> None:
    field = a_field(["low", "mid", "high", None])
    assert field.categories == ("low", "mid", "high")
    assert field.nullable


def test_a_description_comes_from_a_pair_or_from_pydantic() -> None:
    assert a_field((int | None, "the year")).description == "the year"
    assert a_field((TONES, "the tone")).description == "the tone"
    assert a_field(Annotated[int, Field(ge=1, description="stars")]).description == "stars"
    assert a_field(Annotated[int, Field(ge=1)]).schema == {"type": "integer", "minimum": 1}


def test_a_field_may_be_named_like_a_word_of_json_schema() -> None:
    schema = read({"type": ["equity", "debt"], "properties": float, "enum": str, "items": [str], "required": bool})
    assert [field.name for field in schema.fields] == ["type", "properties", "enum", "items", "required"]
    assert [f.name for f in read({"paper": {"title": str, "description": str}}).fields] == ["paper"]
    assert read({"type": str}).fields[0].dtype == "string"


@pytest.mark.parametrize(
    "kind",
    [
        {"enum": ["a", "b"]},
        {"const": "a"},
        {"enum": ["a"], "description": "x"},
        {"type": ["string", "number"]},
        {"properties": {"a": {"type": "string"}}},
        {"properties": {"a": "str"}, "required": ["a"]},
        {"items": {"type": "string"}},
    ],
)
def test_what_can_be_read_two_ways_is_refused_with_advice(kind: Any) -> None:
    assert "field 'x' can be read as shorthand and as a JSON Schema" in refused({"x": kind})
    assert 'Add "type"' in refused({"x": kind})


@pytest.mark.parametrize(
    ("kind", "advice"),
    [
        ("good|bad", "List the allowed values: ['good', 'bad']."),
        ("the tone of it", "give its type as well: (str, 'the tone of it')"),
        ("float64", "Give a type (str, int, float, bool)"),
        (("good", "bad"), "Use a list for allowed values"),
        (("good", "bad", "mixed"), "Use a list for allowed values"),
        ({"good"}, "Use a list for allowed values"),
        (np.array(["a"]), ".tolist()"),
        (pd.Series(["a"]), ".tolist()"),
        (None, "Give a type"),
        (3, "Give a type"),
        ([], 'such as ["good", "bad"]'),
        ([str, None], "T | None"),
        (["str", "the tone"], '{"type": "string", "enum"'),
        (list, "Say of what"),
        (dict, "Name every key as a field"),
        (dict[str, int], "Name every key as a field"),
        (tuple[int, str], "Use a list of one type"),
        (object, "has no type"),
        (np.float64, "no JSON Schema"),
        (len, "is the function len"),
        ({}, "Name its fields"),
        ({"type": "strin"}, "one of the types string, integer"),
        (["a", 1], "Write them all as text"),
        (["a", "a"], "'a' twice"),
        ([float("nan"), 1.0], "Write them all as text"),
        ([None], "has the value None"),
        ({"enum": [None], "type": "null"}, "is always null"),
    ],
)
def test_a_wrong_type_is_refused_at_its_field(kind: Any, advice: str) -> None:
    message = refused({"ok": str, "x": kind})
    assert "field 'x" in message
    assert advice in message


@pytest.mark.parametrize("name", ["input_id", "input_opening", "ie_error"])
def test_the_names_of_our_own_columns_are_refused(name: str) -> None:
    assert f"field {name!r} is" in refused({name: str, "tone": str})


@pytest.mark.parametrize(
    ("obj", "message"),
    [
        ({}, "schema={} has no fields"),
        ({1: str}, "a field named 1"),
        ({" ": str}, "a field named ' '"),
        (5, "schema=5 is not a schema"),
        (str, "is not a schema"),
        ([str], "is not a schema"),
        (Person(name="x"), "Give the class itself: schema=Person."),
        ({"type": "string"}, 'A field of the name "type" is written {"type": str}.'),
        ({"type": "object"}, "is an object without fields"),
        ({"type": ["object", "null"], "properties": {"a": {"type": "string"}}}, "the row is a union"),
        ({"type": "json_schema"}, "has no 'schema'"),
        ({"type": "json_schema", "json_schema": 3}, "has no 'schema'"),
        ({"all_results": [str]}, "field 'all_results' is no list of objects"),
        ({"all_results": [{"input_id": str}]}, "has no fields beside 'input_id'"),
        ({"all_results": [{"a": str}], "n": int}, "field 'n' stands beside 'all_results'"),
        ({"a": ["x\ud83d"]}, "broken character"),
    ],
)
def test_a_wrong_whole_is_refused(obj: Any, message: str) -> None:
    assert message in refused(obj)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"{", "is not JSON: "),
        (b'{"a": "str", "a": "int"}', "the key 'a' is there twice"),
        (b"[1]", "holds no JSON object"),
        (b"\xff\xfe\x00", "is not UTF-8 text"),
        (b'{"a": "strin"}', "field 'a' has the value 'strin'"),
        (b"[" * 100_000, "cannot be read"),
    ],
)
def test_a_bad_file_is_refused_by_name(content: bytes, message: str, tmp_path: Path) -> None:
    path = tmp_path / "schema.json"
    path.write_bytes(content)
    assert "schema.json" in refused(path)
    assert message in refused(path)


def test_a_file_that_cannot_be_opened_is_refused_by_name(tmp_path: Path) -> None:
    assert "nowhere.json' does not exist" in refused(str(tmp_path / "nowhere.json"))
    assert "cannot be read" in refused(tmp_path)
    assert "cannot be read" in refused("x" * 5_000)
    assert "json.loads" in refused('{"a": "str"}')


def test_canonical_changes_with_all_that_shapes_an_answer() -> None:
    variants = [
        {"a": str, "b": int},
        {"b": int, "a": str},
        {"a": (str, "the first"), "b": int},
        {"a": (str, "the second"), "b": int},
        {"a": str | None, "b": int},
        {"a": str, "b": Annotated[int, Field(ge=0)]},
        {"a": ["x", "y"], "b": int},
        {"a": ["y", "x"], "b": int},
        ROW | {"description": "A review."},
    ]
    assert len({read(each).canonical for each in variants}) == len(variants)
    assert len({read(each).sha256 for each in variants}) == len(variants)


def test_canonical_is_json_of_the_row() -> None:
    schema = read({"a": ["é"]})
    assert json.loads(schema.canonical) == schema.json_schema


def test_equality_and_hash_follow_the_canonical_text_and_the_model() -> None:
    assert read(SHORTHAND) == read(ROW)
    assert hash(read(SHORTHAND)) == hash(read(ROW))
    assert read(SHORTHAND) != read({"a": str})
    assert read(Review) == read(Review)
    assert read(Reviews) == read(Reviews)
    assert read(Review) != read(SHORTHAND)
    assert read(SHORTHAND) != "schema"


def test_a_row_schema_can_be_pickled_and_weakly_referenced() -> None:
    schema = read(Review)
    assert pickle.loads(pickle.dumps(schema)) == schema
    assert weakref.ref(schema)() is schema
