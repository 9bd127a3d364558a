"""Hold one answer against the row schema: validated, and coerced only where nothing can be lost. Pure.

Lossless coercions: ``1999.0`` becomes ``1999`` where an integer is asked, an integer becomes a float where a number is,
an enum's value in other letter case, spacing or Unicode form becomes the enum's own, an absent field that may be null
becomes null. Text is never read as a number. Fields that were not asked for are dropped.

A reason is worded so that rows that failed for one cause share it, since a run's report groups by it: it names the
field (``people[].name``, never a position in a list), and says what came by its kind. The value itself is in
``InvalidAnswer.shown``; only a short word in the place of an allowed value stands in the reason, because there the same
few words come again and again and are what a user wants to count.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from functools import lru_cache
from typing import TYPE_CHECKING, Any

from lmsyz.schema import Field, RowSchema
from lmsyz.schema_compile import Checker, Compiler, InvalidAnswer, place
from lmsyz.schema_normal import Node

if TYPE_CHECKING:
    from pydantic import BaseModel, ValidationError

__all__ = ["InvalidAnswer", "check"]

_LONGEST = 160
_COLUMNS: Mapping[str, Node] = {
    "Int64": {"type": "integer"},
    "Float64": {"type": "number"},
    "boolean": {"type": "boolean"},
    "string": {"type": "string"},
}


def check(schema: RowSchema, answer: Mapping[str, Any]) -> dict[str, Any]:
    """Return an answer's fields, validated and coerced.

    Parameters
    ----------
    schema : RowSchema
        What was asked for.
    answer : mapping
        What came back for one row, without ``input_id``.

    Returns
    -------
    dict
        Every field of the schema, in its order.

    Raises
    ------
    InvalidAnswer
        A field is missing or has a value that it cannot have.

    Examples
    --------
    >>> from lmsyz.schema import read_schema
    >>> check(read_schema({"year": int, "tone": ["good", "bad"]}), {"year": 1999.0, "tone": "Good", "note": "x"})
    {'year': 1999, 'tone': 'good'}
    """
    given = answer if isinstance(answer, dict) else dict(answer)
    try:
        checked: dict[str, Any] = _checker(schema)(given)
    except RecursionError:
        raise InvalidAnswer("the answer is nested too deeply") from None
    return checked


@lru_cache(maxsize=128)
def _checker(schema: RowSchema) -> Checker:
    shape = Compiler(schema.defs, for_model=schema.model is not None).row(schema.json_schema)
    return _model_checker(schema, schema.model, shape) if schema.model else shape


def _model_checker(schema: RowSchema, model: type[BaseModel], shape: Checker) -> Checker:
    """Make the checker that lets a model validate an answer, and sees that its columns can hold what it makes of it."""
    columns = [(field.name, _column_checker(field)) for field in schema.fields]

    def check_model(answer: Any) -> dict[str, Any]:
        dumped = _dumped(model, shape(answer))
        out = {}
        for name, hold in columns:
            value = dumped.get(name)
            out[name] = value if value is None or hold is None else hold(value)
        return out

    return check_model


def _column_checker(field: Field) -> Checker | None:
    """Make the checker of what a model's own code returned, where the column is of a type."""
    if field.dtype == "category":
        values = set(field.categories)

        def hold_category(value: Any) -> Any:
            if isinstance(value, str | int | float) and value in values:
                return value
            raise InvalidAnswer(
                f"{place((field.name,))} is none of its allowed values after the model's own code", value
            )

        return hold_category
    if field.dtype not in _COLUMNS:
        return None
    hold = Compiler({}).value(_COLUMNS[field.dtype], (field.name,))

    def hold_type(value: Any) -> Any:
        try:
            return hold(value)
        except InvalidAnswer as error:
            raise InvalidAnswer(f"{error} after the model's own code", value) from None

    return hold_type


def _dumped(model: type[BaseModel], value: Any) -> dict[str, Any]:
    """Run a model over an answer as over JSON, where strict means that text is not read as a number."""
    from pydantic import ValidationError

    try:
        text = json.dumps(value, allow_nan=False, ensure_ascii=False).encode()
    except UnicodeEncodeError:
        raise InvalidAnswer("the answer holds half a character (a lone surrogate)") from None
    except ValueError:
        raise InvalidAnswer("the answer holds a number that is not finite") from None
    try:
        made = model.model_validate_json(text, strict=True, by_alias=True, by_name=False)
        return made.model_dump(mode="json", by_alias=True, warnings=False)
    except ValidationError as error:
        raise _first_of(error) from None
    except (Exception, SystemExit) as error:  # a fault in the user's own validators must not lose a paid reply
        reason = _line(f"{type(error).__name__}: {error}")
        raise InvalidAnswer(f"the model's own code failed ({reason})") from error


def _first_of(error: ValidationError) -> InvalidAnswer:
    first = error.errors(include_url=False, include_context=False)[0]
    path = tuple("[]" if isinstance(step, int) else step for step in first["loc"])
    if first["type"] == "missing":
        return InvalidAnswer(f"{place(path)} is missing")
    return InvalidAnswer(f"{place(path)}: {_line(first['msg'])}", first["input"])


def _line(text: str) -> str:
    text = " ".join(text.split())
    return text if len(text) <= _LONGEST else f"{text[: _LONGEST - 1]}…"
