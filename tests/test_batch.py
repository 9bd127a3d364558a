"""``df.ie.batch``: submitted in one kernel, collected in another, and whatever happens on the way nothing is lost."""

from __future__ import annotations

import datetime
import functools
import json
import os
import re
import stat
import sys
import time
import traceback
from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta, timezone
from pathlib import Path
from types import FrameType
from typing import Any

import numpy as np
import openai
import pandas as pd
import pytest
from cache_records import run_python
from known_answers import digest
from pydantic import BaseModel

import lmsyz
from lmsyz import batch, batch_job, batch_lock, batch_setup, batch_wait
from lmsyz.batch_job import BatchJob
from lmsyz.batch_ledger import Ledger, Part
from lmsyz.batch_lock import disk_error
from lmsyz.batch_settle import part_run_id
from lmsyz.batch_submit import submit_batch
from lmsyz.errors import BatchError, ProviderError, RejectedError, UnavailableError, UsageError
from lmsyz.providers.batches import RemoteBatch

pytestmark = pytest.mark.usefixtures("quick_batches")

PROMPT = "Give the digest of each text."
SCHEMA = {"digest": str, "words": int}


def frame(n: int = 12) -> pd.DataFrame:
    return pd.DataFrame({"text": [f"Row {i} is one of several." for i in range(n)]})


def submit(df: pd.DataFrame, **about: Any) -> BatchJob:
    job: BatchJob = df.ie.batch(PROMPT, **({"schema": SCHEMA} | about))
    return job


def rows_of(request: dict[str, Any]) -> list[dict[str, Any]]:
    """The rows of a request that the sandbox remembers."""
    return list(json.loads(request["body"]["messages"][-1]["content"]))


def assert_all_home(df: pd.DataFrame, out: pd.DataFrame) -> None:
    assert out["ie_error"].isna().all(), out["ie_error"].value_counts()
    assert out["digest"].tolist() == [digest(t) for t in df["text"]]


# --- there and back ---------------------------------------------------------------------------------


def test_a_batch_comes_home_aligned_typed_and_as_a_cache_hit_for_extract(server: Any, backend: str) -> None:
    df = frame().set_index(pd.Index([f"r{i}" for i in range(12)], name="row"))
    job = submit(df, backend=backend)
    assert job.results()["ie_error"].str.startswith("pending").all()
    assert job.wait().is_done
    out = job.results()
    assert_all_home(df, out)
    pd.testing.assert_index_equal(out.index, df.index)
    n = server.stats()["n_requests"]
    pd.testing.assert_frame_equal(df.ie.extract(PROMPT, schema=SCHEMA, backend=backend), out)
    assert server.stats()["n_requests"] == n


def test_what_is_stored_is_not_sent(server: Any, backend: str) -> None:
    frame(5).ie.extract(PROMPT, schema=SCHEMA, backend=backend)
    job = submit(frame(7), backend=backend)
    assert job.status().n_sent == 2
    done = submit(frame(5), backend=backend, job_id="nothing-to-do")
    assert done.status().is_done
    assert_all_home(frame(5), done.results())


def test_a_batch_sends_byte_for_byte_what_the_live_path_sends(server: Any, backend: str) -> None:
    df = pd.DataFrame({"text": ["Ünï\u2028code and 'quotes' \"both\"", "another"]})
    df.ie.extract(PROMPT, schema=SCHEMA, backend=backend, cache_path="live.sqlite", max_tokens=500)
    submit(df, backend=backend, cache_path="batch.sqlite", max_tokens=500).wait()
    bodies = []
    for name in ("live.sqlite", "batch.sqlite"):
        with lmsyz.SqliteCache(name) as cache:
            bodies.append([cache.request(a.request_id).body for a in cache.page_answers()])
    assert bodies[0] == bodies[1]
    assert "\u2028" in bodies[0][0]


def test_a_batch_asks_in_the_form_that_the_live_path_has_found_to_work(server: Any, backend: str) -> None:
    server.set_faults(batch_s=0.05, refused_forms=("json_schema",))
    frame(3).ie.extract(PROMPT, schema=SCHEMA, backend=backend)
    job = submit(frame(9), backend=backend)
    job.wait()
    assert_all_home(frame(9), job.results())
    assert job.status().parts[0].form != "json_schema"


def test_the_responses_api_goes_by_batch_too(server: Any) -> None:
    job = submit(frame(4), api="responses")
    job.wait()
    assert_all_home(frame(4), job.results())


def test_several_parts_twins_and_empty_texts(server: Any, backend: str) -> None:
    df = pd.concat([frame(23), frame(4), pd.DataFrame({"text": [None, " "]})], ignore_index=True)
    job = submit(df, backend=backend, max_requests_per_batch=2, chunk_size=3)
    assert len(job.status().parts) == 4
    assert job.status().n_sent == 23
    job.wait()
    out = job.results()
    assert_all_home(df.iloc[:27], out.iloc[:27])
    assert out["ie_error"].tolist()[27:] == ["invalid: empty text"] * 2


CHILD = """
import sys, json
import pandas as pd
import lmsyz
step = sys.argv[1]
df = pd.DataFrame({"text": [f"Row {i} is one of several." for i in range(12)], "firm": [f"f{i}" for i in range(12)]},
                  index=pd.date_range("2024-01-01", periods=12, name="day"))
about = dict(schema={"digest": str, "words": int}, id_col="firm")
if step == "submit":
    print(df.ie.batch("Give the digest of each text.", job_id="job", **about).job_id)
elif step == "poll":
    print(lmsyz.batch_jobs().loc[0, "job_id"], lmsyz.BatchJob.load("job").refresh().state)
elif step == "collect":
    out = lmsyz.BatchJob.load("job")
    out.wait()
    print(out.results().equals(df.ie.extract("Give the digest of each text.", **about)))
else:
    df.ie.extract("Give the digest of each text.", **about)
    print(lmsyz.last_run().counts.n_requests, lmsyz.last_run().counts.n_cached)
"""


