"""Side by side: the same texts through each contestant, every figure beside the bare loop of the same run."""

from __future__ import annotations

import json
import signal
import statistics
import subprocess
import tempfile
import time
from collections.abc import Iterator
from typing import Any

from tests.benchmarks.common import Line, ratio
from tests.benchmarks.contestants import RUN_S, Contestant, Failed, Field
from tests.benchmarks.sending import counts
from tests.benchmarks.stand_in import Latency, running

Found = dict[str, list[dict[str, Any]]]
PATIENCE_S = 10.0
SIGMA = 0.6


def overhead(field: Field, n: int = 3000, workers: int = 16, rounds: int = 3) -> Iterator[Line]:
    """Texts answered at once: what each costs in CPU and time, and what they cost when asked again."""
    found = _rounds(field, "overhead", rounds, n=n, workers=workers, runs=2)
    bare = found.pop(field.of("overhead")[0].name)
    bare_cpu, bare_wall = ([run[name][0] for run in bare] for name in ("cpu_s", "wall_s"))
    about = f"{n:,} texts, {workers} workers"
    yield _line("CPU a text : bare loop", "bare SDK loop", 1.0, f"{_ms(bare_cpu, n):.2f} ms, {about}")
    for name, runs in found.items():
        cpu, wall = ([run[what][0] for run in runs] for what in ("cpu_s", "wall_s"))
        value, spread = ratio(cpu, bare_cpu)
        again = [run["cpu_s"][1] for run in runs]
        figures = {"cpu_ratio": value, "wall_ratio": ratio(wall, bare_wall)[0], "cpu_ms": _ms(cpu, n)}
        figures |= {"stored_ratio": ratio(again, bare_cpu)[0], "stored_us": _ms(again, n) * 1e3}
        figures["peak_mb"] = statistics.median(run["peak_kb"][0] for run in runs) / 1024
        detail = (
            f"{spread}; time {figures['wall_ratio']:.2f}; asked again {figures['stored_us']:.0f} us a text,"
            f" peak {figures['peak_mb']:.0f} MB{_lost(runs, n)}"
        )
        yield _line("CPU a text : bare loop", name, value, detail, figures)


def latencies(
    field: Field,
    cases: tuple[tuple[float, int], ...] = ((0.2, 100), (1.0, 100)),
    turns: int = 10,
    rounds: int = 1,
) -> Iterator[Line]:
    """The share of the ideal time at real latencies, for as many requests as each worker sends in ``turns`` turns."""
    for latency_s, workers in cases:
        what = f"ideal : time, {latency_s * 1e3:.0f} ms, {workers} workers"
        about = {"n_requests": turns * workers, "workers": workers}
        found = _rounds(field, "latencies", rounds, latency_s=latency_s, **about)
        yield from _shares(what, found, field.of("latencies"), turns * latency_s, turns * workers)


def memories(field: Field, small: int = 1000, large: int = 6000, workers: int = 16) -> Iterator[Line]:
    """How the peak of memory grows with the texts."""
    what = f"kB a text that the peak grows by, {small:,} to {large:,}"
    few, many = (_rounds(field, "memories", 1, n=n, workers=workers) for n in (small, large))
    for name in (name for name in few if name in many):
        a, b = (found[name][0]["peak_kb"][0] for found in (few, many))
        value = (b - a) / (large - small)
        figures = {"kb_a_text": value, "peak_mb": b / 1024}
        yield _line(what, name, value, f"peak {a / 1024:.0f} to {b / 1024:.0f} MB", figures)


GRID = tuple((latency_s, workers) for latency_s in (0.2, 1.0) for workers in (20, 100, 300))


def stragglers(field: Field, n_requests: int = 2000, workers: int = 100, median_s: float = 0.3) -> Iterator[Line]:
    """Latencies as they are: lognormal, one in a hundred five times later; the ideal loses no worker's time."""
    about = {"n_requests": n_requests, "workers": workers}
    found = _rounds(field, "stragglers", 1, latency_s=median_s, sigma=SIGMA, **about)
    drawn = Latency(median_s, SIGMA)
    spent = [drawn.next_s() for _ in range(n_requests)]
    what = f"ideal : time, lognormal with stragglers, {workers} workers"
    yield from _shares(what, found, field.of("stragglers"), max(sum(spent) / workers, max(spent)), n_requests)


def throttled(field: Field, n_requests: int = 500, rate: float = 50.0, workers: int = 100) -> Iterator[Line]:
    """A limit that headers tell: time over the ideal, requests refused, and texts left without an answer."""
    ideal = (n_requests - rate) / rate  # the bucket is full at the start
    for who in field.of("throttled"):
        with field.forgiving(who):
            yield _throttled(field, who, n_requests * who.chunk, rate, workers, ideal)


def _throttled(field: Field, who: Contestant, n: int, rate: float, workers: int, ideal: float) -> Line:
    with running(latency_s=0.1, limit=rate) as url, tempfile.TemporaryDirectory() as folder:
        # Those that take a rate are told it by hand, as they recommend; lmsyz reads it off the headers.
        found = field.run(who, url, folder, n=n, workers=workers, rate=rate)
        n_refused = int(counts(url)["limited"])
    wall, n_good = found["wall_s"][0], found["n_good"][0]
    figures = {"time_ratio": wall / ideal, "n_refused": n_refused, "n_without": n - n_good}
    detail = f"{wall:.1f} : {ideal:.1f} s, {n_refused} refused, {n - n_good} of {n} texts without an answer"
    return _line(f"time : ideal, {rate:.0f} requests/s", who.name, wall / ideal, detail, figures)


