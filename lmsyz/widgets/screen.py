"""Where a view is shown: live in a notebook's cell, and readable there once no kernel is left.

JupyterLab does not save the state of widgets, so a saved notebook would read "model not found" where one was. What is
shown therefore has two outputs: the widget, and the last state as HTML folded away below it. When all is over the
first is replaced by static HTML and the second emptied.
"""

from __future__ import annotations

import logging
import sys
import threading
import time
from collections import deque
from collections.abc import Callable
from typing import Any

from lmsyz.widgets import look
from lmsyz.widgets.pump import Pump
from lmsyz.widgets.view import View

__all__ = ["Live", "bundle", "has_front_end", "is_colab", "static_bundle"]

log = logging.getLogger(__name__)

SNAPSHOT_EVERY_S = 5.0
LIVE_AT_ONCE = 4  # a cell that is run over and over leaves no more threads and widgets than that
VIEW_TYPE = "application/vnd.jupyter.widget-view+json"
COLAB = "Colab shows no updates from the background: run this cell again to see how far it has come."

_live: deque[Live] = deque()
_lock = threading.Lock()


def has_front_end() -> bool:
    """Whether this is a notebook's kernel, so that a widget can be seen."""
    shell = sys.modules["IPython"].get_ipython() if "IPython" in sys.modules else None
    return getattr(shell, "kernel", None) is not None


def is_colab() -> bool:
    """Whether this is Colab, which paints nothing from a thread."""
    return "google.colab" in sys.modules


def static_bundle(view: View) -> dict[str, Any]:
    """Return what a view shows in forms that need no kernel."""
    return {"text/plain": view.text(), "text/html": str(view.static_html())}


def bundle(view: View) -> dict[str, Any]:
    """Return what a view shows in every form, the widget included."""
    model: Any = view.widget.model_id
    return {VIEW_TYPE: {"version_major": 2, "version_minor": 0, "model_id": model}, **static_bundle(view)}


class Live:
    """A view in a cell.

    Parameters
    ----------
    view : View
        What is shown.
    is_over : callable, optional
        Whether there is nothing more to see or do, so that static HTML takes the widget's place.
    has_pump : bool, optional
        False where the one who waits paints, by :meth:`paint`.
    """

    def __init__(self, view: View, *, is_over: Callable[[], bool] = lambda: False, has_pump: bool = True) -> None:
        self._view = view
        self._is_over = is_over
        self._pump = Pump(self.paint) if has_pump else None
        self._widget_at: Any = None
        self._static_at: Any = None
        self._snapshot = ""
        self._snapshot_due = 0.0
        self._is_frozen = False

    def show(self) -> None:
        """Show the view in the cell that runs now."""
        from IPython import display

        show: Any = display.display
        self._widget_at = show(bundle(self._view), raw=True, display_id=True)
        self._static_at = show({"text/plain": "", "text/html": ""}, raw=True, display_id=True)
        if self._pump is not None:
            self._pump.start()
            _keep(self)

    def paint(self) -> None:
        """Bring what is shown up to date, and freeze it when all is over."""
        if self._is_frozen:
            return
        if self._is_over():
            self.close()
            return
        self._view.refresh()
        if time.monotonic() >= self._snapshot_due:
            self._snapshot_due = time.monotonic() + SNAPSHOT_EVERY_S
            self._save_snapshot()

    def close(self) -> None:
        """End the thread and put static HTML in the widget's place."""
        if self._pump is not None:
            self._pump.close()
        if self._is_frozen or self._widget_at is None:
            return
        # The widget itself is not closed: a browser tab that was away meanwhile would ask for it in vain.
        self._is_frozen = True
        self._widget_at.update(static_bundle(self._view), raw=True)
        self._static_at.update({"text/plain": "", "text/html": ""}, raw=True)

    def _save_snapshot(self) -> None:
        html, text = self._view.static_html(), self._view.text()
        if html == self._snapshot:
            return
        self._snapshot = html
        words = f"State at {time.strftime('%H:%M:%S')}, for when this notebook is opened without a kernel"
        shown = look.folded(words, html)
        if is_colab():
            shown = look.joined(look.note(COLAB, role="warn"), shown)
        self._static_at.update({"text/plain": text, "text/html": str(shown)}, raw=True)


def _keep(live: Live) -> None:
    """Remember what is live, and close the oldest where there are too many."""
    with _lock:
        _live.append(live)
        old = [_live.popleft() for _ in range(len(_live) - LIVE_AT_ONCE)]
    for one in old:
        try:
            one.close()
        except Exception:
            log.warning("an earlier panel could not be closed", exc_info=True)