INDEXES = {
    "unsorted": pd.Index([5, 1, 3, 2]),
    "floats": pd.Index([1.5, None, 2.5, 0.1]),
    "names": pd.Index(["b", None, "Größe", "a"], name="firm"),
    "days": pd.DatetimeIndex(["2024-01-03", None, "2024-01-01", "2024-01-02"], name="day"),
    "moments": pd.date_range("2024-03-31 00:30", periods=4, freq="h", tz="Europe/Berlin")[[3, 1, 0, 2]],
    "spans": pd.to_timedelta(["1h", "2D", None, "3ms"]),
    "flags": pd.Index([True, False, True, True]),
    "duplicated": pd.Index([7, 7, 7, 7]),
    "kinds": pd.CategoricalIndex(["low", "high", "low", None], categories=["low", "middle", "high"], ordered=True),
    "kinds and years": pd.MultiIndex.from_arrays([pd.Categorical([*"abba"], [*"cba"], ordered=True), [1, 2, 3, 4]]),
    "panel": pd.MultiIndex.from_product([["x", "y"], pd.to_datetime(["2024-01-01", "2023-01-01"])], names=["f", None]),
    "range": pd.RangeIndex(10, 2, -2, name="n"),
}


@pytest.mark.parametrize("index", INDEXES.values(), ids=INDEXES.keys())
def test_another_kernel_gives_the_rows_their_own_labels(server: Any, index: pd.Index) -> None:
    df = frame(4).set_axis(index)
    submit(df, job_id="job").wait()
    out = BatchJob.load("job").results()
    assert_all_home(df, out)
    pd.testing.assert_index_equal(out.index, index, exact=True)


def test_a_job_of_before_knew_no_categories_and_no_images_and_still_opens(server: Any) -> None:
    df = frame(4).set_axis(INDEXES["kinds"])
    job = submit(df, job_id="job")
    job.wait()
    head, _, rest = (job.folder / "frame.jsonl").read_text().partition("\n")
    kept = json.loads(head)
    del kept["index"]["categories"], kept["images"]
    (job.folder / "frame.jsonl").write_text(f"{json.dumps(kept)}\n{rest}")
    assert BatchJob.load("job").results().index.astype(object).equals(df.index.astype(object))


@pytest.mark.parametrize(
    "index",
    [pd.period_range("2024-01", periods=3, freq="M"), pd.CategoricalIndex([*"aba"], ["a", "b", datetime.date.min])],
    ids=["periods", "a category that no row has"],
)
def test_labels_that_a_file_cannot_hold_are_said_to_be_lost(
    server: Any, caplog: pytest.LogCaptureFixture, index: pd.Index
) -> None:
    df = frame(3).set_axis(index)
    job = submit(df, job_id="job")
    job.wait()
    pd.testing.assert_index_equal(job.results().index, df.index)
    out = BatchJob.load("job").results()
    assert_all_home(df, out)
    assert out.index.equals(pd.RangeIndex(3))
    assert "index could not be kept on disk; results have their positions instead" in caplog.text


def test_a_label_that_no_file_can_hold_stops_no_job(server: Any) -> None:
    df = frame(2).set_axis(pd.Index(["a\ud800", "b"], dtype=object))
    submit(df, job_id="job").wait()
    out = BatchJob.load("job").results()
    assert_all_home(df, out)
    assert out.index.tolist() == ["a?", "b"]


def test_another_kernel_knows_thousands_of_rows_by_label_id_and_text(server: Any) -> None:
    n = 2_100
    df = frame(n).assign(firm=[f"firm {i}" for i in range(n)]).set_axis([f"r{i}" for i in range(n)])
    server.set_faults(batch_s=0.05, batch_errors=1.0)
    submit(df, job_id="job", id_col="firm", chunk_size=50).wait()
    server.set_faults()
    out = BatchJob.load("job").finish_live()
    pd.testing.assert_index_equal(out.index, df.index)
    assert_all_home(df, out)
    sent = [row for r in server.requests(last=1000) if r["api"] == "chat" for row in rows_of(r)]
    texts = dict(zip(df["firm"], df["text"], strict=True))
    assert {row["input_id"]: row["input_text"] for row in sent} == texts


def test_four_kernels_share_one_job(server: Any) -> None:
    assert run_python(CHILD, "submit").strip() == "job"
    assert run_python(CHILD, "poll").startswith("job ")
    assert run_python(CHILD, "collect").strip() == "True"
    assert run_python(CHILD, "extract").split() == ["0", "12"]


def test_a_jobs_status_says_why_rows_have_no_answer(server: Any, backend: str) -> None:
    server.set_faults(batch_s=0.05, refused=1.0)
    job = submit(frame(4), backend=backend)
    job.wait()
    assert re.search(r"without answer: 4 x refused", repr(job.status()))
    assert BatchJob.load(job.job_id).status().parts[0].reasons == job.status().parts[0].reasons


FULL = """
import resource, signal
import pandas as pd
import lmsyz
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
df = pd.DataFrame({"text": [f"Row {i} is one of several." for i in range(2000)]})
lmsyz.SqliteCache("lmsyz_cache.sqlite").close()
usual = resource.getrlimit(resource.RLIMIT_FSIZE)
resource.setrlimit(resource.RLIMIT_FSIZE, (150_000, usual[1]))
try:
    df.ie.batch("Give the digest.", schema={"digest": str}, job_id="full")
except lmsyz.BatchError as error:
    print(error)
resource.setrlimit(resource.RLIMIT_FSIZE, usual)
job = df.ie.batch("Give the digest.", schema={"digest": str}, job_id="full")
job.wait()
print(job.results()["ie_error"].isna().sum())
"""


