"""One thread that repaints a panel a few times a second, whatever the rate of what it shows."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable

__all__ = ["Pump"]

log = logging.getLogger(__name__)

JOIN_S = 2.0


class Pump:
    """Calls ``paint`` on a daemon thread until it is closed; one that fails is logged and called again.

    Parameters
    ----------
    paint : callable
        Brings what is shown up to date; called at once and then at most every ``every_s`` seconds.
    every_s : float, optional
        Jupyter drops messages for good above 1,000 a second, and nobody reads faster than five a second.
    """

    def __init__(self, paint: Callable[[], None], *, every_s: float = 0.2) -> None:
        self._paint = paint
        self._every_s = every_s
        self._closed = threading.Event()
        self._thread: threading.Thread | None = None
        self._lock = threading.Lock()
        self._has_failed = False

    @property
    def is_alive(self) -> bool:
        """Whether the thread runs."""
        return self._thread is not None and self._thread.is_alive()

    def start(self) -> None:
        """Start the thread; nothing happens where it runs already or the pump is closed."""
        with self._lock:
            if self._closed.is_set() or self.is_alive:
                return
            self._thread = threading.Thread(target=self._run, name="lmsyz-panel", daemon=True)
            self._thread.start()

    def close(self) -> None:
        """End the thread and wait for it; may be called twice, and by ``paint`` itself."""
        self._closed.set()
        with self._lock:
            thread = self._thread
        if thread is not None and thread is not threading.current_thread():
            thread.join(JOIN_S)

    def _run(self) -> None:
        while not self._closed.is_set():
            self._paint_once()
            self._closed.wait(self._every_s)

    def _paint_once(self) -> None:
        try:
            self._paint()
        except Exception:
            # A view that fails fails five times a second; once is enough to know.
            log.log(logging.DEBUG if self._has_failed else logging.WARNING, "the panel's repaint failed", exc_info=True)
            self._has_failed = True
