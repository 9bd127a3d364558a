"""Says once that answers come from rules: in the notebook where a kernel runs, by logging elsewhere."""

from __future__ import annotations

import html
import logging

from lmsyz.standin import show

__all__ = ["HTML", "TEXT", "say_once"]

TEXT = "lmsyz sandbox: answers come from documented rules (a dictionary method), not from a language model."
HTML = f"<b>{html.escape(TEXT)}</b>"
_said: set[str] = set()


def say_once(url: str) -> None:
    """Say it, the first time in this process."""
    if _said:
        return
    _said.add(url)
    if not show(f"{TEXT} It listens at {url}."):
        logging.getLogger("lmsyz.sandbox").warning("%s It listens at %s.", TEXT, url)