@pytest.mark.skipif(os.name != "posix", reason="limits the size of a process's files")
def test_a_disk_without_room_is_said_and_the_same_call_goes_on_when_there_is_some(server: Any) -> None:
    told, n_home = run_python(FULL).splitlines()
    assert re.search(r"batch_jobs/full', cannot be written or read: File too large\. Make room", told)
    assert n_home == "2000"
    assert paid_rows(server) == 2000


def test_a_folder_that_cannot_be_made_is_said_before_anything_is_sent(server: Any, backend: str) -> None:
    Path("jobs").write_text("a file stands where the folder should")
    with pytest.raises(BatchError, match=r"jobs/job', cannot be written or read: File exists\. Make room there"):
        submit(frame(2), backend=backend, batch_root_dir="jobs", job_id="job")
    assert server.stats()["n_requests"] == 0


def test_a_ledger_that_cannot_be_written_is_said_and_the_same_call_goes_on_later(server: Any, backend: str) -> None:
    job = submit(frame(2), backend=backend, job_id="job")
    stands_there = job.folder / "job.json.new"
    stands_there.mkdir()
    with pytest.raises(BatchError, match=r"batch_jobs/job', cannot be written or read: Is a directory\. Make room"):
        submit(frame(4), backend=backend, job_id="job")
    stands_there.rmdir()
    submit(frame(4), backend=backend, job_id="job").wait()
    assert_all_home(frame(4), BatchJob.load("job").results())
    assert paid_rows(server) == 4


def test_what_a_disk_says_in_its_own_words_is_told() -> None:
    assert "cannot be written or read: the share is gone. Make" in str(
        disk_error(Path("j"), OSError("the share is gone"))
    )


# --- the same call again ----------------------------------------------------------------------------


def test_the_same_call_re_attaches_and_more_rows_submit_only_the_new(server: Any, backend: str) -> None:
    server.set_faults(batch_s=1000)
    first = submit(frame(10), backend=backend)
    again = submit(frame(10), backend=backend)
    assert again.job_id == first.job_id
    assert again.status().n_sent == 10
    more = submit(frame(14), backend=backend)
    assert [p.n_rows for p in more.status().parts] == [10, 4]
    assert paid_rows(server) == 0
    server.advance(1000)
    more.wait()
    assert_all_home(frame(14), more.results())
    assert paid_rows(server) == 14
    assert_all_home(frame(10), first.results())


@pytest.mark.parametrize(
    ("change", "word"),
    [
        ({"prompt": "Another."}, "prompt"),
        ({"model": "sandbox-rules-mini"}, "model"),
        ({"schema": {"n": int}}, "schema"),
    ],
    ids=["prompt", "model", "schema"],
)
def test_another_question_under_the_same_job_id_is_refused(server: Any, change: dict[str, Any], word: str) -> None:
    submit(frame(), job_id="mine")
    n = server.stats()["n_requests"]
    with pytest.raises(UsageError, match=f"'mine' asks something else .*{word} changed"):
        frame().ie.batch(**({"prompt": PROMPT, "schema": SCHEMA, "job_id": "mine"} | change))
    assert server.stats()["n_requests"] == n
    assert submit(frame(), job_id="mine").status().n_sent == 12


def test_rows_on_their_way_in_another_job_are_not_sent_twice(server: Any) -> None:
    server.set_faults(batch_s=1000)
    submit(frame(6), job_id="one")
    with pytest.raises(UsageError, match=r"6 of these rows are on their way in job 'one'"):
        submit(frame(9), job_id="two")
    assert submit(frame(9).iloc[6:], job_id="two").status().n_sent == 3
    server.advance(1000)
    BatchJob.load("one").wait()
    assert submit(frame(6), job_id="three").status().is_done


def test_answers_to_another_prompt_count_where_the_call_said_so(server: Any) -> None:
    frame(5).ie.extract("Another prompt.", schema=SCHEMA)
    job = submit(frame(7), job_id="job", ignore_prompt_hash=True)
    assert job.status().n_sent == 2
    job.wait()
    assert_all_home(frame(7), BatchJob.load("job").results())


@pytest.mark.parametrize("about", [{"max_workers": 3}, {"on_error": "drop"}, {"background": True}], ids=str)
def test_an_argument_of_extract_alone_is_refused_and_not_sent(server: Any, about: dict[str, Any]) -> None:
    with pytest.raises(UsageError, match=f"{next(iter(about))}= is for df.ie.extract"):
        submit(frame(2), **about)


# --- what goes wrong --------------------------------------------------------------------------------


def test_what_an_expired_batch_had_done_is_kept_and_retry_sends_the_rest(server: Any, backend: str) -> None:
    server.set_faults(batch_s=0.05, batch_expires_at=0.6)
    df = frame(40)
    job = submit(df, backend=backend, chunk_size=1)
    job.wait()
    out = job.results()
    good = out["ie_error"].isna()
    assert good.sum() == 24
    assert out.loc[~good, "ie_error"].str.startswith("failed: ").all()
    assert out.loc[~good, "ie_error"].str.contains("expired").all()
    server.set_faults(batch_s=0.05)
    assert job.retry().n_sent == 40 + 16
    assert job.results()["ie_error"].str.startswith("pending").sum() == 16
    job.wait()
    assert_all_home(df, job.results())
    assert paid_rows(server) == 40


def test_rows_of_failed_requests_say_why_and_finish_live(server: Any, backend: str) -> None:
    server.set_faults(batch_s=0.05, batch_errors=0.4)
    df = frame(40)
    job = submit(df, backend=backend, chunk_size=2)
    job.wait()
    bad = job.results()["ie_error"].dropna()
    assert 0 < len(bad) < 40
    assert bad.str.startswith("failed: ").all()
    server.set_faults(batch_s=0.05)
    asked = server.stats()["n_rows"]
    assert_all_home(df, job.finish_live())
    assert server.stats()["n_rows"] - asked == len(bad)


