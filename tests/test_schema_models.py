"""Answers validated by a user's own pydantic model."""

import functools
import gc
from decimal import Decimal
from typing import Annotated, Any, Literal

import pytest
from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    field_serializer,
    field_validator,
    model_validator,
)
from test_schema_check import read, refused

from lmsyz.schema_check import check

NAN = float("nan")


class Firm(BaseModel):
    model_config = ConfigDict(alias_generator=lambda name: name.title())
    name: str
    country: str = "US"


class Deal(BaseModel):
    model_config = ConfigDict(extra="forbid")
    kind: Literal["merger", "sale"]
    price: float | None
    year: int = 2000
    firms: list[Firm] = Field(min_length=1)

    @field_validator("year")
    @classmethod
    def not_in_the_future(cls, value: int) -> int:
        if value > 2030:
            raise ValueError("the year is in the future")
        return value

    @model_validator(mode="after")
    def priced(self) -> "Deal":
        if self.kind == "sale" and self.price is None:
            raise ValueError("a sale has a price")
        return self


GOOD: dict[str, Any] = {"kind": "merger", "price": None, "year": 1999, "firms": [{"Name": "A", "Country": "DE"}]}


def test_a_models_own_answer_comes_back_by_alias() -> None:
    assert check(read(Deal), GOOD) == GOOD


def test_an_answer_is_coerced_before_a_model_sees_it() -> None:
    given = {"kind": " MERGER", "price": 5, "year": 1999.0, "firms": [{"Name": "A", "x": 1}], "note": "y"}
    wanted = {"kind": "merger", "price": 5.0, "year": 1999, "firms": [{"Name": "A", "Country": "US"}]}
    assert check(read(Deal), given) == wanted


def test_null_for_a_field_with_a_default_gives_the_default() -> None:
    given = {"kind": "merger", "year": None, "firms": [{"Name": "A", "Country": None}]}
    assert check(read(Deal), given) == GOOD | {"year": 2000, "firms": [{"Name": "A", "Country": "US"}]}


def test_null_is_not_the_default_where_null_is_an_answer() -> None:
    class Both(BaseModel):
        x: int | None = 5

    assert check(read(Both), {}) == {"x": 5}
    assert check(read(Both), {"x": None}) == {"x": None}


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"year": "1999"}, "field 'year': Input should be a valid integer"),
        ({"price": "5"}, "field 'price': Input should be a valid number"),
        ({"kind": "gift"}, "field 'kind': Input should be 'merger' or 'sale'"),
        ({"year": 2031}, "field 'year': Value error, the year is in the future"),
        ({"kind": "sale"}, "the answer: Value error, a sale has a price"),
        ({"firms": []}, "field 'firms': List should have at least 1 item after validation, not 0"),
        ({"firms": [{"Name": "A"}, {}]}, "field 'firms[].Name' is missing"),
        ({"firms": [{"Name": 5}]}, "field 'firms[].Name': Input should be a valid string"),
        ({"price": NAN}, "the answer holds a number that is not finite"),
        ({"firms": [{"Name": "\ud83d"}]}, "the answer holds half a character (a lone surrogate)"),
        ({"year": 2**70}, "field 'year': Value error, the year is in the future"),
        ({"year": -(2**70)}, "field 'year' is a whole number beyond 64 bits after the model's own code"),
    ],
)
def test_a_models_refusal_names_the_field_by_its_alias(changes: dict[str, Any], reason: str) -> None:
    assert str(refused(Deal, GOOD | changes)) == reason


def test_a_validator_may_read_what_the_schema_does_not_allow() -> None:
    class Read(BaseModel):
        share: Annotated[float, BeforeValidator(lambda v: float(v.rstrip("%")) / 100 if isinstance(v, str) else v)]

    assert check(read(Read), {"share": "12%"}) == {"share": 0.12}
    assert check(read(Read), {"share": 1}) == {"share": 1.0}


def test_a_fault_in_a_validator_fails_the_row_not_the_run() -> None:
    class Faulty(BaseModel):
        x: Annotated[int, AfterValidator(lambda v: 1 // (v - 1))]

    assert check(read(Faulty), {"x": 3}) == {"x": 0}
    assert str(refused(Faulty, {"x": 1})).startswith("the model's own code failed (ZeroDivisionError: ")


def test_what_a_models_own_code_returns_has_to_fit_its_column() -> None:
    class Shouting(BaseModel):
        tone: Annotated[Literal["good", "bad"], AfterValidator(lambda v: v.upper())]

    class Wordy(BaseModel):
        n: Annotated[int, AfterValidator(lambda v: f"{v} things")]

    assert (
        str(refused(Shouting, {"tone": "good"}))
        == "field 'tone' is none of its allowed values after the model's own code"
    )
    assert str(refused(Wordy, {"n": 1})) == "field 'n' is text, not a whole number after the model's own code"


def test_a_serialiser_that_says_what_it_returns_shapes_the_column() -> None:
    class Priced(BaseModel):
        price: Decimal
        year: int

        @field_serializer("year")
        def short(self, year: int) -> str:
            return f"'{year % 100}"

    schema = read(Priced)
    assert [field.dtype for field in schema.fields] == ["string", "string"]
    assert check(schema, {"price": 1.5, "year": 1999}) == {"price": "1.5", "year": "'99"}


def test_the_rows_of_an_envelope_model_are_validated_without_their_id() -> None:
    class Row(BaseModel):
        input_id: int
        x: int

        @field_validator("x")
        @classmethod
        def positive(cls, value: int) -> int:
            if value < 0:
                raise ValueError("negative")
            return value

    class Envelope(BaseModel):
        all_results: list[Row]

    assert check(read(Envelope), {"x": 1.0}) == {"x": 1}
    assert str(refused(Envelope, {"x": -1})) == "field 'x': Value error, negative"


def test_a_model_that_contains_itself_is_validated_to_the_bottom() -> None:
    found = check(read(Part), {"name": "a", "parts": [{"name": "b", "size": 2.0}]})
    assert found == {"name": "a", "size": 1, "parts": [{"name": "b", "size": 2, "parts": []}]}
    assert str(refused(Part, {"name": "a", "parts": [{"name": 5}]})).startswith("field 'parts[].name': ")


class Part(BaseModel):
    name: str
    size: int = 1
    parts: list["Part"] = []


def test_the_choice_among_models_is_made_by_their_fields() -> None:
    class Merger(BaseModel):
        kind: Literal["merger"]
        other: str

    class Sale(BaseModel):
        kind: Literal["sale"]
        price: float = 1.0

    class Event(BaseModel):
        what: Merger | Sale

    assert check(read(Event), {"what": {"kind": "Sale", "x": 1}}) == {"what": {"kind": "sale", "price": 1.0}}
    assert check(read(Event), {"what": {"kind": "merger", "other": "B", "price": 2}}) == {
        "what": {"kind": "merger", "other": "B"}
    }
    assert "field 'what." in str(refused(Event, {"what": {"kind": "gift"}}))
    assert "field 'what." in str(refused(Event, {"what": {}}))


def test_two_models_of_one_shape_keep_their_own_validators() -> None:
    def made(sign: int) -> type[BaseModel]:
        class Same(BaseModel):
            x: Annotated[int, AfterValidator(functools.partial(int.__mul__, sign))]

        return Same

    plus, minus = read(made(1)), read(made(-1))
    assert check(plus, {"x": 2}) == {"x": 2}
    assert check(minus, {"x": 2}) == {"x": -2}
    gc.collect()
    assert check(plus, {"x": 2}) == {"x": 2}
