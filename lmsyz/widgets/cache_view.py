"""The cache, looked through: groups, a filter, pages of rows, one row opened, and what can be done with them."""

from __future__ import annotations

import json
import logging
import os
import threading
from collections.abc import Callable, Collection, Iterable
from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import Any

import ipywidgets
import pandas as pd

from lmsyz.cache_file import clean
from lmsyz.cache_rows import FAILED, STALE, STORED, FoundRow, RowDetail
from lmsyz.errors import LmsyzError, UsageError
from lmsyz.widgets import look
from lmsyz.widgets.cache_model import CacheModel, line, when
from lmsyz.widgets.look import Html
from lmsyz.widgets.view import set_html

__all__ = ["CacheView"]

log = logging.getLogger(__name__)

HEAD = ("task", "prompt", "model", "rows", "stale", "requests", "tokens in", "tokens out", "cost", "first", "last")
GROUPS_SHOWN = 20
TEXT_SHOWN = 20_000
NODES_SHOWN = 500
DEPTH_SHOWN = 30
STATUSES = (STORED, STALE, FAILED, "refused", "truncated", "malformed", "partial")
FILTERS = ("row_id", "answer_text", "input_text", "prompt", "model")


class CacheView:
    """Shows one cache file.

    Parameters
    ----------
    path : str or Path
        The file.
    task_ids : collection of int, optional
        Only rows of these tasks.
    """

    def __init__(self, path: str | os.PathLike[str], *, task_ids: Collection[int] | None = None) -> None:
        self._model = CacheModel(Path(path), task_ids=task_ids)
        self._lock = threading.RLock()
        self._pending: Callable[[], str] | None = None
        self._detail = self._error = Html("")
        self._problem = ""
        self._is_filling = False
        self._top, self._said, self._shown = (ipywidgets.HTML() for _ in range(3))
        self._rows = ipywidgets.SelectMultiple(description="Rows", rows=14, layout=ipywidgets.Layout(width="99%"))
        self._rows.observe(lambda _: self._selected(), names="value")
        self._code = ipywidgets.Textarea(description="Python", layout=ipywidgets.Layout(width="99%", display="none"))
        self._target = ipywidgets.Text(
            description="Export to", placeholder="rows.csv or rows.parquet", continuous_update=False
        )
        self._buttons: dict[str, ipywidgets.Button] = {}
        self.widget = ipywidgets.VBox(
            [
                self._top,
                self._filter_row(),
                self._row(
                    ("Reload", "Read the file anew", self.reload),
                    ("Previous", "The page before", self.previous),
                    ("Next", "The next page", self.next),
                ),
                self._said,
                self._rows,
                self._row(
                    ("Copy as Python", "Python that reads this answer", self._copy),
                    ("Delete", "Delete the selected answers for good", lambda: self._ask(self.delete, "Delete")),
                    ("Ask again", "Have the next run ask these rows again", lambda: self._ask(self.ask_again, "Mark")),
                    ("Confirm", "Do it", self._confirm),
                    ("Keep", "Change nothing", self._keep),
                ),
                self._code,
                ipywidgets.HBox([self._target, self._row(("Export", "Write all filtered rows", self._export))]),
                self._shown,
            ]
        )
        self.reload()

    def _filter_row(self) -> ipywidgets.HBox:
        status = ipywidgets.Dropdown(description="Status", options=STATUSES, value=STORED)
        status.observe(lambda change: self.filter(status=change["new"]), names="value")
        boxes: list[Any] = [status]
        for name in FILTERS:
            box = ipywidgets.Text(description=name.replace("_", " "), continuous_update=False)
            box.observe(lambda change, name=name: self.filter(**{name: change["new"]}), names="value")
            boxes.append(box)
        return ipywidgets.HBox(boxes, layout=ipywidgets.Layout(flex_flow="row wrap"))

    def _row(self, *buttons: tuple[str, str, Callable[[], object]]) -> ipywidgets.HBox:
        for words, meaning, action in buttons:
            button = self._buttons[words] = ipywidgets.Button(description=words, tooltip=meaning)
            button.on_click(lambda _, action=action: action())
        made = [self._buttons[words] for words, *_ in buttons]
        return ipywidgets.HBox(made, layout=ipywidgets.Layout(flex_flow="row wrap"))

    # --- actions ------------------------------------------------------------------------------------------------

    def reload(self) -> None:
        """Read the file anew."""
        self._act(self._model.load)

    def filter(self, **changes: str) -> None:
        """Change the filter: ``status``, ``prompt``, ``model``, ``row_id``, ``answer_text``, ``input_text``."""
        self._act(lambda: self._model.filter(**changes))

    def next(self) -> None:
        """Go to the next page, or search on."""
        self._act(self._model.next)

    def previous(self) -> None:
        """Go to the page before."""
        self._act(self._model.previous)

    def open(self, answer_id: int) -> None:
        """Show one row in full."""
        self._act(lambda: self._open(answer_id), fills=False)

    def _open(self, answer_id: int) -> None:
        failed = next((r for r in self._model.page.rows if r.id == answer_id and not r.key), None)
        self._detail = _failed_html(failed) if failed else _detail_html(self._model.show(answer_id))

    def delete(self, answer_ids: Iterable[int]) -> None:
        """Delete answers for good, without asking."""
        ids = list(answer_ids)
        self._act(lambda: self._model.delete(ids))

    def ask_again(self, answer_ids: Iterable[int]) -> None:
        """Have the next run ask rows again; their old answers stay readable under the status ``stale``."""
        ids = list(answer_ids)
        self._act(lambda: self._model.ask_again(ids))

    def python(self, answer_id: int) -> str:
        """Return Python that reads an answer back."""
        return self._model.python(answer_id)

    def selection(self) -> pd.DataFrame:
        """Return all rows that the filter lets through."""
        return self._model.selection()

    def export(self, path: str | os.PathLike[str], *, guard: bool = True) -> Path:
        """Write all rows that the filter lets through to a CSV or Parquet file; see :class:`CacheModel`."""
        return self._model.export(path, guard=guard)

    # --- what the widgets do ------------------------------------------------------------------------------------

    def _chosen(self) -> list[int]:
        """Return the numbers of the selected answers; an exchange without answers has none."""
        has_answers = self._model.wanted.status in (STORED, STALE)
        return [int(i) for i in self._rows.value] if has_answers else []

    def _selected(self) -> None:
        if self._is_filling:
            return
        self._pending = None
        if self._rows.value:
            self.open(int(self._rows.value[-1]))
        else:
            self.refresh()

    def _copy(self) -> None:
        def show() -> None:
            code = self.python(self._chosen()[-1])
            self._code.value, self._code.rows = code, code.count("\n") + 2
            self._code.layout.display = ""

        if self._chosen():
            self._act(show, fills=False)

    def _export(self) -> None:
        def write() -> None:
            if not self._target.value.strip():
                raise UsageError("give a file's name under Export to, such as rows.csv")
            self.export(self._target.value.strip())

        self._act(write, fills=False, done="The rows are written.")

    def _ask(self, action: Callable[[list[int]], None], verb: str) -> None:
        ids = self._chosen()

        def do() -> str:
            action(ids)
            return f"{verb} {len(ids):,} answers"

        with self._lock:
            self._pending = do if ids else None
            words = f"{verb} {len(ids):,} selected answers? Press Confirm, or Keep." if ids else "No row is selected."
            self._error = look.note(words, role="warn")
        self.refresh()

    def _confirm(self) -> None:
        with self._lock:
            pending, self._pending = self._pending, None
        if pending is not None:
            pending()

    def _keep(self) -> None:
        with self._lock:
            self._pending, self._error = None, Html("")
        self.refresh()

    def _act(self, action: Callable[[], object], *, fills: bool = True, done: str = "") -> None:
        with self._lock:
            try:
                action()
            except Exception as error:
                if not isinstance(error, LmsyzError):
                    log.warning("the cache view failed", exc_info=True)
                self._problem = f"{type(error).__name__}: {error}"
                self._error = look.note(f"{type(error).__name__}: {error}", role="bad")
            else:
                self._problem = ""
                self._error = look.note(done, role="ok") if done else Html("")
            if fills:
                self._fill()
        self.refresh()

    def _fill(self) -> None:
        self._pending, self._detail = None, Html("")
        self._is_filling = True
        try:
            self._rows.value = ()
            self._rows.options = [(line(row), row.id) for row in self._model.page.rows]
        finally:
            self._is_filling = False

    # --- showing ------------------------------------------------------------------------------------------------

    def refresh(self) -> None:
        """Bring the widget up to date and search on where rows are sought; :meth:`reload` reads the file anew."""
        with self._lock:
            if self._model.is_searching and self._pending is None:
                self._search_on()
            set_html(self._top, self._top_html())
            set_html(self._said, look.joined(self._error, look.note(self._model.says())))
            set_html(self._shown, self._detail)
            n = len(self._chosen())
            self._set("Previous", not self._model.is_first)
            self._set("Next", self._model.page.next_id is not None)
            self._set("Copy as Python", n > 0)
            self._set("Delete", n > 0, f"Delete ({n:,})")
            self._set("Ask again", n > 0 and self._model.wanted.status == STORED, f"Ask again ({n:,})")
            self._set("Confirm", self._pending is not None)
            self._set("Keep", self._pending is not None)

    def _search_on(self) -> None:
        """Search a little further; what is selected stays so as long as nothing new was found."""
        n = len(self._model.page.rows)
        try:
            self._model.search_on()
        except Exception as error:
            log.warning("the search failed", exc_info=True)
            self._model.page = replace(self._model.page, next_id=None)
            self._error = look.note(f"{type(error).__name__}: {error}", role="bad")
        if len(self._model.page.rows) > n:
            self._fill()

    def _set(self, name: str, is_on: bool, words: str = "") -> None:
        button = self._buttons[name]
        if button.disabled == is_on:
            button.disabled = not is_on
        if words and button.description != words:
            button.description = words

    def _top_html(self) -> Html:
        groups = self._model.groups
        title = f"Cache {self._model.path}: stored rows {sum(g.n_rows for g in groups):,}, tasks {len(groups):,}"
        caption = f"the {GROUPS_SHOWN} asked last" if len(groups) > GROUPS_SHOWN else ""
        reuse = look.note(self._model.says_reuse())
        return look.page(title, reuse, look.table(HEAD, self._group_rows(), caption=caption))

    def _group_rows(self) -> list[tuple[object, ...]]:
        return [
            (
                g.task_id,
                _cut(g.task.prompt)[:120],
                g.task.model,
                g.n_rows,
                g.n_stale,
                g.n_requests,
                g.input_tokens,
                g.output_tokens,
                _dollars(g.cost),
                when(g.first),
                when(g.last),
            )
            for g in self._model.groups[:GROUPS_SHOWN]
        ]

    def static_html(self) -> Html:
        """Return the present state as HTML that needs no kernel."""
        with self._lock:
            rows = [
                (r.id, r.row_id, r.status, r.model, r.text[:80], r.answer[:120]) for r in self._model.page.rows[:20]
            ]
            table = look.table(("id", "row", "status", "model", "text", "answer"), rows)
            return look.joined(self._top_html(), self._error, look.page(self._model.says(), table), self._detail)

    def text(self) -> str:
        """Return the present state as text for a terminal."""
        with self._lock:
            if self._problem:
                return f"Cache {self._model.path}\n{self._problem}"
            lines = [f"Cache {self._model.path}", look.text_table(HEAD, self._group_rows()), self._model.says()]
            return "\n".join([*lines, *(line(row).replace("\u00a0", " ").rstrip() for row in self._model.page.rows)])

    def close(self) -> None:
        """End nothing: the view has no thread, and opens the file for each reading."""