def test_finishing_live_waits_for_a_run_that_asks_the_same_rows(server: Any, backend: str) -> None:
    server.set_faults(batch_s=0.05, batch_errors=1.0)
    job = submit(frame(12), backend=backend)
    job.wait()
    server.set_faults(latency_s=0.3)
    run = frame(12).ie.extract(PROMPT, schema=SCHEMA, backend=backend, background=True)
    assert_all_home(frame(12), job.finish_live())
    assert_all_home(frame(12), run.result())
    assert server.stats()["n_rows"] == 12


@pytest.mark.parametrize(
    ("rows", "tokens", "packed"), [(1, 6000, [1] * 6), (5, 16, [2] * 3)], ids=["few rows", "few tokens"]
)
def test_finishing_live_packs_rows_as_the_job_did(
    server: Any, backend: str, monkeypatch: pytest.MonkeyPatch, rows: int, tokens: int, packed: list[int]
) -> None:
    server.set_faults(batch_s=0.05, batch_errors=1.0)
    monkeypatch.setenv("LMSYZ_CHUNK_TOKENS", str(tokens))
    job = submit(frame(6), backend=backend, chunk_size=rows)
    job.wait()
    monkeypatch.delenv("LMSYZ_CHUNK_TOKENS")
    server.set_faults()
    assert_all_home(frame(6), job.finish_live())
    assert [len(rows_of(r)) for r in server.requests(last=6) if r["api"] in ("chat", "messages")] == packed


def test_another_kernel_retries_with_the_texts_that_were_sent(server: Any, backend: str) -> None:
    server.set_faults(batch_s=0.05, batch_errors=0.4)
    df = pd.DataFrame({"title": [f"T{i}" for i in range(20)], "body": ["é\u2028 x", "y"] * 10})
    job = df.ie.batch(PROMPT, schema=SCHEMA, backend=backend, text_col=["title", "body"], job_id="job", chunk_size=2)
    job.wait()
    assert job.results()["ie_error"].notna().any()
    server.set_faults(batch_s=0.05)
    again = BatchJob.load("job")
    again.retry()
    sent = [path.read_text(encoding="utf-8") for path in sorted(job.folder.glob("batch_input/*.json*"))]
    assert [r"\"input_text\":{\"title\":\"T" in bodies for bodies in sent] == [True, True]
    again.wait()
    assert again.results()["ie_error"].isna().all()
    n = server.stats()["n_requests"]
    df.ie.extract(PROMPT, schema=SCHEMA, backend=backend, text_col=["title", "body"])
    assert server.stats()["n_requests"] == n


def test_replies_that_spoil_rows_are_settled_like_live_ones(server: Any, backend: str) -> None:
    server.set_faults(
        batch_s=0.05, malformed=0.1, truncated=0.1, missing=0.1, foreign=0.1, duplicated=0.1, refused=0.05
    )
    df = frame(100)
    job = submit(df, backend=backend)
    job.wait()
    out = job.results()
    good = out["ie_error"].isna()
    assert 0 < good.sum() < 100
    assert out.loc[good, "digest"].tolist() == [digest(t) for t in df.loc[good, "text"]]
    words = set(out.loc[~good, "ie_error"].str.partition(":")[0])
    assert words <= {"refused", "truncated", "invalid", "missing"}
    server.set_faults(batch_s=0.05)
    job.retry()
    job.wait()
    assert_all_home(df, job.results())


def test_a_cancelled_job_keeps_what_was_done(server: Any, backend: str) -> None:
    server.set_faults(batch_s=100)
    job = submit(frame(40), backend=backend, chunk_size=1)
    server.advance(50)
    job.refresh()
    job.cancel()
    server.advance(100)
    job.wait()
    out = job.results()
    bad = out["ie_error"].dropna()
    assert bad.str.startswith(("cancelled: ", "failed: ")).all()
    assert len(bad) > 0
    assert paid_rows(server) == out["ie_error"].isna().sum()


def test_an_output_file_alone_or_an_error_file_alone_is_enough(server: Any) -> None:
    server.set_faults(batch_s=0.05, error_file_only=True)
    job = submit(frame(6))
    assert job.wait().is_done
    assert job.results()["ie_error"].str.startswith(("failed: ", "missing: ")).all()


def test_refused_enqueued_tokens_are_held_back_and_submitted_as_room_comes(server: Any) -> None:
    server.set_faults(batch_s=0.2, token_limit_batches=1)
    df = frame(40)
    job = submit(df, max_requests_per_batch=2)
    assert len(job.status().parts) == 4
    job.wait()
    assert_all_home(df, job.results())
    assert paid_rows(server) == 40


def test_a_batch_that_the_provider_refuses_after_creation_says_why(server: Any) -> None:
    server.set_faults(batch_s=0.05, batch_failed="invalid_json_line")
    job = submit(frame(4))
    job.wait()
    assert job.results()["ie_error"].str.contains("invalid_json_line").all()
    assert any("invalid_json_line" in words for words in job.status().problems)


def test_a_404_just_after_creation_is_waited_out(server: Any, backend: str) -> None:
    server.set_faults(batch_s=0.05, not_found_after_create=3)
    job = submit(frame(4), backend=backend)
    job.wait()
    assert_all_home(frame(4), job.results())


def test_a_broken_download_is_repeated_until_it_is_whole(server: Any, backend: str) -> None:
    server.set_faults(batch_s=0.05, broken_download=0.7)
    job = submit(frame(60), backend=backend)
    job.wait()
    assert_all_home(frame(60), job.results())


