"""OpenAI's wire: the bodies that are built, the replies that are read, and what its errors mean."""

from __future__ import annotations

import json
from typing import Any

import pytest
from scripted_server import CHAT_REPLY, task_of

from lmsyz.errors import (
    BlockedError,
    ProviderError,
    RateLimitError,
    RejectedError,
    RequestError,
    UnavailableError,
    UsageError,
)
from lmsyz.providers import wire
from lmsyz.providers.base import Form, Reply, Stop, Usage
from lmsyz.schema_render import render

SCHEMA = {"tone": ["good", "bad"]}
CHAT = wire("openai", api="chat", model="gpt-6-luna")
RESPONSES = wire("openai", api="responses", model="gpt-6-luna")


def chat_body(form: Form = Form.OBJECT, *, quirks: dict[str, Any] | None = None, **options: Any) -> dict[str, Any]:
    model = options.pop("model", "gpt-6-luna")
    task = task_of("openai", schema=SCHEMA, model=model, **options)
    return wire("openai", api="chat", model=model, quirks=quirks).build(task, "rows", form)


def responses_body(form: Form, **options: Any) -> dict[str, Any]:
    return RESPONSES.build(task_of("openai", api="responses", schema=SCHEMA, **options), "rows", form)


def envelope() -> dict[str, Any]:
    return render(task_of("openai", schema=SCHEMA).schema, "openai")


# --- building: chat -------------------------------------------------------------------------------------------------


def test_a_chat_request_holds_model_messages_and_form_and_nothing_else() -> None:
    task = task_of("openai", schema=SCHEMA)
    body = CHAT.build(task, "rows", Form.SCHEMA)
    assert body == {
        "model": "gpt-6-luna",
        "messages": [{"role": "system", "content": task.system}, {"role": "user", "content": "rows"}],
        "response_format": {
            "type": "json_schema",
            "json_schema": {"name": "rows", "strict": True, "schema": envelope()},
        },
    }


def test_each_form_asks_in_its_own_way() -> None:
    tool = chat_body(Form.TOOL)
    assert tool["tools"] == [
        {"type": "function", "function": {"name": "rows", "strict": True, "parameters": envelope()}}
    ]
    assert tool["tool_choice"] == {"type": "function", "function": {"name": "rows"}}
    assert chat_body(Form.OBJECT)["response_format"] == {"type": "json_object"}
    assert set(chat_body(Form.TEXT)) == {"model", "messages"}


def test_building_is_pure_and_repeatable() -> None:
    task = task_of("openai", schema=SCHEMA, max_tokens=5, extra_body={"a": 1})
    bodies = [json.dumps(CHAT.build(task, "rows", form)) for form in Form for _ in range(2)]
    assert bodies[::2] == bodies[1::2]
    assert task.options == {"max_tokens": 5, "extra_body": {"a": 1}}


def test_options_go_into_the_body_as_they_are_and_what_belongs_beside_it_does_not() -> None:
    body = chat_body(
        temperature=0,
        reasoning_effort="low",
        extra_body={"top_k": 3},
        extra_headers={"a": "b"},
        timeout=3,
        extra_query={},
    )
    added = {k: v for k, v in body.items() if k not in ("model", "messages", "response_format")}
    assert added == {"temperature": 0, "reasoning_effort": "low", "top_k": 3}


@pytest.mark.parametrize(
    ("model", "name"),
    [("gpt-6-luna", "max_completion_tokens"), ("openai/o3-mini", "max_completion_tokens"), ("llama3", "max_tokens")],
)
def test_the_output_limit_goes_by_the_name_that_the_model_knows(model: str, name: str) -> None:
    assert chat_body(model=model, max_tokens=9)[name] == 9
    assert chat_body(model=model, max_tokens=9, quirks={"max_tokens_name": "limit"})["limit"] == 9


@pytest.mark.parametrize("name", ["max_tokens", "max_completion_tokens"])
def test_more_than_a_model_can_write_is_refused_before_it_is_sent(name: str) -> None:
    with pytest.raises(UsageError, match=rf"{name}=128001 is more than gpt-6-luna can write; the most is 128000"):
        chat_body(**{name: 128_001})
    with pytest.raises(UsageError, match="128001"):
        chat_body(extra_body={name: 128_001})
    assert chat_body(**{name: 128_001}, quirks={"max_output": 0})["max_completion_tokens"] == 128_001
    assert chat_body(**{name: 10**9}, model="unheard-of")[name] == 10**9


@pytest.mark.parametrize("limit", [0, -5, 1.5, "100", True])
def test_an_output_limit_that_is_none_is_refused(limit: object) -> None:
    with pytest.raises(UsageError, match="max_tokens= is a whole number"):
        chat_body(max_tokens=limit)


