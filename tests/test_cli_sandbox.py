"""``lmsyz sandbox``: the sandbox in the foreground, with the lines that have other programs ask it."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager

import anthropic
import openai
import pandas as pd
import pytest
from click.testing import CliRunner

from lmsyz.cli import main

LAUNCH = [sys.executable, "-c", "from lmsyz.cli import main; main(prog_name='lmsyz')", "sandbox"]
N_LINES = 5


@contextmanager
def serving(*arguments: str) -> Iterator[tuple[subprocess.Popen[str], dict[str, str]]]:
    """Serve in another process; the process, and what its lines set."""
    with subprocess.Popen(
        [*LAUNCH, *arguments], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, bufsize=1
    ) as process:
        assert process.stdout is not None
        try:
            said = [process.stdout.readline().strip() for _ in range(N_LINES)]
            assert all(line.startswith("export ") for line in said), said
            yield process, dict(line.removeprefix("export ").split("=", 1) for line in said)
        finally:
            process.kill()


@pytest.mark.skipif(os.name != "posix", reason="sends signals to another process")
@pytest.mark.parametrize("end", [signal.SIGINT, signal.SIGTERM])
def test_the_lines_have_both_sdks_ask_it_and_a_signal_ends_it_cleanly(
    monkeypatch: pytest.MonkeyPatch, end: signal.Signals
) -> None:
    with serving() as (process, lines):
        for name, value in lines.items():
            monkeypatch.setenv(name, value)
        said = [{"role": "user", "content": "A great year."}]
        with openai.OpenAI() as client:
            assert client.chat.completions.create(model="sandbox-rules", messages=said).choices  # type: ignore[arg-type]
        with anthropic.Anthropic() as other:
            assert other.messages.create(model="sandbox-rules", messages=said, max_tokens=99).content  # type: ignore[arg-type]
        out = pd.DataFrame({"text": ["A great year."]}).ie.extract("Tone?", schema={"tone": ["good", "bad"]})
        assert out["tone"].tolist() == ["good"]
        process.send_signal(end)
        _, stderr = process.communicate(timeout=60)
    assert process.returncode == 0, stderr
    assert "3 requests" in stderr
    assert "Stopped." in stderr
    with pytest.raises(OSError, match="refused"):
        urllib.request.urlopen(lines["LMSYZ_SANDBOX_URL"], timeout=5)


@pytest.mark.skipif(os.name != "posix", reason="sends signals to another process")
def test_faults_are_set_by_name() -> None:
    with serving("--fault", "out_of_quota=true", "--fault", 'refused_forms=["tool"]') as (process, lines):
        with (
            openai.OpenAI(base_url=lines["OPENAI_BASE_URL"], api_key=lines["OPENAI_API_KEY"], max_retries=0) as client,
            pytest.raises(openai.RateLimitError),
        ):
            client.chat.completions.create(model="sandbox-rules", messages=[{"role": "user", "content": "x"}])
        process.send_signal(signal.SIGTERM)
        process.communicate(timeout=60)


def test_the_faults_there_are_can_be_listed() -> None:
    result = CliRunner().invoke(main, ["sandbox", "--list-faults"])
    assert result.exit_code == 0
    assert "rate_limited=0.0" in result.stdout.splitlines()


@pytest.mark.parametrize(
    ("fault", "said"), [("rate_limited", "NAME=JSON"), ("nope=1", "nope"), ("rate_limited=2", "rate_limited")]
)
def test_a_fault_that_there_is_not_is_exit_code_2(fault: str, said: str) -> None:
    result = CliRunner().invoke(main, ["sandbox", "--fault", fault])
    assert result.exit_code == 2
    assert said in result.stderr
