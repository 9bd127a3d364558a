"""Texts that a spreadsheet would run: kept from it by an apostrophe before them. One home for every export to CSV."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["guarded_frame", "guarded_text"]

# What Excel, LibreOffice and Google Sheets take for the start of a formula, as OWASP's page on CSV injection lists it.
STARTS = ("=", "+", "-", "@", "\t", "\r", "\n")


def guarded_text(value: Any) -> Any:
    """Return a text that begins as a formula does with an apostrophe before it; anything else as it is.

    Examples
    --------
    >>> guarded_text("=1+1"), guarded_text("plain"), guarded_text(-3)
    ("'=1+1", 'plain', -3)
    """
    return f"'{value}" if isinstance(value, str) and value.startswith(STARTS) else value


def guarded_frame(frame: pd.DataFrame) -> pd.DataFrame:
    """Return a frame whose texts, column names and index are guarded; lists and objects are written as text first."""
    out = frame.copy(deep=False)
    for i, dtype in enumerate(frame.dtypes):
        if dtype.kind not in "iufcbmM":
            out.isetitem(i, [_guarded_cell(value) for value in frame.iloc[:, i]])
    out.columns = out.columns.map(guarded_text)
    out.index = out.index.map(guarded_text) if len(out) else out.index
    return out


def _guarded_cell(value: Any) -> Any:
    return guarded_text(str(value) if isinstance(value, list | dict) else value)
