"""What a run tells: counts, cost, errors by kind, the manifest of a paper's appendix, and safe pictures of it."""

from __future__ import annotations

import json
import re
import traceback
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from cache_records import run_python

import lmsyz
from lmsyz.events import ChunkDone, RequestRetried, RequestSent, RowsFailed, RunFinished, RunStarted, emit
from lmsyz.report import REASONS_KEPT, Tally
from lmsyz.run import Run

PROMPT = "Classify the tone."
SCHEMA = {"tone": ["positive", "neutral", "negative"]}
HOSTILE = '<img src=x onerror="alert(1)">\'"&'


def frame(n: int = 10) -> pd.DataFrame:
    return pd.DataFrame({"text": [f"A wonderful day, number {i}." for i in range(n)]})


def last() -> Run:
    run = lmsyz.last_run()
    assert run is not None
    return run


def chunk_done(**changes: Any) -> ChunkDone:
    facts: dict[str, Any] = {
        "n_ok": 1,
        "n_reasked": 0,
        "n_foreign": 0,
        "outcome": "ok",
        "input_tokens": 10,
        "output_tokens": 5,
        "cached_tokens": 0,
        "cost": 0.5,
        "latency_s": 1.0,
        "model": "m-1",
    }
    return ChunkDone(**(facts | changes))


# --- the tally --------------------------------------------------------------------------------------


def test_a_tally_counts_what_it_is_told() -> None:
    tally = Tally()
    tally(RunStarted(n_rows=20, n_cached=3, n_empty=2, n_asked=15))
    for _ in range(3):
        tally(RequestSent())
    tally(RequestRetried(kind="rate_limited", wait_s=1.5))
    tally(chunk_done(n_ok=5, n_reasked=2, n_foreign=1, outcome="partial"))
    tally(chunk_done(n_ok=4))
    tally(RowsFailed(n_rows=2, reason="missing: x", examples=("a", "b")))
    counts = tally.counts()
    assert (counts.n_ok, counts.n_done, counts.n_waiting, counts.n_reasked, counts.n_foreign) == (9, 16, 4, 2, 1)
    assert (counts.n_requests, counts.n_replies, counts.n_retries, counts.waited_s) == (3, 2, 1, 1.5)
    assert (counts.input_tokens, counts.output_tokens, counts.cost) == (20, 10, 1.0)
    assert counts.n_failed == {"invalid": 2, "missing": 2}
    assert counts.reasons["missing: x"] == (2, ("a", "b"))
    assert counts.how == "running"
    tally(RunFinished(how="done"))
    assert tally.counts().wall_s == tally.counts().wall_s


@pytest.mark.parametrize("unknown", [{"cost": None}, {"input_tokens": None}, {"output_tokens": None}], ids=str)
def test_one_unknown_makes_a_sum_unknown_and_never_smaller(unknown: dict[str, None]) -> None:
    tally = Tally()
    for event in (chunk_done(), chunk_done(**unknown), chunk_done()):
        tally(event)
    assert getattr(tally.counts(), next(iter(unknown))) is None


def test_reasons_that_quote_the_model_do_not_grow_without_bound_nor_get_lost() -> None:
    tally = Tally()
    for i in range(REASONS_KEPT + 50):
        tally(RowsFailed(n_rows=1, reason=f"invalid: {i}"))
    reasons = tally.counts().reasons
    assert reasons["invalid: other reasons"][0] == 50
    assert sum(n for n, _ in reasons.values()) == REASONS_KEPT + 50


def test_rows_that_failed_for_one_cause_are_counted_together() -> None:
    tally = Tally()
    for value in ("'two'", "'three'"):
        tally(RowsFailed(n_rows=1, reason=f"invalid: field 'n' is text (got {value})", examples=(value,)))
    assert tally.counts().reasons == {"invalid: field 'n' is text": (2, ("'two'", "'three'"))}