def test_the_forms_are_tried_from_the_strictest_down_and_a_quirk_leaves_some_out() -> None:
    task = task_of("openai", schema=SCHEMA)
    assert CHAT.forms(task) == (Form.SCHEMA, Form.TOOL, Form.OBJECT, Form.TEXT)
    assert CHAT.forms(task_of("openai")) == (Form.OBJECT, Form.TEXT)
    assert RESPONSES.forms(task) == (Form.SCHEMA, Form.OBJECT, Form.TEXT)
    plain = wire("openai", api="chat", model="m", quirks={"schema": False})
    assert plain.forms(task) == (Form.OBJECT, Form.TEXT)
    toolless = wire("openai", api="chat", model="m", quirks={"forced_tool": False})
    assert toolless.forms(task) == (Form.SCHEMA, Form.OBJECT, Form.TEXT)


# --- building: responses --------------------------------------------------------------------------------------------


def test_a_response_is_not_stored_at_the_provider_unless_asked_for() -> None:
    body = responses_body(Form.TEXT)
    assert set(body) == {"model", "instructions", "input", "store"}
    assert body["store"] is False
    assert responses_body(Form.TEXT, store=True)["store"] is True


def test_the_responses_api_gets_the_schema_as_its_text_format() -> None:
    body = responses_body(Form.SCHEMA, text={"verbosity": "low"})
    assert body["text"] == {
        "format": {"type": "json_schema", "name": "rows", "strict": True, "schema": envelope()},
        "verbosity": "low",
    }


def test_json_object_in_the_responses_api_names_json_in_the_input_itself() -> None:
    body = responses_body(Form.OBJECT)
    assert body["text"] == {"format": {"type": "json_object"}}
    assert body["input"] == [{"role": "system", "content": "Answer in JSON."}, {"role": "user", "content": "rows"}]


def test_chat_names_are_translated_for_the_responses_api() -> None:
    body = responses_body(Form.TEXT, max_tokens=7, reasoning_effort="low", verbosity="high")
    assert body["max_output_tokens"] == 7
    assert body["reasoning"] == {"effort": "low"}
    assert body["text"] == {"verbosity": "high"}
    assert not {"max_tokens", "reasoning_effort", "verbosity"} & set(body)
    both = responses_body(Form.TEXT, reasoning_effort="low", reasoning={"summary": "auto"})
    assert both["reasoning"] == {"effort": "low", "summary": "auto"}


# --- reading: chat --------------------------------------------------------------------------------------------------


def read_chat(message: dict[str, Any], reason: str | None = "stop", **more: Any) -> Reply:
    choice = {"index": 0, "finish_reason": reason, "message": {"role": "assistant", **message}}
    return CHAT.parse(json.dumps({**CHAT_REPLY, "choices": [choice], **more}))


def tool_calls(*arguments: str) -> dict[str, Any]:
    calls = [{"id": "c", "type": "function", "function": {"name": "rows", "arguments": a}} for a in arguments]
    return {"content": None, "tool_calls": calls}


def test_a_chat_reply_is_read_with_model_and_tokens() -> None:
    usage = {
        "prompt_tokens": 100,
        "completion_tokens": 20,
        "prompt_tokens_details": {"cached_tokens": 60, "cache_write_tokens": 5},
        "completion_tokens_details": {"reasoning_tokens": 8},
    }
    reply = read_chat({"content": "{}"}, usage=usage, service_tier="flex")
    assert reply == Reply(
        text="{}",
        stop=Stop.COMPLETE,
        model="gpt-6-luna-2026-08-01",
        usage=Usage(
            input_tokens=100,
            output_tokens=20,
            cached_tokens=60,
            cache_write_tokens=5,
            reasoning_tokens=8,
            service_tier="flex",
        ),
    )


@pytest.mark.parametrize("usage", [None, {}, {"prompt_tokens": "12", "completion_tokens": -1}, [], 5])
def test_tokens_that_a_gateway_does_not_tell_are_unknown(usage: object) -> None:
    assert read_chat({"content": "{}"}, usage=usage).usage == Usage()


@pytest.mark.parametrize(
    ("message", "text"),
    [
        ({"content": [{"type": "text", "text": '{"a"'}, {"type": "text", "text": ":1}"}]}, '{"a":1}'),
        (tool_calls('{"all_results": [1]}'), '{"all_results": [1]}'),
        (tool_calls('{"all_results": [1]}', '{"all_results": [2, 3]}'), '{"all_results": [1, 2, 3]}'),
        (tool_calls('{"all_results": [1]}', "nonsense"), '{"all_results": [1]}'),
        ({"content": "plain", "tool_calls": []}, "plain"),
        ({"content": None}, ""),
        ({}, ""),
    ],
)
def test_the_text_is_found_wherever_a_server_puts_it(message: dict[str, Any], text: str) -> None:
    assert read_chat(message).text == text


@pytest.mark.parametrize(
    ("reason", "stop"),
    [
        ("stop", Stop.COMPLETE),
        ("tool_calls", Stop.COMPLETE),
        (None, Stop.COMPLETE),
        ("length", Stop.TRUNCATED),
        ("MAX_TOKENS", Stop.TRUNCATED),
        ("content_filter", Stop.FILTERED),
        ("content_filter: PROHIBITED_CONTENT", Stop.FILTERED),
    ],
)
def test_why_a_chat_reply_ended_is_told_apart(reason: str | None, stop: Stop) -> None:
    assert read_chat({"content": "{}"}, reason).stop is stop


