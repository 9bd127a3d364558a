"""Normal JSON Schema turned into functions that check and coerce a value: made once a schema, run once a row. Pure.

All of the dialect is here, in one pass over the answer, so that a flat row costs a few microseconds and every reason is
in our own words.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

from lmsyz.rows import folded
from lmsyz.schema_normal import Node, Path, of_constraints, reference_name, show_path, without_null
from lmsyz.schema_rules import Rule, rule

__all__ = ["Checker", "Compiler", "InvalidAnswer", "place"]

Checker = Callable[[Any], Any]

_ABSENT = object()
_INT64 = 2**63
_SHOWN = 40
_KINDS: Mapping[type, str] = {
    str: "text",
    bool: "true or false",
    int: "a whole number",
    float: "a number",
    list: "a list",
    dict: "an object",
    type(None): "null",
}
_TYPES: Mapping[str, str] = {
    "string": "text",
    "integer": "a whole number",
    "number": "a number",
    "boolean": "true or false",
    "array": "a list",
    "object": "an object",
}


class InvalidAnswer(ValueError):
    """An answer does not fit the schema; the text says which field and how, the same for every row of one cause.

    Parameters
    ----------
    reason : str
        Which field and how.
    value : object
        What came; kept in `shown`, shortened, where there is any.
    """

    def __init__(self, reason: str, value: Any = _ABSENT) -> None:
        super().__init__(reason)
        self.shown = "" if value is _ABSENT else _shown(value)


def _shown(value: Any) -> str:
    if isinstance(value, int) and abs(value) >= 10**_SHOWN:
        return f"an integer of about {int(value.bit_length() * math.log10(2)) + 1} digits"
    shown = repr(value[: _SHOWN + 1] if isinstance(value, str) else value)
    return shown if len(shown) <= _SHOWN else f"{shown[: _SHOWN - 1]}…"


def place(path: Path) -> str:
    """Say where in an answer a value is."""
    return f"field {show_path(path)!r}" if path else "the answer"


def _misfit(where: str, value: Any, wanted: str) -> InvalidAnswer:
    return InvalidAnswer(f"{where} is {_KINDS.get(type(value), 'something else')}, not {wanted}", value)


class Compiler:
    """Makes the checkers of one schema.

    Parameters
    ----------
    defs : mapping
        Its definitions that contain themselves.
    for_model : bool
        Whether a pydantic model validates what comes out. Then a value that does not fit is handed on as it is, for
        the model to judge, and an absent field stays absent, for the model's default.
    """

    def __init__(self, defs: Mapping[str, Node], *, for_model: bool = False) -> None:
        self._defs = defs
        self._for_model = for_model
        self._made: dict[tuple[str, bool], Checker | None] = {}

    def row(self, node: Node) -> Checker:
        """Make the checker of a whole answer."""
        return self._checker(node, (), self._for_model)

    def value(self, node: Node, path: Path) -> Checker:
        """Make the checker of one value, which has to fit."""
        return self._checker(node, path, False)

    def _checker(self, node: Node, path: Path, lenient: bool) -> Checker:
        core, may_be_null = without_null(node)
        inner = self._core(core, path, lenient)
        if lenient:
            inner = _or_as_it_is(inner)
        return _or_null(inner) if may_be_null else inner

    def _core(self, node: Node, path: Path, lenient: bool) -> Checker:
        if "$ref" in node:
            return self._reference(reference_name(node), lenient)
        if "anyOf" in node:
            return self._union(node["anyOf"], path)
        if "enum" in node:
            return _closed(node, place(path))
        if node["type"] == "object":
            return self._object(node, path, lenient)
        if node["type"] == "array":
            base = _array(self._checker(node["items"], (*path, "[]"), lenient), place(path))
        else:
            base = _SCALARS[node["type"]](place(path))
        found = [] if lenient else [rule(keyword, bound) for keyword, bound in of_constraints(node)]
        return _ruled(base, [each for each in found if each], place(path))

    def _reference(self, name: str, lenient: bool) -> Checker:
        key = (name, lenient)
        if key not in self._made:
            self._made[key] = None  # being made
            self._made[key] = self._checker(self._defs[name], (name,), lenient)
        return lambda value: self._made[key](value)  # type: ignore[misc]

    def _union(self, nodes: list[Node], path: Path) -> Checker:
        branches = [(self.value(node, path), _TYPES.get(node.get("type", "object"), "")) for node in nodes]
        where, wanted = place(path), " or ".join(dict.fromkeys(words for _, words in branches))

        def check_union(value: Any) -> Any:
            fits: list[Any] = []
            errors: list[InvalidAnswer] = []
            for branch, words in branches:
                try:
                    found = branch(value)
                except InvalidAnswer as error:
                    if words == _KINDS.get(type(value)):
                        errors.append(error)
                    continue
                if type(found) is type(value) and found == value:
                    return found  # as it came, before any choice that would change it
                fits.append(found)
            if fits:
                return fits[0]
            if len(errors) == 1:
                raise errors[0]
            if errors:
                raise InvalidAnswer(f"{where} fits none of its types", value)
            raise _misfit(where, value, wanted)

        return check_union

    def _object(self, node: Node, path: Path, lenient: bool) -> Checker:
        where, required = place(path), set(node["required"])
        fields = []
        for name, each in node["properties"].items():
            inside = (*path, name)
            may_be_null = without_null(each)[1]
            fields.append((name, self._checker(each, inside, lenient), may_be_null, name in required, place(inside)))
        if self._for_model:
            return _object_for_model(fields, where, lenient)
        return _object(fields, where)


_Fields = list[tuple[str, Checker, bool, bool, str]]


def _object(fields: _Fields, where: str) -> Checker:
    plan = [(name, check, may_be_null or not needed, at) for name, check, may_be_null, needed, at in fields]

    def check_object(value: Any) -> dict[str, Any]:
        if not isinstance(value, dict):
            raise _misfit(where, value, "an object")
        out = {}
        for name, check, is_optional, at in plan:
            given = value.get(name)
            if given is not None:
                out[name] = check(given)
            elif is_optional:
                out[name] = None
            else:
                raise InvalidAnswer(f"{at} is {'null' if name in value else 'missing'}")
        return out

    return check_object


def _object_for_model(fields: _Fields, where: str, lenient: bool) -> Checker:
    def check_object(value: Any) -> dict[str, Any]:
        if not isinstance(value, dict):
            raise _misfit(where, value, "an object")
        out = {}
        for name, check, may_be_null, needed, at in fields:
            given = value.get(name)
            if given is not None:
                out[name] = check(given)
            elif may_be_null and (needed or name in value):
                out[name] = None
            elif needed and not lenient:
                raise InvalidAnswer(f"{at} is {'null' if name in value else 'missing'}")
            # Otherwise null was the only way to say that it is left out.
        return out

    return check_object


def _or_null(inner: Checker) -> Checker:
    return lambda value: None if value is None else inner(value)


def _or_as_it_is(inner: Checker) -> Checker:
    def check_or_keep(value: Any) -> Any:
        try:
            return inner(value)
        except InvalidAnswer:
            return value

    return check_or_keep


def _array(item: Checker, where: str) -> Checker:
    def check_array(value: Any) -> list[Any]:
        if not isinstance(value, list):
            raise _misfit(where, value, "a list")
        return [item(each) for each in value]

    return check_array


def _ruled(base: Checker, rules: list[Rule], where: str) -> Checker:
    if not rules:
        return base

    def check_ruled(value: Any) -> Any:
        value = base(value)
        for holds, words in rules:
            if not holds(value):
                raise InvalidAnswer(f'{where} breaks its rule "{words}"', value)
        return value

    return check_ruled


# --- scalars -----------------------------------------------------------------------------------------


def _string(where: str) -> Checker:
    def check_string(value: Any) -> str:
        if not isinstance(value, str):
            raise _misfit(where, value, "text")
        if not value.isascii():
            try:
                value.encode()
            except UnicodeEncodeError:
                raise InvalidAnswer(f"{where} holds half a character (a lone surrogate)", value) from None
        return value

    return check_string


def _integer(where: str) -> Checker:
    def check_integer(value: Any) -> Any:
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise _misfit(where, value, "a whole number")
        if isinstance(value, float):
            if not value.is_integer():
                what = "a number with decimals" if math.isfinite(value) else "no finite number"
                raise InvalidAnswer(f"{where} is {what}, not a whole number", value)
            value = int(value)
        if not -_INT64 <= value < _INT64:
            raise InvalidAnswer(f"{where} is a whole number beyond 64 bits", value)
        return value

    return check_integer


def _number(where: str) -> Checker:
    def check_number(value: Any) -> float:
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise _misfit(where, value, "a number")
        try:
            number = float(value)
        except OverflowError:
            number = math.nan
        if not math.isfinite(number) and isinstance(value, float):
            raise InvalidAnswer(f"{where} is no finite number", value)
        if number != value:
            raise InvalidAnswer(f"{where} is a whole number of more digits than a float can hold", value)
        return number

    return check_number


def _boolean(where: str) -> Checker:
    def check_boolean(value: Any) -> bool:
        if not isinstance(value, bool):
            raise _misfit(where, value, "true or false")
        return value

    return check_boolean


_SCALARS: Mapping[str, Callable[[str], Checker]] = {
    "string": _string,
    "integer": _integer,
    "number": _number,
    "boolean": _boolean,
}


def _closed(node: Node, where: str) -> Checker:
    """Make the checker of a closed set of values, all of one type."""
    values: list[Any] = node["enum"]
    exact = {value: value for value in values}
    folded: dict[str, list[str]] = {}
    for value in values:
        if isinstance(value, str):
            folded.setdefault(_fold(value), []).append(value)
    wanted: tuple[type, ...] = (int, float) if node["type"] in ("integer", "number") else (type(values[0]),)
    none_of = f"none of its {len(values)} allowed values" if len(values) > 1 else "not its one allowed value"

    def check_closed(value: Any) -> Any:
        if not isinstance(value, wanted) or (isinstance(value, bool) and bool not in wanted):
            raise _misfit(where, value, _TYPES[node["type"]])
        if value in exact:
            return exact[value]
        near = folded.get(_fold(value), []) if isinstance(value, str) else []
        if len(near) == 1:
            return near[0]
        raise InvalidAnswer(f"{where} is {_word(value)}{none_of}", value)

    return check_closed


def _fold(text: str) -> str:
    return " ".join(folded(text).split())


def _word(value: Any) -> str:
    """Show a value that many rows may share: a short word without figures."""
    is_word = isinstance(value, str) and len(value) <= 30 and not any(c.isdigit() for c in value)
    return f"{value!r}, " if is_word else ""
