"""The view of a run: counts, buttons, retry, and nothing hostile in it."""

from __future__ import annotations

from typing import Any

import pandas as pd
import pytest

import lmsyz
from lmsyz.run import Run
from lmsyz.widgets.run_model import RunModel
from lmsyz.widgets.run_view import RunView

# ipywidgets 7.7 itself uses what ipykernel 6 has deprecated.
pytestmark = pytest.mark.filterwarnings("ignore:The `ipykernel.comm.Comm` class:DeprecationWarning")

PROMPT = "Classify the tone."
SCHEMA = {"tone": ["positive", "neutral", "negative"]}
HOSTILE = "<img src=x onerror=\"alert('x')\">"


def frame(n: int = 10) -> pd.DataFrame:
    return pd.DataFrame({"text": [f"A wonderful day, number {i}." for i in range(n)]})


def started(df: pd.DataFrame, **options: Any) -> Run:
    run = df.ie.extract(PROMPT, schema=SCHEMA, background=True, progress=False, **options)
    assert isinstance(run, Run)
    return run


def buttons(view: RunView) -> dict[str, Any]:
    return {b.description: b for b in view.widget.children[0].children}


def enabled(view: RunView) -> set[str]:
    return {name for name, button in buttons(view).items() if not button.disabled}


def shown(view: RunView) -> str:
    return str(view.widget.children[-1].value)


def test_a_run_that_is_over_shows_its_rows_by_status(sandbox_default: Any) -> None:
    started(frame(4)).result()
    run = started(frame(10))
    run.result()
    state = RunModel(run).state()
    assert dict(state.parts)["cached"] == 4
    assert dict(state.parts)["ok"] == 6
    assert sum(n for _, n in state.parts) == 10
    assert state.is_live is False
    assert "4 rows; saved " in dict(state.pairs)["cache hits"]


def test_rows_not_home_yet_are_in_flight_or_waiting(sandbox_default: Any) -> None:
    sandbox_default.set_faults(latency_s=5.0)
    run = started(frame(40), max_workers=2)
    try:
        state = RunModel(run).state()
        parts = dict(state.parts)
        assert parts["in flight"] + parts["waiting"] == 40
        assert "of 1 allowed now" in dict(state.pairs)["requests"]
        assert state.is_live
    finally:
        run.stop()


def test_the_buttons_pause_resume_and_stop_a_run(sandbox_default: Any) -> None:
    sandbox_default.set_faults(latency_s=0.2)
    run = started(frame(200), max_workers=1)
    view = RunView(run)
    assert enabled(view) == {"Pause", "Stop"}
    buttons(view)["Pause"].click()
    assert enabled(view) == {"Resume", "Stop"}
    assert "paused" in shown(view)
    buttons(view)["Resume"].click()
    assert enabled(view) == {"Pause", "Stop"}
    buttons(view)["Stop"].click()
    assert run.wait(30)
    view.refresh()
    assert run.counts.how == "stopped"
    assert enabled(view) == {"Retry failed"}


def test_retry_failed_asks_only_rows_without_an_answer_and_is_followed(sandbox_default: Any) -> None:
    started(frame(4)).result()
    sandbox_default.set_faults(refused=1.0)
    first = started(frame(10))
    first.result()
    view = RunView(first)
    assert enabled(view) == {"Retry failed"}
    sandbox_default.set_faults()
    buttons(view)["Retry failed"].click()
    assert view.run is not first
    assert view.run.result()["ie_error"].isna().all()
    assert view.run.counts.n_cached == 4
    view.refresh()
    assert enabled(view) == set()


def test_a_run_under_way_is_not_retried(sandbox_default: Any) -> None:
    sandbox_default.set_faults(latency_s=1.0)
    run = started(frame(40), max_workers=1)
    try:
        with pytest.raises(lmsyz.UsageError, match="has not ended"):
            run.retry()
        view = RunView(run)
        view.retry()
        assert "has not ended" in view.widget.children[1].value
    finally:
        run.stop()


def test_hostile_words_are_shown_as_text(sandbox_default: Any) -> None:
    df = frame(3).assign(firm=[HOSTILE, HOSTILE + "2", "c"])
    sandbox_default.set_faults(refused=1.0)
    run = started(df, id_col="firm")
    run.result()
    view = RunView(run)
    for html in (shown(view), view.static_html()):
        assert "&lt;img src=x" in html
        assert "<img" not in html
    assert "refused" in view.text()


def test_nothing_is_sent_where_nothing_changed(sandbox_default: Any) -> None:
    run = started(frame(3))
    run.result()
    view = RunView(run)
    changes: list[Any] = []
    view.widget.children[-1].observe(changes.append)
    for button in buttons(view).values():
        button.observe(changes.append)
    view.refresh()
    assert changes == []


def test_a_view_for_a_cell_that_waits_has_no_buttons_and_says_how_to_stop(sandbox_default: Any) -> None:
    sandbox_default.set_faults(latency_s=1.0)
    run = started(frame(40), max_workers=1)
    try:
        view = RunView(run, buttons=False)
        assert len(view.widget.children) == 1
        assert "stop button" in shown(view)
    finally:
        run.stop()


def test_progress_takes_a_flag_or_panel_and_nothing_else(sandbox_default: Any) -> None:
    with pytest.raises(lmsyz.UsageError, match="progress='bar'"):
        frame().ie.extract(PROMPT, schema=SCHEMA, progress="bar")
    assert len(frame(3).ie.extract(PROMPT, schema=SCHEMA, progress="panel")) == 3
