"""The way of a body to a server and back: keys, headers, deadlines, retries, and what is refused as a client."""

from __future__ import annotations

import json
import socket
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import anthropic
import httpx2
import openai
import pytest
from scripted_server import MESSAGES_REPLY, REPLIES, Step, body_of, provider_at, scripted

from lmsyz.errors import (
    ProviderError,
    RateLimitError,
    UnavailableError,
    UsageError,
)
from lmsyz.providers import connect
from lmsyz.providers.base import Call, call_options, dump_body

BOTH = pytest.mark.parametrize("backend", ["openai", "anthropic"])
KEY = "sk-test-0123456789abcdef"
QUICK = Call(deadline_s=0.15)


@BOTH
def test_what_is_stored_as_the_body_is_what_goes_over_the_wire_byte_for_byte(backend: str) -> None:
    text = '[{"input_text": "Größe, 漢字, \\u2028 \\" \\\\ \\n, 🙂"}]\u2028\u0085'
    body = body_of(backend, text, extra_body={"ratio": 1e-07, "none": None, "list": [1, 2.5, True]})
    with scripted(REPLIES[backend]) as server, provider_at(server, backend) as provider:
        provider.send(body, Call())
    assert server.asked[0].raw == dump_body(body).encode()
    assert server.asked[0].headers["content-type"] == "application/json"


@BOTH
def test_the_key_and_the_sdks_own_headers_are_sent(backend: str) -> None:
    with scripted(REPLIES[backend]) as server, provider_at(server, backend) as provider:
        provider.send(body_of(backend), Call())
    asked = server.asked[0]
    assert asked.headers["authorization"] == f"Bearer {KEY}"
    assert asked.path == ("/v1/chat/completions" if backend == "openai" else "/v1/messages")
    assert ("anthropic-version" in asked.headers) is (backend == "anthropic")
    assert asked.headers["user-agent"].startswith(("OpenAI", "Anthropic"))


@BOTH
def test_extra_headers_and_query_travel_beside_the_body(backend: str) -> None:
    options = {"extra_headers": {"X-Team": "nlp"}, "extra_query": {"trace": "1"}, "timeout": 5, "seed": 7}
    body = body_of(backend, **options)
    with scripted(REPLIES[backend]) as server, provider_at(server, backend) as provider:
        provider.send(body, call_options(options, deadline_s=60.0))
    asked = server.asked[0]
    assert asked.headers["x-team"] == "nlp"
    assert asked.path.endswith("?trace=1")
    assert asked.body["seed"] == 7
    assert not {"extra_headers", "extra_query", "timeout"} & set(asked.body)


@BOTH
def test_what_comes_back_is_the_exact_text_with_its_headers(backend: str) -> None:
    reply = Step(body=json.dumps(REPLIES[backend], indent=1).encode(), headers={"X-Request-Id": "req_7"})
    with scripted(reply) as server, provider_at(server, backend) as provider:
        raw = provider.send(body_of(backend), Call())
    assert raw.text.encode() == reply.payload
    assert raw.request_id == "req_7"
    assert 0 < raw.latency_s < 60


@BOTH
def test_hundreds_of_calls_share_a_few_connections(backend: str) -> None:
    failing = [Step(status=429, body={"error": {"message": "slow down"}})] * 20
    with scripted(*failing, REPLIES[backend]) as server, provider_at(server, backend, connections=4) as provider:
        body = body_of(backend)

        def send(_: int) -> str:
            try:
                return provider.send(body, Call(deadline_s=20)).text
            except RateLimitError:
                return ""

        with ThreadPoolExecutor(4) as pool:
            texts = list(pool.map(send, range(500)))
    assert texts.count("") == 20
    assert server.n_connections <= 8


@BOTH
@pytest.mark.parametrize("status", [408, 409, 429, 500, 529])
def test_a_failure_is_sent_once_also_by_a_client_that_would_retry(backend: str, status: int) -> None:
    kind = openai.OpenAI if backend == "openai" else anthropic.Anthropic
    with scripted(Step(status=status, body={"error": {"message": "no"}})) as server:
        theirs = kind(api_key=KEY, base_url=server.url, max_retries=5)
        with provider_at(server, backend, client=theirs) as provider, pytest.raises(ProviderError):
            provider.send(body_of(backend), Call(deadline_s=5))
    assert len(server.asked) == 1
    assert theirs.max_retries == 5


def test_a_request_for_more_than_the_sdk_sends_without_streaming_is_sent() -> None:
    with scripted(MESSAGES_REPLY) as server, provider_at(server, "anthropic") as provider:
        provider.send(body_of("anthropic", max_tokens=64_000), Call())
    assert server.asked[0].body["max_tokens"] == 64_000


# --- deadlines ------------------------------------------------------------------------------------------------------


@BOTH
@pytest.mark.parametrize(
    "step",
    [
        Step(body={}, before_s=30),
        Step(body={"a": 1}, hang=True),
        Step(body=b" " * 500, trickle_s=0.05),
        Step(status=500, body=b" " * 500, trickle_s=0.05),
        Step(status=400, body={"error": "x"}, hang=True),
    ],
    ids=["silent", "headers only", "trickle", "trickled error", "error headers only"],
)
def test_a_call_ends_at_its_deadline(backend: str, step: Step) -> None:
    with scripted(step) as server, provider_at(server, backend) as provider:
        started = time.monotonic()
        with pytest.raises(UnavailableError, match=r"0\.15 s|did not end in time|timed out"):
            provider.send(body_of(backend), QUICK)
        assert time.monotonic() - started < 5


