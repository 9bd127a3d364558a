"""One text and what can be read off it, each thing at most once."""

from __future__ import annotations

import hashlib
import json
import re
from dataclasses import dataclass
from functools import cached_property, lru_cache
from typing import Any

from lmsyz.sandbox import cues
from lmsyz.sandbox import tone as tones

__all__ = ["Picture", "Text", "text_of"]

OPENING_WORDS = 8
READ_CHARACTERS = 20_000  # what rules look at; a digest is always of the whole text
_SENTENCE = re.compile(r"(?<=[.!?…])[\"”’')\]]*\s+(?=[\"“‘'(\[]?[A-Z0-9À-Þ])|\n+")
_ABBREVIATION = re.compile(r"(?:\b(?:[A-Z]|Mr|Mrs|Ms|Dr|Prof|St|Inc|Corp|Ltd|Co|No|vs|approx|U\.S|U\.K)\.)$")
_WORD = re.compile(r"[^\W_]+(?:['’\-][^\W_]+)*")


@dataclass(frozen=True, slots=True, kw_only=True)
class Picture:
    """What can be told of a row's image: its digest in hex (of its web address, for one that was not fetched)."""

    sha256: str
    media_type: str = ""
    width: int = 0
    height: int = 0
    n_bytes: int = 0


class Text:
    """A row's text. Each reading is computed when it is first asked for.

    Parameters
    ----------
    raw : str
        The text exactly as received; for named fields the JSON of their object.
    fields : mapping, optional
        The named fields, where the row came with several.
    picture : Picture, optional
        The row's image.
    """

    def __init__(self, raw: str, fields: dict[str, Any] | None = None, picture: Picture | None = None) -> None:
        self.raw = raw
        self.picture = picture
        self.fields = fields or {}
        joined = "\n".join(str(v) for v in fields.values() if v is not None) if fields else raw
        self.string = joined[:READ_CHARACTERS]

    @cached_property
    def digest(self) -> str:
        """First 16 hex digits of the raw text's SHA-256."""
        return hashlib.sha256(self.raw.encode("utf-8", "surrogatepass")).hexdigest()[:16]

    @cached_property
    def opening(self) -> str:
        """The first words, one space between them; of an image alone, that there are none."""
        return " ".join(self.string.split()[:OPENING_WORDS]) or ("(no text)" if self.picture else "")

    @cached_property
    def lower(self) -> str:
        """The text in lower case."""
        return self.string.lower()

    @cached_property
    def words(self) -> list[str]:
        """The words in lower case."""
        return _WORD.findall(self.lower)

    @cached_property
    def sentences(self) -> list[str]:
        """The sentences, as written."""
        return _join_abbreviations([s.strip() for s in _SENTENCE.split(self.string) if s and s.strip()])

    @cached_property
    def tone(self) -> tones.Tone:
        """VADER's scores."""
        return tones.read(self.string)

    @cached_property
    def money(self) -> list[cues.Amount]:
        """Amounts of money."""
        return cues.money(self.string)

    @cached_property
    def percents(self) -> list[cues.Amount]:
        """Percentages."""
        return cues.percents(self.string)

    @cached_property
    def dates(self) -> list[cues.Date]:
        """Calendar dates."""
        return cues.dates(self.string)

    @cached_property
    def years(self) -> list[int]:
        """Years from 1000 to 2199."""
        return cues.years(self.string)

    @cached_property
    def companies(self) -> list[str]:
        """Names with a cue of being a firm."""
        return cues.companies(self.string)

    @cached_property
    def people(self) -> list[str]:
        """Names with a title before them."""
        return cues.people(self.string)

    @cached_property
    def quotes(self) -> list[str]:
        """What stands in quotation marks."""
        return cues.quotes(self.string)

    def part(self, sentence: str) -> Text:
        """Return one of its sentences as a text of its own."""
        return Text(sentence)


def _join_abbreviations(parts: list[str]) -> list[str]:
    whole: list[str] = []
    for part in parts:
        if whole and _ABBREVIATION.search(whole[-1]):
            whole[-1] += " " + part
        else:
            whole.append(part)
    return whole


@lru_cache(maxsize=4096)
def _plain(raw: str) -> Text:
    return Text(raw)


def text_of(value: Any, picture: Picture | None = None) -> Text:
    """Return the text of a row's ``input_text``: a string, an object of named fields, or null beside an image."""
    if picture is not None:
        raw = value if isinstance(value, str) else "" if value is None else json.dumps(value, ensure_ascii=False)
        return Text(raw, value if isinstance(value, dict) else None, picture)
    if isinstance(value, str):
        return _plain(value)
    raw = json.dumps(value, ensure_ascii=False)
    return Text(raw, value) if isinstance(value, dict) else Text(raw)
