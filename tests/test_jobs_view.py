"""The batch jobs as cards: buttons, escaping and the static forms, without a browser."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from lmsyz.widgets.jobs_model import JobCard
from lmsyz.widgets.jobs_view import JobsView, card_html

pytestmark = pytest.mark.filterwarnings("ignore:The `ipykernel.comm.Comm` class:DeprecationWarning")

ROOT = Path("batch_jobs")


@pytest.fixture
def view(sandbox_default: Any, monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.setenv("LMSYZ_PROGRESS", "false")
    sandbox_default.set_faults(batch_s=100)
    for i in range(12):
        df = pd.DataFrame({"text": [f"Row of {i}."]})
        df.ie.batch("Give the digest.", schema={"digest": str}, job_id=f"job-{i:02}")
    view = JobsView(ROOT)
    view.model.close()  # nobody polls meanwhile; buttons work all the same
    if view.model._poller is not None:
        view.model._poller.join(30)
    return view


def buttons(view: JobsView, n: int = 0) -> dict[str, Any]:
    return {b.description: b for b in view._box.children[n].children[1].children}


def finish(name: str) -> None:
    for thread in threading.enumerate():
        if thread.name == f"lmsyz-{name}":
            thread.join(30)


def test_the_newest_ten_are_shown_and_older_ones_on_demand(view: JobsView) -> None:
    assert len(view._box.children) == 10
    assert view._older.layout.display != "none"
    view._older.click()
    assert len(view._box.children) == 12
    assert view._older.layout.display == "none"


def test_cancel_asks_first(view: JobsView) -> None:
    found = buttons(view)
    assert found["Yes, cancel it"].layout.display == "none"
    found["Cancel"].click()
    assert found["Cancel"].layout.display == "none"
    found["Keep it"].click()
    assert found["Yes, cancel it"].layout.display == "none"
    found["Cancel"].click()
    found["Yes, cancel it"].click()
    finish("cancel")
    view.refresh()
    assert "Asked the provider to stop" in view._box.children[0].children[0].value


def test_collect_brings_a_job_home_by_a_click(view: JobsView, sandbox_default: Any) -> None:
    sandbox_default.advance(1000)
    buttons(view)["Collect"].click()
    finish("collect")
    view.refresh()
    assert "1 answers are home" in view._box.children[0].children[0].value
    assert buttons(view)["Cancel"].disabled


def test_a_refresh_without_news_sends_nothing(view: JobsView) -> None:
    view.refresh()
    sent: list[Any] = []
    view._box.children[0].children[0].observe(sent.append, names="value")
    view._box.observe(sent.append, names="children")
    view.refresh()
    assert sent == []


def test_what_an_error_says_is_escaped() -> None:
    html = card_html(JobCard(job_id="x", created=0.0, status=None, problem="<img src=x onerror=alert(1)>"))
    assert "<img" not in html
    assert "&lt;img" in html
    assert "damaged" in html


def test_the_text_and_the_static_form_name_the_jobs(view: JobsView) -> None:
    assert "10 of 12 batch jobs" in view.text()
    assert "job-11" in view.text()
    assert "job-11" in view.static_html()
