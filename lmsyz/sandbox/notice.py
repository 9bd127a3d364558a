"""Says once that answers come from rules: in the notebook where a kernel runs, by logging elsewhere."""

from __future__ import annotations

import html
import logging
import sys
from collections.abc import Callable

__all__ = ["HTML", "TEXT", "say_once"]

TEXT = "lmsyz sandbox: answers come from documented rules (a dictionary method), not from a language model."
HTML = f"<b>{html.escape(TEXT)}</b>"
_said: set[str] = set()


def say_once(url: str) -> None:
    """Say it, the first time in this process."""
    if _said:
        return
    _said.add(url)
    if not _show(f"{TEXT} It listens at {url}."):
        logging.getLogger("lmsyz.sandbox").warning("%s It listens at %s.", TEXT, url)


def _show(text: str) -> bool:
    """Display it in the running notebook; False where no kernel runs."""
    if "IPython" not in sys.modules:
        return False
    import IPython
    import IPython.display

    shell = IPython.get_ipython()
    if shell is None or getattr(shell, "kernel", None) is None:
        return False
    show: Callable[..., object] = IPython.display.display
    show({"text/plain": text, "text/html": f"<div>{html.escape(text)}</div>"}, raw=True)
    return True
