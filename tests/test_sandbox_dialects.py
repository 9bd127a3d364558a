"""The sandbox's doors, by plain HTTP: what each dialect demands, and what its answers and errors look like."""

from __future__ import annotations

import json
from typing import Any

import pytest
from sandbox_http import Answered, call, chat_body, chat_rows, messages_body, row_schema, rows

DEPLOYMENT = "/openai/deployments/my-tones/chat/completions"
AZURE = f"{DEPLOYMENT}?api-version=2026-01-01"
OPENROUTER = "/openrouter/api/v1/chat/completions"
GEMINI = "/gemini/v1beta/openai/chat/completions"
FOUNDRY = "/anthropic/v1/messages"
BEDROCK = "/model/us.anthropic.claude-haiku-5-5/invoke"
VERTEX = "/v1/projects/p/locations/eu/publishers/anthropic/models/claude-haiku-5-5:rawPredict"
BEARER = {"authorization": "Bearer any"}
TEXTS = ("a great day", "an awful day", "a day", "what a great win", "we lost", "fine by me")


def ask(box: Any, path: str, body: Any = None, headers: Any = None, **more: Any) -> Answered:
    wanted = chat_body(rows(*TEXTS), row_schema(), **more) if body is None else body
    return call(box.url, "POST", path, wanted, BEARER if headers is None else headers)


def body_of(answered: Answered) -> Any:
    """The body as JSON, behind the comments that may stand before it."""
    if not isinstance(answered.body, str):
        return answered.body
    return json.loads("".join(line for line in answered.body.splitlines() if not line.startswith(":")))


def many(box: Any, path: str, model: str, n: int = 24) -> list[Answered]:
    """Answers to as many different requests, among which every way of saying a thing is drawn."""
    return [raw(box, path, chat_body(rows(f"day {i}"), row_schema(), model=model)) for i in range(n)]


def raw(box: Any, path: str, body: Any) -> Answered:
    """An answer whose body is not read, since a comment may stand before it."""
    import http.client
    from urllib.parse import urlsplit

    connection = http.client.HTTPConnection(urlsplit(box.url).netloc, timeout=20)
    try:
        connection.request("POST", path, json.dumps(body).encode(), BEARER)
        response = connection.getresponse()
        headers = {k.lower(): v for k, v in response.getheaders()}
        return Answered(response.status, headers, response.read().decode())
    finally:
        connection.close()


# --- Azure ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("headers", [{"api-key": "any"}, BEARER])
def test_azure_answers_by_deployment_with_a_key_or_a_token_and_tells_of_its_filters(
    sandbox: Any, headers: dict[str, str]
) -> None:
    answered = ask(sandbox, AZURE, headers=headers, model="whatever")
    assert len(chat_rows(answered)) == len(TEXTS)
    assert answered.body["prompt_filter_results"][0]["content_filter_results"]["hate"]["filtered"] is False
    assert answered.body["choices"][0]["content_filter_results"]["violence"] == {"filtered": False, "severity": "safe"}
    assert answered.headers["x-ratelimit-limit-requests"] == "-1"
    assert answered.headers["x-lmsyz-sandbox"] == "rules, not a language model"


def test_azures_newer_form_takes_the_deployment_as_the_model_and_needs_no_version(sandbox: Any) -> None:
    assert len(chat_rows(ask(sandbox, "/openai/v1/chat/completions", model="my-tones"))) == len(TEXTS)


@pytest.mark.parametrize(
    ("path", "headers", "status", "code"),
    [
        (AZURE, {}, 401, "401"),
        (AZURE, {"api-key": "invalid"}, 401, "401"),
        (DEPLOYMENT, BEARER, 404, "404"),
        (AZURE.replace("my-tones", "missing"), BEARER, 404, "DeploymentNotFound"),
    ],
)
def test_azure_refuses_at_the_door_in_its_own_words(
    sandbox: Any, path: str, headers: dict[str, str], status: int, code: str
) -> None:
    answered = ask(sandbox, path, headers=headers)
    assert (answered.status, answered.error["code"]) == (status, code)
    assert sandbox.requests()[-1]["status"] == status


def test_azures_filter_refuses_a_prompt_with_what_it_found(sandbox: Any) -> None:
    sandbox.set_faults(blocked=1)
    answered = ask(sandbox, AZURE)
    assert (answered.status, answered.error["code"]) == (400, "content_filter")
    assert answered.error["innererror"]["code"] == "ResponsibleAIPolicyViolation"
    assert answered.error["innererror"]["content_filter_result"]["violence"]["filtered"] is True


