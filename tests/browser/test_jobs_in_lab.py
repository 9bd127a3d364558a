"""The panel's batch jobs in a real JupyterLab: one goes from submitted to collected by clicks, one is cancelled."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from lab import Notebook

pytestmark = pytest.mark.browser

OpenNotebook = Callable[..., Notebook]

START = """
import lmsyz, pandas as pd
box = lmsyz.sandbox.start(fresh=True, faults=lmsyz.sandbox.Faults(batch_s=1000))
df = pd.DataFrame({"text": [f"The great firm number {i} did well." for i in range(12)]})
for name in ("first", "second"):
    job = df.ie.batch(f"Say the tone, {name}.", schema={"tone": ["positive", "negative"]}, job_id=name)
"""


def test_a_batch_job_goes_from_submitted_to_collected_by_clicks_and_another_is_cancelled(
    open_notebook: OpenNotebook, screenshots: Path
) -> None:
    cells = (START, "panel = lmsyz.panel(); panel", "box.advance(2000)", "lmsyz.BatchJob.load('first').results()")
    notebook = open_notebook(*cells, height=1800)
    notebook.run(0, 1)
    panel = notebook.out(1)
    panel.get_by_text("Batch jobs", exact=True).first.click()
    cancels = panel.get_by_role("button", name="Cancel", exact=True)
    notebook.wait(lambda: cancels.count() == 2, what="two jobs")
    second = 0 if notebook.text(1).index("second") < notebook.text(1).index("first") else 1

    cancels.nth(second).click()
    sure = panel.locator("button:visible", has_text="Yes, cancel it")
    notebook.wait(lambda: sure.count() == 1, what="the question")
    assert "cancelling" not in notebook.text(1)
    sure.click()
    notebook.wait(lambda: "cancel" in notebook.text(1).replace("Cancel", ""), what="the cancelling")

    notebook.run(2)
    panel.get_by_role("button", name="Collect", exact=True).nth(1 - second).click()
    notebook.wait(lambda: "answered 12" in " ".join(notebook.text(1).split()), what="the collected job")
    notebook.shots(1, screenshots, "jobs")
    notebook.run(3)
    assert "positive" in notebook.text(3)
