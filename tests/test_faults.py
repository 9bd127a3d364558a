"""The storm: whatever a server does, no answer sits on a wrong row, and what has no answer says why."""

from __future__ import annotations

from functools import partial
from typing import Any

import pandas as pd
import pytest
from known_answers import digest

import lmsyz
from lmsyz.errors import ProviderError, RateLimitError, RejectedError, UnavailableError
from lmsyz.live import LiveOptions
from lmsyz.retry import RetryPolicy

PROMPT = "Give the digest of each text."
SCHEMA = {"digest": str, "words": int}
STORM = {
    "server_error": 0.10,
    "malformed": 0.05,
    "truncated": 0.03,
    "missing": 0.03,
    "duplicated": 0.02,
    "foreign": 0.02,
}


def frame(n: int) -> pd.DataFrame:
    openings = ("Alpha", "Bravo", "Charlie", "Delta", "Echo", "Foxtrot", "Golf", "Hotel", "India", "Juliet")
    return pd.DataFrame({"text": [f"{openings[i % 10]} {i} reports on matter {i * 7919 % 1000}." for i in range(n)]})


def extract(df: pd.DataFrame, **about: Any) -> pd.DataFrame:
    return df.ie.extract(PROMPT, schema=SCHEMA, **about)


def assert_on_their_own_rows(df: pd.DataFrame, out: pd.DataFrame) -> None:
    good = out["ie_error"].isna()
    assert out.loc[good, "digest"].tolist() == [digest(t) for t in df.loc[good, "text"]]


@pytest.fixture(autouse=True)
def quick_retries(monkeypatch: pytest.MonkeyPatch) -> None:
    """Wait for a hundredth of what a user would wait; how long that is, is tested on a clock of its own."""
    policy = RetryPolicy(base_s=0.005, max_wait_s=0.3)
    monkeypatch.setattr("lmsyz.extract.LiveOptions", partial(LiveOptions, policy=policy))


@pytest.mark.parametrize("backend", ["openai", "anthropic"])
def test_in_a_storm_of_faults_every_row_is_right_or_refused(sandbox_default: Any, backend: str) -> None:
    sandbox_default.set_faults(refused=0.01, **STORM)
    df = frame(2000)
    out = extract(df, backend=backend, max_workers=16)
    assert_on_their_own_rows(df, out)
    bad = out.loc[out["ie_error"].notna(), "ie_error"]
    assert 0 < len(bad) < 60
    assert bad.str.startswith("refused:").all()
    seen = sandbox_default.stats()["n_faults"]
    assert all(seen.get(kind, 0) > 0 for kind in (*STORM, "refused"))


def test_swapped_answers_are_caught_where_rows_are_verified(sandbox_default: Any) -> None:
    sandbox_default.set_faults(swapped=0.01, **STORM)
    df = frame(2000)
    out = extract(df, verify_rows=True, max_workers=16)
    assert out["ie_error"].isna().all()
    assert_on_their_own_rows(df, out)
    assert sandbox_default.stats()["n_faults"]["swapped"] > 0


def test_a_run_that_cannot_reach_its_server_says_so_once() -> None:
    with pytest.raises(UnavailableError, match="connection") as raised:
        extract(frame(50), base_url="http://127.0.0.1:9/v1", model="m")
    assert "0 of 50 rows" in " ".join(raised.value.__notes__)


def test_messages_about_the_sandbox_do_not_lose_words_to_the_hiding_of_keys(sandbox_default: Any) -> None:
    with pytest.raises(RejectedError, match=r"The sandbox has sandbox-rules, .*\(check model=\)"):
        extract(frame(3), model="sandbox-rules-nope")


