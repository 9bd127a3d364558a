"""``lmsyz extract``: a file in, a file out, exit codes that a script can use, and interrupts that lose nothing."""

from __future__ import annotations

import importlib.util
import io
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from click.testing import CliRunner, Result
from image_files import saved, sha

from lmsyz.cli import main
from lmsyz.csv_guard import guarded_frame

Command = Callable[..., Result]
TEXTS = ["A great year, a wonderful success.", "A terrible loss, an awful year.", "NA", "The meeting is on Tuesday."]
TONES = ["positive", "negative", "neutral", "neutral"]
IDS = ["001", "002", "003", "004"]
SCHEMA = '{"tone": ["positive", "neutral", "negative"]}'
ASKED = ("--prompt", "Classify the tone.", "--schema", SCHEMA)
HAS_PARQUET = importlib.util.find_spec("pyarrow") is not None


@pytest.fixture
def run() -> Command:
    """Run ``lmsyz extract in.csv`` in this process."""

    def invoke(*arguments: str, source: str = "in.csv", asked: tuple[str, ...] = ASKED) -> Result:
        return CliRunner().invoke(main, ["extract", source, *asked, *arguments])

    return invoke


@pytest.fixture(autouse=True)
def files(clean_env: None) -> None:
    """The same rows in two formats in the working directory."""
    df = pd.DataFrame({"firm": IDS, "text": TEXTS})
    df.to_csv("in.csv", index=False)
    df.to_json("in.jsonl", orient="records", lines=True)


def read(path: str) -> pd.DataFrame:
    if path.endswith(".csv"):
        return pd.read_csv(path, dtype=str, keep_default_na=False)
    return pd.read_json(path, lines=True, dtype=False)


@pytest.mark.parametrize("source", ["in.csv", "in.jsonl"])
@pytest.mark.parametrize("out", ["out.csv", "out.jsonl"])
@pytest.mark.parametrize("backend", ["openai", "anthropic"])
def test_a_file_goes_in_and_comes_out_with_the_answers_beside_its_columns(
    sandbox_default: Any, run: Command, source: str, out: str, backend: str
) -> None:
    result = run("--out", out, "--backend", backend, "--id-col", "firm", source=source)
    assert result.exit_code == 0, result.stderr
    assert result.stdout == ""
    assert "4 answered" in result.stderr
    table = read(out)
    assert list(table.columns) == ["firm", "text", "tone", "ie_error"]
    assert table["firm"].tolist() == IDS
    assert table["text"].tolist() == TEXTS
    assert table["tone"].tolist() == TONES


@pytest.mark.skipif(not HAS_PARQUET, reason="needs pyarrow")
def test_parquet_goes_in_and_out_with_its_types(sandbox_default: Any, run: Command) -> None:
    pd.DataFrame({"n": [1, 2], "text": TEXTS[:2]}, index=pd.Index([7, 8], name="key")).to_parquet("in.parquet")
    assert run("--out", "out.parquet", source="in.parquet").exit_code == 0
    table = pd.read_parquet("out.parquet")
    assert table["key"].tolist() == [7, 8]
    assert str(table["n"].dtype) == "int64"


@pytest.mark.skipif(HAS_PARQUET, reason="needs pyarrow to be absent")
def test_parquet_without_pyarrow_is_told_before_anything_is_spent(sandbox_default: Any, run: Command) -> None:
    result = run("--out", "out.parquet")
    assert result.exit_code == 1
    assert "pip install pyarrow" in result.stderr
    assert sandbox_default.stats()["n_requests"] == 0


@pytest.mark.parametrize("option", ["--text-col", "--id-col", "--image-col"])
def test_a_column_that_there_is_not_is_told_in_the_words_of_the_command_line(run: Command, option: str) -> None:
    result = run("--out", "out.csv", option, "body")
    assert result.exit_code == 2
    assert f"'in.csv' has no column 'body'; it has 'firm', 'text'. Say which one with {option}" in result.stderr


@pytest.mark.parametrize("sign", [";", "\t", "|"])
@pytest.mark.parametrize("texts", [["Good", "Bad"], ["A great year, a success.", "Bad"], ["Good", "A loss, a blow."]])
def test_a_csv_file_that_is_separated_by_another_sign_is_said_to_be(run: Command, sign: str, texts: list[str]) -> None:
    Path("other.csv").write_text(f"firm{sign}text\n001{sign}{texts[0]}\n002{sign}{texts[1]}\n")
    result = run("--out", "out.csv", source="other.csv")
    assert result.exit_code == 2
    assert f"It seems to be separated by {sign!r}; save it with commas" in result.stderr