def test_foreign_and_broken_result_lines_do_not_harm_the_others(server: Any, backend: str) -> None:
    job = submit(frame(20), backend=backend, job_id="job", chunk_size=2)
    download = type(job._connected().batches).download

    def spoilt(self: Any, file: Any, path: Path, call: Any) -> None:
        download(self, file, path, call)
        lines = path.read_bytes().splitlines()
        path.write_bytes(
            b"\n".join([b"not json", lines[0].replace(b'"custom_id":"', b'"custom_id":"x'), *lines, lines[0]])
        )

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(type(job._connected().batches), "download", spoilt)
        job.wait()
    assert_all_home(frame(20), job.results())
    assert any("were not used" in words for words in job.status().problems)


def test_a_job_id_used_again_in_another_folder_loses_no_answer(server: Any, backend: str) -> None:
    submit(frame(), backend=backend, job_id="job").wait()
    prompt = f"{PROMPT} Count its words as well."
    job = frame().ie.batch(prompt, schema=SCHEMA, backend=backend, job_id="job", batch_root_dir="elsewhere")
    job.wait()
    assert_all_home(frame(), job.results())
    again = submit(frame(), backend=backend, job_id="job", batch_root_dir="a third", fresh=True)
    again.wait()
    with lmsyz.SqliteCache("lmsyz_cache.sqlite") as cache:
        assert len(cache.page_answers()) == 3 * 12
        runs = [part_run_id(Ledger.load(j.folder), j.status().parts[0]) for j in (job, again)]
        assert [len(list(cache.answers_of_run(run))) for run in runs] == [12, 12]


def test_rows_asked_again_are_not_answered_by_what_was_stored_before(server: Any, backend: str) -> None:
    frame(6).ie.extract(PROMPT, schema=SCHEMA, backend=backend)
    server.set_faults(batch_s=0.05, batch_errors=1.0)
    job = submit(frame(6), backend=backend, job_id="job", fresh=True)
    assert job.results()["ie_error"].str.startswith("pending").all()
    job.wait()
    assert job.results()["ie_error"].str.startswith("failed").all()
    server.set_faults(batch_s=0.05)
    again = BatchJob.load("job")
    assert again.retry().n_pending == 6
    again.wait()
    assert_all_home(frame(6), again.results())
    n_requests = server.stats()["n_requests"]
    assert_all_home(frame(6), again.finish_live())
    assert submit(frame(6), backend=backend, job_id="job").status().is_done
    assert (paid_rows(server), server.stats()["n_requests"]) == (6, n_requests)


def test_an_index_whose_time_zone_has_no_name_does_not_keep_the_answers_from_another_kernel(
    server: Any, caplog: pytest.LogCaptureFixture
) -> None:
    zone = timezone(timedelta(hours=1), "CET1")
    df = frame().set_index(pd.date_range("2026-01-01", periods=12, tz=zone))
    submit(df, job_id="job").wait()
    assert_all_home(df, BatchJob.load("job").results())
    assert "results have their positions instead" in caplog.text


def test_another_kernel_asks_nothing_again_without_what_was_hidden_of_the_requests(server: Any) -> None:
    about = {"job_id": "job", "extra_body": {"metadata": {"token": "mine"}, "logit_bias": {"7": 1}}}
    server.set_faults(batch_s=0.05, batch_errors=1.0)
    submit(frame(4), **about).wait()
    server.set_faults(batch_s=0.05)
    loaded = BatchJob.load("job")
    for ask in (loaded.retry, loaded.finish_live):
        with pytest.raises(UsageError, match=r"have 'token' in extra_body=.* Make the same call of df.ie.batch again"):
            ask()
    job = submit(frame(4), **about)
    job.retry()
    job.wait()
    assert_all_home(frame(4), job.results())
    assert all(b'"token":"mine"' in path.read_bytes() for path in job.folder.glob("batch_input/*.jsonl"))
    assert loaded.finish_live()["ie_error"].isna().all()


@pytest.mark.parametrize("again", ["submit", "retry"])
def test_a_batch_asks_nothing_that_a_stopped_run_has_still_in_flight(server: Any, again: str) -> None:
    if again == "retry":
        server.set_faults(batch_s=0.05, batch_errors=1.0)
        submit(frame(), job_id="job").wait()
    server.set_faults(batch_s=0.05, latency_s=0.7)
    run = frame().ie.extract(PROMPT, schema=SCHEMA, chunk_size=2, max_workers=2, background=True)
    until = time.monotonic() + 10
    while not server.stats()["n_requests"]:
        assert time.monotonic() < until
        time.sleep(0.01)
    run.stop()
    if again == "retry":
        job = BatchJob.load("job")
        job.retry()
    else:
        job = submit(frame(), job_id="job")
    job.wait()
    assert_all_home(frame(), job.results())
    assert run.counts.n_ok > 0
    assert paid_rows(server) + run.counts.n_ok == 12


def test_rows_whose_answers_were_deleted_are_not_said_to_be_on_their_way(server: Any) -> None:
    job = submit(frame(4), job_id="job", chunk_size=1)
    job.wait()
    with lmsyz.SqliteCache("lmsyz_cache.sqlite") as cache:
        cache.delete(a.id for a in cache.page_answers(limit=2))
    said = BatchJob.load("job").results()["ie_error"].dropna()
    assert len(said) == 2
    assert said.str.startswith("missing: neither stored nor on its way").all()
    job = BatchJob.load("job")
    assert job.retry().n_pending == 2
    assert job.results()["ie_error"].dropna().str.startswith("pending").all()
    job.wait()
    assert_all_home(frame(4), job.results())


# --- was it created? --------------------------------------------------------------------------------


