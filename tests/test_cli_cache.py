"""``lmsyz cache``: what a cache file holds, told without changing it."""

from __future__ import annotations

import contextlib
import hashlib
import json
import sqlite3
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from click.testing import CliRunner, Result

from lmsyz.cli import main

Command = Callable[..., Result]
TEXTS = ["A great year, a wonderful success.", "=A terrible loss, an awful year."]
SCHEMA = {"tone": ["positive", "negative"], "n_words": int}


@pytest.fixture
def run() -> Command:
    """Run ``lmsyz cache c.sqlite`` in this process."""

    def invoke(*arguments: str, path: str = "c.sqlite") -> Result:
        # As on a terminal: elsewhere click takes some control characters out by itself.
        return CliRunner().invoke(main, ["cache", path, *arguments], color=True)

    return invoke


@pytest.fixture
def filled(sandbox_default: Any) -> pd.DataFrame:
    """Two tasks in one file: one with ids and one with named fields and another prompt."""
    df = pd.DataFrame({"firm": ["001", "002"], "text": TEXTS})
    common = {"schema": SCHEMA, "cache_path": "c.sqlite", "progress": False}
    df.ie.extract("Classify the tone.", id_col="firm", **common)
    df.ie.extract("Another\x1b[31m prompt, " + "long " * 30, text_col=["firm", "text"], backend="anthropic", **common)
    return df


def test_the_list_names_model_answers_tokens_cost_date_and_prompt_of_each_task(filled: Any, run: Command) -> None:
    before = hashlib.sha256(Path("c.sqlite").read_bytes()).digest()
    result = run()
    assert result.exit_code == 0, result.output
    head, first, second = result.stdout.splitlines()
    assert head.split()[:3] == ["task", "model", "answers"]
    assert first.split()[:3] == ["1", "sandbox-rules", "2"]
    assert "unknown" in first
    assert first.endswith("Classify the tone.")
    assert second.endswith("…")
    assert "\x1b" not in result.stdout
    assert hashlib.sha256(Path("c.sqlite").read_bytes()).digest() == before


def test_no_control_character_of_a_models_name_reaches_the_terminal(filled: Any, run: Command) -> None:
    with contextlib.closing(sqlite3.connect("c.sqlite")) as db, db:
        db.execute("UPDATE tasks SET model = 'm\x1b[31m\x07'")
    assert "m?[31m?" in run().stdout
    assert not {"\x1b", "\x07"} & set(run().stdout)


@pytest.mark.parametrize(
    "damage",
    [
        "UPDATE requests SET created = 'x'",
        "UPDATE requests SET created = 1e300",
        "UPDATE tasks SET schema = '{bad', options = '{bad'",
        "UPDATE answers SET answer = 'no json'",
        "UPDATE answers SET answer = '[1]'",
    ],
)
def test_a_value_that_is_none_of_ours_hides_nothing_else_of_a_file(filled: Any, run: Command, damage: str) -> None:
    with contextlib.closing(sqlite3.connect("c.sqlite")) as db, db:
        db.execute(damage)
    assert "Classify the tone." in run().stdout
    assert len(json.loads(run("--json").stdout)) == 2
    assert run("--export", "out.csv").exit_code == 0
    assert len(pd.read_csv("out.csv")) == 4


def test_json_tells_all_of_it(filled: Any, run: Command) -> None:
    first, second = json.loads(run("--json").stdout)
    assert (first["answers"], first["stale"], first["model"]) == (2, 0, "sandbox-rules")
    assert first["input_tokens"] > 100
    assert first["schema"]["properties"].keys() == {"tone", "n_words"}
    assert first["first"] <= first["last"]
    assert second["backend"] == "anthropic"
    assert [each["task"] for each in json.loads(run("--json", "--task", "2").stdout)] == [2]


def test_an_export_has_each_answer_with_its_row_as_sent(filled: Any, run: Command) -> None:
    result = run("--export", "out.jsonl")
    assert result.exit_code == 0, result.output
    assert "4 answers" in result.stderr
    rows = [json.loads(line) for line in Path("out.jsonl").read_text().splitlines()]
    mine = sorted((row for row in rows if row["ie_task"] == 1), key=lambda row: row["input_id"])
    assert [row["input_id"] for row in mine] == ["001", "002"]
    assert [row["input_text"] for row in mine] == TEXTS
    assert [row["tone"] for row in mine] == ["positive", "negative"]
    assert {json.loads(row["input_text"])["firm"] for row in rows if row["ie_task"] == 2} == {"001", "002"}
    assert {row["ie_model"] for row in rows} == {"sandbox-rules"}


def test_a_csv_export_can_be_made_safe_for_a_spreadsheet(filled: Any, run: Command) -> None:
    assert run("--export", "out.csv", "--task", "1", "--safe-csv").exit_code == 0
    table = pd.read_csv("out.csv", dtype=str)
    assert sorted(table["input_text"]) == sorted([TEXTS[0], f"'{TEXTS[1]}"])
    assert table["n_words"].str.fullmatch(r"\d+").all()


def test_only_the_newest_answer_to_a_text_is_exported(filled: pd.DataFrame, run: Command) -> None:
    filled.ie.extract(
        "Classify the tone.", schema=SCHEMA, id_col="firm", cache_path="c.sqlite", fresh=True, progress=False
    )
    facts = json.loads(run("--json", "--task", "1").stdout)[0]
    assert facts["answers"] == 4
    assert run("--export", "out.csv", "--task", "1").exit_code == 0
    assert len(pd.read_csv("out.csv")) == 2


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("--task", "9"), "no task number 9"),
        (("--export", "out.txt"), ".csv, .parquet, .jsonl"),
        (("--export", "there.csv"), "--overwrite"),
    ],
)
def test_a_wrong_call_is_exit_code_2(filled: Any, run: Command, arguments: tuple[str, ...], said: str) -> None:
    Path("there.csv").write_text("mine")
    result = run(*arguments)
    assert result.exit_code == 2
    assert said in result.stderr
    assert Path("there.csv").read_text() == "mine"


def test_another_programs_database_is_told_and_left_as_it_is(run: Command) -> None:
    with sqlite3.connect("c.sqlite") as db:
        db.execute("CREATE TABLE mine (a)")
    db.close()
    before = Path("c.sqlite").read_bytes()
    result = run()
    assert result.exit_code == 1
    assert "another program" in result.stderr
    assert Path("c.sqlite").read_bytes() == before


def test_a_file_that_is_not_there_is_exit_code_2(run: Command) -> None:
    assert run(path="nowhere.sqlite").exit_code == 2
    assert not Path("nowhere.sqlite").exists()