@BOTH
def test_a_connection_is_used_again_after_a_call_that_ran_out_of_time(backend: str) -> None:
    with (
        scripted(Step(body={}, before_s=30), REPLIES[backend]) as server,
        provider_at(server, backend, connections=1) as provider,
    ):
        for _ in range(10):
            with pytest.raises(UnavailableError):
                provider.send(body_of(backend), Call(deadline_s=0.05))
            server._steps.insert(0, Step(body={}, before_s=30))
        server._steps[:] = [Step(body=REPLIES[backend])]
        assert provider.parse(provider.send(body_of(backend), Call(deadline_s=20)).text).text == '{"all_results":[]}'


@BOTH
def test_the_body_may_take_what_the_headers_left_of_the_time_and_is_closed_when_it_is_up(backend: str) -> None:
    seen: list[float] = []
    closed: list[bool] = []

    class Body(httpx2.SyncByteStream):
        def __init__(self, request: httpx2.Request) -> None:
            self.request = request

        def __iter__(self) -> Iterator[bytes]:
            while True:
                seen.append(self.request.extensions["timeout"]["read"])
                yield b" "
                time.sleep(0.05)

        def close(self) -> None:
            closed.append(True)

    def answer(request: httpx2.Request) -> httpx2.Response:
        time.sleep(0.1)
        return httpx2.Response(200, stream=Body(request))

    kind = openai.OpenAI if backend == "openai" else anthropic.Anthropic
    with httpx2.Client(transport=httpx2.MockTransport(answer)) as transport:
        theirs = kind(api_key=KEY, base_url="http://127.0.0.1:1", http_client=transport)
        provider = connect(backend, api="chat", model="m", client=theirs)
        with pytest.raises(UnavailableError, match=r"had not finished its answer after 0\.3 s"):
            provider.send(body_of(backend), Call(deadline_s=0.3))
    assert 0 < seen[0] < 0.21
    assert closed


@BOTH
def test_a_clients_own_timeout_holds_unless_the_call_names_one(backend: str) -> None:
    kind = openai.OpenAI if backend == "openai" else anthropic.Anthropic
    with scripted(Step(body=REPLIES[backend], before_s=0.3)) as server:
        theirs = kind(api_key=KEY, base_url=server.url, timeout=0.1)
        with provider_at(server, backend, client=theirs) as provider:
            with pytest.raises(UnavailableError, match=r"0\.1 s"):
                provider.send(body_of(backend), Call(deadline_s=600))
            provider.send(body_of(backend), call_options({"timeout": 20}, deadline_s=600))


@pytest.mark.parametrize("timeout", [0, -1, True, "30", float("nan")])
def test_a_timeout_that_is_none_is_refused(timeout: object) -> None:
    with pytest.raises(UsageError, match="timeout="):
        call_options({"timeout": timeout}, deadline_s=600)


def test_an_sdks_timeout_object_is_understood() -> None:
    assert call_options({"timeout": httpx2.Timeout(7, connect=1)}, deadline_s=600).deadline_s == 7


# --- the network ----------------------------------------------------------------------------------------------------


@BOTH
@pytest.mark.parametrize("step", [Step(drop=True), Step(body={"a": "b" * 99}, cut=True)], ids=["dropped", "cut"])
def test_a_broken_connection_is_worth_another_try(backend: str, step: Step) -> None:
    with (
        scripted(step) as server,
        provider_at(server, backend) as provider,
        pytest.raises(UnavailableError, match="the connection to") as caught,
    ):
        provider.send(body_of(backend), Call())
    assert caught.value.status is None


@BOTH
def test_a_server_that_is_not_there_is_named(backend: str) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{free.getsockname()[1]}"
    with provider_at(url, backend) as provider, pytest.raises(UnavailableError, match=rf"{url} failed: .*refused"):
        provider.send(body_of(backend), Call())


@BOTH
@pytest.mark.parametrize(
    "body", [b"<html><head><title>Sign in</title></head></html>", b"null", b"[1]", b"", b"7", b"{}"]
)
def test_a_200_that_is_no_reply_says_what_came(backend: str, body: bytes) -> None:
    with scripted(Step(body=body)) as server, provider_at(server, backend) as provider:
        raw = provider.send(body_of(backend), Call())
        with pytest.raises(UnavailableError, match=r"no .* reply: .*base_url") as caught:
            provider.parse(raw.text)
    assert caught.value.status == 200


@BOTH
def test_a_body_without_end_is_not_read_to_its_end(backend: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("lmsyz.providers.sending.LARGEST_REPLY", 1 << 20)
    with (
        scripted(Step(body=b" " * (3 << 20))) as server,
        provider_at(server, backend) as provider,
        pytest.raises(UnavailableError, match="more than 1 MiB"),
    ):
        provider.send(body_of(backend), Call())
