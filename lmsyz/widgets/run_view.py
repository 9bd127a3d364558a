"""A run as it goes: rows by status, what it costs, what went wrong, and buttons to steer it."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from typing import TYPE_CHECKING

import ipywidgets

from lmsyz.widgets import look
from lmsyz.widgets.look import Html
from lmsyz.widgets.run_model import ROLES, RunModel, RunState
from lmsyz.widgets.view import set_html

if TYPE_CHECKING:
    from lmsyz.run import Run

__all__ = ["RunView"]

log = logging.getLogger(__name__)

HOW_TO_STOP = (
    "To stop, use the kernel's stop button (■): what is done is kept, and the same cell goes on from there. Buttons"
    " cannot work while a cell runs; extract(..., background=True) has them."
)


class RunView:
    """Shows one run, and after a retry the run that followed it.

    Parameters
    ----------
    run : Run
        Which one.
    buttons : bool, optional
        False for a run that a cell waits for: the kernel hears no button then.
    """

    def __init__(self, run: Run, *, buttons: bool = True) -> None:
        self._model = RunModel(run)
        self._has_buttons = buttons
        self._last_words = ""
        self._lock = threading.Lock()
        self._shown = ipywidgets.HTML()
        self._said = ipywidgets.HTML()
        self._pause = _button("Pause", "Send nothing more until Resume", self.pause)
        self._resume = _button("Resume", "Go on after Pause", self.resume)
        self._stop = _button("Stop", "Send nothing more and keep what is done", self.stop)
        self._retry = _button("Retry failed", "Ask the rows that have no answer again", self.retry)
        bar = ipywidgets.HBox(
            [self._pause, self._resume, self._stop, self._retry], layout=ipywidgets.Layout(flex_flow="row wrap")
        )
        self.widget = ipywidgets.VBox([bar, self._said, self._shown] if buttons else [self._shown])
        self.refresh()

    @property
    def run(self) -> Run:
        """The run that is shown."""
        return self._model.run

    @property
    def is_over(self) -> bool:
        """Whether the run has ended and there is nothing left to ask again."""
        return not self.run.is_live and not any(self.run.counts.n_failed.values())

    # --- actions ----------------------------------------------------------------------------------------------

    def pause(self) -> None:
        """Send nothing more until :meth:`resume`."""
        self._act(self.run.pause)

    def resume(self) -> None:
        """Go on after :meth:`pause`."""
        self._act(self.run.resume)

    def stop(self) -> None:
        """Send nothing more and keep what is done."""
        self._act(self.run.stop)

    def retry(self) -> None:
        """Ask the rows that have no answer again, and show that run from now on."""
        self._act(self._follow_retry)

    def _follow_retry(self) -> None:
        with self._lock:
            self._model.follow(self.run.retry())

    def _act(self, action: Callable[[], object]) -> None:
        try:
            action()
        except Exception as error:
            log.warning("a button of the run view failed", exc_info=True)
            set_html(self._said, look.note(f"{type(error).__name__}: {error}", role="bad"))
        else:
            set_html(self._said, Html(""))
        self.refresh()

    # --- showing ----------------------------------------------------------------------------------------------

    def end_with(self, words: str) -> None:
        """Say why nothing is brought up to date from here on."""
        self._last_words = words

    def refresh(self) -> None:
        """Bring the widget up to date; sends nothing where nothing changed."""
        with self._lock:
            state = self._model.state()
            set_html(self._shown, self._html(state))
            self._set_buttons(state)

    def _set_buttons(self, state: RunState) -> None:
        can_steer = state.is_live and not state.is_stopping
        for button, is_on in (
            (self._pause, can_steer and not state.is_paused),
            (self._resume, can_steer and state.is_paused),
            (self._stop, can_steer),
            (self._retry, not state.is_live and state.n_failed > 0),
        ):
            if button.disabled == is_on:
                button.disabled = not is_on

    def _html(self, state: RunState) -> Html:
        blocks = [
            look.stacked_bar([(name, n, ROLES[name]) for name, n in state.parts], state.n_rows, label="Rows by status"),
            look.facts(state.pairs),
        ]
        if state.errors:
            blocks.append(look.heading("Errors, newest first"))
            blocks.append(look.table(("kind", "reason", "rows", "for example rows"), state.errors))
        if self._last_words:
            blocks.append(look.note(self._last_words, role="warn"))
        elif state.is_live and not self._has_buttons:
            blocks.append(look.note(HOW_TO_STOP))
        return look.page(state.title, *blocks)

    def static_html(self) -> Html:
        """Return the present state as HTML that needs no kernel."""
        with self._lock:
            return self._html(self._model.state())

    def text(self) -> str:
        """Return the present state as text for a terminal."""
        with self._lock:
            state = self._model.state()
        lines = [state.title, look.text_table(("rows", "status"), [(n, name) for name, n in state.parts if n])]
        lines += [f"{name}: {value}" for name, value in state.pairs]
        if self._last_words:
            lines.append(self._last_words)
        if state.errors:
            lines.append(look.text_table(("kind", "reason", "rows", "for example rows"), state.errors))
        return "\n".join(lines)

    def close(self) -> None:
        """End nothing: the run goes on, and the view has no thread of its own."""


def _button(words: str, meaning: str, action: Callable[[], None]) -> ipywidgets.Button:
    button = ipywidgets.Button(description=words, tooltip=meaning)
    button.on_click(lambda _: action())
    return button
