"""What a page of a large cache file takes, beside the bare indexed query that SQLite answers it with."""

from __future__ import annotations

import json
import sqlite3
import statistics
import tempfile
from collections.abc import Iterator
from pathlib import Path

import lmsyz
from lmsyz.cache_rows import RowFilter
from lmsyz.rows import text_key
from lmsyz.store import AnswerRecord
from tests.benchmarks.common import Line, interleaved, ratio, wall_of
from tests.cache_records import exchange, task

CHUNK = 20
BARE = "SELECT id, task_id, request_id, key, answer FROM answers WHERE id < ? ORDER BY id DESC LIMIT 50"
AIM_MS = 100


def browsing(n: int = 1_000_000, repeats: int = 21) -> Iterator[Line]:
    """A page in the middle of a file, a row by its id, and a search that finds nothing in its time."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "large.sqlite")
        fill(path, n)
        db = sqlite3.connect(path)
        middle = n // 2
        with lmsyz.SqliteCache(path, read_only=True) as cache:
            works = {
                "a page": lambda: cache.find(before_id=middle),
                "a page of one task": lambda: cache.find(RowFilter(model="m-1"), before_id=middle),
                "a row by its id": lambda: cache.find(RowFilter(row_id=f"r{middle}")),
                "a slice of a search": lambda: cache.find(RowFilter(answer_text="nowhere")),
            }
            bare = lambda: db.execute(BARE, (middle,)).fetchall()  # noqa: E731
            *ours, theirs = interleaved(wall_of, [*works.values(), bare], repeats)
        db.close()
    for name, found in zip(works, ours, strict=True):
        value = statistics.median(found) * 1000
        times, spread = ratio(found, theirs)
        detail = f"{times:.1f} times the bare query of {statistics.median(theirs) * 1000:.2f} ms, {spread}"
        yield Line(f"ms for {name} of {n:,} rows", f"{value:.1f}", f"under {AIM_MS}", value < AIM_MS, detail)


def fill(path: Path, n: int) -> None:
    """Make a file of n rows under two tasks, in exchanges of 20."""
    with lmsyz.SqliteCache(path) as cache:
        numbers = [cache.task_id(task()), cache.task_id(task(model="m-2"))]
        for block in range(0, n, CHUNK * 1000):
            starts = range(block, min(block + CHUNK * 1000, n), CHUNK)
            cache.put_chunks([(numbers[start % 3 == 0], *_chunk(start, min(CHUNK, n - start))) for start in starts])


def _chunk(start: int, size: int) -> tuple[object, list[AnswerRecord]]:
    texts = {f"r{i}": f"Sentence number {i} says that the quarter was good." for i in range(start, start + size)}
    user = json.dumps(json.dumps([{"input_id": i, "input_text": text} for i, text in texts.items()]))
    answers = [
        AnswerRecord(key=text_key(text), answer=f'{{"tone":"good","at":"{i}"}}', row_ids=(i,))
        for i, text in texts.items()
    ]
    return exchange(body=f'{{"content":{user}}}', user=user, n_rows=size), answers
