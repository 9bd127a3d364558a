"""The forms in which a user may write a schema, each read into a raw JSON Schema. Pure but for reading the file.

A dict is a JSON Schema where its ``"type"`` is one of JSON's own type names (``"object"``, ``"string"``, ...), or where
it has ``$ref``, ``$defs`` or ``$schema``; any other dict is shorthand, field name to type. No shorthand value looks
like that, so a field may well be named ``type`` or ``properties``. The few dicts that can be read both ways are
refused.
"""

from __future__ import annotations

import datetime
import json
import os
from collections.abc import Mapping
from enum import Enum
from pathlib import Path as FilePath
from typing import Any

from lmsyz.errors import UsageError
from lmsyz.schema_normal import JSON_TYPES, Path, refusal, shorten
from lmsyz.schema_python import from_type

__all__ = ["FORMS", "SIMPLE", "from_dict", "load_file"]

FORMS = (
    'Give a dict such as {"tone": ["good", "bad"], "score": float}, a pydantic model, a JSON Schema, or the path of a'
    " JSON file of one."
)
SIMPLE: Mapping[type, dict[str, Any]] = {
    str: {"type": "string"},
    int: {"type": "integer"},
    float: {"type": "number"},
    bool: {"type": "boolean"},
    datetime.date: {"type": "string", "format": "date"},
    datetime.datetime: {"type": "string", "format": "date-time"},
}
_NAMED: Mapping[str, type] = {"str": str, "int": int, "float": float, "bool": bool}  # what a JSON file can name
_LITERALS = (str, int, float, Enum)
_WRAPPER = {"type", "name", "strict", "schema", "description"}


def load_file(path: str | os.PathLike[str]) -> dict[str, Any]:
    """Read a JSON file that holds one object.

    Raises
    ------
    UsageError
        If it cannot be read as that; names the file.
    """
    name = shorten(os.fspath(path), 200)
    if isinstance(path, str) and path.lstrip().startswith(("{", "[")):
        raise UsageError("schema is JSON text, not a path. Give it as a dict: schema=json.loads(...).")
    try:
        text = FilePath(path).expanduser().read_text(encoding="utf-8-sig")
        obj = json.loads(text, object_pairs_hook=_unique)
    except FileNotFoundError as error:
        raise UsageError(f"schema file {name} does not exist. {FORMS}") from error
    except json.JSONDecodeError as error:
        where = f"line {error.lineno}, column {error.colno}"
        raise UsageError(f"schema file {name} is not JSON: {error.msg} at {where}. Correct it there.") from error
    except UnicodeDecodeError as error:
        raise UsageError(f"schema file {name} is not UTF-8 text. Save it as UTF-8.") from error
    except (OSError, ValueError, RecursionError, RuntimeError) as error:
        reason = getattr(error, "strerror", None) or error
        raise UsageError(f"schema file {name} cannot be read: {reason}. Give a readable JSON file.") from error
    if not isinstance(obj, dict):
        raise UsageError(f"schema file {name} holds no JSON object. {FORMS}")
    return obj


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Refuse a JSON object that names a key twice, of which Python would keep the last."""
    obj = dict(pairs)
    if len(obj) < len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for name in names if names.count(name) > 1)
        raise ValueError(f"the key {twice!r} is there twice")
    return obj


def from_dict(obj: Mapping[Any, Any]) -> Mapping[str, Any]:
    """Read a dict of any form into JSON Schema.

    Raises
    ------
    UsageError
        If it is none of them, or could be two; names the field and what to type instead.
    """
    if not obj:
        raise UsageError('schema={} has no fields. Name what to extract, such as {"tone": ["good", "bad"]}.')
    if _is_wrapper(obj):
        inner = obj.get("json_schema", obj)
        schema = inner.get("schema") if isinstance(inner, Mapping) else None
        if not isinstance(schema, Mapping):
            raise UsageError("schema: the json_schema wrapper has no 'schema'. Put the JSON Schema there.")
        return schema
    return _from_mapping(obj, ())


def _is_wrapper(obj: Mapping[Any, Any]) -> bool:
    """Tell OpenAI's wrapper, whole or without its outermost part, from what it wraps."""
    if obj.get("type") == "json_schema":
        return True
    is_named = isinstance(obj.get("strict"), bool) or isinstance(obj.get("name"), str)
    return is_named and set(obj) <= _WRAPPER and _is_json_schema(obj.get("schema"))


def _is_json_schema(obj: Any) -> bool:
    """Tell JSON Schema from shorthand by what no shorthand can hold."""
    if not isinstance(obj, Mapping):
        return False
    kind = obj.get("type")
    if isinstance(kind, str) and kind in JSON_TYPES:
        return True
    if isinstance(kind, list) and len(kind) > 1 and "null" in kind and all(each in JSON_TYPES for each in kind):
        return True
    if any(isinstance(obj.get(key), str) for key in ("$ref", "$schema")) or "$defs" in obj:
        return True
    choices = obj.get("anyOf", obj.get("oneOf", obj.get("allOf")))
    return isinstance(choices, list) and any(_is_json_schema(each) for each in choices)


