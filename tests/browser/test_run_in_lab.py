"""Runs in a real JupyterLab: the bar, the interrupt, the background, and texts that want to be scripts."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator

import pytest
from lab import Notebook
from scripted_server import Step, scripted

pytestmark = pytest.mark.browser

OpenNotebook = Callable[..., Notebook]

START = """
import lmsyz, pandas as pd
box = lmsyz.sandbox.start(fresh=True, faults=lmsyz.sandbox.Faults(latency_s={latency}))
df = pd.DataFrame({{"text": [f"The great firm number {{i}} did well." for i in range({n})]}})
ask = dict(prompt="Say the tone.", schema={{"tone": ["positive", "neutral", "negative"]}}, chunk_size=1, max_workers=4)
"""
EXTRACT = "out = df.ie.extract(**ask); print(out['tone'].notna().sum(), 'answers')"
HOSTILE = (
    "<img src=x onerror=window.__pwned=1>",
    "<script>window.__pwned=1</script>",
    "</script><script>window.__pwned=1</script>",
    "[x](javascript:window.__pwned=1)",
    "'\"><svg onload=window.__pwned=1>",
)


def n_done(text: str) -> int:
    """Return how far a bar has come by its text."""
    found = re.search(r"(\d+)/\d+", text)
    return int(found[1]) if found else 0


def test_a_foreground_run_moves_its_bar_and_leaves_a_readable_one_in_the_saved_notebook(
    open_notebook: OpenNotebook,
) -> None:
    notebook = open_notebook(START.format(latency=0.3, n=40), EXTRACT)
    notebook.run(0)
    before, seen = notebook.start(1), set()
    while not re.search(r"\d", notebook.prompt(1)):
        seen.add(n_done(notebook.text(1)))
        notebook.page.wait_for_timeout(50)
    assert "40 answers" in notebook.wait_done(1, before)
    assert len([n for n in seen if 0 < n < 40]) >= 2, seen

    notebook.reopen()

    assert "40/40" in notebook.text(1)
    assert "model not found" not in notebook.text(1).lower()


def test_an_interrupt_gives_the_cell_back_in_one_line_keeps_rows_and_the_next_run_goes_on(
    open_notebook: OpenNotebook,
) -> None:
    rest = "box.set_faults(); print(box.stats()['n_rows'], 'asked')"
    notebook = open_notebook(START.format(latency=0.4, n=300), EXTRACT, rest)
    notebook.run(0)
    before = notebook.start(1)
    notebook.wait(lambda: n_done(notebook.text(1)) >= 8, what="eight rows")
    notebook.interrupt()
    text = notebook.wait_done(1, before, 15)
    said = re.search(r"Interrupted: (\d+) of 300 rows are done and stored; run it again to continue\.", text)
    assert said, text
    assert "Traceback" not in text
    assert 8 <= int(said[1]) < 300

    notebook.run(2)

    assert "300 answers" in notebook.run(1)
    assert "300 asked" in notebook.run(2)  # no row was paid for twice


def test_other_cells_run_while_a_background_run_goes_on(open_notebook: OpenNotebook) -> None:
    notebook = open_notebook(
        START.format(latency=0.4, n=40),
        "run = df.ie.extract(**ask, background=True)",
        "print(run.counts.how, 6 * 7)",
        "print(run.result()['tone'].notna().sum(), run.counts.how)",
    )
    assert "running 42" in notebook.run(0, 1, 2)
    assert "40 done" in notebook.run(3)


@pytest.fixture
def hostile_server() -> Iterator[str]:
    """A server whose every answer is an error that wants to be a script."""
    body = {"error": {"message": " ".join(HOSTILE), "type": "invalid_request_error", "code": HOSTILE[0]}}
    with scripted(Step(status=422, body=body)) as server:
        yield server.url + "/v1"


def test_hostile_answers_prompts_ids_and_errors_are_shown_as_text(
    open_notebook: OpenNotebook, hostile_server: str
) -> None:
    start = f"""
import lmsyz, pandas as pd
bad = {json.dumps(HOSTILE)}
box = lmsyz.sandbox.start(fresh=True, faults=lmsyz.sandbox.Faults(batch_s=1))
df = pd.DataFrame({{"text": bad, "note": bad, "id": bad}})
ask = dict(prompt=" ".join(bad), schema={{"note": str}}, text_col=["text", "note"], id_col="id")
"""
    failing = f"run = df.ie.extract(**ask, base_url={hostile_server!r}, api_key='sk-test', background=True)"
    notebook = open_notebook(
        start,
        "df.ie.extract(**ask)",
        "lmsyz.last_run()",
        f"{failing}\ntry:\n    run.result()\nexcept lmsyz.LmsyzError as error:\n    print('told', error)\nrun",
        "run.frame()",
        "job = df.ie.batch(**ask, job_id='hostile'); job",
        "lmsyz.batch_jobs()",
        "box.advance(60); job.wait(timeout=30); job.results()",
        "df.ie.stale(**ask | {'prompt': bad[0]})",
    )
    notebook.run(*range(9))

    assert HOSTILE[0] in notebook.text(1)
    assert "5 answered" in notebook.text(2)
    assert HOSTILE[0] in notebook.text(3)
    assert "batch job hostile" in notebook.text(5).lower()
    assert "hostile" in notebook.text(6)
    assert HOSTILE[0] in notebook.text(7)
    assert "prompt changed" in notebook.text(8)
    shown = notebook.page.locator(".jp-Cell-outputWrapper").locator('img[src="x"], svg[onload], a[href^="javascript"]')
    assert shown.count() == 0
    assert not notebook.is_pwned()
