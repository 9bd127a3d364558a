"""The sandbox's batch endpoints, through the real SDK clients: as strict as the real ones, and there after a crash."""

from __future__ import annotations

import io
import json
import os
import signal
from pathlib import Path
from typing import Any

import anthropic
import openai
import pytest

import lmsyz
from lmsyz.sandbox import Faults

BODY = {"model": "sandbox-rules", "messages": [{"role": "user", "content": "Say in JSON: a good day."}]}
PARAMS = {"model": "sandbox-rules", "max_tokens": 200, "messages": [{"role": "user", "content": "A good day."}]}


def line(custom_id: str, **changes: Any) -> str:
    request = {"custom_id": custom_id, "method": "POST", "url": "/v1/chat/completions", "body": BODY}
    return json.dumps(request | changes)


@pytest.fixture
def server(sandbox: Any) -> Any:
    sandbox.set_faults(batch_s=100)
    return sandbox


@pytest.fixture
def gpt(server: Any) -> Any:
    with openai.OpenAI(api_key="k", base_url=server.openai_base_url, max_retries=0) as client:
        yield client


@pytest.fixture
def claude(server: Any) -> Any:
    with anthropic.Anthropic(api_key="k", base_url=server.anthropic_base_url, max_retries=0) as client:
        yield client


def upload(client: Any, *lines: str) -> str:
    content = io.BytesIO("\n".join(lines).encode())
    return str(client.files.create(file=("in.jsonl", content), purpose="batch").id)


def create(client: Any, *lines: str, **about: Any) -> Any:
    return client.batches.create(
        input_file_id=upload(client, *lines), endpoint="/v1/chat/completions", completion_window="24h", **about
    )


def requests(*custom_ids: str) -> Any:
    return [{"custom_id": c, "params": PARAMS} for c in custom_ids]


# --- OpenAI -----------------------------------------------------------------------------------------


def test_an_openai_batch_goes_through_its_states_and_ends_with_an_output_file(server: Any, gpt: Any) -> None:
    batch = create(gpt, line("a"), line("b"), metadata={"mine": "yes"})
    assert (batch.status, batch.metadata, batch.output_file_id) == ("validating", {"mine": "yes"}, None)
    for seconds, status in ((20, "in_progress"), (75, "finalizing"), (10, "completed")):
        server.advance(seconds)
        batch = gpt.batches.retrieve(batch.id)
        assert batch.status == status
    assert (batch.request_counts.total, batch.request_counts.completed, batch.error_file_id) == (2, 2, None)
    lines = [json.loads(x) for x in gpt.files.content(batch.output_file_id).content.split(b"\n") if x]
    assert sorted(x["custom_id"] for x in lines) == ["a", "b"]
    assert lines[0]["response"]["body"]["choices"][0]["message"]["content"]
    assert server.stats()["n_batch_rows_paid"] == 2


@pytest.mark.parametrize(
    ("lines", "code"),
    [
        (["not json"], "invalid_json_line"),
        ([line("a"), line("a")], "duplicate_custom_id"),
        ([line("a", url="/v1/responses")], "url_mismatch"),
        ([""], "empty_file"),
    ],
)
def test_a_bad_input_file_is_a_created_batch_that_fails(server: Any, gpt: Any, lines: list[str], code: str) -> None:
    batch = gpt.batches.retrieve(create(gpt, *lines).id)
    assert (batch.status, batch.errors.data[0].code) == ("failed", code)
    assert server.stats()["n_batch_rows_paid"] == 0


def test_what_openai_refuses_before_a_batch_is_made(gpt: Any) -> None:
    with pytest.raises(openai.BadRequestError, match="No such File"):
        gpt.batches.create(input_file_id="file-x", endpoint="/v1/chat/completions", completion_window="24h")
    with pytest.raises(openai.BadRequestError, match=r"endpoint|Invalid value"):
        gpt.batches.create(input_file_id=upload(gpt, line("a")), endpoint="/v1/embeddings", completion_window="24h")
    with pytest.raises(openai.BadRequestError, match="is not one of"):
        gpt.files.create(file=("x", b"x"), purpose="vision")
    with pytest.raises(openai.NotFoundError):
        gpt.batches.retrieve("batch_none")


def test_openai_lists_page_by_page_newest_first_and_files_can_be_deleted(server: Any, gpt: Any) -> None:
    ids = []
    for _ in range(5):
        ids.append(create(gpt, line("a")).id)
        server.advance(1)
    assert [b.id for b in gpt.batches.list(limit=2)] == ids[::-1]
    file_id = upload(gpt, line("a"))
    assert gpt.files.retrieve(file_id).purpose == "batch"
    assert gpt.files.delete(file_id).deleted
    with pytest.raises(openai.NotFoundError):
        gpt.files.content(file_id)


