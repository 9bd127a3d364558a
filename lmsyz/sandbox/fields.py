"""Readers: what a field's name says is to be read off the text.

A reader returns every value it finds, best first, in the JSON type that the schema wants, or nothing.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from lmsyz.sandbox import cues, tone
from lmsyz.sandbox.text import Picture, Text
from lmsyz.sandbox.words import COUNTRIES, LANGUAGES, STOP

__all__ = ["Node", "Reader", "name_tokens", "reader_of", "singular"]

Node = Mapping[str, Any]
Read = Callable[[Text, str, Node], Sequence[Any]]


@dataclass(frozen=True, slots=True)
class Reader:
    """A rule for a field: what it is called, how it reads, and whether it looks for cues or always answers."""

    name: str
    read: Read
    extracts: bool = True


def name_tokens(name: str) -> list[str]:
    """Return the words of a field's name in lower case: ``dealValue_usd`` has deal, value and usd."""
    return [w.lower() for w in re.findall(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+|\d+", name)]


def singular(word: str) -> str:
    """Return a word without its plural ending."""
    if word.endswith("ies") and len(word) > 4:
        return word[:-3] + "y"
    return word[:-1] if word.endswith("s") and not word.endswith("ss") and len(word) > 3 else word


def _strings(values: Sequence[str], kind: str) -> Sequence[Any]:
    return values if kind == "string" else ()


def as_kind(value: float, kind: str) -> list[Any]:
    """Return a number in the JSON type wanted; one with a fraction is no integer."""
    if kind == "number":
        return [int(value) if value.is_integer() and abs(value) < 2**53 else value]
    return [int(value)] if kind == "integer" and value.is_integer() else []


def _amounts(amounts: Sequence[cues.Amount], kind: str) -> Sequence[Any]:
    if kind == "string":
        return [a.written for a in amounts]
    return [v for a in amounts for v in as_kind(a.value, kind)]


def _money(text: Text, kind: str, _node: Node) -> Sequence[Any]:
    return _amounts(text.money, kind)


def _currency(text: Text, kind: str, _node: Node) -> Sequence[Any]:
    return _strings(cues.unique(a.currency for a in text.money if a.currency), kind)


def _percent(text: Text, kind: str, node: Node) -> Sequence[Any]:
    if kind == "number" and node.get("maximum") == 1:  # a share, not a percentage
        return [round(a.value / 100, 10) for a in text.percents]
    return _amounts(text.percents, kind)


def _date(text: Text, kind: str, node: Node) -> Sequence[Any]:
    if node.get("format") == "date-time":
        return _strings([f"{d.iso}T00:00:00Z" for d in text.dates if d.iso], kind)
    wants_iso = node.get("format") == "date" or "YYYY-MM-DD" in str(node.get("description") or "").upper()
    return _strings([d.iso if wants_iso else d.written for d in text.dates if d.iso or not wants_iso], kind)


def _year(text: Text, kind: str, _node: Node) -> Sequence[Any]:
    return [str(y) for y in text.years] if kind == "string" else list(text.years)


def _pattern(pattern: str) -> Read:
    compiled = re.compile(pattern, re.IGNORECASE)
    return lambda text, kind, _node: _strings(cues.unique(m[0] for m in compiled.finditer(text.string)), kind)


def _tone(text: Text, kind: str, node: Node) -> Sequence[Any]:
    if kind == "string":
        return [text.tone.word]
    low, high = node.get("minimum"), node.get("maximum")
    if low is None or high is None:
        return [text.tone.compound if kind == "number" else text.tone.sign]
    place = tone.scaled(text.tone, float(low), float(high))
    return [round(place, 4) if kind == "number" else round(place)]


def _tone_number(text: Text, kind: str, node: Node) -> Sequence[Any]:
    return () if kind == "string" else _tone(text, kind, node)


def _rationale(text: Text, kind: str, _node: Node) -> Sequence[Any]:
    return _strings([f"Dictionary rules, not a model: VADER compound {text.tone.compound:+.2f}."], kind)


def _count(measure: Callable[[Text], int]) -> Read:
    return lambda text, kind, _node: [measure(text)] if kind in ("integer", "number") else ()


def _of_text(measure: Callable[[Text], Sequence[str]]) -> Read:
    return lambda text, kind, _node: _strings(measure(text), kind)


def _of_picture(measure: Callable[[Picture], int]) -> Read:
    def read(text: Text, kind: str, _node: Node) -> Sequence[Any]:
        size = measure(text.picture) if text.picture is not None else 0
        return [size] if size and kind in ("integer", "number") else ()

    return read


def _keywords(text: Text) -> list[str]:
    counts = Counter(w for w in text.words if len(w) >= 4 and w not in STOP and not w.isdigit())
    return [word for word, _ in counts.most_common(5)]


def _language(text: Text) -> list[str]:
    counts = Counter(text.words)
    scores = {code: sum(counts[w] for w in listed) for code, listed in LANGUAGES.items()}
    best = max(scores, key=lambda code: scores[code])
    clear = scores[best] > 0 and sum(s == scores[best] for s in scores.values()) == 1
    return [best] if clear else []


_QUARTER = r"\bQ[1-4](?:\s?(?:FY)?\s?\d{2,4})?\b|\b(?:first|second|third|fourth)[ -]quarter\b"
_CLOCK = r"\b(?:[01]?\d|2[0-3]):[0-5]\d(?::[0-5]\d)?(?:\s?[ap]\.?m\b\.?)?"
_TABLE: tuple[tuple[str, Reader], ...] = (
    ("digest sha checksum", Reader("digest", _of_text(lambda t: [t.digest]), False)),
    ("opening", Reader("opening", _of_text(lambda t: [t.opening]), False)),
    ("sentiment tone polarity valence mood attitude outlook feeling", Reader("tone", _tone, False)),
    ("score rating stars compound positivity", Reader("tone score", _tone_number, False)),
    (
        "amount amounts price prices money cost costs revenue revenues sales profit profits income loss losses budget "
        "salary wage wages fee fees fine dividend dividends debt capex investment investments consideration proceeds "
        "valuation value worth sum usd eur gbp dollars euros pounds spending payment",
        Reader("money", _money),
    ),
    ("currency currencies", Reader("currency", _currency)),
    ("percent percents percentage percentages pct share rate rates growth margin yield", Reader("percent", _percent)),
    ("date dates day deadline announced effective", Reader("date", _date)),
    ("year years", Reader("year", _year)),
    ("quarter quarters", Reader("quarter", _pattern(_QUARTER))),
    ("time times", Reader("time", _pattern(_CLOCK))),
    ("acquirer acquirers buyer buyers bidder", Reader("acquirer", _of_text(lambda t: cues.acquirer(t.string)))),
    ("target targets acquired", Reader("target", _of_text(lambda t: cues.target(t.string)))),
    (
        "company companies firm firms organization organizations organisation organisations employer issuer bank "
        "corporation business seller",
        Reader("company", _of_text(lambda t: t.companies)),
    ),
    (
        "person persons people speaker speakers ceo executive president author",
        Reader("person", _of_text(lambda t: t.people)),
    ),
    ("name names entity entities", Reader("name", _of_text(lambda t: [*t.companies, *t.people]))),
    ("country countries nation nations", Reader("country", _pattern(rf"\b(?:{COUNTRIES})\b"))),
    ("location locations place places city cities", Reader("place", _of_text(lambda t: cues.places(t.string)))),
    ("quote quotes quotation quotations", Reader("quote", _of_text(lambda t: t.quotes))),
    ("evidence excerpt span passage", Reader("evidence", _of_text(lambda t: t.quotes or t.sentences[:1]))),
    (
        "summary title headline gist abstract synopsis snippet overview",
        Reader("first sentence", _of_text(lambda t: t.sentences[:1]), False),
    ),
    ("sentence sentences", Reader("sentences", _of_text(lambda t: t.sentences))),
    ("rationale reason reasons reasoning explanation justification", Reader("rationale", _rationale, False)),
    ("language lang", Reader("language", _of_text(_language), False)),
    ("keyword keywords", Reader("keywords", _of_text(_keywords), False)),
    ("verbatim", Reader("text", _of_text(lambda t: [t.string]), False)),
    ("email emails", Reader("email", _pattern(r"(?<![\w.+-])[\w.+-]{1,64}@[\w-]{1,63}(?:\.[\w-]{1,63}){1,9}\b"))),
    ("url urls link links website", Reader("url", _pattern(r"https?://[^\s<>\"')\]]+[^\s<>\"')\].,;:!?]"))),
    ("phone telephone", Reader("phone", _pattern(r"\+?\d[\d ()/-]{7,}\d"))),
)
_BY_WORD = {word: reader for words, reader in _TABLE for word in words.split()}
_BY_NAME = {
    "image_sha256": Reader("image digest", _of_text(lambda t: [t.picture.sha256] if t.picture else []), False),
    "image_type": Reader("image type", _of_text(lambda t: [t.picture.media_type] if t.picture else []), False),
    "image_width": Reader("image width", _of_picture(lambda p: p.width), False),
    "image_height": Reader("image height", _of_picture(lambda p: p.height), False),
    "image_bytes": Reader("image bytes", _of_picture(lambda p: p.n_bytes), False),
    "input_text": _BY_WORD["verbatim"],
    "input_opening": _BY_WORD["opening"],
    "text": _BY_WORD["verbatim"],
    "evidence_quote": _BY_WORD["evidence"],
    "evidence_quotes": _BY_WORD["evidence"],
    "supporting_quote": _BY_WORD["evidence"],
    "supporting_quotes": _BY_WORD["evidence"],
    "main_point": _BY_WORD["summary"],
    "key_point": _BY_WORD["summary"],
}
_BY_FORMAT = {
    "date": _BY_WORD["date"],
    "date-time": _BY_WORD["date"],
    "time": Reader("time", _pattern(r"\b(?:[01]\d|2[0-3]):[0-5]\d:[0-5]\d(?:Z|[+-]\d\d:\d\d)")),
    "duration": Reader("duration", _pattern(r"\bP(?:\d+[YMWD])+(?:T(?:\d+[HMS])+)?\b|\bPT(?:\d+[HMS])+\b")),
    "email": _BY_WORD["email"],
    "uri": _BY_WORD["url"],
    "hostname": Reader(
        "hostname", _pattern(r"(?<![\w.-])(?:[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?\.){1,9}[a-z]{2,24}\b")
    ),
    "ipv4": Reader("ipv4", _pattern(r"\b(?:(?:25[0-5]|2[0-4]\d|1?\d?\d)\.){3}(?:25[0-5]|2[0-4]\d|1?\d?\d)\b")),
    "ipv6": Reader("ipv6", _pattern(r"\b(?:[0-9a-f]{1,4}:){7}[0-9a-f]{1,4}\b")),
    "uuid": Reader("uuid", _pattern(r"\b[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}\b")),
}
_COUNTED = {
    "word": Reader("word count", _count(lambda t: len(t.words)), False),
    "character": Reader("character count", _count(lambda t: len(t.raw)), False),
    "char": Reader("character count", _count(lambda t: len(t.raw)), False),
    "sentence": Reader("sentence count", _count(lambda t: len(t.sentences)), False),
}
_COUNT_MARKS = {"n", "num", "number", "count", "counts", "total", "no", "how", "many", "of", "length", "len"}


def reader_of(name: str, node: Node, kind: str) -> Reader | None:
    """Return the reader for a field, by its format, the words of its name (last first), then its description's."""
    tokens = name_tokens(name)
    if kind in ("integer", "number"):
        counter = _counter(tokens)
        if counter is not None:
            return counter
    if kind == "string" and node.get("format") in _BY_FORMAT:
        return _BY_FORMAT[node["format"]]
    for spelt in (name.lower(), "_".join(tokens)):  # evidenceQuote, evidence-quote and "Evidence quote" are one name
        if spelt in _BY_NAME:
            return _BY_NAME[spelt]
    described = re.findall(r"[a-z]+", str(node.get("description") or "").lower())
    for word in [*reversed(tokens), *described]:
        if word in _BY_WORD:
            return _BY_WORD[word]
    return None


def _counter(tokens: Sequence[str]) -> Reader | None:
    """Return the reader of counts: of words and the like in the text, or of a noun with a number before it."""
    nouns = [singular(t) for t in tokens if t not in _COUNT_MARKS]
    marked = len(nouns) < len(tokens)
    if nouns and nouns[-1] in _COUNTED and (marked or tokens[-1].endswith("s")):
        return _COUNTED[nouns[-1]]
    if not marked:
        return None
    if not nouns:
        return Reader("number", _first_number)
    return noun_counter(nouns[-1])


def _first_number(text: Text, kind: str, _node: Node) -> Sequence[Any]:
    value = cues.first_number(text.string)
    return () if value is None else as_kind(value, kind)


def noun_counter(noun: str) -> Reader:
    """Return a reader of the number before a noun."""

    def read(text: Text, kind: str, _node: Node) -> Sequence[Any]:
        value = cues.counted(text.string, noun)
        return () if value is None else as_kind(value, kind)

    return Reader(f"number of {noun}", read)
