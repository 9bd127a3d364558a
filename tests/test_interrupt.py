"""Stopped by a person or killed by the machine: nothing more is spent, and nothing that was paid for is lost."""

from __future__ import annotations

import json
import os
import random
import signal
import sqlite3
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

import lmsyz
from lmsyz.errors import RunInterrupted

SCRIPT = """
import json, sys, time
import pandas as pd
import lmsyz
n, workers = int(sys.argv[1]), int(sys.argv[2])
df = pd.DataFrame({"text": [f"Row {i} is one of many." for i in range(n)]})
print("ready", flush=True)
try:
    df.ie.extract("Give the digest.", schema={"digest": str}, max_workers=workers, cache_path="a.sqlite")
except KeyboardInterrupt as error:
    at, run = time.time(), lmsyz.last_run()
    print(json.dumps({"at": at, "kind": type(error).__name__, "words": str(error)}), flush=True)
    if "settle" in sys.argv:
        run.engine.finished.wait()
        print(json.dumps({"kept": run.counts.n_ok}), flush=True)
"""


def many(n: int) -> pd.DataFrame:
    return pd.DataFrame({"text": [f"Row {i} is one of many." for i in range(n)]})


def start(handle: Any, *args: object) -> subprocess.Popen[str]:
    process = subprocess.Popen(
        [sys.executable, "-c", SCRIPT, *map(str, args)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "LMSYZ_SANDBOX_URL": handle.url, "LMSYZ_PROGRESS": "false"},
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    return process


def wait_for(n_requests: int, handle: Any) -> None:
    until = time.monotonic() + 30
    while handle.stats()["n_requests"] < n_requests:
        assert time.monotonic() < until, "the run sends nothing"
        time.sleep(0.01)


def n_stored(path: Path) -> int:
    db = sqlite3.connect(path)
    try:
        return int(db.execute("SELECT count(*) FROM answers").fetchone()[0])
    finally:
        db.close()


def test_sigint_gives_control_back_within_a_second_and_keeps_every_paid_row(sandbox: Any) -> None:
    sandbox.set_faults(latency_s=0.1)
    process = start(sandbox, 20_000, 16, "settle")
    wait_for(60, sandbox)
    asked = time.time()
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=30)
    told, kept = map(json.loads, out.splitlines())
    assert told["kind"] == "RunInterrupted", err
    assert told["at"] - asked < 1.0
    assert "rows are done and stored; run it again to continue" in told["words"]
    stats = sandbox.stats()
    assert n_stored(Path("a.sqlite")) == kept["kept"] == stats["n_rows"]
    time.sleep(0.3)
    assert sandbox.stats()["n_requests"] == stats["n_requests"]


def test_a_script_that_is_interrupted_ends_at_once(sandbox: Any) -> None:
    sandbox.set_faults(latency_s=5)
    process = start(sandbox, 100, 4)
    wait_for(1, sandbox)
    asked = time.monotonic()
    process.send_signal(signal.SIGINT)
    process.communicate(timeout=30)
    assert time.monotonic() - asked < 4  # and not the five seconds of the request in flight


def test_the_next_call_goes_on_where_an_interrupted_one_stopped(
    sandbox_default: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    sandbox_default.set_faults(latency_s=0.2)
    df = many(300)

    def interrupt() -> None:
        wait_for(8, sandbox_default)
        signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGINT)

    threading.Thread(target=interrupt).start()
    with pytest.raises(RunInterrupted, match="of 300 rows are done and stored"):
        df.ie.extract("Give the digest.", schema={"digest": str}, max_workers=8)
    sandbox_default.set_faults()
    out = df.ie.extract("Give the digest.", schema={"digest": str})
    assert out["ie_error"].isna().all()
    # What was in flight when the first call was interrupted has been waited for, and used.
    assert sandbox_default.stats()["n_rows"] == 300
    run = lmsyz.last_run()
    assert run is not None
    assert run.counts.n_cached + run.counts.n_ok == 300
    assert run.counts.n_cached > 0


