"""Facts that hold for any schema and any answer."""

import datetime
import json
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st
from jsonschema import Draft202012Validator
from test_schema_render import FAULTS, TARGETS

from lmsyz.errors import UsageError
from lmsyz.schema import RowSchema, describe, example, read_schema
from lmsyz.schema_check import InvalidAnswer, check
from lmsyz.schema_render import render

Case = tuple[Any, st.SearchStrategy[Any]]  # a schema, and the answers that fit it

NAMES = st.sampled_from(["a", "b", "c", "type", "title", "items", "description", "é", "two words"])
WHOLE = st.integers(-(2**63), 2**63 - 1)
REAL = st.floats(allow_nan=False, allow_infinity=False)
DATES = st.dates().map(datetime.date.isoformat)
WORDS = st.text(min_size=1).filter(lambda text: text not in ("str", "int", "float", "bool"))
SCALARS: list[Case] = [
    (str, st.text()),
    ((str, "in words"), st.text()),
    ("str", st.text()),
    (int, WHOLE),
    (float, REAL),
    (bool, st.booleans()),
    (datetime.date, DATES),
    (str | None, st.none() | st.text()),
    (int | None, st.none() | WHOLE),
    (int | float, REAL),
]
VALUES = (
    st.lists(WORDS, min_size=1, max_size=5, unique=True)
    | st.lists(WHOLE, min_size=1, max_size=5, unique=True)
    | st.lists(st.booleans(), min_size=1, unique=True)
)


def a_list(case: Case) -> Case:
    return [case[0]], st.lists(case[1], max_size=3)


def an_object(cases: dict[str, Case]) -> Case:
    return {name: kind for name, (kind, _) in cases.items()}, st.fixed_dictionaries(
        {name: answers for name, (_, answers) in cases.items()}
    )


CASES = st.recursive(
    st.sampled_from(SCALARS) | VALUES.map(lambda values: (values, st.sampled_from(values))),
    lambda inner: inner.map(a_list) | st.dictionaries(NAMES, inner, min_size=1, max_size=4).map(an_object),
    max_leaves=8,
)
ROWS = st.dictionaries(NAMES, CASES, min_size=1, max_size=5).map(an_object)


def read(obj: Any) -> RowSchema:
    schema = read_schema(obj)
    assert schema is not None
    return schema


@settings(max_examples=150)
@given(st.data())
def test_an_answer_that_fits_passes_and_every_rendered_schema_takes_it(data: st.DataObject) -> None:
    shorthand, answers = data.draw(ROWS)
    answer = data.draw(answers)
    schema = read(shorthand)
    assert check(schema, answer) == answer
    for target in TARGETS:
        rendered = render(schema, target, verify=True)
        Draft202012Validator.check_schema(rendered)
        assert FAULTS[target](rendered) == []
        row = {"input_id": "1", "input_opening": "x", **answer}
        Draft202012Validator(rendered).validate({"all_results": [row]})


@settings(max_examples=60)
@given(ROWS)
def test_what_was_read_reads_as_itself(case: Case) -> None:
    schema = read(case[0])
    for again in (schema.json_schema, json.loads(schema.canonical), {"all_results": [schema.json_schema]}):
        assert read(again) == schema


@settings(max_examples=60)
@given(ROWS)
def test_every_field_is_described_and_exemplified(case: Case) -> None:
    schema = read(case[0])
    top = [line for line in describe(schema).splitlines() if line.startswith("- ")]
    assert len(top) == len(schema.fields)
    assert list(example(schema)) == [field.name for field in schema.fields]
    json.dumps(example(schema))


# --- against an independent validator ----------------------------------------------------------------

BOUND = st.integers(-3, 3)
NODES = st.recursive(
    st.one_of(
        st.builds(lambda a, b: {"type": "integer", "minimum": min(a, b), "maximum": max(a, b)}, BOUND, BOUND),
        st.builds(lambda a: {"type": "number", "exclusiveMinimum": a}, BOUND),
        st.builds(lambda n: {"type": "integer", "multipleOf": n}, st.integers(1, 3)),
        st.builds(lambda n: {"type": "string", "minLength": 1, "maxLength": n}, st.integers(1, 3)),
        st.just({"type": "string", "pattern": "^a"}),
        st.just({"type": "boolean"}),
        st.just({"enum": ["a", "ab", None]}),
        st.just({"enum": [1, 2.5]}),
    ),
    lambda inner: st.one_of(
        st.builds(lambda a, n: {"type": "array", "items": a, "maxItems": n}, inner, st.integers(0, 2)),
        st.builds(lambda a: {"type": "array", "items": a, "uniqueItems": True}, inner),
        st.builds(lambda a, b: {"anyOf": [a, b]}, inner, inner),
        st.builds(
            lambda a, b: {"type": "object", "properties": {"p": a, "q": b}, "required": ["p", "q"]}, inner, inner
        ),
    ),
    max_leaves=5,
)
ATOMS = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-4, 4),
    st.sampled_from([0.5, 2.5, 1.0, -2.0, 2.0**60]),
    st.sampled_from(["", "a", "ab", "abc", "b", "1"]),
)
JSON = st.recursive(
    ATOMS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(["p", "q"]), inner, max_size=2),
    max_leaves=6,
)


@settings(max_examples=400)
@given(st.data())
def test_an_answer_passes_if_an_independent_validator_takes_it_and_what_passes_is_taken(data: st.DataObject) -> None:
    schema = read({"type": "object", "properties": {"x": data.draw(NODES)}, "required": ["x"]})
    value = data.draw(JSON)
    is_valid = Draft202012Validator(schema.json_schema).is_valid({"x": value})
    try:
        found = check(schema, {"x": value})
    except InvalidAnswer:
        assert not is_valid
        return
    assert Draft202012Validator(schema.json_schema).is_valid(found)
    assert check(schema, found) == found
    if is_valid:
        assert found["x"] == value


@settings(max_examples=200)
@given(JSON | st.dictionaries(NAMES, JSON, max_size=3))
def test_whatever_is_given_is_read_or_refused_with_a_usage_error(obj: Any) -> None:
    try:
        schema = read_schema(obj)
    except UsageError as error:
        schema, message = None, str(error)
    else:
        message = ""
    assert message.startswith("schema") or (schema is None) == (obj is None)
