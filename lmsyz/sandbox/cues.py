"""Cues in a text: money, percentages, dates, years, firms, people, quotations, contacts. Regular expressions only."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass

from lmsyz.sandbox.words import LEADING

__all__ = [
    "Amount",
    "Date",
    "acquirer",
    "companies",
    "counted",
    "dates",
    "first_number",
    "labelled",
    "money",
    "people",
    "percents",
    "places",
    "quotes",
    "target",
    "unique",
    "years",
]

_NUMBER = r"\d{1,3}(?:[,\u00a0\u202f']\d{3})+(?:\.\d+)?|\d+(?:[.,]\d+)?"
_SCALES = {
    "thousand": 1e3, "k": 1e3, "million": 1e6, "millions": 1e6, "mn": 1e6, "mln": 1e6, "mm": 1e6, "m": 1e6,
    "billion": 1e9, "billions": 1e9, "bn": 1e9, "b": 1e9, "trillion": 1e12, "trillions": 1e12, "tn": 1e12,
}  # fmt: skip
_SCALE = r"thousand|millions?|billions?|trillions?|mln|mn|mm|bn|tn|[kmb]"
_SYMBOLS = {
    "US$": "USD", "A$": "AUD", "C$": "CAD", "$": "USD", "€": "EUR", "£": "GBP", "¥": "JPY", "₹": "INR",
    "CHF": "CHF", "USD": "USD", "EUR": "EUR", "GBP": "GBP", "JPY": "JPY", "CAD": "CAD", "AUD": "AUD", "RMB": "CNY",
    "CNY": "CNY", "INR": "INR", "SEK": "SEK", "NOK": "NOK", "DKK": "DKK",
}  # fmt: skip
_NAMES = {
    "dollar": "USD", "dollars": "USD", "cents": "USD", "euro": "EUR", "euros": "EUR", "pound": "GBP",
    "pounds": "GBP", "yen": "JPY", "yuan": "CNY", "rupees": "INR", "francs": "CHF", "kronor": "SEK",
}  # fmt: skip
_CODES = "|".join(re.escape(s) for s in sorted(_SYMBOLS, key=len, reverse=True))
_MONEY = re.compile(
    rf"(?P<sign>-|minus )?(?P<symbol>{_CODES})\s?(?P<number>{_NUMBER})(?:[\s-]?(?P<scale>{_SCALE})\b)?"
    rf"|\b(?P<number2>{_NUMBER})(?:[\s-]?(?P<scale2>{_SCALE})\b)?\s?"
    rf"(?P<name>{'|'.join(_NAMES)}|€|£|{'|'.join(s for s in _SYMBOLS if s.isalpha())})(?!\w)",
    re.IGNORECASE,
)
_PERCENT = re.compile(
    rf"(?P<sign>[-−+]|minus )?(?<![\w.,])(?P<number>{_NUMBER})\s?(?:%|percent\b|per cent\b|percentage points?\b)",
    re.IGNORECASE,
)
_MONTHS = {
    name: i + 1
    for i, names in enumerate(
        [
            "jan january",
            "feb february",
            "mar march",
            "apr april",
            "may",
            "jun june",
            "jul july",
            "aug august",
            "sep sept september",
            "oct october",
            "nov november",
            "dec december",
        ]
    )
    for name in names.split()
}
_MONTH = "|".join(sorted(_MONTHS, key=len, reverse=True))
_DATE = re.compile(
    r"\b(?P<iso>(?P<iy>\d{4})-(?P<im>\d{2})-(?P<id>\d{2}))\b"
    rf"|\b(?P<d1>\d{{1,2}})(?:st|nd|rd|th)?\s+(?:of\s+)?(?P<m1>{_MONTH})\.?,?\s+(?P<y1>\d{{4}})\b"
    rf"|\b(?P<m2>{_MONTH})\.?\s+(?P<d2>\d{{1,2}})(?:st|nd|rd|th)?,?\s+(?P<y2>\d{{4}})\b"
    rf"|\b(?P<m3>{_MONTH})\.?,?\s+(?P<y3>\d{{4}})\b"
    r"|\b(?P<slash>\d{1,2}[/.]\d{1,2}[/.]\d{4})\b",
    re.IGNORECASE,
)
_YEAR = re.compile(r"(?<![\w$€£.,-])(1\d{3}|2[01]\d{2})(?![\w%]|[.,]\d)")
_NAME = r"[A-Z][\w&'’.-]*[\w]|[A-Z]"
_SUFFIX = (
    r"Inc|Corp|Corporation|Company|Co|Ltd|Limited|LLC|LLP|LP|PLC|plc|AG|SE|SA|NV|GmbH|Group|Holdings?|Partners|"
    r"Bank|Bancorp|Capital|Industries|Technologies|Systems|Laboratories|Labs|Pharmaceuticals|Pharma|Motors|Airlines|"
    r"Airways|Energy|Foods|Software|Logistics|Insurance|Robotics|Retail|Media|Networks|Solutions|Brothers|Works"
)
_FIRM = re.compile(rf"\b((?:(?:{_NAME})\s+(?:(?:and|&|of)\s+)?){{1,4}}(?:{_SUFFIX})\b(?:\.(?=\s+[a-z,]|$))?)")
# Bounded: in a text all in capitals every word could begin a name that runs to the end.
_RUN = rf"(?:{_NAME})(?:\s+(?:(?:and|&|of)\s+)?(?:{_NAME})){{0,5}}"
_REPORTS = re.compile(
    rf"(?<![\w.])({_RUN}),?\s+(?:has\s+|have\s+|also\s+|will\s+|had\s+)?(?:said|reported|reports|announced|announces|"
    r"posted|posts|agreed|agrees|expects|plans|cut|cuts|raised|raises|filed|files|launched|launches|acquired|acquires|"
    r"bought|buys|sold|sells|hired|hires|paid|pays|warned|warns|beat|missed|signed|signs|opened|closed)\b"
)
_BUYS = (
    r"(?:acquire[sd]?|acquiring|buy|buys|bought|buying|purchase[sd]?|purchasing|take over|takes over|took over|"
    r"taking over)"
)
_AUX = (
    r"(?:(?:has|have|had|will|would|is|was|to|agreed|agrees|plans|planned|completed|announced|said|it|they|intends|"
    r"also|just)\s+)*"
)
_ACQUIRER = re.compile(rf"(?<![\w.])({_RUN})[,.]?\s+{_AUX}{_BUYS}\b")
_BOUGHT_BY = re.compile(rf"\b(?:acquired|bought|purchased|taken over)\s+by\s+({_RUN})")
_TARGET = re.compile(rf"\b{_BUYS}\s+(?:of\s+)?(?:the\s+|rival\s+|its\s+|smaller\s+|competitor\s+)*({_RUN})")
_SOLD = re.compile(
    rf"(?<![\w.])({_RUN})\s+(?:was|were|has been|is being|will be)\s+(?:acquired|bought|purchased|taken over)\s+by"
)
_PERSON = re.compile(
    r"\b(?:Mr|Mrs|Ms|Dr|Prof|President|Senator|Governor|Secretary|Chair(?:man|woman)?|Professor|Judge|Minister|"
    rf"CEO|CFO|COO|Chief Executive|Speaker|Representative)\.?\s+({_RUN})"
)
_QUOTE = re.compile(r"“([^”]{2,400})”|\"([^\"]{2,400})\"|«\s?([^»]{2,400}?)\s?»|„([^“]{2,400})“")
_PLACE = re.compile(rf"\b(?:in|at|from|near)\s+({_RUN})")
_WORDS_FOR = {
    "one": 1, "two": 2, "three": 3, "four": 4, "five": 5, "six": 6, "seven": 7, "eight": 8, "nine": 9, "ten": 10,
    "eleven": 11, "twelve": 12,
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Amount:
    """An amount as written and as a number."""

    written: str
    value: float
    currency: str = ""


@dataclass(frozen=True, slots=True)
class Date:
    """A date as written and, where the day is known beyond doubt, in ISO form."""

    written: str
    iso: str = ""


def unique(values: Iterable[str]) -> list[str]:
    """Return values without repetition, in their order."""
    return list(dict.fromkeys(values))


def _number(text: str) -> float:
    plain = re.sub(r"[\u00a0\u202f']", "", text)
    if re.fullmatch(r"\d+,\d{1,2}", plain):  # a decimal comma
        return float(plain.replace(",", "."))
    return float(plain.replace(",", ""))


def money(text: str) -> list[Amount]:
    """Return the amounts of money, scaled by million, billion and the like.

    Examples
    --------
    >>> money("It paid $1.5 billion and 30 euros.")[0]
    Amount(written='$1.5 billion', value=1500000000.0, currency='USD')
    """
    found = []
    for m in _MONEY.finditer(text):
        value = _number(m["number"] or m["number2"]) * _SCALES.get((m["scale"] or m["scale2"] or "").lower(), 1)
        unit = m["symbol"] or m["name"]
        code = _SYMBOLS.get(unit.upper()) or _NAMES.get(unit.lower(), "")
        if unit.lower() == "cents":
            value /= 100
        found.append(Amount(m[0].strip(), round(-value if m["sign"] else value, 4), code))
    return found


def percents(text: str) -> list[Amount]:
    """Return the percentages; ``12.5%`` has the value 12.5."""
    found = []
    for m in _PERCENT.finditer(text):
        value = _number(m["number"])
        found.append(Amount(m[0].strip(), -value if m["sign"] and m["sign"] != "+" else value, "%"))
    return found


def dates(text: str) -> list[Date]:
    """Return the dates. A month without a day, or day and month that may be exchanged, has no ISO form."""
    return [Date(m[0], _iso(m)) for m in _DATE.finditer(text)]


def _iso(m: re.Match[str]) -> str:
    if m["iso"]:
        parts = (int(m["iy"]), int(m["im"]), int(m["id"]))
    elif m["d1"] or m["d2"]:
        month = _MONTHS[(m["m1"] or m["m2"]).lower()]
        parts = (int(m["y1"] or m["y2"]), month, int(m["d1"] or m["d2"]))
    else:
        return ""
    year, month, day = parts
    return f"{year:04d}-{month:02d}-{day:02d}" if 1 <= month <= 12 and 1 <= day <= 31 else ""


def years(text: str) -> list[int]:
    """Return four-digit years."""
    return [int(m[1]) for m in _YEAR.finditer(text)]


def companies(text: str) -> list[str]:
    """Return names that end like a firm's (Inc, Bank, ...), then names that report, announce, acquire and so on."""
    found = [m[1] for m in _FIRM.finditer(text)] + [m[1] for m in _REPORTS.finditer(text)]
    return _names(found)


