"""Whose client sends: its key, its headers, its paths, and what is refused as a client."""

from __future__ import annotations

import gc
import json
import traceback
from typing import Any

import anthropic
import openai
import pytest
from scripted_server import MESSAGES_REPLY, REPLIES, Step, body_of, provider_at, scripted, task_of

from lmsyz.errors import MissingKeyError, RejectedError, UnavailableError, UsageError
from lmsyz.providers import base_url_of, connect, wire
from lmsyz.providers.base import Call, Form, call_options, dump_body

BOTH = pytest.mark.parametrize("backend", ["openai", "anthropic"])
KEY = "sk-test-0123456789abcdef"


# --- keys -----------------------------------------------------------------------------------------------------------


@BOTH
def test_an_error_never_shows_the_key_not_even_one_that_the_server_repeats(backend: str) -> None:
    key = "my private token 42".replace(" ", "")
    said = {"error": {"message": f"Incorrect API key provided: {key}. Or sk-proj-abcd****wxyz?", "type": "auth"}}
    with scripted(Step(status=401, body=said)) as server, provider_at(server, backend, api_key=key) as provider:
        with pytest.raises(RejectedError, match="Incorrect API key provided") as caught:
            provider.send(body_of(backend), Call())
        shown = "".join(traceback.format_exception(caught.value)) + repr(caught.value) + str(vars(caught.value))
    assert key not in shown
    assert "wxyz" not in shown


@BOTH
@pytest.mark.parametrize("key", ["sk-ab\ncd", "sk-“quoted”", "two words"])
def test_a_key_that_cannot_be_sent_is_refused_without_showing_it(backend: str, key: str) -> None:
    with pytest.raises(UsageError, match="copy it again") as caught:
        connect(backend, api="chat", model="m", api_key=key)
    assert key not in str(caught.value)


@BOTH
def test_a_header_that_cannot_be_sent_ends_the_call_without_showing_it(backend: str) -> None:
    secret = "hu-sh".replace("-", "")
    with (
        scripted({}) as server,
        provider_at(server, backend) as provider,
        pytest.raises(RejectedError, match="cannot be sent") as caught,
    ):
        provider.send(body_of(backend), Call(headers={"X-Secret": f"{secret}\n{secret}"}))
    assert secret not in "".join(traceback.format_exception(caught.value))
    assert server.asked == []


@BOTH
@pytest.mark.parametrize("key", [None, "", "   "])
def test_no_key_is_one_clear_error(backend: str, key: str | None) -> None:
    variable = f"{backend.upper()}_API_KEY"
    with pytest.raises(MissingKeyError, match=f"{variable}.*api_key=.*sandbox"):
        connect(backend, api="chat", model="m", api_key=key)


