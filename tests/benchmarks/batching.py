"""What a batch costs on this side: memory a row, where the time goes, and how it compares with the bare files."""

from __future__ import annotations

import json
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from lmsyz.batch_files import INPUT, OUTPUT
from lmsyz.batch_job import BatchJob
from lmsyz.batch_submit import submit_batch
from tests.benchmarks.common import PROMPT, SCHEMA, Line, frame, place, run_child
from tests.benchmarks.keeping import peak_kb
from tests.benchmarks.stand_in_batches import running

CHILD = "from tests.benchmarks.batching import child; child({n}, {url!r}, {backend!r}, {folder!r})"


def batch(small: int = 20_000, large: int = 200_000) -> Iterator[Line]:
    """Build, submit, collect and read in fresh interpreters; the requests hold five rows each."""
    for backend in ("openai", "anthropic"):
        with running() as url, tempfile.TemporaryDirectory() as folder:
            about = {"url": url, "backend": backend, "folder": folder}
            a, b = (run_child(CHILD.format(n=n, **about)) for n in (small, large))
            bare = bare_files(Path(folder, f"jobs-{large}", "job"))
        yield from lines(backend, large, small, a, b, bare)


def lines(
    backend: str, large: int, small: int, a: dict[str, Any], b: dict[str, Any], bare: dict[str, float]
) -> Iterator[Line]:
    a_row, texts, result = ((b[n] - a[n]) / (large - small) for n in ("peak", "texts", "result"))
    detail = (
        f"bytes a row, of which texts {texts * 1024:.0f}, result {result * 1024:.0f}; peak {b['peak'] / 1024:.0f} MB"
    )
    yield Line(f"batch, {backend}: peak grows by", f"{a_row * 1024:.0f}", "under 1024", a_row < 1, detail)
    steps = b["steps"]
    ours, theirs = sum(steps.values()), sum(bare.values())
    split = ", ".join(f"{name} {seconds:.1f} s" for name, seconds in (steps | bare).items())
    yield Line(f"batch, {backend}, {large:,} rows : bare files", f"{ours / theirs:.1f}", "", None, split)


def child(n: int, url: str, backend: str, folder: str) -> None:
    """Print what each step of one job took."""
    df, steps = frame(n), dict[str, float]()
    started = time.monotonic()

    def done(step: str) -> None:
        nonlocal started
        steps[step], started = time.monotonic() - started, time.monotonic()

    job: BatchJob = submit_batch(
        df,
        PROMPT,
        schema=SCHEMA,
        job_id="job",
        batch_root_dir=Path(folder, f"jobs-{n}"),
        cache_path=Path(folder, f"{n}.sqlite"),
        progress=False,
        send=False,
        **place(url, backend),
    )
    done("build")
    job.refresh()
    done("submit")
    while not job.refresh().is_done:
        time.sleep(0.05)
    done("collect")
    out = job.results()
    done("read")
    assert out["ie_error"].isna().all(), out["ie_error"].value_counts()
    kept = {"texts": df, "result": out}
    sizes = {name: int(f.memory_usage(deep=True).sum()) / 1024 for name, f in kept.items()}
    print(json.dumps({"steps": steps, "peak": peak_kb(), **sizes}))


def bare_files(job: Path) -> dict[str, float]:
    """Write the requests and parse the replies of a job once more, with nothing but ``json``."""
    requests: list[Any] = []
    for path in sorted(Path(job, INPUT).iterdir()):
        if path.suffix == ".jsonl" and not path.name.endswith(".rows.jsonl"):
            requests += map(json.loads, path.read_text().splitlines())
        elif path.suffix == ".json":
            requests += json.loads(path.read_text()).get("requests", [])
    started = time.monotonic()
    with Path(job, "bare.jsonl").open("w") as file:
        file.writelines(json.dumps(request) + "\n" for request in requests)
    written = time.monotonic()
    for path in Path(job, OUTPUT).glob("*.jsonl"):
        with path.open() as file:
            for line in file:
                json.loads(line)
    return {"bare writing": written - started, "bare parsing": time.monotonic() - written}
