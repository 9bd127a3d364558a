"""From what was asked to what is answered: rows in, rows out, in the shape the schema or the prompt asks for.

A request in rows form has as its last user message a JSON array of objects with ``input_id`` and ``input_text``; it is
answered ``{"all_results": [{"input_id": ..., <fields>}, ...]}``. The fields come from the item schema where a schema is
given, else from the example of such a line in the prompt, else they are ``sentiment`` and ``summary``. Any other
request is answered for its user message as a whole.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any

from lmsyz.sandbox.images import Seen, picture_of_row
from lmsyz.sandbox.rules import NOTHING, Rule, compile_rule
from lmsyz.sandbox.text import Text, text_of

__all__ = ["Answer", "Row", "answer", "read_rows"]

ENVELOPES = ("all_results", "results")
ID, TEXT = "input_id", "input_text"
DEFAULT_FIELDS = {"sentiment": {"type": ["string", "null"]}, "summary": {"type": ["string", "null"]}}


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One row as asked."""

    id: Any
    text: Text


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """What the rules say.

    Parameters
    ----------
    rows : list of dict
        The answered rows, in the order asked; empty where the request was not in rows form.
    envelope : str
        Name of the list that holds the rows; empty where the answer is `whole`.
    beside : dict
        What the reply holds beside the rows, where the schema asks for more.
    whole : object
        The answer to a request that was not in rows form; None where no rule applies.
    n_unanswered : int
        Rows left out because a field that must have a value has no rule that finds one.
    prose : str
        A plain-text answer, where no JSON was asked for.
    """

    rows: list[dict[str, Any]] = field(default_factory=list)
    envelope: str = ""
    beside: dict[str, Any] = field(default_factory=dict)
    whole: Any = None
    n_unanswered: int = 0
    prose: str = ""


def read_rows(user: str, seen: Sequence[Seen] = ()) -> list[Row]:
    """Return the rows of a user message, with the images of the message; none where it is not in rows form."""
    # What names images stands before the rows, and an id in it may hold a bracket.
    start = user.rfind(f'[{{"{ID}"') if seen else user.find("[")
    if start < 0 or f'"{ID}"' not in user:
        return []
    try:
        value, _ = json.JSONDecoder().raw_decode(user, start)
    except (ValueError, RecursionError):
        return []
    if not value or not all(isinstance(r, dict) and ID in r and TEXT in r for r in value):
        return []
    return [Row(id=r[ID], text=text_of(r[TEXT], picture_of_row(r, r[ID], seen))) for r in value]


def answer(
    rows: Sequence[Row], user: str, system: str, schema: Mapping[str, Any] | None, *, wants_json: bool
) -> Answer:
    """Answer one request.

    Parameters
    ----------
    rows : sequence of Row
        Its rows, if it is in rows form.
    user, system : str
        The last user message, and what stands before it.
    schema : mapping or None
        The schema of the whole reply, where the model is shown one.
    wants_json : bool
        Whether anything but JSON would be wrong.
    """
    plan = _plan(json.dumps(schema) if schema is not None else "", system)
    if rows and plan.row is not None:
        found = [(row, plan.row.one(row.text)) for row in rows]
        answered = [_row_answer(row, value, plan) for row, value in found if value is not NOTHING]
        beside = plan.beside.one(text_of(user)) if plan.beside is not None else {}
        if beside is NOTHING:
            return Answer(n_unanswered=len(rows))
        kept = plan.valid_rows(answered, beside)
        return Answer(rows=kept, envelope=plan.envelope, beside=beside, n_unanswered=len(rows) - len(kept))
    text = text_of(user)
    if schema is None and not wants_json and not plan.from_prompt:
        return Answer(prose=_prose(text))
    value = plan.whole.one(text)
    if value is NOTHING or not plan.is_valid(value):
        return Answer(n_unanswered=1)
    return Answer(whole=value)


def _row_answer(row: Row, value: dict[str, Any], plan: _Plan) -> dict[str, Any]:
    return {ID: row.id if plan.any_id else str(row.id), **value} if plan.with_id else value


def _prose(text: Text) -> str:
    first = text.sentences[0] if text.sentences else ""
    return f"By dictionary rules, not a language model: the text is {text.tone.word}. First sentence: {first}"


@dataclass(frozen=True, slots=True, kw_only=True)
class _Plan:
    """A request's shape, compiled once: the rules for a row and for the whole, and what holds them to the schema."""

    whole: Rule
    row: Rule | None
    beside: Rule | None
    envelope: str
    with_id: bool
    any_id: bool
    from_prompt: bool
    validator: Any

    def is_valid(self, value: Any) -> bool:
        return self.validator is None or bool(self.validator.is_valid(value))

    def valid_rows(self, rows: list[dict[str, Any]], beside: dict[str, Any]) -> list[dict[str, Any]]:
        """Return the rows that the schema accepts: a rule that breaks it must not be the one to say so."""
        if self.is_valid({**beside, self.envelope: rows}):
            return rows
        return [row for row in rows if self.is_valid({**beside, self.envelope: [row]})]


