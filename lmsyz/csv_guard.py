"""Texts that a spreadsheet would run: kept from it by an apostrophe before them. One home for every export to CSV."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["guarded_frame", "guarded_text"]

# What Excel, LibreOffice and Google Sheets take for the start of a formula, as OWASP's page on CSV injection lists it;
# the last four are the same signs in the width of Chinese and Japanese type.
STARTS = ("=", "+", "-", "@", "\t", "\r", "\n", "\uff1d", "\uff0b", "\uff0d", "\uff20")


def guarded_text(value: Any) -> Any:
    """Return a text that begins as a formula does with an apostrophe before it; anything else as it is.

    Examples
    --------
    >>> guarded_text("=1+1"), guarded_text("plain"), guarded_text(-3)
    ("'=1+1", 'plain', -3)
    """
    return f"'{value}" if isinstance(value, str) and value.startswith(STARTS) else value


def guarded_frame(frame: pd.DataFrame) -> pd.DataFrame:
    """Return a frame whose texts, column names and index are guarded; lists, objects and paths are made texts first.

    Examples
    --------
    >>> import pandas as pd
    >>> guarded_frame(pd.DataFrame({"said": ["=1+1", "fine"]})).to_csv(index=False)
    "said\\n'=1+1\\nfine\\n"
    """
    out = frame.copy(deep=False)
    for i, dtype in enumerate(frame.dtypes):
        if dtype.kind not in "iufcbmM":
            out.isetitem(i, [_guarded_cell(value) for value in frame.iloc[:, i]])
    out.columns = _guarded_labels(out.columns)
    out.index = _guarded_labels(out.index)
    return out


def _guarded_labels(labels: pd.Index) -> pd.Index:
    found = labels.map(_guarded_label) if len(labels) else labels
    return found.set_names([guarded_text(name) for name in labels.names])


def _guarded_label(label: Any) -> Any:
    return tuple(map(_guarded_cell, label)) if isinstance(label, tuple) else _guarded_cell(label)


def _guarded_cell(value: Any) -> Any:
    return guarded_text(str(value) if isinstance(value, list | dict | os.PathLike) else value)
