"""Clients of the user's own, end to end: the SDKs' classes for Azure, Bedrock, Vertex and Foundry, and two gateways."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Callable
from pathlib import Path
from typing import Any

import anthropic
import openai
import pandas as pd
import pytest

import lmsyz
from lmsyz.errors import RejectedError, UsageError
from lmsyz.place import find_place, make_task
from lmsyz.settings import load_settings

SECRET = "azure-secret-0123456789"
TOKEN = "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxMjM0NTY3ODkwIn0.c2lnbmF0dXJl"
VERSION = "2026-01-01"
SCHEMA = {"tone": ["positive", "neutral", "negative"], "price": float, "digest": str}
N = 24
Make = Callable[[str], Any]


def azure(url: str, **more: Any) -> Any:
    key = {} if more.keys() & {"azure_ad_token_provider", "azure_ad_token"} else {"api_key": SECRET}
    return openai.AzureOpenAI(**({"azure_endpoint": url, "api_version": VERSION, "max_retries": 4} | key | more))


CLIENTS: dict[str, tuple[str, str, Make]] = {
    "azure": ("openai", "my-tones", azure),
    "azure deployment": ("openai", "my-tones", lambda url: azure(url, azure_deployment="my-tones")),
    "azure token": ("openai", "my-tones", lambda url: azure(url, azure_ad_token_provider=lambda: TOKEN)),
    "azure v1": ("openai", "my-tones", lambda url: openai.OpenAI(base_url=f"{url}/openai/v1", api_key=SECRET)),
    "key function": ("openai", "my-tones", lambda url: openai.OpenAI(base_url=f"{url}/v1", api_key=lambda: SECRET)),
    "openrouter": (
        "openai",
        "acme/my-tones",
        lambda url: openai.OpenAI(base_url=f"{url}/openrouter/api/v1", api_key=SECRET),
    ),
    "gemini": (
        "openai",
        "models/gemini-3",
        lambda url: openai.OpenAI(base_url=f"{url}/gemini/v1beta/openai", api_key=SECRET),
    ),
    "foundry": (
        "anthropic",
        "my-tones",
        lambda url: anthropic.AnthropicFoundry(api_key=SECRET, base_url=f"{url}/anthropic"),
    ),
    "foundry token": (
        "anthropic",
        "my-tones",
        lambda url: anthropic.AnthropicFoundry(azure_ad_token_provider=lambda: TOKEN, base_url=f"{url}/anthropic"),
    ),
    "bedrock": (
        "anthropic",
        "us.anthropic.claude-haiku-5-5",
        lambda url: anthropic.AnthropicBedrock(api_key=SECRET, aws_region="eu-west-1", base_url=url),
    ),
    "vertex": (
        "anthropic",
        "claude-haiku-5-5",
        lambda url: anthropic.AnthropicVertex(region="eu", project_id="p", access_token=SECRET, base_url=f"{url}/v1"),
    ),
    "auth token": (
        "anthropic",
        "sandbox-rules",
        lambda url: anthropic.Anthropic(auth_token=SECRET, base_url=url),
    ),
}
CLIENTS["key function"] = ("openai", "sandbox-rules", CLIENTS["key function"][2])
EVERY = pytest.mark.parametrize("name", CLIENTS)
DIALECTS = pytest.mark.parametrize("name", ["azure", "openrouter", "gemini", "foundry", "bedrock", "vertex"])


@pytest.fixture
def frame() -> pd.DataFrame:
    return pd.DataFrame({"text": [f"Acme Corp paid ${i} million, a great result." for i in range(1, N + 1)]})


def extract(frame: pd.DataFrame, box: Any, name: str, **more: Any) -> pd.DataFrame:
    backend, model, make = CLIENTS[name]
    asked = {"client": make(box.url), "backend": backend, "model": model, "schema": SCHEMA, "progress": False} | more
    return frame.ie.extract("Judge the tone; find the price.", **asked)


def right(frame: pd.DataFrame, out: pd.DataFrame) -> pd.Series:
    """Which good rows have their own answer and no other's; all of them should."""
    expected = pd.Series([i * 1e6 for i in range(1, len(frame) + 1)], index=frame.index)
    good = out["ie_error"].isna()
    return out.loc[good, "price"].eq(expected[good]) & out.loc[good, "digest"].is_unique


# --- what works -----------------------------------------------------------------------------------------------------


@EVERY
def test_every_client_answers_every_row_and_shows_no_secret(
    sandbox: Any, frame: pd.DataFrame, name: str, tmp_path: Path
) -> None:
    out = extract(frame, sandbox, name)
    assert out["ie_error"].isna().all(), out["ie_error"].dropna().unique()
    assert right(frame, out).all()
    for path in tmp_path.glob("lmsyz_cache.sqlite*"):
        assert SECRET.encode() not in path.read_bytes()
        assert TOKEN.encode() not in path.read_bytes()
    assert SECRET not in repr(lmsyz.last_run())


