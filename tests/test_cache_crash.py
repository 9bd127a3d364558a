"""SIGKILL at any moment: the file opens, and every row whose put returned is in it."""

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

import pytest

from lmsyz.cache import SqliteCache
from lmsyz.cache_schema import VERSION

KILLS = 10
WRITER = """
import sys
sys.path.insert(0, sys.argv[2])
from lmsyz.cache import SqliteCache
from cache_records import answer, exchange, task
cache = SqliteCache(sys.argv[1])
number = cache.task_id(task())
first = int(sys.argv[3])
print("open", flush=True)
for i in range(first, first + 1_000_000, 2):
    chunks = [
        (
            number,
            exchange(run_id=str(c), reply="x" * 500),
            [answer(f"{c} {j}", str(c), f"row {c}") for j in range(5)],
        )
        for c in (i, i + 1)
    ]
    cache.put_chunks(chunks)
    print(i + 1, flush=True)
"""


def start_writer(path: Path, first: int) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", WRITER, str(path), str(Path(__file__).parent), str(first)],
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
    )


def last_acknowledged(path: Path, first: int, wait_s: float) -> int:
    """Let a writer go on for a while, kill it, and return the last chunk whose put had returned."""
    writer = start_writer(path, first)
    assert writer.stdout is not None
    assert writer.stdout.readline() == "open\n"
    lines: list[str] = []
    reader = threading.Thread(target=lambda: lines.extend(writer.stdout or ()))
    reader.start()
    time.sleep(wait_s)
    writer.send_signal(signal.SIGKILL)
    writer.wait(timeout=60)
    reader.join(timeout=60)
    writer.stdout.close()
    whole = [line for line in lines if line.endswith("\n")]
    return int(whole[-1]) if whole else first - 1


def check_whole(path: Path) -> None:
    db = sqlite3.connect(path)
    assert db.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
    torn = (
        "SELECT r.id FROM requests r LEFT JOIN answers a ON a.request_id = r.id GROUP BY r.id"
        " HAVING count(a.id) != r.n_answers"
    )
    assert db.execute(torn).fetchall() == []
    assert db.execute("SELECT count(*) % 10 FROM answers").fetchone() == (0,)  # both chunks of a put, or neither
    db.close()


@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="needs SIGKILL")
def test_no_acknowledged_row_is_lost_however_often_the_writer_is_killed(tmp_path: Path) -> None:
    path, chance, kept = tmp_path / "answers.sqlite", random.Random(42), set[int]()
    for _ in range(KILLS):
        first = max(kept, default=-1) + 1_000_001  # an unacknowledged chunk may be there as well
        last = last_acknowledged(path, first, wait_s=chance.uniform(0.0, 0.25))
        kept |= set(range(first, last + 1))
        check_whole(path)
        with SqliteCache(path) as cache:
            found = {json.loads(text)["tone"] for text in cache.answers([1]).values()}
            assert {str(chunk) for chunk in kept} <= found
            if kept:
                assert len(list(cache.answers_of_run(str(max(kept))))) == 5
                assert cache.request(cache.requests_for_row(f"row {max(kept)}")[0]).run_id == str(max(kept))
    assert kept, "no writer lived long enough to acknowledge anything"


OPENER = """
import sys
from lmsyz.cache import SqliteCache
print("go", flush=True)
SqliteCache(sys.argv[1])
"""


@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="needs SIGKILL")
def test_a_process_killed_while_it_makes_the_file_leaves_one_that_opens(tmp_path: Path) -> None:
    chance = random.Random(7)
    for attempt in range(8):
        path = tmp_path / f"{attempt}.sqlite"
        opener = subprocess.Popen(
            [sys.executable, "-c", OPENER, str(path)],
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
        )
        assert opener.stdout is not None
        opener.stdout.readline()
        time.sleep(chance.uniform(0.0, 0.004))
        opener.kill()
        opener.wait(timeout=60)
        opener.stdout.close()
        with SqliteCache(path) as cache:
            cache.put("1", {"x": 1})
            assert cache.get("1") == {"x": 1}
        db = sqlite3.connect(path)
        assert db.execute("PRAGMA user_version").fetchone() == (VERSION,)
        db.close()
