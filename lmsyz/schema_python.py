"""Python types as schemas, by way of pydantic: models, dataclasses, ``Literal``, enums, ``T | None``, dates, ... Pure.

A pydantic model given as the whole schema, or as the rows of an envelope, validates every answer itself. Within a dict
or a dataclass nothing would run a type's own code, so a type that has any is refused there.
"""

from __future__ import annotations

import functools
import inspect
import sys
from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING, Any, TypeVar, get_args

from lmsyz.schema_normal import Path, refusal, shorten

if TYPE_CHECKING:
    from pydantic import BaseModel

__all__ = ["ask_schema", "dump_schema", "from_type", "is_model", "own_code", "row_model"]

_WHOLE = "Write the whole schema as one pydantic model."
_PYDANTIC = {"pydantic", "pydantic_core", "pydantic_extra_types", "annotated_types"}
_Read = TypeVar("_Read")
_TEXT_CHANGES = ("strip_whitespace", "to_lower", "to_upper")


def is_model(kind: Any) -> bool:
    """Whether something is a pydantic model class."""
    from pydantic import BaseModel

    return isinstance(kind, type) and issubclass(kind, BaseModel)


def from_type(kind: Any, path: Path) -> dict[str, Any]:
    """Return the JSON Schema of a type that stands within a dict, or that is a whole schema but no pydantic model.

    Raises
    ------
    UsageError
        If it has none, or has code of its own that could not be run.
    """
    from pydantic import TypeAdapter

    if inspect.isroutine(kind):
        raise refusal(path, f"is the function {_name(kind)}", f"Give a type. {_WHOLE}")

    def read() -> tuple[dict[str, Any], list[str]]:
        adapter = TypeAdapter(kind)
        schema = adapter.json_schema(by_alias=True, mode="validation", schema_generator=_generator())
        return schema, own_code(adapter.core_schema)

    schema, code = _or_refusal(read, kind, path)
    if code:
        problem = f"has the type {_name(kind)}, whose own {code[0]} could not be used within a dict or a dataclass"
        raise refusal(path, problem, _WHOLE)
    return schema


def ask_schema(model: type[BaseModel]) -> dict[str, Any]:
    """Return the JSON Schema that a model's answers are asked by."""

    def read() -> dict[str, Any]:
        return model.model_json_schema(by_alias=True, mode="validation", schema_generator=_generator())

    return _or_refusal(read, model, ())


def dump_schema(model: type[BaseModel]) -> dict[str, Any]:
    """Return the JSON Schema of what a model hands back, which its serialisers may have changed."""

    def read() -> dict[str, Any]:
        return model.model_json_schema(by_alias=True, mode="serialization", schema_generator=_generator())

    return _or_refusal(read, model, ())


def row_model(source: type[BaseModel], envelope: str, own_fields: tuple[str, ...]) -> type[BaseModel]:
    """Return the model of a row: the source itself, or what its field named `envelope` lists.

    Parameters
    ----------
    source : pydantic model class
        What the user gave.
    envelope : str
        Name of the field that lists the rows; empty where the source is the row.
    own_fields : tuple of str
        Fields that lmsyz takes out of an answer before the model sees it; they need no value.

    Raises
    ------
    UsageError
        If the rows' model cannot be told, or does not give back the fields it asks for.
    """
    model = source
    if envelope:
        key = _field_key(source, envelope)
        found = list(dict.fromkeys(_models_in(source.model_fields[key].annotation))) if key else []
        if len(found) != 1:
            raise refusal((envelope,), "lists no single pydantic model", f"Write {envelope}: list[YourRow].")
        model = found[0]
    _check_names(model)
    for name in own_fields:
        model = _without(model, name)
    return model


def own_code(core_schema: Any) -> list[str]:
    """Name what a type does to an answer beyond its JSON Schema: validators, serialisers, defaults, changes of text.

    The names are all that can be compared from one session to the next; what a function does cannot.

    Examples
    --------
    >>> from pydantic import BaseModel, TypeAdapter
    >>> class Deal(BaseModel):
    ...     currency: str = "USD"
    >>> own_code(TypeAdapter(Deal).core_schema)
    ["default 'USD'"]
    """
    return list(dict.fromkeys(_code_in(core_schema)))