def test_an_observer_that_fails_harms_nobody(caplog: pytest.LogCaptureFixture) -> None:
    tally = Tally()

    def broken(event: object) -> None:
        raise ZeroDivisionError

    emit([broken, tally], RequestSent())
    assert tally.counts().n_requests == 1
    assert "an observer failed on RequestSent" in caplog.text


# --- a run ------------------------------------------------------------------------------------------


def test_a_run_tells_what_it_did(sandbox_default: Any) -> None:
    frame().ie.extract(PROMPT, schema=SCHEMA, chunk_size=4)
    counts = last().counts
    assert (counts.n_rows, counts.n_ok, counts.n_cached, counts.n_requests, counts.how) == (10, 10, 0, 3, "done")
    assert counts.input_tokens
    assert counts.output_tokens
    assert counts.models == {"sandbox-rules": 3}
    assert last().cost is pd.NA
    text = repr(last())
    for word in ("10 rows", "3 sent", "sandbox-rules", "<NA> (price unknown)", "lmsyz_cache.sqlite", "rules"):
        assert word in text
    df = frame(12)
    df.ie.extract(PROMPT, schema=SCHEMA)
    assert last().saved.n_rows == 10
    assert "10 cached" in repr(last())


def test_errors_are_a_frame_and_counted_by_kind(sandbox_default: Any) -> None:
    sandbox_default.set_faults(refused=0.3)
    df = frame(30).assign(firm=[f"f{i}" for i in range(30)])
    df.loc[3, "text"] = None
    out = df.ie.extract(PROMPT, schema=SCHEMA, id_col="firm")
    errors = last().errors
    assert errors.index.tolist() == out.index[out["ie_error"].notna()].tolist()
    assert errors["reason"].tolist() == out.loc[out["ie_error"].notna(), "ie_error"].tolist()
    assert errors["row_id"].tolist() == [f"f{i}" for i in errors["position"]]
    kinds = last().errors_by_kind
    assert kinds["invalid"][0] == 1
    assert kinds["refused"][0] == (errors["kind"] == "refused").sum() > 0
    assert set(kinds["refused"][1]) <= set(errors["row_id"])


def test_the_manifest_says_what_an_appendix_needs_and_holds_no_text_and_no_key(sandbox_default: Any) -> None:
    headers = {"x-api-key": "secret-header", "x-team": "finance"}
    frame(5).ie.extract(
        PROMPT, schema=SCHEMA, api_key="secret-key", temperature=0, extra_headers=headers, cache_path="a.sqlite"
    )
    manifest = last().manifest()
    text = last().manifest_json()
    assert json.loads(text) == json.loads(json.dumps(manifest))
    assert manifest["model_asked"] == "sandbox-rules"
    assert manifest["models_returned"] == ["sandbox-rules"]
    assert manifest["prompt"] == PROMPT
    assert len(manifest["prompt_hash"]) == 16
    assert re.fullmatch("[0-9a-f]{64}", manifest["schema_sha256"])
    assert manifest["schema"]["properties"]["tone"]["enum"] == ["positive", "neutral", "negative"]
    assert manifest["request_options"]["temperature"] == 0
    assert manifest["request_options"]["extra_headers"]["x-team"] == "finance"
    assert manifest["rows"] == {"total": 5, "cached": 0, "answered": 5, "without_answer": {}}
    assert manifest["versions"]["pandas"] == pd.__version__
    assert manifest["how_it_ended"] == "done"
    assert manifest["cost_usd"] is None
    assert manifest["rules_not_a_language_model"] is True
    assert "secret" not in text
    assert "wonderful" not in text
    assert b"secret" not in Path("a.sqlite").read_bytes()