def first(field: Field, n: int = 200_000, workers: int = 20, latency_s: float = 0.2) -> Iterator[Line]:
    """Seconds from the call, and from the start of its process, to the first answer of many texts."""
    bare_s = 0.0
    for who in field.of("first"):
        with field.forgiving(who), running(latency_s=latency_s) as url, tempfile.TemporaryDirectory() as folder:
            spawned = time.time()
            with field.started(who, url, folder, n=n, workers=workers) as child:
                assert child.stdout is not None
                called = json.loads(child.stdout.readline())["called_at"]
                answered = _first_at(url, child) + latency_s
            value = answered - called
            bare_s = bare_s or value
            figures = {"first_s": value, "from_start_s": answered - spawned, "ratio": value / bare_s}
            detail = f"{answered - spawned:.2f} s from its start; {value / bare_s:.2f} times the bare loop"
            yield _line(f"s to the first answer of {n:,} texts", who.name, value, detail, figures)


def interrupted(field: Field, n: int = 4000, workers: int = 16, latency_s: float = 0.2) -> Iterator[Line]:
    """Seconds from SIGINT in the middle to control, and the requests that were still sent meanwhile."""
    for who in field.of("interrupted"):
        with field.forgiving(who), running(latency_s=latency_s) as url, tempfile.TemporaryDirectory() as folder:
            with field.started(who, url, folder, n=n, workers=workers) as child:
                _until(url, child, "requests", 4 * workers)
                before, at = counts(url)["requests"], time.time()
                child.send_signal(signal.SIGINT)
                try:
                    out, _ = child.communicate(timeout=PATIENCE_S)
                    control = _control_at(out) or time.time()
                except subprocess.TimeoutExpired:
                    control = None
            n_sent = counts(url)["requests"] - before
            value = PATIENCE_S if control is None else control - at
            text = f"{'over ' if control is None else ''}{value:.2f}"
            detail = f"{n_sent:.0f} requests sent after it"
            figures = {"control_s": value, "n_sent_after": n_sent}
            yield Line("s from SIGINT to control", text, detail=detail, who=who.name, figures=figures)


def imported(field: Field, rounds: int = 5) -> Iterator[Line]:
    """CPU seconds that a process spends before it can call; lmsyz loads the SDK at the first call, unlike here."""
    found: dict[str, list[float]] = {who.name: [] for who in field.of("imported")}
    for _ in range(rounds):
        for who in field.of("imported"):
            with tempfile.TemporaryDirectory() as folder:
                found[who.name].append(
                    field.run(who, "http://127.0.0.1:9", folder, n=1, workers=1, runs=0)["imports_s"][0]
                )
    bare = found[field.of("imported")[0].name]
    for name, seconds in found.items():
        value, spread = ratio(seconds, bare)
        ms = statistics.median(seconds) * 1e3
        yield _line("CPU of the import : bare loop's", name, value, f"{ms:.0f} ms, {spread}", {"import_ms": ms})


def _rounds(
    field: Field, scenario: str, rounds: int, *, latency_s: float = 0.0, sigma: float = 0.0, **about: Any
) -> Found:
    """Run all contestants in turns, each against a fresh server and in a fresh folder."""
    everyone = field.of(scenario)
    found: Found = {who.name: [] for who in everyone}
    n_requests = about.pop("n_requests", 0)
    for i in range(rounds):
        for who in everyone if i % 2 == 0 else reversed(everyone):
            size = {"n": n_requests * who.chunk} if n_requests else {}
            with (
                field.forgiving(who),
                running(latency_s=latency_s, sigma=sigma) as url,
                tempfile.TemporaryDirectory() as folder,
            ):
                found[who.name].append(field.run(who, url, folder, **about, **size))
    return {name: runs for name, runs in found.items() if len(runs) == rounds}


def _shares(what: str, found: Found, everyone: list[Contestant], ideal_s: float, n_requests: int) -> Iterator[Line]:
    """Return lines of the share of the ideal time of as many requests, and of the bare loop's time a text."""
    bare = [run["wall_s"][0] for run in found[everyone[0].name]]
    for who in (who for who in everyone if who.name in found):
        runs = found[who.name]
        wall = [run["wall_s"][0] for run in runs]
        took, times = statistics.median(wall), ratio(wall, bare)[0] / who.chunk
        busy = statistics.median(run["cpu_s"][0] for run in runs) / took
        figures = {"share": ideal_s / took, "text_time_ratio": times, "wall_s": took, "busy": busy}
        detail = f"{ideal_s:.1f} : {took:.1f} s; time a text {times:.2f} of the bare loop's; {busy:.0%} of a core"
        yield _line(what, who.name, ideal_s / took, detail + _lost(runs, n_requests * who.chunk), figures)


def _lost(runs: list[dict[str, Any]], n: int) -> str:
    without = max(n - n_good for run in runs for n_good in run["n_good"])
    return f"; {without} texts without an answer" if without else ""


def _line(what: str, who: str, value: float, detail: str, figures: dict[str, float] | None = None) -> Line:
    return Line(what, f"{value:.2f}", detail=detail, who=who, figures=figures or {})


def _ms(seconds: list[float], n: int) -> float:
    return statistics.median(seconds) / n * 1e3


def _control_at(out: str) -> float | None:
    found = [
        line for line in (json.loads(line) for line in out.splitlines() if line[:1] == "{") if "control_at" in line
    ]
    return float(found[-1]["control_at"][0]) if found else None


def _first_at(url: str, child: subprocess.Popen[str]) -> float:
    _until(url, child, "requests", 1)
    return counts(url)["first_at"]


def _until(url: str, child: subprocess.Popen[str], name: str, value: float, every_s: float = 0.02) -> None:
    until = time.monotonic() + RUN_S
    while counts(url)[name] < value:
        if child.poll() is not None or time.monotonic() > until:
            raise Failed(f"never came to {value} {name.replace('_', ' ')}")
        time.sleep(every_s)