def _names(found: Iterable[str]) -> list[str]:
    """Take off what begins a sentence rather than a name, and what is part of a longer name."""
    names = []
    for name in found:
        words = name.split()
        while words and words[0] in LEADING:
            words.pop(0)
        if words and not (len(words) == 1 and words[0].lower() in _MONTHS):
            names.append(" ".join(words))
    kept: list[str] = []
    for name in unique(names):
        if not any(re.search(rf"\b{re.escape(name)}\b", other) for other in kept):
            kept.append(name)
    return kept


def acquirer(text: str) -> list[str]:
    """Return the names before a verb of buying, or after ``bought by``."""
    return _names([m[1] for m in _BOUGHT_BY.finditer(text)] or [m[1] for m in _ACQUIRER.finditer(text)])


def target(text: str) -> list[str]:
    """Return the names after a verb of buying, or before ``was bought by``."""
    return _names([m[1] for m in _SOLD.finditer(text)] or [m[1] for m in _TARGET.finditer(text)])


def people(text: str) -> list[str]:
    """Return names with a title before them, without the title."""
    return _names(m[1] for m in _PERSON.finditer(text))


def places(text: str) -> list[str]:
    """Return capitalised names after in, at, from or near."""
    return [n for n in _names(m[1] for m in _PLACE.finditer(text)) if n.split()[0].lower() not in _MONTHS]


