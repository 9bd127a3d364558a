"""A schema said in a prompt."""

from typing import Annotated, Any

from pydantic import BaseModel, Field

from lmsyz.schema import RowSchema, describe, example, read_schema


def read(obj: Any) -> RowSchema:
    schema = read_schema(obj)
    assert schema is not None
    return schema


class Person(BaseModel):
    """Somebody
    who is named.
    """

    name: str = Field(min_length=1)
    boss: "Person | None"
    staff: list["Person"]


class Merger(BaseModel):
    """Two firms become one."""

    other: str


class Sale(BaseModel):
    price: float


class Deal(BaseModel):
    """What the text says."""

    what: Merger | Sale
    who: Person


def test_every_field_is_a_line_with_its_type_values_rules_and_description() -> None:
    schema = read(
        {
            "tone": (["good", "bad"], "of the whole\n text"),
            "kind": ["only"],
            "year": Annotated[int, Field(ge=1900, le=2100)] | None,
            "ok": bool,
            "names": {"type": "array", "items": {"type": "string", "maxLength": 9}, "maxItems": 3},
            "grid": [[float]],
            "tags": [["x", "y"]],
            "either": [int | str],
            "gaps": [int | None],
            "firm": {"name": str, "code": {"type": ["string", "null"], "pattern": "^[A-Z]$"}},
        }
    )
    assert describe(schema).splitlines() == [
        '- tone (one of "good", "bad"): of the whole text',
        '- kind (always "only")',
        "- year (whole number or null, at least 1900, at most 2100)",
        "- ok (true or false)",
        "- names (list of texts, each at most 9 characters long; with at most 3 items)",
        "- grid (list of lists of numbers)",
        '- tags (list of values among "x", "y")',
        "- either (list of items, each whole number or text)",
        "- gaps (list of items, each whole number or null)",
        "- firm (object)",
        "  - name (text)",
        "  - code (text or null, matching the pattern ^[A-Z]$)",
    ]


def test_a_field_that_may_be_absent_is_said_to_be_null() -> None:
    row = {"type": "object", "properties": {"a": {"type": "string"}, "b": {"type": "string"}}, "required": ["b"]}
    assert describe(read(row)).splitlines() == ["- a (text or null)", "- b (text)"]


def test_choices_among_objects_and_objects_within_themselves_are_told() -> None:
    assert describe(read(Deal)).splitlines() == [
        "What the text says.",
        "- what (object)",
        "  either (form 1 of 2): Two firms become one.",
        "    - other (text)",
        "  either (form 2 of 2)",
        "    - price (number)",
        "- who (object): Somebody who is named.",
        "  - name (text, at least 1 character long)",
        "  - boss (Person object or null)",
        "  - staff (list of Person objects)",
        "Each Person object (Somebody who is named.) has:",
        "- name (text, at least 1 character long)",
        "- boss (Person object or null)",
        "- staff (list of Person objects)",
    ]


def test_an_example_has_the_shape_and_no_values() -> None:
    schema = read({"a": ["x", "y"], "b": int | None, "c": [str], "d": [{"e": float}], "f": {"g": bool}, "h": int | str})
    assert example(schema) == {
        "a": "<one of 'x', 'y'>",
        "b": "<whole number or null>",
        "c": ["<text>"],
        "d": [{"e": "<number>"}],
        "f": {"g": "<true or false>"},
        "h": "<whole number or text>",
    }
    assert example(read(Deal)) == {
        "what": {"other": "<text>"},
        "who": {
            "name": "<text, at least 1 character long>",
            "boss": "<Person object or null>",
            "staff": ["<Person object>"],
        },
    }


def test_an_example_stays_short_where_many_values_are_allowed() -> None:
    assert example(read({"a": [f"value {n}" for n in range(99)]})) == {"a": "<one of the allowed values>"}
    long = example(read({"a": {"type": "string", "pattern": "a" * 200}}))["a"]
    assert len(long) <= 82


def test_all_allowed_values_are_in_the_description() -> None:
    values = [f"value {n}" for n in range(99)]
    assert all(f'"{value}"' in describe(read({"a": values})) for value in values)