def test_azures_filter_takes_a_reply_away(sandbox: Any) -> None:
    sandbox.set_faults(filtered=1)
    choice = ask(sandbox, AZURE).body["choices"][0]
    assert choice["finish_reason"] == "content_filter"
    assert "content" not in choice["message"]
    assert choice["content_filter_results"]["violence"]["filtered"] is True


def test_azures_429_tells_how_long_to_wait(sandbox: Any) -> None:
    sandbox.set_faults(rate_limited=1, retry_after_s=7)
    answered = ask(sandbox, AZURE)
    assert (answered.status, answered.error["code"], answered.headers["retry-after"]) == (429, "429", "7")


# --- OpenRouter -----------------------------------------------------------------------------------------------------


def test_openrouter_answers_for_a_vendors_model_behind_blanks_comments_and_now_and_then_without_usage(
    sandbox: Any,
) -> None:
    answers = many(sandbox, OPENROUTER, "acme/sandbox-rules")
    bodies = [body_of(a) for a in answers]
    assert all(a.body.startswith("\n") for a in answers)
    assert any(": OPENROUTER PROCESSING" in a.body for a in answers)
    assert {"usage" in b for b in bodies} == {True, False}
    assert {b["choices"][0]["native_finish_reason"] for b in bodies} == {"STOP"}
    assert {b["model"] for b in bodies} == {"acme/sandbox-rules"}


def test_openrouters_hosts_fail_as_a_status_within_a_200_and_within_a_choice(sandbox: Any) -> None:
    sandbox.set_faults(server_error=1)
    answers = many(sandbox, OPENROUTER, "acme/m")
    bodies = [body_of(a) for a in answers]
    shapes = {(a.status, "error" in b, "choices" in b) for a, b in zip(answers, bodies, strict=True)}
    assert shapes == {(502, True, False), (200, True, False), (200, False, True)}
    error = next(b["error"] for b in bodies if "error" in b)
    assert error["metadata"]["provider_name"] == "Sandbox"
    assert json.loads(error["metadata"]["raw"])["error"]["message"]


def test_openrouter_tells_of_too_many_requests_in_three_ways_and_of_one_that_passes_as_402(sandbox: Any) -> None:
    sandbox.set_faults(rate_limited=1, retry_after_s=3)
    answers = many(sandbox, OPENROUTER, "acme/m")
    metadata = [body_of(a)["error"]["metadata"] for a in answers]
    assert {a.status for a in answers} == {429, 402}
    assert {a.headers["retry-after"] for a in answers} == {"3"}
    assert any("headers" in m and m["headers"]["X-RateLimit-Remaining"] == "0" for m in metadata)
    assert any(m.get("limit_source") == "openrouter_in_flight_budget" for m in metadata)


@pytest.mark.parametrize(
    ("faults", "status", "key"),
    [
        ({"blocked": 1}, 403, "flagged_input"),
        ({"out_of_quota": True}, 402, "limit_source"),
        ({"context_tokens": 10}, 400, "raw"),
    ],
)
def test_openrouters_refusals_carry_their_reasons(sandbox: Any, faults: Any, status: int, key: str) -> None:
    sandbox.set_faults(**faults)
    answered = ask(sandbox, OPENROUTER, model="acme/m")
    assert (answered.status, answered.error["code"]) == (status, status)
    assert answered.error["metadata"][key]


@pytest.mark.parametrize(("headers", "model", "status"), [({}, "acme/m", 401), (BEARER, "acme/missing", 400)])
def test_openrouter_refuses_at_the_door(sandbox: Any, headers: dict[str, str], model: str, status: int) -> None:
    assert ask(sandbox, OPENROUTER, headers=headers, model=model).error["code"] == status


# --- Gemini ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("model", ["gemini-2.5-flash", "models/gemini-2.5-flash"])
def test_gemini_answers_with_and_without_the_prefix_of_its_models(sandbox: Any, model: str) -> None:
    answered = ask(sandbox, GEMINI, model=model)
    assert len(chat_rows(answered)) == len(TEXTS)
    assert not any(name.startswith("x-ratelimit") for name in answered.headers)


@pytest.mark.parametrize(
    ("more", "headers", "status", "words"),
    [
        ({}, {}, 400, "API key not valid"),
        ({"model": "gpt-6"}, BEARER, 404, "models/gpt-6 is not found"),
        ({"top_k": 3}, BEARER, 400, 'Unknown name "top_k": Cannot find field.'),
        (
            {"tools": [{"type": "function", "function": {"name": "f", "parameters": {"const": 1}}}]},
            BEARER,
            400,
            "Unknown name \"const\" at 'tools[0].function_declarations[0].parameters'",
        ),
    ],
)
def test_geminis_errors_are_googles_in_a_list(
    sandbox: Any, more: Any, headers: dict[str, str], status: int, words: str
) -> None:
    answered = ask(sandbox, GEMINI, headers=headers, **{"model": "gemini-3", **more})
    assert answered.status == status
    assert words in answered.body[0]["error"]["message"]