def test_a_cancelled_openai_batch_keeps_the_part_that_was_run(server: Any, gpt: Any) -> None:
    batch = create(gpt, *(line(f"r{i}") for i in range(10)))
    server.advance(40)
    assert gpt.batches.cancel(batch.id).status == "cancelling"
    batch = gpt.batches.retrieve(batch.id)
    assert (batch.status, batch.request_counts.completed, batch.request_counts.failed) == ("cancelled", 4, 6)
    with pytest.raises(openai.BadRequestError, match="Cannot cancel"):
        gpt.batches.cancel(batch.id)


# --- Anthropic --------------------------------------------------------------------------------------


def test_an_anthropic_batch_counts_nothing_until_it_has_ended(server: Any, claude: Any) -> None:
    batch = claude.messages.batches.create(requests=requests("a", "b", "c"))
    server.advance(50)
    batch = claude.messages.batches.retrieve(batch.id)
    assert (batch.processing_status, batch.request_counts.processing, batch.results_url) == ("in_progress", 3, None)
    server.advance(50)
    batch = claude.messages.batches.retrieve(batch.id)
    assert (batch.processing_status, batch.request_counts.succeeded) == ("ended", 3)
    results = {r.custom_id: r.result for r in claude.messages.batches.results(batch.id)}
    assert results.keys() == {"a", "b", "c"}
    assert results["a"].message.usage.service_tier == "batch"


@pytest.mark.parametrize(
    ("custom_ids", "words"),
    [(["a", "a"], "unique"), (["a b"], "should match"), (["x" * 65], "should match"), ([], "1 to")],
)
def test_what_anthropic_refuses_at_once(claude: Any, custom_ids: list[str], words: str) -> None:
    with pytest.raises(anthropic.BadRequestError, match=words):
        claude.messages.batches.create(requests=requests(*custom_ids))


def test_params_are_looked_at_only_when_an_anthropic_batch_runs(server: Any, claude: Any) -> None:
    bad = {"custom_id": "bad", "params": PARAMS | {"model": "nope"}}
    batch = claude.messages.batches.create(requests=[*requests("good"), bad])
    with pytest.raises(anthropic.AnthropicError):
        list(claude.messages.batches.results(batch.id))
    server.advance(100)
    results = {r.custom_id: r.result for r in claude.messages.batches.results(batch.id)}
    assert (results["good"].type, results["bad"].type) == ("succeeded", "errored")
    assert results["bad"].error.error.type == "not_found_error"


def test_anthropic_lists_page_by_page_and_ended_batches_can_be_deleted(server: Any, claude: Any) -> None:
    ids = []
    for _ in range(5):
        ids.append(claude.messages.batches.create(requests=requests("a")).id)
        server.advance(1)
    assert [b.id for b in claude.messages.batches.list(limit=2)] == ids[::-1]
    with pytest.raises(anthropic.BadRequestError, match="not ended"):
        claude.messages.batches.delete(ids[0])
    assert claude.messages.batches.cancel(ids[0]).processing_status == "canceling"
    assert [r.result.type for r in claude.messages.batches.results(ids[0])] == ["canceled"]
    claude.messages.batches.delete(ids[0])
    with pytest.raises(anthropic.NotFoundError):
        claude.messages.batches.retrieve(ids[0])


# --- a server that dies -----------------------------------------------------------------------------


def test_batches_files_and_the_clock_outlive_a_killed_server(tmp_path: Path) -> None:
    about: dict[str, Any] = {"state_dir": tmp_path / "state", "default": False}
    first = lmsyz.sandbox.start(faults=Faults(batch_s=100), **about)
    with openai.OpenAI(api_key="k", base_url=first.openai_base_url, max_retries=0) as client:
        batch = create(client, line("a"))
    first.advance(60)
    os.kill(first.pid, signal.SIGKILL)
    second = lmsyz.sandbox.start(faults=Faults(batch_s=5), **about)
    try:
        assert second.pid != first.pid
        with openai.OpenAI(api_key="k", base_url=second.openai_base_url, max_retries=0) as client:
            assert client.batches.retrieve(batch.id).status == "in_progress"
            second.advance(45)
            done = client.batches.retrieve(batch.id)
            assert done.status == "completed"
            assert client.files.content(done.output_file_id).content
    finally:
        second.stop()


def test_reset_forgets_batches_and_sets_the_clock_right(server: Any, gpt: Any) -> None:
    create(gpt, line("a"))
    server.advance(1000)
    assert len(server.batches()) == 1
    assert server.batches()[0]["custom_ids"] == ["a"]
    server.reset()
    assert server.batches() == []
    assert server.stats()["n_batches"] == 0
