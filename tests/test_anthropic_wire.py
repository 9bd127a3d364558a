"""Anthropic's wire: the bodies that are built, the replies that are read, and what its errors mean."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest
from scripted_server import MESSAGES_REPLY, ScriptedServer, Step, provider_at, scripted, task_of

from lmsyz.alignment import salvage_results
from lmsyz.errors import (
    BlockedError,
    ProviderError,
    RateLimitError,
    RejectedError,
    RequestError,
    TooLongError,
    UnavailableError,
    UnsupportedFormError,
    UsageError,
)
from lmsyz.providers import wire
from lmsyz.providers.base import Call, Form, Reply, Stop, Usage
from lmsyz.schema_render import render

SCHEMA = {"tone": ["good", "bad"]}
MODEL = "claude-haiku-5-5"
MESSAGES = wire("anthropic", api="messages", model=MODEL)


def body_of(form: Form = Form.TEXT, *, model: str = MODEL, quirks: dict[str, Any] | None = None, **options: Any) -> Any:
    task = task_of("anthropic", schema=SCHEMA, model=model, **options)
    return wire("anthropic", api="messages", model=model, quirks=quirks).build(task, "rows", form)


def envelope() -> dict[str, Any]:
    return render(task_of("anthropic", schema=SCHEMA).schema, "anthropic")


# --- building -------------------------------------------------------------------------------------------------------


def test_a_request_caches_the_system_block_and_asks_by_output_config() -> None:
    task = task_of("anthropic", schema=SCHEMA)
    assert MESSAGES.build(task, "rows", Form.SCHEMA) == {
        "model": MODEL,
        "max_tokens": 16_384,
        "system": [{"type": "text", "text": task.system, "cache_control": {"type": "ephemeral"}}],
        "messages": [{"role": "user", "content": "rows"}],
        "output_config": {"format": {"type": "json_schema", "schema": envelope()}},
    }


def test_a_forced_tool_asks_for_one_call() -> None:
    body = body_of(Form.TOOL)
    assert [tool["input_schema"] for tool in body["tools"]] == [envelope()]
    assert body["tool_choice"] == {"type": "tool", "name": "rows", "disable_parallel_tool_use": True}
    assert "output_config" not in body


def test_plain_text_sends_no_form_and_no_sampling() -> None:
    assert set(body_of(Form.TEXT)) == {"model", "max_tokens", "system", "messages"}


def test_a_users_effort_and_the_schema_share_output_config() -> None:
    body = body_of(Form.SCHEMA, output_config={"effort": "low"})
    assert body["output_config"]["effort"] == "low"
    assert body["output_config"]["format"]["schema"] == envelope()
    assert body_of(Form.TEXT, output_config={"effort": "low"})["output_config"] == {"effort": "low"}


def test_building_is_pure_and_repeatable() -> None:
    task = task_of("anthropic", schema=SCHEMA, max_tokens=5, output_config={"effort": "low"})
    bodies = [json.dumps(MESSAGES.build(task, "rows", form)) for form in Form for _ in range(2)]
    assert bodies[::2] == bodies[1::2]
    assert task.options == {"max_tokens": 5, "output_config": {"effort": "low"}}


def test_the_prompt_cache_can_be_switched_off() -> None:
    assert "cache_control" not in body_of(quirks={"prompt_cache": False})["system"][0]


@pytest.mark.parametrize(
    ("model", "forms"),
    [
        ("claude-haiku-5-5", (Form.SCHEMA, Form.TEXT)),
        ("claude-sonnet-4-6", (Form.SCHEMA, Form.TOOL, Form.TEXT)),
        ("us.anthropic.claude-opus-4-1-20250805-v1:0", (Form.TOOL, Form.TEXT)),
        ("claude-3-5-haiku-20241022", (Form.TOOL, Form.TEXT)),
    ],
)
def test_a_model_is_asked_in_the_ways_that_it_takes(model: str, forms: tuple[Form, ...]) -> None:
    provider = wire("anthropic", api="messages", model=model)
    assert provider.forms(task_of("anthropic", schema=SCHEMA)) == forms
    assert provider.forms(task_of("anthropic")) == (Form.TEXT,)


def test_the_output_limit_is_the_users_or_what_the_model_can_write() -> None:
    assert body_of(max_tokens=100)["max_tokens"] == 100
    assert body_of(model="claude-3-haiku")["max_tokens"] == 4_096
    assert body_of(quirks={"max_output": 1_000})["max_tokens"] == 1_000
    assert body_of(quirks={"max_tokens": 2_000})["max_tokens"] == 2_000


def test_more_than_a_model_can_write_is_refused_before_it_is_sent() -> None:
    with pytest.raises(UsageError, match=r"max_tokens=128001 is more than claude-haiku-5-5 can write"):
        body_of(max_tokens=128_001)
    assert body_of(max_tokens=128_001, quirks={"max_output": 0})["max_tokens"] == 128_001


@pytest.mark.parametrize(
    ("quirks", "message"),
    [
        ({"max_token": 5}, r"unknown quirks \['max_token'\]"),
        ({"schema": 1}, "'schema' is of type bool"),
        ([1], "takes a dict"),
    ],
)
def test_a_quirk_that_there_is_not_is_refused(quirks: Any, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        wire("anthropic", api="messages", model=MODEL, quirks=quirks)


# --- reading --------------------------------------------------------------------------------------------------------


def read(*content: dict[str, Any], reason: str | None = "end_turn", **more: Any) -> Reply:
    return MESSAGES.parse(json.dumps({**MESSAGES_REPLY, "content": content, "stop_reason": reason, **more}))


def text(words: str) -> dict[str, Any]:
    return {"type": "text", "text": words}


def test_a_reply_is_read_past_its_thinking() -> None:
    reply = read({"type": "thinking", "thinking": "hm {}", "signature": "x"}, text('{"a"'), text(":1}"))
    assert (reply.text, reply.stop, reply.model) == ('{"a":1}', Stop.COMPLETE, MODEL)


def test_a_tools_input_is_read_as_json_text() -> None:
    reply = read(
        text("Here:"), {"type": "tool_use", "name": "rows", "input": {"all_results": ["ä"]}}, reason="tool_use"
    )
    assert reply.text == '{"all_results": ["ä"]}'
    assert reply.stop is Stop.COMPLETE


def test_a_tool_call_that_was_cut_is_not_read_as_whole() -> None:
    # The API closes what it cut: the last row may be half of itself, and look like any other.
    rows = [{"input_id": "1", "said": "all of it}"}, {"input_id": "2", "said": "half of"}]
    for results, whole in ((rows, rows[:1]), (rows[:1], []), ([], [])):
        reply = read({"type": "tool_use", "name": "rows", "input": {"all_results": results}}, reason="max_tokens")
        assert reply.stop is Stop.TRUNCATED
        assert salvage_results(reply.text) == whole
    assert salvage_results(read({"type": "tool_use", "name": "rows", "input": {}}, reason="max_tokens").text) == []


def test_cached_input_is_counted_in_as_openai_does() -> None:
    usage = {
        "input_tokens": 10,
        "cache_read_input_tokens": 400,
        "cache_creation_input_tokens": 50,
        "cache_creation": {"ephemeral_5m_input_tokens": 20, "ephemeral_1h_input_tokens": 30},
        "output_tokens": 7,
        "output_tokens_details": {"thinking_tokens": 3},
        "service_tier": "standard",
    }
    assert read(text("{}"), usage=usage).usage == Usage(
        input_tokens=460,
        output_tokens=7,
        cached_tokens=400,
        cache_write_tokens=50,
        cache_write_1h_tokens=30,
        reasoning_tokens=3,
        service_tier="standard",
    )
    assert read(text("{}"), usage=None).usage == Usage()


@pytest.mark.parametrize(
    ("reason", "stop"),
    [
        ("end_turn", Stop.COMPLETE),
        ("stop_sequence", Stop.COMPLETE),
        ("pause_turn", Stop.COMPLETE),
        ("one_still_to_come", Stop.COMPLETE),
        ("max_tokens", Stop.TRUNCATED),
        ("model_context_window_exceeded", Stop.TRUNCATED),
    ],
)
def test_why_a_reply_ended_is_told_apart(reason: str, stop: Stop) -> None:
    assert read(text("{}"), reason=reason).stop is stop


@pytest.mark.parametrize("content", [[], None])
def test_a_refusal_is_a_refusal_also_without_content(content: object) -> None:
    details = {"category": "cyber", "explanation": "Not this."}
    payload = {**MESSAGES_REPLY, "content": content, "stop_reason": "refusal", "stop_details": details}
    reply = MESSAGES.parse(json.dumps(payload))
    assert (reply.stop, reply.detail, reply.text) == (Stop.REFUSED, "Not this.", "")


@pytest.mark.parametrize(
    ("kind_on_the_wire", "kind"),
    [
        ("overloaded_error", RateLimitError),
        ("rate_limit_error", RateLimitError),
        ("api_error", UnavailableError),
        ("authentication_error", RejectedError),
        ("billing_error", RejectedError),
        ("request_too_large", TooLongError),
        ("invalid_request_error", RequestError),
        ("one_still_to_come", UnavailableError),
    ],
)
def test_an_error_inside_a_200_is_the_error_that_it_is(kind_on_the_wire: str, kind: type[ProviderError]) -> None:
    error = {"type": kind_on_the_wire, "message": "what happened"}
    with pytest.raises(kind, match="what happened") as caught:
        MESSAGES.parse(json.dumps({"type": "error", "error": error}))
    assert type(caught.value) is kind


# --- errors over the wire -------------------------------------------------------------------------------------------


def error(status: int, kind: str, message: str = "what happened", **fields: Any) -> Step:
    body = {"type": "error", "error": {"type": kind, "message": message, **fields}, "request_id": "req_body"}
    return Step(status=status, body=body, headers={"request-id": "req_1"})


BAD = "invalid_request_error"
ERRORS = [
    (error(400, BAD, "messages: at least one message is required"), RequestError, "at least one"),
    (error(400, BAD, "prompt is too long: 210000 tokens > 200000 maximum"), TooLongError, "too long"),
    (error(400, BAD, "input length and `max_tokens` exceed context limit: 1 + 2 > 3"), TooLongError, "context limit"),
    (error(413, "request_too_large", "Request exceeds the maximum size"), TooLongError, "maximum size"),
    (error(400, BAD, "Output blocked by content filtering policy"), BlockedError, "filtering"),
    (error(400, BAD, "output_config.format.schema: too many optional"), UnsupportedFormError, "output_config"),
    (error(400, BAD, "The compiled grammar is too large"), UnsupportedFormError, "grammar"),
    (error(400, BAD, "tool_choice: forced tool use is not supported"), UnsupportedFormError, "tool_choice"),
    (error(400, BAD, "`temperature` is not supported"), RejectedError, "leave it out.*anthropic-version"),
    (error(400, BAD, "max_tokens: 200000 > 64000, the maximum for this model"), RejectedError, "64000"),
    (error(400, BAD, "foo: Extra inputs are not permitted"), RejectedError, "Extra inputs"),
    (error(400, BAD, "Your credit balance is too low"), RejectedError, "credit balance"),
    (error(401, "authentication_error", "invalid x-api-key"), RejectedError, "key was not accepted"),
    (error(402, "billing_error"), RejectedError, "no credit"),
    (error(403, "permission_error"), RejectedError, "may not do that"),
    (error(404, "not_found_error", "model: claude-none"), RejectedError, "claude-none.*check model="),
    (Step(status=404, body={"detail": "Not Found"}), RejectedError, "Not Found.*has no /v1"),
    (error(429, "rate_limit_error"), RateLimitError, "what happened"),
    (error(429, "rate_limit_error", details={"error_code": "ramp_limit_exceeded"}), RateLimitError, "happened"),
    (error(429, "rate_limit_error", details={"error_code": "enforced_spend_limit_reached"}), RejectedError, "spend"),
    (error(429, "rate_limit_error", details={"error_code": "contract_spend_limit_reached"}), RejectedError, "spend"),
    (error(408, "timeout_error"), UnavailableError, "happened"),
    (error(500, "api_error"), UnavailableError, "happened"),
    (error(504, "timeout_error"), UnavailableError, "happened"),
    (error(529, "overloaded_error"), RateLimitError, "happened"),
    (Step(status=503, body=b"<!DOCTYPE html><html><title>Just a moment</title>"), UnavailableError, "Just a moment"),
    (Step(status=500, body=b"null"), UnavailableError, "answered 500"),
    (Step(status=500, body=[1, 2]), UnavailableError, "answered 500"),
    (Step(status=429, body=b""), RateLimitError, "answered 429"),
]


@pytest.fixture(scope="module")
def station() -> Iterator[tuple[ScriptedServer, Any]]:
    with scripted({}) as server, provider_at(server, "anthropic") as provider:
        yield server, provider


@pytest.mark.parametrize(("step", "kind", "words"), ERRORS)
def test_each_error_of_the_api_has_its_own_meaning(
    station: tuple[ScriptedServer, Any], step: Step, kind: type[ProviderError], words: str
) -> None:
    server, provider = station
    server.play(step)
    with pytest.raises(ProviderError, match=words) as caught:
        provider.send(body_of(), Call())
    assert type(caught.value) is kind
    assert caught.value.status == step.status


def test_an_error_keeps_its_code_its_request_id_and_the_wait_that_is_asked_for(
    station: tuple[ScriptedServer, Any],
) -> None:
    server, provider = station
    step = error(429, "rate_limit_error", details={"error_code": "ramp_limit_exceeded"})
    step.headers["retry-after"] = "17"
    server.play(step)
    with pytest.raises(RateLimitError) as caught:
        provider.send(body_of(), Call())
    assert (caught.value.code, caught.value.request_id) == ("ramp_limit_exceeded", "req_1")
    assert caught.value.retry_after == 17
