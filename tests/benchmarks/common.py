"""What all measurements share: the rows, the call, a line of the table, and how a figure is taken."""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple

import pandas as pd

import lmsyz

PROMPT = "Classify the tone of each sentence."
SCHEMA = {"tone": ["positive", "neutral", "negative"], "words": int, "digest": str}
CHUNK = 5


class Line(NamedTuple):
    """One figure, what it should be, and what it is made of; ``figures`` hold the same and more, as numbers."""

    what: str
    measured: str
    aim: str = ""
    is_met: bool | None = None
    detail: str = ""
    who: str = ""
    figures: Mapping[str, float] = MappingProxyType({})


def frame(n: int) -> pd.DataFrame:
    return pd.DataFrame(
        {"text": [f"Sentence number {i} says that the quarter was good for the firm." for i in range(n)]}
    )


def place(url: str, backend: str = "openai", chunk_size: int = CHUNK) -> dict[str, Any]:
    base = url + "/v1" if backend == "openai" else url
    return {"backend": backend, "base_url": base, "api_key": "k", "model": "stand-in", "chunk_size": chunk_size}


def extract(df: pd.DataFrame, folder: str | Path, **about: Any) -> pd.DataFrame:
    path = Path(folder, f"{time.monotonic_ns()}.sqlite")
    out: pd.DataFrame = df.ie.extract(PROMPT, schema=SCHEMA, **({"progress": False, "cache_path": path} | about))
    assert out["ie_error"].isna().all(), out["ie_error"].value_counts()
    return out


def exchanges_of(path: Path, n_rows: int) -> list[tuple[Any, list[Any]]]:
    """Return every exchange of a cache file with the answers it brought."""
    with lmsyz.SqliteCache(path) as cache:
        answers: dict[int, list[Any]] = {}
        for answer in cache.page_answers(limit=n_rows):
            answers.setdefault(answer.request_id, []).append(answer)
        return [(cache.request(number), found) for number, found in answers.items()]


def cpu_of(work: Callable[[], Any]) -> float:
    before = time.process_time()
    work()
    return time.process_time() - before


def wall_of(work: Callable[[], Any]) -> float:
    before = time.monotonic()
    work()
    return time.monotonic() - before


def interleaved(
    measure: Callable[[Callable[[], Any]], float], works: Sequence[Callable[[], Any]], repeats: int
) -> list[list[float]]:
    """Measure several things in turns, each round in the opposite order, so that a slow moment hits all alike."""
    found: list[list[float]] = [[] for _ in works]
    for i in range(repeats):
        numbered = list(enumerate(works))
        for at, work in numbered if i % 2 == 0 else reversed(numbered):
            found[at].append(measure(work))
    return found


def ratio(ours: Sequence[float], theirs: Sequence[float]) -> tuple[float, str]:
    """Return the median of the ratios of one round each, and how far they spread."""
    ratios = sorted(a / b for a, b in zip(ours, theirs, strict=True))
    return statistics.median(ratios), f"rounds {ratios[0]:.2f} to {ratios[-1]:.2f}"


def run_child(code: str) -> Any:
    """Run code in an interpreter of its own and return the JSON that it prints last."""
    done = subprocess.run([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True, check=True)
    return json.loads(done.stdout.splitlines()[-1])
