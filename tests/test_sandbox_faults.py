"""Every fault as a client sees it, and that a run of faults can be repeated exactly."""

from __future__ import annotations

import http.client
import json
import threading
import time
from collections import Counter
from typing import Any

import anthropic
import openai
import pytest
from known_answers import digest
from sandbox_http import (
    Answered,
    ask_chat,
    ask_messages,
    ask_responses,
    chat_body,
    chat_rows,
    messages_body,
    row_schema,
    rows,
)

import lmsyz.sandbox
from lmsyz.errors import UsageError
from lmsyz.sandbox.faults import Faults
from lmsyz.sandbox.limits import Limits

DIGEST = row_schema({"digest": {"type": "string"}})
TEXTS = [f"Text number {i} of many." for i in range(10)]


def packed(n: int, size: int = 10) -> list[str]:
    """User messages of `size` rows each, all different; row rK holds the text ``text K of <message>``."""
    return [rows(*(f"text {k} of {i}" for k in range(size))) for i in range(n)]


def asked(url: str, n: int = 40, **more: Any) -> list[Answered]:
    return [ask_chat(url, user, DIGEST, **more) for user in packed(n)]


@pytest.mark.parametrize(
    ("kind", "openai_status", "openai_code", "anthropic_status", "anthropic_type"),
    [
        ("rate_limited", 429, "rate_limit_exceeded", 429, "rate_limit_error"),
        ("overloaded", 503, "overloaded", 529, "overloaded_error"),
        ("server_error", 500, None, 500, "api_error"),
    ],
)
def test_failed_requests_have_each_apis_own_status_and_words(
    sandbox: Any, kind: str, openai_status: int, openai_code: str, anthropic_status: int, anthropic_type: str
) -> None:
    sandbox.set_faults(**{kind: 1})
    for ask in (ask_chat, ask_responses):
        answered = ask(sandbox.url)
        assert (answered.status, answered.error["code"]) == (openai_status, openai_code)
        assert answered.headers["x-request-id"]
    answered = ask_messages(sandbox.url)
    assert (answered.status, answered.error["type"]) == (anthropic_status, anthropic_type)
    assert answered.headers["request-id"] == answered.body["request_id"]
    assert sandbox.stats()["n_faults"] == {kind: 3}
    assert sandbox.stats()["n_rows"] == 0


def test_a_rate_limit_says_how_long_to_wait(sandbox: Any) -> None:
    sandbox.set_faults(rate_limited=1, retry_after_s=2.5)
    assert ask_chat(sandbox.url).headers["retry-after"] == "2.5"
    assert ask_chat(sandbox.url).headers["retry-after-ms"] == "2500"
    assert ask_messages(sandbox.url).headers["retry-after"] == "2.5"


def test_used_up_credit_is_a_429_of_another_kind(sandbox: Any) -> None:
    sandbox.set_faults(out_of_quota=True)
    for ask in (ask_chat, ask_responses):
        answered = ask(sandbox.url)
        assert (answered.status, answered.error["code"]) == (429, "insufficient_quota")
        assert answered.error["type"] == "insufficient_quota"
        assert "retry-after" not in answered.headers
    with (
        anthropic.Anthropic(api_key="any", base_url=sandbox.anthropic_base_url, max_retries=0) as client,
        pytest.raises(anthropic.RateLimitError) as caught,
    ):
        client.messages.create(**messages_body())
    # Read from the body: the oldest SDK that is supported has no attribute for it.
    assert "enforced_spend_limit_reached" in str(caught.value.body)


def test_a_dropped_connection_is_a_connection_error_in_both_sdks(sandbox: Any) -> None:
    sandbox.set_faults(dropped=1)
    with pytest.raises((http.client.RemoteDisconnected, ConnectionResetError)):
        ask_chat(sandbox.url)
    with (
        openai.OpenAI(api_key="any", base_url=sandbox.openai_base_url, max_retries=0) as client,
        pytest.raises(openai.APIConnectionError),
    ):
        client.chat.completions.create(**chat_body())
    with (
        anthropic.Anthropic(api_key="any", base_url=sandbox.anthropic_base_url, max_retries=0) as other,
        pytest.raises(anthropic.APIConnectionError),
    ):
        other.messages.create(**messages_body())
    stats = sandbox.stats()
    assert stats["n_faults"] == {"dropped": 3}
    assert sum(by["dropped"] for by in stats["n_by_endpoint"].values()) == 3
    assert stats["in_flight"] == 0