@DIALECTS
@pytest.mark.parametrize(
    "faults",
    [
        {"rate_limited": 0.3, "retry_after_s": 0.05},
        {"server_error": 0.3},
        {"overloaded": 0.2, "dropped": 0.1, "not_a_reply": 0.1},
        {"truncated": 0.3, "malformed": 0.1},
        {"several": 0.3},
        {"filtered": 0.5},
        {"refused_forms": ("json_schema",)},
    ],
    ids=lambda faults: "-".join(faults),
)
def test_what_passes_is_tried_again_in_every_dialect_and_no_row_is_wrong(
    sandbox: Any, frame: pd.DataFrame, name: str, faults: dict[str, Any]
) -> None:
    sandbox.set_faults(**faults)
    out = extract(frame, sandbox, name, chunk_size=3)
    assert right(frame, out).all()
    if "filtered" in faults:
        assert out["ie_error"].dropna().str.startswith("refused").all()
    else:
        assert out["ie_error"].isna().all(), out["ie_error"].dropna().unique()
    assert sandbox.stats()["n_faults"]


@DIALECTS
def test_what_a_filter_stops_before_the_model_is_refused_and_the_rest_answered(
    sandbox: Any, frame: pd.DataFrame, name: str
) -> None:
    sandbox.set_faults(blocked=0.2)
    out = extract(frame, sandbox, name)
    failed = out["ie_error"].dropna()
    assert 0 < len(failed) < N
    assert failed.str.startswith("refused").all()
    assert right(frame, out).all()


@DIALECTS
def test_what_waiting_does_not_help_ends_the_run_at_once(sandbox: Any, frame: pd.DataFrame, name: str) -> None:
    sandbox.set_faults(out_of_quota=True)
    with pytest.raises(RejectedError, match=r"credit|quota|spend limit|may not"):
        extract(frame, sandbox, name, max_workers=2)
    assert sandbox.stats()["n_requests"] <= 2


@pytest.mark.parametrize(
    ("name", "model", "words"),
    [
        ("azure", "missing", "azure_deployment="),
        ("openrouter", "acme/missing", "check model="),
        ("gemini", "gpt-6", "check model="),
        ("foundry", "missing", "check model="),
        ("bedrock", "missing", "check model="),
        ("vertex", "missing", "check model="),
    ],
)
def test_a_model_that_there_is_not_is_one_error_that_says_where_to_look(
    sandbox: Any, frame: pd.DataFrame, name: str, model: str, words: str
) -> None:
    with pytest.raises(RejectedError, match=words):
        extract(frame, sandbox, name, model=model)


def test_the_clients_own_retries_are_off_and_ours_alone_are_made(sandbox: Any, frame: pd.DataFrame) -> None:
    sandbox.set_faults(rate_limited=0.5, retry_after_s=0.02)
    extract(frame, sandbox, "azure", chunk_size=2)
    requests = sandbox.requests()
    assert 429 in {r["status"] for r in requests}
    assert {r["headers"]["x-stainless-retry-count"] for r in requests} == {"0"}


# --- tokens that cannot be had --------------------------------------------------------------------------------------


def _failing() -> str:
    raise RuntimeError(f"az login has expired for {TOKEN}")


@pytest.mark.parametrize(
    ("backend", "make"),
    [
        ("openai", lambda url: azure(url, azure_ad_token_provider=_failing)),
        ("openai", lambda url: openai.OpenAI(base_url=f"{url}/v1", api_key=_failing)),
        (
            "anthropic",
            lambda url: anthropic.AnthropicFoundry(azure_ad_token_provider=_failing, base_url=f"{url}/anthropic"),
        ),
        ("anthropic", lambda url: anthropic.Anthropic(credentials=lambda **_: _failing(), base_url=url)),
    ],
    ids=["azure", "key function", "foundry", "credentials"],
)
def test_a_token_that_cannot_be_had_is_one_clear_error_without_the_token(
    sandbox: Any, frame: pd.DataFrame, backend: str, make: Make
) -> None:
    with pytest.raises(RejectedError, match=r"could not prepare the call.*az login has expired") as caught:
        frame.ie.extract("Judge.", client=make(sandbox.url), backend=backend, model="sandbox-rules", progress=False)
    assert TOKEN not in str(caught.value)
    assert sandbox.stats()["n_requests"] == 0


def test_a_server_of_tokens_that_cannot_be_reached_is_tried_again(sandbox: Any, frame: pd.DataFrame) -> None:
    calls: list[int] = []

    def shaky() -> str:
        calls.append(1)
        if len(calls) <= 2:
            raise ConnectionResetError("the identity service hung up")
        return TOKEN

    client = azure(sandbox.url, azure_ad_token_provider=shaky)
    out = extract(frame.head(4), sandbox, "azure", client=client, max_workers=1)
    assert out["ie_error"].isna().all()


def test_a_wrong_token_is_one_error(sandbox: Any, frame: pd.DataFrame) -> None:
    client = azure(sandbox.url, azure_ad_token_provider=lambda: "invalid-token")
    with pytest.raises(RejectedError, match=r"401.*check api_key="):
        extract(frame, sandbox, "azure", client=client)


