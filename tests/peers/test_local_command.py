"""``lmsyz local`` and ``lmsyz demo --local`` with the real model."""

from __future__ import annotations

import signal
import subprocess
import sys
from typing import Any

import pytest
from click.testing import CliRunner

from lmsyz.cli import main

pytestmark = [pytest.mark.peer, pytest.mark.timeout(900), pytest.mark.usefixtures("llama")]
ENTRY = "from lmsyz.cli import main; main()"


@pytest.mark.skipif(sys.platform == "win32", reason="signals of its own kind")
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_the_command_serves_says_what_and_stops_cleanly(number: signal.Signals, llama: Any) -> None:
    with subprocess.Popen(
        [sys.executable, "-c", ENTRY, "local", "--context", "512", "--slots", "1"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as command:
        assert command.stdout is not None
        said = [command.stdout.readline() for _ in range(8)]
        command.send_signal(number)
        rest, told = command.communicate(timeout=120)
    words = "".join(said)
    assert all(
        word in words for word in (llama.sha256, llama.model, "context  512", "slots    1", "port ", "base_url=")
    )
    assert said[-1].startswith("Ready at http://127.0.0.1:")
    assert (command.returncode, rest, told) == (0, "", "Stopped.\n")


def test_the_demo_prints_a_table_and_names_the_model_that_made_it(llama: Any) -> None:
    result = CliRunner().invoke(main, ["demo", "--local", "--rows", "2"])
    assert result.exit_code == 0, result.output
    assert result.stdout.split()[:3] == ["text", "company", "ie_error"]
    assert f"Made by {llama.model}, a real language model" in result.stdout
    assert "not a research tool" in result.stdout
    assert "2 rows, 0 cached" in result.stdout