def test_what_is_not_a_reply_is_a_page_with_status_200(sandbox: Any) -> None:
    sandbox.set_faults(not_a_reply=1)
    for ask in (ask_chat, ask_messages):
        answered = ask(sandbox.url)
        assert (answered.status, answered.headers["content-type"]) == (200, "text/html; charset=utf-8")
        assert answered.body.startswith("<!doctype html>")


def test_a_refusal_is_in_each_apis_own_place(sandbox: Any) -> None:
    sandbox.set_faults(refused=1)
    message = ask_chat(sandbox.url, rows("a"), DIGEST).body["choices"][0]["message"]
    assert message["content"] is None
    assert "refuses" in message["refusal"]
    part = ask_responses(sandbox.url, rows("a"), DIGEST).body["output"][0]["content"][0]
    assert part["type"] == "refusal"
    body = ask_messages(sandbox.url, rows("a"), DIGEST).body
    assert (body["stop_reason"], body["content"], body["stop_details"]["type"]) == ("refusal", [], "refusal")


def test_a_refused_row_is_refused_for_ever_in_whatever_company(sandbox: Any) -> None:
    sandbox.set_faults(refused=0.3)

    def is_refused(*texts: str) -> bool:
        return ask_chat(sandbox.url, rows(*texts), DIGEST).body["choices"][0]["message"]["refusal"] is not None

    alone = {text: is_refused(text) for text in TEXTS}
    assert 0 < sum(alone.values()) < len(TEXTS)
    assert {text: is_refused(text) for text in TEXTS} == alone
    good, bad = ([t for t in TEXTS if alone[t] is what] for what in (False, True))
    assert not is_refused(*good)
    assert is_refused(*good, bad[0])
    assert ask_messages(sandbox.url, rows(bad[0]), DIGEST).body["stop_reason"] == "refusal"


def test_a_content_filter_stops_the_reply(sandbox: Any) -> None:
    sandbox.set_faults(filtered=1)
    assert ask_chat(sandbox.url).body["choices"][0]["finish_reason"] == "content_filter"
    incomplete = ask_responses(sandbox.url).body
    assert (incomplete["status"], incomplete["incomplete_details"]) == ("incomplete", {"reason": "content_filter"})
    assert ask_messages(sandbox.url).body["stop_reason"] == "refusal"


def test_a_truncated_reply_says_so_and_is_shorter(sandbox: Any) -> None:
    user = rows(*TEXTS)
    whole = ask_chat(sandbox.url, user, DIGEST).body["choices"][0]["message"]["content"]
    sandbox.set_faults(truncated=1)
    choice = ask_chat(sandbox.url, user, DIGEST).body["choices"][0]
    assert choice["finish_reason"] == "length"
    assert whole.startswith(choice["message"]["content"])
    assert 0 < len(choice["message"]["content"]) < len(whole)
    assert ask_responses(sandbox.url, user, DIGEST).body["incomplete_details"] == {"reason": "max_output_tokens"}
    assert ask_messages(sandbox.url, user, DIGEST).body["stop_reason"] == "max_tokens"


def test_a_malformed_reply_is_broken_and_says_nothing(sandbox: Any) -> None:
    sandbox.set_faults(malformed=1)
    for answered in asked(sandbox.url, 30):
        choice = answered.body["choices"][0]
        assert choice["finish_reason"] == "stop"
        with pytest.raises(ValueError, match=r"."):
            json.loads(choice["message"]["content"])
    tool = {"tools": [{"name": "rows", "input_schema": DIGEST}], "tool_choice": {"type": "tool", "name": "rows"}}
    block = ask_messages(sandbox.url, rows("a"), **tool).body["content"][0]
    assert isinstance(block["input"]["all_results"], str)


