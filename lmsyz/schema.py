"""What one row's answer looks like: every form a user may write it in, read into one ``RowSchema``. Pure.

The parts: ``schema_forms`` and ``schema_python`` read the user's forms, ``schema_reader`` brings JSON Schema into the
dialect of ``schema_normal``; ``schema_words`` says a schema in a prompt, ``schema_render`` as each provider wants it,
``schema_check`` holds an answer against it.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from lmsyz.errors import UsageError
from lmsyz.rows import ID_FIELD, OPENING_FIELD
from lmsyz.schema_forms import FORMS, SIMPLE, from_dict, load_file
from lmsyz.schema_normal import Node, refusal, shorten, without_null
from lmsyz.schema_python import ask_schema, dump_schema, from_type, is_model, own_code, row_model
from lmsyz.schema_reader import normalise
from lmsyz.schema_words import describe, example

if TYPE_CHECKING:
    from pydantic import BaseModel

__all__ = ["ENVELOPE", "Field", "RowSchema", "describe", "example", "read_schema"]

ENVELOPE = "all_results"
_RESERVED: Mapping[str, str] = {
    ID_FIELD: "is what lmsyz adds itself, to tell rows apart",
    OPENING_FIELD: "is what lmsyz adds itself, to verify rows",
    "ie_error": "is lmsyz's own last column",
}
_DTYPES = {"integer": "Int64", "number": "Float64", "boolean": "boolean", "string": "string"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Field:
    """One field of a row's answer: one column of the result.

    Parameters
    ----------
    name : str
        The column.
    schema : mapping
        Normal JSON Schema of its value when it is not null, without the description.
    dtype : str
        ``"category"``, ``"Int64"``, ``"Float64"``, ``"boolean"``, ``"string"`` or ``"object"``.
    categories : tuple
        The allowed values of a category, in the order given.
    nullable : bool
        Whether null is an answer.
    required : bool
        Whether the field must be there. What may be missing may be null as well.
    description : str
        What the user said about it, or empty.
    """

    name: str
    schema: Mapping[str, Any]
    dtype: str
    categories: tuple[Any, ...] = ()
    nullable: bool
    required: bool
    description: str

    @property
    def is_optional(self) -> bool:
        """Whether a row may do without it: null and missing both become ``<NA>``."""
        return self.nullable or not self.required


@dataclass(frozen=True, slots=True, kw_only=True, eq=False, weakref_slot=True)
class RowSchema:
    """The shape of one row's answer, the same for every provider.

    Two are equal when their canonical text and their model are; the order of fields counts, since models write in
    that order.

    Parameters
    ----------
    fields : tuple of Field
        In the order given.
    json_schema : dict
        Normal JSON Schema of a row, without ``input_id``; to be read, not changed.
    canonical : str
        The same as one JSON text, which changes with anything that shapes an answer. What a pydantic model does
        beyond its JSON Schema stands in its ``$comment``: defaults by their value, validators and serialisers by their
        name only. Rows are not asked again when the body of a validator changes; rename it, or ask with
        ``fresh=True``.
    model : type or None
        The pydantic class it was read from; its validators run on every answer.
    """

    fields: tuple[Field, ...]
    json_schema: dict[str, Any]
    canonical: str
    model: type[BaseModel] | None = None

    @property
    def defs(self) -> dict[str, Any]:
        """The definitions that contain themselves."""
        defs: dict[str, Any] = self.json_schema.get("$defs", {})
        return defs

    @property
    def sha256(self) -> str:
        """Hex digest of the canonical text."""
        return hashlib.sha256(self.canonical.encode()).hexdigest()

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, RowSchema):
            return NotImplemented
        return self.canonical == other.canonical and self.model is other.model

    def __hash__(self) -> int:
        return hash(self.canonical)


def read_schema(obj: Any) -> RowSchema | None:
    """Read any accepted form of a schema.

    Parameters
    ----------
    obj : None, dict, pydantic model class, str or Path
        ``None``: no schema. A dict: shorthand (``str``, ``int``, ``float``, ``bool``, dates, ``[values]``,
        ``[type]``, a nested dict, ``T | None``, ``Literal``, an enum, a ``(type, "description")`` pair), JSON Schema
        of a row or of the envelope, or OpenAI's wrapper. A string is the path of a JSON file.

    Returns
    -------
    RowSchema or None
        ``None`` only for ``None``.

    Raises
    ------
    UsageError
        If it cannot be read, or not be expressed in the providers' strict modes. Names the file or field
        and what to type instead.

    Examples
    --------
    >>> [(f.name, f.dtype) for f in read_schema({"tone": ["good", "bad"], "score": float}).fields]
    [('tone', 'category'), ('score', 'Float64')]
    """
    if obj is None or isinstance(obj, RowSchema):
        return obj
    if isinstance(obj, Mapping):
        return _row_schema(from_dict(obj))
    if isinstance(obj, str | os.PathLike):
        return _from_file(obj)
    if is_model(obj):
        return _from_model(obj)
    if isinstance(obj, type) and obj not in SIMPLE:
        return _row_schema(from_type(obj, ()))
    hint = f"Give the class itself: schema={type(obj).__name__}." if is_model(type(obj)) else FORMS
    raise UsageError(f"schema={shorten(obj)} is not a schema. {hint}")


def _from_file(path: str | os.PathLike[str]) -> RowSchema:
    obj = load_file(path)
    try:
        return _row_schema(from_dict(obj))
    except UsageError as error:
        reason = str(error).removeprefix("schema: ").removeprefix("schema=")
        raise UsageError(f"schema file {shorten(os.fspath(path), 200)}: {reason}") from error


def _from_model(source: type[BaseModel]) -> RowSchema:
    """Read a pydantic model; its columns have the types of what it hands back."""
    from pydantic import TypeAdapter

    row, is_envelope = _read_row(ask_schema(source))
    model = row_model(source, ENVELOPE if is_envelope else "", (ID_FIELD,) if is_envelope else ())
    comment = "; ".join(own_code(TypeAdapter(model).core_schema))
    columns = _dumped_columns(model)
    fields = tuple(_field(name, node, name in row["required"], columns.get(name)) for name, node in _properties(row))
    return RowSchema(fields=fields, json_schema=row, canonical=_canonical(row, comment), model=model)


def _row_schema(raw: Mapping[str, Any]) -> RowSchema:
    row, _ = _read_row(raw)
    fields = tuple(_field(name, node, name in row["required"]) for name, node in _properties(row))
    return RowSchema(fields=fields, json_schema=row, canonical=_canonical(row))


def _read_row(raw: Mapping[str, Any]) -> tuple[Node, bool]:
    """Normalise a JSON Schema and take the row out of its envelope, if it has one."""
    whole, defs = normalise(raw)
    if whole.get("type") != "object":
        instead = f'{FORMS} A field of the name "type" is written {{"type": str}}.'
        raise refusal((), f"is {whole.get('type', 'a union')}, not an object", instead)
    row, is_envelope = _unwrap(whole)
    for name, reason in _RESERVED.items():
        if name in row["properties"]:
            raise refusal((name,), reason, "Leave it out, or name it otherwise.")
    return {**row, "$defs": defs} if defs else row, is_envelope


def _unwrap(whole: Node) -> tuple[Node, bool]:
    if ENVELOPE not in whole["properties"]:
        return whole, False
    items = without_null(whole["properties"][ENVELOPE])[0].get("items", {})
    if items.get("type") != "object":
        raise refusal(
            (ENVELOPE,), "is no list of objects", f'Write {{"{ENVELOPE}": [{{"tone": str}}]}}, or the row alone.'
        )
    others = [name for name in whole["properties"] if name != ENVELOPE]
    if others:
        raise refusal((others[0],), f"stands beside '{ENVELOPE}'", "Move it into the rows: answers come by row.")
    return _without_id(items), True


def _without_id(row: Node) -> Node:
    """Leave out input_id, which every envelope carries and lmsyz adds itself."""
    properties = {name: node for name, node in row["properties"].items() if name != ID_FIELD}
    if not properties:
        raise refusal((), f"has no fields beside '{ID_FIELD}'", 'Name what to extract, such as {"tone": str}.')
    return {**row, "properties": properties, "required": [name for name in row["required"] if name != ID_FIELD]}


def _properties(row: Node) -> Iterator[tuple[str, Node]]:
    yield from row["properties"].items()


def _canonical(row: Node, comment: str = "") -> str:
    said = {**row, "$comment": comment} if comment else row
    text = json.dumps(said, separators=(",", ":"), ensure_ascii=False)
    try:
        text.encode()
    except UnicodeEncodeError as error:
        at = shorten(text[max(0, error.start - 20) : error.start])
        raise refusal((), f"holds a broken character, after {at}", "Write it anew.") from error
    return text


def _field(name: str, node: Node, required: bool, column: tuple[str, tuple[Any, ...]] | None = None) -> Field:
    core, nullable = without_null(node)
    description = core.pop("description", "")
    dtype, categories = column or _column(core)
    return Field(
        name=name,
        schema=core,
        dtype=dtype,
        categories=categories,
        nullable=nullable,
        required=required,
        description=description,
    )


def _column(core: Node) -> tuple[str, tuple[Any, ...]]:
    """The pandas dtype of a column of such values, and its categories."""
    if "enum" in core and core["type"] != "boolean":
        return "category", tuple(core["enum"])
    types = {each.get("type") for each in core.get("anyOf", [core])}
    if types == {"integer", "number"}:
        return "Float64", ()
    return (_DTYPES.get(types.pop() or "", "object") if len(types) == 1 else "object"), ()


def _dumped_columns(model: type[BaseModel]) -> dict[str, tuple[str, tuple[Any, ...]]]:
    """The columns of what a model hands back, which may be other types than it asks for (a Decimal comes as text)."""
    dumped = dump_schema(model)
    root = dumped["$defs"][dumped["$ref"].rpartition("/")[2]] if "$ref" in dumped else dumped
    columns = {}
    for name, raw in root.get("properties", {}).items():
        try:
            node, _ = normalise({**raw, "$defs": dumped.get("$defs", {})})
        except UsageError:
            columns[name] = ("object", ())  # a serialiser that does not say what it returns
            continue
        columns[name] = _column(without_null(node)[0])
    return columns
