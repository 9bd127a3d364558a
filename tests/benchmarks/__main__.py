"""The benchmark, run by hand: ``python -m tests.benchmarks [NAME ...]``, from the top of the repository."""

from __future__ import annotations

import argparse
import os
import platform
import time
from importlib.metadata import version
from pathlib import Path

from tests.benchmarks import report
from tests.benchmarks.common import Line
from tests.benchmarks.contestants import field_of
from tests.benchmarks.plan import LARGE, README, SCENARIOS

VERDICTS = {True: "met", False: "NOT MET", None: ""}


def main() -> None:
    options = arguments()
    with_proxies = dict(os.environ)
    # No key, no setting and no proxy of this machine may decide the outcome.
    for name in [n for n in os.environ if n.startswith(("OPENAI_", "ANTHROPIC_", "LMSYZ_")) or n.endswith("_PROXY")]:
        del os.environ[name]
    packages = ", ".join(f"{name} {version(name)}" for name in ("pandas", "openai", "anthropic"))
    print(f"Python {platform.python_version()}, {packages}, {os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}")
    started, found = time.monotonic(), dict[str, list[Line]]()
    with field_of(options.peers, with_proxies) as field:
        about = report.machine(field.versions) | {"is_quick": options.quick, "failed": []}
        for name, text in field.versions.items():
            print(f"{name} {text}")
        for name, reason in field.missing.items():
            print(f"{name}: not installed: {reason}")
        for name in options.names:
            print(f"\n{name}")
            found[name] = []
            for line in SCENARIOS[name].lines(field, is_quick=options.quick):
                found[name].append(line)
                print(shown(line), flush=True)
            for who, reason in field.failed:
                print(f"{who:<26} failed: {reason}", flush=True)
            about["failed"] += [[name, who, reason] for who, reason in field.failed]
            field.failed.clear()
    if options.json:
        report.save(options.json, about, found)
    if options.picture:
        report.picture(options.picture, found)
    if options.table:
        print("\n" + report.tables(found))
    print(f"\n{time.monotonic() - started:.0f} s, load {os.getloadavg()[0]:.1f}")


def arguments() -> argparse.Namespace:
    usual = [name for name in SCENARIOS if name not in LARGE]
    parser = argparse.ArgumentParser(
        prog="python -m tests.benchmarks",
        description="Print what lmsyz costs, as ratios measured in one run.",
        epilog=f"Names: {', '.join(usual)}. By name alone, for they take long: {', '.join(LARGE)}.",
    )
    parser.add_argument("names", nargs="*", metavar="NAME", help="a scenario; without any, all but the long ones")
    parser.add_argument("--readme", action="store_true", help=f"those of the README's tables: {', '.join(README)}")
    parser.add_argument(
        "--quick", action="store_true", help="at sizes that only try the code: their figures say nothing"
    )
    parser.add_argument(
        "--peers",
        nargs="?",
        const="",
        metavar="FOLDER",
        help="beside other packages too, each in a virtual environment made in FOLDER, or in a temporary one",
    )
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures and the machine's facts")
    parser.add_argument("--picture", type=Path, metavar="FILE", help="draw overhead and killed (needs matplotlib)")
    parser.add_argument("--table", action="store_true", help="print the figures as Markdown tables at the end")
    options = parser.parse_args()
    options.names = options.names or list(README if options.readme else usual)
    if unknown := sorted(set(options.names) - set(SCENARIOS)):
        parser.error(f"unknown: {', '.join(unknown)}; there are {', '.join(SCENARIOS)}")
    return options


def shown(line: Line) -> str:
    what = f"{line.who:<26} {line.what}" if line.who else line.what
    return f"{what:<66} {line.measured:>8}  {line.aim:<13}  {VERDICTS[line.is_met]:<7}  {line.detail}".rstrip()


if __name__ == "__main__":
    main()
