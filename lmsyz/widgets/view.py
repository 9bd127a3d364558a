"""What the panel asks of a view: a widget while live, static HTML and text at any time."""

from __future__ import annotations

from typing import Protocol

import ipywidgets

from lmsyz.widgets.look import Html

__all__ = ["View", "set_html"]


class View(Protocol):
    """One tab of the panel. Its methods may be called on any thread."""

    widget: ipywidgets.Widget

    def refresh(self) -> None:
        """Bring the widget up to date; sends nothing where nothing changed."""

    def static_html(self) -> Html:
        """Return the present state as HTML that needs no kernel."""

    def text(self) -> str:
        """Return the present state as text for a terminal."""

    def close(self) -> None:
        """End the view's threads; its widget stays readable."""


def set_html(widget: ipywidgets.HTML, value: Html) -> None:
    """Show HTML made by :mod:`lmsyz.widgets.look`, and send it only where it differs from what is shown.

    Raises
    ------
    TypeError
        For text that ``look`` has not made: it may hold what a model wrote.
    """
    if not isinstance(value, Html):
        raise TypeError("only HTML made by lmsyz.widgets.look is shown; build it with look.note(text) or the like")
    if widget.value != value:
        widget.value = str(value)
