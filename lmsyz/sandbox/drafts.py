"""The rules for a drafted prompt: what the sandbox answers where a text comes with a field ``goal``.

- ``prompt``: the goal as it was said, that null is to be given where a text does not say, and that rules wrote it.
- ``fields``: for each word of the goal that is the name of a field that the rules can answer, that field; where there
  is none, ``summary``. The words are those of `KNOWN`, with plurals.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from lmsyz.sandbox.fields import singular
from lmsyz.sandbox.text import Text

__all__ = ["drafted_part"]

TONE = ("category", "the tone of the text", ("negative", "neutral", "positive"))
KNOWN: dict[str, tuple[str, str, tuple[str, ...]]] = {
    "tone": TONE,
    "sentiment": TONE,
    "amount": ("number", "the first sum of money, in full units", ()),
    "price": ("number", "the first price, in full units", ()),
    "percent": ("number", "the first percentage", ()),
    "year": ("integer", "the first calendar year", ()),
    "date": ("text", "the first date, as written", ()),
    "company": ("text", "the first firm, by name", ()),
    "person": ("text", "the first person, by name", ()),
    "country": ("text", "the first country", ()),
    "keyword": ("list of texts", "the most frequent words", ()),
    "summary": ("text", "the first sentence", ()),
}
CLOSING = "Give null where the text does not say. (Drafted by the sandbox's rules, not by a language model.)"


def drafted_part(text: Text, name: str) -> Sequence[Any]:
    """Return one field of a draft as found by its rule; nothing where no draft is asked for.

    Parameters
    ----------
    text : Text
        The row's text; a draft is asked for where it has a field ``goal``.
    name : str
        ``"prompt"`` or ``"fields"``; any other name is no part of a draft.
    """
    goal = text.fields.get("goal")
    if name not in ("prompt", "fields") or not isinstance(goal, str):
        return ()
    if name == "prompt":
        return (f"{goal.strip()}\n{CLOSING}",)
    named = dict.fromkeys(w for w in map(singular, Text(goal).words) if w in KNOWN)
    return ([_field(word) for word in named or ("summary",)],)


def _field(word: str) -> dict[str, Any]:
    kind, description, values = KNOWN[word]
    return {
        "name": word,
        "type": kind,
        "values": list(values),
        "may_be_null": kind != "category",
        "description": description,
    }
