"""Texts longer than a model reads: refused before anything is sent, or asked in parts; live and batch alike."""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from cache_records import run_python
from click.testing import CliRunner
from pydantic import BaseModel

import lmsyz
from lmsyz.batch_job import BatchJob
from lmsyz.cli import main
from lmsyz.errors import UsageError
from lmsyz.frame_rows import read_rows
from lmsyz.long_texts import read_long_texts
from lmsyz.merging import merge_answers
from lmsyz.place import find_place, make_task
from lmsyz.sandbox.faults import refuses
from lmsyz.settings import load_settings
from lmsyz.text_parts import cut_text

pytestmark = pytest.mark.usefixtures("quick_batches")

PROMPT = "Give the digest of each text."
SCHEMA = {"digest": str, "keywords": [str], "words": int}
PART = 60  # tokens a part in most of these tests
SMALL = {"long_texts": "split", "max_text_tokens": PART}
NAMES = ("apple", "river", "copper", "garden", "window", "silver", "forest", "harbour")


def document(n: int = 12, name: str = "annual") -> str:
    return "\n\n".join(
        f"Chapter {i} of the {name} report is about {NAMES[i % 8]} and {NAMES[(i * 3 + 1) % 8]}." for i in range(n)
    )


def frame(*texts: str | None, **columns: Any) -> pd.DataFrame:
    return pd.DataFrame({"text": list(texts), **columns})


def n_requests(handle: Any) -> int:
    return int(handle.stats()["n_requests"])


def n_rows_asked(handle: Any) -> int:
    return int(handle.stats()["n_rows"])


def sent_rows(handle: Any) -> list[dict[str, Any]]:
    """The rows of all requests, as they stood in the user message."""
    rows: list[dict[str, Any]] = []
    for request in handle.requests(last=1000):
        if request["api"] not in ("chat", "messages"):
            continue
        message = request["body"]["messages"][-1]["content"]
        text = message if isinstance(message, str) else "".join(block["text"] for block in message)
        rows += json.loads(text)
    return rows


def asked_alone(df: pd.DataFrame, parts: Sequence[str], **about: Any) -> list[dict[str, Any]]:
    """What the model says of each part where it is a row of its own."""
    out = frame(*parts).ie.extract(PROMPT, schema=SCHEMA, cache_path="alone.sqlite", **about)
    return list(out.drop(columns="ie_error").astype(object).to_dict("records"))


# --- refused ----------------------------------------------------------------------------------------


def test_a_text_over_the_window_is_not_sent_and_the_other_rows_go_on(server: Any, backend: str) -> None:
    df = frame("A short one.", "word " * 4000, "Another short one.", None)
    out = df.ie.extract(PROMPT, schema=SCHEMA, backend=backend, context_window=2000)
    assert out["ie_error"].tolist()[1].startswith("failed: prompt and text are too long for sandbox-rules, which reads")
    assert "long_texts='split'" in out["ie_error"].tolist()[1]
    assert out["ie_error"].isna().tolist() == [True, False, True, False]
    assert out["digest"].isna().tolist() == [False, True, False, True]
    assert sorted(row["input_text"] for row in sent_rows(server)) == ["A short one.", "Another short one."]


def test_where_all_texts_are_too_long_nothing_is_sent_and_the_run_counts_them(server: Any) -> None:
    df = frame("word " * 4000, "words " * 5000, "word " * 4000, id=["a", "b", "c"])
    out = df.ie.extract(PROMPT, schema=SCHEMA, id_col="id", context_window=2000)
    assert n_requests(server) == 0
    assert out["ie_error"].str.startswith("failed: ").all()
    run = lmsyz.last_run()
    assert run is not None
    assert dict(run.counts.n_failed) == {"failed": 3}
    assert run.counts.n_waiting == 0
    [(reason, (n, examples))] = run.counts.reasons.items()
    assert (n, sorted(examples)) == (3, ["a", "b", "c"]), "texts of different length share a cause"
    assert "(got" not in reason
    assert run.errors["row_id"].tolist() == ["a", "b", "c"]
    assert run.manifest()["rows"]["without_answer"] == {"failed": 3}