# --- workload identity ----------------------------------------------------------------------------------------------


def _exchanged(monkeypatch: pytest.MonkeyPatch, answer: Callable[[], dict[str, Any]]) -> None:
    """Have an exchange of tokens end here, since the SDK knows one address for it alone."""
    workload = pytest.importorskip("openai.auth._workload")

    def fetch(self: Any) -> dict[str, Any]:
        self.workload_identity["provider"]["get_token"]()
        return answer()

    monkeypatch.setattr(workload.WorkloadIdentityAuth, "_fetch_token_from_exchange", fetch)


def _identity(get_token: Callable[[], str]) -> dict[str, Any]:
    provider = {"token_type": "jwt", "get_token": get_token}
    return {"identity_provider_id": "idp_1", "service_account_id": "sa_1", "provider": provider}


def test_workload_identity_answers_every_row(
    sandbox: Any, frame: pd.DataFrame, monkeypatch: pytest.MonkeyPatch
) -> None:
    _exchanged(monkeypatch, lambda: {"access_token": SECRET, "expires_in": 3600.0})
    client = openai.OpenAI(base_url=f"{sandbox.url}/v1", workload_identity=_identity(lambda: TOKEN))
    out = extract(frame, sandbox, "azure", client=client, model="sandbox-rules")
    assert out["ie_error"].isna().all()


def test_a_workload_identity_that_cannot_be_proved_is_one_clear_error(
    sandbox: Any, frame: pd.DataFrame, monkeypatch: pytest.MonkeyPatch
) -> None:
    _exchanged(monkeypatch, lambda: {"access_token": SECRET, "expires_in": 3600.0})
    client = openai.OpenAI(base_url=f"{sandbox.url}/v1", workload_identity=_identity(_failing))
    with pytest.raises(RejectedError, match="az login has expired") as caught:
        extract(frame, sandbox, "azure", client=client, model="sandbox-rules")
    assert TOKEN not in str(caught.value)


# --- what is remembered ---------------------------------------------------------------------------------------------


def fingerprint(client: Any, model: str = "m") -> str:
    names = ("api", "api_key", "base_url", "quirks")
    place = find_place(load_settings(), backend="openai", model=model, client=client, **dict.fromkeys(names))
    return make_task(place, "Judge.", None, False, {}).fingerprint


def test_deployments_and_resources_are_told_apart_and_keys_tokens_and_versions_are_not() -> None:
    here = "https://one.openai.azure.com"
    same = [
        azure(here, azure_deployment="a"),
        azure(f"{here}/", azure_deployment="a", api_version="2027-01-01"),
        azure(here, azure_deployment="a", azure_ad_token_provider=lambda: TOKEN),
        azure(here, azure_deployment="a", azure_ad_token=TOKEN),
    ]
    other = [azure(here, azure_deployment="b"), azure("https://two.openai.azure.com", azure_deployment="a")]
    assert len({fingerprint(client) for client in same}) == 1
    assert len({fingerprint(client) for client in (same[0], *other)}) == 3
    assert fingerprint(azure(here), "a") != fingerprint(azure(here), "b")


def test_an_answer_of_one_deployment_is_none_of_anothers(sandbox: Any, frame: pd.DataFrame, tmp_path: Path) -> None:
    for deployment in ("one", "two", "one"):
        extract(frame.head(3), sandbox, "azure", client=azure(sandbox.url, azure_deployment=deployment))
    assert sandbox.stats()["n_rows"] == 6
    with sqlite3.connect(tmp_path / "lmsyz_cache.sqlite") as db:
        dumped = "\n".join(db.iterdump())
    db.close()
    assert "/openai/deployments/one" in dumped
    assert SECRET not in dumped


# --- batches --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["azure", "foundry", "bedrock", "vertex"])
def test_a_batch_by_a_client_that_has_none_is_refused_before_a_file_is_made(
    sandbox: Any, frame: pd.DataFrame, name: str, tmp_path: Path
) -> None:
    backend, model, make = CLIENTS[name]
    with pytest.raises(UsageError, match=r"cannot send a batch.*df\.ie\.extract"):
        frame.ie.batch("Judge.", client=make(sandbox.url), backend=backend, model=model)
    assert list(tmp_path.glob("batch_jobs*")) == []
    assert sandbox.stats()["n_uploads"] == 0


def test_a_batch_by_a_client_with_a_key_function_comes_home(sandbox: Any, frame: pd.DataFrame) -> None:
    client = openai.OpenAI(base_url=f"{sandbox.url}/v1", api_key=lambda: SECRET)
    job = frame.head(4).ie.batch("Judge.", client=client, model="sandbox-rules", schema=SCHEMA, progress=False)
    sandbox.advance(60)
    job.refresh()
    assert job.results()["ie_error"].isna().all()
    ledgers = [p.read_text() for p in job.folder.glob("*.json")] if hasattr(job, "folder") else [json.dumps({})]
    assert all(SECRET not in text for text in ledgers)
