"""Tone by VADER's lexicon, and its words for the values of an enum.

A compound score of at least +0.05 is positive and of at most -0.05 negative, as VADER's authors advise; what lies
between is neutral. Words of monetary policy (hawkish, dovish) are no matter of sentiment and have cues of their own.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

from lmsyz.sandbox.words import NEGATIVE, NEUTRAL, POSITIVE

__all__ = ["Tone", "choose", "is_scale", "read", "scaled"]

NEUTRAL_BAND = 0.05
STRONG = 0.6
READ_CHARACTERS = 5_000

_CLASS = {word: sign for sign, listed in ((1, POSITIVE), (-1, NEGATIVE), (0, NEUTRAL)) for word in listed}
_VERY = {"very", "strongly", "highly", "extremely", "strong"}
_MIXED = {"mixed", "both", "conflicted"}
_HAWKISH = re.compile(
    r"\b(?:tighten\w*|hike[sd]?|rais(?:e|es|ed|ing) (?:interest |policy )?rates?|rate (?:increase|hike)s?|restrictive|"
    r"hawkish|inflation(?:ary)? (?:pressures?|risks?)|overheat\w*|price stability|higher (?:interest )?rates|"
    r"upside risks?)\b",
    re.IGNORECASE,
)
_DOVISH = re.compile(
    r"\b(?:eas(?:e|es|ed|ing)|accommodat\w*|cut(?:s|ting)? (?:interest |policy )?rates?|rate cuts?|"
    r"lower(?:s|ed|ing)? (?:interest )?rates?|stimul\w*|dovish|asset purchases|slack|downside risks?|"
    r"support (?:the )?(?:recovery|employment|growth))\b",
    re.IGNORECASE,
)


@dataclass(frozen=True, slots=True)
class Tone:
    """VADER's scores of a text, and the counts of hawkish and dovish cues."""

    compound: float
    positive: float
    negative: float
    hawkish: int
    dovish: int

    @property
    def sign(self) -> int:
        """1, 0 or -1."""
        if self.compound >= NEUTRAL_BAND:
            return 1
        return -1 if self.compound <= -NEUTRAL_BAND else 0

    @property
    def word(self) -> str:
        """positive, neutral or negative."""
        return {1: "positive", 0: "neutral", -1: "negative"}[self.sign]


@cache
def _vader() -> Any:
    from vaderSentiment.vaderSentiment import SentimentIntensityAnalyzer

    return SentimentIntensityAnalyzer()


def read(text: str) -> Tone:
    """Score a text."""
    head = text[:READ_CHARACTERS]
    scores = _vader().polarity_scores(head)
    return Tone(
        compound=float(scores["compound"]),
        positive=float(scores["pos"]),
        negative=float(scores["neg"]),
        hawkish=len(_HAWKISH.findall(head)),
        dovish=len(_DOVISH.findall(head)),
    )


def _tokens(value: str) -> list[str]:
    return re.findall(r"[a-z]+", value.lower())


@cache
def _class_of(value: str) -> float | str | None:
    """Return the place of an enum's word on the scale from -2 to 2, or its kind, or None."""
    tokens = _tokens(value)
    if not tokens:
        return None
    if "hawkish" in tokens or "dovish" in tokens:
        return "hawkish" if "hawkish" in tokens else "dovish"
    if set(tokens) & _MIXED:
        return "mixed"
    signs = {_CLASS[t] for t in tokens if t in _CLASS}
    if "not" in tokens or "non" in tokens or len(signs - {0}) > 1:
        return None
    if not signs:
        return None
    sign = max(signs, key=abs)
    return sign * 2 if sign and len(tokens) > 1 and set(tokens) & _VERY else sign


@cache
def _classes(values: tuple[str, ...]) -> dict[float | str, str]:
    found: dict[float | str, str] = {}
    for value in values:
        place = _class_of(value)
        if place is not None:
            found.setdefault(place, value)
    return found


def is_scale(values: Sequence[str]) -> bool:
    """Return whether an enum's words are poles of tone: most of them have a place, and two differ."""
    places = _classes(tuple(values))
    ends = {p for p in places if p != 0}
    return len(ends) >= 2 or (bool(ends) and 0 in places and len(values) <= 3)


def choose(tone: Tone, values: Sequence[str]) -> str | None:
    """Return the enum's word for a tone, None where none of them says it."""
    places = _classes(tuple(values))
    if "hawkish" in places or "dovish" in places:
        balance = tone.hawkish - tone.dovish
        return places.get("hawkish" if balance > 0 else "dovish" if balance < 0 else 0)
    if "mixed" in places and tone.positive >= 0.1 and tone.negative >= 0.1:
        return places["mixed"]
    sign = tone.sign
    if sign == 0 and 0 not in places:
        # Two poles only: a weak tone still leans to one side; none at all leans to neither.
        sign = (tone.compound > 0) - (tone.compound < 0)
        return places.get(sign) if sign else None
    if sign and abs(tone.compound) >= STRONG and 2 * sign in places:
        return places[2 * sign]
    return places.get(sign, places.get(2 * sign))


def scaled(tone: Tone, low: float, high: float) -> float:
    """Return the compound score on a scale from low to high."""
    return low + (tone.compound + 1) / 2 * (high - low)
