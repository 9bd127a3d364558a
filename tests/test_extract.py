"""``df.ie.extract`` against the sandbox, over real HTTP: aligned, typed, stored, and asked again only where it must."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from cache_records import seed_file
from known_answers import digest
from pydantic import BaseModel, field_validator

import lmsyz
from lmsyz.errors import CacheError, ExtractionError, MissingKeyError, UsageError
from lmsyz.task import compute_prompt_hash

PROMPT = "Classify the tone of each sentence."
SCHEMA = {"tone": ["positive", "neutral", "negative"], "digest": str, "words": int}
SENTENCES = ["Great results, we are delighted.", "A terrible, sad loss.", "The meeting is on Tuesday."]


def frame(n: int = 12) -> pd.DataFrame:
    return pd.DataFrame({"text": [f"{SENTENCES[i % 3]} This is sentence number {i}." for i in range(n)]})


def n_requests(handle: Any) -> int:
    return int(handle.stats()["n_requests"])


def n_rows_asked(handle: Any) -> int:
    return int(handle.stats()["n_rows"])


# --- the main job -----------------------------------------------------------------------------------


def test_each_row_gets_its_own_typed_answer(sandbox_default: Any, backend: str) -> None:
    df = frame()
    out = df.ie.extract(PROMPT, schema=SCHEMA, backend=backend)
    assert out["digest"].tolist() == [digest(t) for t in df["text"]]
    assert [str(d) for d in out.dtypes] == ["category", "string", "Int64", "string"]
    assert out["tone"].tolist()[:2] == ["positive", "negative"]
    assert out["ie_error"].isna().all()
    pd.testing.assert_index_equal(out.index, df.index, exact=True)
    assert n_rows_asked(sandbox_default) == 12


def test_the_second_call_asks_for_nothing(sandbox_default: Any, backend: str) -> None:
    first = frame().ie.extract(PROMPT, schema=SCHEMA, backend=backend)
    sandbox_default.reset()
    again = frame().ie.extract(PROMPT, schema=SCHEMA, backend=backend)
    pd.testing.assert_frame_equal(first, again)
    assert n_requests(sandbox_default) == 0
    run = lmsyz.last_run()
    assert run is not None
    assert (run.counts.n_cached, run.counts.n_requests, run.counts.how) == (12, 0, "done")


def test_an_edited_text_asks_that_row_and_a_new_row_asks_itself(sandbox_default: Any, backend: str) -> None:
    df = frame()
    df.ie.extract(PROMPT, schema=SCHEMA, backend=backend)
    sandbox_default.reset()
    df.loc[5, "text"] = "An edited sentence."
    df = pd.concat([df, pd.DataFrame({"text": ["A new sentence."]})])
    out = df.ie.extract(PROMPT, schema=SCHEMA, backend=backend)
    assert out["digest"].tolist() == [digest(t) for t in df["text"]]
    assert n_rows_asked(sandbox_default) == 2


@pytest.mark.parametrize(
    "change",
    [
        {"model": "sandbox-rules-mini"},
        {"prompt": PROMPT + " Be strict."},
        {"schema": {**SCHEMA, "summary": str}},
        {"temperature": 0.5},
        {"verify_rows": True},
    ],
    ids=lambda change: next(iter(change)),
)
def test_a_change_asks_everything_again_and_going_back_is_free(sandbox_default: Any, change: dict[str, Any]) -> None:
    original = {"prompt": PROMPT, "schema": SCHEMA}
    frame().ie.extract(**original)
    frame().ie.extract(**(original | change))
    assert n_rows_asked(sandbox_default) == 24
    sandbox_default.reset()
    frame().ie.extract(**original)
    frame().ie.extract(**(original | change))
    assert n_requests(sandbox_default) == 0


def test_reordering_and_a_new_index_ask_for_nothing(sandbox_default: Any) -> None:
    df = frame()
    df.ie.extract(PROMPT, schema=SCHEMA)
    sandbox_default.reset()
    shuffled = df.sample(frac=1, random_state=3).set_axis([f"x{i}" for i in range(12)])
    out = shuffled.ie.extract(PROMPT, schema=SCHEMA)
    assert out["digest"].tolist() == [digest(t) for t in shuffled["text"]]
    assert n_requests(sandbox_default) == 0


@pytest.mark.parametrize(
    "index",
    [
        pd.Index([3, 1, 2, 0]),
        pd.Index(list("dbca")),
        pd.date_range("2024-01-01", periods=4)[::-1],
        pd.Index([1, 1, 2, 2]),
        pd.MultiIndex.from_product([["a", "b"], [2, 1]], names=["firm", None]),
    ],
    ids=["unsorted", "strings", "dates", "duplicated", "multi"],
)
def test_any_index_comes_back_exactly(sandbox_default: Any, index: pd.Index) -> None:
    df = pd.DataFrame({"text": ["one row", "another", "one row", "the last"]}, index=index)
    out = df.ie.extract(PROMPT, schema=SCHEMA)
    pd.testing.assert_index_equal(out.index, index, exact=True)
    assert out["digest"].tolist() == [digest(t) for t in df["text"]]
    assert n_rows_asked(sandbox_default) == 3


def test_equal_texts_are_asked_once_unless_told_otherwise(sandbox_default: Any) -> None:
    df = pd.DataFrame({"text": ["same"] * 7 + ["other"]})
    df.ie.extract(PROMPT, schema=SCHEMA)
    assert n_rows_asked(sandbox_default) == 2
    out = df.ie.extract(PROMPT, schema=SCHEMA, dedupe=False)
    assert n_rows_asked(sandbox_default) == 8
    assert out["digest"].tolist() == [digest(t) for t in df["text"]]


def test_an_empty_frame_and_one_row_and_no_text(sandbox_default: Any) -> None:
    empty = frame(0).ie.extract(PROMPT, schema=SCHEMA)
    assert [str(d) for d in empty.dtypes] == ["category", "string", "Int64", "string"]
    assert len(frame(1).ie.extract(PROMPT, schema=SCHEMA)) == 1
    sandbox_default.reset()
    blank = pd.DataFrame({"text": [None, "  ", np.nan]}).ie.extract(PROMPT, schema=SCHEMA)
    assert blank["ie_error"].tolist() == ["invalid: empty text"] * 3
    assert n_requests(sandbox_default) == 0


def test_several_columns_are_sent_as_named_fields(sandbox_default: Any) -> None:
    df = pd.DataFrame({"title": ["Good news", None], "body": ["We are delighted.", "It is sad."]})
    df.ie.extract(PROMPT, schema={"tone": ["positive", "negative"]}, text_col=["title", "body"])
    sent = sandbox_default.requests()[-1]["body"]["messages"][-1]["content"]
    assert '"input_text":{"title":"Good news","body":"We are delighted."}' in sent
    assert '{"title":null,"body":"It is sad."}' in sent


def test_without_a_schema_the_prompt_decides_the_shape(sandbox_default: Any, backend: str) -> None:
    out = frame(3).ie.extract(PROMPT, backend=backend)
    assert out["ie_error"].isna().all()
    assert len(out.columns) >= 2


def test_ids_go_out_as_they_are_and_without_them_nothing_private_does(sandbox_default: Any) -> None:
    df = frame(3).assign(firm=["acme", "bolt", "cork"])
    df.ie.extract(PROMPT, schema=SCHEMA, id_col="firm")
    assert '"input_id":"acme"' in sandbox_default.requests()[-1]["body"]["messages"][-1]["content"]
    df.ie.extract(PROMPT + " Again.", schema=SCHEMA)
    assert "acme" not in sandbox_default.requests()[-1]["body"]["messages"][-1]["content"]


def test_the_responses_api_answers_alike_and_is_a_question_of_its_own(sandbox_default: Any) -> None:
    chat = frame(4).ie.extract(PROMPT, schema=SCHEMA)
    responses = frame(4).ie.extract(PROMPT, schema=SCHEMA, api="responses")
    pd.testing.assert_frame_equal(chat, responses)
    assert n_rows_asked(sandbox_default) == 8
    assert {r["api"] for r in sandbox_default.requests()} >= {"responses"}
    assert sandbox_default.requests()[-1]["body"]["store"] is False


def test_a_users_own_client_is_used_and_not_changed(sandbox_default: Any, backend: str) -> None:
    if backend == "openai":
        import openai

        client: Any = openai.OpenAI(api_key="mine", base_url=sandbox_default.openai_base_url)
    else:
        import anthropic

        client = anthropic.Anthropic(api_key="mine", base_url=sandbox_default.anthropic_base_url)
    out = frame(3).ie.extract(PROMPT, schema=SCHEMA, backend=backend, client=client, model="sandbox-rules")
    assert out["ie_error"].isna().all()
    assert client.max_retries == 2
    client.close()


# --- what is remembered -----------------------------------------------------------------------------


def test_two_sandboxes_are_one_endpoint(sandbox_default: Any) -> None:
    frame(3).ie.extract(PROMPT, schema=SCHEMA)
    sandbox_default.reset()
    with lmsyz.sandbox.start(fresh=True):
        frame(3).ie.extract(PROMPT, schema=SCHEMA)
    frame(3).ie.extract(PROMPT, schema=SCHEMA)
    assert n_requests(sandbox_default) == 0


def test_fresh_asks_again_and_keeps_the_old_answers(sandbox_default: Any) -> None:
    frame(3).ie.extract(PROMPT, schema=SCHEMA, cache_path="a.sqlite")
    frame(3).ie.extract(PROMPT, schema=SCHEMA, cache_path="a.sqlite", fresh=True)
    assert n_rows_asked(sandbox_default) == 6
    with lmsyz.SqliteCache("a.sqlite") as cache:
        assert len(cache.page_answers()) == 6


def test_rows_that_failed_when_asked_again_are_not_answered_by_what_was_stored_before(sandbox_default: Any) -> None:
    frame(3).ie.extract(PROMPT, schema=SCHEMA)
    sandbox_default.set_faults(refused=1.0)
    with pytest.raises(ExtractionError, match=r"lmsyz.last_run\(\).retry\(\).result\(\) asks only these again"):
        frame(3).ie.extract(PROMPT, schema=SCHEMA, fresh=True, on_error="raise")
    sandbox_default.set_faults()
    sandbox_default.reset()
    run = lmsyz.last_run()
    for _ in range(2):
        assert run is not None
        run = run.retry()
        assert run.result()["ie_error"].isna().all()
        assert n_rows_asked(sandbox_default) == 3


def test_answers_of_another_prompt_are_reused_only_when_asked_for(sandbox_default: Any) -> None:
    frame(3).ie.extract(PROMPT, schema=SCHEMA)
    sandbox_default.reset()
    frame(3).ie.extract("Another prompt.", schema=SCHEMA, ignore_prompt_hash=True)
    assert n_requests(sandbox_default) == 0
    frame(3).ie.extract("Another prompt.", schema=SCHEMA)
    assert n_rows_asked(sandbox_default) == 3


def test_a_row_leads_to_the_exact_request_and_reply_behind_it(sandbox_default: Any) -> None:
    df = frame(4).assign(id=["r0", "r1", "r2", "r3"])
    df.ie.extract(PROMPT, schema=SCHEMA, id_col="id", chunk_size=2, cache_path="a.sqlite")
    bodies = [r["body"] for r in sandbox_default.requests()]
    with lmsyz.SqliteCache("a.sqlite") as cache:
        number = cache.requests_for_row("r2")[0]
        stored = cache.request(number)
        assert cache.get("r2") == {
            "input_id": "r2",
            **df.ie.extract(PROMPT, schema=SCHEMA, id_col="id", cache_path="a.sqlite")
            .loc[2, ["tone", "digest", "words"]]
            .to_dict(),
        }
    import json

    assert json.loads(stored.body) in bodies
    assert "r2" in stored.body
    assert digest(df["text"][2]) in stored.reply
    assert stored.model.startswith("sandbox-rules")
    assert stored.input_tokens
    assert stored.latency_s > 0
    run = lmsyz.last_run()
    assert run is not None
    assert stored.run_id != run.run_id


def test_everything_cached_needs_no_key_and_no_server(sandbox_default: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    first = frame(3).ie.extract(PROMPT, schema=SCHEMA)
    place = {"base_url": "http://127.0.0.1:9/v1", "model": "sandbox-rules"}
    monkeypatch.delenv("LMSYZ_SANDBOX_URL")
    pd.testing.assert_frame_equal(frame(3).ie.extract(PROMPT, schema=SCHEMA, **place), first)
    Path("paid.sqlite").touch()
    with pytest.raises(MissingKeyError, match="OPENAI_API_KEY"):
        frame(3).ie.extract(PROMPT, schema=SCHEMA, cache_path="paid.sqlite")


def test_an_archived_cache_that_cannot_be_written_still_gives_its_tables(
    sandbox_default: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = frame(3).ie.extract(PROMPT, schema=SCHEMA, cache_path="a.sqlite")
    opened = lmsyz.SqliteCache.__init__

    def archived(self: Any, path: Any, *, read_only: bool = False, **about: Any) -> None:
        if not read_only:
            raise CacheError(f"cache file {str(path)!r} is not writable")
        opened(self, path, read_only=True, **about)

    monkeypatch.setattr(lmsyz.SqliteCache, "__init__", archived)
    again = frame(3).ie.extract(PROMPT, schema=SCHEMA, cache_path="a.sqlite")
    pd.testing.assert_frame_equal(again, first)
    assert frame(3).ie.stale(PROMPT, schema=SCHEMA, cache_path="a.sqlite")["action"].tolist() == ["reuse"]
    with pytest.raises(CacheError, match="not writable"):
        frame(4).ie.extract(PROMPT, schema=SCHEMA, cache_path="a.sqlite")


def test_a_validator_that_leaves_the_program_fails_its_row_and_hangs_nothing(sandbox_default: Any) -> None:
    class Row(BaseModel):
        words: int

        @field_validator("words")
        @classmethod
        def leave(cls, value: int) -> int:
            raise SystemExit("bye")

    out = frame(3).ie.extract(PROMPT, schema=Row)
    assert out["ie_error"].str.startswith("invalid: the model's own code failed (SystemExit").all()


def test_a_seed_cache_is_opened_and_its_rows_are_used(sandbox_default: Any, caplog: pytest.LogCaptureFixture) -> None:
    seed_file(Path("seed.sqlite"), ("1", '{"input_id": "1", "score": 4}', compute_prompt_hash("Score it.")))
    df = pd.DataFrame({"id": [1, 2], "text": ["seven words", "of old and new"]})
    with caplog.at_level(logging.WARNING):
        out = df.ie.extract(
            "Score it.", schema={"score": int | None}, id_col="id", cache_path="seed.sqlite", chunk_size=1
        )
    assert out["score"].tolist()[0] == 4
    assert n_rows_asked(sandbox_default) == 1
    assert "1 answers were taken over from a seed cache" in caplog.text


# --- failed rows ------------------------------------------------------------------------------------


def test_refused_rows_say_so_and_can_be_kept_dropped_or_raised(sandbox_default: Any) -> None:
    sandbox_default.set_faults(refused=0.2)
    df = frame(40)
    out = df.ie.extract(PROMPT, schema=SCHEMA)
    bad = out["ie_error"].notna()
    assert 0 < bad.sum() < 40
    assert out.loc[bad, "ie_error"].str.startswith("refused:").all()
    assert out.loc[bad, "digest"].isna().all()
    assert out.loc[~bad, "digest"].tolist() == [digest(t) for t in df.loc[~bad, "text"]]
    dropped = df.ie.extract(PROMPT, schema=SCHEMA, on_error="drop")
    pd.testing.assert_frame_equal(dropped, out[~bad])
    with pytest.raises(ExtractionError, match=f"{bad.sum()} of 40 rows have no answer: .*refused") as raised:
        df.ie.extract(PROMPT, schema=SCHEMA, on_error="raise")
    pd.testing.assert_frame_equal(raised.value.result, out)


def test_failed_rows_are_asked_again_by_the_next_call_and_good_ones_are_not(sandbox_default: Any) -> None:
    sandbox_default.set_faults(refused=0.2)
    n_bad = int(frame(40).ie.extract(PROMPT, schema=SCHEMA)["ie_error"].notna().sum())
    sandbox_default.set_faults()
    sandbox_default.reset()
    out = frame(40).ie.extract(PROMPT, schema=SCHEMA)
    assert out["ie_error"].isna().all()
    assert n_rows_asked(sandbox_default) == n_bad


# --- the seed's function ----------------------------------------------------------------------------


def test_extract_df_gives_input_ids_and_leaves_failed_rows_out_with_a_log_line(
    sandbox_default: Any, caplog: pytest.LogCaptureFixture
) -> None:
    df = frame(20).assign(id=range(100, 120))
    df.loc[3, "text"] = None
    with caplog.at_level(logging.WARNING):
        out = lmsyz.extract_df(df, prompt=PROMPT, cache_path="a.sqlite", model="sandbox-rules", schema=SCHEMA)
    assert out.columns.tolist() == ["input_id", "tone", "digest", "words"]
    assert out["input_id"].tolist() == [str(i) for i in range(100, 120) if i != 103]
    assert out.index.equals(pd.RangeIndex(19))
    assert "1 of 20 rows have no answer" in caplog.text
    assert "103" in caplog.text
    assert n_requests(sandbox_default) == 4, "five rows in each"
    run = lmsyz.last_run()
    assert run is not None
    assert run.manifest()["max_workers"] == 20
    caplog.clear()
    lmsyz.extract_df(df.drop(index=3), prompt=PROMPT, cache_path="a.sqlite", model="sandbox-rules", schema=SCHEMA)
    assert "no answer" not in caplog.text


def test_extract_df_names_a_few_of_many_rows_without_an_answer(
    sandbox_default: Any, caplog: pytest.LogCaptureFixture
) -> None:
    df = pd.DataFrame({"id": [f"r{i:03}" for i in range(300)], "text": None})
    with caplog.at_level(logging.WARNING):
        out = lmsyz.extract_df(df, prompt=PROMPT, cache_path="a.sqlite", model="sandbox-rules", schema=SCHEMA)
    assert out.empty
    assert "300 of 300 rows have no answer" in caplog.text
    assert "r000" in caplog.text
    assert "r050" not in caplog.text


def test_extract_df_hands_on_what_it_is_told(sandbox: Any) -> None:
    df = frame(4).rename(columns={"text": "body"}).assign(firm=list("abcd"))
    about: dict[str, Any] = {
        "prompt": PROMPT,
        "cache_path": "mine.sqlite",
        "schema": SCHEMA,
        "model": "sandbox-rules-mini",
        "backend": "anthropic",
        "base_url": sandbox.anthropic_base_url,
        "api_key": "any",
        "id_col": "firm",
        "text_col": "body",
        "chunk_size": 2,
        "max_workers": 1,
        "max_tokens": 500,
    }
    out = lmsyz.extract_df(df, **about)
    assert out["digest"].tolist() == [digest(t) for t in df["body"]]
    assert out["input_id"].tolist() == list("abcd")
    asked = sandbox.requests()
    assert [r["api"] for r in asked] == ["messages"] * 2
    assert {(r["body"]["model"], r["body"]["max_tokens"]) for r in asked} == {("sandbox-rules-mini", 500)}
    run = lmsyz.last_run()
    assert run is not None
    assert run.manifest()["max_workers"] == 1
    assert Path("mine.sqlite").exists()
    lmsyz.extract_df(df, **(about | {"prompt": "Another prompt.", "ignore_prompt_hash": True}))
    assert n_rows_asked(sandbox) == 4
    lmsyz.extract_df(df, **(about | {"fresh": True}))
    assert n_rows_asked(sandbox) == 8
    with pytest.raises(lmsyz.LmsyzError, match="API key"):
        lmsyz.extract_df(df, **(about | {"fresh": True, "api_key": "sk-invalid-key"}))


@pytest.mark.parametrize("name", ["on_error", "dedupe", "verify_rows", "progress"])
def test_extract_df_refuses_arguments_of_extract_that_it_does_not_have(sandbox_default: Any, name: str) -> None:
    about: dict[str, Any] = {"prompt": PROMPT, "cache_path": "a.sqlite", "model": "sandbox-rules", name: True}
    with pytest.raises(UsageError, match=f"{name}= is an argument of another call"):
        lmsyz.extract_df(frame(2).assign(id=[1, 2]), **about)
    assert n_requests(sandbox_default) == 0


def test_extract_df_asks_with_a_client_of_ones_own_and_equal_texts_once(sandbox: Any) -> None:
    import openai

    with openai.OpenAI(api_key="mine", base_url=sandbox.openai_base_url) as client:
        df = pd.concat([frame(3), frame(3)]).assign(id=list("abcdef"))
        out = lmsyz.extract_df(
            df, prompt=PROMPT, cache_path="a.sqlite", model="sandbox-rules", schema=SCHEMA, client=client
        )
    assert out["digest"].tolist() == [digest(t) for t in df["text"]]
    assert n_rows_asked(sandbox) == 3


# --- stale ------------------------------------------------------------------------------------------


def test_stale_says_what_would_be_asked_and_why_and_sends_nothing(sandbox_default: Any) -> None:
    df = frame(6).assign(id=list("abcdef"))
    about: dict[str, Any] = {"schema": SCHEMA, "id_col": "id"}

    def stale(**changes: Any) -> dict[tuple[str, str], int]:
        told = df.ie.stale(**({"prompt": PROMPT} | about | changes))
        return {(a, r): int(n) for a, r, n in told.itertuples(index=False)}

    assert stale() == {("ask", "new row"): 6}
    assert not Path("lmsyz_cache.sqlite").exists()
    df.ie.extract(PROMPT, **about)
    sandbox_default.reset()
    assert stale() == {("reuse", "same question"): 6}
    assert stale(prompt="Another.") == {("ask", "prompt changed"): 6}
    assert stale(model="sandbox-rules-mini") == {("ask", "model changed"): 6}
    assert stale(schema={"tone": str}) == {("ask", "schema changed"): 6}
    assert stale(temperature=0) == {("ask", "options changed"): 6}
    assert stale(chunk_size=1, max_workers=2, on_error="drop", progress=False) == {("reuse", "same question"): 6}
    assert stale(job_id="tone", batch_root_dir="jobs", max_requests_per_batch=9) == {("reuse", "same question"): 6}
    assert stale(prompt="Another.", ignore_prompt_hash=True) == {("reuse", "same question"): 6}
    assert stale(fresh=True) == {("ask", "asked afresh"): 6}
    assert stale(cache_path="other.sqlite") == {("ask", "new row"): 6}
    assert not Path("other.sqlite").exists()
    df.loc[0, "text"] = "An edited text."
    df.loc[1, "text"] = None
    df = pd.concat([df, pd.DataFrame({"text": ["A new one."], "id": ["g"]})])
    assert stale() == {
        ("reuse", "same question"): 4,
        ("ask", "text changed"): 1,
        ("ask", "new row"): 1,
        ("skip", "empty text"): 1,
    }
    assert n_requests(sandbox_default) == 0


def test_stale_says_of_rows_that_the_panel_marked_that_they_are(sandbox_default: Any) -> None:
    df = frame(3)
    df.ie.extract(PROMPT, schema=SCHEMA)
    with lmsyz.SqliteCache("lmsyz_cache.sqlite") as cache:
        newest, before, _ = cache.find().rows
        cache.ask_again([newest.id])
        cache.delete([before.id])
    told = df.ie.stale(PROMPT, schema=SCHEMA)
    assert sorted(told["reason"]) == ["marked to be asked again", "new row", "same question"]
    df.ie.extract(PROMPT, schema=SCHEMA)
    assert df.ie.stale(PROMPT, schema=SCHEMA)["reason"].tolist() == ["same question"]


# --- bad input --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"text_col": "body"}, "has no column 'body'.*text_col="),
        ({"id_col": "firm"}, "has no column 'firm'.*id_col="),
        ({"id_col": "null"}, "is null in 1 of 3 rows"),
        ({"id_col": "twice"}, "more than once after str.*'1'"),
        ({"backend": "mistral"}, "unknown backend 'mistral'; use backend='openai'.*'anthropic'"),
        ({"api": "completions"}, "unknown api='completions'"),
        ({"chunk_size": 0}, "chunk_size must be a whole number from 1 up, got 0"),
        ({"chunk_size": 2.5}, "chunk_size must be"),
        ({"max_workers": -1}, "max_workers must be"),
        ({"requests_per_minute": 0}, "requests_per_minute must be a number above 0"),
        ({"on_error": "ignore"}, "on_error='ignore'; use 'keep'"),
        ({"prompt": "  "}, "prompt is empty"),
        ({"prompt": None}, "prompt is empty"),
        ({"model": ""}, "model= takes a model's name"),
        ({"base_url": "localhost:8080"}, "no web address"),
        ({"schema": "nowhere.json"}, "schema file 'nowhere.json' does not exist"),
        ({"schema": {"tone": "good|bad"}}, "tone"),
        ({"schema": {"ie_error": str}}, "ie_error"),
        ({"job_id": "tone"}, "job_id= is an argument of another call and no part of a request"),
        ({"messages": []}, "messages= is a part of the request that lmsyz fills in itself"),
        ({"extra_body": {"stream": True}}, "stream= is a part"),
        ({"stop": {1, 2}}, "stop= cannot be sent as JSON"),
        ({"quirks": {"speed": 1}}, "unknown quirk"),
        ({"max_tokens": 0}, "max_tokens= is a whole number from 1 up, got 0"),
        ({"max_tokens": 10**6, "model": "gpt-6-luna"}, "more than gpt-6-luna can write"),
        ({"timeout": -1}, "timeout= is the seconds"),
        ({"timeout": pd.Timedelta("3s")}, "timeout= is the seconds"),
        ({"api_key": "sk-é"}, "holds a character that no key has"),
        ({"text_col": ["text", "text"]}, "names a column twice"),
        ({"client": object()}, "client= takes a client"),
        ({"cache_path": "no/such/place.sqlite"}, "no directory"),
        ({"cache_path": "text.txt"}, "no SQLite database"),
        ({"cache_path": "."}, "is a directory"),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else "",
)
def test_bad_input_is_one_clear_error_before_a_request_or_a_file(
    sandbox_default: Any, changes: dict[str, Any], words: str
) -> None:
    Path("text.txt").write_text("this is a text file, and not a database of any kind\n" * 40)
    before = sorted(p.name for p in Path().iterdir())
    df = frame(3).assign(null=[1, None, 2], twice=[1, "1", 2])
    with pytest.raises(lmsyz.LmsyzError, match=words):
        df.ie.extract(**({"prompt": PROMPT, "schema": SCHEMA} | changes))
    assert sorted(p.name for p in Path().iterdir()) == before
    assert n_requests(sandbox_default) == 0


@pytest.mark.parametrize("backend", ["openai", "anthropic"])
def test_a_missing_key_names_the_variable_the_argument_and_the_choices_without_one(backend: str) -> None:
    with pytest.raises(MissingKeyError) as raised:
        frame(3).ie.extract(PROMPT, backend=backend)
    assert isinstance(raised.value, UsageError)
    for word in (f"{backend.upper()}_API_KEY", "api_key=", "lmsyz.sandbox.start()", "base_url="):
        assert word in str(raised.value)
    assert not list(Path().iterdir())


@pytest.mark.parametrize(
    ("series", "told"),
    [
        (pd.Series(["a"], name="text"), r"df\.ie\.extract\(prompt\), or df\[\['text'\]\]\.ie\.extract\(prompt\)"),
        (pd.Series(["a"], name="body"), r"df\[\['body'\]\]\.ie\.extract\(prompt, text_col='body'\)"),
        (pd.Series(["a"]), r"series\.to_frame\('text'\)\.ie\.extract\(prompt\)"),
    ],
)
def test_a_series_says_what_to_type_instead_and_has_no_accessor(series: pd.Series, told: str) -> None:
    with pytest.raises(AttributeError, match=told):
        _ = series.ie
    assert not hasattr(series, "ie")
    assert "ie" not in dir(series)


def test_a_label_ie_of_a_series_is_still_read_and_set_as_an_attribute() -> None:
    row = pd.Series({"ie": 3, "de": 4})
    assert (row.ie, pd.DataFrame({"ie": [1, 2]}).apply(lambda r: r.ie, axis=1).tolist()) == (3, [1, 2])
    row.ie = 5
    assert row["ie"] == 5