def test_geminis_429_tells_its_wait_in_the_body_alone_and_a_days_quota_does_so_too(sandbox: Any) -> None:
    for faults, what in (({"rate_limited": 1, "retry_after_s": 2.5}, "PerMinute"), ({"out_of_quota": True}, "PerDay")):
        sandbox.set_faults(**faults)
        answered = ask(sandbox, GEMINI, model="gemini-3")
        quota, retry = answered.body[0]["error"]["details"]
        assert answered.status == 429
        assert "retry-after" not in answered.headers
        assert what in quota["violations"][0]["quotaId"]
        assert retry["retryDelay"] == ("2.5s" if what == "PerMinute" else "45.5s")


def test_geminis_filter_speaks_in_googles_capitals_and_leaves_no_text(sandbox: Any) -> None:
    sandbox.set_faults(filtered=1)
    choices = [body_of(a)["choices"][0] for a in many(sandbox, GEMINI, "gemini-3")]
    assert {c["finish_reason"] for c in choices} == {"SAFETY", "RECITATION", "PROHIBITED_CONTENT"}
    assert all("content" not in c["message"] for c in choices)


# --- Anthropic's API elsewhere --------------------------------------------------------------------------------------


def platform_body(path: str) -> dict[str, Any]:
    body = messages_body(rows(*TEXTS), row_schema(), model="claude-haiku-5-5")
    if path == FOUNDRY:
        return body
    del body["model"]
    return body | {"anthropic_version": "2026-10-21"}


@pytest.mark.parametrize("path", [FOUNDRY, BEDROCK, VERTEX])
def test_anthropics_api_answers_as_each_platform_speaks_it(sandbox: Any, path: str) -> None:
    answered = ask(sandbox, path, platform_body(path))
    assert answered.status == 200, answered.body
    assert len(json.loads(answered.body["content"][0]["text"])["all_results"]) == len(TEXTS)


@pytest.mark.parametrize(
    ("path", "status", "words"),
    [
        (FOUNDRY, 404, "deployment"),
        (BEDROCK.replace("us.anthropic.claude-haiku-5-5", "missing"), 400, "model identifier is invalid"),
        (VERTEX.replace("claude-haiku-5-5", "missing"), 404, "Publisher Model"),
    ],
)
def test_a_model_that_a_platform_does_not_have_is_refused_in_its_words(
    sandbox: Any, path: str, status: int, words: str
) -> None:
    body = platform_body(path) | ({"model": "missing"} if path == FOUNDRY else {})
    answered = ask(sandbox, path, body)
    assert (answered.status, words in json.dumps(answered.body)) == (status, True)


@pytest.mark.parametrize(
    ("path", "no_key", "many_asked"), [(FOUNDRY, 401, 429), (BEDROCK, 403, 429), (VERTEX, 401, 429)]
)
def test_a_platform_wants_a_key_and_tells_of_too_many_requests(
    sandbox: Any, path: str, no_key: int, many_asked: int
) -> None:
    assert ask(sandbox, path, platform_body(path), headers={}).status == no_key
    sandbox.set_faults(rate_limited=1, retry_after_s=2)
    answered = ask(sandbox, path, platform_body(path))
    assert (answered.status, answered.headers["retry-after"]) == (many_asked, "2")
    if path == BEDROCK:
        assert answered.headers["x-amzn-errortype"] == "ThrottlingException"


# --- what holds behind every door -----------------------------------------------------------------------------------


def test_a_connection_that_is_dropped_and_a_page_in_place_of_a_reply_come_through_a_door(sandbox: Any) -> None:
    sandbox.set_faults(dropped=1)
    with pytest.raises(OSError, match=r"(?i)closed|reset|remote"):
        ask(sandbox, AZURE)
    sandbox.set_faults(not_a_reply=1)
    answered = ask(sandbox, AZURE)
    assert answered.status == 200
    assert "Sign in" in answered.body


def test_a_body_that_is_no_json_is_refused_and_does_not_end_the_server(sandbox: Any) -> None:
    for path in (AZURE, OPENROUTER, GEMINI, FOUNDRY, BEDROCK, VERTEX):
        assert 400 <= ask(sandbox, path, b"[1,").status < 500
    assert ask(sandbox, AZURE).status == 200
