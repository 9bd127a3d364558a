"""What it costs to watch a run: the panel's view against a tqdm bar alone, in a real kernel."""

from __future__ import annotations

import json
import statistics
import tempfile
from collections.abc import Iterator
from typing import Any

from tests.benchmarks.common import Line, place, ratio
from tests.benchmarks.stand_in import running

SETUP = """
import time
from tests.benchmarks.common import extract, frame
df, folder, about = frame({n}), {folder!r}, {about!r}
extract(df.head(1000), folder, **about)
"""
TIMED = """
started = time.monotonic()
_ = extract(df, folder, progress={progress!r}, **about)
print("SECONDS", time.monotonic() - started)
"""


def panel(n: int = 20_000, repeats: int = 5) -> Iterator[Line]:
    """Whole runs at zero latency with each in turns; the messages go to a front end that only takes them."""
    import nbformat
    from nbclient import NotebookClient

    orders = [(True, "panel") if i % 2 == 0 else ("panel", True) for i in range(repeats)]
    with running() as url, tempfile.TemporaryDirectory() as folder:
        cells = [SETUP.format(n=n, folder=folder, about=place(url, chunk_size=20))]
        cells += [TIMED.format(progress=progress) for order in orders for progress in order]
        notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(cell) for cell in cells])
        NotebookClient(notebook, timeout=600, kernel_name="python3").execute()
    seconds = [seconds_of(cell) for cell in notebook.cells[1:]]
    shown = [progress for order in orders for progress in order]
    bar, view = ([s for s, p in zip(seconds, shown, strict=True) if p == which] for which in (True, "panel"))
    value, spread = ratio(view, bar)
    detail = f"{statistics.median(view):.2f} : {statistics.median(bar):.2f} s, {spread}"
    yield Line(f"{n:,} rows with the panel : with a bar", f"{value:.2f}", "under 1.05", value < 1.05, detail)


def seconds_of(cell: Any) -> float:
    text = "".join(o.get("text", "") for o in cell.outputs if o.output_type == "stream" and o.name == "stdout")
    return float(json.loads(text.split("SECONDS")[1]))
