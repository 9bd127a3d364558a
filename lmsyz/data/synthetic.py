"""Our own synthetic sentences with gold columns: finance news, and what employees say about work."""

from __future__ import annotations

from functools import partial
from importlib import resources
from typing import Any

import pandas as pd

from lmsyz.data.corpus import Corpus

__all__ = ["FINANCE", "WORKPLACE"]

_SPLITS = ("dev", "test")
_TONES = ("negative", "neutral", "positive")

_FINANCE_DTYPES: dict[str, Any] = {
    "id": "string",
    "text": "string",
    "source": ("call", "filing", "newswire", "post", "press_release"),
    "company": "string",
    "other_company": "string",
    "amount": "string",
    "amount_value": "Float64",
    "currency": (
        *("AUD", "BRL", "CAD", "CHF", "COP", "DKK", "EUR"),
        *("GBP", "INR", "JPY", "NOK", "SEK", "TRY", "USD"),
    ),
    "date": "string",
    "event": (
        *("acquisition", "buyback", "contract", "debt", "dividend", "earnings"),
        *("guidance", "lawsuit", "layoffs", "management", "other"),
    ),
    "denied": "boolean",
    "tone": _TONES,
    "hard": (
        *("amount_in_words", "duplicate", "injection", "mixed_currency", "negation", "no_amount", "non_ascii"),
        *("number_format", "other_language", "rumour_denied", "sarcasm", "two_amounts", "two_dates"),
        *("two_firms", "unit"),
    ),
    "split": _SPLITS,
}

_WORKPLACE_DTYPES: dict[str, Any] = {
    "id": "string",
    "text": "string",
    "source": ("exit_interview", "forum", "review", "survey"),
    "tone": _TONES,
    "culture": ("adhocracy", "clan", "hierarchy", "market", "none"),
    "topic": (
        *("career", "colleagues", "hours", "ideas", "job_security", "management"),
        *("pay", "procedures", "targets", "tools", "training", "other"),
    ),
    "hard": (
        *("change", "duplicate", "hearsay", "injection", "lip_service", "negation", "non_ascii"),
        *("other_language", "sarcasm", "two_topics"),
    ),
    "split": _SPLITS,
}

_LICENCE = "CC0 1.0 Universal (public domain dedication): https://creativecommons.org/publicdomain/zero/1.0/"
_SPLIT = "dev or test, half each, balanced over the gold columns; no prompt and no rule of lmsyz is tuned on test"
_MAKING = (
    "Each text was written on its own, with a language model and from no template, and its gold values with it; both "
    "were read again. So the gold values are what was meant, not what human coders agreed on."
)
_FOR = (
    "For learning, for tests and for demonstrations. A score on invented sentences says nothing about real ones: "
    "do not report it as evidence of a method's validity."
)


def _read(file: str, dtypes: dict[str, Any]) -> pd.DataFrame:
    kinds = {c: pd.CategoricalDtype(list(d)) if isinstance(d, tuple) else d for c, d in dtypes.items()}
    with resources.files("lmsyz.data").joinpath(file).open(encoding="utf-8") as lines:
        # Only an empty cell is missing: "none" and "NA" are text.
        return pd.read_csv(lines, dtype=kinds, keep_default_na=False, na_values=[""])


FINANCE = Corpus(
    name="finance_synthetic",
    title="synthetic news about invented firms, with gold company, amount, date, event and tone",
    content="160 short texts in the manner of press releases, filings, newswire, calls and posts. Two in three are "
    f"hard on purpose, if only in that they give no amount, and say in what way. {_FOR}",
    source="Written for lmsyz. Every firm and every fact is invented; a likeness to a real firm is chance. "
    "Places are real.",
    licence=_LICENCE,
    making=f"{_MAKING} The tests compare amounts, dates and firms with the text by a parser of their own.",
    citation="lmsyz, corpus finance_synthetic, with the version of the package.",
    columns={
        "id": "fin-001 and so on",
        "text": "one to three sentences",
        "source": "the manner: " + ", ".join(_FINANCE_DTYPES["source"]),
        "company": "as written: the firm whose news it is, that buys, sells, reports, borrows, wins or is sued",
        "other_company": "as written: the second firm named, if any",
        "amount": "as written: the sum that the event is about (price, payout a share, principal, damages, forecast; "
        "of results the first one given for the period itself), not an earlier, partial, converted or "
        "neighbouring one; missing where the text has none",
        "amount_value": "that sum as a number in whole units of the currency, without a sign: a loss is positive",
        "currency": "its ISO 4217 code",
        "date": "ISO: the full date (day, month and year) in the text; of two, the day on which the event takes place",
        "event": "what it is about: acquisition (also of a part), buyback, contract (won, lost, placed), debt (loans, "
        "bonds, ratings, default), dividend, earnings (results, sales), guidance (forecasts, plans in figures), "
        "lawsuit (also fines, settlements), layoffs, management (who leads), other",
        "denied": "true if the text says that this did not or will not happen",
        "tone": "for the firm: positive, negative, or neutral (a plain fact, or neither)",
        "hard": "the main way in which the row is hard, if any: "
        + ", ".join(_FINANCE_DTYPES["hard"])
        + " (one to be scaled: bn, p, öre, crore)",
        "split": _SPLIT,
    },
    read=partial(_read, "finance_synthetic.csv", _FINANCE_DTYPES),
    spread_over="event",
    splits=_SPLITS,
)

WORKPLACE = Corpus(
    name="workplace_synthetic",
    title="what synthetic employees say about work, with gold tone, culture and topic",
    content="129 short texts in the manner of employee reviews, staff surveys, exit interviews and forums; a quarter "
    f"are hard on purpose and say in what way. {_FOR}",
    source="Written for lmsyz. No real employee or employer is behind any of them; the few employers named are "
    "invented.",
    licence=_LICENCE,
    making=_MAKING,
    citation="lmsyz, corpus workplace_synthetic, with the version of the package. For the culture types: Cameron, "
    "K. S., & Quinn, R. E. (2011). Diagnosing and Changing Organizational Culture: Based on the Competing Values "
    "Framework (3rd ed.). Jossey-Bass.",
    columns={
        "id": "work-001 and so on",
        "text": "one to three sentences",
        "source": "the manner: " + ", ".join(_WORKPLACE_DTYPES["source"]),
        "tone": "what the writer feels about it: positive, negative, or neutral (a plain fact, or good and bad in "
        "balance)",
        "culture": "the type that the text shows as practised now, in the competing values framework: clan "
        "(belonging, care, mentoring, consensus), adhocracy (experiment, risk, invention), market (targets, rivalry, "
        "winning), hierarchy (rules, ranks, control); none where it shows none or only denies one",
        "topic": "what it is about, the first of two: career, colleagues, hours (also shifts, staffing), ideas (their "
        "fate), job_security, management, pay (also benefits), procedures, targets, tools (also rooms), training, "
        "other",
        "hard": "the main way in which the row is hard, if any: " + ", ".join(_WORKPLACE_DTYPES["hard"]) + " (change: "
        "it was otherwise once; hearsay: others say so; lip_service: the words say otherwise than the deeds)",
        "split": _SPLIT,
    },
    read=partial(_read, "workplace_synthetic.csv", _WORKPLACE_DTYPES),
    spread_over="culture",
    splits=_SPLITS,
)
