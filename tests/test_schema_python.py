"""Pydantic models and other Python types as schemas."""

from collections import deque
from datetime import time, timedelta
from decimal import Decimal
from fractions import Fraction
from ipaddress import IPv4Address
from pathlib import Path
from typing import Annotated, Any
from uuid import UUID

import pytest
from pydantic import AfterValidator, BaseModel, ConfigDict, Field, HttpUrl, computed_field, field_validator
from test_schema import ReviewData, Reviews, ReviewWithId, a_field, read, refused


class Plain(BaseModel):
    price: float


class Defaulted(BaseModel):
    price: float = 1.0


class Validated(BaseModel):
    price: float

    @field_validator("price")
    @classmethod
    def positive(cls, value: float) -> float:
        return value


class Trimmed(BaseModel):
    model_config = ConfigDict(str_strip_whitespace=True)
    price: str


class Prepared(BaseModel):
    price: list[float] = Field(default_factory=list)

    def model_post_init(self, context: Any, /) -> None:
        """Do something of its own."""


def test_what_a_model_does_beyond_its_shape_is_in_the_canonical_text() -> None:
    assert read(Plain).canonical == read({"price": float}).canonical
    assert "Validated.positive" in read(Validated).canonical
    assert "default 1.0" in read(Defaulted).canonical
    assert "strip_whitespace" in read(Trimmed).canonical
    assert "initialisation of Prepared; default list()" in read(Prepared).canonical
    assert len({read(m).sha256 for m in (Plain, Defaulted, Validated, Trimmed)}) == 4


@pytest.mark.parametrize(
    "kind", [Validated, Defaulted, Trimmed, list[Validated], Annotated[float, AfterValidator(abs)]]
)
def test_a_model_with_code_of_its_own_is_refused_within_a_dict(kind: Any) -> None:
    message = refused({"deal": kind})
    assert "field 'deal'" in message
    assert "Write the whole schema as one pydantic model." in message


def test_a_plain_model_may_stand_within_a_dict() -> None:
    assert read({"deal": Plain}) == read({"deal": {"price": float}})


@pytest.mark.parametrize("kind", [Path, IPv4Address, UUID, Decimal, Fraction, deque[int], time, timedelta, HttpUrl])
def test_the_libraries_own_types_count_as_plain(kind: Any) -> None:
    assert a_field(kind).name == "x"


def test_columns_are_named_by_alias() -> None:
    class Aliased(BaseModel):
        model_config = ConfigDict(alias_generator=lambda name: name.title())
        price: float
        firm: str = Field(alias="Firm name")

    assert [field.name for field in read(Aliased).fields] == ["Price", "Firm name"]


def test_a_model_that_dumps_other_names_than_it_asks_for_is_refused() -> None:
    class Renamed(BaseModel):
        price: float = Field(validation_alias="Price")

    class Hidden(BaseModel):
        price: float = Field(exclude=True)

    class Nested(BaseModel):
        deal: Renamed

    for model in (Renamed, Nested):
        assert "field 'Price' of Renamed is not what model_dump(by_alias=True) returns" in refused(model)
    assert "field 'price' of Hidden" in refused(Hidden)


def test_columns_have_the_type_of_what_the_model_hands_back() -> None:
    class Money(BaseModel):
        amount: Decimal

        @computed_field  # type: ignore[prop-decorator]
        @property
        def double(self) -> Decimal:
            return self.amount * 2

    assert [(f.name, f.dtype) for f in read(Money).fields] == [("amount", "string")]


def test_an_envelope_model_gives_its_row_model_without_input_id() -> None:
    schema = read(Reviews)
    assert schema.model is not None
    assert issubclass(schema.model, ReviewWithId)
    assert [field.name for field in schema.fields] == ["tone", "score", "year", "people"]


def test_an_envelope_model_without_one_row_model_is_refused() -> None:
    class Odd(BaseModel):
        all_results: list[Annotated[ReviewData, "x"]]

    assert "lists no single pydantic model" in refused(Odd)


def test_a_default_that_json_cannot_hold_is_no_trouble() -> None:
    class Odd(BaseModel):
        price: Any = Field(default=object(), json_schema_extra={"type": "number"})
        firm: str

    assert [field.is_optional for field in read(Odd).fields] == [True, False]


def test_a_model_that_contains_itself_keeps_a_definition() -> None:
    schema = read(Part)
    assert list(schema.defs) == ["Part"]
    assert schema.fields[1].schema == {"type": "array", "items": {"$ref": "#/$defs/Part"}}


class Part(BaseModel):
    name: str
    parts: list["Part"]