def test_the_manifest_says_how_it_was_asked(sandbox_default: Any) -> None:
    usual = {"chunk_size": 5, "dedupe": True, "fresh": False, "verify_rows": False, "ignore_prompt_hash": False}
    mine = {"chunk_size": 3, "dedupe": False, "fresh": True, "verify_rows": True, "ignore_prompt_hash": True}
    caps = {"max_workers": 2, "requests_per_minute": 6000, "tokens_per_minute": 10**7}
    for asked in (usual, mine | caps):
        frame(2).ie.extract(PROMPT, schema=SCHEMA, **asked)
        manifest = last().manifest()
        assert {name: manifest[name] for name in asked} == asked
    frame(2).ie.extract(PROMPT, schema=SCHEMA)
    assert {name: last().manifest()[name] for name in usual} == usual


def test_a_run_can_be_read_back_from_the_store_long_after(sandbox_default: Any) -> None:
    frame(5).ie.extract(PROMPT, schema=SCHEMA, cache_path="a.sqlite")
    run = last()
    with lmsyz.SqliteCache("a.sqlite", read_only=True) as cache:
        stored = cache.run(run.run_id)
        assert stored is not None
        assert stored.ended is not None
        assert json.loads(stored.manifest) == json.loads(json.dumps(run.manifest()))
        assert len(list(cache.answers_of_run(run.run_id))) == 5
        assert [r.run_id for r in cache.runs()] == [run.run_id]


def test_nothing_hostile_reaches_the_html_of_a_run(sandbox_default: Any) -> None:
    df = frame(3).assign(firm=[HOSTILE, HOSTILE + "2", "c"])
    df.loc[0, "text"] = "wonderful " + HOSTILE
    sandbox_default.set_faults(refused=1.0)
    df.ie.extract(PROMPT + HOSTILE, schema=SCHEMA, id_col="firm")
    shown = last()._repr_html_()
    assert "&lt;img src=x onerror=" in shown
    assert "<img" not in shown
    assert 'onerror="' not in shown


def test_a_run_that_is_awaited_gives_its_frame(sandbox_default: Any) -> None:
    import asyncio

    async def main() -> pd.DataFrame:
        return await frame(4).ie.extract(PROMPT, schema=SCHEMA, background=True)

    assert len(asyncio.run(main())) == 4