def _detail_html(detail: RowDetail) -> Html:
    row, request = detail.row, detail.request
    pairs: list[tuple[str, object]] = [("status", row.status), ("row id", row.row_id), ("model", row.model)]
    blocks = [look.heading("Text"), look.note(_cut(row.text)), look.heading("Answer"), _tree(_parsed(row.answer))]
    if request is not None:
        pairs += [
            ("outcome", request.outcome),
            ("answered", when(request.created)),
            ("tokens in, out", f"{request.input_tokens}, {request.output_tokens}, for {request.n_rows} in one request"),
            ("cost", _dollars(request.cost)),
            ("latency", f"{request.latency_s:.2f} s"),
            ("attempts", request.attempts),
        ]
        blocks += [
            look.folded("Request, as sent", look.note(_cut(request.body))),
            look.folded("Reply, as it came", look.note(_cut(request.reply))),
        ]
    if detail.others:
        head = ("id", "status", "model", "prompt", "answer")
        others = [(o.id, o.status, o.model, o.prompt[:200], _cut(o.answer)[:2000]) for o in detail.others[:20]]
        blocks += [look.heading("Other answers to this text"), look.table(head, others)]
    return look.page(f"Answer {row.id}", look.facts([*pairs, ("prompt", _cut(detail.task.prompt))]), *blocks)


