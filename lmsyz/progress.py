"""A tqdm bar over rows: a notebook bar in Jupyter, a text bar in a terminal, nothing where none is wanted.

JupyterLab does not save the state of widgets, so a notebook bar would read "model not found" once the notebook is
opened again. When a bar closes, its output is therefore replaced by what it last showed, as plain text.
"""

from __future__ import annotations

import html
import time
import warnings
from typing import Any, Self

from lmsyz.report import Counts

__all__ = ["ProgressBar"]

PAINT_EVERY_S = 0.2  # Jupyter drops messages, for good, above 1,000 a second; nobody reads faster than this


class ProgressBar:
    """Paints counts; only the thread that waits uses it. A context manager that closes on every way out.

    Parameters
    ----------
    counts : Counts
        The figures at the start; rows that were cached do not count for the rate.
    show : bool
        False paints nothing.
    label : str
        What stands before the bar.
    """

    def __init__(self, counts: Counts, *, show: bool, label: str = "lmsyz") -> None:
        self._bar: Any = None
        self._handle: Any = None
        self._painted = time.monotonic()
        if show:
            self._bar, self._handle = _new_bar(counts, label)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        if self._bar is None:
            return
        bar, self._bar = self._bar, None
        bar.close()
        if self._handle is not None:
            text = bar.format_meter(**bar.format_dict)
            bundle = {"text/plain": text, "text/html": f"<pre>{html.escape(text)}</pre>"}
            self._handle.update(bundle, raw=True)

    def paint(self, counts: Counts) -> None:
        """Show the counts of this moment, at most five times a second."""
        if self._bar is not None and time.monotonic() - self._painted >= PAINT_EVERY_S:
            self.last(counts)

    def last(self, counts: Counts) -> None:
        """Show these counts now."""
        if self._bar is None:
            return
        self._painted = time.monotonic()
        self._bar.n = counts.n_done
        self._bar.set_postfix(_postfix(counts), refresh=False)
        self._bar.refresh()


def _new_bar(counts: Counts, label: str) -> tuple[Any, Any]:
    with warnings.catch_warnings():
        # tqdm warns where a kernel has no ipywidgets, and falls back to text by itself.
        warnings.simplefilter("ignore")
        from tqdm.auto import tqdm
    about: dict[str, Any] = {
        "total": counts.n_rows,
        "initial": counts.n_done,
        "desc": label,
        "unit": "row",
    }
    if not _is_notebook_bar(tqdm):
        return tqdm(**about), None
    from IPython import display

    bar: Any = tqdm(**about, display=False)
    show: Any = display.display
    return bar, show(bar.container, display_id=True)


def _is_notebook_bar(bar: type) -> bool:
    return any(cls.__module__ == "tqdm.notebook" for cls in bar.__mro__)


def _postfix(counts: Counts) -> dict[str, object]:
    shown: dict[str, object] = {
        "cached": f"{counts.n_cached:,}",
        "failed": f"{sum(counts.n_failed.values()):,}",
    }
    if counts.n_retries:
        shown["retries"] = f"{counts.n_retries:,}"
    return shown
