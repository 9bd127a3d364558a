"""The model of the cache view: pages, actions, export; no widgets."""

from __future__ import annotations

import csv
import sys
from functools import partialmethod
from pathlib import Path

import pandas as pd
import pytest
from cache_records import pragma, raw, task
from test_cache_browse import chunk

from lmsyz import SqliteCache, cache_search
from lmsyz.errors import CacheError, MissingExtraError, UsageError
from lmsyz.widgets.cache_model import CacheModel, line


@pytest.fixture
def path(tmp_path: Path) -> Path:
    with SqliteCache(tmp_path / "c.sqlite") as cache:
        number = cache.task_id(task(prompt="It's \"quoted\"\n'''", options='{"temperature":0}'))
        for start in range(0, 20, 5):
            chunk(cache, number, {f"r{i}": f"text {i}" for i in range(start, start + 5)})
        chunk(cache, number, {"=1+1": "a\nb\x1b[31m\u202e"})
    return tmp_path / "c.sqlite"


def test_it_pages_forth_and_back(path: Path) -> None:
    model = CacheModel(path, page_rows=8)
    model.load()
    first = model.page
    model.next()
    model.next()
    assert (model.number, len(model.page.rows), model.page.next_id) == (3, 5, None)
    model.previous()
    model.previous()
    assert model.page == first
    assert model.is_first


def test_changing_the_filter_goes_to_the_first_page(path: Path) -> None:
    model = CacheModel(path, page_rows=8)
    model.load()
    model.next()
    model.filter(answer_text="r19")
    assert (model.number, [row.row_id for row in model.page.rows]) == (1, ["r19"])


def test_a_search_that_stops_for_its_time_goes_on_until_its_page_is_full(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cache_search, "BLOCK", 1)
    monkeypatch.setattr(SqliteCache, "find", partialmethod(SqliteCache.find, budget_s=0.0))
    model = CacheModel(path, page_rows=2)
    model.load()
    model.filter(answer_text="r1")
    n = 0
    while model.is_searching:
        assert "searches on by itself" in model.says()
        model.search_on()
        n += 1
    assert n > 1
    assert [row.row_id for row in model.page.rows] == ["r19", "r18"]
    model.next()
    while model.is_searching:
        model.next()
    assert (model.number, [row.row_id for row in model.page.rows]) == (2, ["r17", "r16"])


def test_the_hit_rate_is_what_the_runs_found(path: Path) -> None:
    model = CacheModel(path)
    model.load()
    assert "No run has asked" in model.says_reuse()
    with SqliteCache(path) as cache:
        cache.save_run("a", 1, 1.0, 2.0, '{"rows": {"total": 30, "cached": 10}}')
        cache.save_run("b", 1, 1.0, 2.0, '{"rows": {"total": 10, "cached": 10}}')
        cache.save_run("c", 1, 1.0, 2.0, "no JSON")
    model.load()
    assert model.says_reuse() == "Hit rate 50%: 20 of the 40 rows in 2 runs were stored already."


def test_a_line_has_no_break_no_control_character_and_one_width(path: Path) -> None:
    model = CacheModel(path)
    model.load()
    lines = [line(row) for row in model.page.rows]
    assert len({len(text) for text in lines}) == 1
    assert all(text.isprintable() or "\u00a0" in text for text in lines)
    assert not any(c in lines[0] for c in "\n\x1b\u202e ")
    assert "a⏎b" in lines[0]


def test_the_selection_is_a_frame_of_all_filtered_rows(path: Path) -> None:
    model = CacheModel(path, page_rows=3)
    model.load()
    assert len(model.selection()) == 21
    model.filter(row_id="r5")
    assert model.selection()["text"].tolist() == ["text 5"]


def test_csv_is_guarded_against_formulas_unless_told_otherwise(path: Path, tmp_path: Path) -> None:
    model = CacheModel(path)
    model.load()
    with model.export(tmp_path / "a.csv").open(newline="", encoding="utf-8") as file:
        guarded = list(csv.DictReader(file))
    with model.export(tmp_path / "b.csv", guard=False).open(newline="", encoding="utf-8") as file:
        plain = list(csv.DictReader(file))
    assert (guarded[0]["row_id"], plain[0]["row_id"], len(plain)) == ("'=1+1", "=1+1", 21)


def test_an_export_never_writes_over_a_file_and_knows_its_forms(path: Path) -> None:
    model = CacheModel(path)
    with pytest.raises(UsageError, match=r"\.csv or \.parquet"):
        model.export(path.with_suffix(".xlsx"))
    path.with_suffix(".csv").write_text("mine")
    with pytest.raises(UsageError, match="there already"):
        model.export(path.with_suffix(".csv"))
    with pytest.raises(UsageError, match=r"none.rows\.csv' cannot be written: No such file"):
        model.export(path.parent / "none" / "rows.csv")
    assert len(pd.read_csv(model.export(path.with_name("ROWS.CSV")))) == 21


def test_an_export_that_fails_halfway_leaves_nothing_in_its_own_way(path: Path, tmp_path: Path) -> None:
    model = CacheModel(path, page_rows=5)
    model.load()
    raw(path, "UPDATE answers SET answer = CAST(x'ff' AS TEXT) WHERE id = 2")  # as on a damaged page
    with pytest.raises(CacheError):
        model.export(tmp_path / "rows.csv")
    assert list(tmp_path.glob("*.csv")) == list(tmp_path.glob(".*.csv")) == []
    raw(path, "DELETE FROM answers WHERE id = 2")
    assert len(pd.read_csv(model.export(tmp_path / "rows.csv"))) == 20


def test_parquet_without_pyarrow_says_what_to_install(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    monkeypatch.setattr(pd.DataFrame, "to_parquet", _fails)
    with pytest.raises(MissingExtraError, match="pip install pyarrow"):
        CacheModel(path).export(path.with_suffix(".parquet"))


def _fails(*_: object) -> None:
    raise ImportError("no pyarrow")


def test_the_python_of_an_answer_runs_and_reads_it(path: Path) -> None:
    model = CacheModel(path)
    model.load()
    code = model.python(model.page.rows[1].id)
    found: dict[str, object] = {}
    exec(code, found)
    assert found["answer"] == {"tone": "good r19"}
    call = "\n".join(text[2:] for text in code.splitlines() if text.startswith("# "))
    compile(call.partition("\n")[2], "call", "exec")
    assert "temperature" in call


def test_deleting_and_asking_again_show_at_once(path: Path) -> None:
    model = CacheModel(path)
    model.load()
    assert model.delete([row.id for row in model.page.rows[:2]]) == 2
    assert model.ask_again([model.page.rows[0].id]) == 1
    assert (model.groups[0].n_rows, model.groups[0].n_stale) == (18, 1)


def test_looking_makes_no_file(tmp_path: Path) -> None:
    with pytest.raises(CacheError, match="no cache file"):
        CacheModel(tmp_path / "none.sqlite").load()
    assert list(tmp_path.iterdir()) == []


def test_looking_at_an_empty_file_writes_nothing_into_it(tmp_path: Path) -> None:
    empty = tmp_path / "empty.sqlite"
    empty.touch()
    model = CacheModel(empty)
    model.load()
    assert (model.page.rows, model.groups) == ([], [])
    assert [p.name for p in tmp_path.iterdir() if p.stat().st_size] == []


def test_a_file_of_the_version_before_is_brought_up_to_date(path: Path) -> None:
    raw(path, "DROP TABLE stale_answers", "PRAGMA user_version = 2")
    model = CacheModel(path)
    model.load()
    assert model.groups[0].n_rows == 21
    assert pragma(path, "user_version") == 3