@pytest.mark.parametrize("row", ["001,A great year, a success.", "001,A great year.,"])
def test_a_csv_file_with_more_fields_than_names_is_refused_and_no_column_is_taken_for_another(
    run: Command, row: str
) -> None:
    Path("ragged.csv").write_text(f"firm,text\n{row}\n002,A terrible loss.\n")
    result = run("--out", "out.csv", source="ragged.csv")
    assert result.exit_code == 2
    assert "first row has more fields than its header" in result.stderr


def test_out_minus_writes_csv_on_stdout_and_nothing_else_there(sandbox_default: Any, run: Command) -> None:
    result = run("--out", "-", "--answers-only", "--id-col", "firm")
    assert result.exit_code == 0
    table = pd.read_csv(io.StringIO(result.stdout), dtype=str)
    assert list(table.columns) == ["firm", "tone", "ie_error"]
    assert table["tone"].tolist() == TONES


def test_prompt_and_schema_may_be_files(sandbox_default: Any, run: Command) -> None:
    Path("prompt.txt").write_text("Classify the tone, ä.", encoding="utf-8")
    Path("schema.json").write_text(SCHEMA)
    result = run("--out", "out.csv", asked=("--prompt", "@prompt.txt", "--schema", "schema.json"))
    assert result.exit_code == 0, result.stderr
    assert "tone, ä." in json.dumps(sandbox_default.requests(1)[0]["body"], ensure_ascii=False)


def test_the_same_command_again_asks_nothing(sandbox_default: Any, run: Command) -> None:
    assert run("--out", "out.csv").exit_code == 0
    n = sandbox_default.stats()["n_requests"]
    assert run("--out", "out.csv", "--overwrite").exit_code == 0
    assert sandbox_default.stats()["n_requests"] == n
    assert run("--out", "out.csv", "--overwrite", "--fresh").exit_code == 0
    assert sandbox_default.stats()["n_requests"] > n


def test_a_dry_run_counts_and_spends_nothing(sandbox_default: Any, run: Command) -> None:
    result = run("--dry-run")
    assert result.exit_code == 0, result.stderr
    assert result.stdout == ""
    assert "new row" in result.stderr
    assert sandbox_default.stats()["n_requests"] == 0
    assert sorted(path.name for path in Path().iterdir()) == ["in.csv", "in.jsonl"]


def test_limit_asks_about_the_first_rows_only(sandbox_default: Any, run: Command) -> None:
    assert run("--out", "out.csv", "--limit", "2", "--quiet").exit_code == 0
    assert read("out.csv")["text"].tolist() == TEXTS[:2]


def test_options_go_to_the_request(sandbox_default: Any, run: Command) -> None:
    result = run("--out", "out.csv", "--option", "temperature=0.5", "--option", "service_tier=flex")
    assert result.exit_code == 0, result.stderr
    body = sandbox_default.requests(1)[0]["body"]
    assert (body["temperature"], body["service_tier"]) == (0.5, "flex")


def test_rows_without_an_answer_make_exit_code_3_and_say_why(sandbox_default: Any, run: Command) -> None:
    sandbox_default.set_faults(refused=1.0)
    result = run("--out", "out.csv")
    assert result.exit_code == 3
    assert read("out.csv")["ie_error"].str.startswith("refused").all()
    dropped = run("--out", "dropped.csv", "--on-error", "drop")
    assert dropped.exit_code == 3
    assert len(read("dropped.csv")) == 0


def test_on_error_raise_fails_and_writes_nothing(sandbox_default: Any, run: Command) -> None:
    sandbox_default.set_faults(refused=1.0)
    result = run("--out", "out.csv", "--on-error", "raise")
    assert result.exit_code == 1
    assert "have no answer" in result.stderr
    assert not Path("out.csv").exists()