def _could_be_json_schema(obj: Mapping[Any, Any]) -> bool:
    """Tell a dict that is valid shorthand, and that its author may well have meant as JSON Schema without a type."""
    kind, properties = obj.get("type"), obj.get("properties")
    if isinstance(kind, list) and kind and all(each in JSON_TYPES for each in kind):
        return True
    if isinstance(properties, Mapping):
        named = isinstance(obj.get("required"), list) or "additionalProperties" in obj
        return named or (bool(properties) and all(_is_json_schema(each) for each in properties.values()))
    if isinstance(obj.get("const"), str | int | float) or isinstance(obj.get("enum"), list):
        others = {k: v for k, v in obj.items() if k not in ("enum", "const")}
        return all(key in ("description", "title") and isinstance(v, str) for key, v in others.items())
    return _is_json_schema(obj.get("items")) and len(obj) == 1


# --- shorthand ---------------------------------------------------------------------------------------


def _from_shorthand(value: Any, path: Path) -> dict[str, Any]:
    """Read one shorthand value into JSON Schema."""
    if isinstance(value, Mapping):
        return _from_mapping(value, path)
    if isinstance(value, list):
        return _from_list(value, path)
    if isinstance(value, tuple) and _is_described(value):
        return {**_from_shorthand(value[0], path), "description": value[1]}
    if isinstance(value, str) and value in _NAMED:
        return dict(SIMPLE[_NAMED[value]])
    if value is None or isinstance(value, str | int | float | tuple | set | frozenset) or _is_array(value):
        raise refusal(path, f"has the value {shorten(value)}", _instead(value, path))
    if isinstance(value, type) and value in SIMPLE:
        return dict(SIMPLE[value])
    return from_type(value, path)


def _from_mapping(value: Mapping[Any, Any], path: Path) -> dict[str, Any]:
    if _is_json_schema(value):
        return dict(value)
    if _could_be_json_schema(value):
        problem = f"can be read as shorthand and as a JSON Schema without a type ({shorten(dict(value))})"
        raise refusal(path, problem, 'Add "type", such as {"type": "string", "enum": [...]}, or rename the fields.')
    properties = {name: _from_shorthand(each, (*path, str(name))) for name, each in value.items()}
    return {"type": "object", "properties": properties, "required": [n for n in properties if isinstance(n, str)]}


def _is_described(value: tuple[Any, ...]) -> bool:
    """Tell ``(type, "description")`` from a tuple of allowed values."""
    if len(value) != 2 or not isinstance(value[1], str):
        return False
    return not isinstance(value[0], _LITERALS) or (isinstance(value[0], str) and value[0] in _NAMED)


def _from_list(value: list[Any], path: Path) -> dict[str, Any]:
    """``[type]`` is a list of that type, anything else the allowed values."""
    named = [each for each in value if isinstance(each, str) and each in _NAMED]
    if len(value) == 1 and (named or not isinstance(value[0], _LITERALS)):
        return {"type": "array", "items": _from_shorthand(value[0], (*path, "[]"))}
    if named:
        instead = f'For allowed values that are called so, write {{"type": "string", "enum": {shorten(value)}}}.'
        raise refusal(path, f"is a list with the type name {named[0]!r} in it", instead)
    plain = [_plain(each) for each in value]
    if not value or not all(each is None or isinstance(each, str | int | float) for each in plain):
        instead = 'List the allowed values, such as ["good", "bad"], or one type, such as [str]; T | None may be null.'
        raise refusal(path, f"is the list {shorten(value)}", instead)
    return {"enum": plain}


def _plain(value: Any) -> Any:
    """Return the plain Python value behind an enum's member or a NumPy scalar."""
    value = value.value if isinstance(value, Enum) else value
    return value.item() if hasattr(value, "item") and not isinstance(value, type) else value


def _is_array(value: Any) -> bool:
    """Tell an array, a Series or an Index of allowed values."""
    return hasattr(value, "tolist") and not isinstance(value, type)


def _instead(value: Any, path: Path) -> str:
    """What to type in the place of a value that is no type."""
    if isinstance(value, str) and path[-1:] == ("type",):
        return f"A JSON Schema has one of the types {', '.join(JSON_TYPES)}; a field named 'type' is written [...]."
    if isinstance(value, str) and "|" in value:
        return f"List the allowed values: {[part.strip() for part in value.split('|')]!r}."
    if isinstance(value, str) and " " in value.strip():
        return f"To describe a field, give its type as well: (str, {shorten(value, 30)})."
    if isinstance(value, tuple | set | frozenset):
        return 'Use a list for allowed values, ["good", "bad"], and (str, "what it is") for a description.'
    if _is_array(value):
        return "Use a plain list for allowed values: .tolist() makes one."
    return "Give a type (str, int, float, bool), a list of allowed values, [type] or a nested dict."
