"""What every corpus has: a card that tells about it, a way to read it, and an even sample of it."""

from __future__ import annotations

import operator
import random
import textwrap
from collections.abc import Callable, Hashable, Iterable, Mapping
from dataclasses import dataclass

import pandas as pd

from lmsyz.errors import UsageError

__all__ = ["Corpus", "spread", "whole_number"]

_WIDTH = 100


@dataclass(frozen=True, slots=True, kw_only=True)
class Corpus:
    """One corpus: its rows, and what a reader must know before using them.

    Parameters
    ----------
    name : str
        What a user types.
    title, content, source, licence, making, citation : str
        What it is in one line and in full, where it comes from, on what terms, how it was made, what to cite.
    columns : mapping of str to str
        Every column in order, with its meaning.
    read : callable
        Returns all rows as a new frame.
    spread_over : str
        The column over which a sample is spread.
    splits : tuple of str
        The values of its ``split`` column, empty where it has none.
    """

    name: str
    title: str
    content: str
    source: str
    licence: str
    making: str
    citation: str
    columns: Mapping[str, str]
    read: Callable[[], pd.DataFrame]
    spread_over: str
    splits: tuple[str, ...] = ()

    def describe(self) -> str:
        """Render the card as plain text."""
        prose = {
            "Content": self.content,
            "Source": self.source,
            "Licence": self.licence,
            "How made": self.making,
            "Cite": self.citation,
        }
        parts = [f"{self.name}: {self.title}", *(_fold(f"{head}. {text}") for head, text in prose.items())]
        parts.append("\n".join(["Columns.", *(_fold(f"  {c}: {t}", "      ") for c, t in self.columns.items())]))
        return "\n\n".join(parts) + "\n"

    def rows(self, split: str | None) -> pd.DataFrame:
        """Read all rows, or those of one split."""
        if split is None:
            return self.read()
        if not self.splits:
            raise UsageError(f"{self.name!r} has no splits. Leave split out.")
        if split not in self.splits:
            raise UsageError(f"{self.name!r} has no split {split!r}. Choose one of: {', '.join(self.splits)}.")
        frame = self.read()
        return frame[frame["split"] == split]

    def sample(self, frame: pd.DataFrame, n: int, seed: int) -> pd.DataFrame:
        """Take ``n`` of these rows, spread over the corpus's own column."""
        return frame.iloc[spread(frame[self.spread_over], n, seed)]


def spread(strata: Iterable[Hashable], n: int, seed: int) -> list[int]:
    """Choose ``n`` positions, as evenly over the strata as their sizes allow.

    In each round every stratum that has rows left gives one; in the last, strata at even distances do.
    """
    # Of the generator's methods only random() is promised to give the same numbers in every Python.
    draw = random.Random(seed).random
    left: dict[Hashable, list[int]] = {}
    for position, stratum in enumerate(strata):
        left.setdefault(stratum, []).append(position)
    for positions in left.values():
        positions.sort(key=lambda _: draw())
    chosen: list[int] = []
    while left and len(chosen) < n:
        chosen += [left[stratum].pop() for stratum in _evenly(list(left), n - len(chosen))]
        left = {stratum: positions for stratum, positions in left.items() if positions}
    return sorted(chosen)


def whole_number(name: str, value: object, *, least: int | None) -> int:
    """Return ``value`` as an int, or say what ``name`` must be."""
    try:
        number = operator.index(value)  # type: ignore[arg-type]  # takes numpy's integers too, and no float
    except TypeError:
        number = None
    if number is None or isinstance(value, bool) or (least is not None and number < least):
        kind = "a whole number" if least is None else f"a whole number from {least} on"
        raise UsageError(f"{name}={value!r} will not do: give {kind}{' or None for all' if least else ''}.")
    return number


def _evenly(strata: list[Hashable], n: int) -> list[Hashable]:
    if n >= len(strata):
        return strata
    return [strata[(2 * i + 1) * len(strata) // (2 * n)] for i in range(n)]


def _fold(text: str, indent: str = "") -> str:
    return textwrap.fill(text, _WIDTH, subsequent_indent=indent, break_long_words=False, break_on_hyphens=False)
