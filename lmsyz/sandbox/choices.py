"""Rules for fields with few possible values: enums and booleans."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from typing import Any

from lmsyz.sandbox import cues, tone
from lmsyz.sandbox.fields import Node, Reader, name_tokens, reader_of, singular
from lmsyz.sandbox.text import Text
from lmsyz.sandbox.words import NO_MATCH, SAYS_NOTHING, SURE_POLES, TONE_NAMES

__all__ = ["NOTHING", "boolean_rule", "enum_rule"]

NOTHING: Any = type("Nothing", (), {"__repr__": lambda self: "NOTHING", "__bool__": lambda self: False})()

_YES, _NO = {"yes", "true", "y"}, {"no", "false", "n"}
_ABOUT = re.compile(
    r"\b(?:mention\w*|contain\w*|includ\w*|refer\w*(?: to)?|discuss\w*|about|concern\w*|regard\w*|talk\w*|"
    r"describ\w*|report\w*)\b(.*)",
    re.IGNORECASE | re.DOTALL,
)
_NEGATED = re.compile(r"\b(?:no|not|never|without|n't|neither|nor)\s+(?:\w+\s+){0,2}$", re.IGNORECASE)


def keyword_pattern(word: str) -> str:
    """Return a pattern for a word and its inflections: short words whole, longer ones by their stem."""
    stem = singular(word)
    if len(stem) <= 4:
        return rf"\b{re.escape(stem)}(?:s|es|ed|ing)?\b"
    return rf"\b{re.escape(stem[: max(4, len(stem) - 2)])}\w*"


def _keywords(words: str) -> list[str]:
    return [w for w in re.findall(r"[^\W\d_]+", words.lower()) if len(w) >= 3 and w not in SAYS_NOTHING]


def enum_rule(name: str, node: Node, codebook: str) -> Callable[[Text], list[Any]]:
    """Return the rule for an enum: every value that applies to a text, best first."""
    values = [v for v in node["enum"] if v is not None]
    if len(values) == 1:
        return lambda text: values  # the schema leaves no choice
    words = [v for v in values if isinstance(v, str)]
    if len(words) == len(values):
        return _word_enum(name, node, words, codebook)
    return _number_enum(name, node, values)


def _word_enum(name: str, node: Node, values: list[str], codebook: str) -> Callable[[Text], list[Any]]:
    low = {v.lower(): v for v in values}
    if _YES & set(low) and _NO & set(low):
        return _yes_no(name, node, low)
    poles = tone.is_scale(values)
    tokens = {t for v in values for t in re.findall(r"[a-z]+", v.lower())}
    by_tone = poles and bool(set(name_tokens(name)) & TONE_NAMES or tokens & SURE_POLES)
    if by_tone:
        return lambda text: [v for v in [tone.choose(text.tone, values)] if v is not None]
    occurring = _occurring(values, f"{node.get('description') or ''}\n{codebook}")
    spare = next((low[w] for w in NO_MATCH if w in low), None)
    reader = reader_of(name, node, "string")

    def choose(text: Text) -> list[Any]:
        found = occurring(text)
        if not found and reader is not None and reader.name not in ("tone", "tone score"):
            found = [low[str(v).lower()] for v in reader.read(text, "string", {}) if str(v).lower() in low]
        if not found and poles:
            found = [v for v in [tone.choose(text.tone, values)] if v is not None]
        return found or ([spare] if spare is not None else [])

    return choose


def _occurring(values: Sequence[str], codebook: str) -> Callable[[Text], list[str]]:
    """Return a rule that ranks values by how often their own words, and their codebook's, occur in the text."""
    patterns = []
    for value in values:
        own = _keywords(value.replace("_", " ").replace("-", " "))
        said = [w for w in _said_of(value, codebook) if w not in own]
        phrase = r"\W+".join(keyword_pattern(w) for w in own) or re.escape(value)
        patterns.append((value, re.compile(phrase, re.IGNORECASE), _any_of(own if len(own) > 1 else []), _any_of(said)))

    def rank(text: Text) -> list[str]:
        scored = []
        for order, (value, phrase, parts, said) in enumerate(patterns):
            hits = [m.start() for m in phrase.finditer(text.string)]
            near = [m.start() for p in (parts, said) if p for m in p.finditer(text.string)]
            if hits or near:
                scored.append((-3 * len(hits) - len(near), min(hits + near), order, value))
        return [value for *_, value in sorted(scored)]

    return rank


