"""Any bytes from a server that claims to be a provider: a flagged row or one clear error, never more than that."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from hostile import GOOD, KEY, MIB, answers, ask, both, outcome, reply
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from scripted_server import ScriptedServer, Step, body_of, provider_at, scripted

import lmsyz
from lmsyz.errors import ProviderError
from lmsyz.providers.base import Call
from lmsyz.widgets.cache_model import CacheModel

DEEP = 100_000
DIGITS = "9" * 5000

NO_REPLIES = {
    "deep lists": b"[" * DEEP + b"]" * DEEP,
    "deep objects": b'{"a":' * DEEP + b"1" + b"}" * DEEP,
    "unfinished": b'{"choices": [',
    "not a number": b"NaN",
    "infinite": b"-Infinity",
    "a huge number": DIGITS.encode(),
    "a huge number inside": b'{"choices": [], "content": [], "created": ' + DIGITS.encode() + b"}",
    "null": b"null",
    "a text": b'"hello"',
    "nothing": b"",
    "no text at all": b"\xff\xfe\x00\x80" * 50,
    "a page": b"<!doctype html><html><script>alert(1)</script></html>",
    "blanks": b" " * MIB,
    "half a pair": b'"\\ud800"',
    "an empty object": b"{}",
    "wrong types": b'{"choices": {"0": []}, "content": "text", "usage": [], "model": {}, "stop_reason": 5}',
    "lists of nothing": b'{"choices": [null, 1, "x"], "content": [null, 1, "x"]}',
    "an error as a list": b'{"error": [[[]]]}',
    "an error of odd codes": '{"error": {"code": "²", "type": "³", "message": 5}}'.encode(),
    "an error of huge codes": json.dumps({"error": {"code": DIGITS, "type": DIGITS, "message": "no"}}).encode(),
    "a deep error": b'{"error": {"message": ' + b'{"a":' * 960 + b"1" + b"}" * 960 + b"}}",
    "an error with half a pair": b'{"error": {"message": "\\ud800", "code": "\\udfff"}}',
}


@both
@pytest.mark.parametrize("body", NO_REPLIES.values(), ids=NO_REPLIES)
@pytest.mark.parametrize("status", [200, 400])
def test_what_is_no_reply_is_one_clear_error(body: bytes, status: int, backend: str) -> None:
    with scripted(Step(status=status, body=body)) as server:
        assert outcome(server, backend)


CONTENT = {
    "deep": '{"all_results":' + "[" * DEEP + "]" * DEEP + "}",
    "deep in a row": '{"all_results":[{"input_id":"r1","n":' + "[" * DEEP + "]" * DEEP + "}]}",
    "not a number": '{"all_results":[{"input_id":"r1","n":NaN,"word":"a"},{"input_id":"r2","n":Infinity,"word":"a"}]}',
    "beyond floats": '{"all_results":[{"input_id":"r1","n":1e999,"word":"a"},{"input_id":"r2","n":-1e999,"word":"a"}]}',
    "too many digits": '{"all_results":[{"input_id":"r1","n":' + DIGITS + ',"word":"a"}]}',
    "beyond 64 bits": answers([{"input_id": i, "n": 10**30, "word": "a"} for i in ("r1", "r2")]),
    "half a pair": '{"all_results":[{"input_id":"r1","n":1,"word":"\\ud800"},{"input_id":"r2","word":"\\udfff"}]}',
    "ids of other types": answers([{"input_id": i, "n": 1, "word": "a"} for i in (None, True, 1.5, ["r1"], {"r1": 1})]),
    "ids of other rows": answers([{"input_id": f"r{i}", "n": 1, "word": "a"} for i in range(3, 3000)]),
    "every answer twice": answers([*GOOD, *GOOD]),
    "nothing": "",
    "a page": "<html><script>alert(1)</script></html>",
    "nuls": "\0" * 1000,
    "ten million letters": "x" * 10_000_000,
}


@both
@pytest.mark.parametrize("text", CONTENT.values(), ids=CONTENT)
def test_an_answer_that_cannot_be_used_flags_its_rows(text: str, backend: str) -> None:
    with scripted(Step(body=reply(backend, text))) as server:
        assert outcome(server, backend)


@both
def test_of_a_key_that_comes_twice_in_an_object_one_value_counts_and_no_row_gets_anothers(backend: str) -> None:
    text = '{"all_results":[{"input_id":"r2","input_id":"r1","n":1,"word":"x"},{"input_id":"r2","n":2,"word":"y"}]}'
    with scripted(Step(body=reply(backend, text))) as server:
        out = ask(server, backend)
    assert out["n"].tolist() == [1, 2]


@both
def test_a_refusal_in_odd_characters_is_shown_whole(backend: str) -> None:
    body = json.loads(reply(backend, "no"))
    if backend == "openai":
        body["choices"][0]["message"]["refusal"] = f"\ud800 <script> \x1b[2J {KEY}"
    else:
        body |= {"stop_reason": "refusal", "stop_details": {"explanation": f"\ud800 <script> \x1b[2J {KEY}"}}
    with scripted(Step(body=json.dumps(body).encode())) as server:
        said = outcome(server, backend)
    assert said.startswith("refused: the model refused (\ufffd <script> \ufffd[2J (key))")
    assert "<script>" not in lmsyz.last_run()._repr_html_()


def with_usage(backend: str, value: object) -> dict[str, Any]:
    names = ["prompt_tokens", "completion_tokens", "input_tokens", "output_tokens", "cache_read_input_tokens"]
    return {"usage": dict.fromkeys(names, value) | {"prompt_tokens_details": {"cached_tokens": value}}}


@both
@pytest.mark.parametrize(
    "value",
    [-5, 2**63, 2**62, 10**400, int("9" * 4299), "12", 1.5, True, None, [], float("nan"), float("inf")],
    ids=str,
)
def test_odd_token_counts_cost_no_answer(value: object, backend: str) -> None:
    with scripted(Step(body=reply(backend, answers(), **with_usage(backend, value)))) as server:
        out = ask(server, backend)
        assert out["n"].tolist() == [1, 2]
        assert "usage" not in repr(lmsyz.last_run())
        again = ask(server, backend)
        assert len(server.asked) == 1
    pd.testing.assert_frame_equal(out, again)


ODD_HEADERS: dict[str, dict[str, str]] = {
    "another type": {"content-type": "text/html; charset=utf-16"},
    "an unknown charset": {"content-type": "application/json; charset=\xff\xfe"},
    "an image": {"content-type": "image/png"},
    "limits": {
        "x-ratelimit-limit-requests": DIGITS,
        "x-ratelimit-remaining-requests": "-1e999",
        "x-ratelimit-reset-requests": "9" * 400 + "d",
        "anthropic-ratelimit-requests-limit": "1e308",
        "anthropic-ratelimit-requests-remaining": "\xb3",
        "anthropic-ratelimit-requests-reset": "0001-01-01T00:00:00+14:00",
        "retry-after": "99999999999999999999999",
    },
    "ids": {"x-request-id": "\xff" * 1000, "request-id": "<script>" * 100},
    "a cookie": {"set-cookie": "a=b; domain=.example.com"},
}


@both
@pytest.mark.parametrize("headers", ODD_HEADERS.values(), ids=ODD_HEADERS)
def test_odd_headers_cost_no_answer(headers: dict[str, str], backend: str) -> None:
    with scripted(Step(body=reply(backend, answers()), headers=headers)) as server:
        assert ask(server, backend)["n"].tolist() == [1, 2]


@both
def test_a_reply_that_is_not_utf8_keeps_what_is(backend: str) -> None:
    rows = [GOOD[0] | {"word": "na@ve"}, GOOD[1]]
    with scripted(Step(body=reply(backend, answers(rows)).replace(b"@", b"\xef"))) as server:
        assert ask(server, backend)["word"].tolist() == ["na\ufffdve", "two"]


@both
def test_free_answers_of_any_shape_are_stored_read_back_and_exported(backend: str, tmp_path: Path) -> None:
    odd = {"a": "\ud800", "b": [{"c": None}], "d": 10**25, "": "=1+1", "ie_error": "mine", "e\0": 1e308, "index": 3}
    rows = [{"input_id": "r1"} | odd, {"input_id": "r2", "a": 5, "d": "x"}]
    with scripted(Step(body=reply(backend, answers(rows)))) as server:
        out = ask(server, backend, schema=None)
        again = ask(server, backend, schema=None)
        assert len(server.asked) == 1
    assert out["ie_error"].isna().all()
    pd.testing.assert_frame_equal(out, again)
    assert out["a"].tolist() == ["\ufffd", 5]
    model = CacheModel("lmsyz_cache.sqlite")
    for guard in (True, False):
        assert model.export(tmp_path / f"out-{guard}.csv", guard=guard).stat().st_size


@both
@pytest.mark.parametrize("depth", [99, 100, 500, 900])
def test_a_deeply_nested_answer_flags_its_row_and_no_other(depth: int, backend: str) -> None:
    text = '{"all_results":[{"input_id":"r1","a":' + "[" * depth + "]" * depth + '},{"input_id":"r2","a":1}]}'
    with scripted(Step(body=reply(backend, text))) as server:
        out = ask(server, backend, schema=None)
    assert out["ie_error"].isna().tolist() == [depth < 100, True]
    assert out["a"][1] == 1
    assert depth < 100 or out["ie_error"][0] == "invalid: the answer is nested too deeply"


JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(max_size=20)
    | st.sampled_from(["r1", "r2", "input_id", "\ud800", DIGITS, "stop", "length", "refusal", "completed", KEY]),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(
            st.sampled_from(
                [
                    "choices",
                    "message",
                    "content",
                    "text",
                    "type",
                    "finish_reason",
                    "stop_reason",
                    "usage",
                    "error",
                    "code",
                    "status",
                    "input_tokens",
                    "prompt_tokens",
                    "model",
                    "all_results",
                    "input_id",
                    "tool_calls",
                    "refusal",
                    "output",
                    "function",
                    "arguments",
                    "details",
                    "stop_details",
                ]
            )
            | st.text(max_size=5),
            inner,
            max_size=5,
        )
    ),
    max_leaves=20,
)


@both
@settings(max_examples=100, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(payload=JSON, status=st.sampled_from([200, 200, 200, 400, 404, 429, 500]))
def test_any_json_at_all_is_a_reply_or_an_error_of_ours(
    payload: object, status: int, backend: str, station: dict[str, tuple[ScriptedServer, Any]]
) -> None:
    server, provider = station[backend]
    server.play(Step(status=status, body=json.dumps(payload).encode()))
    try:
        provider.parse(provider.send(body_of(backend), Call()).text)
    except ProviderError as error:
        said = str(error)
    else:
        said = ""
    assert KEY not in said


@pytest.fixture(scope="module")
def station() -> Any:
    with (
        scripted({}) as one,
        scripted({}) as other,
        provider_at(one, "openai", api_key=KEY) as gpt,
        provider_at(other, "anthropic", api_key=KEY) as claude,
    ):
        yield {"openai": (one, gpt), "anthropic": (other, claude)}
