"""OpenAI's endpoints as the sandbox speaks them: through the real SDK and over plain HTTP."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from typing import Any

import openai
import pytest
from sandbox_http import (
    CHAT,
    FIELDS,
    OPENAI,
    RESPONSES,
    ask_chat,
    ask_responses,
    call,
    chat_body,
    responses_body,
    row_schema,
    rows,
)

HAPPY, SAD = "We love it, a great success.", "A terrible loss."
TOOL = {"type": "function", "function": {"name": "rows", "strict": True, "parameters": row_schema()}}
NAMED = {"type": "function", "function": {"name": "rows"}}
FLAT_TOOL = {"type": "function", "name": "rows", "strict": True, "parameters": row_schema()}
REASONING = {"model": "sandbox-rules-reasoning"}


@pytest.fixture
def client(sandbox: Any) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(api_key="any", base_url=sandbox.openai_base_url, max_retries=0) as made:
        yield made


def tones(text: str) -> list[tuple[str, str]]:
    return [(r["input_id"], r["tone"]) for r in json.loads(text)["all_results"]]


def test_chat_completions_answers_rows_in_the_strict_schema(client: openai.OpenAI) -> None:
    reply = client.chat.completions.create(**chat_body(rows(HAPPY, SAD), row_schema()))
    choice = reply.choices[0]
    assert (choice.finish_reason, choice.message.refusal, choice.index) == ("stop", None, 0)
    assert tones(choice.message.content or "") == [("r0", "positive"), ("r1", "negative")]
    assert (reply.model, reply.system_fingerprint, reply.object) == (
        "sandbox-rules",
        "sandbox-rules",
        "chat.completion",
    )
    assert reply.id.startswith("chatcmpl-sandbox")
    usage = reply.usage
    assert usage is not None
    assert usage.total_tokens == usage.prompt_tokens + usage.completion_tokens > usage.completion_tokens > 0


def test_chat_completions_answers_a_forced_tool_by_its_arguments(client: openai.OpenAI) -> None:
    reply = client.chat.completions.create(**chat_body(rows(HAPPY), tools=[TOOL], tool_choice=NAMED))
    choice = reply.choices[0]
    assert choice.message.content is None
    assert choice.message.tool_calls is not None
    function = choice.message.tool_calls[0].function  # type: ignore[union-attr]
    assert function.name == "rows"
    assert tones(function.arguments) == [("r0", "positive")]
    assert choice.finish_reason == "stop"  # as OpenAI has it for a call that was forced by name


@pytest.mark.parametrize("choice", ["auto", "required"])
def test_a_tool_the_model_chose_ends_with_tool_calls(client: openai.OpenAI, choice: str) -> None:
    reply = client.chat.completions.create(**chat_body(rows(HAPPY), tools=[TOOL], tool_choice=choice))
    assert reply.choices[0].finish_reason == "tool_calls"


def test_no_tool_is_called_where_the_choice_is_none(client: openai.OpenAI) -> None:
    reply = client.chat.completions.create(**chat_body(rows(HAPPY), tools=[TOOL], tool_choice="none"))
    assert reply.choices[0].message.tool_calls is None


def test_json_object_and_no_form_follow_the_prompts_example(client: openai.OpenAI) -> None:
    example = json.dumps({"all_results": [{"input_id": "", "tone": "<one of 'positive', 'negative'>"}]})
    messages = [{"role": "developer", "content": f"Answer in JSON: {example}"}, {"role": "user", "content": rows(SAD)}]
    for more in ({"response_format": {"type": "json_object"}}, {}):
        reply = client.chat.completions.create(model="sandbox-rules", messages=messages, **more)  # type: ignore[call-overload]
        assert tones(reply.choices[0].message.content) == [("r0", "negative")]


def test_content_may_come_in_parts_and_history_is_passed_over(client: openai.OpenAI) -> None:
    messages = [
        {"role": "system", "content": [{"type": "text", "text": "Answer in JSON."}]},
        {"role": "user", "content": rows(SAD)},
        {"role": "assistant", "content": "earlier"},
        {"role": "user", "content": [{"type": "text", "text": rows(HAPPY)}]},
    ]
    reply = client.chat.completions.create(**chat_body(schema=row_schema(), messages=messages))
    assert tones(reply.choices[0].message.content or "") == [("r0", "positive")]


def test_a_plain_question_gets_prose_that_says_it_is_rules(client: openai.OpenAI) -> None:
    reply = client.chat.completions.create(model="sandbox-rules", messages=[{"role": "user", "content": HAPPY}])
    assert "not a language model" in (reply.choices[0].message.content or "")


def test_a_schema_for_one_answer_is_answered_for_the_whole_message(client: openai.OpenAI) -> None:
    one = row_schema()["properties"]["all_results"]["items"]
    del one["properties"]["input_id"]
    one["required"].remove("input_id")
    reply = client.chat.completions.create(**chat_body(HAPPY, one))
    assert json.loads(reply.choices[0].message.content or "")["tone"] == "positive"


def test_a_demand_that_no_rule_can_meet_is_refused_not_guessed(client: openai.OpenAI) -> None:
    one = {"type": "object", "properties": {"zodiac": {"type": "string"}}, "required": ["zodiac"]}
    reply = client.chat.completions.create(**chat_body(HAPPY, one | {"additionalProperties": False}))
    assert reply.choices[0].message.content is None
    assert "rules" in (reply.choices[0].message.refusal or "")


@pytest.mark.parametrize("name", ["max_tokens", "max_completion_tokens"])
def test_a_small_limit_cuts_the_reply_and_says_so(client: openai.OpenAI, name: str) -> None:
    reply = client.chat.completions.create(**chat_body(rows(HAPPY, SAD), row_schema(), **{name: 12}))
    assert reply.choices[0].finish_reason == "length"
    assert reply.usage is not None
    assert reply.usage.completion_tokens <= 12
    with pytest.raises(ValueError, match=r"Unterminated|Expecting"):
        json.loads(reply.choices[0].message.content or "")


def test_thinking_counts_as_output_and_can_use_it_all_up(client: openai.OpenAI) -> None:
    whole = client.chat.completions.create(**chat_body(rows(HAPPY), row_schema(), **REASONING))
    assert whole.usage is not None
    assert whole.usage.completion_tokens_details is not None
    assert whole.usage.completion_tokens_details.reasoning_tokens == 64
    cut = client.chat.completions.create(**chat_body(rows(HAPPY), row_schema(), **REASONING, max_completion_tokens=50))
    assert (cut.choices[0].finish_reason, cut.choices[0].message.content) == ("length", "")


def test_stop_sequences_end_the_reply(client: openai.OpenAI) -> None:
    reply = client.chat.completions.create(**chat_body(rows(HAPPY), row_schema(), stop=["tone"]))
    assert (reply.choices[0].message.content or "").endswith('"r0","')
    assert reply.choices[0].finish_reason == "stop"


def test_several_choices_are_given_where_several_are_asked_for(client: openai.OpenAI) -> None:
    assert [c.index for c in client.chat.completions.create(**chat_body(n=3)).choices] == [0, 1, 2]


def test_a_long_prompt_is_written_to_the_cache_and_then_read_from_it(client: openai.OpenAI) -> None:
    system = {"role": "system", "content": "Judge, in JSON. " * 300}
    counts = []
    for text in (HAPPY, SAD):
        body = chat_body(messages=[system, {"role": "user", "content": rows(text)}])
        usage = client.chat.completions.create(**body).usage
        assert usage is not None
        assert usage.prompt_tokens_details is not None
        counts.append((usage.prompt_tokens_details.cache_write_tokens, usage.prompt_tokens_details.cached_tokens))
    assert counts == [(1152, 0), (0, 1152)]


def test_responses_answers_rows_in_the_strict_schema(client: openai.OpenAI) -> None:
    reply = client.responses.create(**responses_body(rows(HAPPY, SAD), row_schema()))
    assert (reply.status, reply.error, reply.incomplete_details) == ("completed", None, None)
    assert tones(reply.output_text) == [("r0", "positive"), ("r1", "negative")]
    assert reply.id.startswith("resp_sandbox")
    assert reply.usage is not None
    assert reply.usage.input_tokens_details.cached_tokens == 0


def test_responses_takes_a_list_of_messages_and_a_function(client: openai.OpenAI) -> None:
    said = [
        {"role": "system", "content": "JSON"},
        {"type": "message", "role": "user", "content": [{"type": "input_text", "text": rows(SAD)}]},
    ]
    reply = client.responses.create(
        **responses_body(said, tools=[FLAT_TOOL], tool_choice={"type": "function", "name": "rows"})
    )
    call_made = reply.output[-1]
    assert call_made.type == "function_call"
    assert tones(call_made.arguments) == [("r0", "negative")]


def test_responses_says_why_it_is_incomplete(client: openai.OpenAI) -> None:
    reply = client.responses.create(**responses_body(rows(HAPPY, SAD), row_schema(), max_output_tokens=16))
    assert reply.status == "incomplete"
    assert reply.incomplete_details is not None
    assert reply.incomplete_details.reason == "max_output_tokens"


def test_responses_gives_thinking_an_item_of_its_own(client: openai.OpenAI) -> None:
    reply = client.responses.create(**responses_body(rows(HAPPY), row_schema(), **REASONING))
    assert [item.type for item in reply.output] == ["reasoning", "message"]
    assert reply.usage is not None
    assert reply.usage.output_tokens_details.reasoning_tokens == 64


def test_models_are_listed_and_found(client: openai.OpenAI) -> None:
    names = ["sandbox-rules", "sandbox-rules-mini", "sandbox-rules-reasoning"]
    assert [m.id for m in client.models.list()][:3] == names
    assert client.models.retrieve(names[2]).owned_by == "lmsyz-sandbox"
    with pytest.raises(openai.NotFoundError, match="sandbox-rules-mini"):
        client.models.retrieve("gpt-6-luna")


def test_headers_are_openais_own(sandbox: Any) -> None:
    headers = ask_chat(sandbox.url).headers
    assert headers["x-request-id"].startswith("req_sandbox")
    assert int(headers["x-ratelimit-remaining-requests"]) < int(headers["x-ratelimit-limit-requests"])
    assert int(headers["x-ratelimit-remaining-tokens"]) < int(headers["x-ratelimit-limit-tokens"])
    assert headers["x-ratelimit-reset-requests"] == headers["x-ratelimit-reset-tokens"] == "0ms"


@pytest.mark.parametrize("path", [CHAT, RESPONSES, "/v1/models"])
def test_no_key_and_a_wrong_key_are_401(sandbox: Any, path: str) -> None:
    method = "GET" if path == "/v1/models" else "POST"
    for headers, words, code in [
        ({}, "didn't provide an API key", None),
        ({"authorization": "Basic x"}, "didn't provide an API key", None),
        ({"authorization": "Bearer sk-invalid-key-of-mine"}, "Incorrect API key provided", "invalid_api_key"),
    ]:
        answered = call(sandbox.url, method, path, None if method == "GET" else chat_body(), headers)
        assert answered.status == 401
        assert words in answered.error["message"]
        assert answered.error["code"] == code
        assert "key-of-mine" not in answered.error["message"]


def test_errors_reach_the_sdk_with_type_param_and_code(client: openai.OpenAI) -> None:
    with pytest.raises(openai.BadRequestError) as caught:
        client.chat.completions.create(**chat_body(temperature=3))
    assert caught.value.param == "temperature"
    assert caught.value.code == "decimal_above_max_value"
    assert caught.value.type == "invalid_request_error"
    assert (caught.value.request_id or "").startswith("req_sandbox")
    with pytest.raises(openai.NotFoundError, match=r"`gpt-6-luna` does not exist.*sandbox-rules-mini") as missing:
        client.chat.completions.create(**chat_body(model="gpt-6-luna"))
    assert missing.value.code == "model_not_found"


USER = {"role": "user", "content": "json"}
FORMAT = {"type": "json_schema", "json_schema": {"name": "rows", "strict": True, "schema": row_schema()}}


def schema_format(**about: Any) -> dict[str, Any]:
    return {"type": "json_schema", "json_schema": FORMAT["json_schema"] | about}  # type: ignore[operator]


@pytest.mark.parametrize(
    ("change", "param", "code", "words"),
    [
        ({"foo": 1}, None, None, "Unrecognized request argument supplied: foo"),
        ({"foo": 1, "bar": 2}, None, None, "Unrecognized request arguments supplied: foo, bar"),
        ({"messages": None}, "messages", "invalid_type", "expected an array, but got null"),
        ({"messages": []}, "messages", "empty_array", "minimum length 1"),
        ({"messages": ["x"]}, "messages[0]", "invalid_type", "expected an object, but got a string"),
        ({"messages": [{"content": "x"}]}, "messages[0].role", "missing_required_parameter", "Missing"),
        ({"messages": [USER | {"role": "robot"}]}, "messages[0].role", "invalid_value", "'system', "),
        ({"messages": [USER | {"text": "x"}]}, "messages[0].text", "unknown_parameter", "Unknown parameter"),
        ({"messages": [USER | {"content": 5}]}, "messages[0].content", "invalid_type", "one of a string or an array"),
        ({"messages": [USER | {"content": [{"type": "text"}]}]}, "messages[0].content[0].text", None, "Missing"),
        (
            {"messages": [USER | {"content": [{"type": "image_url", "image_url": {"url": "x"}}]}]},
            "messages[0].content[0].image_url.url",
            "invalid_image_url",
            "unsupported scheme",
        ),
        ({"model": 5}, "model", "invalid_type", "expected a string, but got an integer"),
        ({"temperature": "hot"}, "temperature", "invalid_type", "expected a decimal"),
        ({"temperature": True}, "temperature", "invalid_type", "but got a boolean"),
        ({"top_p": 1.5}, "top_p", "decimal_above_max_value", "<= 1"),
        ({"max_tokens": 0}, "max_tokens", "integer_below_min_value", ">= 1"),
        ({"max_tokens": 5, "max_completion_tokens": 5}, "max_tokens", None, "same time"),
        ({"n": 0}, "n", "integer_below_min_value", ">= 1"),
        ({"reasoning_effort": "huge"}, "reasoning_effort", "invalid_value", "'none', 'minimal'"),
        ({"stop": ["a"] * 5}, "stop", "array_above_max_length", "maximum length 4"),
        ({"metadata": {"a": 5}}, "metadata.a", "invalid_type", "expected a string"),
        ({"stream": True}, "stream", "unsupported_value", "does not stream"),
        ({"functions": []}, "functions", "unsupported_parameter", "does not support 'functions'"),
        ({"response_format": {"type": "xml"}}, "response_format.type", "invalid_value", "'json_object'"),
        ({"response_format": {"type": "json_schema"}}, "response_format.json_schema", None, "Missing"),
        ({"response_format": schema_format(name="a b")}, "response_format.json_schema.name", None, "pattern"),
        ({"response_format": schema_format(name="a" * 65)}, "response_format.json_schema.name", None, "length 64"),
        ({"response_format": schema_format(extra=1)}, "response_format.json_schema.extra", None, "Unknown"),
        (
            {"response_format": schema_format(schema={"type": "object", "properties": {}})},
            "response_format",
            None,
            "rows",
        ),
        ({"response_format": schema_format(schema=None)}, "response_format.json_schema.schema", None, "an object"),
        ({"tools": []}, "tools", "empty_array", "minimum length 1"),
        ({"tools": [{"type": "function"}]}, "tools[0].function", None, "Missing"),
        ({"tool_choice": NAMED}, "tool_choice", None, "only allowed when 'tools'"),
        ({"tools": [TOOL], "tool_choice": "always"}, "tool_choice", "invalid_value", "'required'"),
        (
            {"tools": [TOOL], "tool_choice": {"type": "function", "function": {"name": "other"}}},
            "tool_choice",
            None,
            "'other' not found",
        ),
        (
            {
                "tools": [
                    {"type": "function", "function": {"name": "t", "strict": True, "parameters": {"type": "object"}}}
                ]
            },
            "tools[0].function.parameters",
            "invalid_function_parameters",
            "Invalid schema for function 't'",
        ),
    ],
)
def test_a_chat_request_that_the_api_refuses_is_refused_in_its_words(
    sandbox: Any, change: dict[str, Any], param: str | None, code: str | None, words: str
) -> None:
    answered = ask_chat(sandbox.url, **change)
    assert answered.status == 400, answered.body
    assert words in answered.error["message"]
    assert answered.error["param"] == param
    assert answered.error["type"] == "invalid_request_error"
    assert code is None or answered.error["code"] == code


def test_a_missing_field_is_named(sandbox: Any) -> None:
    for ask, missing in ((ask_chat, "messages"), (ask_responses, "input")):
        body = chat_body() if ask is ask_chat else responses_body()
        del body[missing]
        answered = call(sandbox.url, "POST", CHAT if ask is ask_chat else RESPONSES, body, OPENAI)
        assert (answered.status, answered.error["code"]) == (400, "missing_required_parameter")
        assert answered.error["param"] == missing


def test_json_object_needs_the_word_json_in_the_messages(sandbox: Any) -> None:
    asked = {"messages": [{"role": "user", "content": "Answer."}], "response_format": {"type": "json_object"}}
    answered = ask_chat(sandbox.url, **asked)
    assert (answered.status, answered.error["param"]) == (400, "messages")
    assert "must contain the word 'json'" in answered.error["message"]
    assert (
        ask_chat(sandbox.url, **(asked | {"messages": [{"role": "user", "content": "Answer in Json."}]})).status == 200
    )


def test_in_responses_the_word_json_must_stand_in_the_input_not_the_instructions(sandbox: Any) -> None:
    text = {"format": {"type": "json_object"}}
    assert ask_responses(sandbox.url, "Answer.", instructions="JSON!", text=text).status == 400
    assert ask_responses(sandbox.url, "Answer in JSON.", text=text).status == 200


@pytest.mark.parametrize(
    ("change", "param", "words"),
    [
        ({"foo": 1}, "foo", "Unknown parameter: 'foo'"),
        ({"messages": []}, "messages", "Unknown parameter"),
        ({"seed": 1}, "seed", "Unknown parameter"),
        ({"max_output_tokens": 15}, "max_output_tokens", ">= 16"),
        ({"input": [{"role": "robot", "content": "x"}]}, "input[0].role", "'developer'"),
        (
            {"input": [{"role": "user", "content": [{"type": "text", "text": "x"}]}]},
            "input[0].content[0].type",
            "input_text",
        ),
        ({"text": {"format": {"type": "json_schema", "name": "x"}}}, "text.format.schema", "Missing"),
        (
            {"text": {"format": {"type": "json_schema", "name": "x", "schema": {"type": "array"}}}},
            "text.format.schema",
            "got",
        ),
        (
            {"tools": [FLAT_TOOL | {"parameters": {"type": "object"}}]},
            "tools[0].parameters",
            "Invalid schema for function",
        ),
        ({"previous_response_id": "resp_1"}, "previous_response_id", "does not support"),
        ({"stream": True}, "stream", "does not stream"),
    ],
)
def test_a_responses_request_that_the_api_refuses_is_refused_in_its_words(
    sandbox: Any, change: dict[str, Any], param: str, words: str
) -> None:
    answered = ask_responses(sandbox.url, **change)
    assert answered.status == 400, answered.body
    assert words in answered.error["message"]
    assert answered.error["param"] == param


@pytest.mark.parametrize(
    ("change", "param", "code"),
    [
        ({"temperature": 0}, "temperature", "unsupported_value"),
        ({"top_p": 0.5}, "top_p", "unsupported_parameter"),
        ({"logprobs": True}, "logprobs", "unsupported_parameter"),
        ({"stop": "x"}, "stop", "unsupported_parameter"),
        ({"max_tokens": 100}, "max_tokens", "unsupported_parameter"),
    ],
)
def test_the_reasoning_model_takes_no_sampling_and_one_name_of_the_limit(
    sandbox: Any, change: dict[str, Any], param: str, code: str
) -> None:
    answered = ask_chat(sandbox.url, **change, **REASONING)
    assert (answered.status, answered.error["param"], answered.error["code"]) == (400, param, code)
    for tolerant in ("sandbox-rules", "sandbox-rules-mini"):
        assert ask_chat(sandbox.url, **change, model=tolerant).status == 200


def test_the_reasoning_model_takes_what_current_models_take(sandbox: Any) -> None:
    taken = {"temperature": 1, "max_completion_tokens": 500, "reasoning_effort": "low", "verbosity": "low"}
    assert ask_chat(sandbox.url, **taken, **REASONING).status == 200


@pytest.mark.parametrize("ask", [ask_chat, ask_responses])
def test_a_schema_that_is_not_strict_may_have_optional_fields(sandbox: Any, ask: Callable[..., Any]) -> None:
    loose = row_schema(FIELDS)
    item = loose["properties"]["all_results"]["items"]
    item["properties"]["zodiac"] = {"type": "string"}
    about = {"name": "rows", "strict": False, "schema": loose}
    if ask is ask_chat:
        answered = ask(sandbox.url, rows(HAPPY), response_format={"type": "json_schema", "json_schema": about})
        text = answered.body["choices"][0]["message"]["content"]
    else:
        answered = ask(sandbox.url, rows(HAPPY), text={"format": {"type": "json_schema", **about}})
        text = answered.body["output"][-1]["content"][0]["text"]
    assert list(json.loads(text)["all_results"][0]) == ["input_id", "tone", "digest"]


def test_a_body_that_is_no_json_object_is_400(sandbox: Any) -> None:
    for raw in (b"{", b"[]", b"", b"\xff"):
        answered = call(sandbox.url, "POST", CHAT, raw, OPENAI)
        assert answered.status == 400
        assert "could not parse the JSON body" in answered.error["message"]


def test_wrong_paths_and_methods_are_404_and_405(sandbox: Any) -> None:
    missing = call(sandbox.url, "POST", "/v1/completion", {}, OPENAI)
    assert (missing.status, missing.error["code"]) == (404, "unknown_url")
    assert "POST /v1/completion" in missing.error["message"]
    wrong = call(sandbox.url, "GET", CHAT, None, OPENAI)
    assert (wrong.status, wrong.error["code"]) == (405, "method_not_supported")


def test_lone_surrogates_and_strange_characters_come_back_as_valid_json(sandbox: Any) -> None:
    raw = json.dumps(chat_body("USER", row_schema({"summary": {"type": "string"}})))
    user = '[{"input_id": "a", "input_text": "half \\ud83d of a pair, \\u2028 and \\u0000"}]'
    answered = call(sandbox.url, "POST", CHAT, raw.replace('"USER"', json.dumps(user)).encode(), OPENAI)
    assert answered.status == 200
    assert (
        "half \ud83d of" in json.loads(answered.body["choices"][0]["message"]["content"])["all_results"][0]["summary"]
    )


def test_a_body_nested_beyond_reason_is_400_and_the_sandbox_lives_on(sandbox: Any) -> None:
    deep: dict[str, Any] = {"type": "string"}
    for _ in range(120):
        deep = {"type": "object", "properties": {"a": deep}, "required": ["a"], "additionalProperties": False}
    wanted = {"type": "json_schema", "json_schema": {"name": "rows", "strict": True, "schema": deep}}
    assert ask_chat(sandbox.url, response_format=wanted).status == 400
    for raw in (b'{"a":' + b"[" * 100_000, b'{"messages":' + b"[" * 900 + b"]" * 900 + b"}"):
        assert call(sandbox.url, "POST", CHAT, raw, OPENAI).status == 400
    nested = json.dumps([{"input_id": "a", "input_text": "x"}]).replace('"x"', "[" * 50_000)
    assert ask_chat(sandbox.url, nested).status == 200