def test_a_batch_created_without_an_answer_is_found_again(server: Any, backend: str) -> None:
    server.set_faults(batch_s=0.05, create_timeout=1.0)
    with pytest.raises(UnavailableError) as raised:
        submit(frame(), backend=backend)
    assert "Nothing is created twice" in " ".join(raised.value.__notes__)
    server.set_faults(batch_s=0.05)
    server.advance(1)
    job = submit(frame(), backend=backend)
    job.wait()
    assert_all_home(frame(), job.results())
    assert paid_rows(server) == 12


def test_where_only_a_person_can_tell_the_job_stops_and_asks(server: Any) -> None:
    server.set_faults(batch_s=1000, create_timeout=1.0)
    with pytest.raises(UnavailableError):
        submit(frame(), backend="anthropic", job_id="job")
    server.set_faults(batch_s=1000)
    job = BatchJob.load("job")
    with pytest.raises(BatchError, match=r"may have been created.*job.adopt\(1, 'msgbatch_.*job.create_again\(1\)"):
        job.wait()
    assert job.status().state == "unsure"
    remote = job.status().parts[0].candidates[0]
    assert job.adopt(1, remote).state == "in_progress"
    server.advance(1000)
    job.wait()
    assert_all_home(frame(), job.results())
    assert paid_rows(server) == 12


def test_a_candidate_that_has_ended_tells_by_its_ids_whether_it_is_ours(server: Any) -> None:
    server.set_faults(batch_s=1000, create_timeout=1.0)
    with pytest.raises(UnavailableError):
        submit(frame(), backend="anthropic", job_id="job")
    server.set_faults(batch_s=1000)
    other = frame().assign(text=[f"Somebody else's row {i}" for i in range(12)])
    submit(other, backend="anthropic", job_id="other", batch_root_dir="elsewhere")
    server.advance(1000)
    job = BatchJob.load("job")
    job.wait()
    assert_all_home(frame(), job.results())
    assert paid_rows(server) == 24