def _any_of(words: Sequence[str]) -> re.Pattern[str] | None:
    return re.compile("|".join(keyword_pattern(w) for w in words), re.IGNORECASE) if words else None


def _said_of(value: str, codebook: str) -> list[str]:
    """Return a codebook's content words for a value: what follows ``value:``, up to a semicolon or the line's end."""
    pattern = rf"(?:^|[\s;,.(\"'`*-]){re.escape(value)}[\"'`*]*\s*(?::|=|–|—| - |\bmeans\b|\bif\b)\s*([^;\n]+)"
    found = [m[1] for m in re.finditer(pattern, codebook, re.IGNORECASE)]
    return cues.unique(w for words in found for w in _keywords(words) if len(w) >= 4)


def _yes_no(name: str, node: Node, low: dict[str, str]) -> Callable[[Text], list[Any]]:
    rule = boolean_rule(name, node)
    yes, no = low[next(iter(sorted(_YES & set(low))))], low[next(iter(sorted(_NO & set(low))))]
    spare = next((low[w] for w in NO_MATCH if w in low), None)

    def choose(text: Text) -> list[Any]:
        answer = rule(text)
        if answer is NOTHING:
            return [spare] if spare is not None else []
        return [yes if answer else no]

    return choose


def _number_enum(name: str, node: Node, values: list[Any]) -> Callable[[Text], list[Any]]:
    numbers = [v for v in values if isinstance(v, int | float) and not isinstance(v, bool)]
    if set(map(type, values)) == {bool}:
        rule = boolean_rule(name, node)
        return lambda text: [v for v in [rule(text)] if v is not NOTHING]
    if len(numbers) != len(values):
        return lambda text: []
    if set(name_tokens(name)) & TONE_NAMES:
        low, high = min(numbers), max(numbers)
        return lambda text: [min(numbers, key=lambda v: abs(v - tone.scaled(text.tone, low, high)))]
    reader: Reader | None = reader_of(name, node, "number")
    if reader is None:
        return lambda text: []
    return lambda text: [v for v in reader.read(text, "number", {}) if v in numbers]


def boolean_rule(name: str, node: Node) -> Callable[[Text], Any]:
    """Return the rule for a boolean: whether its words, or what they name, occur in the text un-negated.

    A name without a word to look for (``flag``, ``relevant``) has no rule unless the description says what the text
    may mention.
    """
    tokens = [t for t in name_tokens(name) if t not in SAYS_NOTHING]
    signs = {"positive": 1, "negative": -1, "neutral": 0}
    for token in tokens:
        if token in signs:
            return lambda text, sign=signs[token]: text.tone.sign == sign  # type: ignore[misc]
    about = _ABOUT.search(str(node.get("description") or ""))
    words = cues.unique([*tokens, *(_keywords(about[1]) if about else [])])
    pattern = _any_of([w for w in words if not w.isdigit()])
    reader = next((r for r in (reader_of(t, {}, "string") for t in tokens) if r is not None and r.extracts), None)
    if pattern is None:
        return lambda text: NOTHING

    def occurs(text: Text) -> bool:
        if reader is not None and reader.read(text, "string", {}):
            return True
        string = text.string
        return any(not _NEGATED.search(string[max(0, m.start() - 40) : m.start()]) for m in pattern.finditer(string))

    return occurs
