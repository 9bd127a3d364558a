"""Every accepted way to say what one row's answer looks like, read into one form. Pure.

A dict is a JSON Schema where it has ``"type": "object"`` with ``"properties"``, or ``"type": "json_schema"``, or
``"$defs"`` or ``"$ref"``; any other dict is shorthand, field name to type.
"""

from __future__ import annotations

import json
import types
import typing
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import date, datetime
from enum import Enum
from functools import cached_property
from hashlib import sha256
from pathlib import Path
from typing import Any, Literal, Union, get_args, get_origin

from lmsyz.errors import UsageError
from lmsyz.schema_nodes import Node, normalize, split_null

__all__ = ["Field", "RowSchema", "describe", "example", "read_schema"]

RESERVED = {
    "ie_error": "lmsyz's own last column",
    "input_id": "what lmsyz tells rows apart by",
    "input_opening": "how lmsyz verifies rows",
}
PLAIN = {
    str: {"type": "string"},
    int: {"type": "integer"},
    float: {"type": "number"},
    bool: {"type": "boolean"},
    datetime: {"type": "string", "format": "date-time"},
    date: {"type": "string", "format": "date"},
}
DTYPES = {"string": "string", "integer": "Int64", "number": "Float64", "boolean": "boolean"}
SHORTHAND = (
    "a field's type is str, int, float, bool, a list of literals (enum), [type] (list), a dict (object), Optional[...],"
    " or a (type, 'description') pair"
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Field:
    """One field of a row's answer.

    Parameters
    ----------
    name : str
        Name of the field and of its column.
    schema : dict
        JSON Schema of its value where it is not null.
    dtype : str
        pandas dtype of its column.
    categories : tuple
        The enum's values in their given order.
    nullable, required : bool
        Whether null is an answer, and whether the field must be there.
    """

    name: str
    schema: Node
    dtype: str
    categories: tuple[Any, ...] = ()
    nullable: bool = False
    required: bool = True


@dataclass(frozen=True, kw_only=True, eq=False)
class RowSchema:
    """The shape of one row's answer.

    Parameters
    ----------
    fields : tuple of Field
        In the given order.
    json_schema : dict
        The row-level JSON Schema, without ``input_id``.
    model : type, optional
        The pydantic model it came from, whose own validators then check each answer.
    """

    fields: tuple[Field, ...]
    json_schema: Node
    model: Any = field(default=None, repr=False)

    @cached_property
    def canonical(self) -> str:
        """The schema as JSON text in which field order counts and nothing else is left to chance."""
        return json.dumps(self.json_schema, ensure_ascii=False, separators=(",", ":"))

    @cached_property
    def sha256(self) -> str:
        """SHA-256 of :attr:`canonical`."""
        return sha256(self.canonical.encode("utf-8", "surrogatepass")).hexdigest()


def read_schema(source: Any) -> RowSchema | None:
    """Read a schema in any accepted form.

    Parameters
    ----------
    source : None, dict, pydantic model, str or Path
        Shorthand, a row-level JSON Schema, an envelope with ``all_results``, OpenAI's ``json_schema`` wrapper, a
        pydantic model, or the path of a JSON file with any of the dict forms.

    Returns
    -------
    RowSchema or None

    Raises
    ------
    UsageError
        It cannot be read, or cannot be asked for strictly; the field and what to type instead are named.

    Examples
    --------
    >>> [f.dtype for f in read_schema({"tone": ["good", "bad"], "score": float}).fields]
    ['category', 'Float64']
    """
    if source is None:
        return None
    if isinstance(source, (str, Path)):
        source = _load_file(source)
    if isinstance(source, type) and hasattr(source, "model_json_schema"):
        return _row_schema(normalize(source.model_json_schema()), model=source)
    if not isinstance(source, Mapping):
        raise UsageError(
            f"schema= takes a dict, a pydantic model or the path of a JSON file, got {source!r:.80}"
        )
    if _is_json_schema(source):
        return _row_schema(normalize(_row_level(source)))
    return _row_schema(_from_shorthand(source, "schema"))


def describe(schema: RowSchema) -> str:
    """Return the fields as lines for a prompt, since some servers never show the schema to the model."""
    return "\n".join(_describe_object(schema.json_schema, ""))


def example(schema: RowSchema) -> dict[str, Any]:
    """Return an object of the schema's shape that holds placeholders, never values."""
    shown = _placeholder(schema.json_schema)
    return shown if isinstance(shown, dict) else {}


def _load_file(path: str | Path) -> Any:
    try:
        text = Path(path).read_text(encoding="utf-8")
    except OSError as error:
        raise UsageError(f"schema file {str(path)!r} cannot be read: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise UsageError(f"schema file {str(path)!r} is not UTF-8 text") from error
    try:
        loaded = json.loads(text)
    except ValueError as error:
        raise UsageError(f"schema file {str(path)!r} is not valid JSON: {error}") from error
    if not isinstance(loaded, dict):
        raise UsageError(
            f"schema file {str(path)!r} must hold a JSON object, it holds a {type(loaded).__name__}"
        )
    return loaded


def _is_json_schema(source: Mapping[Any, Any]) -> bool:
    if source.get("type") == "json_schema" or "$defs" in source or "$ref" in source:
        return True
    return source.get("type") == "object" and isinstance(source.get("properties"), Mapping)


def _row_level(source: Mapping[str, Any]) -> Mapping[str, Any]:
    """Unwrap OpenAI's wrapper and the ``all_results`` envelope, definitions carried along."""
    if source.get("type") == "json_schema":
        inner = source.get("json_schema", source)
        if not isinstance(inner, Mapping) or not isinstance(inner.get("schema"), Mapping):
            raise UsageError(
                'schema={"type": "json_schema", ...} needs {"json_schema": {"name": ..., "schema": {...}}}'
            )
        return _row_level(inner["schema"])
    rows = source.get("properties", {}).get("all_results")
    if not isinstance(rows, Mapping):
        return source
    items = rows.get("items")
    if not isinstance(items, Mapping):
        raise UsageError('schema: "all_results" must be an array with "items" that describe one row')
    row = {key: source[key] for key in ("$defs", "definitions") if key in source} | dict(items)
    if isinstance(row.get("properties"), Mapping):
        row["properties"] = {k: v for k, v in row["properties"].items() if k != "input_id"}
        row["required"] = [r for r in row.get("required", []) if r != "input_id"]
    return row


def _row_schema(node: Node, *, model: Any = None) -> RowSchema:
    properties = node.get("properties")
    if node.get("type") != "object" or not properties:
        raise UsageError(
            "schema describes no fields; give at least one, as in schema={'tone': ['good', 'bad']}"
        )
    for name in properties:
        if name in RESERVED:
            raise UsageError(f"schema field {name!r} is {RESERVED[name]}; call it something else")
    required = set(node.get("required", []))
    fields = tuple(_field(name, sub, name in required) for name, sub in properties.items())
    return RowSchema(fields=fields, json_schema=node, model=model)


def _field(name: str, node: Node, required: bool) -> Field:
    core, nullable = split_null(node)
    values = tuple(core["enum"]) if "enum" in core else (core["const"],) if "const" in core else ()
    flat = all(isinstance(v, (str, int, float, bool)) for v in values)
    dtype = "category" if values and flat else DTYPES.get(str(core.get("type")), "object")
    kinds = {n.get("type") for n in core.get("anyOf", [])}
    if kinds and kinds <= {"integer", "number"}:
        dtype = "Float64"
    return Field(
        name=name,
        schema=core,
        dtype=dtype,
        categories=values if dtype == "category" else (),
        nullable=nullable or not required,
        required=required,
    )


def _from_shorthand(source: Mapping[Any, Any], path: str) -> Node:
    if not source:
        raise UsageError(f"{path} is empty; {SHORTHAND}")
    properties = {}
    for name, kind in source.items():
        if not isinstance(name, str) or not name.strip():
            raise UsageError(f"{path}: a field's name is a non-blank string, got {name!r}")
        properties[name] = _node_of(kind, f"{path}[{name!r}]")
    return {"type": "object", "properties": properties, "required": list(properties)}


def _node_of(kind: Any, path: str) -> Node:
    if isinstance(kind, type) and kind in PLAIN:
        return dict(PLAIN[kind])
    if isinstance(kind, tuple) and len(kind) == 2 and isinstance(kind[1], str):
        return _node_of(kind[0], path) | {"description": kind[1]}
    if isinstance(kind, list):
        return _node_of_list(kind, path)
    if isinstance(kind, Mapping):
        return _node_of_mapping(kind, path)
    if isinstance(kind, type) and issubclass(kind, Enum):
        return _enum([member.value for member in kind], path)
    if isinstance(kind, type) and hasattr(kind, "model_json_schema"):
        return normalize(kind.model_json_schema(), path)
    return _node_of_generic(kind, path)


def _node_of_generic(kind: Any, path: str) -> Node:
    origin = get_origin(kind)
    if origin is Literal:
        return _enum(list(get_args(kind)), path)
    if origin in (Union, types.UnionType):
        kinds = [k for k in get_args(kind) if k is not type(None)]
        nodes = [_node_of(k, path) for k in kinds]
        if len(kinds) < len(get_args(kind)):
            nodes.append({"type": "null"})
        return normalize({"anyOf": nodes}, path)
    if origin is list and get_args(kind):
        return {"type": "array", "items": _node_of(get_args(kind)[0], path)}
    if origin is typing.Annotated:
        return _node_of(get_args(kind)[0], path)
    hint = f" Did you mean [{kind!r}, ...] for an enum?" if isinstance(kind, str) else ""
    raise UsageError(f"{path} = {kind!r:.60} is no type that can be asked for: {SHORTHAND}.{hint}")


def _node_of_list(kind: list[Any], path: str) -> Node:
    if not kind:
        raise UsageError(f"{path} = [] says nothing: {SHORTHAND}")
    if len(kind) == 1 and not isinstance(kind[0], (str, int, float)):
        return {"type": "array", "items": _node_of(kind[0], f"{path}[0]")}
    return _enum(kind, path)


def _node_of_mapping(kind: Mapping[Any, Any], path: str) -> Node:
    if isinstance(kind.get("type"), (str, list)) or "enum" in kind or "anyOf" in kind or "$ref" in kind:
        return normalize(kind, path)
    return _from_shorthand(kind, path)


def _enum(values: list[Any], path: str) -> Node:
    nullable = None in values
    plain = [v for v in values if v is not None]
    if not plain or not all(isinstance(v, (str, int, float, bool)) for v in plain):
        raise UsageError(f"{path}: an enum lists plain values (text or numbers), got {values!r:.80}")
    if len({(type(v), v) for v in plain}) < len(plain):
        raise UsageError(f"{path}: the enum lists a value twice: {plain!r:.80}")
    return normalize({"enum": [*plain, None] if nullable else plain}, path)


def _describe_object(node: Node, indent: str) -> list[str]:
    lines = []
    required = set(node.get("required", []))
    for name, sub in node.get("properties", {}).items():
        core, nullable = split_null(sub)
        note = " or null" if nullable or name not in required else ""
        text = str(sub.get("description") or core.get("description") or "")
        lines.append(f"{indent}- {name} ({_type_words(core)}{note})" + (f": {text}" if text else ""))
        inner = core.get("items", core) if core.get("type") == "array" else core
        if inner.get("type") == "object":
            lines += _describe_object(inner, indent + "  ")
    return lines


def _type_words(node: Node) -> str:
    if "enum" in node:
        return "one of " + ", ".join(json.dumps(v, ensure_ascii=False) for v in node["enum"])
    if "const" in node:
        return "always " + json.dumps(node["const"], ensure_ascii=False)
    if "anyOf" in node:
        return " or ".join(_type_words(n) for n in node["anyOf"])
    if node.get("type") == "array":
        return f"list of {_type_words(node.get('items', {}))}"
    bounds = [f"{k} {node[k]}" for k in ("format", "minimum", "maximum", "pattern") if k in node]
    return ", ".join([str(node.get("type", "value")), *bounds])


def _placeholder(node: Node) -> Any:
    core, _ = split_null(node)
    if core.get("type") == "object":
        return {name: _placeholder(sub) for name, sub in core.get("properties", {}).items()}
    if core.get("type") == "array":
        return [_placeholder(core.get("items", {}))]
    return f"<{_type_words(core)}>".replace('"', "'")
