"""What there is to measure: each scenario by its name, and its small size, on which all of them take some minutes."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from tests.benchmarks import batching, beside, browsing, keeping, killed, seeing, sending
from tests.benchmarks.common import Line
from tests.benchmarks.contestants import Field

__all__ = ["LARGE", "README", "SCENARIOS"]

MILLION = 1_000_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Scenario:
    """One name on the command line."""

    run: Callable[..., Iterator[Line]]
    quick: Mapping[str, Any] = field(default_factory=dict)
    is_beside: bool = False  # it takes the field of contestants

    def lines(self, everyone: Field, *, is_quick: bool) -> Iterator[Line]:
        """Measure."""
        return self.run(*([everyone] if self.is_beside else []), **(self.quick if is_quick else {}))


SCENARIOS = {
    "cpu": Scenario(run=sending.cpu, quick={"n_requests": 100, "repeats": 1}),
    "overhead": Scenario(run=beside.overhead, quick={"n": 300, "rounds": 1}, is_beside=True),
    "latency": Scenario(run=sending.latency, quick={"n_requests": 300, "repeats": 1}),
    "latencies": Scenario(run=beside.latencies, quick={"cases": ((0.2, 20),), "turns": 5}, is_beside=True),
    "stragglers": Scenario(run=beside.stragglers, quick={"n_requests": 200, "workers": 20}, is_beside=True),
    "limit": Scenario(run=sending.limit, quick={"n_requests": 150}),
    "throttled": Scenario(run=beside.throttled, quick={"n_requests": 100, "workers": 20}, is_beside=True),
    "killed": Scenario(run=killed.killed, quick={"n": 400}, is_beside=True),
    "interrupt": Scenario(run=sending.interrupt, quick={"repeats": 1}),
    "interrupted": Scenario(run=beside.interrupted, quick={"n": 1000}, is_beside=True),
    "first": Scenario(run=beside.first, quick={"n": 5000}, is_beside=True),
    "import": Scenario(run=keeping.imports, quick={"repeats": 1}),
    "imported": Scenario(run=beside.imported, quick={"rounds": 1}, is_beside=True),
    "cached": Scenario(run=keeping.cached, quick={"n": 5000, "repeats": 1}),
    "memory": Scenario(run=keeping.memory, quick={"small": 1000, "large": 5000}),
    "memories": Scenario(run=beside.memories, quick={"small": 200, "large": 600}, is_beside=True),
    "written": Scenario(run=keeping.written, quick={"n_requests": 200}),
    "batch": Scenario(run=batching.batch, quick={"small": 1000, "large": 3000}),
    "browsing": Scenario(run=browsing.browsing, quick={"n": 20_000, "repeats": 3}),
    "panel": Scenario(run=seeing.panel, quick={"n": 2000, "repeats": 1}),
    "grid": Scenario(
        run=partial(beside.latencies, cases=beside.GRID),
        quick={"cases": ((0.1, 20), (0.1, 50)), "turns": 3},
        is_beside=True,
    ),
    "cached-1m": Scenario(run=partial(keeping.cached, n=MILLION, repeats=3), quick={"n": 10_000, "repeats": 1}),
    "memory-1m": Scenario(
        run=partial(keeping.memory, small=200_000, large=MILLION), quick={"small": 2000, "large": 10_000}
    ),
    "batch-1m": Scenario(
        run=partial(batching.batch, small=200_000, large=MILLION), quick={"small": 2000, "large": 5000}
    ),
    "first-1m": Scenario(run=partial(beside.first, n=MILLION), quick={"n": 10_000}, is_beside=True),
}
# What takes long and is run by its name alone.
LARGE = ("grid", "cached-1m", "memory-1m", "batch-1m", "first-1m")
# What the README's tables are made of.
README = (
    "cpu", "overhead", "latency", "latencies", "limit", "killed", "interrupted", "imported", "import", "cached",
    "panel", "browsing", "batch",
)  # fmt: skip
