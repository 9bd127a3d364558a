"""The benchmark, run by hand: ``python -m tests.benchmarks [NAME ...]``, from the top of the repository."""

from __future__ import annotations

import argparse
import os

from tests.benchmarks.scenarios import SCENARIOS


def main() -> None:
    parser = argparse.ArgumentParser(description="Print lmsyz's own cost as ratios measured in this run.")
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"of {', '.join(SCENARIOS)}; all without")
    names = parser.parse_args().names or list(SCENARIOS)
    if unknown := sorted(set(names) - set(SCENARIOS)):
        parser.error(f"unknown: {', '.join(unknown)}; there are {', '.join(SCENARIOS)}")
    for name in [n for n in os.environ if n.startswith(("OPENAI_", "ANTHROPIC_", "LMSYZ_")) or n.endswith("_PROXY")]:
        del os.environ[name]
    for name in names:
        for line in SCENARIOS[name]():
            met = {True: "met", False: "not met", None: ""}[line.is_met]
            print(f"{line.what:<52} {line.value:>6.2f}  aim {line.aim:<14} {met:<8} {line.detail}", flush=True)


if __name__ == "__main__":
    main()