def row_trouble(url: str, n: int = 40) -> Counter[str]:
    """What is wrong with the rows of `n` replies, each held against the digest of its own text."""
    trouble: Counter[str] = Counter()
    for i, answered in enumerate(asked(url, n)):
        found = chat_rows(answered)
        expected = {f"r{k}": digest(f"text {k} of {i}") for k in range(10)}
        seen = Counter(r["input_id"] for r in found)
        trouble["foreign"] += sum(n for id_, n in seen.items() if id_ not in expected)
        trouble["missing"] += sum(id_ not in seen for id_ in expected)
        trouble["duplicated"] += sum(n - 1 for n in seen.values())
        trouble["wrong"] += sum(expected.get(r["input_id"]) not in (None, r["digest"]) for r in found)
    return +trouble


@pytest.mark.parametrize("kind", ["missing", "duplicated", "foreign"])
def test_rows_are_left_out_repeated_and_added_about_as_often_as_asked(sandbox: Any, kind: str) -> None:
    sandbox.set_faults(**{kind: 0.1})
    trouble = row_trouble(sandbox.url)
    assert 15 < trouble[kind] < 75
    assert trouble[kind] == sandbox.stats()["n_faults"][kind]
    # A repeated id sits on another row's answer, as a model gets it wrong; nothing else may.
    assert trouble["wrong"] == (trouble["duplicated"] if kind == "duplicated" else 0)
    assert sum(trouble.values()) == trouble[kind] + trouble["wrong"]


def test_swapped_rows_have_each_others_answers_and_all_are_there(sandbox: Any) -> None:
    sandbox.set_faults(swapped=0.05)
    trouble = row_trouble(sandbox.url)
    assert set(trouble) == {"wrong"}
    assert sandbox.stats()["n_faults"]["swapped"] < trouble["wrong"] <= 2 * sandbox.stats()["n_faults"]["swapped"]


def test_a_row_alone_cannot_be_swapped(sandbox: Any) -> None:
    sandbox.set_faults(swapped=1)
    assert chat_rows(ask_chat(sandbox.url, rows("a"), DIGEST)) == [{"input_id": "r0", "digest": digest("a")}]


def test_without_faults_nothing_is_wrong(sandbox: Any) -> None:
    assert row_trouble(sandbox.url, 5) == Counter()
    assert sandbox.stats()["n_faults"] == {}


FORMS = {
    "json_schema": {"schema": DIGEST},
    "json_object": {"response_format": {"type": "json_object"}},
    "tool": {
        "tools": [{"type": "function", "function": {"name": "rows", "parameters": DIGEST}}],
        "tool_choice": {"type": "function", "function": {"name": "rows"}},
    },
}
EXAMPLE = json.dumps({"all_results": [{"input_id": "", "digest": "<string>"}]})
MESSAGES_IN_JSON = [{"role": "system", "content": f"JSON: {EXAMPLE}"}, {"role": "user", "content": rows("a")}]


@pytest.mark.parametrize("form", FORMS)
def test_a_refused_form_is_a_400_that_names_it_and_the_others_work(sandbox: Any, form: str) -> None:
    sandbox.set_faults(refused_forms=form)
    statuses = {f: ask_chat(sandbox.url, messages=MESSAGES_IN_JSON, **FORMS[f]).status for f in FORMS}
    assert statuses == {f: 400 if f == form else 200 for f in FORMS}
    answered = ask_chat(sandbox.url, messages=MESSAGES_IN_JSON, **FORMS[form])
    assert ("tools" if form == "tool" else form) in answered.error["message"]
    assert answered.error["param"] == ("tools" if form == "tool" else "response_format")


def test_anthropic_and_responses_refuse_forms_in_their_own_words(sandbox: Any) -> None:
    sandbox.set_faults(refused_forms=("json_schema", "tool"))
    assert ask_messages(sandbox.url, schema=DIGEST).error["message"].startswith("output_config.format")
    tool = {"tools": [{"name": "rows", "input_schema": DIGEST}]}
    assert ask_messages(sandbox.url, **tool).error["message"].startswith("tool_choice")
    assert ask_responses(sandbox.url, schema=DIGEST).error["param"] == "text.format"


