"""The teaching notebooks' conventions. That they run is for ``pytest --nbmake notebooks`` to show."""

from __future__ import annotations

import ast
import inspect
import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from lmsyz.accessor import ExtractionAccessor

ROOT = Path(__file__).resolve().parents[1]
HOME = ROOT / "notebooks"
LESSONS = sorted(HOME.glob("[0-9]*.ipynb"))
SOLUTIONS = sorted(HOME.glob("solutions/*.ipynb"))
EVERY = [*LESSONS, *SOLUTIONS]
LINK = re.compile(r"\]\((?!https?:|#|mailto:)([^)#\s]+)[^)]*\)")
STRANDS = ("goals", "stand-in", "setup", "wrong", "exercises", "your-turn", "next", "provider")


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
    assert list(found)[:3] == list(STRANDS[:3])
    assert list(found)[-1] == "provider"
    assert "## Goals" in found["goals"]
    assert "## What can go wrong here" in found["wrong"]
    assert re.search(r"^2\. ", found["exercises"], re.MULTILINE)
    assert any("redict, then run" in text for text in found.values())


@lessons
def test_a_lesson_says_that_rules_answer_and_not_a_language_model(path: Path) -> None:
    assert "**not by a language model**" in cells(path)["stand-in"]


@lessons
def test_the_cell_that_costs_money_is_never_run(path: Path) -> None:
    last = read(path)["cells"][-1]
    assert last["metadata"]["tags"] == ["skip-execution"]
    assert re.search(r"openai|anthropic", "".join(last["source"]))


def test_the_first_code_cell_is_the_same_everywhere() -> None:
    assert len({next(iter(cells(path, "code").values())) for path in EVERY}) == 1


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


@pytest.mark.parametrize("method", ["extract", "batch"])
def test_every_argument_is_shown_in_the_readme_or_a_notebook(method: str) -> None:
    shown = (ROOT / "README.md").read_text(encoding="utf-8")
    shown += "".join("\n".join(cells(path).values()) for path in EVERY)
    parameters = inspect.signature(getattr(ExtractionAccessor, method)).parameters.values()
    names = [p.name for p in parameters if p.kind is p.KEYWORD_ONLY]
    assert names
    assert not [name for name in names if not re.search(rf"\b{name}\s*=", shown)]


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