def test_a_refusal_is_a_refusal_with_its_words() -> None:
    reply = read_chat({"content": None, "refusal": "I cannot judge this."})
    assert (reply.stop, reply.detail, reply.text) == (Stop.REFUSED, "I cannot judge this.", "")


@pytest.mark.parametrize(("total", "n_out"), [(610, 510), (110, 10), (None, 10)])
def test_reasoning_that_the_total_counts_apart_from_the_output_is_output(total: int | None, n_out: int) -> None:
    usage = {"prompt_tokens": 100, "completion_tokens": 10, "completion_tokens_details": {"reasoning_tokens": 500}}
    assert read_chat({"content": "{}"}, usage=usage | {"total_tokens": total}).usage.output_tokens == n_out


def test_a_reply_whose_tokens_all_went_into_reasoning_is_cut_off() -> None:
    reply = read_chat({"content": None}, "length")
    assert (reply.stop, reply.text) == (Stop.TRUNCATED, "")


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        ({"code": 429, "message": "slow"}, RateLimitError),
        ({"code": 502, "message": "bad host"}, UnavailableError),
        ({"code": "503", "message": "bad host"}, UnavailableError),
        ({"code": 402, "message": "credits"}, RejectedError),
        ({"code": 401, "message": "No auth"}, RejectedError),
        ({"code": 400, "message": "openai/none is not a valid model ID"}, RejectedError),
        ({"code": 403, "message": "input flagged by moderation"}, BlockedError),
        ({"message": "no code at all"}, UnavailableError),
        ("only words", UnavailableError),
    ],
)
def test_an_error_inside_a_200_is_the_error_that_it_is(error: object, kind: type[ProviderError]) -> None:
    for payload in ({"error": error}, {**CHAT_REPLY, "choices": [{"error": error, "finish_reason": "error"}]}):
        with pytest.raises(kind) as caught:
            CHAT.parse(json.dumps(payload))
        assert type(caught.value) is kind


@pytest.mark.parametrize("choices", [None, [], [None], [{"finish_reason": "stop"}], [{"message": "x"}], {"0": 1}])
def test_a_reply_without_a_message_is_no_reply(choices: object) -> None:
    with pytest.raises(UnavailableError, match="no openai reply"):
        CHAT.parse(json.dumps({**CHAT_REPLY, "choices": choices}))


# --- reading: responses ---------------------------------------------------------------------------------------------


def read_response(*messages: dict[str, Any], status: str = "completed", **more: Any) -> Reply:
    usage = {"input_tokens": 10, "output_tokens": 4, "output_tokens_details": {"reasoning_tokens": 1}}
    payload = {"status": status, "error": None, "output": messages, "model": "m", "usage": usage, **more}
    return RESPONSES.parse(json.dumps(payload))


def said(text: str, **more: Any) -> dict[str, Any]:
    return {"type": "message", "content": [{"type": "output_text", "text": text}], **more}


def test_the_last_answer_counts_not_the_commentary_before_it() -> None:
    reply = read_response(
        {"type": "reasoning", "summary": []}, said("Let me see.", phase="commentary"), said("{}", phase="final_answer")
    )
    assert reply.text == "{}"
    assert reply.usage == Usage(input_tokens=10, output_tokens=4, reasoning_tokens=1)


def test_a_refused_response_is_a_refusal() -> None:
    reply = read_response({"type": "message", "content": [{"type": "refusal", "refusal": "No."}]})
    assert (reply.stop, reply.detail) == (Stop.REFUSED, "No.")


@pytest.mark.parametrize(("reason", "stop"), [("max_output_tokens", Stop.TRUNCATED), ("content_filter", Stop.FILTERED)])
def test_an_incomplete_response_says_why(reason: str, stop: Stop) -> None:
    reply = read_response(said('{"all'), status="incomplete", incomplete_details={"reason": reason})
    assert (reply.stop, reply.detail, reply.text) == (stop, reason, '{"all')


@pytest.mark.parametrize(
    ("code", "kind"),
    [
        ("rate_limit_exceeded", RateLimitError),
        ("server_error", UnavailableError),
        ("invalid_prompt", BlockedError),
        ("insufficient_quota", RejectedError),
        ("bad_image", RequestError),
    ],
)
def test_a_failed_response_with_status_200_is_an_error(code: str, kind: type[ProviderError]) -> None:
    with pytest.raises(kind) as caught:
        read_response(status="failed", error={"code": code, "message": "what happened"})
    assert type(caught.value) is kind


@pytest.mark.parametrize("status", ["failed", "cancelled", "queued", "in_progress"])
def test_a_response_that_did_not_come_to_an_end_is_worth_another_try(status: str) -> None:
    with pytest.raises(UnavailableError, match=status):
        read_response(status=status)