@pytest.mark.parametrize("form", FORMS)
def test_an_ignored_form_gets_json_within_prose_by_the_prompts_contract(sandbox: Any, form: str) -> None:
    sandbox.set_faults(ignored_forms=(form,))
    message = ask_chat(sandbox.url, messages=MESSAGES_IN_JSON, **FORMS[form]).body["choices"][0]["message"]
    assert "tool_calls" not in message
    before, fenced, after = message["content"].split("```")
    assert before.strip()
    assert after.strip()
    results = json.loads(fenced.removeprefix("json"))["all_results"]
    assert results == [{"input_id": "r0", "digest": digest("a")}]


def test_a_server_side_cap_cuts_what_is_packed_and_not_what_is_small(sandbox: Any) -> None:
    sandbox.set_faults(max_output_tokens=40)
    assert ask_chat(sandbox.url, rows(*TEXTS), DIGEST).body["choices"][0]["finish_reason"] == "length"
    assert ask_chat(sandbox.url, rows(TEXTS[0]), DIGEST).body["choices"][0]["finish_reason"] == "stop"


def test_a_request_over_the_window_is_a_400_in_each_apis_words(sandbox: Any) -> None:
    sandbox.set_faults(context_tokens=500)
    long = "word " * 600
    chat = ask_chat(sandbox.url, long)
    assert (chat.status, chat.error["code"], chat.error["param"]) == (400, "context_length_exceeded", "messages")
    assert "maximum context length is 500 tokens" in chat.error["message"]
    assert ask_responses(sandbox.url, long).error["code"] == "context_length_exceeded"
    assert ask_messages(sandbox.url, long).error["message"].startswith("prompt is too long: ")
    assert ask_chat(sandbox.url, "short").status == 200


def test_requests_per_minute_are_a_real_limit_with_real_headers(sandbox: Any) -> None:
    sandbox.set_faults(requests_per_minute=120)
    first = ask_chat(sandbox.url)
    assert (first.status, first.headers["x-ratelimit-limit-requests"]) == (200, "120")
    assert first.headers["x-ratelimit-remaining-requests"] == "1"
    assert ask_chat(sandbox.url).status == 200
    third = ask_chat(sandbox.url)
    assert (third.status, third.error["type"], third.error["code"]) == (429, "requests", "rate_limit_exceeded")
    assert 0 < float(third.headers["retry-after"]) <= 0.5
    refused = ask_messages(sandbox.url)
    assert (refused.status, refused.headers["anthropic-ratelimit-requests-limit"]) == (429, "120")
    time.sleep(float(refused.headers["retry-after"]))
    assert ask_chat(sandbox.url).status == 200
    assert sandbox.stats()["n_faults"] == {"requests_per_minute": 2}


def test_tokens_per_minute_are_a_real_limit_too(sandbox: Any) -> None:
    sandbox.set_faults(tokens_per_minute=6000)
    assert ask_chat(sandbox.url, "word " * 700).status == 200
    second = ask_chat(sandbox.url, "word " * 700)
    assert (second.status, second.error["type"]) == (429, "tokens")
    assert float(second.headers["retry-after"]) > 1


def test_limits_fill_up_again_with_time_and_count_replies_too() -> None:
    now = [0.0]
    limits = Limits(Faults(requests_per_minute=60, tokens_per_minute=600), clock=lambda: now[0])
    assert limits.admit(50) is None
    assert limits.admit(1) == ("requests", 1.0)
    now[0] = 1.0
    limits.spend(60)
    blocked = limits.admit(50)
    assert blocked is not None
    assert blocked == ("tokens", pytest.approx(5.0))
    now[0] = 6.0
    assert limits.admit(50) is None
    assert limits.state().requests == (60, 0, 1.0)


def test_a_request_larger_than_any_budget_still_passes_when_the_budget_is_full() -> None:
    assert Limits(Faults(tokens_per_minute=60), clock=lambda: 0.0).admit(5000) is None