def test_a_run_that_fails_is_exit_code_1_without_a_traceback(sandbox_default: Any, run: Command) -> None:
    sandbox_default.set_faults(out_of_quota=True)
    result = run("--out", "out.csv")
    assert result.exit_code == 1
    assert "Traceback" not in result.output
    assert not Path("out.csv").exists()


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ((), "--out"),
        (("--out", "out.txt"), ".csv, .parquet, .jsonl"),
        (("--out", "in.csv", "--overwrite"), "is the input"),
        (("--out", "in.jsonl"), "--overwrite"),
        (("--out", "folder.csv", "--overwrite"), "is no file"),
        (("--out", "no/where/out.csv"), "no folder"),
        (("--out", "out.csv", "--text-col", "body"), "body"),
        (("--out", "out.csv", "--id-col", "nope"), "nope"),
        (("--out", "out.csv", "--option", "temperature"), "KEY=JSON"),
        (("--out", "out.csv", "--option", "stop=[1"), "neither JSON nor a word"),
        (("--out", "out.csv", "--schema", '{"tone": '), "not JSON"),
        (("--out", "out.csv", "--schema", "nowhere.json"), "nowhere.json"),
        (("--out", "out.csv", "--prompt", "@nowhere.txt"), "nowhere.txt"),
        (("--out", "out.csv", "--prompt", " "), "prompt is empty"),
        (("--out", "out.csv", "--encoding", "nope"), "nope"),
        (("--out", "out.csv", "--chunk-size", "0"), "chunk-size"),
    ],
)
def test_a_wrong_call_is_exit_code_2_and_one_clear_message(
    sandbox_default: Any, run: Command, arguments: tuple[str, ...], said: str
) -> None:
    Path("folder.csv").mkdir()
    result = run(*arguments)
    assert result.exit_code == 2, result.output
    assert said in result.stderr
    assert "Traceback" not in result.output
    assert sandbox_default.stats()["n_requests"] == 0


def test_a_key_that_is_missing_is_exit_code_2(run: Command) -> None:
    result = run("--out", "out.csv")
    assert result.exit_code == 2
    assert "OPENAI_API_KEY" in result.stderr


def test_a_csv_in_another_encoding_is_told_and_read_when_named(sandbox_default: Any, run: Command) -> None:
    Path("old.csv").write_bytes("text\nA great success for Müller.\n".encode("cp1252"))
    result = run("--out", "out.csv", source="old.csv")
    assert result.exit_code == 2
    assert "--encoding cp1252" in result.stderr
    assert run("--out", "out.csv", "--encoding", "cp1252", source="old.csv").exit_code == 0
    assert "Müller" in Path("out.csv").read_text(encoding="utf-8")


@pytest.mark.parametrize(
    ("name", "text"), [("bad.jsonl", "{"), ("bad.csv", ""), ("bad.csv", 'a,b\n1,2,3\n"'), ("bad.parquet", "x")]
)
def test_a_file_that_cannot_be_read_is_one_message(run: Command, name: str, text: str) -> None:
    Path(name).write_text(text)
    result = run("--out", "out.csv", source=name)
    assert result.exit_code in (1, 2)
    assert "Traceback" not in result.output
    assert "cannot be read" in result.stderr or "pyarrow" in result.stderr


def test_an_answer_with_the_name_of_a_column_gets_a_suffix(sandbox_default: Any, run: Command) -> None:
    pd.DataFrame({"tone": ["mine"], "text": TEXTS[:1]}).to_csv("in.csv", index=False)
    result = run("--out", "out.csv")
    assert "tone" in result.stderr
    assert read("out.csv").loc[0, ["tone", "tone_answer"]].tolist() == ["mine", "positive"]


def test_safe_csv_keeps_formulas_from_a_spreadsheet(sandbox_default: Any, run: Command) -> None:
    pd.DataFrame({"n": ["-1"], "text": ["=HYPERLINK(1)"]}).to_csv("in.csv", index=False)
    assert run("--out", "plain.csv").exit_code == 0
    assert read("plain.csv")["text"].tolist() == ["=HYPERLINK(1)"]
    assert run("--out", "safe.csv", "--safe-csv").exit_code == 0
    assert read("safe.csv")["text"].tolist() == ["'=HYPERLINK(1)"]


def test_the_guard_takes_every_text_name_and_index_and_leaves_numbers() -> None:
    frame = pd.DataFrame({"=a": ["@x", None], "n": [-1, 2], "c": pd.Categorical(["+1", "b"])}, index=["-i", "j"])
    frame["lists"] = [["=x"], {"k": 1}]
    out = guarded_frame(frame)
    assert list(out.columns) == ["'=a", "n", "c", "lists"]
    assert list(out.index) == ["'-i", "j"]
    assert out["'=a"].iloc[0] == "'@x"
    assert pd.isna(out["'=a"].iloc[1])
    assert out["n"].tolist() == [-1, 2]
    assert out["c"].tolist() == ["'+1", "b"]
    assert frame["=a"].iloc[0] == "@x"


