"""What a run of the benchmark leaves: figures as JSON with the machine they are from, Markdown tables, one picture."""

from __future__ import annotations

import json
import os
import platform
import sqlite3
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

from tests.benchmarks.common import Line

__all__ = ["machine", "picture", "save", "tables"]

PACKAGES = ("lmsyz", "pandas", "openai", "anthropic", "pydantic")
OURS = "lmsyz"


def machine(versions: Mapping[str, str]) -> dict[str, Any]:
    """Return what a figure depends on beside the code."""
    return {
        "when": datetime.now(UTC).isoformat(timespec="seconds"),
        "python": platform.python_version(),
        "system": f"{platform.system()} {platform.machine()}",
        "cpu": _cpu(),
        "cores": os.cpu_count(),
        "sqlite": sqlite3.sqlite_version,
        "packages": {name: version(name) for name in PACKAGES},
        "peers": dict(versions),
        "load_at_start": round(os.getloadavg()[0], 2),
    }


def save(path: Path, about: Mapping[str, Any], found: Mapping[str, Sequence[Line]]) -> None:
    """Write every line of every scenario."""
    lines = [{"scenario": name, **_as_dict(line)} for name, lines in found.items() for line in lines]
    path.write_text(json.dumps({"machine": dict(about), "lines": lines}, indent=1, ensure_ascii=False) + "\n")


def tables(found: Mapping[str, Sequence[Line]]) -> str:
    """Return two Markdown tables: who is beside whom, and what lmsyz costs alone."""
    beside = [line for lines in found.values() for line in lines if line.who]
    alone = [line for lines in found.values() for line in lines if not line.who]
    parts = []
    if beside:
        columns = list(dict.fromkeys(line.what for line in beside))
        parts += [_row(["", *columns]), _row(["---"] * (1 + len(columns)))]
        cells = {(line.who, line.what): line.measured for line in beside}
        for who in dict.fromkeys(line.who for line in beside):
            parts.append(_row([who, *(cells.get((who, what), "") for what in columns)]))
        parts.append("")
    if alone:
        parts += [_row(["", "measured", "of it"]), _row(["---"] * 3)]
        parts += [_row([line.what.strip(), line.measured, line.detail]) for line in alone]
    return "\n".join(parts)


def picture(path: Path, found: Mapping[str, Sequence[Line]]) -> None:
    """Draw what a text costs and what a kill costs, for each contestant.

    Raises
    ------
    ValueError
        Neither was measured.
    """
    panels = [
        ("overhead", "CPU a text, of a bare SDK loop's"),
        ("killed", "rows asked twice after SIGKILL, of those under way"),
    ]
    drawn = [(title, [line for line in found[name] if line.who]) for name, title in panels if found.get(name)]
    if not drawn:
        raise ValueError("the picture shows the scenarios overhead and killed; measure one of them")
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot as plt

    figure, axes = plt.subplots(1, len(drawn), figsize=(4.8 * len(drawn), 2.6), squeeze=False, layout="constrained")
    for axis, (title, lines) in zip(axes[0], drawn, strict=True):
        _bars(axis, title, lines)
    figure.savefig(path, dpi=110)
    plt.close(figure)


def _bars(axis: Any, title: str, lines: Sequence[Line]) -> None:
    names, values = [line.who for line in lines], [float(line.measured) for line in lines]
    colours = ["#1f6f8b" if name.startswith(OURS) else "#b8b8b8" for name in names]
    bars = axis.barh(names, values, color=colours)
    axis.bar_label(bars, labels=[line.measured for line in lines], padding=3, fontsize=8)
    axis.invert_yaxis()
    axis.margins(x=0.15)
    axis.set_title(title, fontsize=9)
    axis.tick_params(labelsize=8)
    axis.set_xticks([])
    axis.spines[["top", "right", "bottom"]].set_visible(False)


def _as_dict(line: Line) -> dict[str, Any]:
    plain = {"what": line.what.strip(), "who": line.who or OURS, "measured": line.measured, "aim": line.aim}
    return {**plain, "is_met": line.is_met, "detail": line.detail, "figures": dict(line.figures)}


def _row(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"


def _cpu() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor()
    return next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), platform.machine())
