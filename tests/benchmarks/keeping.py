"""What rows cost once they are home: memory, writing, reading back, and the import before all that."""

from __future__ import annotations

import resource
import statistics
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pandas as pd

import lmsyz
from lmsyz.store import AnswerRecord
from tests.benchmarks.common import (
    CHUNK,
    Line,
    cpu_of,
    exchanges_of,
    extract,
    frame,
    interleaved,
    place,
    ratio,
    run_child,
    wall_of,
)
from tests.benchmarks.stand_in import running

# Larger requests than elsewhere: what a run keeps does not depend on them, and 40,000 requests take a minute.
MEMORY = """
import json
from tests.benchmarks.common import extract, frame, place
from tests.benchmarks.keeping import peak_kb
df = frame({n})
out = extract(df, {folder!r}, **place({url!r}, chunk_size=20))
print(json.dumps({{
    "peak": peak_kb(),
    "texts": int(df.memory_usage(deep=True).sum()) / 1024,
    "result": int(out.memory_usage(deep=True).sum()) / 1024,
}}))
"""
IMPORT = "import time; t = time.process_time(); import {name}; print(time.process_time() - t)"


def memory(small: int = 20_000, large: int = 200_000) -> Iterator[Line]:
    """How the peak grows with the rows, in fresh interpreters, and what texts and result are of that."""
    with running() as url, tempfile.TemporaryDirectory() as folder:
        a, b = (run_child(MEMORY.format(n=n, url=url, folder=folder)) for n in (small, large))
    grown = {name: (b[name] - a[name]) / (large - small) for name in a}
    value = grown["peak"]
    detail = (
        f"peak {a['peak'] / 1024:.0f} to {b['peak'] / 1024:.0f} MB at {small:,} and {large:,} rows; of the growth texts"
        f" {grown['texts']:.2f}, result {grown['result']:.2f} kB"
    )
    yield Line("kB a row that the peak grows by", f"{value:.2f}", "under 1", value < 1, detail)


def peak_kb() -> int:
    """Return this process's peak; ``getrusage`` would tell its parent's where that was higher at the fork."""
    status = Path("/proc/self/status")
    if not status.exists():
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // (1024 if sys.platform == "darwin" else 1)
    return int(status.read_text().partition("VmHWM:")[2].split()[0])


def cached(n: int = 100_000, repeats: int = 5) -> Iterator[Line]:
    """All rows back from the store, against pandas reading them from JSON lines: the answers, and texts and answers."""
    df = frame(n)
    with running() as url, tempfile.TemporaryDirectory() as folder:
        answers, joined = Path(folder, "answers.jsonl"), Path(folder, "joined.jsonl")
        about = {"cache_path": Path(folder, "all.sqlite"), **place(url, chunk_size=50)}
        out = extract(df, folder, **about).drop(columns="ie_error")
        out.to_json(answers, orient="records", lines=True)
        df.join(out).to_json(joined, orient="records", lines=True)
        works = [
            lambda: extract(df, folder, **about),
            lambda: pd.read_json(answers, lines=True),
            lambda: pd.read_json(joined, lines=True),
        ]
        ours, plain, whole = interleaved(cpu_of, works, repeats)
    for theirs, what in ((plain, "the answers"), (whole, "texts and answers")):
        value, spread = ratio(ours, theirs)
        detail = f"{statistics.median(ours):.2f} : {statistics.median(theirs):.2f} s, {spread}"
        name = f"{n:,} cached rows : read_json of {what}"
        yield Line(name, f"{value:.2f}", "at most 1.0", value <= 1.0, detail)


def written(n_requests: int = 4000) -> Iterator[Line]:
    """Rows a second that the store takes, with request and reply beside them: a transaction a request, and for ten."""
    with running() as url, tempfile.TemporaryDirectory() as folder:
        df, path = frame(n_requests * CHUNK), Path(folder, "source.sqlite")
        extract(df, folder, cache_path=path, **place(url))
        chunks = [
            (1, request, [AnswerRecord(key=a.key, answer=a.answer) for a in answers])
            for request, answers in exchanges_of(path, len(df))
        ]
        for together in (1, 10):
            with lmsyz.SqliteCache(Path(folder, f"{together}.sqlite")) as cache:
                parts = [chunks[i : i + together] for i in range(0, len(chunks), together)]
                took = wall_of(lambda cache=cache, parts=parts: [cache.put_chunks(part) for part in parts])
            what = f"rows written a second, {together} request{'s' * (together > 1)} a transaction"
            yield Line(what, f"{len(df) / took:,.0f}")


def imports(repeats: int = 9) -> Iterator[Line]:
    """The import of lmsyz against that of pandas, each in a fresh interpreter."""

    def seconds(code: str) -> float:
        return float(run_child(code))

    found: dict[str, list[float]] = {"lmsyz": [], "pandas": []}
    for _ in range(repeats):
        for name, times in found.items():
            times.append(seconds(IMPORT.format(name=name)))
    value, spread = ratio(found["lmsyz"], found["pandas"])
    a, b = (statistics.median(times) * 1e3 for times in found.values())
    yield Line(
        "import lmsyz : import pandas",
        f"{value:.2f}",
        "at most 1.3",
        value <= 1.3,
        f"{a:.0f} : {b:.0f} ms of CPU, {spread}",
    )
