"""The live path against llama.cpp's server and a real model: each row has an answer of its schema, or says why not."""

from __future__ import annotations

from typing import Any

import pandas as pd
import pytest

import lmsyz

pytestmark = [pytest.mark.peer, pytest.mark.timeout(900)]  # a model on a busy machine writes a word a second

# It describes the envelope itself and shows one, which is short, and which a small model follows.
PROMPT = """\
Is the sentence good or bad news? Answer with one entry. Example: {"input_id": "x1", "input_text": "Profits rose."}
{"all_results": [{"input_id": "x1", "news": "good"}]}"""
SCHEMA = {"news": ["good", "bad"]}
REASONS = ("refused", "truncated", "invalid", "missing", "failed")


def ask(server: Any, df: pd.DataFrame, backend: str = "openai", **options: Any) -> pd.DataFrame:
    url = server.openai_base_url if backend == "openai" else server.anthropic_base_url
    options = {"chunk_size": 1, "max_tokens": 48, "max_workers": 2, "schema": SCHEMA, "prompt": PROMPT} | options
    return df.ie.extract(backend=backend, base_url=url, model=server.model, progress=False, **options)


def sentences(n: int) -> pd.DataFrame:
    return lmsyz.data.load("finance_synthetic", n=n)[["text"]]


def check(df: pd.DataFrame, out: pd.DataFrame) -> pd.Series:
    """Every row is there, and has either an answer that the schema allows or a reason; return who has an answer."""
    assert out.index.equals(df.index)
    good = out["ie_error"].isna()
    assert out.loc[good, "news"].isin(["good", "bad"]).all()
    assert out.loc[~good, "news"].isna().all()
    assert out.loc[~good, "ie_error"].str.startswith(REASONS).all()
    return good


def test_it_answers_24_rows_within_the_schema_that_it_enforces(llama: Any) -> None:
    df = sentences(24)
    good = check(df, ask(llama, df))
    assert good.sum() >= 12


def test_its_answers_are_remembered_by_the_models_checksum_and_not_the_port(llama: Any) -> None:
    df = sentences(2)
    first = ask(llama, df)
    stale = df.ie.stale(PROMPT, schema=SCHEMA, model=llama.model, base_url="http://127.0.0.1:1/v1", max_tokens=48)
    n_reused = int(stale.loc[stale["action"] != "ask", "rows"].sum())
    assert n_reused == int(first["ie_error"].isna().sum()) > 0


@pytest.mark.parametrize(("backend", "api"), [("openai", "responses"), ("anthropic", "messages")])
def test_where_it_ignores_the_schema_every_row_is_valid_or_flagged(llama: Any, backend: str, api: str) -> None:
    df = sentences(1)
    check(df, ask(llama, df, backend, api=api, max_workers=1))


def test_a_text_beyond_its_window_fails_alone_and_says_so(llama: Any) -> None:
    df = pd.DataFrame({"text": ["Profits rose.", "loss after loss " * 1000]})
    out = ask(llama, df)
    assert out["ie_error"].iloc[1].startswith("failed")
    assert "context size" in out["ie_error"].iloc[1]
    check(df, out)


def test_a_reply_cut_at_the_limit_is_truncated_and_never_an_answer(llama: Any) -> None:
    out = ask(llama, sentences(2), max_tokens=3)
    assert out["ie_error"].str.startswith("truncated").all()
    assert out["news"].isna().all()
