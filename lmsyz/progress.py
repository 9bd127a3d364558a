"""A tqdm bar over rows: a notebook bar in Jupyter, a text bar in a terminal, nothing where none is wanted."""

from __future__ import annotations

import warnings
from typing import Any

from lmsyz.report import Counts

__all__ = ["ProgressBar"]


class ProgressBar:
    """Paints counts; the thread that waits calls it a few times a second, no other.

    Parameters
    ----------
    n_rows : int
        Rows in all.
    show : bool
        False paints nothing.
    label : str
        What stands before the bar.
    """

    def __init__(self, n_rows: int, *, show: bool, label: str = "lmsyz") -> None:
        self._bar: Any = _new_bar(n_rows, label) if show else None

    def paint(self, counts: Counts) -> None:
        """Show the counts of this moment."""
        if self._bar is None:
            return
        self._bar.n = counts.n_done
        self._bar.set_postfix(_postfix(counts), refresh=False)
        self._bar.refresh()

    def close(self, counts: Counts) -> None:
        """Show the last counts and close the bar; also after an error or an interrupt."""
        if self._bar is None:
            return
        bar, self._bar = self._bar, None
        bar.n = counts.n_done
        bar.set_postfix(_postfix(counts), refresh=False)
        bar.refresh()
        bar.close()


def _new_bar(n_rows: int, label: str) -> Any:
    with warnings.catch_warnings():
        # tqdm warns where a kernel has no ipywidgets, and falls back to text by itself.
        warnings.simplefilter("ignore")
        from tqdm.auto import tqdm
    return tqdm(total=n_rows, desc=label, unit="row", mininterval=0.2)


def _postfix(counts: Counts) -> dict[str, object]:
    shown: dict[str, object] = {"cached": f"{counts.n_cached:,}"}
    failed = sum(counts.n_failed.values())
    if failed:
        shown["failed"] = f"{failed:,}"
    if counts.n_retries:
        shown["retries"] = f"{counts.n_retries:,}"
    return shown