def _failed_html(row: FoundRow) -> Html:
    pairs = [("outcome", row.status), ("rows asked", row.row_id[:2000]), ("model", row.model), ("prompt", row.prompt)]
    texts, reply = look.note(_cut(row.text)), look.note(_cut(row.answer))
    title = f"Exchange {row.id} left rows without an answer"
    return look.page(title, look.facts(pairs), look.folded("Texts", texts), look.folded("Reply, as it came", reply))


def _parsed(text: str) -> object:
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return text


def _tree(value: object) -> Html:
    """Return JSON as nested facts; what is deeper or longer than anyone reads is cut, and said to be."""
    left = [NODES_SHOWN]

    def built(value: object, depth: int) -> object:
        left[0] -= 1
        if isinstance(value, dict | list) and (depth > DEPTH_SHOWN or left[0] < 0):
            return "… (cut; the reply has all)"
        if isinstance(value, dict | list):
            pairs = value.items() if isinstance(value, dict) else ((str(i), v) for i, v in enumerate(value))
            inside = look.facts([(_cut(str(k)), built(v, depth + 1)) for k, v in islice(pairs, 200)])
            return inside if depth == 0 else look.folded(f"{len(value):,} items", inside)
        return _cut(value if isinstance(value, str) else json.dumps(value))

    return look.note(built(value, 0))


def _cut(text: str) -> str:
    text = clean(str(text))
    return text if len(text) <= TEXT_SHOWN else f"{text[:TEXT_SHOWN]} … ({len(text):,} characters)"


def _dollars(cost: float | None) -> str:
    return "price unknown" if cost is None else f"${cost:,.4f}"
