"""What is measured. Each scenario gives lines of (what, measured, aim); every figure is a ratio from one run."""

from __future__ import annotations

import json
import resource
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

import pandas as pd

import lmsyz
from tests.benchmarks.stand_in import running

PROMPT = "Classify the tone of each sentence."
SCHEMA = {"tone": ["positive", "neutral", "negative"], "words": int, "digest": str}
CHUNK = 5


class Line(NamedTuple):
    """One figure: what it is, the medians it is made of, the ratio, and how it should be."""

    what: str
    detail: str
    value: float
    aim: str
    is_met: bool | None


def frame(n: int) -> pd.DataFrame:
    return pd.DataFrame(
        {"text": [f"Sentence number {i} says that the quarter was good for the firm." for i in range(n)]}
    )


def place(url: str, backend: str = "openai") -> dict[str, Any]:
    base = url + "/v1" if backend == "openai" else url
    return {"backend": backend, "base_url": base, "api_key": "k", "model": "stand-in", "chunk_size": CHUNK}


def extract(df: pd.DataFrame, folder: str, **about: Any) -> pd.DataFrame:
    path = Path(folder, f"{time.monotonic_ns()}.sqlite")
    out: pd.DataFrame = df.ie.extract(PROMPT, schema=SCHEMA, **({"progress": False, "cache_path": path} | about))
    assert out["ie_error"].isna().all(), out["ie_error"].value_counts()
    return out


def counts(url: str) -> dict[str, int]:
    with urllib.request.urlopen(f"{url}/counts") as response:
        return dict(json.load(response))


# --- CPU a request ----------------------------------------------------------------------------------


def cpu(backend: str, n_requests: int = 1000, repeats: int = 5) -> Line:
    """Client CPU a request against a bare ``create()`` loop with the same bodies and threads."""
    df, workers = frame(n_requests * CHUNK), 16
    with running() as url, tempfile.TemporaryDirectory() as folder:
        bodies = sent_bodies(df, url, backend, folder)
        create, close = bare_create(url, backend)
        ours, bare = [], []
        for repeat in range(repeats + 1):
            bare.append(cpu_of(lambda: loop_over(create, bodies, workers)))
            ours.append(cpu_of(lambda: extract(df, folder, max_workers=workers, **place(url, backend))))
            if repeat == 0:
                ours.clear(), bare.clear()  # connections, imports
        close()
    a, b = statistics.median(ours), statistics.median(bare)
    ratios = sorted(x / y for x, y in zip(ours, bare, strict=True))
    detail = f"{a / n_requests * 1e3:.2f} ms : {b / n_requests * 1e3:.2f} ms ({ratios[0]:.2f} to {ratios[-1]:.2f})"
    return Line(f"CPU a request, {backend}: extract : SDK create()", detail, a / b, "at most 1.0", a / b <= 1.0)


def sent_bodies(df: pd.DataFrame, url: str, backend: str, folder: str) -> list[dict[str, Any]]:
    path = Path(folder, "bodies.sqlite")
    extract(df, folder, cache_path=path, **place(url, backend))
    with lmsyz.SqliteCache(path) as cache:
        numbers = dict.fromkeys(a.request_id for a in cache.page_answers(limit=len(df)))
        return [json.loads(cache.request(n).body) for n in numbers]


def bare_create(url: str, backend: str) -> tuple[Callable[..., Any], Callable[[], None]]:
    if backend == "openai":
        import openai

        client: Any = openai.OpenAI(api_key="k", base_url=url + "/v1", max_retries=0)
        return client.chat.completions.create, client.close
    import anthropic

    client = anthropic.Anthropic(api_key="k", base_url=url, max_retries=0, timeout=600)
    return client.messages.create, client.close


def loop_over(create: Callable[..., Any], bodies: list[dict[str, Any]], workers: int) -> None:
    with ThreadPoolExecutor(workers) as pool:
        for _ in pool.map(lambda body: create(**body), bodies):
            pass


def cpu_of(work: Callable[[], Any]) -> float:
    before = time.process_time()
    work()
    return time.process_time() - before


# --- time -------------------------------------------------------------------------------------------


def latency(n_requests: int = 3000, workers: int = 100, latency_s: float = 0.2) -> Line:
    """Share of the ideal time that many workers reach at a real latency, beside a bare ``create()`` loop."""
    df, ideal = frame(n_requests * CHUNK), n_requests / workers * latency_s
    with tempfile.TemporaryDirectory() as folder:
        with running() as url:
            bodies = sent_bodies(df, url, "openai", folder)
        with running(latency_s=latency_s) as url:
            create, close = bare_create(url, "openai")
            bare = ideal / wall_of(lambda: loop_over(create, bodies, workers))
            ours = ideal / wall_of(lambda: extract(df, folder, max_workers=workers, **place(url)))
            close()
    detail = f"start and probe included; SDK create() loop {bare:.2f}, extract : that {ours / bare:.2f}"
    return Line("ideal time : time, 100 workers, 200 ms", detail, ours, "at least 0.95", ours >= 0.95)