def test_a_bad_key_costs_a_handful_of_requests_and_one_message(sandbox_default: Any) -> None:
    with pytest.raises(RejectedError, match="401") as raised:
        extract(frame(1000), api_key="sk-invalid-key-of-mine", max_workers=8)
    assert sandbox_default.stats()["n_requests"] <= 8
    assert "sk-invalid" not in str(raised.value)
    assert "sk-invalid" not in repr(lmsyz.last_run())
    run = lmsyz.last_run()
    assert run is not None
    assert run.frame()["ie_error"].str.startswith(("failed", "cancelled")).all()


@pytest.mark.parametrize(
    ("about", "words"),
    [
        ({"model": "sandbox-rules-nope"}, "404"),
        ({"model": "sandbox-rules-reasoning", "temperature": 0.5}, "temperature"),
        ({"hotness": 1}, "hotness"),
    ],
    ids=["model", "sampling", "option"],
)
@pytest.mark.parametrize("backend", ["openai", "anthropic"])
def test_what_no_request_can_escape_is_refused_a_handful_of_times(
    sandbox_default: Any, backend: str, about: dict[str, Any], words: str
) -> None:
    with pytest.raises(ProviderError, match=words):
        extract(frame(500), backend=backend, max_workers=8, **about)
    assert sandbox_default.stats()["n_requests"] <= 8


@pytest.mark.parametrize("backend", ["openai", "anthropic"])
def test_used_up_credit_ends_the_run_at_once(sandbox_default: Any, backend: str) -> None:
    sandbox_default.set_faults(out_of_quota=True)
    with pytest.raises(RejectedError, match="429"):
        extract(frame(500), backend=backend, max_workers=8)
    assert sandbox_default.stats()["n_requests"] <= 8


def test_a_rate_limit_is_waited_out(sandbox_default: Any) -> None:
    sandbox_default.set_faults(requests_per_minute=1200)
    df = frame(100)
    out = extract(df, chunk_size=2, max_workers=16)
    assert out["ie_error"].isna().all()
    assert_on_their_own_rows(df, out)


def test_an_endless_rate_limit_is_an_error_that_says_so(sandbox_default: Any) -> None:
    sandbox_default.set_faults(rate_limited=1.0, retry_after_s=3600)
    with pytest.raises(RateLimitError, match="asks to wait 3600 s"):
        extract(frame(20))


@pytest.mark.parametrize("forms", [("json_schema",), ("json_schema", "tool"), ("json_schema", "tool", "json_object")])
@pytest.mark.parametrize("how", ["refused_forms", "ignored_forms"])
def test_a_server_that_refuses_or_ignores_a_form_is_asked_in_another(
    sandbox_default: Any, how: str, forms: tuple[str, ...]
) -> None:
    sandbox_default.set_faults(**{how: forms})
    df = frame(30)
    out = extract(df)
    assert out["ie_error"].isna().all()
    assert_on_their_own_rows(df, out)


def test_packed_replies_that_never_fit_are_split_until_they_do(sandbox_default: Any) -> None:
    df = frame(40)
    extract(df, cache_path="a.sqlite")
    sandbox_default.set_faults(max_output_tokens=60)
    out = extract(df, chunk_size=8, cache_path="b.sqlite")
    assert out["ie_error"].isna().all()
    assert_on_their_own_rows(df, out)


def test_a_row_over_the_window_fails_alone(sandbox_default: Any) -> None:
    sandbox_default.set_faults(context_tokens=2000)
    df = frame(20)
    df.loc[7, "text"] = "much too long " * 2000
    out = extract(df, chunk_size=4)
    assert out["ie_error"].notna().tolist() == [i == 7 for i in range(20)]
    assert out["ie_error"][7].startswith("failed:")
    assert_on_their_own_rows(df, out)


def test_a_page_of_a_proxy_is_no_reply(sandbox_default: Any) -> None:
    sandbox_default.set_faults(not_a_reply=0.3, dropped=0.1)
    df = frame(40)
    out = extract(df, chunk_size=4)
    assert out["ie_error"].isna().all()
    assert_on_their_own_rows(df, out)