def test_answers_that_cannot_be_stored_stop_the_run_and_stay_in_the_kernel(
    sandbox_default: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(self: object, chunks: object) -> list[int]:
        raise lmsyz.errors.CacheError("the disk is full")

    monkeypatch.setattr(lmsyz.SqliteCache, "put_chunks", full)
    with pytest.raises(lmsyz.LmsyzError, match="the disk is full") as raised:
        frame(100).ie.extract(PROMPT, schema=SCHEMA, max_workers=2)
    n_home = int(last().frame()["ie_error"].isna().sum())
    assert 5 <= n_home == sandbox_default.stats()["n_rows"] < 100
    assert f"{n_home} answers are paid for and not on disk" in " ".join(raised.value.__notes__)
    monkeypatch.undo()
    monkeypatch.setenv("LMSYZ_SANDBOX_URL", sandbox_default.url)
    monkeypatch.chdir(last().cache_path.parent)
    frame(100).ie.extract(PROMPT, schema=SCHEMA, max_workers=2)
    assert last().counts.n_cached == n_home
    assert sandbox_default.stats()["n_rows"] == 100


def test_a_fault_of_ours_brings_home_what_is_in_flight(sandbox_default: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    from lmsyz.judge import Judge

    sandbox_default.set_faults(latency_s=0.1)
    reply, n = Judge.reply, []

    def faulty(self: Judge, *args: Any) -> Any:
        n.append(1)
        if len(n) == 4:
            raise ZeroDivisionError("a bug")
        return reply(self, *args)

    monkeypatch.setattr(Judge, "reply", faulty)
    with pytest.raises(ZeroDivisionError) as raised:
        frame(100).ie.extract(PROMPT, schema=SCHEMA, max_workers=4)
    with lmsyz.SqliteCache("lmsyz_cache.sqlite") as cache:
        assert len(cache.page_answers(limit=999)) == sandbox_default.stats()["n_rows"] > 15
    assert traceback.extract_tb(raised.value.__traceback__)[-1].name == "faulty", "whoever reports it can say where"


def test_an_error_is_raised_where_the_user_waits_without_the_ways_of_a_worker(sandbox_default: Any) -> None:
    frame(2).ie.extract(PROMPT, schema=SCHEMA, api_key="sk-invalid-key", background=True, progress=False)
    for _ in range(2):
        with pytest.raises(lmsyz.errors.ProviderError, match="API key") as raised:
            last().result()
        ways = traceback.extract_tb(raised.value.__traceback__)
        assert [Path(way.filename).name for way in ways] == ["test_run.py", "run.py"]
        assert len(raised.value.__notes__) == 1


def test_a_price_that_cannot_be_told_keeps_no_answer_from_the_store(
    sandbox_default: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(self: object, *args: object) -> float:
        raise ArithmeticError

    monkeypatch.setattr("lmsyz.pricing.Pricer.cost", broken)
    assert frame(10).ie.extract(PROMPT, schema=SCHEMA)["ie_error"].isna().all()
    assert last().cost is pd.NA


def test_a_background_run_and_a_call_that_asks_the_same_pay_once(sandbox_default: Any) -> None:
    sandbox_default.set_faults(latency_s=0.1)
    run = frame(40).ie.extract(PROMPT, schema=SCHEMA, background=True, max_workers=2)
    assert frame(40).ie.extract(PROMPT, schema=SCHEMA)["ie_error"].isna().all()
    assert run.result()["ie_error"].isna().all()
    assert sandbox_default.stats()["n_rows"] == 40


def test_a_call_waits_for_the_same_question_by_whatever_path_to_its_store(
    sandbox_default: Any, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("lmsyz.in_flight.PATIENCE_S", 0.1)
    sandbox_default.set_faults(latency_s=0.3)
    Path("sub").mkdir()
    run = frame(40).ie.extract(PROMPT, schema=SCHEMA, background=True, max_workers=2, cache_path="a.sqlite")
    frame(40).ie.extract(PROMPT, schema=SCHEMA, cache_path="sub/../a.sqlite")
    assert sandbox_default.stats()["n_rows"] == 40
    assert caplog.text.count(f"waiting for run {run.run_id}, which has requests in flight") == 1


@pytest.mark.parametrize(
    "other", [{"prompt": "Another question."}, {"cache_path": "other.sqlite"}], ids=["question", "store"]
)
def test_a_call_of_another_question_or_store_waits_for_no_background_run(
    sandbox_default: Any, other: dict[str, str]
) -> None:
    sandbox_default.set_faults(latency_s=0.2)
    run = frame(400).ie.extract(PROMPT, schema=SCHEMA, background=True, max_workers=2)
    frame(2).ie.extract(**({"prompt": PROMPT, "schema": SCHEMA} | other))
    assert run.is_live
    run.stop()
    run.result()


def test_answers_that_could_not_be_stored_at_first_are_stored_in_the_end(
    sandbox_default: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    put, calls = lmsyz.SqliteCache.put_chunks, []

    def busy_once(self: lmsyz.SqliteCache, chunks: Any) -> list[int]:
        calls.append(len(chunks))
        if len(calls) == 1:
            raise lmsyz.errors.CacheError("the file was locked")
        return put(self, chunks)

    monkeypatch.setattr(lmsyz.SqliteCache, "put_chunks", busy_once)
    with pytest.raises(lmsyz.LmsyzError, match="the file was locked"):
        frame(100).ie.extract(PROMPT, schema=SCHEMA, max_workers=2)
    asked = sandbox_default.stats()["n_rows"]
    frame(100).ie.extract(PROMPT, schema=SCHEMA, max_workers=2)
    assert last().counts.n_cached == asked > 0


# --- progress ---------------------------------------------------------------------------------------


def test_the_bar_counts_rows_and_says_cached_and_failed(
    sandbox_default: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    frame(4).ie.extract(PROMPT, schema=SCHEMA, progress=False)
    assert capsys.readouterr() == ("", "")
    df = frame(6)
    df.loc[5, "text"] = None
    df.ie.extract(PROMPT, schema=SCHEMA, progress=True)
    out, err = capsys.readouterr()
    assert out == ""
    assert re.search(r"6/6 .*row.*cached=4, failed=1", err.split("\r")[-1])


BROKEN_BAR = """
import sys
class Full:
    def write(self, text): raise OSError(28, "No space left on device")
    def flush(self): pass
    def fileno(self): raise OSError(25, "not a terminal")
    def isatty(self): return False
sys.stderr = None if sys.argv[1] == "none" else Full()
import logging; logging.disable()
import pandas as pd, lmsyz
out = pd.DataFrame({"text": ["A wonderful day."] * 3}).ie.extract(
    "Tone?", schema={"tone": ["positive", "negative"]}, progress=True)
print(out["ie_error"].isna().all())
from tqdm import tqdm
import threading
free = []
def look():
    lock = tqdm.get_lock()
    free.append(all(part.acquire(timeout=5) for part in lock.locks))
    [part.release() for part in lock.locks]
thread = threading.Thread(target=look); thread.start(); thread.join()
print(free[0])
"""


@pytest.mark.parametrize("stderr", ["none", "full"])
def test_a_bar_that_cannot_be_painted_harms_no_run_and_no_other_bar(sandbox_default: Any, stderr: str) -> None:
    # In a process of its own: a lock that a bar left held would keep the program from ending.
    assert run_python(BROKEN_BAR, stderr).split() == ["True", "True"]


def test_the_bar_is_closed_when_a_run_fails(sandbox_default: Any, capsys: pytest.CaptureFixture[str]) -> None:
    from tqdm import tqdm

    with pytest.raises(lmsyz.LmsyzError):
        frame(4).ie.extract(PROMPT, schema=SCHEMA, model="sandbox-rules-nope", progress=True)
    assert "failed=4" in capsys.readouterr().err
    assert not list(tqdm._instances)


def test_the_environment_can_switch_bars_off(
    sandbox_default: Any, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("LMSYZ_PROGRESS", "false")
    frame(2).ie.extract(PROMPT, schema=SCHEMA)
    assert capsys.readouterr().err == ""


def test_rows_that_a_stopped_run_never_asked_are_neither_done_nor_waiting() -> None:
    tally = Tally()
    tally(RunStarted(n_rows=60, n_cached=5, n_empty=0, n_asked=55))
    tally(chunk_done(n_ok=12))
    tally(RowsFailed(n_rows=3, reason="refused: no", examples=()))
    tally(RowsFailed(n_rows=40, reason="cancelled: the run was stopped", examples=()))
    counts = tally.counts()
    assert (counts.n_done, counts.n_cancelled, counts.n_waiting) == (20, 40, 0)


def test_examples_of_rows_do_not_read_as_all_of_them(sandbox_default: Any) -> None:
    sandbox_default.set_faults(refused=1.0)
    frame(8).ie.extract("Give the digest.", schema={"digest": str})
    assert re.search(r"8 x refused.* \(rows \d, \d, \d, \d, \d, \.\.\.\)", repr(last()))
    frame(1).ie.extract("Give the digest again.", schema={"digest": str})
    assert re.search(r"1 x refused.* \(row 0\)", repr(last()))


def test_a_bar_counts_from_when_the_run_began() -> None:
    from lmsyz.progress import ProgressBar

    with ProgressBar(100, 0, show=True, elapsed_s=50.0) as bar:
        bar.show(100, {})
        told = bar._bar.format_dict
    assert told["elapsed"] >= 50.0


def test_the_sandbox_says_why_it_leaves_a_row_out(sandbox_default: Any) -> None:
    frame(2).ie.extract("Say what it is.", schema={"unheard_of": {"city": str}})
    assert "allow `| None`" in repr(last())
