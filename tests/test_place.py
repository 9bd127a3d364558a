"""Where requests go, from arguments, settings and the environment; read when a call is made."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from lmsyz.errors import UsageError
from lmsyz.place import Place, find_place
from lmsyz.request_options import split_options
from lmsyz.settings import Settings, load_settings


def place(**about: Any) -> Place:
    names = ("backend", "model", "api", "api_key", "base_url", "client", "quirks")
    return find_place(load_settings(), **(dict.fromkeys(names) | about))


def test_a_call_goes_to_the_providers_own_address_by_default() -> None:
    assert (place().endpoint, place().model, place().api) == ("https://api.openai.com/v1", "gpt-6-luna", "chat")
    other = place(backend="anthropic")
    assert (other.endpoint, other.model, other.api) == ("https://api.anthropic.com", "claude-haiku-5-5", "messages")
    assert not place().has_key


def test_arguments_win_over_the_environment_and_the_environment_over_dotenv(monkeypatch: pytest.MonkeyPatch) -> None:
    Path(".env").write_text("OPENAI_API_KEY=from-file\nOPENAI_BASE_URL=https://file.invalid/v1\nLMSYZ_MODEL=m-file\n")
    assert (place().api_key, place().endpoint, place().model) == ("from-file", "https://file.invalid/v1", "m-file")
    monkeypatch.setenv("OPENAI_API_KEY", "from-env")
    monkeypatch.setenv("LMSYZ_MODEL", "m-env")
    assert (place().api_key, place().model) == ("from-env", "m-env")
    assert (place(api_key="arg").api_key, place(model="m-arg").model) == ("arg", "m-arg")
    assert place(base_url="https://arg.invalid/v1/").endpoint == "https://arg.invalid/v1"


def test_settings_are_read_at_each_call_and_the_model_belongs_to_its_backend(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LMSYZ_BACKEND", "anthropic")
    monkeypatch.setenv("LMSYZ_MODEL", "claude-opus-5-5")
    assert (place().backend, place().model) == ("anthropic", "claude-opus-5-5")
    assert place(backend="openai").model == "gpt-6-luna"


def test_a_sandbox_that_was_asked_for_is_the_default_and_a_given_address_wins(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LMSYZ_SANDBOX_URL", "http://127.0.0.1:1234")
    monkeypatch.setenv("LMSYZ_MODEL", "gpt-6-luna")
    assert (place().endpoint, place().model, place().base_url) == (
        "sandbox",
        "sandbox-rules",
        "http://127.0.0.1:1234/v1",
    )
    assert place(backend="anthropic").base_url == "http://127.0.0.1:1234"
    assert place(base_url="https://real.invalid/v1").endpoint == "https://real.invalid/v1"


def test_a_server_on_this_machine_needs_no_key_and_is_not_the_sandbox() -> None:
    local = place(base_url="http://127.0.0.1:8080/v1", model="llama")
    assert local.has_key
    assert local.endpoint == "http://127.0.0.1:8080/v1"


def test_no_secret_of_an_address_or_a_key_is_in_the_endpoint_or_a_repr() -> None:
    found = place(base_url="https://user:secret@host.invalid/v1?sig=secret", api_key="secret")
    assert found.endpoint == "https://host.invalid/v1"
    assert "secret" not in repr(found)
    assert "secret" not in repr(Settings(_env_file=None, openai_api_key="secret"))


@pytest.mark.parametrize("url", ["localhost:8080", "ftp://x/y", "http://", "nonsense", "http://[::1"])
def test_what_is_no_web_address_is_refused(url: str) -> None:
    with pytest.raises(UsageError, match="no web address"):
        place(base_url=url)


@pytest.mark.parametrize(
    ("name", "value"),
    [("LMSYZ_CHUNK_SIZE", "0"), ("LMSYZ_CHUNK_SIZE", "many"), ("LMSYZ_TIMEOUT", "-1"), ("LMSYZ_PROGRESS", "loud")],
)
def test_a_bad_setting_is_named_and_its_value_is_not_shown(
    monkeypatch: pytest.MonkeyPatch, name: str, value: str
) -> None:
    monkeypatch.setenv(name, value)
    with pytest.raises(UsageError, match=name) as raised:
        load_settings()
    assert f"{value!r}" not in str(raised.value)


def test_our_own_options_are_told_from_the_requests() -> None:
    own, rest = split_options({"api": "responses", "temperature": 0, "requests_per_minute": 5, "timeout": 3})
    assert own == {"api": "responses", "requests_per_minute": 5}
    assert rest == {"temperature": 0, "timeout": 3}
    assert split_options({"extra_body": None})[1] == {"extra_body": None}
    with pytest.raises(UsageError, match="extra_body= takes a dict"):
        split_options({"extra_body": "x"})
    with pytest.raises(UsageError, match="seed= cannot be sent as JSON"):
        split_options({"seed": float("nan")})


@pytest.mark.parametrize(
    ("name", "meant"),
    [
        ("scheme", "schema"),
        ("chunksize", "chunk_size"),
        ("tempreature", "temperature"),
        ("max_token", "max_tokens"),
        ("long_text", "long_texts"),
        ("requests_per_minut", "requests_per_minute"),
        ("time_out", "timeout"),
        ("extra_header", "extra_headers"),
    ],
)
def test_a_misspelt_option_is_refused_with_what_was_meant(name: str, meant: str) -> None:
    with pytest.raises(UsageError, match=rf"{name}= is no option that is known here: did you mean {meant}=\?"):
        split_options({name: 1})
    assert split_options({"extra_body": {name: 1}})[1] == {"extra_body": {name: 1}}


# Of OpenRouter, vLLM, llama.cpp, Groq, Mistral, Cohere and others; some are spelt much like fields of OpenAI's.
FIELDS = (
    *("models", "top_k", "store", "provider", "safe_prompt", "reasoning", "min_tokens", "repeat_penalty", "typical_p"),
    *("reasoning_format", "stop_token_ids", "n_predict", "num_ctx", "guided_json", "prompt_logprobs", "echo", "inputs"),
    *("length_penalty", "chat_template_kwargs", "enable_thinking", "random_seed", "prompt_cache_key", "instruction"),
)


@pytest.mark.parametrize("name", FIELDS)
def test_fields_of_a_servers_own_pass(name: str) -> None:
    assert split_options({name: "x"})[1] == {name: "x"}


@pytest.mark.parametrize("encoding", ["utf-16", "latin-1"])
def test_an_env_file_that_is_not_utf_8_is_named_and_not_shown(encoding: str) -> None:
    Path(".env").write_text("# clé\nOPENAI_API_KEY=sk-mine\n", encoding=encoding)
    with pytest.raises(UsageError, match=r"\.env .* is not UTF-8; save it again as UTF-8") as caught:
        load_settings()
    assert "sk-mine" not in str(caught.value)
    assert caught.value.__suppress_context__


def test_an_empty_setting_counts_as_not_set_and_an_empty_key_hides_the_one_in_env(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    Path(".env").write_text("LMSYZ_CHUNK_SIZE=\nLMSYZ_CACHE_PATH=\nLMSYZ_BACKEND=\nOPENAI_API_KEY=sk-mine\n")
    monkeypatch.setenv("LMSYZ_TIMEOUT", "")
    monkeypatch.setenv("OPENAI_API_KEY", "")
    settings = load_settings()
    assert (settings.chunk_size, settings.timeout, settings.backend) == (5, 600.0, "openai")
    assert settings.cache_path == Path("lmsyz_cache.sqlite")
    assert settings.key_of("openai") is None


@pytest.mark.parametrize(
    ("backend", "model", "right"),
    [("openai", "claude-haiku-5-5", "anthropic"), ("anthropic", "gpt-6-luna", "openai"), ("anthropic", "o3", "openai")],
)
def test_a_model_of_the_other_provider_is_refused_with_the_backend_to_say(backend: str, model: str, right: str) -> None:
    with pytest.raises(UsageError, match=f"model='{model}' .* say backend='{right}'"):
        place(backend=backend, model=model)
    assert place(backend=right, model=model).model == model
    assert place(backend=backend, model=model, base_url="https://gateway.invalid/v1").model == model