def test_a_text_that_may_fit_after_all_is_sent(server: Any) -> None:
    df = frame("word " * 1640)  # 2,050 tokens by estimate, of 2,000
    out = df.ie.extract("Give the digest.", schema={"digest": str}, context_window=2000)
    assert out["ie_error"].isna().all()
    assert n_rows_asked(server) == 1


def test_the_window_of_a_known_model_is_known_and_of_an_unknown_one_none_is_assumed(server: Any) -> None:
    df = frame("word " * 140_000)  # 175,000 tokens by estimate
    about = {"schema": {"words": int}, "cache_path": "a.sqlite"}
    refused = df.ie.stale(PROMPT, **about, model="gpt-4o")
    assert refused.to_numpy().tolist() == [["skip", "too long for the model", 1]]
    for model in ("gpt-6-luna", "some-model-of-ours"):
        assert df.ie.stale(PROMPT, **about, model=model)["action"].tolist() == ["ask"], model
    assert df.ie.stale(PROMPT, **about, model="gpt-4o", context_window=0)["action"].tolist() == ["ask"]
    assert n_requests(server) == 0


@pytest.mark.parametrize(
    ("about", "reads"),
    [
        ({"model": "gpt-5"}, "272,000"),  # of 400,000, of which 128,000 are kept for the answer
        ({"model": "gpt-4o", "max_tokens": 8_000}, "120,000"),
        ({"model": "claude-haiku-4-5", "backend": "anthropic"}, "183,616"),  # max_tokens of 16,384 is sent
    ],
)
def test_the_answer_has_its_room_in_the_window(server: Any, about: dict[str, Any], reads: str) -> None:
    out = frame("word " * 400_000).ie.extract(PROMPT, schema={"words": int}, **about)
    assert f"which reads {reads} tokens" in out["ie_error"].iloc[0]
    assert n_requests(server) == 0


