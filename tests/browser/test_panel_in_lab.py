"""The panel's run view in a real JupyterLab: seen moving, steered by its buttons, and left readable."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import pytest
from lab import NARROW, WIDE, Notebook

pytestmark = pytest.mark.browser

OpenNotebook = Callable[..., Notebook]

START = """
import lmsyz, pandas as pd
box = lmsyz.sandbox.start(fresh=True, faults=lmsyz.sandbox.Faults(latency_s=0.3, **{faults}))
df = pd.DataFrame({{"text": [f"The great firm number {{i}} did well." for i in range({n})]}})
ask = dict(prompt="Say the tone.", schema={{"tone": ["positive", "neutral", "negative"]}}, chunk_size=1, max_workers=4)
run = df.ie.extract(**ask, background=True)
"""
COUNTS = "print('counts', run.counts.n_ok, run.counts.how)"


def start(n: int, **faults: float) -> str:
    return START.format(n=n, faults=faults)


def n_ok(notebook: Notebook, i: int = 1) -> int:
    """Return how many rows the view shows as answered."""
    found = re.search(r"\bok\s+([\d,]+)|([\d,]+)\s+ok\b", notebook.text(i))
    return int((found[1] or found[2]).replace(",", "")) if found else 0


def counts(notebook: Notebook, i: int) -> tuple[int, str]:
    """Return how many rows have an answer, and how the run stands, by the run itself."""
    found = re.search(r"counts (\d+) (\w+)", notebook.run(i))
    assert found
    return int(found[1]), found[2]


def test_a_background_run_is_seen_moving_and_its_end_outlives_the_kernel(open_notebook: OpenNotebook) -> None:
    notebook = open_notebook(start(40), "run.panel()", "run", COUNTS)
    notebook.run(0, 1, 2)
    seen = set()
    while (n := n_ok(notebook)) < 40:
        seen.add(n)
        notebook.page.wait_for_timeout(50)
    assert len(seen) >= 3, seen
    assert counts(notebook, 3) == (40, "done")
    for i in (1, 2):
        notebook.wait(lambda i=i: notebook.out(i).get_by_role("button").count() == 0, what="the view to be frozen")

    notebook.reopen()

    assert n_ok(notebook, 1) == n_ok(notebook, 2) == 40
    assert "model not found" not in (notebook.text(1) + notebook.text(2)).lower()


def test_stop_ends_a_run_and_keeps_its_rows(open_notebook: OpenNotebook) -> None:
    notebook = open_notebook(start(2000), "run.panel()", COUNTS, "print(run.result()['tone'].notna().sum(), 'kept')")
    notebook.run(0, 1)
    notebook.wait(lambda: n_ok(notebook) >= 4, what="four answers")

    notebook.click(1, "Stop")

    assert notebook.wait(lambda: counts(notebook, 2)[1] not in ("running", "stopping"), what="the stop")
    kept, how = counts(notebook, 2)
    assert how == "stopped"
    assert 4 <= kept < 2000
    assert f"{kept} kept" in notebook.run(3)
    notebook.wait(lambda: n_ok(notebook) == kept, what="the view to show what was kept")


def test_pause_holds_a_run_until_resume(open_notebook: OpenNotebook) -> None:
    notebook = open_notebook(start(2000), "run.panel()", COUNTS)
    notebook.run(0, 1)
    notebook.wait(lambda: n_ok(notebook) >= 4, what="four answers")

    notebook.click(1, "Pause")
    notebook.wait(lambda: notebook.button(1, "Resume").is_enabled(), what="Resume to be offered")
    notebook.page.wait_for_timeout(1500)  # what was in flight comes home
    held, _ = counts(notebook, 2)
    notebook.page.wait_for_timeout(1500)
    assert counts(notebook, 2)[0] == held

    notebook.click(1, "Resume")

    notebook.wait(lambda: n_ok(notebook) > held + 4, what="more answers")
    notebook.click(1, "Stop")
    notebook.wait(lambda: counts(notebook, 2)[1] == "stopped", what="the stop")


def test_a_foreground_run_shows_the_view_without_buttons(open_notebook: OpenNotebook) -> None:
    notebook = open_notebook(start(1), "out = df.loc[[0] * 30].ie.extract(**ask, dedupe=False, progress='panel')")
    notebook.run(0)
    before, seen = notebook.start(1), set()
    while not re.search(r"\d", notebook.prompt(1)):
        seen.add(n_ok(notebook))
        notebook.page.wait_for_timeout(50)
    notebook.wait_done(1, before)
    assert len(seen) >= 3, seen
    assert notebook.out(1).get_by_role("button").locator("visible=true").count() == 0


@pytest.mark.parametrize("width", [WIDE, NARROW])
def test_the_run_view_is_readable_in_both_themes_and_widths(
    open_notebook: OpenNotebook, screenshots: Path, width: int
) -> None:
    notebook = open_notebook(start(60, refused=0.1, missing=0.1), "run.panel()", width=width, height=1400)
    notebook.hide_sidebar()
    notebook.run(0, 1)
    notebook.wait(lambda: n_ok(notebook) >= 10, what="ten answers")
    for theme in ("Light", "Dark"):
        notebook.use_theme(f"JupyterLab {theme}")
        notebook.shot(1, screenshots / f"run-{theme.lower()}-{width}.png")
        box = notebook.out(1).bounding_box()
        assert box is not None
        assert box["width"] <= width
