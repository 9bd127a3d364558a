"""``lmsyz batch``: a file in, a file out, the job looked after from a shell."""

from __future__ import annotations

import importlib.util
import io
import json
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from image_files import saved, sha

from lmsyz import batch_wait
from lmsyz.cli import main

Command = Callable[..., "tuple[int, str, str]"]
TEXTS = ["A great year, a wonderful success.", "A terrible loss, an awful year.", "NA", "The meeting is on Tuesday."]
TONES = ["positive", "negative", "neutral", "neutral"]
IDS = ["001", "002", "003", "004"]
SCHEMA = {"tone": ["positive", "neutral", "negative"]}


@pytest.fixture
def lmsyz_batch(capsys: pytest.CaptureFixture[str]) -> Command:
    """Run ``lmsyz batch`` in this process; its exit code, stdout and stderr."""

    def run(*arguments: str) -> tuple[int, str, str]:
        with pytest.raises(SystemExit) as end:
            main(["batch", *arguments])
        written = capsys.readouterr()
        return int(end.value.code or 0), written.out, written.err

    return run


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(batch_wait, "SHORTEST_POLL_S", 0.02)


@pytest.fixture(autouse=True)
def files(clean_env: None) -> None:
    """The same rows in three formats, a schema and a prompt, in the working directory."""
    df = pd.DataFrame({"firm": IDS, "text": TEXTS})
    df.to_csv("in.csv", index=False)
    df.to_json("in.jsonl", orient="records", lines=True)
    Path("schema.json").write_text(json.dumps(SCHEMA))
    Path("prompt.txt").write_text("Classify the tone, ä.", encoding="utf-8")


def submit(run: Command, *more: str, source: str = "in.csv") -> tuple[int, str, str]:
    asked = ("--prompt", "@prompt.txt", "--schema", "schema.json", "--id-col", "firm", "--job-id", "job")
    return run("submit", source, *asked, *more)


@pytest.mark.parametrize("source", ["in.csv", "in.jsonl"])
@pytest.mark.parametrize("backend", ["openai", "anthropic"])
def test_a_file_goes_out_and_its_answers_come_home_with_the_ids_as_they_were(
    server: Any, lmsyz_batch: Command, source: str, backend: str
) -> None:
    code, stdout, stderr = submit(lmsyz_batch, "--backend", backend, source=source)
    assert code == 0, stderr
    assert stdout.startswith("<batch job job: ")
    assert "lmsyz batch wait job" in stderr
    code, stdout, stderr = lmsyz_batch("wait", "job", "--interval", "0.05")
    assert (code, stdout.splitlines()[0]) == (0, "<batch job job: done>")
    assert "request" in stderr  # the bar
    code, stdout, stderr = lmsyz_batch("results", "job")
    assert "4 rows, 0 of them without an answer" in stderr
    out = pd.read_csv(io.StringIO(stdout), dtype=str)
    assert out.columns.tolist() == ["firm", "tone", "ie_error"]
    assert out["firm"].tolist() == IDS
    assert out["tone"].tolist() == TONES


def test_what_a_live_call_may_say_a_batch_may_say_too(server: Any, lmsyz_batch: Command, tmp_path: Path) -> None:
    paths = saved(tmp_path, 3)
    pd.DataFrame({"text": list("abcd"), "photo": [*map(str, paths), None]}).to_csv("in.csv", index=False)
    asked = ("--prompt", "Give the digest.", "--schema", '{"digest": "str"}', "--image-col", "photo", "--limit", "3")
    more = (
        "--chunk-size",
        "1",
        "--option",
        "temperature=0.5",
        "--base-url",
        f"{server.url}/v1",
        "--model",
        "sandbox-rules",
    )
    code, _, stderr = lmsyz_batch("submit", "in.csv", *asked, *more, "--job-id", "job")
    assert code == 0, stderr
    lmsyz_batch("wait", "job", "--interval", "0.05")
    _, stdout, _ = lmsyz_batch("results", "job")
    out = pd.read_csv(io.StringIO(stdout), dtype=str)
    assert out["digest"].tolist() == [sha(text.encode())[:16] for text in "abc"]
    bodies = [
        json.loads(line)["body"] for line in Path("batch_jobs/job/batch_input/batch_1.jsonl").read_text().splitlines()
    ]
    assert [body["temperature"] for body in bodies] == [0.5] * 3
    code, _, stderr = lmsyz_batch("submit", "in.csv", *asked, "--option", "temprature=0", "--job-id", "other")
    assert code == 2
    assert "did you mean temperature=" in stderr


