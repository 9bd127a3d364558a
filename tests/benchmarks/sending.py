"""What a request costs, how near the ideal time a run comes, with and without a limit, and how it is interrupted."""

from __future__ import annotations

import json
import signal
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

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
    wall_of,
)
from tests.benchmarks.stand_in import running


def cpu() -> Iterator[Line]:
    for backend, method in (("openai", "chat.completions.create"), ("anthropic", "messages.create")):
        yield cpu_a_request(backend, method)


def cpu_a_request(backend: str, method: str, n_requests: int = 1000, workers: int = 16, repeats: int = 5) -> Line:
    """A whole extract, store and frame included, against a bare loop that sends the same bodies and keeps nothing."""
    df = frame(n_requests * CHUNK)
    with running() as url, tempfile.TemporaryDirectory() as folder:
        bodies = sent_bodies(n_requests, url, backend, folder)
        create, close = bare_create(url, backend)

        def ours() -> None:
            extract(df, folder, max_workers=workers, **place(url, backend))

        def bare() -> None:
            loop_over(create, bodies, workers)

        bare()  # opens the connections
        a, b = interleaved(cpu_of, (ours, bare), repeats)
        close()
    value, spread = ratio(a, b)
    each = [f"{statistics.median(s) / n_requests * 1e3:.2f}" for s in (a, b)]
    detail = f"{each[0]} : {each[1]} ms, {spread}"
    return Line(f"CPU a request, extract : {method}", f"{value:.2f}", "at most 1.0", value <= 1.0, detail)


def sent_bodies(n_requests: int, url: str, backend: str, folder: str) -> list[dict[str, Any]]:
    path, df = Path(folder, f"bodies-{backend}.sqlite"), frame(n_requests * CHUNK)
    extract(df, folder, cache_path=path, **place(url, backend))
    return [json.loads(request.body) for request, _ in exchanges_of(path, len(df))]


def bare_create(url: str, backend: str) -> tuple[Callable[..., Any], Callable[[], None]]:
    if backend == "openai":
        import openai

        client: Any = openai.OpenAI(api_key="k", base_url=url + "/v1", max_retries=0)
        return client.chat.completions.create, client.close
    import anthropic

    # Without a timeout the SDK refuses what might take ten minutes.
    client = anthropic.Anthropic(api_key="k", base_url=url, max_retries=0, timeout=600)
    return client.messages.create, client.close


def loop_over(create: Callable[..., Any], bodies: list[dict[str, Any]], workers: int) -> None:
    with ThreadPoolExecutor(workers) as pool:
        for _ in pool.map(lambda body: create(**body), bodies):
            pass


def latency(n_requests: int = 2000, workers: int = 100, latency_s: float = 0.2, repeats: int = 3) -> Iterator[Line]:
    """Share of the ideal time at a real latency, and of that the part that only the start costs."""
    df, ideal = frame(n_requests * CHUNK), n_requests / workers * latency_s
    with tempfile.TemporaryDirectory() as folder:
        with running() as url:
            bodies = sent_bodies(n_requests, url, "openai", folder)
        with running(latency_s=latency_s) as url:
            create, close = bare_create(url, "openai")
            about = {"max_workers": workers, **place(url)}
            works: list[Callable[[], Any]] = [
                lambda: extract(df, folder, **about),
                lambda: loop_over(create, bodies, workers),
                lambda: extract(df[:CHUNK], folder, **about),
            ]
            took = interleaved(wall_of, works, repeats)
            cpu_s = cpu_of(works[0])
            close()
    ours, bare, start = (statistics.median(t) for t in took)
    share = ideal / (ours - start)
    cpu_share = cpu_s / ideal
    yield Line(
        f"ideal time : time, {workers} workers, {latency_s * 1e3:.0f} ms",
        f"{share:.2f}",
        "at least 0.95",
        share >= 0.95,
        f"{ideal:.1f} : {ours:.1f} s, start-up {start:.2f} s of it left out; CPU at the ideal pace {cpu_share:.0%} of a"
        " core",
    )
    yield Line("  the same with start-up and probe", f"{ideal / ours:.2f}")
    yield Line("  the same of a bare create() loop", f"{ideal / bare:.2f}")


def limit() -> Iterator[Line]:
    yield limited(silent=False)
    yield limited(silent=True)


def limited(*, silent: bool, n_requests: int = 1000, rate: float = 50.0) -> Line:
    """Time over the ideal under a limit, and how many requests were refused on the way."""
    with running(latency_s=0.1, limit=rate, silent=silent) as url, tempfile.TemporaryDirectory() as folder:
        took = wall_of(lambda: extract(frame(n_requests * CHUNK), folder, max_workers=100, **place(url)))
        n_refused = counts(url)["limited"]
    ideal = (n_requests - rate) / rate  # the bucket is full at the start
    how = "429s alone" if silent else "limit in headers"
    detail = f"{took:.1f} : {ideal:.1f} s, {n_refused} 429s for {n_requests} requests"
    value = took / ideal
    return Line(f"time : ideal, {rate:.0f} requests/s, {how}", f"{value:.2f}", "at most 1.1", value <= 1.1, detail)


def counts(url: str) -> dict[str, int]:
    with urllib.request.urlopen(f"{url}/counts") as response:
        return dict(json.load(response))


INTERRUPTED = """
import time
from tests.benchmarks.common import extract, frame, place
try:
    extract(frame(20_000), {folder!r}, max_workers=16, **place({url!r}))
except KeyboardInterrupt:
    print(time.time())
"""


def interrupt(repeats: int = 5) -> Iterator[Line]:
    """Seconds from SIGINT in the middle of 20,000 rows to control."""
    with running(latency_s=0.2) as url, tempfile.TemporaryDirectory() as folder:
        found = sorted(interrupted_after(INTERRUPTED.format(url=url, folder=folder), url) for _ in range(repeats))
    value = statistics.median(found)
    detail = f"rounds {found[0] * 1e3:.0f} to {found[-1] * 1e3:.0f} ms, 16 calls of 200 ms in flight"
    yield Line("control back after SIGINT, ms", f"{value * 1e3:.0f}", "under 1000", value < 1.0, detail)


def interrupted_after(code: str, url: str) -> float:
    before = counts(url)["requests"]
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True) as child:
        while counts(url)["requests"] < before + 50:
            assert child.poll() is None, "it ended before it was interrupted"
            time.sleep(0.02)
        at = time.time()
        child.send_signal(signal.SIGINT)
        out, _ = child.communicate(timeout=30)
    return float(out) - at