@pytest.mark.skipif(os.name != "posix", reason="sends SIGINT to another process")
def test_an_interrupt_keeps_what_is_done_and_writes_no_file(sandbox_default: Any, run: Command) -> None:
    pd.DataFrame({"text": [f"A great year {i}." for i in range(60)]}).to_csv("in.csv", index=False)
    sandbox_default.set_faults(latency_s=0.1)
    command = [sys.executable, "-c", "from lmsyz.cli import main; main(prog_name='lmsyz')", "extract", "in.csv"]
    command += [*ASKED, "--out", "out.csv", "--chunk-size", "1", "--max-workers", "2"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        deadline = time.monotonic() + 60
        while sandbox_default.stats()["n_rows"] < 4 and process.poll() is None and time.monotonic() < deadline:
            time.sleep(0.05)
        process.send_signal(signal.SIGINT)
        stdout, stderr = process.communicate(timeout=60)
    assert process.returncode == 130, stderr
    assert stdout == ""
    assert "Traceback" not in stderr
    assert "done and stored" in stderr
    assert [path.name for path in Path().iterdir() if "out" in path.name] == []
    sandbox_default.set_faults()
    before = sandbox_default.stats()["n_rows"]
    result = run("--out", "out.csv", "--chunk-size", "1")
    assert result.exit_code == 0, result.stderr
    assert len(read("out.csv")) == 60
    assert sandbox_default.stats()["n_rows"] - before <= 57


def test_a_column_of_images_is_asked_about_beside_the_text(sandbox_default: Any, run: Command, tmp_path: Path) -> None:
    paths = saved(tmp_path, 3)
    df = pd.DataFrame({"text": list("abcd"), "photo": [*map(str, paths), None]})
    df.to_csv("in.csv", index=False)
    asked = ("--prompt", "Give the digest.", "--schema", '{"digest": "str"}', "--image-col", "photo")
    result = run("--out", "out.csv", asked=asked)
    assert result.exit_code == 0, result.stderr
    assert read("out.csv")["digest"].tolist() == [sha(text.encode())[:16] for text in "abcd"]
    assert "same question" in run("--dry-run", asked=asked).stderr
    paths[1].write_bytes(b"no image")
    result = run("--dry-run", asked=asked)
    assert result.exit_code == 2
    assert "row 1: " in result.stderr


def test_help_loads_neither_an_sdk_nor_a_widget() -> None:
    code = """\
import sys
from lmsyz.cli import main
try:
    main(["extract", "--help"])
except SystemExit:
    pass
print(sorted({"openai", "anthropic", "ipywidgets", "starlette"} & set(sys.modules)))
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "[]"


def test_a_missing_key_is_told_in_words_for_a_shell(run: Command) -> None:
    result = run("--out", "out.csv")
    assert result.exit_code == 2
    assert "OPENAI_API_KEY" in result.stderr
    assert "--base-url" in result.stderr
    assert "`lmsyz sandbox`" in result.stderr


def test_a_file_that_an_earlier_run_wrote_is_asked_about_again_and_again(sandbox_default: Any, run: Command) -> None:
    for i, name in enumerate(["in.csv", "1.csv", "2.csv", "3.csv"], 1):
        result = run("--out", f"{i}.csv", source=name)
        assert result.exit_code == 0, result.output
    table = read("4.csv")
    suffixes = ["", "_answer", "_answer_answer", "_answer_answer_answer"]
    assert [name for name in table.columns if name.startswith("tone")] == [f"tone{s}" for s in suffixes]
    assert all(list(table[f"tone{s}"]) == TONES for s in suffixes)
    assert "tone as tone_answer_answer_answer" in result.stderr


@pytest.mark.parametrize(("broken", "at"), [("nope", 1), ('{"text": "x"', 14)])
def test_a_line_that_is_no_json_is_named_by_its_number_in_the_file(run: Command, broken: str, at: int) -> None:
    Path("bad.jsonl").write_text(f'{{"text": "fine"}}\n\n{broken}\n{{"text": "fine"}}\n')
    result = run("--out", "out.jsonl", source="bad.jsonl")
    assert result.exit_code == 2
    assert "'bad.jsonl' cannot be read: line 3 is no JSON" in result.stderr
    assert result.stderr.endswith(f" at character {at}\n")
