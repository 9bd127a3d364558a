"""The README is true: its code runs, its output is what comes out, and it leaves no argument out."""

from __future__ import annotations

import ast
import inspect
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

import lmsyz
from lmsyz.accessor import ExtractionAccessor
from lmsyz.request_options import OWN_OPTIONS
from lmsyz.settings import Settings

TEXT = (Path(__file__).resolve().parents[1] / "README.md").read_text(encoding="utf-8")
FENCES: list[tuple[str, str]] = re.findall(r"^```(\w+)\n(.*?)^```$", TEXT, re.MULTILINE | re.DOTALL)
INTERNAL_SETTINGS = {"sandbox_url", "local_url", "local_context", "local_model"}


def run_block(code: str, names: dict[str, Any]) -> Any:
    """Run a block as a notebook cell does, and return the value of its last line, if that is one."""
    *body, last = ast.parse(code).body
    if not isinstance(last, ast.Expr):
        body.append(last)
    exec(compile(ast.Module(body, []), "README.md", "exec", dont_inherit=True), names)
    return (
        eval(compile(ast.Expression(last.value), "README.md", "eval", dont_inherit=True), names)
        if isinstance(last, ast.Expr)
        else None
    )


@pytest.fixture
def shared_sandbox() -> Iterator[None]:
    """Whatever sandbox the README starts, and leaves running as a user would, ends here."""
    yield
    lmsyz.sandbox.start().stop()


@pytest.mark.usefixtures("shared_sandbox")
def test_the_code_runs_and_shows_what_the_readme_shows() -> None:
    names: dict[str, Any] = {"__name__": "readme"}
    shown: Any = None
    n_compared = 0
    for language, text in FENCES:
        if language == "python":
            shown = run_block(text, names)
        elif language == "text":
            assert str(shown).split() == text.split()
            n_compared += 1
    assert n_compared == 2
    assert names["run"].counts.n_ok == 1
    assert isinstance(names["run"].errors, pd.DataFrame)


def test_the_readme_is_short_enough_to_be_read() -> None:
    assert len(TEXT.splitlines()) < 300


def test_each_name_in_lmsyz_that_the_readme_writes_is_there_in_a_fresh_kernel() -> None:
    names = set(re.findall(r"(?<![\w/])lmsyz\.([a-z_]\w*)(?=[.(])", TEXT, re.IGNORECASE))
    assert {"csv_guard", "data", "panel"} < names
    # Not getattr: it would also find a module that another test has imported.
    assert [name for name in sorted(names) if not lmsyz.__getattr__(name)] == []


def test_the_readme_has_two_commands() -> None:
    commands = [text for language, text in FENCES if language == "sh"]
    assert [c.strip().rpartition("/")[2] for c in commands] == ["lmsyz demo", "pytest"]
    assert all(c.count("\n") == 1 and c.startswith("python3 -m venv ") for c in commands)


@pytest.mark.parametrize(
    "name",
    [
        *[n for n in inspect.signature(ExtractionAccessor.extract).parameters if n not in ("self", "request_options")],
        *OWN_OPTIONS,
        "timeout",
        "ie_error",
    ],
)
def test_the_readme_tells_of_every_argument(name: str) -> None:
    assert re.search(rf"`(?:[^`\n]*\W)?{name}\b[^`\n]*`|^\s*{name}\b", TEXT, re.MULTILINE)


@pytest.mark.parametrize("name", sorted(set(Settings.model_fields) - INTERNAL_SETTINGS))
def test_the_readme_tells_of_every_setting(name: str) -> None:
    assert f"`{name.upper()}`" in TEXT or f"`{name.upper()}=...`" in TEXT
