"""What OpenRouter, Gemini and Bedrock say in places of their own, read without a server."""

from __future__ import annotations

import json
from typing import Any

import pytest

from lmsyz.errors import BlockedError, ProviderError, RateLimitError, RejectedError, TooLongError
from lmsyz.providers import anthropic_faults, openai_faults, wire
from lmsyz.providers.base import Stop
from lmsyz.providers.faults import Fault, error_object, hide_keys
from lmsyz.providers.gateway_faults import told_wait_s
from lmsyz.providers.local_server import with_count

RETRY = {"@type": "type.googleapis.com/google.rpc.RetryInfo", "retryDelay": "7.5s"}


def error_of(status: int, body: Any, headers: dict[str, str] | None = None) -> ProviderError:
    fault = Fault(provider="openai", status=status, error=error_object(body), headers=headers or {})
    return openai_faults.error_of(fault)


def quota(name: str) -> list[dict[str, Any]]:
    violation = {"quotaId": f"GenerateRequestsPer{name}PerProjectPerModel"}
    return [{"error": {"code": 429, "message": "quota", "details": [{"violations": [violation]}, RETRY]}}]


def test_a_wait_told_in_the_body_is_kept() -> None:
    error = error_of(429, quota("Minute"))
    assert isinstance(error, RateLimitError)
    assert error.retry_after == 7.5


def test_a_wait_told_in_a_header_goes_before_the_bodys() -> None:
    assert error_of(429, quota("Minute"), {"retry-after": "3"}).retry_after == 3


def test_a_reset_among_headers_in_the_body_is_a_moment_in_milliseconds() -> None:
    headers = {"X-RateLimit-Remaining": "0", "X-RateLimit-Reset": "1700000012000"}
    assert told_wait_s({"metadata": {"headers": headers}}, now=lambda: 1_700_000_000.0) == 12
    assert told_wait_s({"metadata": {"headers": headers | {"X-RateLimit-Remaining": "3"}}}) is None


@pytest.mark.parametrize("body", [quota("Day"), {"error": {"message": "Quota exceeded for metric: x, limit: 0"}}])
def test_a_quota_that_no_wait_fills_ends_the_run(body: Any) -> None:
    assert isinstance(error_of(429, body), RejectedError)


def test_a_limit_a_day_that_runs_on_is_waited_for() -> None:
    body = {"error": {"message": "Rate limit reached on requests per day (RPD): Limit 200.", "code": "rate_limit"}}
    assert isinstance(error_of(429, body), RateLimitError)
    assert isinstance(error_of(429, quota("Day"), {"retry-after": "30"}), RateLimitError)


def test_bedrocks_day_is_no_rate() -> None:
    fault = Fault(provider="anthropic", status=429, error={"message": "Too many tokens per day, please wait"})
    assert isinstance(anthropic_faults.error_of(fault), RejectedError)


def test_one_402_passes_and_the_others_do_not() -> None:
    for source, kind in (("openrouter_in_flight_budget", RateLimitError), ("openrouter_credits", RejectedError)):
        body = {"error": {"code": 402, "message": "no", "metadata": {"limit_source": source}}}
        assert isinstance(error_of(402, body, {"retry-after": "2"}), kind)


def test_the_host_behind_a_gateway_is_heard() -> None:
    raw = '{"error": {"message": "This model\'s maximum context length is 10 tokens"}}'
    error = error_of(400, {"error": {"code": 400, "message": "Provider returned error", "metadata": {"raw": raw}}})
    assert isinstance(error, TooLongError)


def test_what_moderation_flagged_is_about_these_rows_alone() -> None:
    body = {"error": {"code": 403, "message": "no", "metadata": {"flagged_input": "…"}}}
    assert isinstance(error_of(403, body), BlockedError)
    assert isinstance(error_of(403, {"error": {"code": 403, "message": "no"}}), RejectedError)


@pytest.mark.parametrize("reason", ["SAFETY", "RECITATION", "PROHIBITED_CONTENT", "content_filter"])
def test_a_filters_word_in_any_dialect_is_a_filter_even_without_a_message(reason: str) -> None:
    provider = wire("openai", api="chat", model="m")
    reply = provider.parse(json.dumps({"choices": [{"finish_reason": reason}]}))
    assert reply.stop is Stop.FILTERED


def test_comments_before_a_reply_are_passed_over() -> None:
    provider = wire("openai", api="chat", model="m")
    text = '\n: PROCESSING\n\n: PROCESSING\n\n{"choices": [{"finish_reason": "stop", "message": {"content": "x"}}]}'
    assert provider.parse(text).text == "x"


def test_a_prompt_that_azures_filter_stopped_without_a_choice_is_filtered() -> None:
    found = '{"choices": [], "prompt_filter_results": [{"content_filter_results": {"hate": {"filtered": true}}}]}'
    assert wire("openai", api="chat", model="m").parse(found).stop is Stop.FILTERED


def test_a_sign_ins_token_is_hidden() -> None:
    assert hide_keys("for eyJhbGciOiJIUzI1NiJ9.eyJzdWIi.c2ln now") == "for (key) now"


def test_rows_are_counted_in_a_copy_of_the_schema_and_what_is_no_array_is_left_alone() -> None:
    schema = {"properties": {"all_results": {"type": "array"}}}
    assert with_count(schema, "[1, 2, 3]")["properties"]["all_results"]["maxItems"] == 3
    assert schema == {"properties": {"all_results": {"type": "array"}}}
    for user in ("hello", "{}", "[]", None):
        assert with_count(schema, user) is schema


def test_only_a_local_model_is_told_how_many_answers_there_are() -> None:
    from dataclasses import replace

    from scripted_server import task_of

    from lmsyz.providers.base import Form

    task = task_of("openai", schema={"tone": str})
    provider = wire("openai", api="chat", model="m")
    for endpoint, counted in (("local", True), ("https://api.openai.com/v1", False)):
        body = provider.build(replace(task, endpoint=endpoint), "[{}, {}]", Form.SCHEMA)
        results = body["response_format"]["json_schema"]["schema"]["properties"]["all_results"]
        assert ("maxItems" in results) is counted
