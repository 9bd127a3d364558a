"""The batch jobs as cards: how each is doing, and buttons to look after it."""

from __future__ import annotations

import threading
from functools import partial
from pathlib import Path

import ipywidgets

from lmsyz.widgets import look
from lmsyz.widgets.jobs_model import JobCard, JobsModel
from lmsyz.widgets.look import Html
from lmsyz.widgets.view import set_html

__all__ = ["JobsView"]

SHOWN = 10
NONE_YET = "No batch jobs here yet. df.ie.batch(prompt, schema=...) submits one."


class JobsView:
    """Shows the batch jobs under a folder, the newest first.

    Parameters
    ----------
    root : Path
        Where batch jobs lie.
    """

    def __init__(self, root: Path) -> None:
        self.model = JobsModel(root)
        self._limit = SHOWN
        self._lock = threading.Lock()
        self._cards: dict[str, _Card] = {}
        self._head = ipywidgets.HTML()
        self._box = ipywidgets.VBox()
        self._older = ipywidgets.Button(description="Show older", tooltip="Show ten older batch jobs")
        self._older.on_click(lambda _: self.show_older())
        self.widget = ipywidgets.VBox([self._head, self._box, self._older])
        self.refresh()
        self.model.watch(lambda: self._limit)

    def act(self, job_id: str, action: str) -> threading.Thread | None:
        """Refresh, collect, cancel or retry a job, on a thread of its own; see :meth:`JobsModel.start`."""
        return self.model.start(job_id, action)

    def show_older(self) -> None:
        """Show ten older jobs as well."""
        self._limit += SHOWN
        self.refresh()

    def refresh(self) -> None:
        """Bring the cards up to date from the ledgers; sends nothing where nothing changed."""
        with self._lock:
            cards, n = self.model.cards(self._limit)
            set_html(self._head, look.page("Batch jobs", look.note(_head(len(cards), n, self.model.root))))
            for job_id in self._cards.keys() - {c.job_id for c in cards}:
                self._cards.pop(job_id).close()
            for card in cards:
                if card.job_id not in self._cards:
                    self._cards[card.job_id] = _Card(card.job_id, self.model)
                self._cards[card.job_id].show(card)
            boxes = tuple(self._cards[card.job_id].widget for card in cards)
            if self._box.children != boxes:
                self._box.children = boxes
            display = "" if n > len(cards) else "none"
            if (self._older.layout.display or "") != display:
                self._older.layout.display = display

    def static_html(self) -> Html:
        """Return the cards as HTML that needs no kernel."""
        cards, n = self.model.cards(self._limit)
        return look.page("Batch jobs", look.note(_head(len(cards), n, self.model.root)), *map(card_html, cards))

    def text(self) -> str:
        """Return the jobs as text for a terminal."""
        cards, n = self.model.cards(self._limit)
        lines = [_head(len(cards), n, self.model.root)]
        for card in cards:
            lines.append(repr(card.status) if card.status else f"<batch job {card.job_id}: damaged>")
            lines += [f"  {words}" for words in (card.said, card.problem) if words]
        return "\n".join(lines)

    def close(self) -> None:
        """Poll no more; the widgets stay readable."""
        self.model.close()


class _Card:
    """The widgets of one job; made once, whatever becomes of it."""

    def __init__(self, job_id: str, model: JobsModel) -> None:
        self._job_id, self._model = job_id, model
        self._shown = ipywidgets.HTML()
        self._refresh = _button("Refresh", f"Ask the provider how job {job_id} is doing")
        self._collect = _button("Collect", f"Bring home what job {job_id} has so far")
        self._cancel = _button("Cancel", f"Ask the provider to stop job {job_id}; asks first")
        self._retry = _button("Retry failed", f"Send the rows of job {job_id} that have no answer in a new batch")
        self._sure = _button("Yes, cancel it", f"Cancel job {job_id} now")
        self._keep = _button("Keep it", f"Leave job {job_id} as it is")
        for button, action in ((self._refresh, "refresh"), (self._collect, "collect"), (self._retry, "retry")):
            button.on_click(partial(self._start, action))
        self._cancel.on_click(lambda _: self._ask(True))
        self._keep.on_click(lambda _: self._ask(False))
        self._sure.on_click(partial(self._start, "cancel"))
        self._ask(False)
        buttons = [self._refresh, self._collect, self._retry, self._cancel, self._sure, self._keep]
        bar = ipywidgets.HBox(buttons, layout=ipywidgets.Layout(flex_flow="row wrap"))
        self.widget = ipywidgets.VBox([self._shown, bar], layout=ipywidgets.Layout(margin="0 0 16px 0"))

    def show(self, card: JobCard) -> None:
        set_html(self._shown, card_html(card))
        busy, damaged = bool(card.doing), card.status is None
        is_done = card.status is None or card.status.is_done
        _able(self._refresh, not busy and not damaged)
        _able(self._collect, not busy and not damaged)
        is_ending = card.status is not None and card.status.state == "cancelling"
        _able(self._cancel, not busy and not is_done and not is_ending)
        _able(self._sure, not busy and not is_done)
        _able(self._retry, not busy and card.status is not None and card.status.n_bad > 0)

    def close(self) -> None:
        for widget in (*self.widget.children[1].children, *self.widget.children, self.widget):
            widget.close()

    def _start(self, action: str, _: object) -> None:
        self._ask(False)
        self._model.start(self._job_id, action)

    def _ask(self, asking: bool) -> None:
        self._cancel.layout.display = "none" if asking else ""
        self._sure.layout.display = self._keep.layout.display = "" if asking else "none"


def card_html(card: JobCard) -> Html:
    """Return one job as HTML; what the provider, an error or the ledger said is escaped."""
    status = card.status
    blocks: list[Html] = []
    if status is not None:
        parts = (
            ("answered", status.n_good, "ok"),
            ("without answer", status.n_bad, "bad"),
            ("waiting", status.n_pending, "wait"),
        )
        blocks = [
            look.stacked_bar(parts, status.n_sent, label=f"Texts of job {card.job_id}"),
            look.facts(status.facts()),
        ]
    if card.checked:
        blocks.append(look.note(f"Last checked {card.checked}"))
    if card.doing:
        blocks.append(look.note(f"{card.doing} …", role="active"))
    if card.said:
        blocks.append(look.note(card.said, role="ok"))
    if card.problem:
        blocks.append(look.note(card.problem, role="bad"))
    return look.page(f"{card.job_id}: {status.state if status else 'damaged'}", *blocks)


def _head(n_shown: int, n: int, root: Path) -> str:
    return f"{n_shown:,} of {n:,} batch jobs under {root}" if n else f"{NONE_YET} ({root})"


def _button(words: str, tip: str) -> ipywidgets.Button:
    return ipywidgets.Button(description=words, tooltip=tip)


def _able(button: ipywidgets.Button, able: bool) -> None:
    if button.disabled is able:
        button.disabled = not able