def limited(*, silent: bool, n_requests: int = 1000, rate: float = 50.0) -> Line:
    """Time over the ideal under a limit, and how many requests were refused on the way."""
    df = frame(n_requests * CHUNK)
    with running(latency_s=0.1, limit=rate, silent=silent) as url, tempfile.TemporaryDirectory() as folder:
        started = time.monotonic()
        extract(df, folder, max_workers=100, **place(url))
        took, n_refused = time.monotonic() - started, counts(url)["limited"]
    ideal = (n_requests - rate) / rate  # the bucket is full at the start
    how = "limit not told" if silent else "limit told"
    detail = f"{took:.1f} s : {ideal:.1f} s, {n_refused} of {n_requests + n_refused} refused"
    return Line(f"time : ideal, 50 requests/s, {how}", detail, took / ideal, "at most 1.1", took / ideal <= 1.1)


def cached(n: int = 100_000, repeats: int = 3) -> Line:
    """All rows back from the store against pandas reading the same rows as JSON lines."""
    df = frame(n)
    with running() as url, tempfile.TemporaryDirectory() as folder:
        path, lines = Path(folder, "all.sqlite"), Path(folder, "all.jsonl")
        about = {"cache_path": path, **place(url), "chunk_size": 50}
        extract(df, folder, **about).drop(columns="ie_error").to_json(lines, orient="records", lines=True)
        ours, theirs = [], []
        for _ in range(repeats):
            theirs.append(wall_of(lambda: pd.read_json(lines, lines=True)))
            ours.append(wall_of(lambda: extract(df, folder, **about)))
    a, b = statistics.median(ours), statistics.median(theirs)
    return Line(
        f"{n:,} cached rows: extract : read_json(lines=True)",
        f"{a:.2f} s : {b:.2f} s",
        a / b,
        "at most 1.0",
        a / b <= 1,
    )


def wall_of(work: Callable[[], Any]) -> float:
    started = time.monotonic()
    work()
    return time.monotonic() - started


# --- memory and import ------------------------------------------------------------------------------

CHILD = "from tests.benchmarks.scenarios import memory_child; memory_child({n}, {url!r}, {folder!r})"


def memory() -> Line:
    """Growth of the peak from 20,000 to 200,000 rows, with what the texts and the result take of it."""
    with running() as url, tempfile.TemporaryDirectory() as folder:
        small, large = (run_child(CHILD.format(n=n, url=url, folder=folder)) for n in (20_000, 200_000))
    rows = large["n"] - small["n"]
    a_row = (large["peak"] - small["peak"]) / rows
    kept = (large["kept"] - small["kept"]) / rows
    detail = f"{small['peak'] / 1e6:.0f} MB to {large['peak'] / 1e6:.0f} MB; texts and result {kept / 1e3:.2f} kB a row"
    return Line("memory: kB a row of growth", detail, a_row / 1e3, "under 1", a_row < 1000)


def memory_child(n: int, url: str, folder: str) -> None:
    """Print the peak of one run, and what its input and its result take."""
    df = frame(n)
    out = extract(df, folder, **place(url))
    kept = int(df.memory_usage(deep=True).sum() + out.memory_usage(deep=True).sum())
    print(json.dumps({"n": n, "peak": peak(), "kept": kept}))


def peak() -> int:
    """Return this process's own peak in bytes; ``ru_maxrss`` would begin with its parent's."""
    if sys.platform != "linux":
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmHWM:")) * 1024


def run_child(code: str) -> Any:
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return json.loads(done.stdout)


def imports(repeats: int = 9) -> Line:
    """A fresh interpreter's import of lmsyz against its import of pandas."""
    seconds: dict[str, list[float]] = {"lmsyz": [], "pandas": []}
    for _ in range(repeats):
        for name, found in seconds.items():
            code = f"import time; t = time.perf_counter(); import {name}; print(time.perf_counter() - t)"
            found.append(run_child(code))
    a, b = (statistics.median(seconds[name]) for name in ("lmsyz", "pandas"))
    return Line(
        "import lmsyz : import pandas", f"{a * 1e3:.0f} ms : {b * 1e3:.0f} ms", a / b, "at most 1.3", a / b <= 1.3
    )


SCENARIOS: dict[str, Callable[[], Iterator[Line]]] = {
    "cpu": lambda: iter([cpu("openai"), cpu("anthropic")]),
    "latency": lambda: iter([latency()]),
    "limit": lambda: (limited(silent=silent) for silent in (False, True)),
    "memory": lambda: iter([memory()]),
    "cached": lambda: iter([cached()]),
    "import": lambda: iter([imports()]),
}