def _code_in(part: Any) -> Iterator[str]:
    if isinstance(part, list | tuple):
        for each in part:
            yield from _code_in(each)
    if not isinstance(part, Mapping):
        return
    if str(part.get("type", "")).startswith("function-"):
        function = part.get("function")
        function = function.get("function") if isinstance(function, Mapping) else function
        if not _is_foreign(function):
            yield f"function {_name(function)}"
    if part.get("type") == "default":
        yield from _default_in(part)
    if part.get("custom_init") or part.get("post_init"):
        yield f"initialisation of {_name(part.get('cls'))}"
    for change in _TEXT_CHANGES:
        if part.get(change) is True or part.get(f"str_{change}") is True:
            yield f"change of text {change}"
    for key, each in part.items():
        if key not in ("metadata", "default"):
            yield from _code_in(each)


def _default_in(part: Mapping[str, Any]) -> Iterator[str]:
    if part.get("default_factory") is not None:
        yield f"default {_name(part['default_factory'])}()"
    elif part.get("default") is not None:
        value = part["default"]
        is_plain = isinstance(value, str | int | float | list | tuple | dict)
        yield f"default {value!r}" if is_plain else f"default of {type(value).__name__}"


def _is_foreign(function: Any) -> bool:
    """Whether a function is pydantic's own, or a class of the standard library that it makes values of."""
    function = function.func if isinstance(function, functools.partial) else function
    top = str(getattr(function, "__module__", None)).partition(".")[0]
    is_library = top in sys.stdlib_module_names and top not in ("builtins", "__main__")
    return top in _PYDANTIC or (isinstance(function, type) and is_library)


def _name(kind: Any) -> str:
    return getattr(kind, "__qualname__", None) or shorten(kind)


def _or_refusal(read: Callable[[], _Read], kind: Any, path: Path) -> _Read:
    from pydantic import PydanticUserError

    try:
        return read()
    except (PydanticUserError, NameError, TypeError, AttributeError) as error:
        reason = str(error).partition("\n")[0].partition(". ")[0].rstrip(".")
        instead = "Give a type (str, int, float, bool), a list of allowed values, [type], a nested dict or a model."
        raise refusal(path, f"has the type {_name(kind)}, which has no JSON Schema ({reason})", instead) from error


@functools.cache
def _generator() -> Any:
    """Make pydantic's schema generator one that does not warn of a default it cannot write, which is left out here."""
    from pydantic.json_schema import GenerateJsonSchema

    class _Quiet(GenerateJsonSchema):
        ignored_warning_kinds = {"skipped-choice", "non-serializable-default"}  # noqa: RUF012

    return _Quiet


def _field_key(model: type[BaseModel], name: str) -> str | None:
    """Find the Python name of the field that has this name in JSON."""
    fields = model.model_fields.items()
    return next((key for key, f in fields if name == (f.validation_alias or f.alias or key)), None)


def _models_in(annotation: Any) -> Iterator[type[BaseModel]]:
    if is_model(annotation):
        yield annotation
        return
    for part in get_args(annotation):
        yield from _models_in(part)


@functools.lru_cache(maxsize=64)  # so that reading a schema twice gives one model
def _without(model: type[BaseModel], name: str) -> type[BaseModel]:
    """Return the model with a field that may be left out, its validators kept."""
    from pydantic import Field, create_model

    key = _field_key(model, name)
    if key is None:
        return model
    options: Any = {key: (Any, Field(default=None, alias=name))}
    made: type[BaseModel] = create_model(model.__name__, __base__=model, __module__=model.__module__, **options)
    return made


def _check_names(model: type[BaseModel]) -> None:
    """Refuse a model whose dumped names differ from those it asks for: answers could not be found again."""
    asked, dumped = ask_schema(model), dump_schema(model)
    for name in ("", *asked.get("$defs", {})):
        before = asked["$defs"][name] if name else asked
        after = dumped.get("$defs", {}).get(name, {}) if name else dumped
        lost = [key for key in before.get("properties", {}) if key not in after.get("properties", {})]
        if lost and after:
            problem = f"of {name or model.__name__} is not what model_dump(by_alias=True) returns"
            raise refusal((lost[0],), problem, "Use alias= alone, without validation_alias= and exclude=.")
