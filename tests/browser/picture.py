"""Make the README's picture of the panel: ``python tests/browser/picture.py panel.png``."""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path

from lab import Notebook, running_browser, running_lab, what_is_missing

START = """
import lmsyz, pandas as pd
box = lmsyz.sandbox.start(fresh=True, faults=lmsyz.sandbox.Faults(latency_s=0.4, refused=0.02))
df = pd.DataFrame({"text": [f"Firm number {i} had a great quarter." for i in range(2000)]})
ask = dict(prompt="Say the tone.", schema={"tone": ["positive", "neutral", "negative"]}, chunk_size=4)
_ = df.head(300).ie.extract(**ask, progress=False)
run = df.ie.extract(**ask, background=True, max_workers=16)
"""
WIDTH, HEIGHT = 1000, 1200
ENOUGH = 800  # rows, so that every part of the bar is there


def take(out: Path) -> None:
    """Take the picture of a run half way."""
    with tempfile.TemporaryDirectory() as folder, running_lab(Path(folder)) as lab, running_browser() as browser:
        path = lab.write("panel.ipynb", [START, "run.panel()", f"run.counts.n_done > {ENOUGH}", "run.stop()"])
        notebook = Notebook(lab, browser, path, width=WIDTH, height=HEIGHT)
        notebook.hide_sidebar()
        notebook.run(0, 1)
        notebook.wait(lambda: "True" in notebook.run(2), what=f"{ENOUGH} rows")
        notebook.page.wait_for_timeout(500)
        out.parent.mkdir(parents=True, exist_ok=True)
        notebook.out(1).locator(".jp-OutputArea-child").first.screenshot(path=str(out))
        notebook.run(3)
        notebook.close()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("out", type=Path, help="where the PNG goes")
    out = parser.parse_args().out.resolve()
    if missing := what_is_missing():
        parser.error(f"this needs {', '.join(missing)}: pip install 'lmsyz[browser]' and a chromium on the PATH")
    take(out)


if __name__ == "__main__":
    main()
