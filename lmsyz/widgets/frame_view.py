"""Which rows of a frame have a stored answer to a question, and why the others would be asked."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import ipywidgets
import pandas as pd

from lmsyz.widgets import look
from lmsyz.widgets.look import Html
from lmsyz.widgets.view import set_html

__all__ = ["FrameView"]

HEAD = ("action", "reason", "rows")
ROLES = {"reuse": ("cached", "cached"), "ask": ("to be asked", "active"), "skip": ("without text or too long", "wait")}
ROWS_SHOWN = 20


class FrameView:
    """The state of a frame's rows for one question; read once, when it is made.

    Parameters
    ----------
    index : Index
        Of the frame.
    actions : sequence of (action, reason)
        One for each row, as :func:`lmsyz.staleness.row_actions` returns them.
    """

    def __init__(self, index: pd.Index, actions: Sequence[tuple[str, str]]) -> None:
        self._index = index
        self._actions = actions
        self._counts = Counter(actions).most_common()
        self.widget = ipywidgets.HTML()
        set_html(self.widget, self.static_html())

    def rows(self) -> pd.DataFrame:
        """Return action and reason of each row, at the frame's own index."""
        return pd.DataFrame(
            {
                "action": pd.array([a for a, _ in self._actions], dtype="string"),
                "reason": pd.array([r for _, r in self._actions], dtype="string"),
            },
            index=self._index,
        )

    def refresh(self) -> None:
        """Change nothing: the question was held against the store when this was made."""

    def static_html(self) -> Html:
        """Return the present state as HTML that needs no kernel."""
        by_action = Counter(action for action, _ in self._actions)
        parts = [(ROLES[a][0], by_action[a], ROLES[a][1]) for a in ROLES]
        first = [(str(i), r) for i, (a, r) in zip(self._index, self._actions, strict=True) if a == "ask"][:ROWS_SHOWN]
        blocks = [
            look.stacked_bar(parts, len(self._actions), label="Rows of this frame"),
            look.table(HEAD, [(a, r, n) for (a, r), n in self._counts]),
        ]
        if first:
            blocks.append(look.table(("row", "why it would be asked"), first, caption="The first rows to be asked"))
        return look.page("This frame", *blocks)

    def text(self) -> str:
        """Return the present state as text for a terminal."""
        return look.text_table(HEAD, [(a, r, n) for (a, r), n in self._counts])

    def close(self) -> None:
        """End nothing: there is no thread."""
