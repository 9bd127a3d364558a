"""The cache view: what it shows, that it escapes, and that it asks before it takes anything out."""

from __future__ import annotations

import json
import sqlite3
from pathlib import Path

import pytest
from cache_records import raw, task
from test_cache_browse import chunk

from lmsyz import SqliteCache
from lmsyz.cache_schema import VERSION
from lmsyz.widgets.cache_view import CacheView

# ipywidgets 7.7 itself uses what ipykernel 6 has deprecated.
pytestmark = pytest.mark.filterwarnings("ignore:The `ipykernel.comm.Comm` class:DeprecationWarning")

EVIL = '<img src=x onerror="alert(1)"><script>alert(2)</script>'


@pytest.fixture
def path(tmp_path: Path) -> Path:
    with SqliteCache(tmp_path / "c.sqlite") as cache:
        number = cache.task_id(task(prompt=EVIL, model=EVIL))
        texts = {f"{EVIL}{i}": f"{EVIL}{i}" for i in range(60)}
        chunk(cache, number, texts, tone=EVIL, reply=EVIL)
        other = cache.task_id(task(prompt="other"))
        chunk(cache, other, {"r": EVIL + "3"})
        chunk(cache, other, {EVIL: EVIL}, n_rows=1, outcome=EVIL, reply=EVIL)
    return tmp_path / "c.sqlite"


def html_of(view: CacheView) -> str:
    return view._top.value + view._said.value + view._shown.value + view.static_html()


def press(view: CacheView, name: str) -> None:
    view._buttons[name].click()


def test_nothing_of_a_file_becomes_html(path: Path) -> None:
    view = CacheView(path)
    view.open(view._model.page.rows[0].id)
    assert "Other answers" in html_of(view)
    assert "<img" not in html_of(view)
    assert "<script" not in html_of(view)
    view.filter(status="failed")
    view.open(view._model.page.rows[0].id)
    assert "left rows without an answer" in html_of(view)
    assert "<img" not in html_of(view)


def test_selecting_a_line_opens_its_row(path: Path) -> None:
    view = CacheView(path)
    view._rows.value = (view._rows.options[1][1],)
    assert f"Answer {view._rows.value[0]}" in view._shown.value


def test_delete_asks_first_and_only_then_deletes_what_was_selected(path: Path) -> None:
    view = CacheView(path)
    ids = [number for _, number in view._rows.options[:2]]
    view._rows.value = tuple(ids)
    assert view._buttons["Delete"].description == "Delete (2)"
    press(view, "Delete")
    assert view._model.groups[0].n_rows + view._model.groups[1].n_rows == 61
    press(view, "Keep")
    press(view, "Confirm")
    assert view._model.n_rows == 61
    press(view, "Delete")
    press(view, "Confirm")
    assert view._model.n_rows == 59
    assert not set(ids) & {number for _, number in view._rows.options}


def test_another_selection_takes_the_question_back(path: Path) -> None:
    view = CacheView(path)
    view._rows.value = (view._rows.options[0][1],)
    press(view, "Delete")
    view._rows.value = (view._rows.options[1][1],)
    assert view._buttons["Confirm"].disabled
    press(view, "Confirm")
    assert view._model.n_rows == 61


def test_rows_asked_again_are_found_under_stale(path: Path) -> None:
    view = CacheView(path)
    view._rows.value = (view._rows.options[0][1],)
    press(view, "Ask again")
    press(view, "Confirm")
    view.filter(status="stale")
    assert len(view.selection()) == 1


def test_buttons_page_and_copy(path: Path) -> None:
    view = CacheView(path)
    press(view, "Next")
    assert view._model.number == 2
    assert view._buttons["Next"].disabled
    press(view, "Previous")
    view._rows.value = (view._rows.options[0][1],)
    press(view, "Copy as Python")
    assert json.dumps("read_only") not in view._code.value
    assert "cache.show(61)" in view._code.value


def test_only_the_rows_of_some_tasks_are_shown_on_request(path: Path) -> None:
    assert len(CacheView(path, task_ids=[2]).selection()) == 1


def test_a_view_of_no_file_a_newer_file_and_a_locked_one_say_what_is_wrong(path: Path, tmp_path: Path) -> None:
    assert "no cache file" in CacheView(tmp_path / "none.sqlite")._said.value
    view = CacheView(path)
    db = sqlite3.connect(path)
    db.execute("BEGIN EXCLUSIVE")
    view.delete([1])
    db.rollback()
    db.close()
    assert "locked by another program" in view._said.value
    raw(path, f"PRAGMA user_version = {VERSION + 1}")
    view.reload()
    assert "newer lmsyz" in view._said.value


def test_a_refresh_without_change_sends_nothing(path: Path) -> None:
    view = CacheView(path)
    sent: list[object] = []
    for widget in (view._top, view._said, view._shown, *view._buttons.values()):
        widget.observe(sent.append)
    view.refresh()
    assert sent == []


def test_text_for_a_terminal_has_groups_and_rows(path: Path) -> None:
    text = CacheView(path).text()
    assert "tokens in" in text
    assert "Page 1: 50 rows" in text


def test_export_writes_the_filtered_rows_and_says_what_is_missing(path: Path, tmp_path: Path) -> None:
    view = CacheView(path)
    press(view, "Export")
    assert "such as rows.csv" in view._said.value
    view._target.value = str(tmp_path / "rows.csv")
    press(view, "Export")
    assert "written" in view._said.value
    assert (tmp_path / "rows.csv").read_text().count("<script>") > 60


def test_a_file_with_odd_types_and_lone_surrogates_still_shows(path: Path) -> None:
    raw(
        path,
        "UPDATE requests SET created = 'never'",
        "UPDATE tasks SET prompt = x'ff', model = x'00ff'",
        """UPDATE answers SET answer = '{"a": "\\ud800", "b": [[1]]}'""",
    )
    view = CacheView(path)
    view.open(61)
    assert "Answer 61" in view._shown.value
    assert view._shown.value.encode()
    assert view.text()


def test_a_file_that_is_not_there_is_said_in_one_line(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    view = CacheView(tmp_path / "none.sqlite")
    view.refresh()
    assert "CacheError" in view.text()
    assert str(tmp_path / "none.sqlite") in view.text()
    assert len(view.text().splitlines()) <= 3
    assert caplog.records == []


def test_python_to_copy_is_shown_whole(path: Path) -> None:
    view = CacheView(path)
    view.refresh()
    view._rows.value = (view._rows.options[0][1],)
    press(view, "Copy as Python")
    assert view._code.rows > view._code.value.count("\n")