def test_where_the_only_candidate_turns_out_to_be_another_job_the_part_is_looked_for_again(
    server: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    server.set_faults(batch_s=1000, server_error=1.0)
    with pytest.raises(UnavailableError):
        submit(frame(), backend="anthropic", job_id="job")
    server.set_faults(batch_s=1000)
    other = frame().assign(text=[f"Somebody else's row {i}" for i in range(12)])
    submit(other, backend="anthropic", job_id="other", batch_root_dir="elsewhere")
    job = BatchJob.load("job")
    assert job.refresh().state == "unsure"
    monkeypatch.setattr(batch, "GRACE_S", 60.0)
    server.advance(1000)
    assert job.wait(interval=0.05, timeout=0.1).state == "submitting"
    monkeypatch.setattr(batch, "GRACE_S", 0.0)
    server.set_faults(batch_s=0.05)
    job.wait()
    assert_all_home(frame(), job.results())
    assert paid_rows(server) == 24


def test_a_batch_of_an_earlier_job_of_the_same_name_is_not_taken_for_this_ones(
    server: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    frame().ie.batch("Count the words.", schema=SCHEMA, backend="anthropic", job_id="job", batch_root_dir="elsewhere")
    with monkeypatch.context() as patch:
        patch.setattr("lmsyz.providers.anthropic_batches.AnthropicBatches.create", _unreachable)
        with pytest.raises(UnavailableError):
            submit(frame(), backend="anthropic", job_id="job")
    server.advance(1)
    job = BatchJob.load("job")
    assert job.wait().is_done
    assert_all_home(frame(), job.results())
    assert server.stats()["n_batches_created"] == 2


def _unreachable(*args: Any) -> None:
    raise UnavailableError("the network is down")


def test_results_that_are_named_later_than_the_end_are_waited_for(
    server: Any, backend: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    job = submit(frame(), backend=backend)
    kind = type(job._connected().batches)
    retrieve, states = kind.retrieve, list[str]()

    def early(*args: Any) -> RemoteBatch:
        remote = retrieve(*args)
        states.append(remote.state)
        return replace(remote, result_files=()) if states.count("completed") < 3 else remote

    monkeypatch.setattr(kind, "retrieve", early)
    job.wait()
    assert states.count("completed") == 3
    assert_all_home(frame(), job.results())


def test_results_that_are_never_named_are_told_of_in_the_end(
    server: Any, backend: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(batch, "RESULTS_DUE_S", 0.2)
    job = submit(frame(), backend=backend)
    kind = type(job._connected().batches)
    retrieve = kind.retrieve
    monkeypatch.setattr(kind, "retrieve", lambda *args: replace(retrieve(*args), result_files=()))
    assert job.wait().is_done
    words = "failed: of the .* that the provider counts as answered it gave none back"
    assert job.results()["ie_error"].str.match(words).all()


def test_a_refusal_creates_nothing_and_says_so(server: Any, backend: str) -> None:
    with pytest.raises(ProviderError):
        submit(frame(), backend=backend, api_key="sk-invalid-key")
    job = submit(frame(), backend=backend)
    job.wait()
    assert paid_rows(server) == 12


def test_an_error_of_a_job_is_raised_without_the_ways_through_the_engine(server: Any, backend: str) -> None:
    def ways(call: Callable[[], object]) -> list[str]:
        with pytest.raises(ProviderError) as raised:
            call()
        return [Path(way.filename).name for way in traceback.extract_tb(raised.value.__traceback__)]

    assert ways(lambda: submit(frame(2), backend=backend, api_key="sk-invalid-key"))[-1] == "batch_submit.py"
    server.set_faults(batch_s=1000)
    job = submit(frame(4), backend=backend)
    server.set_faults(batch_s=1000, server_error=1.0)
    for call in (job.refresh, job.cancel):
        assert ways(call)[-1] == "batch_job.py"


def test_a_batch_that_the_provider_no_longer_knows_stops_and_asks(
    server: Any, backend: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(batch, "NOT_FOUND_YET_S", 0.0)
    server.set_faults(batch_s=1000)
    job = submit(frame(4), backend=backend)
    server.set_faults(batch_s=1000, not_found_after_create=10**6)
    with pytest.raises(BatchError, match=r"knows no batch .*job.give_up\(1\)"):
        job.refresh()
    job.give_up(1)
    assert job.results()["ie_error"].str.contains("given up").all()


@pytest.mark.parametrize("interval", [-1, float("nan"), float("inf"), "5"])
def test_an_interval_that_cannot_be_is_refused_before_anything_is_asked(server: Any, interval: Any) -> None:
    job = submit(frame(2))
    with pytest.raises(UsageError, match="interval= is the seconds between two looks"):
        job.wait(interval)
    assert not job.status().is_done
    assert job.wait(np.int64(0)).is_done


@pytest.mark.parametrize("look", ["results", "submit"])
def test_a_draft_that_another_kernel_takes_back_meanwhile_spoils_no_look(
    server: Any, monkeypatch: pytest.MonkeyPatch, look: str
) -> None:
    about = {"schema": SCHEMA, "job_id": "job", "send": False, "chunk_size": 1, "cache_path": "lmsyz_cache.sqlite"}
    job = submit_batch(frame(4), PROMPT, max_requests_per_batch=1, **about)
    read = batch_setup.read_keys

    def taken_back(ledger: Ledger, part: Part) -> Any:
        monkeypatch.setattr(batch_setup, "read_keys", read)
        submit_batch(frame(4), PROMPT, max_requests_per_batch=4, **about)
        return read(ledger, part)

    monkeypatch.setattr(batch_setup, "read_keys", taken_back)
    if look == "results":
        assert job.results()["ie_error"].str.startswith("pending").all()
    else:
        with pytest.raises(UsageError, match="4 of these rows are on their way in job 'job'"):
            submit(frame(4), job_id="other")


# --- the folder -------------------------------------------------------------------------------------


@pytest.mark.parametrize("at", ["acquire", "__enter__"])
def test_an_interrupt_between_the_lock_and_the_work_leaves_no_lock(server: Any, at: str) -> None:
    job = submit(frame(4))
    met: list[str] = []

    def interrupt(frame: FrameType, event: str, arg: object) -> Any:
        home, name = Path(frame.f_code.co_filename), frame.f_code.co_name
        if name == at and (home.parent.name == "_core" or home.name == "batch_lock.py" or _is_of_engine(frame)):
            met.append(name)
            return end
        return None

    def end(frame: FrameType, event: str, arg: object) -> Any:
        if event == "return":
            sys.settrace(None)
            raise KeyboardInterrupt
        return end

    before = sys.gettrace()
    sys.settrace(interrupt)
    try:
        job.wait()
    except KeyboardInterrupt as error:
        held = error  # as a notebook holds the last one
    finally:
        sys.settrace(before)
    if at == "acquire":
        assert not met, "the main thread takes the lock itself"
    else:
        assert held.__context__ is not None
    assert job.wait().is_done
    assert_all_home(frame(4), job.results())


def _is_of_engine(frame: FrameType) -> bool:
    return getattr(getattr(frame.f_locals.get("self"), "gen", None), "__name__", "") == "_engine"


@pytest.mark.parametrize("content", [None, b"", b"{}\n", b"[1]\n", b'{"n": 2, "ids": false'])
def test_a_jobs_rows_that_are_gone_or_damaged_come_back_by_the_same_call(server: Any, content: bytes | None) -> None:
    submit(frame(4), job_id="job").wait()
    path = Path("batch_jobs/job/frame.jsonl")
    path.unlink() if content is None else path.write_bytes(content)
    what = "is gone" if content is None else "is damaged"
    with pytest.raises(BatchError, match=f"frame.jsonl' {what}.* made again with the same frame, writes it anew"):
        BatchJob.load("job").results()
    submit(frame(4), job_id="job")
    assert_all_home(frame(4), BatchJob.load("job").results())
    assert paid_rows(server) == 4


def test_one_writer_at_a_time_and_the_second_is_told(server: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    from filelock import FileLock

    job = submit(frame(4))
    monkeypatch.setattr(batch_job, "locked", functools.partial(batch_lock.locked, patience_s=0.1))
    with FileLock(job.folder / "job.lock"), pytest.raises(BatchError, match=r"another kernel .* is working on"):
        job.refresh()
    job.wait()
    assert_all_home(frame(4), job.results())


def test_a_folder_on_a_file_system_without_locks_is_told(server: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    def no_lock(*args: object, **about: object) -> None:
        raise NotImplementedError("FileSystem does not appear to support flock")  # as filelock 3 does

    monkeypatch.setattr("filelock.FileLock", no_lock)
    with pytest.raises(BatchError, match=r"batch_jobs/job', cannot be locked: FileSystem .* batch_root_dir= on"):
        submit(frame(2), job_id="job")
    assert paid_rows(server) == 0


def test_the_folder_is_private_and_holds_no_key(server: Any, backend: str) -> None:
    secret = {"x-api-token": "secret-header"}
    job = submit(frame(4), backend=backend, api_key="secret-key", extra_headers=secret)
    job.wait()
    paths = [p for p in job.folder.rglob("*") if p.is_file()]
    assert len(paths) > 4
    for path in paths:
        assert b"secret" not in path.read_bytes(), path
        assert stat.S_IMODE(path.stat().st_mode) == 0o600, path
    assert all(stat.S_IMODE(p.stat().st_mode) == 0o700 for p in [job.folder, *job.folder.iterdir()] if p.is_dir())


@pytest.mark.parametrize("job_id", ["../up", "a/b", "", ".hidden", "x" * 101, "a\\b", "a b", None.__class__])
def test_a_job_id_that_cannot_be_a_folder_is_refused(server: Any, job_id: Any) -> None:
    with pytest.raises(UsageError, match="job_id="):
        submit(frame(2), job_id=job_id)
    assert not os.path.exists("batch_jobs")


def test_bad_input_is_refused_before_a_folder_is_made(server: Any) -> None:
    for about in ({"text_col": "no"}, {"chunk_size": 0}, {"max_requests_per_batch": 0}, {"schema": {"ie_error": str}}):
        with pytest.raises(UsageError):
            submit(frame(2), **about)
    with pytest.raises(UsageError, match="no rows"):
        submit(frame(0))
    assert not os.path.exists("batch_jobs")
    with pytest.raises(BatchError, match=r"no batch job in .*nope.*lmsyz.batch_jobs\(\)"):
        BatchJob.load("nope")


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("{", "cannot be read"),
        ('{"a": 1}', "not a ledger of lmsyz"),
        ('{"lmsyz_batch": 99}', "newer lmsyz"),
        ('{"lmsyz_batch": 1, "parts": [], "task": {}}', "damaged"),
    ],
)
def test_a_damaged_or_foreign_ledger_is_left_as_it_is(server: Any, content: str, words: str) -> None:
    job = submit(frame(2), job_id="job")
    job.wait()
    (job.folder / "job.json").write_text(content)
    with pytest.raises(BatchError, match=words):
        submit(frame(2), job_id="job", fresh=True)
    assert (job.folder / "job.json").read_text() == content
    assert lmsyz.batch_jobs().empty


def test_a_pydantic_model_has_to_be_given_again_to_another_kernel(server: Any) -> None:
    class Row(BaseModel):
        digest: str

    job = submit(frame(4), schema=Row, job_id="job")
    with pytest.raises(UsageError, match=r"BatchJob.load\('job', schema=Row\)"):
        BatchJob.load("job").refresh()
    again = BatchJob.load("job", schema=Row)
    again.wait()
    assert again.results()["digest"].tolist() == [digest(t) for t in frame(4)["text"]]
    assert job.results()["ie_error"].isna().all()


def test_jobs_are_listed_and_shown_safely(server: Any) -> None:
    submit(frame(4), job_id="one").wait()
    server.set_faults(batch_s=1000)
    submit(frame(9), job_id="two", backend="anthropic")
    jobs = lmsyz.batch_jobs().set_index("job_id")
    assert jobs.loc["one", ["state", "rows", "answered", "pending"]].tolist() == ["done", 4, 4, 0]
    assert jobs.loc["two", ["state", "backend", "sent", "pending"]].tolist() == ["in_progress", "anthropic", 9, 9]
    assert jobs["cost"].isna().tolist() == [False, True] or jobs["cost"].isna().any()
    job = BatchJob.load("one")
    ledger = json.loads((job.folder / "job.json").read_text())
    ledger["parts"][0]["problems"] = ["<img src=x onerror=alert(1)>"]
    (job.folder / "job.json").write_text(json.dumps(ledger))
    assert "<img" not in job._repr_html_()
    assert "&lt;img" in job._repr_html_()
    assert "batch job one: done" in repr(job)


def test_an_interrupted_wait_does_not_cancel_the_job(server: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    import signal
    import threading

    # The interrupt meets the pause between two looks, not a file that is being read.
    monkeypatch.setattr(batch_wait, "SHORTEST_POLL_S", 30.0)
    server.set_faults(batch_s=1000)
    job = submit(frame(4))
    timer = threading.Timer(1.0, lambda: signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGINT))
    timer.start()
    with pytest.raises(lmsyz.RunInterrupted, match="the waiting, not the job"):
        job.wait()
    server.advance(1000)
    job.wait()
    assert_all_home(frame(4), job.results())


def test_an_upload_that_is_gone_before_its_batch_is_created_is_sent_again(
    server: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    kind = type(submit(frame(1), job_id="another", temperature=0)._connected().batches)
    create, lost = kind.create, []

    def too_late(self: Any, path: Path, upload_id: str, *args: Any) -> Any:
        if not lost:
            lost.append(upload_id)
            openai.OpenAI(api_key="sandbox", base_url=server.openai_base_url).files.delete(upload_id)
        return create(self, path, upload_id, *args)

    monkeypatch.setattr(kind, "create", too_late)
    with pytest.raises(ProviderError, match="No such File"):
        submit(frame(4), job_id="one")
    job = submit(frame(4), job_id="one")
    job.wait()
    assert_all_home(frame(4), job.results())
    assert server.stats()["n_uploads"] == 3
    assert server.stats()["n_batches_created"] == 2


def test_a_lost_network_is_waited_out(server: Any, monkeypatch: pytest.MonkeyPatch, backend: str) -> None:
    job = submit(frame(4), backend=backend)
    kind = type(job._connected().batches)
    retrieve, n = kind.retrieve, []

    def flaky(self: Any, *args: Any) -> Any:
        n.append(1)
        if len(n) < 4:
            raise UnavailableError("the network is down")
        return retrieve(self, *args)

    monkeypatch.setattr(kind, "retrieve", flaky)
    with pytest.raises(UnavailableError):
        job.refresh()
    assert job.wait().is_done

    def refused(self: Any, *args: Any) -> Any:
        raise RejectedError("the key is bad")

    monkeypatch.setattr(kind, "retrieve", refused)
    server.set_faults(batch_s=1000)
    with pytest.raises(RejectedError):
        submit(frame(8), backend=backend, job_id="other").wait()


def paid_rows(handle: Any) -> int:
    """Rows of batch requests that were run, and so are paid for."""
    return int(handle.stats()["n_batch_rows_paid"])
