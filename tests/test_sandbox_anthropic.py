"""Anthropic's endpoints as the sandbox speaks them: through the real SDK and over plain HTTP."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import anthropic
import pytest
from sandbox_http import ANTHROPIC, MESSAGES, ask_messages, call, messages_body, row_schema, rows

HAPPY, SAD = "We love it, a great success.", "A terrible loss."
TOOL = {"name": "rows", "description": "Give the rows.", "input_schema": row_schema()}
REASONING = {"model": "sandbox-rules-reasoning"}
NEW = ANTHROPIC | {"anthropic-version": "2026-10-21"}


@pytest.fixture
def client(sandbox: Any) -> Iterator[anthropic.Anthropic]:
    with anthropic.Anthropic(api_key="any", base_url=sandbox.anthropic_base_url, max_retries=0) as made:
        yield made


def tones(answer: Any) -> list[tuple[str, str]]:
    found = json.loads(answer) if isinstance(answer, str) else answer
    return [(r["input_id"], r["tone"]) for r in found["all_results"]]


def test_messages_answers_rows_in_the_schema(client: anthropic.Anthropic) -> None:
    reply = client.messages.create(**messages_body(rows(HAPPY, SAD), row_schema()))
    assert [b.type for b in reply.content] == ["text"]
    assert tones(reply.content[0].text) == [("r0", "positive"), ("r1", "negative")]  # type: ignore[union-attr]
    assert (reply.stop_reason, reply.stop_details, reply.role, reply.type) == ("end_turn", None, "assistant", "message")
    assert (reply.model, reply.id[:11]) == ("sandbox-rules", "msg_sandbox")
    assert reply.usage.input_tokens > 0 < reply.usage.output_tokens
    assert reply.usage.service_tier == "standard"


@pytest.mark.parametrize("choice", [{"type": "tool", "name": "rows"}, {"type": "any"}, {"type": "auto"}, None])
def test_messages_answers_a_tool_by_its_input(client: anthropic.Anthropic, choice: Any) -> None:
    more = {"tool_choice": choice} if choice else {}
    reply = client.messages.create(**messages_body(rows(HAPPY), tools=[TOOL], **more))
    block = reply.content[-1]
    assert block.type == "tool_use"
    assert (block.name, block.id[:13]) == ("rows", "toolu_sandbox")
    assert tones(block.input) == [("r0", "positive")]
    assert reply.stop_reason == "tool_use"


def test_no_tool_is_called_where_the_choice_is_none(client: anthropic.Anthropic) -> None:
    reply = client.messages.create(**messages_body(rows(HAPPY), tools=[TOOL], tool_choice={"type": "none"}))
    assert reply.content[0].type == "text"


def test_without_a_form_the_prompts_example_names_the_fields(client: anthropic.Anthropic) -> None:
    system = [{"type": "text", "text": json.dumps({"all_results": [{"input_id": "", "tone": "positive|negative"}]})}]
    reply = client.messages.create(**messages_body(rows(SAD), system=system))
    assert tones(reply.content[0].text) == [("r0", "negative")]  # type: ignore[union-attr]


def test_a_small_limit_cuts_the_reply_and_says_so(client: anthropic.Anthropic) -> None:
    reply = client.messages.create(**messages_body(rows(HAPPY, SAD), row_schema(), max_tokens=12))
    assert (reply.stop_reason, reply.usage.output_tokens <= 12) == ("max_tokens", True)
    nothing = client.messages.create(**messages_body(rows(HAPPY), row_schema(), max_tokens=0))
    assert (nothing.stop_reason, nothing.content) == ("max_tokens", [])


def test_a_tool_that_is_cut_holds_the_rows_that_are_whole(client: anthropic.Anthropic) -> None:
    tool = {"tools": [TOOL], "tool_choice": {"type": "tool", "name": "rows"}}
    reply = client.messages.create(**messages_body(rows(HAPPY, SAD), **tool, max_tokens=30))
    assert reply.stop_reason == "max_tokens"
    assert tones(reply.content[0].input) == [("r0", "positive")]  # type: ignore[union-attr]


def test_thinking_comes_before_the_text_and_counts_as_output(client: anthropic.Anthropic) -> None:
    reply = client.messages.create(**messages_body(rows(HAPPY), row_schema(), **REASONING))
    assert [b.type for b in reply.content] == ["thinking", "text"]
    assert reply.usage.output_tokens_details is not None
    assert reply.usage.output_tokens_details.thinking_tokens == 64 < reply.usage.output_tokens
    off = messages_body(rows(HAPPY), row_schema(), thinking={"type": "disabled"}, **REASONING)
    assert [b.type for b in client.messages.create(**off).content] == ["text"]


def test_a_marked_system_block_is_written_to_the_cache_and_then_read(client: anthropic.Anthropic) -> None:
    system = [{"type": "text", "text": "Judge it. " * 500, "cache_control": {"type": "ephemeral"}}]
    first = client.messages.create(**messages_body(rows(HAPPY), row_schema(), system=system)).usage
    second = client.messages.create(**messages_body(rows(HAPPY), row_schema(), system=system)).usage
    assert (first.cache_creation_input_tokens, first.cache_read_input_tokens) == (1250, 0)
    assert (second.cache_creation_input_tokens, second.cache_read_input_tokens) == (0, 1250)
    assert first.input_tokens == second.input_tokens
    unmarked = client.messages.create(**messages_body(rows(HAPPY), row_schema(), system="Judge it. " * 500)).usage
    assert unmarked.input_tokens == first.input_tokens + 1250


def test_stop_sequences_end_the_reply_and_are_named(client: anthropic.Anthropic) -> None:
    reply = client.messages.create(**messages_body(rows(HAPPY), row_schema(), stop_sequences=["zzz", "tone"]))
    assert (reply.stop_reason, reply.stop_sequence) == ("stop_sequence", "tone")


def test_a_demand_that_no_rule_can_meet_is_refused_not_guessed(client: anthropic.Anthropic) -> None:
    one = {"type": "object", "properties": {"zodiac": {"type": "string"}}, "required": ["zodiac"]}
    reply = client.messages.create(**messages_body(HAPPY, one | {"additionalProperties": False}))
    assert (reply.stop_reason, reply.content) == ("refusal", [])
    assert reply.stop_details is not None
    assert "rules" in (reply.stop_details.explanation or "")


def test_a_reply_goes_on_from_a_prefill_on_models_that_take_one(sandbox: Any) -> None:
    messages = [{"role": "user", "content": rows(HAPPY)}, {"role": "assistant", "content": '{"all_results":['}]
    answered = ask_messages(sandbox.url, schema=row_schema(), messages=messages)
    assert answered.body["content"][0]["text"].startswith('{"input_id":"r0"')
    refused = ask_messages(sandbox.url, messages=messages, **REASONING)
    assert (refused.status, "prefill" in refused.error["message"]) == (400, True)


def test_models_are_listed_and_found_with_what_they_can_do(client: anthropic.Anthropic) -> None:
    names = ["sandbox-rules", "sandbox-rules-mini", "sandbox-rules-reasoning"]
    assert [m.id for m in client.models.list()][:3] == names
    found = client.models.retrieve("sandbox-rules")
    assert found.capabilities is not None
    assert found.capabilities.structured_outputs.supported
    assert (found.max_tokens, found.lifecycle) == (128_000, "active")
    assert "not a language model" in found.display_name
    with pytest.raises(anthropic.NotFoundError, match="sandbox-rules-mini"):
        client.models.retrieve("claude-haiku-5-5")


def test_tokens_are_counted_without_an_answer(client: anthropic.Anthropic, sandbox: Any) -> None:
    body = messages_body(rows(HAPPY), row_schema())
    del body["max_tokens"]
    counted = client.messages.count_tokens(**body).input_tokens
    assert counted == client.messages.create(**body, max_tokens=500).usage.input_tokens
    assert sandbox.stats()["n_rows"] == 1
    with pytest.raises(anthropic.BadRequestError, match="Extra inputs are not permitted"):
        client.messages.count_tokens(**body, extra_body={"max_tokens": 5})


def test_headers_are_anthropics_own(sandbox: Any) -> None:
    headers = ask_messages(sandbox.url).headers
    assert headers["request-id"].startswith("req_sandbox")
    for name in ("requests", "tokens", "input-tokens", "output-tokens"):
        limit, left = (int(headers[f"anthropic-ratelimit-{name}-{what}"]) for what in ("limit", "remaining"))
        assert 0 < left < limit
        assert headers[f"anthropic-ratelimit-{name}-reset"].endswith("Z")


def test_errors_are_in_anthropics_shape_with_the_request_id(sandbox: Any) -> None:
    answered = ask_messages(sandbox.url, model="claude-haiku-5-5")
    assert answered.status == 404
    assert answered.body["type"] == "error"
    assert answered.body["request_id"] == answered.headers["request-id"]
    assert answered.error["type"] == "not_found_error"
    assert "model: claude-haiku-5-5 (the sandbox has sandbox-rules" in answered.error["message"]


@pytest.mark.parametrize("path", [MESSAGES, "/v1/messages/count_tokens", "/v1/models"])
@pytest.mark.parametrize(
    ("headers", "status", "words"),
    [
        ({"anthropic-version": "2023-06-01"}, 401, "x-api-key header is required"),
        (ANTHROPIC | {"x-api-key": "sk-ant-invalid"}, 401, "invalid x-api-key"),
        ({"authorization": "Bearer invalid", "anthropic-version": "2023-06-01"}, 401, "invalid x-api-key"),
        ({"x-api-key": "any"}, 400, "anthropic-version: header is required"),
        (ANTHROPIC | {"anthropic-version": "2020-01-01"}, 400, "not a valid version"),
    ],
)
def test_keys_and_versions_are_checked(sandbox: Any, path: str, headers: Any, status: int, words: str) -> None:
    method = "GET" if path == "/v1/models" else "POST"
    answered = call(sandbox.url, method, path, messages_body() if method == "POST" else None, headers)
    assert answered.status == status
    assert words in answered.error["message"]


def test_the_key_may_come_as_a_bearer_token(sandbox: Any) -> None:
    headers = {"authorization": "Bearer any", "anthropic-version": "2026-10-21"}
    assert call(sandbox.url, "POST", MESSAGES, messages_body(), headers).status == 200


USER = {"role": "user", "content": "x"}


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"foo": 1}, "foo: Extra inputs are not permitted"),
        ({"response_format": {}}, "response_format: Extra inputs are not permitted"),
        ({"max_tokens": None}, "max_tokens: Input should be a valid integer"),
        ({"max_tokens": -1}, "max_tokens: Input should be greater than or equal to 0"),
        ({"max_tokens": 200_000}, "max_tokens: 200000 > 128000"),
        ({"model": 5}, "model: Input should be a valid string"),
        ({"messages": []}, "messages: List should have at least 1 items"),
        ({"messages": [{"role": "user"}]}, "messages.0.content: Field required"),
        ({"messages": [USER | {"role": "robot"}]}, "messages.0.role: Input should be 'user', 'assistant' or 'system'"),
        ({"messages": [USER | {"name": "x"}]}, "messages.0.name: Extra inputs are not permitted"),
        ({"messages": [USER | {"content": ""}]}, "messages.0: all messages must have non-empty content"),
        ({"messages": [USER | {"content": [{"type": "text", "text": " "}]}]}, "text content blocks must be non-empty"),
        (
            {"messages": [USER | {"content": [{"type": "image", "source": {}}]}]},
            "messages.0.content.0.source.type: Field required",
        ),
        ({"messages": [USER, {"role": "assistant", "content": "a "}]}, "trailing whitespace"),
        ({"system": [{"type": "text", "text": "x", "ttl": 1}]}, "system.0.ttl: Extra inputs"),
        ({"system": [{"type": "text", "text": "x", "cache_control": {"type": "x"}}]}, "Input should be 'ephemeral'"),
        ({"stream": True}, "does not stream"),
        ({"thinking": {"type": "enabled", "budget_tokens": 5}}, "greater than or equal to 1024"),
        ({"output_config": {"effort": "huge"}}, "output_config.effort: Input should be 'low', 'medium'"),
        ({"output_config": {"format": {"type": "json_schema"}}}, "output_config.format.schema: Field required"),
        (
            {"output_config": {"format": {"type": "json_schema", "schema": {"type": "object", "properties": {}}}}},
            "output_config.format.schema: For 'object' type, 'additionalProperties' must be explicitly set to false",
        ),
        ({"tool_choice": {"type": "any"}}, "tool_choice may only be specified while providing tools"),
        ({"tools": [TOOL], "tool_choice": {"type": "tool", "name": "other"}}, "Tool 'other' not found"),
        ({"tools": [TOOL], "tool_choice": {"type": "tool"}}, "tool_choice.name: Field required"),
        ({"tools": [{"name": "a b", "input_schema": {}}]}, "tools.0.name: String should match pattern"),
        ({"tools": [{"name": "ab"}]}, "tools.0.input_schema: Field required"),
        ({"tools": [{"name": "ab", "input_schema": {"type": "array"}}]}, "Input should be 'object'"),
        ({"tools": [{"name": "ab", "input_schema": {"type": "what"}}]}, "tools.0.custom.input_schema"),
        (
            {"tools": [{"name": "ab", "strict": True, "input_schema": {"type": "object"}}]},
            "'additionalProperties' must be explicitly set to false",
        ),
    ],
)
def test_a_request_that_the_api_refuses_is_refused_in_its_words(
    sandbox: Any, change: dict[str, Any], words: str
) -> None:
    answered = ask_messages(sandbox.url, **change)
    assert answered.status == 400, answered.body
    assert answered.error["type"] == "invalid_request_error"
    assert words in answered.error["message"]


def test_max_tokens_is_required(sandbox: Any) -> None:
    body = messages_body()
    del body["max_tokens"]
    answered = call(sandbox.url, "POST", MESSAGES, body, ANTHROPIC)
    assert (answered.status, answered.error["message"]) == (400, "max_tokens: Field required")


@pytest.mark.parametrize("name", ["temperature", "top_p", "top_k"])
def test_sampling_is_refused_by_the_new_version_and_by_the_reasoning_model(sandbox: Any, name: str) -> None:
    body = messages_body(**{name: 1})
    assert call(sandbox.url, "POST", MESSAGES, body, ANTHROPIC).status == 200
    new = call(sandbox.url, "POST", MESSAGES, body, NEW)
    assert (new.status, new.error["message"]) == (400, f"{name}: Extra inputs are not permitted")
    reasoning = call(sandbox.url, "POST", MESSAGES, body | REASONING, ANTHROPIC)
    assert (reasoning.status, f"`{name}`" in reasoning.error["message"]) == (400, True)
    too_much = call(sandbox.url, "POST", MESSAGES, messages_body(**{name: -1}), ANTHROPIC)
    assert f"{name}: Input should be greater than or equal to 0" in too_much.error["message"]


@pytest.mark.parametrize("choice", [{"type": "tool", "name": "rows"}, {"type": "any"}])
def test_the_reasoning_model_refuses_a_forced_tool(sandbox: Any, choice: dict[str, str]) -> None:
    answered = ask_messages(sandbox.url, tools=[TOOL], tool_choice=choice, **REASONING)
    assert answered.status == 400
    assert answered.error["message"].startswith("tool_choice:")
    assert ask_messages(sandbox.url, rows(HAPPY), tools=[TOOL], **REASONING).body["stop_reason"] == "tool_use"


def test_a_body_that_is_no_json_object_or_too_large_is_refused(sandbox: Any) -> None:
    for raw in (b"{", b"[]", b""):
        assert call(sandbox.url, "POST", MESSAGES, raw, ANTHROPIC).status == 400
    large = call(sandbox.url, "POST", MESSAGES, b" " * (32 * 1024 * 1024 + 1), ANTHROPIC)
    assert (large.status, large.error["type"]) == (413, "request_too_large")


def test_wrong_paths_and_methods_are_404_and_405(sandbox: Any) -> None:
    missing = call(sandbox.url, "POST", "/v1/message", {}, ANTHROPIC)
    assert (missing.status, missing.error["type"]) == (404, "not_found_error")
    wrong = call(sandbox.url, "GET", MESSAGES, None, ANTHROPIC)
    assert (wrong.status, wrong.body["type"]) == (405, "error")