@pytest.mark.parametrize("background", [False, True])
@pytest.mark.parametrize("has_begun", [False, True])
def test_the_next_call_does_not_wait_for_a_run_that_was_interrupted_before_it_began(
    sandbox_default: Any, monkeypatch: pytest.MonkeyPatch, has_begun: bool, background: bool
) -> None:
    sandbox_default.set_faults(latency_s=0.2)

    class Interrupted(threading.Thread):
        def start(self) -> None:
            if has_begun or self.name != "lmsyz-coordinator":
                super().start()
            if self.name == "lmsyz-coordinator":
                raise KeyboardInterrupt

    df, about = many(60), {"schema": {"digest": str}, "chunk_size": 1, "max_workers": 2}
    with monkeypatch.context() as patch:
        patch.setattr(threading, "Thread", Interrupted)
        with pytest.raises(KeyboardInterrupt):
            df.ie.extract("Give the digest.", background=background, **about)
    run = lmsyz.last_run()
    assert run is not None
    assert run.engine.finished.wait(5)
    assert run.counts.how == "stopped"
    assert sandbox_default.stats()["n_requests"] <= 2
    sandbox_default.set_faults()
    again = df.ie.extract("Give the digest.", background=True, **about)
    assert again.result(timeout=20)["ie_error"].isna().all()
    assert sandbox_default.stats()["n_rows"] == 60


def test_a_killed_run_loses_no_stored_row_and_asks_none_of_them_again(sandbox: Any) -> None:
    sandbox.set_faults(latency_s=0.01)
    path, rng = Path("a.sqlite"), random.Random(0)
    for kill in range(20):
        process = start(sandbox, 6000, 4)
        if kill % 4:
            wait_for(sandbox.stats()["n_requests"] + rng.randint(1, 40), sandbox)
        else:
            time.sleep(rng.uniform(0.0, 0.6))  # while the file is being made or opened
        process.kill()
        process.communicate(timeout=30)
        if not path.exists():
            continue
        with lmsyz.SqliteCache(path) as cache:
            before = len(cache.page_answers(limit=100_000))
        # Each kill may lose what was in flight, and no more than that.
        assert sandbox.stats()["n_rows"] - before <= (kill + 1) * 4 * 5
    sandbox.set_faults()
    stored = n_stored(path)
    assert 500 < stored < 6000
    asked = sandbox.stats()["n_rows"]
    about: dict[str, Any] = {"base_url": sandbox.openai_base_url, "model": "sandbox-rules", "cache_path": path}
    out = many(6000).ie.extract("Give the digest.", schema={"digest": str}, **about)
    assert out["ie_error"].isna().all()
    assert sandbox.stats()["n_rows"] - asked == 6000 - stored


def test_a_background_run_can_be_paused_resumed_and_stopped(sandbox_default: Any) -> None:
    sandbox_default.set_faults(latency_s=0.05)
    run = many(2000).ie.extract("Give the digest.", schema={"digest": str}, background=True, max_workers=4)
    wait_for(5, sandbox_default)
    run.pause()
    time.sleep(0.3)
    paused = sandbox_default.stats()["n_requests"]
    time.sleep(0.3)
    assert sandbox_default.stats()["n_requests"] == paused
    with pytest.raises(TimeoutError, match=r"the run has not ended after 0.05 s; it goes on"):
        run.result(timeout=0.05)
    pending = run.frame()["ie_error"]
    assert pending.str.startswith("pending").sum() == 2000 - run.counts.n_ok
    run.resume()
    wait_for(paused + 5, sandbox_default)
    run.stop()
    out = run.result()
    n_good = int(out["ie_error"].isna().sum())
    assert 0 < n_good < 2000
    assert n_good == sandbox_default.stats()["n_rows"]
    assert out.loc[out["ie_error"].notna(), "ie_error"].str.startswith("cancelled").all()
    assert run.counts.how == "stopped"
    assert run.counts.n_waiting == 0


def test_a_call_that_waits_for_a_paused_run_says_so(
    sandbox_default: Any, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("lmsyz.in_flight.PATIENCE_S", 0.1)
    sandbox_default.set_faults(latency_s=0.1)
    df, about = many(40), {"schema": {"digest": str}, "chunk_size": 1, "max_workers": 2}
    run = df.ie.extract("Give the digest.", background=True, **about)
    run.pause()
    resume = threading.Timer(1.0, run.resume)
    resume.start()
    assert df.ie.extract("Give the digest.", **about)["ie_error"].isna().all()
    resume.join()
    assert "asks the same for this store and is paused" in caplog.text
    assert sandbox_default.stats()["n_rows"] == 40