def test_latency_does_not_hold_up_other_requests(sandbox: Any) -> None:
    sandbox.set_faults(latency_s=0.3)
    threads = [threading.Thread(target=ask_chat, args=(sandbox.url, f"text {i}")) for i in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sandbox.stats()["max_in_flight"] == 8


def test_a_repeated_request_is_drawn_anew_and_can_fare_better(sandbox: Any) -> None:
    sandbox.set_faults(server_error=0.5)
    statuses = [ask_chat(sandbox.url, "the same").status for _ in range(12)]
    assert set(statuses) == {200, 500}


def outcomes(url: str, order: list[int]) -> dict[str, list[Any]]:
    """What each of some requests gets, twice over, in any order."""
    users = packed(12)
    found: dict[str, list[Any]] = {}
    for i in order:
        answered = ask_chat(url, users[i], DIGEST)
        choice = answered.body.get("choices", [{}])[0]
        found.setdefault(users[i], []).append((answered.status, choice.get("message", {}).get("content")))
    return found


STORM = Faults(server_error=0.2, rate_limited=0.1, malformed=0.1, missing=0.1, swapped=0.1, foreign=0.1)


def test_a_run_of_faults_is_the_same_in_whatever_order_and_another_with_another_seed(sandbox: Any) -> None:
    once, reverse = [*range(12), *range(12)], [*reversed(range(12))] * 2
    with lmsyz.sandbox.start(fresh=True, default=False, faults=STORM, seed=3) as box:
        first = outcomes(box.url, once)
        box.reset()
        assert outcomes(box.url, reverse) == first
    with lmsyz.sandbox.start(fresh=True, default=False, faults=STORM, seed=4) as other:
        assert outcomes(other.url, once) != first


def test_setting_faults_replaces_them_all(sandbox: Any) -> None:
    sandbox.set_faults(server_error=1)
    sandbox.set_faults(Faults(latency_s=0.001), overloaded=1)
    assert ask_chat(sandbox.url).status == 503
    assert sandbox.stats()["faults"] == {"latency_s": 0.001, "overloaded": 1}
    sandbox.set_faults()
    assert ask_chat(sandbox.url).status == 200


@pytest.mark.parametrize(
    ("about", "words"),
    [
        ({"dropped": 1.5}, r"dropped=1\.5 must be a probability"),
        ({"refused": -0.1}, "must be a probability"),
        ({"missing": "often"}, "must be a probability"),
        ({"swapped": True}, "must be a probability"),
        ({"malformed": float("nan")}, "must be a probability"),
        ({"latency_s": -1}, "must be seconds"),
        ({"requests_per_minute": 0}, "at least 1, or None"),
        ({"out_of_quota": 1}, "must be True or False"),
        ({"refused_forms": ("xml",)}, "must be a tuple of 'json_schema', 'tool', 'json_object'"),
        ({"ignored_forms": 5}, "must be a tuple"),
        ({"drop": 1}, "no such fault: 'drop'; the faults are rate_limited"),
    ],
)
def test_wrong_faults_are_refused_before_anything_is_set(sandbox: Any, about: dict[str, Any], words: str) -> None:
    with pytest.raises(UsageError, match=words):
        sandbox.set_faults(**about)
    if "drop" not in about:
        with pytest.raises(UsageError, match=words):
            Faults(**about)
    assert sandbox.stats()["faults"] == {}


def test_faults_that_are_no_faults_are_refused(sandbox: Any) -> None:
    with pytest.raises(UsageError, match=r"must be lmsyz\.sandbox\.Faults"):
        sandbox.set_faults({"dropped": 1})


def test_several_answers_to_one_row_differ_and_keep_to_the_schema(sandbox: Any) -> None:
    from sandbox_http import ask_chat, chat_rows, row_schema, rows

    sandbox.set_faults(several=1)
    found = chat_rows(ask_chat(sandbox.url, rows("a great day"), row_schema()))
    assert [r["input_id"] for r in found] == ["r0"] * 3
    assert {r["tone"] for r in found} == {"positive", "neutral", "negative"}
