"""The sandbox's message batches through the real SDK client: as strict as the real ones."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import anthropic
import pytest
from sandbox_batches import (
    PARAMS,
    requests,
    results_of,
)
from sandbox_http import ANTHROPIC, call, messages_body, row_schema, rows

DIGEST = row_schema({"digest": {"type": "string"}})


@pytest.fixture
def server(sandbox: Any) -> Any:
    """The sandbox, with batches that take a hundred seconds of a clock that only a test moves on."""
    sandbox.set_faults(batch_s=100)
    return sandbox


@pytest.fixture
def claude(server: Any) -> Iterator[anthropic.Anthropic]:
    with anthropic.Anthropic(api_key="k", base_url=server.anthropic_base_url, max_retries=0) as client:
        yield client


def test_an_anthropic_batch_counts_nothing_until_it_has_ended(server: Any, claude: Any) -> None:
    batch = claude.messages.batches.create(requests=requests("a", "b", "c"))
    assert (batch.expires_at - batch.created_at).total_seconds() == 86400
    server.advance(50)
    batch = claude.messages.batches.retrieve(batch.id)
    assert (batch.processing_status, batch.request_counts.processing, batch.results_url) == ("in_progress", 3, None)
    path = f"/v1/messages/batches/{batch.id}/results"
    assert call(server.url, "GET", path, None, ANTHROPIC).status == 404
    server.advance(50)
    batch = claude.messages.batches.retrieve(batch.id)
    assert (batch.processing_status, batch.request_counts.succeeded) == ("ended", 3)
    assert (batch.ended_at - batch.created_at).total_seconds() == pytest.approx(100)
    assert batch.results_url == server.url + path
    results = results_of(claude, batch)
    assert results.keys() == {"a", "b", "c"}
    assert results["a"].message.usage.service_tier == "batch"


@pytest.mark.parametrize(
    ("sent", "words"),
    [
        (requests("a", "b", "a"), "custom_ids must be unique"),
        (requests("a b"), r"requests.0.custom_id: String should match"),
        (requests("a", "x" * 65), r"requests.1.custom_id: String should match"),
        ([], "at least 1 item"),
        ([{"custom_id": "a"}], "requests.0.params: Field required"),
        ([{"custom_id": "a", "params": []}], "requests.0.params: Input should be a valid dictionary"),
        ([{"custom_id": "a", "params": {}, "url": "/"}], "requests.0.url: Extra inputs"),
        (["a"], "requests.0: Input should be a valid dictionary"),
    ],
)
def test_what_anthropic_refuses_at_once(server: Any, claude: Any, sent: list[Any], words: str) -> None:
    with pytest.raises(anthropic.BadRequestError, match=words):
        claude.messages.batches.create(requests=sent)
    assert server.batches() == []


@pytest.mark.parametrize(
    ("raw", "words"),
    [
        (b"", "not valid JSON"),
        (b"[]", "not valid JSON"),
        (b"{}", "requests: Field required"),
        (b'{"requests": {}}', "requests: Input should be a valid list"),
        (b'{"requests": [], "metadata": {}}', "metadata: Extra inputs"),
        (b'{"requests": [{"custom_id": "a", "params": {}}', "not valid JSON"),
        (b'{"requests": [{"custom_id": "a", "params": {}},]}', "not valid JSON"),
        (b'{"requests": [{"custom_id": "a", "params": {}}]} x', "not valid JSON"),
        (b'{"requests": ["\xff"]}', "not valid JSON"),
    ],
)
def test_a_broken_body_of_a_create_is_a_400(server: Any, raw: bytes, words: str) -> None:
    answered = call(server.url, "POST", "/v1/messages/batches", raw, ANTHROPIC | {"content-type": "application/json"})
    assert (answered.status, answered.error["type"]) == (400, "invalid_request_error")
    assert words in answered.error["message"]


def test_a_create_is_read_as_sent_however_it_is_spaced(server: Any, claude: Any) -> None:
    text = "é \u2028 \U0001f600 \n" * 100_000  # longer than a block is
    asked = [{"custom_id": f"r{i}", "params": messages_body(rows(text[:-i]), DIGEST)} for i in (1, 2, 3)]
    raw = json.dumps({"requests": asked}, indent=2, ensure_ascii=False).encode()
    answered = call(server.url, "POST", "/v1/messages/batches", raw, ANTHROPIC)
    assert answered.body["request_counts"]["processing"] == 3
    server.advance(100)
    live = [call(server.url, "POST", "/v1/messages", r["params"], ANTHROPIC).body["content"] for r in asked]
    results = results_of(claude, claude.messages.batches.retrieve(answered.body["id"]))
    assert [results[f"r{i}"].message.to_dict()["content"] for i in (1, 2, 3)] == live


def test_params_are_looked_at_only_when_an_anthropic_batch_runs(server: Any, claude: Any) -> None:
    sent = [
        *requests("good"),
        {"custom_id": "model", "params": PARAMS | {"model": "nope"}},
        {"custom_id": "temperature", "params": PARAMS | {"temperature": 0}},
        {"custom_id": "empty", "params": {}},
    ]
    batch = claude.messages.batches.create(requests=sent)
    with pytest.raises(anthropic.AnthropicError):
        claude.messages.batches.results(batch.id)
    older = claude.with_options(default_headers={"anthropic-version": "2023-06-01"})
    other = older.messages.batches.create(requests=sent)
    server.advance(100)
    results = results_of(claude, batch)
    assert {k: r.type for k, r in results.items()} == {
        "good": "succeeded",
        "model": "errored",
        "temperature": "errored",
        "empty": "errored",
    }
    errors = {k: r.error.error for k, r in results.items() if r.type == "errored"}
    assert errors["model"].type == "not_found_error"
    assert errors["temperature"].message == "temperature: Extra inputs are not permitted"
    assert errors["empty"].type == "invalid_request_error"
    assert results_of(claude, other)["temperature"].type == "succeeded"
    counts = claude.messages.batches.retrieve(batch.id).request_counts
    assert (counts.processing, counts.succeeded, counts.errored) == (0, 1, 3)


def test_anthropic_lists_page_by_page_in_both_directions(server: Any, claude: Any) -> None:
    ids = [claude.messages.batches.create(requests=requests("a")).id for _ in range(5)][::-1]
    batches = claude.messages.batches
    assert [b.id for b in batches.list(limit=2)] == ids
    page = batches.list(limit=2, after_id=ids[1])
    assert ([b.id for b in page.data], page.has_more) == (ids[2:4], True)
    assert (page.first_id, page.last_id) == (ids[2], ids[3])
    page = batches.list(limit=2, before_id=ids[3])
    assert ([b.id for b in page.data], page.has_more) == (ids[1:3], True)
    page = batches.list(limit=9, before_id=ids[3])
    assert ([b.id for b in page.data], page.has_more) == (ids[:3], False)
    for wrong in ({"limit": 1001}, {"limit": 0}, {"after_id": "x"}, {"after_id": ids[0], "before_id": ids[1]}):
        with pytest.raises(anthropic.BadRequestError):
            batches.list(**wrong)


def test_an_anthropic_batch_is_cancelled_ends_and_can_then_be_deleted(server: Any, claude: Any) -> None:
    batch = claude.messages.batches.create(requests=requests(*"abcdefghij"))
    with pytest.raises(anthropic.BadRequestError, match="has not ended"):
        claude.messages.batches.delete(batch.id)
    server.advance(30)
    for _ in range(2):
        batch = claude.messages.batches.cancel(batch.id)
        assert (batch.processing_status, batch.request_counts.processing) == ("canceling", 10)
        assert (batch.cancel_initiated_at is not None, batch.ended_at, batch.results_url) == (True, None, None)
    server.advance(10)
    batch = claude.messages.batches.retrieve(batch.id)
    counts = batch.request_counts
    assert (batch.processing_status, counts.succeeded, counts.canceled) == ("ended", 3, 7)
    assert sorted(r.type for r in results_of(claude, batch).values()) == ["canceled"] * 7 + ["succeeded"] * 3
    with pytest.raises(anthropic.BadRequestError, match="cannot be canceled"):
        claude.messages.batches.cancel(batch.id)
    assert claude.messages.batches.delete(batch.id).type == "message_batch_deleted"
    with pytest.raises(anthropic.NotFoundError):
        claude.messages.batches.retrieve(batch.id)


def test_results_are_archived_after_their_retention(server: Any, claude: Any) -> None:
    batch = claude.messages.batches.create(requests=requests("a"))
    server.advance(28 * 86400)
    batch = claude.messages.batches.retrieve(batch.id)
    assert (batch.archived_at, list(results_of(claude, batch))) == (None, ["a"])
    server.advance(86400)
    batch = claude.messages.batches.retrieve(batch.id)
    assert (batch.archived_at is not None, batch.results_url) == (True, None)
    path = f"/v1/messages/batches/{batch.id}/results"
    assert call(server.url, "GET", path, None, ANTHROPIC).status == 404