@pytest.mark.parametrize("name", ["out.csv", "out.jsonl"])
def test_results_go_to_a_file_of_the_kind_that_its_name_says(server: Any, lmsyz_batch: Command, name: str) -> None:
    submit(lmsyz_batch)
    lmsyz_batch("wait", "job", "--interval", "0.05")
    code, stdout, stderr = lmsyz_batch("results", "job", "--out", name)
    assert (code, stdout) == (0, "")
    assert name in stderr
    out = pd.read_csv(name, dtype=str) if name.endswith("csv") else pd.read_json(name, lines=True, dtype=False)
    assert out["firm"].tolist() == IDS
    assert out["tone"].tolist() == TONES


def test_results_replace_no_file_unless_told_to(server: Any, lmsyz_batch: Command) -> None:
    submit(lmsyz_batch)
    before = Path("in.csv").read_text()
    code, _, stderr = lmsyz_batch("results", "job", "--out", "in.csv")
    assert (code, "--overwrite replaces it" in stderr, Path("in.csv").read_text()) == (2, True, before)
    assert lmsyz_batch("results", "job", "--out", "out.csv")[0] == 0
    assert lmsyz_batch("results", "job", "--out", "out.csv", "--overwrite")[0] == 0


def test_parquet_is_read_and_written_or_the_package_for_it_is_named(server: Any, lmsyz_batch: Command) -> None:
    submit(lmsyz_batch)
    lmsyz_batch("wait", "job", "--interval", "0.05")
    code, _, stderr = lmsyz_batch("results", "job", "--out", "out.parquet")
    if importlib.util.find_spec("pyarrow") or importlib.util.find_spec("fastparquet"):
        assert code == 0
        assert pd.read_parquet("out.parquet")["tone"].tolist() == TONES
    else:
        assert code == 1
        assert "pip install pyarrow" in stderr


def test_without_ids_rows_are_numbered_and_failed_ones_can_be_left_out(server: Any, lmsyz_batch: Command) -> None:
    pd.DataFrame({"text": ["A great success.", "", "A terrible loss."]}).to_csv("few.csv", index=False)
    lmsyz_batch("submit", "few.csv", "--prompt", "Classify the tone.", "--schema", "schema.json", "--job-id", "few")
    lmsyz_batch("wait", "few", "--interval", "0.05")
    _, stdout, _ = lmsyz_batch("results", "few")
    assert stdout.splitlines() == ["row,tone,ie_error", "0,positive,", "1,,invalid: empty text", "2,negative,"]
    _, stdout, stderr = lmsyz_batch("results", "few", "--drop-failed")
    assert stdout.splitlines()[1:] == ["0,positive,", "2,negative,"]
    assert "2 rows, 0 of them without an answer" in stderr


def test_the_same_command_again_sends_nothing_twice(server: Any, lmsyz_batch: Command) -> None:
    assert submit(lmsyz_batch)[0] == submit(lmsyz_batch)[0] == 0
    lmsyz_batch("wait", "job", "--interval", "0.05")
    assert len(server.batches()) == 1
    assert server.stats()["n_batch_rows_paid"] == 4


def test_status_sends_nothing_unless_it_is_told_to(server: Any, lmsyz_batch: Command) -> None:
    server.set_faults(batch_s=1000)
    submit(lmsyz_batch)
    server.advance(1000)
    n = server.stats()["n_requests"]
    code, stdout, _ = lmsyz_batch("status", "job")
    assert code == 0
    assert "done" not in stdout.splitlines()[0]
    assert server.stats()["n_requests"] == n
    assert lmsyz_batch("status", "job", "--refresh")[1].startswith("<batch job job: done>")


def test_waiting_for_too_long_ends_with_one_and_the_job_goes_on(server: Any, lmsyz_batch: Command) -> None:
    server.set_faults(batch_s=1000)
    submit(lmsyz_batch)
    code, stdout, stderr = lmsyz_batch("wait", "job", "--timeout", "0")
    assert code == 1
    assert "job job is not done after 0 s; it goes on at the provider" in stderr
    assert stdout.startswith("<batch job job: ")


