"""The benchmark, run by hand: ``python -m tests.benchmarks [NAME ...]``, from the top of the repository."""

from __future__ import annotations

import argparse
import os
import platform
import time
from collections.abc import Callable, Iterator
from importlib.metadata import version

from tests.benchmarks import batching, browsing, keeping, seeing, sending
from tests.benchmarks.common import Line

SCENARIOS: dict[str, Callable[[], Iterator[Line]]] = {
    "cpu": sending.cpu,
    "latency": sending.latency,
    "limit": sending.limit,
    "memory": keeping.memory,
    "cached": keeping.cached,
    "import": keeping.imports,
    "written": keeping.written,
    "interrupt": sending.interrupt,
    "batch": batching.batch,
    "browsing": browsing.browsing,
    "panel": seeing.panel,
}
VERDICTS = {True: "met", False: "NOT MET", None: ""}


def main() -> None:
    parser = argparse.ArgumentParser(description="Print what lmsyz costs, as ratios measured in one run.")
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"of {', '.join(SCENARIOS)}; all without")
    names = parser.parse_args().names or list(SCENARIOS)
    if unknown := sorted(set(names) - set(SCENARIOS)):
        parser.error(f"unknown: {', '.join(unknown)}; there are {', '.join(SCENARIOS)}")
    # No key, no setting and no proxy of this machine may decide the outcome.
    for name in [n for n in os.environ if n.startswith(("OPENAI_", "ANTHROPIC_", "LMSYZ_")) or n.endswith("_PROXY")]:
        del os.environ[name]
    packages = ", ".join(f"{name} {version(name)}" for name in ("pandas", "openai", "anthropic"))
    print(f"Python {platform.python_version()}, {packages}, {os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}\n")
    started = time.monotonic()
    for name in names:
        for line in SCENARIOS[name]():
            columns = f"{line.what:<54} {line.measured:>7}  {line.aim:<13}  {VERDICTS[line.is_met]:<7}"
            print(f"{columns}  {line.detail}".rstrip(), flush=True)
    print(f"\n{time.monotonic() - started:.0f} s, load {os.getloadavg()[0]:.1f}")


if __name__ == "__main__":
    main()