def test_the_window_can_be_set_for_all_calls(server: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LMSYZ_CONTEXT_WINDOW", "2000")
    df = frame("word " * 4000)
    assert df.ie.stale(PROMPT)["action"].tolist() == ["skip"]
    assert df.ie.stale(PROMPT, context_window=100_000)["action"].tolist() == ["ask"], "the call's own word counts"


def test_a_local_model_tells_its_window_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    name = "Tiny@0123456789ab"
    for variable, value in (("URL", "http://127.0.0.1:4321"), ("MODEL", name), ("CONTEXT", "4096")):
        monkeypatch.setenv(f"LMSYZ_LOCAL_{variable}", value)
    keys = ("backend", "model", "api", "api_key", "base_url", "client", "quirks")
    place = find_place(load_settings(), **dict.fromkeys(keys))
    assert read_long_texts({}, load_settings(), place).window == 4096
    elsewhere = find_place(load_settings(), **dict.fromkeys(keys) | {"base_url": "http://127.0.0.1:9/v1", "model": "x"})
    assert read_long_texts({}, load_settings(), elsewhere).window is None


def test_an_answer_that_is_stored_is_reused_even_where_the_text_would_be_refused_now(server: Any) -> None:
    df = frame("word " * 4000)
    first = df.ie.extract(PROMPT, schema=SCHEMA)
    n = n_requests(server)
    pd.testing.assert_frame_equal(df.ie.extract(PROMPT, schema=SCHEMA, context_window=2000), first)
    assert df.ie.stale(PROMPT, schema=SCHEMA, context_window=2000)["action"].tolist() == ["reuse"]
    assert n_requests(server) == n


def test_a_batch_does_not_send_what_is_too_long_and_says_so_in_any_kernel(server: Any, backend: str) -> None:
    df = frame("A short one.", "word " * 4000)
    job = df.ie.batch(PROMPT, schema=SCHEMA, backend=backend, context_window=2000, job_id="long")
    assert job.wait().is_done
    assert "1 rows are too long" in repr(job)
    for out in (job.results(), BatchJob.load("long").results()):
        assert out["ie_error"].isna().tolist() == [True, False]
        assert out["ie_error"].iloc[1].startswith("failed: prompt and text are too long")
    assert [b["n_rows"] for b in server.batches()] == [1]
    job.retry()
    assert [b["n_rows"] for b in server.batches()] == [1], "and a retry does not send it either"
    assert job.finish_live()["ie_error"].isna().tolist() == [True, False]
    assert n_rows_asked(server) == 0, "nor does the live path"


@pytest.mark.parametrize(
    ("about", "words"),
    [
        ({"long_texts": "cut"}, "use 'refuse'"),
        ({"long_texts": "split", "max_text_tokens": 3}, "max_text_tokens must be a whole number from 16 up, got 3"),
        ({"long_texts": "split", "max_text_tokens": 99.5}, "max_text_tokens must be a whole number"),
        ({"max_text_tokens": 100}, "max_text_tokens= is about texts asked in parts: add long_texts='split'"),
        ({"merge": merge_answers}, "merge= is about texts asked in parts: add long_texts='split'"),
        ({"long_texts": "split", "max_text_tokens": 100, "merge": "last"}, "merge= takes a function"),
        ({"context_window": -1}, "context_window must be a whole number from 0 up"),
        ({"context_window": True}, "context_window must be a whole number from 0 up"),
        ({"long_texts": "split"}, "how much sandbox-rules reads is not known; say max_text_tokens=8_000"),
    ],
)
def test_what_cannot_be_is_refused_before_any_work(server: Any, about: dict[str, Any], words: str) -> None:
    df = frame(document())
    for call in (df.ie.extract, df.ie.batch, df.ie.stale):
        with pytest.raises(UsageError, match=words.replace("(", r"\(")):
            call(PROMPT, **about)
    assert n_requests(server) == 0
    assert not list(Path().glob("*.sqlite"))
    assert not Path("batch_jobs").exists()


# --- in parts ---------------------------------------------------------------------------------------


def test_a_long_text_is_asked_in_parts_and_their_answers_are_merged(server: Any, backend: str) -> None:
    df = frame("A short one.", document(), None, "The last.").set_index(pd.Index(list("abcd")))
    out = df.ie.extract(PROMPT, schema=SCHEMA, backend=backend, **SMALL)
    parts = cut_text(df["text"].iloc[1], PART)
    assert len(parts) > 2
    assert n_rows_asked(server) == 2 + len(parts)
    assert out.index.tolist() == list("abcd")
    assert out["ie_error"].isna().tolist() == [True, True, False, True]
    assert [str(d) for d in out.dtypes] == ["string", "object", "Int64", "string"]
    expected = merge_answers(asked_alone(df, parts, backend=backend))
    assert out.drop(columns="ie_error").iloc[1].to_dict() == expected


def test_rows_are_counted_not_parts_and_the_report_says_both(server: Any) -> None:
    df = frame("A short one.", document(), document(), document(9, "monthly"), id=["a", "b", "c", "d"])
    df.ie.extract(PROMPT, schema=SCHEMA, id_col="id", **SMALL)
    run = lmsyz.last_run()
    assert run is not None
    n_parts = [len(cut_text(text, PART)) for text in df["text"].iloc[1:]]
    assert (run.counts.n_rows, run.counts.n_ok, run.counts.n_waiting) == (4, 4, 0)
    assert n_rows_asked(server) == 1 + n_parts[0] + n_parts[2], "equal texts are cut and asked once"
    assert f"3 rows asked in {sum(n_parts)} parts" in repr(run)
    assert run.manifest()["rows_asked_in_parts"] == 3
    assert run.manifest()["parts"] == sum(n_parts)
    df.ie.extract(PROMPT, schema=SCHEMA, id_col="id", **SMALL)
    again = lmsyz.last_run()
    assert again is not None
    assert (again.counts.n_cached, again.counts.n_ok) == (4, 0)


def test_the_second_call_sends_nothing_and_a_part_is_stored_as_any_row(server: Any, backend: str) -> None:
    df = frame(document())
    about = {"schema": SCHEMA, "backend": backend}
    first = df.ie.extract(PROMPT, **about, **SMALL)
    n = n_requests(server)
    pd.testing.assert_frame_equal(df.ie.extract(PROMPT, **about, **SMALL), first)
    assert frame(*cut_text(df["text"].iloc[0], PART)).ie.extract(PROMPT, **about)["ie_error"].isna().all()
    assert n_requests(server) == n
    assert df.ie.stale(PROMPT, **about, **SMALL).to_numpy().tolist() == [["reuse", "same question", 1]]


def test_a_change_in_one_part_asks_about_that_part_alone(server: Any) -> None:
    text = document()
    about = {"schema": SCHEMA, "id_col": "id", **SMALL}
    frame(text, id=["a"]).ie.extract(PROMPT, **about)
    n = n_rows_asked(server)
    changed = text.replace("Chapter 5 of the annual report is", "Chapter 5 of the annual report was")
    parts = cut_text(changed, PART)
    assert len(set(parts) - set(cut_text(text, PART))) == 1
    df = frame(changed, id=["a"])
    assert df.ie.stale(PROMPT, **about).to_numpy().tolist() == [["ask", "text changed, in parts", 1]]
    df.ie.extract(PROMPT, **about)
    assert n_rows_asked(server) == n + 1


def test_stale_tells_of_rows_in_parts(server: Any) -> None:
    df = frame(document(), "A short one.", document(9, "monthly"), None)
    told = df.ie.stale(PROMPT, schema=SCHEMA, **SMALL)
    assert sorted(told.to_numpy().tolist()) == [
        ["ask", "new row", 1],
        ["ask", "new row, in parts", 2],
        ["skip", "empty text", 1],
    ]
    df.ie.extract(PROMPT, schema=SCHEMA, **SMALL)
    told = df.ie.stale("Give the digest again.", schema=SCHEMA, **SMALL)
    assert ["ask", "prompt changed, in parts", 2] in told.to_numpy().tolist()


def test_where_a_part_has_no_answer_the_row_has_none_and_names_it(server: Any, backend: str) -> None:
    text = document(16)
    parts = cut_text(text, PART)
    at, rate = next(
        (i, rate)
        for rate in (x / 1000 for x in range(1, 1000))
        for i in range(len(parts))
        if [refuses(0, part, rate) for part in parts].count(True) == 1 and refuses(0, parts[i], rate)
    )
    server.set_faults(refused=rate)
    out = frame(text, id=["a"]).ie.extract(PROMPT, schema=SCHEMA, id_col="id", backend=backend, **SMALL)
    assert out["ie_error"].iloc[0].startswith(f"refused: part {at + 1} of {len(parts)}: ")
    assert out.drop(columns="ie_error").isna().all(axis=None), "no answer is made up from the other parts"
    run = lmsyz.last_run()
    assert run is not None
    assert dict(run.counts.n_failed) == {"refused": 1}
    assert run.counts.n_ok == run.counts.n_waiting == 0
    assert next(iter(run.counts.reasons.values())) == (1, (f"a#{at + 1}",))
    assert run.errors["reason"].iloc[0] == out["ie_error"].iloc[0]
    server.set_faults()
    n = n_rows_asked(server)
    again = run.retry()
    assert again.result()["ie_error"].isna().all()
    assert n_rows_asked(server) == n + 1, "what came home of the other parts is kept"


def test_a_row_that_is_a_part_of_another_is_asked_once_and_counted_as_itself(server: Any) -> None:
    text = document()
    parts = cut_text(text, PART)
    df = frame(parts[1], text, parts[1])
    out = df.ie.extract(PROMPT, schema=SCHEMA, **SMALL)
    assert out["ie_error"].isna().all()
    assert n_rows_asked(server) == len(parts)
    run = lmsyz.last_run()
    assert run is not None
    assert (run.counts.n_ok, run.counts.n_waiting) == (3, 0)


def test_without_dedupe_equal_long_texts_are_asked_each_on_its_own(server: Any) -> None:
    text = document()
    parts = cut_text(text, PART)
    df = frame(text, parts[0], text)
    out = df.ie.extract(PROMPT, schema=SCHEMA, dedupe=False, **SMALL)
    assert out["ie_error"].isna().all()
    assert n_rows_asked(server) == 2 * len(parts) + 1
    df.ie.extract(PROMPT, schema=SCHEMA, dedupe=False, **SMALL)
    assert n_rows_asked(server) == 2 * len(parts) + 1


def test_parts_have_ids_that_are_nobody_elses(server: Any) -> None:
    df = frame(document(), "Short.", "Brief.", id=["a", "a#2", "b"])
    out = df.ie.extract(PROMPT, schema=SCHEMA, id_col="id", **SMALL)
    n = len(cut_text(df["text"].iloc[0], PART))
    assert sorted(row["input_id"] for row in sent_rows(server)) == sorted(
        ["a#2", "b", *(f"a##{i}" for i in range(1, n + 1))]
    )
    assert out["ie_error"].isna().all()


def test_rows_are_verified_in_parts_as_well(server: Any) -> None:
    out = frame(document(), "A short one.").ie.extract(PROMPT, schema=SCHEMA, verify_rows=True, **SMALL)
    assert out["ie_error"].isna().all()


def test_of_several_columns_the_longest_field_is_cut_and_the_others_go_along(server: Any) -> None:
    df = frame(document(), "Short.", title=["Report", "Note"], year=[2024, 2025])
    about = {"schema": SCHEMA, "text_col": ["title", "text", "year"], **SMALL}
    out = df.ie.extract(PROMPT, **about)
    assert out["ie_error"].isna().all()
    long = [row["input_text"] for row in sent_rows(server) if row["input_text"]["title"] == "Report"]
    assert len(long) > 2
    assert all(list(row) == ["title", "text", "year"] and row["year"] == "2024" for row in long)
    assert sorted("".join(sorted(row["text"] for row in long))) == sorted(document())
    n = n_requests(server)
    df.ie.extract(PROMPT, **about)
    assert n_requests(server) == n


def test_fields_that_leave_no_room_for_a_part_are_refused(server: Any) -> None:
    df = frame(document(), title=["many words " * 30])
    out = df.ie.extract(PROMPT, schema=SCHEMA, text_col=["title", "text"], **SMALL)
    assert out["ie_error"].iloc[0].startswith("failed: only the longest field (text) is cut, and the other fields")
    assert n_requests(server) == 0


def test_the_window_alone_says_where_to_cut(server: Any) -> None:
    words = [f"word{i}" for i in range(4000)]
    out = frame(" ".join(words)).ie.extract(PROMPT, schema={"words": int}, long_texts="split", context_window=4000)
    assert out["ie_error"].isna().all()
    texts = [row["input_text"] for row in sent_rows(server)]
    assert sorted(" ".join(texts).split()) == sorted(words)
    assert all(len(text) < 4 * 2000 for text in texts)


def test_a_text_without_schema_is_merged_by_what_came(server: Any) -> None:
    prompt = 'Answer {"all_results": [{"input_id": "...", "keywords": ["..."], "words": 3}]} as JSON.'
    out = frame(document()).ie.extract(prompt, **SMALL)
    assert out["ie_error"].isna().all()
    assert isinstance(out["keywords"].iloc[0], list)
    assert str(out["words"].dtype) == "Int64"


class Counted(BaseModel):
    words: int
    keywords: list[str]


def test_a_pydantic_model_validates_each_part(server: Any) -> None:
    out = frame(document()).ie.extract(PROMPT, schema=Counted, **SMALL)
    assert out["ie_error"].isna().all()
    assert len(out["keywords"].iloc[0]) == len(set(out["keywords"].iloc[0])) > 3


# --- merged -----------------------------------------------------------------------------------------


def total(answers: list[dict[str, Any]]) -> Mapping[str, Any]:
    """Count the words of all parts, and keep the first part's digest."""
    return {**answers[0], "words": sum(answer["words"] for answer in answers)}


def test_a_rule_of_ones_own_merges_the_parts_in_their_order(server: Any) -> None:
    df = frame(document())
    parts = cut_text(document(), PART)
    out = df.ie.extract(PROMPT, schema=SCHEMA, merge=total, **SMALL)
    alone = asked_alone(df, parts)
    assert out["words"].iloc[0] == sum(answer["words"] for answer in alone) == len(document().split())
    assert out["digest"].iloc[0] == alone[0]["digest"]


@pytest.mark.parametrize(
    ("rule", "words"),
    [
        (lambda answers: 1 / 0, "invalid: the parts' merged answer: merge= raised ZeroDivisionError"),
        (lambda answers: answers, "invalid: the parts' merged answer: merge= returned list, not a dict"),
        (lambda answers: {"words": "many"}, "invalid: the parts' merged answer: field"),
        (lambda answers: {**answers[0], "keywords": [{1, 2}]}, "invalid: the parts' merged answer: "),
    ],
)
def test_a_rule_that_fails_is_that_rows_trouble_alone(server: Any, rule: Any, words: str) -> None:
    df = frame(document(), "A short one.")
    out = df.ie.extract(PROMPT, schema=SCHEMA, merge=rule, **SMALL)
    assert out["ie_error"].iloc[0].startswith(words)
    assert out["ie_error"].isna().tolist() == [False, True]
    # It is no good row in the report either, nor where its parts come from the store.
    again = frame(document(), "A short one.")
    for _ in range(2):
        run = lmsyz.last_run()
        assert run is not None
        assert (run.counts.n_ok + run.counts.n_cached, dict(run.counts.n_failed)) == (1, {"invalid": 1})
        assert run.errors_by_kind == {"invalid": (1, ("0",))}
        again.ie.extract(PROMPT, schema=SCHEMA, merge=rule, **SMALL)


@pytest.mark.parametrize(
    ("values", "merged"),
    [
        ([["a", "b"], None, ["b", "c"], []], ["a", "b", "c"]),
        ([[{"x": 1}], [{"x": 2}, {"x": 1}]], [{"x": 1}, {"x": 2}]),
        ([False, None, True, False], True),
        ([None, False], False),
        (["bad", "good", "good"], "good"),
        (["bad", "good", None, "good", "bad"], "bad"),
        ([None, None, "only"], "only"),
        ([None, None], None),
        ([1, 2, 2, 3], 2),
        ([2.5, 1.5], 2.5),
        ([{"a": 1, "b": ["x"]}, {"a": None, "b": ["y"]}, None], {"a": 1, "b": ["x", "y"]}),
        ([1, True, "1"], 1),
    ],
)
def test_the_rule_by_kind_of_value(values: list[Any], merged: object) -> None:
    out = merge_answers([{"field": value} for value in values])["field"]
    assert out == merged
    assert type(out) is type(merged)


def test_a_field_that_only_one_part_has_is_kept() -> None:
    assert merge_answers([{"a": 1}, {"b": 2}]) == {"a": 1, "b": 2}


# --- batch ------------------------------------------------------------------------------------------


def test_a_batch_asks_the_same_parts_and_is_a_hit_for_extract(server: Any, backend: str) -> None:
    df = frame("A short one.", document(), document(9, "monthly"), id=["a", "b", "c"])
    about = {"schema": SCHEMA, "id_col": "id", "backend": backend, **SMALL}
    job = df.ie.batch(PROMPT, job_id="parts", **about)
    assert job.results()["ie_error"].str.startswith("pending").all()
    n_parts = sum(len(cut_text(text, PART)) for text in df["text"].iloc[1:])
    assert [b["n_rows"] for b in server.batches()] == [1 + n_parts]
    assert job.wait().is_done
    assert f"3 rows, 2 rows asked in {n_parts} parts" in repr(job)
    out = job.results()
    assert out["ie_error"].isna().all()
    pd.testing.assert_frame_equal(BatchJob.load("parts").results(), out)
    pd.testing.assert_frame_equal(df.ie.extract(PROMPT, **about), out)
    assert n_rows_asked(server) == 0
    df.ie.batch(PROMPT, job_id="parts", **about)
    assert len(server.batches()) == 1, "the same call again sends nothing"
    live = df.ie.extract(PROMPT, cache_path="live.sqlite", **about)
    pd.testing.assert_frame_equal(live, out)


def test_a_batch_is_collected_and_merged_in_another_process(server: Any) -> None:
    df = frame("A short one.", document())
    job = df.ie.batch(PROMPT, schema=SCHEMA, job_id="parts", **SMALL)
    job.wait()
    code = 'import lmsyz; print(lmsyz.BatchJob.load("parts").results().to_json(orient="records"), end="")'
    assert json.loads(run_python(code)) == json.loads(job.results().to_json(orient="records"))


def test_what_live_answered_of_the_parts_is_not_sent_in_a_batch(server: Any) -> None:
    text = document()
    parts = cut_text(text, PART)
    frame(*parts[:2]).ie.extract(PROMPT, schema=SCHEMA)
    job = frame(text).ie.batch(PROMPT, schema=SCHEMA, **SMALL)
    assert [b["n_rows"] for b in server.batches()] == [len(parts) - 2]
    job.wait()
    assert job.results()["ie_error"].isna().all()


@pytest.mark.parametrize("how", ["retry", "finish_live"])
def test_only_the_parts_that_failed_are_asked_again_also_in_another_kernel(server: Any, how: str, backend: str) -> None:
    df = frame("A short one.", document(), id=["a", "b"])
    n = 1 + len(cut_text(document(), PART))
    server.set_faults(batch_s=0.05, batch_errors=0.3)
    job = df.ie.batch(PROMPT, schema=SCHEMA, id_col="id", backend=backend, job_id="parts", chunk_size=1, **SMALL)
    n_bad = job.wait().n_bad
    assert 0 < n_bad < n, "the draws of this seed"
    assert ": part " in job.results()["ie_error"].iloc[1]
    server.set_faults(batch_s=0.05)
    job = BatchJob.load("parts")
    if how == "retry":
        job.retry()
        assert sorted(b["n_rows"] for b in server.batches()) == sorted([n, n_bad])
        job.wait()
        out = job.results()
        assert n_rows_asked(server) == 0
    else:
        out = job.finish_live()
        assert n_rows_asked(server) == n_bad
        assert all(row["input_id"] == "a" or row["input_id"].startswith("b#") for row in sent_rows(server))
    assert out["ie_error"].isna().all()
    pd.testing.assert_frame_equal(
        out, df.ie.extract(PROMPT, schema=SCHEMA, id_col="id", backend=backend, cache_path="new.sqlite", **SMALL)
    )


def test_a_job_with_a_rule_of_ones_own_asks_for_it_again(server: Any) -> None:
    df = frame(document())
    job = df.ie.batch(PROMPT, schema=SCHEMA, job_id="parts", merge=total, **SMALL)
    job.wait()
    out = job.results()
    assert out["words"].iloc[0] == len(document().split())
    with pytest.raises(UsageError, match=r"BatchJob\.load\('parts', merge=total\)"):
        BatchJob.load("parts").results()
    pd.testing.assert_frame_equal(BatchJob.load("parts", merge=total).results(), out)


def test_a_job_of_before_knows_no_parts_and_still_opens(server: Any) -> None:
    job = frame("A short one.").ie.batch(PROMPT, schema=SCHEMA, job_id="old")
    job.wait()
    path = job.folder / "job.json"
    kept = json.loads(path.read_text())
    del kept["n_too_long"], kept["in_parts"]
    path.write_text(json.dumps(kept))
    assert '"long"' not in (job.folder / "frame.jsonl").read_text()
    assert BatchJob.load("old").results()["ie_error"].isna().all()


def test_the_steps_of_the_seeds_batch_classes_read_a_job_in_parts(
    server: Any, caplog: pytest.LogCaptureFixture
) -> None:
    df = frame("A short one.", document(), id=["a", "b"])
    job = df.ie.batch(PROMPT, schema=SCHEMA, id_col="id", job_id="parts", **SMALL)
    job.wait()
    with caplog.at_level(logging.WARNING):
        out = lmsyz.OpenAIBatchExtractor().retrieve_results_as_dataframe("parts")
    assert out is not None
    assert out["input_id"].tolist() == ["a", "b"]
    assert not caplog.records


# --- where a text is cut ----------------------------------------------------------------------------

TEXTS = {
    "paragraphs": document(40),
    "windows line ends": document(40).replace("\n", "\r\n"),
    "lines": document(40).replace("\n\n", "\n"),
    "sentences": document(40).replace("\n\n", " "),
    "words": " ".join(NAMES) * 60,
    "no boundary": "x" * 3000,
    "Chinese": "本公司今年的收入增长了百分之十。董事会对此表示满意，并建议派发股息。" * 30,
    "Chinese without stops": "收入" * 900,
    "emoji": "👩‍👩‍👧‍👦👍🏽🇩🇪❤️" * 120,
    "accents": "e\u0301a\u0308" * 600,
}


@pytest.mark.parametrize("text", TEXTS.values(), ids=TEXTS.keys())
def test_nothing_is_lost_and_no_part_is_too_long(text: str) -> None:
    parts = cut_text(text, PART)
    assert "".join(parts) == text
    assert all(len(part.encode()) <= 4 * (PART - 1) for part in parts)
    assert all(len(part.encode()) >= 2 * (PART - 1) - 64 for part in parts[:-1])
    assert len(parts) > 3


@pytest.mark.parametrize(
    ("name", "ends"),
    [
        ("paragraphs", "\n\n"),
        ("windows line ends", "\r\n\r\n"),
        ("lines", "\n"),
        ("sentences", ". "),
        ("Chinese", "。"),
    ],
)
def test_a_cut_is_where_a_reader_would_make_it(name: str, ends: str) -> None:
    assert all(part.endswith(ends) for part in cut_text(TEXTS[name], PART)[:-1])


@pytest.mark.parametrize(
    ("name", "units"),
    [("emoji", ("👩‍👩‍👧‍👦", "👍🏽", "🇩🇪", "❤️")), ("accents", ("e\u0301", "a\u0308"))],
)
def test_what_is_seen_as_one_character_is_not_cut(name: str, units: tuple[str, ...]) -> None:
    for part in cut_text(TEXTS[name], PART):
        for unit in units:
            part = part.replace(unit, "")
        assert part == ""


def test_blank_stretches_are_no_parts() -> None:
    assert [part.strip() for part in cut_text("One." + " " * 2000 + "Two.", PART)] == ["One.", "Two."]


def test_after_a_change_the_later_cuts_fall_where_they_fell_before() -> None:
    text = document(400)
    before, after = cut_text(text, 200), cut_text("A sentence that was not there.\n\n" + text, 200)
    assert len(set(after) - set(before)) <= 4 < len(after) / 4


def test_texts_that_are_not_long_are_left_as_they_are() -> None:
    settings = load_settings()
    keys = ("model", "api", "base_url", "client", "quirks")
    place = find_place(settings, backend="openai", api_key="none", **dict.fromkeys(keys))
    task = make_task(place, PROMPT, SCHEMA, False, {})
    rows = read_rows(frame(*["Short.", None] * 50), "text")
    for own in ({}, {"context_window": 2000}, SMALL):
        assert read_long_texts(own, settings, place).applied(rows, task, place) is rows


def test_what_is_packed_into_one_request_fits_a_small_window_as_well(server: Any) -> None:
    df = frame(*[f"Text {i}: " + "word " * 300 for i in range(10)])  # 380 tokens each by estimate
    out = df.ie.extract(PROMPT, schema={"words": int}, context_window=2000, chunk_size=10)
    assert out["ie_error"].isna().all()
    assert n_requests(server) >= 5
    df.ie.batch(PROMPT, schema={"words": int}, context_window=2000, chunk_size=10, fresh=True)
    assert server.batches()[0]["n_requests"] >= 5


def test_the_command_line_takes_the_options_as_well(server: Any) -> None:
    frame("A short one.", document()).to_csv("texts.csv", index=False)
    options = ["--option", "long_texts=split", "--option", f"max_text_tokens={PART}"]
    Path("schema.json").write_text('{"type": "object", "properties": {"words": {"type": "integer"}}}')
    command = ["extract", "texts.csv", "--prompt", PROMPT, "--schema", "schema.json", "--out", "out.csv"]
    done = CliRunner().invoke(main, [*command, *options])
    assert done.exit_code == 0, done.output
    assert n_rows_asked(server) == 1 + len(cut_text(document(), PART))