@lru_cache(maxsize=128)
def _plan(schema_text: str, system: str) -> _Plan:
    if schema_text:
        schema = json.loads(schema_text)
        envelope, item = _item_of(schema)
        properties = item.get("properties") or {}
        row_schema = _without_id(item, schema) if envelope else None
        return _Plan(
            whole=compile_rule(schema, codebook=system),
            row=compile_rule(row_schema, codebook=system) if row_schema is not None else None,
            beside=_beside(schema, envelope),
            envelope=envelope,
            with_id=ID in properties or item.get("additionalProperties") is not False,
            any_id=(properties.get(ID) or {}).get("type") != "string",
            from_prompt=False,
            validator=_validator(schema),
        )
    example = _example(system)
    fields = {n: _described(n, s, system) for n, s in (example or DEFAULT_FIELDS).items()}
    rule = compile_rule({"type": "object", "properties": fields, "required": list(fields)}, codebook=system)
    return _Plan(
        whole=rule,
        row=rule,
        beside=None,
        envelope=ENVELOPES[0],
        with_id=True,
        any_id=True,
        from_prompt=example is not None,
        validator=None,
    )


def _validator(schema: Mapping[str, Any]) -> Any:
    from jsonschema import Draft202012Validator

    return Draft202012Validator(schema)


def _item_of(schema: Mapping[str, Any]) -> tuple[str, dict[str, Any]]:
    """Return the name of the list of rows and the schema of one row; empty where the schema has no such list."""
    properties = schema.get("properties")
    for name in ENVELOPES:
        node = properties.get(name) if isinstance(properties, Mapping) else None
        items = node.get("items") if isinstance(node, Mapping) else None
        if isinstance(items, Mapping):
            target = items
            ref = str(items.get("$ref") or "")
            if ref.startswith("#/$defs/"):
                target = (schema.get("$defs") or {}).get(ref.removeprefix("#/$defs/")) or {}
            return name, dict(target)
    return "", {}


def _beside(schema: Mapping[str, Any], envelope: str) -> Rule | None:
    """Return the rule for what the schema asks for beside the rows; None where it asks for nothing."""
    properties = {k: v for k, v in (schema.get("properties") or {}).items() if k != envelope}
    if not envelope or not properties:
        return None
    required = [n for n in schema.get("required") or [] if n != envelope]
    return compile_rule({**schema, "properties": properties, "required": required})


def _without_id(item: Mapping[str, Any], schema: Mapping[str, Any]) -> dict[str, Any]:
    properties = {k: v for k, v in (item.get("properties") or {}).items() if k != ID}
    required = [n for n in item.get("required") or [] if n != ID]
    rest = {k: v for k, v in item.items() if k not in ("properties", "required")}
    defs = {"$defs": schema["$defs"]} if "$defs" in schema else {}
    # An object without fields is a row that asks for its id alone.
    row = {**rest, **defs, "type": "object", "properties": properties, "required": required}
    return row if properties else {**defs, "const": {}}


def _example(system: str) -> dict[str, Any] | None:
    """Return the fields of the prompt's example line as schemas; None where there is none."""
    at = system.find('"all_results"')
    if at < 0:
        return None
    start = system.rfind("{", 0, at)
    try:
        value, _ = json.JSONDecoder().raw_decode(system, max(start, 0))
        items = value["all_results"]
        fields = dict(items[0])
    except (ValueError, LookupError, TypeError, RecursionError):
        fields = dict.fromkeys(re.findall(r'"(\w+)"\s*:', system[at + len('"all_results"') : at + 2000]), "")
    fields = {n: v for n, v in fields.items() if n != ID and not n.startswith("<")}
    return {n: _of_example(v) for n, v in fields.items()} or None


def _of_example(value: Any) -> dict[str, Any]:
    """Return a nullable schema for a placeholder or an example value."""
    if isinstance(value, bool):
        return {"type": ["boolean", "null"]}
    if isinstance(value, int | float):
        return {"type": ["integer" if isinstance(value, int) else "number", "null"]}
    if isinstance(value, list):
        items = _of_example(value[0]) if value else {"type": "string"}
        return {"anyOf": [{"type": "array", "items": items}, {"type": "null"}]}
    if isinstance(value, dict):
        fields = {n: _of_example(v) for n, v in value.items()}
        return {"anyOf": [{"type": "object", "properties": fields, "required": list(fields)}, {"type": "null"}]}
    words = str(value or "")
    options = _options(words)
    if options:
        return {"enum": [*options, None], "description": words}
    kind = next((k for k in ("integer", "number", "boolean") if re.search(rf"\b{k}\b", words)), "string")
    if re.search(r"\bTrue\b|\btrue\b|\btrue/false\b", words):
        kind = "boolean"
    return {"type": [kind, "null"], "description": words}


def _options(words: str) -> list[Any]:
    """Return the values that a placeholder offers: ``one of 'a', 'b'`` or ``a|b|c``."""
    if re.search(r"\bone of\b", words):
        quoted = re.findall(r"['\"“]([^'\"”]+)['\"”]", words)
        if quoted:
            return quoted
        numbers = re.findall(r"(?<![\w.])-?\d+(?:\.\d+)?", words)
        plain = re.split(r"[,/|]|\bor\b", words.split("one of", 1)[1])
        return [json.loads(n) for n in numbers] or [w for w in (p.strip(" :<>().") for p in plain) if w and w != "null"]
    parts = [p.strip(" <>") for p in words.split("|")]
    return [p for p in parts if p and p != "null"] if len(parts) > 1 else []


def _described(name: str, node: dict[str, Any], system: str) -> dict[str, Any]:
    """Add what a line ``- name (...): words`` of the prompt says about a field."""
    m = re.search(
        rf"^\s*[-*]?\s*[\"'`]?{re.escape(name)}[\"'`]?\s*(?:\([^)\n]*\))?\s*:\s*([^\n]+)$", system, re.MULTILINE
    )
    if m is None or m[1].lstrip().startswith(("[", "{")):
        return node
    return {**node, "description": f"{m[1].strip()}\n{node.get('description') or ''}".strip()}