def test_cancelling_asks_first(server: Any, lmsyz_batch: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    server.set_faults(batch_s=1000)
    submit(lmsyz_batch)
    monkeypatch.setattr("sys.stdin", io.StringIO("n\n"))
    code, stdout, stderr = lmsyz_batch("cancel", "job")
    assert (code, stdout.strip()) == (1, "")  # an old click writes the space after a question to stdout
    assert "Cancel job job, with 4 texts on their way?" in stderr
    assert [b["state"] for b in server.batches()] == ["validating"]
    assert lmsyz_batch("cancel", "job", "--yes")[0] == 0
    server.advance(1000)
    assert lmsyz_batch("wait", "job", "--interval", "0.05")[0] == 0
    assert server.stats()["n_batch_rows_paid"] == 0


def test_jobs_are_listed_as_a_table(server: Any, lmsyz_batch: Command) -> None:
    code, stdout, stderr = lmsyz_batch("list")
    assert (code, stdout) == (0, "")
    assert "no batch jobs in batch_jobs" in stderr
    submit(lmsyz_batch)
    submit(lmsyz_batch, "--root", "elsewhere", "--cache", "other.sqlite")
    head, row = lmsyz_batch("list")[1].splitlines()
    assert head.split()[:4] == ["job_id", "backend", "model", "state"]
    assert row.split()[:3] == ["job", "openai", "sandbox-rules"]
    assert len(lmsyz_batch("list", "--root", "elsewhere")[1].splitlines()) == 2
    assert Path("other.sqlite").exists()


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (("status", "nope"), 1, "In a shell: lmsyz batch list"),
        (("status", "../up"), 2, "cannot be a folder's name"),
        (("submit", "missing.csv", "--prompt", "x"), 2, "does not exist"),
        (("submit", "prompt.txt", "--prompt", "x"), 2, "has to end in .csv, .parquet, .jsonl"),
        (("submit", "in.csv", "--prompt", "@missing.txt"), 2, "the prompt file 'missing.txt' cannot be read"),
        (("submit", "in.csv", "--prompt", "x", "--text-col", "body"), 2, "has no column 'body'"),
        (("submit", "in.csv", "--prompt", "x", "--id-col", "isin"), 2, "has no column 'isin'"),
        (("submit", "in.csv", "--prompt", "x", "--schema", "missing.json"), 2, "does not exist"),
        (("submit", "in.csv", "--prompt", "x", "--backend", "gemini"), 2, "is not one of"),
        (("submit", "broken.jsonl", "--prompt", "x"), 2, "cannot be read"),
        (("results", "job", "--out", "out.xlsx"), 2, "has to end in"),
    ],
)
def test_a_wrong_call_is_one_message_and_an_exit_code(
    server: Any, lmsyz_batch: Command, arguments: tuple[str, ...], code: int, message: str
) -> None:
    Path("broken.jsonl").write_text('{"text": ')
    ended, stdout, stderr = lmsyz_batch(*arguments)
    assert (ended, stdout) == (code, "")
    assert message in " ".join(stderr.split())
    assert "Traceback" not in stderr
    assert not Path("batch_jobs").exists()


def test_without_a_key_nothing_is_made_and_the_variable_is_named(lmsyz_batch: Command) -> None:
    code, _, stderr = submit(lmsyz_batch)
    assert code == 2
    assert "OPENAI_API_KEY" in stderr
    assert not Path("batch_jobs").exists()


def test_an_interrupted_wait_ends_with_130_and_the_job_goes_on(server: Any, lmsyz_batch: Command) -> None:
    server.set_faults(batch_s=1000)
    submit(lmsyz_batch)
    command = [sys.executable, "-c", "from lmsyz.cli import main; main()", "batch", "wait", "job", "--interval", "30"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, bufsize=0) as process:
        assert process.stderr is not None
        told = b""
        while b"in_progress" not in told and b"validating" not in told:
            told += process.stderr.read(1)
        process.send_signal(signal.SIGINT)
        stdout, rest = process.communicate()
    assert process.returncode == 130
    assert stdout == b""
    assert b"the waiting, not the job" in rest
    assert b"Traceback" not in rest
