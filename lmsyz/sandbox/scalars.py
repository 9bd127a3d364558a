"""Rules for strings and numbers: copied fields, labels, readers, patterns; and the bounds that a value must keep."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from lmsyz.sandbox import cues
from lmsyz.sandbox.choices import NOTHING
from lmsyz.sandbox.fields import Node, Reader, as_kind, name_tokens, noun_counter, reader_of, singular
from lmsyz.sandbox.text import Text

__all__ = ["Rule", "copied_field", "scalar_rule"]


@dataclass(frozen=True, slots=True)
class Rule:
    """A compiled rule.

    Parameters
    ----------
    every : callable
        Text -> all values found, best first.
    nullable : bool
        Whether null is an answer where nothing was found.
    extracts : bool
        Whether a value means that something was found in the text, not that this rule always answers.
    blind : bool
        Whether there is no rule at all.
    """

    every: Callable[[Text], Sequence[Any]]
    nullable: bool = False
    extracts: bool = True
    blind: bool = False

    def one(self, text: Text) -> Any:
        """Return the best value, null, or NOTHING."""
        found = self.every(text)
        return found[0] if found else (None if self.nullable else NOTHING)


def copied_field(text: Text, name: str) -> Any:
    """Return the value of the named field that has this name, NOTHING where there is none."""
    if not text.fields or not name:
        return NOTHING
    return next((v for k, v in text.fields.items() if k.lower() == name.lower()), NOTHING)


def scalar_rule(node: Node, name: str) -> Rule:
    """Return the rule for a string or a number."""
    kind = str(node.get("type"))
    reader = reader_of(name, node, kind)
    label = " ".join(name_tokens(name))
    if reader is None and kind in ("integer", "number") and label:
        reader = noun_counter(singular(label.split()[-1]))
    pattern = _searchable(node.get("pattern")) if kind == "string" else None

    def every(text: Text) -> Sequence[Any]:
        return [v for v in _candidates(text, name, label, kind, node, reader, pattern) if _fits(v, node, kind)]

    extracts = reader is None or reader.extracts
    return Rule(every, extracts=extracts, blind=reader is None and pattern is None and not label)


def _candidates(
    text: Text,
    name: str,
    label: str,
    kind: str,
    node: Node,
    reader: Reader | None,
    pattern: re.Pattern[str] | None,
) -> Sequence[Any]:
    copied = copied_field(text, name)
    if copied is not NOTHING:
        return [copied]
    if label and (reader is None or reader.extracts) and (":" in text.string or "=" in text.string):
        said = cues.labelled(text.string, label)
        if said is not None:
            found = reader.read(Text(said), kind, node) if reader is not None else ()
            found = found or _plain(said, kind)
            if found:
                return found
    found = reader.read(text, kind, node) if reader is not None else ()
    if not found and pattern is not None:
        found = [m[0] for m in pattern.finditer(text.string)]
    return found


def _plain(said: str, kind: str) -> Sequence[Any]:
    if kind == "string":
        return [said]
    value = cues.first_number(said)
    return () if value is None else as_kind(value, kind)


def _searchable(pattern: object) -> re.Pattern[str] | None:
    """Return a schema's pattern without its anchors, None where Python cannot read it."""
    if not isinstance(pattern, str):
        return None
    try:
        return re.compile(pattern.removeprefix("^").removesuffix("$"))
    except re.error:
        return None


def _fits(value: Any, node: Node, kind: str) -> bool:
    """Return whether a value is of the type and within the bounds that the schema names."""
    if kind == "string":
        if not isinstance(value, str) or not value:
            return False
        if not int(node.get("minLength") or 0) <= len(value) <= int(node.get("maxLength") or len(value)):
            return False
        pattern = node.get("pattern")
        return not isinstance(pattern, str) or _matches(pattern, value)
    if isinstance(value, bool) or not isinstance(value, int | float):
        return False
    if kind == "integer" and not isinstance(value, int):
        return False
    step = node.get("multipleOf")
    return (
        value >= node.get("minimum", value)
        and value <= node.get("maximum", value)
        and ("exclusiveMinimum" not in node or value > node["exclusiveMinimum"])
        and ("exclusiveMaximum" not in node or value < node["exclusiveMaximum"])
        and (not step or abs(value / step - round(value / step)) < 1e-9)
    )


def _matches(pattern: str, value: str) -> bool:
    try:
        return re.search(pattern, value) is not None
    except re.error:
        return False
