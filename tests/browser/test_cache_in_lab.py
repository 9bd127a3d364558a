"""The panel's cache view in a real JupyterLab: a large file searched, paged and opened, hostile answers in it."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from lab import Notebook

pytestmark = pytest.mark.browser

OpenNotebook = Callable[..., Notebook]

N_ROWS = 1_000_000
ROWS_A_REQUEST = 100
HOSTILE = "<img src=x onerror=window.__pwned=1><script>window.__pwned=1</script>[x](javascript:window.__pwned=1)"
START = f"""
import lmsyz, pandas as pd, sqlite3
box = lmsyz.sandbox.start(fresh=True)
bad = {json.dumps(HOSTILE)}
df = pd.DataFrame({{"text": ["fine", bad], "note": ["plain", bad], "id": ["first", bad]}})
_ = df.ie.extract(bad, schema={{"note": str}}, text_col=["text", "note"], id_col="id", cache_path="big.sqlite",
                  progress=False)
"""
FILL = f"""
db = sqlite3.connect("big.sqlite")
names = ",".join(row[1] for row in db.execute("PRAGMA table_info(requests)") if row[1] != "id")
first, task = db.execute("SELECT id, task_id FROM requests ORDER BY id LIMIT 1").fetchone()
counted = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < %d) "
with db:
    db.execute(counted % {N_ROWS // ROWS_A_REQUEST} +
               f"INSERT INTO requests ({{names}}) SELECT {{names}} FROM requests, n WHERE id = ?", (first,))
    db.execute(counted % {N_ROWS} + "INSERT INTO answers (task_id, key, answer, request_id) SELECT ?, randomblob(16),"
               " json_object('note', 'needle' || i || 'x'), ? + (i - 1) / {ROWS_A_REQUEST} FROM n", (task, first + 1))
db.close()
"""


def seek(notebook: Notebook, words: str) -> None:
    """Search the answers until one is found, wherever it lies; the panel searches on by itself."""
    rows = notebook.out(2).locator("select[multiple] option")
    search = notebook.out(2).get_by_label("answer text")
    search.fill(words)
    search.press("Enter")

    def found() -> bool:
        shown = rows.all_text_contents()
        return len(shown) == 1 and words in shown[0]

    notebook.wait(found, 120, words)


def test_a_large_cache_is_searched_paged_and_opened_and_a_hostile_answer_stays_text(
    open_notebook: OpenNotebook, screenshots: Path
) -> None:
    notebook = open_notebook(START, FILL, "panel = lmsyz.panel('big.sqlite'); panel", height=1800)
    notebook.run(0, 1, 2, patience_s=120)
    notebook.out(2).get_by_text("Cache", exact=True).first.click()
    rows = notebook.out(2).locator("select[multiple] option")
    notebook.wait(lambda: rows.count() > 1, what="the first page")
    assert f"stored rows {N_ROWS + 2:,}" in notebook.text(2)

    first_page = rows.all_text_contents()
    notebook.click(2, "Next")
    notebook.wait(lambda: rows.count() and rows.all_text_contents()[0] not in first_page, what="the second page")
    notebook.click(2, "Previous")
    notebook.wait(lambda: rows.all_text_contents() == first_page, what="the first page again")

    seek(notebook, "needle777x")
    seek(notebook, "onerror")
    notebook.out(2).locator("select[multiple]").select_option(index=0)
    notebook.wait(lambda: "Request, as sent" in notebook.text(2), what="the opened row")
    for folded in notebook.out(2).locator("summary").all():
        folded.click()
    assert HOSTILE in notebook.text(2)
    notebook.shots(2, screenshots, "cache")
    assert notebook.out(2).locator('img[src="x"], a[href^="javascript"]').count() == 0
    assert not notebook.is_pwned()
