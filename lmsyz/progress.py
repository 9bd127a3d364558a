"""A tqdm bar over rows: a notebook bar in Jupyter, a text bar in a terminal, nothing where none is wanted.

JupyterLab does not save the state of widgets, so a notebook bar would read "model not found" once the notebook is
opened again. When a bar closes, its output is therefore replaced by what it last showed, as plain text.
"""

from __future__ import annotations

import contextlib
import html
import logging
import sys
import time
import warnings
from collections.abc import Callable, Mapping
from typing import Any, Self

__all__ = ["ProgressBar"]

log = logging.getLogger(__name__)

LOCK_DEPTH = 8
PAINT_EVERY_S = 0.2  # Jupyter drops messages, for good, above 1,000 a second; nobody reads faster than this


class ProgressBar:
    """Paints how far something has come; only the thread that waits uses it. Closes on every way out.

    Parameters
    ----------
    total : int
        What there is in all.
    initial : int
        What was there at the start; it does not count for the rate.
    show : bool
        False paints nothing.
    unit : str
        What is counted.
    label : str
        What stands before the bar.
    elapsed_s : float
        For how long it has been under way already.
    """

    def __init__(
        self,
        total: int,
        initial: int = 0,
        *,
        show: bool,
        unit: str = "row",
        label: str = "lmsyz",
        elapsed_s: float = 0.0,
    ) -> None:
        self._began = time.time() - elapsed_s
        self._bar: Any = None
        self._handle: Any = None
        self._painted = time.monotonic()
        if show and total:
            self._guarded(lambda: self._open(total, initial, unit, label))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        if self._bar is None:
            return
        self._guarded(self._close)

    def paint(self, n: int, postfix: Mapping[str, object]) -> None:
        """Show how far it has come, at most five times a second."""
        if time.monotonic() - self._painted >= PAINT_EVERY_S:
            self.show(n, postfix)

    def show(self, n: int, postfix: Mapping[str, object], *, label: str | None = None) -> None:
        """Show how far it has come now."""
        if self._bar is not None:
            self._painted = time.monotonic()
            self._guarded(lambda: self._show(n, postfix, label))

    def _guarded(self, paint: Callable[[], None]) -> None:
        """Paint; a bar that cannot (no stderr, a full disk behind it) is given up and never harms a paid run."""
        try:
            paint()
        except Exception:
            self._bar = self._handle = None
            _release_lock()
            log.warning("the progress bar cannot be painted and is left out", exc_info=True)

    def _open(self, total: int, initial: int, unit: str, label: str) -> None:
        self._bar, self._handle = _new_bar(total, initial, unit, label)
        if self._bar is not None:
            self._bar.start_t = self._began  # making the first bar of a kernel takes a while

    def _show(self, n: int, postfix: Mapping[str, object], label: str | None) -> None:
        self._bar.n = n
        if label is not None:
            self._bar.set_description(label, refresh=False)
        self._bar.set_postfix(dict(postfix), refresh=False)
        self._bar.refresh()

    def _close(self) -> None:
        bar, self._bar = self._bar, None
        bar.close()
        if self._handle is not None:
            text = bar.format_meter(**bar.format_dict)
            bundle = {"text/plain": text, "text/html": f"<pre>{html.escape(text)}</pre>"}
            self._handle.update(bundle, raw=True)


def _new_bar(total: int, initial: int, unit: str, label: str) -> tuple[Any, Any]:
    with warnings.catch_warnings():
        # tqdm warns where a kernel has no ipywidgets, and falls back to text by itself.
        warnings.simplefilter("ignore")
        from tqdm.auto import tqdm
    about: dict[str, Any] = {"total": total, "initial": initial, "desc": label, "unit": unit}
    if not _is_notebook_bar(tqdm):
        # A program without a console has no stderr, and a bar half made complains once more when it is collected.
        return (tqdm(**about), None) if sys.stderr is not None else (None, None)
    from IPython import display

    bar: Any = tqdm(**about, display=False)
    show: Any = display.display
    return bar, show(bar.container, display_id=True)


def _release_lock() -> None:
    """Release tqdm's lock where its painting failed: it is not released there, and the program could never end."""
    import tqdm

    bar: Any = tqdm.tqdm
    for part in bar.get_lock().locks:
        # Taken more than once on the way; releasing what this thread does not hold is an error of either lock's kind.
        with contextlib.suppress(RuntimeError, AssertionError):
            for _ in range(LOCK_DEPTH):
                part.release()


def _is_notebook_bar(bar: type) -> bool:
    return any(cls.__module__ == "tqdm.notebook" for cls in bar.__mro__)
