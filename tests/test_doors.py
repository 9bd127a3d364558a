"""What the package may not do, whoever asks: run what it reads, and hand a spreadsheet a formula."""

from __future__ import annotations

import ast
import csv
import io
import re
from pathlib import Path

import pandas as pd
import pytest
from click.testing import CliRunner
from hypothesis import given, settings
from hypothesis import strategies as st

import lmsyz
from lmsyz.cli import main
from lmsyz.csv_guard import STARTS, guarded_frame

MODULES = sorted(Path(lmsyz.__file__).parent.rglob("*.py"))
# Each turns data into code, or a text into a command.
FORBIDDEN_MODULES = {
    "pickle",
    "cPickle",
    "dill",
    "cloudpickle",
    "joblib",
    "marshal",
    "shelve",
    "yaml",
    "code",
    "codeop",
}
FORBIDDEN_CALLS = {"eval", "exec", "compile", "__import__", "breakpoint", "input"}
FORBIDDEN_METHODS = {
    *("system", "popen", "mktemp", "read_pickle", "to_pickle", "getoutput", "getstatusoutput", "eval", "spawnl"),
    *("load_extension", "enable_load_extension", "executescript", "_create_unverified_context"),
}
FORBIDDEN_ARGUMENTS = {"shell": True, "allow_pickle": True, "verify": False, "autoescape": False}


def faults_in(source: str) -> list[str]:
    """Return what in a module's source can run what it reads."""
    found = []
    for node in ast.walk(ast.parse(source)):
        names = [a.name for a in node.names] if isinstance(node, ast.Import) else []
        names += [node.module or ""] if isinstance(node, ast.ImportFrom) else []
        found += [f"{node.lineno}: import {n}" for n in names if n.partition(".")[0] in FORBIDDEN_MODULES]
        if not isinstance(node, ast.Call):
            continue
        if isinstance(node.func, ast.Name) and node.func.id in FORBIDDEN_CALLS:
            found.append(f"{node.lineno}: {node.func.id}()")
        if isinstance(node.func, ast.Attribute) and node.func.attr in FORBIDDEN_METHODS:
            found.append(f"{node.lineno}: .{node.func.attr}()")
        for keyword in node.keywords:
            value = keyword.value.value if isinstance(keyword.value, ast.Constant) else None
            if keyword.arg in FORBIDDEN_ARGUMENTS and value is FORBIDDEN_ARGUMENTS[keyword.arg]:
                found.append(f"{node.lineno}: {keyword.arg}={value}")
    return found


@pytest.mark.parametrize(
    "source",
    [
        "import pickle",
        "from pickle import loads",
        "import yaml.nodes",
        "def f(x):\n    return eval(x)",
        "import os\nos.system('ls')",
        "import subprocess\nsubprocess.run('ls', shell=True)",
        "df.eval('a + b')",
        "client(verify=False)",
    ],
)
def test_the_search_finds_what_it_is_for(source: str) -> None:
    assert faults_in(source)


@pytest.mark.parametrize("path", MODULES, ids=lambda p: str(p.relative_to(MODULES[0].parent)))
def test_no_module_runs_what_it_reads(path: Path) -> None:
    assert not faults_in(path.read_text(encoding="utf-8"))


# --- CSV ------------------------------------------------------------------------------------------------------------

NUMBER = re.compile(r"-\d+(\.\d+)?")
CELLS = st.text(max_size=8) | st.sampled_from([f"{start}1+1" for start in STARTS]) | st.integers() | st.none()


def formulas_in(text: str) -> list[str]:
    """Return the cells of a CSV file that a spreadsheet would run."""
    rows = csv.reader(io.StringIO(text, newline=""))
    return [c for row in rows for c in row if c.startswith(STARTS) and not NUMBER.fullmatch(c)]


@settings(max_examples=30)
@given(cells=st.lists(st.tuples(CELLS, CELLS), min_size=1, max_size=5), names=st.tuples(CELLS, CELLS, CELLS, CELLS))
def test_a_guarded_frame_has_no_formula_in_cells_columns_or_index(
    cells: list[tuple[object, object]], names: tuple[object, ...]
) -> None:
    columns = pd.MultiIndex.from_tuples([(names[0], "a"), (names[1], "b")], names=[names[2], "=x"])
    frame = pd.DataFrame(pd.DataFrame(cells).astype(object).to_numpy(), columns=columns)
    for index in (
        pd.Index([c for c, _ in cells], name=names[3], dtype=object),
        pd.MultiIndex.from_tuples(cells, names=[names[2], names[3]]),
    ):
        guarded = guarded_frame(frame.set_axis(index))
        assert len(guarded) == len(frame)
        assert not formulas_in(guarded.to_csv())


def test_a_guarded_frame_has_no_path_that_is_a_formula() -> None:
    frame = pd.DataFrame({"chart": [Path("=1+1"), None]}, index=[Path("@x"), Path("plain")])
    assert guarded_frame(frame).to_csv(lineterminator="\n") == ",chart\n'@x,'=1+1\nplain,\n"


def test_a_guarded_frame_keeps_types_and_what_is_no_formula() -> None:
    frame = pd.DataFrame(
        {
            "n": pd.array([-1, None], dtype="Int64"),
            "tone": pd.Categorical(["-1", "good"]),
            "list": [["=1"], {"a": "=1"}],
            "text": pd.array(["fine", None], dtype="string"),
        }
    )
    out = guarded_frame(frame)
    assert out["n"].tolist()[0] == -1
    assert out["tone"].tolist() == ["'-1", "good"]
    assert out["list"].tolist() == ["['=1']", "{'a': '=1'}"]
    assert out["text"].tolist()[0] == "fine"
    assert frame["tone"].tolist() == ["-1", "good"]


@pytest.mark.usefixtures("server", "quick_batches")
@pytest.mark.parametrize("to", ["-", "out.csv"])
@pytest.mark.parametrize("safe", [True, False])
def test_a_batchs_results_can_be_made_safe_for_a_spreadsheet(to: str, safe: bool) -> None:
    df = pd.DataFrame({"text": ["=HYPERLINK(1) is the whole sentence."]}, index=pd.Index(["=1+1"], name="@name"))
    df.ie.batch("Give the first sentence.", schema={"summary": str}, job_id="j").wait(timeout=60)
    options = [*(["--safe-csv"] if safe else []), *(["--out", to] if to != "-" else [])]
    done = CliRunner().invoke(main, ["batch", "results", "j", *options])
    assert done.exit_code == 0, done.output
    written = done.stdout if to == "-" else Path(to).read_text()
    assert "HYPERLINK" in written
    assert bool(formulas_in(written)) is not safe