def test_a_client_of_anthropics_without_a_key_is_told_of_at_the_first_call(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("ANTHROPIC_API_KEY", "ANTHROPIC_AUTH_TOKEN", "ANTHROPIC_PROFILE"):
        monkeypatch.delenv(name, raising=False)
    with scripted(MESSAGES_REPLY) as server:
        theirs = anthropic.Anthropic(base_url=server.url)
        with (
            provider_at(server, "anthropic", client=theirs) as provider,
            pytest.raises(RejectedError, match="authentication"),
        ):
            provider.send(body_of("anthropic"), Call())
    assert server.asked == []


# --- clients of the user's own --------------------------------------------------------------------------------------


def test_an_azure_client_keeps_its_path_its_version_and_its_key() -> None:
    with scripted(REPLIES["openai"]) as server:
        theirs = openai.AzureOpenAI(api_key="azure-key", api_version="2026-01-01", azure_endpoint=server.url)
        with provider_at(server, "openai", client=theirs) as provider:
            provider.send(body_of("openai", model="my-deployment"), Call())
    asked = server.asked[0]
    assert asked.path == "/openai/deployments/my-deployment/chat/completions?api-version=2026-01-01"
    assert asked.headers["api-key"] == "azure-key"


def test_a_bedrock_client_keeps_its_path_and_the_body_stays_as_it_was() -> None:
    body = body_of("anthropic", model="anthropic.claude-haiku-4-5")
    before = dump_body(body)
    with scripted(MESSAGES_REPLY) as server:
        theirs = anthropic.AnthropicBedrock(api_key="bedrock", aws_region="eu-west-1", base_url=server.url)
        with provider_at(server, "anthropic", client=theirs) as provider:
            provider.send(body, Call())
    assert server.asked[0].path == "/model/anthropic.claude-haiku-4-5/invoke"
    assert dump_body(body) == before


@BOTH
def test_a_clients_default_headers_and_query_are_kept(backend: str) -> None:
    kind = openai.OpenAI if backend == "openai" else anthropic.Anthropic
    with scripted(REPLIES[backend]) as server:
        theirs = kind(
            api_key=KEY, base_url=server.url + "/gw", default_headers={"X-Gate": "a"}, default_query={"tenant": "b"}
        )
        with provider_at(server, backend, client=theirs) as provider:
            provider.send(body_of(backend), Call(query={"trace": 1}))
    asked = server.asked[0]
    assert asked.headers["x-gate"] == "a"
    assert asked.path.startswith("/gw/")
    assert asked.path.endswith("?tenant=b&trace=1")


def test_a_call_can_ask_for_an_older_version_of_the_api_and_its_sampling_options() -> None:
    options = {"extra_body": {"temperature": 0}, "extra_headers": {"anthropic-version": "2023-06-01"}}
    with scripted(MESSAGES_REPLY) as server, provider_at(server, "anthropic") as provider:
        provider.send(body_of("anthropic", **options), call_options(options, deadline_s=60))
    assert server.asked[0].headers["anthropic-version"] == "2023-06-01"
    assert server.asked[0].body["temperature"] == 0


def test_a_client_over_the_older_transport_works_and_its_faults_are_ours() -> None:
    httpx = pytest.importorskip("httpx")
    with scripted(REPLIES["openai"], Step(body={"a": "b" * 99}, cut=True)) as server, httpx.Client() as transport:
        theirs = openai.OpenAI(api_key=KEY, base_url=server.url, http_client=transport)
        provider = connect("openai", api="chat", model="m", client=theirs)
        assert provider.parse(provider.send(body_of("openai"), Call()).text).model == "gpt-6-luna-2026-08-01"
        with pytest.raises(UnavailableError, match="the connection to"):
            provider.send(body_of("openai"), Call())


@pytest.mark.parametrize(
    ("backend", "client", "message"),
    [
        ("openai", object(), r"openai\.OpenAI\(\.\.\.\), got builtins\.object"),
        ("openai", openai, r"got builtins\.module"),
        ("openai", openai.OpenAI, r"got openai\.OpenAI"),
        ("anthropic", "sk-ant-key", r"anthropic\.Anthropic\(\.\.\.\), got builtins\.str"),
        ("openai", openai.AsyncOpenAI(api_key="k"), r"synchronous client: openai\.OpenAI"),
        ("anthropic", type("Mine", (anthropic.AsyncAnthropic,), {})(api_key="k"), r"synchronous client: anthropic\.A"),
        ("openai", anthropic.Anthropic(api_key="k"), r"say backend='anthropic'"),
        ("anthropic", openai.OpenAI(api_key="k"), r"say backend='openai'"),
    ],
)
def test_what_is_no_client_of_the_backend_is_refused(backend: str, client: Any, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        connect(backend, api="chat", model="m", client=client)
    with pytest.raises(UsageError, match=message):
        base_url_of(backend, client, None)


def test_the_place_requests_go_to_is_known_before_any_is_sent() -> None:
    client = openai.OpenAI(api_key="k", base_url="http://127.0.0.1:1/v1/")
    assert base_url_of("openai", client, None) == "http://127.0.0.1:1/v1"
    assert base_url_of("openai", None, None) == "https://api.openai.com/v1"
    assert base_url_of("anthropic", None, "http://127.0.0.1:2/") == "http://127.0.0.1:2"


def test_an_address_in_the_environment_does_not_override_the_default(monkeypatch: pytest.MonkeyPatch) -> None:
    # Settings have read the environment already; the SDK reading it again could send a key elsewhere than said.
    monkeypatch.setenv("OPENAI_BASE_URL", "http://127.0.0.1:9/v1")
    provider = connect("openai", api="chat", model="m", api_key="k")
    assert str(provider.client.base_url) == "https://api.openai.com/v1/"
    provider.client.close()


@BOTH
def test_a_provider_closes_the_client_that_is_ours_and_no_other(backend: str) -> None:
    kind = openai.OpenAI if backend == "openai" else anthropic.Anthropic
    with kind(api_key=KEY) as theirs:
        connect(backend, api="chat", model="m", client=theirs).close()
        assert not theirs.is_closed()
    ours = connect(backend, api="chat", model="m", api_key=KEY)
    ours.close()
    assert ours.client.is_closed()


@BOTH
def test_a_provider_that_nobody_closed_leaves_no_socket_open(backend: str) -> None:
    with scripted(REPLIES[backend]) as server:
        provider: Any = connect(backend, api="chat", model="m", api_key=KEY, base_url=server.url)
        provider.send(body_of(backend), Call())
        client = provider.client
        provider.myself = provider  # as an engine and its parts hold each other
        del provider
        gc.collect()
        assert client.is_closed()


def test_a_provider_without_a_client_builds_and_reads_and_says_that_it_cannot_send() -> None:
    provider = wire("openai", api="chat", model="gpt-6-luna")
    body = provider.build(task_of("openai"), "hello", Form.OBJECT)
    assert provider.parse(json.dumps(REPLIES["openai"])).usage.input_tokens == 12
    with pytest.raises(UsageError, match="connect"):
        provider.send(body, Call())
