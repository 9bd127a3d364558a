"""What the errors of OpenAI's API, and of servers that speak it, mean."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

import pytest
from scripted_server import ScriptedServer, Step, provider_at, scripted, task_of

from lmsyz.errors import (
    BlockedError,
    ProviderError,
    RateLimitError,
    RejectedError,
    RequestError,
    TooLongError,
    UnavailableError,
    UnsupportedFormError,
)
from lmsyz.providers import wire
from lmsyz.providers.base import Call, Form
from lmsyz.providers.faults import hide_keys

BODY = wire("openai", api="chat", model="gpt-6-luna").build(task_of("openai"), "rows", Form.OBJECT)


@pytest.fixture(scope="module")
def station() -> Iterator[tuple[ScriptedServer, Any]]:
    with scripted({}) as server, provider_at(server, "openai") as provider:
        yield server, provider


def failed_with(station: tuple[ScriptedServer, Any], step: Step) -> ProviderError:
    server, provider = station
    server.play(step)
    with pytest.raises(ProviderError) as caught:
        provider.send(BODY, Call())
    return caught.value


def error(status: int, message: str = "what happened", headers: dict[str, str] | None = None, **fields: Any) -> Step:
    return Step(status=status, body={"error": {"message": message, **fields}}, headers=headers or {})


ERRORS = [
    (error(400, "bad", code="invalid_value", param="messages[1].content"), RequestError, "bad"),
    (error(400, "no", code="unsupported_value", param="temperature"), RejectedError, r"the option temperature="),
    (error(400, "no", code="unsupported_parameter", param="max_tokens"), RejectedError, r"the option max_tokens="),
    (error(400, "too large", code="invalid_value", param="max_completion_tokens"), RejectedError, "max_completion"),
    (error(400, "no json_schema here", param="response_format"), UnsupportedFormError, "json_schema"),
    (
        error(400, "Invalid schema for response_format 'rows'", param="text.format.schema"),
        UnsupportedFormError,
        "openai answered",
    ),
    (error(400, "'tools' and reasoning_effort", param="reasoning_effort"), UnsupportedFormError, "openai answered"),
    (error(400, "registry/library/x does not support tools"), UnsupportedFormError, "tools"),
    (
        error(404, "No endpoints found that can handle the requested parameters."),
        UnsupportedFormError,
        "openai answered",
    ),
    (error(422, "response_format: extra fields not permitted"), UnsupportedFormError, "openai answered"),
    (error(500, "1 validation error for CreateCompletionRequest"), UnsupportedFormError, "openai answered"),
    (error(400, "long", code="context_length_exceeded", param="messages"), TooLongError, "long"),
    (error(400, "This model's maximum context length is 4096 tokens, with tools"), TooLongError, "openai answered"),
    (
        error(429, "Request too large for gpt-6-luna on tokens per min (TPM)", code="rate_limit_exceeded"),
        TooLongError,
        "answered 429",
    ),
    (error(413, "huge"), TooLongError, "huge"),
    (error(400, "filtered", code="content_filter", param="prompt"), BlockedError, "filtered"),
    (error(403, "Your input was flagged"), BlockedError, "flagged"),
    (error(401, "Incorrect API key", code="invalid_api_key"), RejectedError, "key was not accepted"),
    (error(402, "Insufficient credits"), RejectedError, "no credit"),
    (error(403, "country not supported", code="unsupported_country"), RejectedError, "country"),
    (error(404, "The model `none` does not exist", code="model_not_found"), RejectedError, "check model="),
    (error(404, "model 'none' not found, try pulling it first"), RejectedError, "check model="),
    (error(404, "The model `tools-7b` does not exist"), RejectedError, "check model="),
    (error(404, "The API deployment does not exist", code="DeploymentNotFound"), RejectedError, "check model="),
    (Step(status=429, body={"error": {"code": "slow_down"}}), RateLimitError, "answered 429: slow_down"),
    (Step(status=404, body={"detail": "Not Found"}), RejectedError, "Not Found.*ends in /v1"),
    (error(429, "slow down", code="rate_limit_exceeded"), RateLimitError, "slow down"),
    (error(429, "You exceeded your quota", code="insufficient_quota"), RejectedError, "no credit"),
    (error(429, "You exceeded your quota", type="insufficient_quota"), RejectedError, "no credit"),
    (error(429, "not active", code="billing_not_active"), RejectedError, "no credit"),
    (error(408, "slow"), UnavailableError, "slow"),
    (error(500, "oops"), UnavailableError, "oops"),
    (error(503, "overloaded"), UnavailableError, "overloaded"),
    (error(529, "overloaded"), RateLimitError, "overloaded"),
    (
        Step(status=400, body=[{"error": {"code": 400, "message": "API key not valid"}}]),
        RejectedError,
        "API key not valid.*check api_key=",
    ),
    (Step(status=400, body={"error": "just words"}), RequestError, "just words"),
    (Step(status=422, body={"detail": [{"loc": ["body", "x"], "msg": "bad x"}]}), RequestError, "bad x"),
    (
        Step(status=502, body=b"<html><head><title>502 Bad Gateway</title></head></html>"),
        UnavailableError,
        "Bad Gateway",
    ),
    (Step(status=502, body=b"upstream went away"), UnavailableError, "upstream went away"),
    (Step(status=500, body=b""), UnavailableError, "answered 500"),
    (Step(status=500, body=b"null"), UnavailableError, "answered 500"),
    (Step(status=500, body=b'{"error": null}'), UnavailableError, "answered 500"),
    (Step(status=429, body=b"[]"), RateLimitError, "answered 429"),
]


@pytest.mark.parametrize(("step", "kind", "words"), ERRORS)
def test_each_error_of_the_api_has_its_own_meaning(
    station: tuple[ScriptedServer, Any], step: Step, kind: type[ProviderError], words: str
) -> None:
    caught = failed_with(station, step)
    assert type(caught) is kind
    assert re.search(words, str(caught))
    assert (caught.status, caught.provider) == (step.status, "openai")


def test_an_error_keeps_code_request_id_and_headers(station: tuple[ScriptedServer, Any]) -> None:
    step = error(429, code="rate_limit_exceeded", headers={"X-Request-Id": "req_1", "x-ratelimit-limit-requests": "60"})
    caught = failed_with(station, step)
    assert (caught.code, caught.request_id) == ("rate_limit_exceeded", "req_1")
    assert caught.headers["x-ratelimit-limit-requests"] == "60"


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ({"retry-after": "2"}, 2.0),
        ({"retry-after": "0.5"}, 0.5),
        ({"retry-after-ms": "1500", "retry-after": "2"}, 1.5),
        ({"Retry-After": "Wed, 21 Oct 2015 07:28:00 GMT"}, 0.0),
        ({"retry-after": "soon"}, None),
        ({}, None),
    ],
)
def test_the_wait_that_a_server_asks_for_is_read(
    station: tuple[ScriptedServer, Any], headers: dict[str, str], seconds: float | None
) -> None:
    assert failed_with(station, error(429, headers=headers)).retry_after == seconds


@pytest.mark.parametrize(
    ("said", "shown"),
    [
        ("bad key sk-proj-Ab12_cd****ef.", "bad key (key)."),
        ("AIzaSyA1234567890abc is not valid", "(key) is not valid"),
        ("Authorization: Bearer abcdef0123456789abcdef==", "Authorization: (key)"),
        ("Bearer authentication is needed, and a risk-averse task-force", None),
    ],
)
def test_what_looks_like_a_key_is_hidden(said: str, shown: str | None) -> None:
    assert hide_keys(said) == (said if shown is None else shown)


def test_the_responses_api_has_a_path_of_its_own() -> None:
    with scripted({"status": "completed"}) as server, provider_at(server, "openai", api="responses") as provider:
        provider.send({"model": "m"}, Call())
    assert server.asked[0].path == "/v1/responses"
