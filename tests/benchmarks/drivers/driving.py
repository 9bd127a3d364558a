"""What the drivers share: one contestant, run once or twice in a process of its own, and what that took.

Nothing but the standard library, for a contestant's environment has only the contestant. The order comes as JSON on the
command line; a line of JSON goes out when the call begins, and one at the end.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

# What the single-row contestants and the bare loop send: the shape asked for in words, JSON by the provider's switch.
SYSTEM = "Classify the tone of the sentence. Answer in JSON with the keys tone, words and digest."


def texts_of(n: int) -> list[str]:
    return [f"Sentence number {i} says that the quarter was good for the firm." for i in range(n)]


def count(rows: Any) -> int:
    """Count the rows that have an answer, of a frame or of dicts."""
    if hasattr(rows, "columns"):
        return int(rows["tone"].notna().sum()) if "tone" in rows.columns else 0
    return sum(1 for row in rows if isinstance(row, dict) and row.get("tone"))


def peak_kb() -> int:
    status = Path("/proc/self/status")
    return int(status.read_text().partition("VmHWM:")[2].split()[0]) if status.exists() else 0


def main(prepare: Callable[[SimpleNamespace, list[str]], Callable[[], Any]]) -> None:
    """Run what ``prepare`` returns as often as the order says; imports are over before the first clock is read."""
    order = SimpleNamespace(**json.loads(sys.argv[1]))
    found: dict[str, list[Any]] = {"imports_s": [time.process_time()]}
    run = prepare(order, texts_of(order.n))
    say({"called_at": time.time()})
    try:
        for _ in range(order.runs):
            took(run, found)
    except KeyboardInterrupt:
        found["control_at"] = [time.time()]
    found.setdefault("control_at", [time.time()])
    say(found | {"peak_kb": [peak_kb()]})


def took(run: Callable[[], Any], found: dict[str, list[Any]]) -> None:
    wall, cpu = time.monotonic(), time.process_time()
    rows = run()
    for name, value in (("wall_s", time.monotonic() - wall), ("cpu_s", time.process_time() - cpu)):
        found.setdefault(name, []).append(value)
    found.setdefault("n_good", []).append(count(rows))


def say(what: dict[str, Any]) -> None:
    print(json.dumps(what), flush=True)


def dicts(answers: Iterable[str | None]) -> list[Any]:
    """Parse answers, for those who hand the text back."""
    return [json.loads(answer) if answer else None for answer in answers]
