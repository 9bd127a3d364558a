"""The sandbox's batches on disk: there after a crash or a stop, gone after a reset, of any size."""

from __future__ import annotations

import contextlib
import io
import os
import signal
import stat
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import anthropic
import openai
import pytest
from sandbox_batches import (
    ENDPOINT,
    body,
    create,
    ended,
    line,
    lines_of,
    requests,
    results_of,
    upload,
)
from sandbox_http import call, row_schema, rows

import lmsyz
from lmsyz.sandbox import Faults

DIGEST = row_schema({"digest": {"type": "string"}})


@pytest.fixture
def server(sandbox: Any) -> Any:
    """The sandbox, with batches that take a hundred seconds of a clock that only a test moves on."""
    sandbox.set_faults(batch_s=100)
    return sandbox


@pytest.fixture
def gpt(server: Any) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(api_key="k", base_url=server.openai_base_url, max_retries=0) as client:
        yield client


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[Path]:
    """A state directory; what runs of it at the end is stopped."""
    yield tmp_path / "state"
    lmsyz.sandbox.start(state_dir=tmp_path / "state", default=False).stop()


def clients(box: Any) -> tuple[openai.OpenAI, anthropic.Anthropic]:
    return (
        openai.OpenAI(api_key="k", base_url=box.openai_base_url, max_retries=0),
        anthropic.Anthropic(api_key="k", base_url=box.anthropic_base_url, max_retries=0),
    )


def test_batches_files_and_the_clock_outlive_a_server_killed_or_stopped(folder: Path) -> None:
    about: dict[str, Any] = {"state_dir": folder, "default": False}
    first = lmsyz.sandbox.start(faults=Faults(batch_s=100), **about)
    with clients(first)[0] as gpt, clients(first)[1] as claude:
        batch = create(gpt, line("a"), line("b"))
        running = create(gpt, line("c"))
        other = claude.messages.batches.create(requests=requests("a"))
        file_id = upload(gpt, line("z"))
        ended(first, gpt, batch)
        before = lines_of(gpt, gpt.batches.retrieve(batch.id).output_file_id)
        gpt.batches.cancel(create(gpt, line("d")).id)
    os.kill(first.pid, signal.SIGKILL)
    second = lmsyz.sandbox.start(faults=Faults(batch_s=5), **about)
    assert second.pid != first.pid
    with clients(second)[0] as gpt, clients(second)[1] as claude:
        assert lines_of(gpt, gpt.batches.retrieve(batch.id).output_file_id) == before
        assert gpt.batches.retrieve(running.id).status == "completed"
        assert gpt.files.content(file_id).content == line("z").encode()
        assert results_of(claude, other)["a"].type == "succeeded"
        assert second.stats()["n_batch_rows_paid"] == 4
        last = create(gpt, line("e"))
        assert last.status == "validating"
    second.stop()
    third = lmsyz.sandbox.start(**about)
    with clients(third)[0] as gpt:
        assert [b["api"] for b in third.batches()] == ["chat", "chat", "messages", "chat", "chat"]
        third.advance(5)
        assert gpt.batches.retrieve(last.id).status == "completed"
    (shelf,) = folder.glob("batches")
    assert {stat.S_IMODE(p.stat().st_mode) for p in shelf.iterdir()} == {0o600}
    assert stat.S_IMODE(shelf.stat().st_mode) == 0o700


def test_a_server_killed_while_it_answers_does_so_again_and_once(folder: Path) -> None:
    about: dict[str, Any] = {"state_dir": folder, "default": False}
    first = lmsyz.sandbox.start(faults=Faults(batch_s=100, batch_errors=0.1), **about)
    with clients(first)[0] as gpt:
        batch = create(gpt, *(line(f"r{i}", body=body(rows(f"text {i}"), DIGEST)) for i in range(2000)))
        first.advance(100)
        threading.Timer(0.2, os.kill, (first.pid, signal.SIGKILL)).start()
        with contextlib.suppress(openai.APIConnectionError):
            while True:
                gpt.batches.retrieve(batch.id)
    second = lmsyz.sandbox.start(**about)
    with clients(second)[0] as gpt:
        while (batch := gpt.batches.retrieve(batch.id)).status != "completed":
            pass
        lines = [*lines_of(gpt, batch.output_file_id), *lines_of(gpt, batch.error_file_id)]
        assert sorted(x["custom_id"] for x in lines) == sorted(f"r{i}" for i in range(2000))
        assert second.stats()["n_batch_rows_paid"] == batch.request_counts.completed < 2000
        assert len(list(gpt.files.list())) == 3


def test_reset_forgets_batches_and_sets_the_clock_right(server: Any, gpt: Any) -> None:
    batch = create(gpt, line("a"))
    server.advance(1000)
    assert [b["custom_ids"] for b in server.batches()] == [["a"]]
    server.reset()
    assert server.batches() == []
    assert server.stats()["n_batches"] == 0
    with pytest.raises(openai.NotFoundError):
        gpt.files.retrieve(batch.input_file_id)
    server.set_faults(batch_s=100)
    assert create(gpt, line("a")).status == "validating"


def test_a_private_sandbox_leaves_no_file_behind(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    with lmsyz.sandbox.start(fresh=True, default=False) as box, clients(box)[0] as gpt:
        create(gpt, line("a"))
        assert any(tmp_path.glob("lmsyz-sandbox-*"))
    assert not any(tmp_path.glob("lmsyz-sandbox-*"))


def test_a_large_batch_is_answered_from_disk_to_disk_and_blocks_nobody(server: Any, gpt: Any) -> None:
    def peak_kb() -> int:
        found = Path(f"/proc/{server.pid}/status").read_text().split("VmHWM:")[1]
        return int(found.split()[0])

    n, text = 10_000, "The shares rose. " * 120
    lines = (line(f"r{i}", body=body(rows(f"{i} {text}"), DIGEST)) for i in range(n))
    content = io.BytesIO("\n".join(lines).encode())
    size_kb = len(content.getvalue()) // 1024
    before = peak_kb()
    file_id = gpt.files.create(file=("in.jsonl", content), purpose="batch").id
    batch = gpt.batches.create(input_file_id=file_id, endpoint=ENDPOINT, completion_window="24h")
    server.advance(100)
    while (batch := gpt.batches.retrieve(batch.id)).status != "completed":
        assert batch.status == "finalizing"
        call(server.url, "GET", "/sandbox/health")
    assert batch.request_counts.completed == n
    with gpt.files.with_streaming_response.content(batch.output_file_id) as response:
        assert sum(piece.count(b"\n") for piece in response.iter_bytes()) == n
    assert size_kb > 20_000
    assert peak_kb() - before < size_kb
