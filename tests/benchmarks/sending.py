"""What a request costs, how near the ideal time a run comes, with and without a limit, and how it is interrupted."""

from __future__ import annotations

import http.client
import json
import os
import signal
import statistics
import subprocess
import sys
import tempfile
import threading
import time
import urllib.request
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
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

ALL_CORES = os.sched_getaffinity(0) if hasattr(os, "sched_getaffinity") else set()


def cpu(n_requests: int = 1000, repeats: int = 5) -> Iterator[Line]:
    for backend, method in (("openai", "chat.completions.create"), ("anthropic", "messages.create")):
        yield cpu_a_request(backend, method, n_requests, repeats=repeats)


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
    """Share of the ideal time at a real latency, without the start and without the first turn, and what bounds it."""
    df, turns = frame(n_requests * CHUNK), n_requests / workers
    with tempfile.TemporaryDirectory() as folder:
        with running() as url:
            bodies = sent_bodies(n_requests, url, "openai", folder)
        posted = [json.dumps(body).encode() for body in bodies]
        with running(latency_s=latency_s) as url:
            create, close = bare_create(url, "openai")
            about = {"max_workers": workers, **place(url)}
            works: list[Callable[[], Any]] = [
                lambda: extract(df, folder, **about),
                lambda: extract(df[:CHUNK], folder, **about),
                lambda: extract(df[: workers * CHUNK], folder, **about),
                lambda: loop_over(create, bodies, workers),
                lambda: loop_over(create, bodies[:workers], workers),
                lambda: plain_loop(url, posted, workers),
            ]
            took = interleaved(wall_of, works, repeats)
            cpu_s = cpu_of(works[0])
            close()
        with on_core(-1), running(latency_s=latency_s) as url, on_core(0):
            about = {"max_workers": workers, **place(url)}  # the works send there from now on
            apart = interleaved(wall_of, [works[0], works[1], works[5]], 1)
    ours, start, ours_first, bare, bare_first, plain = (statistics.median(t) for t in took)
    what = f"ideal time : time, {workers} workers, {latency_s * 1e3:.0f} ms"
    yield from shares(what, turns * latency_s, ours=ours, start=start, bare=bare, plain=plain, cpu_s=cpu_s)
    a, b = ((whole - first) / (turns - 1) for whole, first in ((ours, ours_first), (bare, bare_first)))
    detail = f"{latency_s * 1e3:.0f} : {a * 1e3:.0f} ms; a bare create() loop {latency_s / b:.2f}"
    yield Line("  a turn of all workers after the first", f"{latency_s / a:.2f}", detail=detail)
    (ours,), (start,), (plain,) = apart
    detail = f"the standard library's HTTP client {turns * latency_s / plain:.2f}; one round"
    yield Line(
        "  with a core for the server and one for us", f"{turns * latency_s / (ours - start):.2f}", detail=detail
    )


def shares(
    what: str, ideal: float, *, ours: float, start: float, bare: float, plain: float, cpu_s: float
) -> Iterator[Line]:
    share = ideal / (ours - start)
    left_out, busy = f"start-up {start:.2f} s of it left out", f"CPU at the ideal pace {cpu_s / ideal:.0%} of a core"
    detail = f"{ideal:.1f} : {ours:.1f} s, {left_out}; {busy}"
    yield Line(what, f"{share:.2f}", "at least 0.95", share >= 0.95, detail)
    yield Line("  the same with start-up and probe", f"{ideal / ours:.2f}")
    yield Line("  the same of a bare create() loop", f"{ideal / bare:.2f}")
    detail = "what the machine allows"
    yield Line("  the same of the standard library's HTTP client", f"{ideal / plain:.2f}", detail=detail)


def plain_loop(url: str, bodies: list[bytes], workers: int) -> None:
    """Send the bodies by the least there is, a connection a thread, and parse the answers."""
    own, headers = threading.local(), {"content-type": "application/json"}

    def post(body: bytes) -> Any:
        if not hasattr(own, "connection"):
            own.connection = http.client.HTTPConnection(url.removeprefix("http://"))
        own.connection.request("POST", "/v1/chat/completions", body, headers)
        return json.load(own.connection.getresponse())

    with ThreadPoolExecutor(workers) as pool:
        for _ in pool.map(post, bodies):
            pass


@contextmanager
def on_core(which: int) -> Iterator[None]:
    """Keep this thread, and the threads and processes that it starts, to one core of those there are."""
    if not hasattr(os, "sched_setaffinity"):
        yield
        return
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {sorted(ALL_CORES)[which]})
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)


def limit(n_requests: int = 1000) -> Iterator[Line]:
    yield limited(n_requests, silent=False)
    yield limited(n_requests, silent=True)


def limited(n_requests: int, *, silent: bool, rate: float = 50.0) -> Line:
    """Time over the ideal under a limit, and how many requests were refused on the way."""
    with running(latency_s=0.1, limit=rate, silent=silent) as url, tempfile.TemporaryDirectory() as folder:
        took = wall_of(lambda: extract(frame(n_requests * CHUNK), folder, max_workers=100, **place(url)))
        n_refused = int(counts(url)["limited"])
    ideal = (n_requests - rate) / rate  # the bucket is full at the start
    how = "429s alone" if silent else "limit in headers"
    detail = f"{took:.1f} : {ideal:.1f} s, {n_refused} 429s for {n_requests} requests"
    value = took / ideal
    return Line(f"time : ideal, {rate:.0f} requests/s, {how}", f"{value:.2f}", "at most 1.1", value <= 1.1, detail)


def counts(url: str) -> dict[str, float]:
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
