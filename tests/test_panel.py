"""The panel: tabs built when looked at, one that fails harms no other, text without a screen, frozen in a notebook."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import Any

import ipywidgets
import nbformat
import pandas as pd
import pytest
from nbclient import NotebookClient

import lmsyz
from lmsyz.widgets import look, screen
from lmsyz.widgets.panel import Foreground, Panel

# ipywidgets 7.7 itself uses what ipykernel 6 has deprecated.
pytestmark = pytest.mark.filterwarnings("ignore:The `ipykernel.comm.Comm` class:DeprecationWarning")

PROMPT = "Classify the tone."
SCHEMA = {"tone": ["positive", "neutral", "negative"]}
HOSTILE = "<img src=x onerror=alert(1)>"
WIDGET = "application/vnd.jupyter.widget-view+json"


def frame(n: int = 10) -> pd.DataFrame:
    return pd.DataFrame({"text": [f"A wonderful day, number {i}." for i in range(n)]})


class Note:
    """A view of one line."""

    def __init__(self, words: str) -> None:
        self.words = words
        self.n_refreshed = 0
        self.is_closed = False
        self.widget = ipywidgets.Label(words)

    def refresh(self) -> None:
        self.n_refreshed += 1

    def static_html(self) -> look.Html:
        return look.note(self.words)

    def text(self) -> str:
        return self.words

    def close(self) -> None:
        self.is_closed = True


def broken() -> Note:
    raise RuntimeError(f"no such table {HOSTILE}")


def test_importing_lmsyz_imports_no_widgets() -> None:
    code = "import sys, lmsyz; print('ipywidgets' in sys.modules, 'IPython' in sys.modules)"
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert out.stdout.split() == ["False", "False"]


def test_a_tab_is_built_when_it_is_looked_at_and_only_that_one_is_refreshed() -> None:
    views: list[Note] = []

    def made() -> Note:
        views.append(Note(str(len(views))))
        return views[-1]

    panel = Panel({"a": made, "b": made})
    panel.refresh()
    assert "0" in panel._repr_mimebundle_()["text/plain"]
    assert [v.words for v in views] == ["0"]
    panel.widget.selected_index = 1
    assert [v.words for v in views] == ["0", "1"]
    seen = views[0].n_refreshed
    panel.refresh()
    assert views[0].n_refreshed == seen
    panel.close()
    assert all(v.is_closed for v in views)


def test_a_tab_that_cannot_be_built_says_why_as_text_and_harms_no_other() -> None:
    panel = Panel({"a": broken, "b": lambda: Note("all well")})
    panel.refresh()
    html = panel.widget.children[0].children[0].value
    assert "no such table &lt;img" in html
    assert "<img" not in html
    panel.widget.selected_index = 1
    assert panel.widget.children[1].children[0].value == "all well"
    assert "all well" in panel.static_html()
    assert "no such table" in panel.text()
    assert "all well" in panel.text()
    panel.close()


def test_a_panel_without_a_screen_is_text_and_static_html() -> None:
    panel = Panel({"a": lambda: Note("all well")})
    assert set(panel._repr_mimebundle_()) == {"text/plain", "text/html"}
    assert repr(panel) == "a\nall well"
    with pytest.raises(lmsyz.UsageError, match="it has a"):
        panel.view("z")


def test_the_panel_of_a_frame_tells_which_rows_are_stored(sandbox_default: Any) -> None:
    df = frame(6)
    df.head(4).ie.extract(PROMPT, schema=SCHEMA, progress=False)
    df.loc[5, "text"] = ""
    panel = df.ie.panel(PROMPT, schema=SCHEMA)
    assert panel.rows()["action"].tolist() == ["reuse"] * 4 + ["ask", "skip"]
    assert panel.rows().index.equals(df.index)
    assert "same question" in panel.text()
    html = panel.view("This frame").static_html()
    assert "4 cached, 1 to be asked, 1 without text" in html
    panel.close()


def test_the_cache_tab_of_a_frame_shows_rows_of_its_question_alone(sandbox_default: Any) -> None:
    df = frame(6)
    df.head(4).ie.extract(PROMPT, schema=SCHEMA, progress=False)
    df.head(2).ie.extract("Another question.", schema=SCHEMA, progress=False)
    assert len(df.ie.panel(PROMPT, schema=SCHEMA).selection()) == 4
    assert len(df.ie.panel("Another question.", schema=SCHEMA).selection()) == 2
    assert len(lmsyz.panel().selection()) == 6
    assert "cannot be shown" not in lmsyz.panel().text()


def test_index_labels_of_a_frame_are_escaped(sandbox_default: Any) -> None:
    df = frame(2)
    df.index = pd.Index([HOSTILE, "b"])
    html = df.ie.panel(PROMPT, schema=SCHEMA).view("This frame").static_html()
    assert "&lt;img" in html
    assert "<img" not in html


def test_a_run_under_way_is_shown_as_text_where_there_is_no_screen(sandbox_default: Any) -> None:
    run = frame(3).ie.extract(PROMPT, schema=SCHEMA, background=True)
    with pytest.raises(NotImplementedError):
        run._ipython_display_()
    run.result()
    assert "Run" in run.panel().text()


def test_no_more_panels_stay_live_than_a_few(monkeypatch: pytest.MonkeyPatch) -> None:
    class Handle:
        def update(self, bundle: object, *, raw: bool) -> None:
            shown.append(bundle)

    shown: list[object] = []
    monkeypatch.setattr("IPython.display.display", lambda *a, **k: Handle())
    lives = [screen.Live(Note(str(i))) for i in range(screen.LIVE_AT_ONCE + 1)]
    try:
        for live in lives:
            live.show()
        assert {"text/plain": "0", "text/html": str(look.note("0"))} in shown
        assert {"text/plain": "1", "text/html": str(look.note("1"))} not in shown
    finally:
        for live in lives:
            live.close()


def test_a_view_that_was_interrupted_says_so_and_does_not_explain_how_to_stop(
    sandbox_default: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Handle:
        def update(self, bundle: dict[str, str], *, raw: bool) -> None:
            shown.append(bundle)

    shown: list[dict[str, str]] = []
    monkeypatch.setattr("IPython.display.display", lambda *a, **k: Handle())
    sandbox_default.set_faults(latency_s=1.0)
    run = frame(40).ie.extract(PROMPT, schema=SCHEMA, max_workers=1, background=True)
    with pytest.raises(KeyboardInterrupt), Foreground(run):
        raise KeyboardInterrupt
    run.stop()
    frozen = next(s for s in shown if s["text/plain"])
    assert "The cell was interrupted" in frozen["text/plain"]
    assert "The cell was interrupted" in frozen["text/html"]
    assert "stop button" not in frozen["text/html"]


def notebook(*cells: str) -> Any:
    book = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(c) for c in cells])
    NotebookClient(book, timeout=120, kernel_name="python3", store_widget_state=False).execute()
    return book


SET_UP = f"""
import time, pandas as pd, lmsyz
df = pd.DataFrame({{"text": [f"A wonderful day, number {{i}}." for i in range(30)]}})
ask = dict(prompt={PROMPT!r}, schema={SCHEMA!r}, max_workers=1)
"""


def test_what_a_notebook_saves_is_readable_without_its_kernel(sandbox_default: Any) -> None:
    sandbox_default.set_faults(latency_s=0.1)
    book = notebook(
        SET_UP,
        "run = df.ie.extract(**ask, background=True)\nrun",
        "run.wait()\ntime.sleep(1)",
        "out = df.ie.extract(**ask, fresh=True, progress='panel')",
        "panel = lmsyz.panel()\npanel",
        "panel.close()",
        "run = df.ie.extract(**ask, fresh=True, background=True)\nrun.panel()",
        "run.wait()\ntime.sleep(1)",
    )
    outputs = [[o for o in cell.outputs if "data" in o] for cell in book.cells]
    assert [WIDGET in o.data for o in outputs[1]] == [False, False]
    assert "30 of 30 rows" in outputs[1][0].data["text/plain"]
    assert "done" in outputs[1][0].data["text/html"]
    assert "30 of 30 rows" in outputs[3][0].data["text/html"]
    assert WIDGET not in outputs[3][0].data
    assert WIDGET not in outputs[4][0].data
    assert "30 of 30 rows" in outputs[4][0].data["text/html"]
    assert [WIDGET in o.data for o in outputs[6]] == [False, False]
    assert "30 of 30 rows" in outputs[6][0].data["text/html"]
    assert "cannot be painted" not in json.dumps(book)