def quotes(text: str) -> list[str]:
    """Return what stands in quotation marks."""
    return [next(g for g in m.groups() if g) for m in _QUOTE.finditer(text)]


def counted(text: str, noun: str) -> float | None:
    """Return the number that stands before a noun: ``1,200 employees`` for ``employee``."""
    stem = re.escape(noun.removesuffix("s"))
    scale = "thousand|million|billion|trillion"
    pattern = (
        rf"(?<![\w$€£.,])({_NUMBER}|{'|'.join(_WORDS_FOR)})\s+(?:({scale})\s+)?(?:[a-z-]+\s+){{0,2}}?{stem}(?:s|es)?\b"
    )
    m = re.search(pattern, text, re.IGNORECASE)
    if m is None:
        return None
    word = m[1].lower()
    value = float(_WORDS_FOR[word]) if word in _WORDS_FOR else _number(word)
    return value * _SCALES.get((m[2] or "").lower(), 1)


def first_number(text: str) -> float | None:
    """Return the first number that is written in digits."""
    m = re.search(rf"(?<![\w.])(-?)({_NUMBER})(?!\w)", text)
    return None if m is None else _number(m[2]) * (-1 if m[1] else 1)


def labelled(text: str, label: str) -> str | None:
    """Return what follows ``label:`` or ``label =``, up to a semicolon or the end of the line."""
    words = r"[\s_-]+".join(re.escape(w) for w in label.split())
    m = re.search(rf"(?<!\w){words}\s*[:=]\s*([^;\n|]{{1,200}})", text, re.IGNORECASE)
    return m[1].strip(" .,\t\"'") or None if m else None
