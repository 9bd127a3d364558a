"""``lmsyz lab``: a copy of the notebooks that never overwrites, and what it says where something is missing."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from lmsyz import lab, sandbox
from lmsyz.cli_lab import lab as command
from lmsyz.errors import MissingExtraError, UsageError


def test_the_copy_holds_every_notebook_the_solutions_and_the_notes(tmp_path: Path) -> None:
    copied, kept = lab.copy_notebooks(tmp_path / "course")
    home = lab.notebooks_home()
    assert not kept
    assert {p.relative_to(tmp_path / "course") for p in copied} == {
        p.relative_to(home) for p in [*home.rglob("*.ipynb"), home / "README.md"] if ".ipynb_checkpoints" not in p.parts
    }
    assert (tmp_path / "course" / "solutions").is_dir()


def test_what_is_there_is_never_overwritten(tmp_path: Path) -> None:
    copied, _ = lab.copy_notebooks(tmp_path)
    copied[0].write_text("my own work", encoding="utf-8")
    copied[1].unlink()
    again, kept = lab.copy_notebooks(tmp_path)
    assert again == [copied[1]]
    assert len(kept) == len(copied) - 1
    assert copied[0].read_text(encoding="utf-8") == "my own work"


@pytest.mark.skipif(os.name != "posix", reason="a limit on the size of files is POSIX")
def test_a_copy_that_fails_halfway_leaves_no_half_notebook_behind(tmp_path: Path) -> None:
    script = (
        "import resource, signal; signal.signal(signal.SIGXFSZ, signal.SIG_IGN);"
        " resource.setrlimit(resource.RLIMIT_FSIZE, (100, resource.RLIM_INFINITY));"
        " from lmsyz.lab import copy_notebooks; copy_notebooks('course')"
    )
    ended = subprocess.run(
        [sys.executable, "-B", "-c", script], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert "UsageError: the notebooks cannot be copied to course" in ended.stderr
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == []
    copied, kept = lab.copy_notebooks(tmp_path / "course")
    assert (len(copied) > 8, kept) == (True, [])


def test_a_file_in_place_of_the_folder_is_refused(tmp_path: Path) -> None:
    (tmp_path / "taken").write_text("", encoding="utf-8")
    with pytest.raises(UsageError, match="choose another folder"):
        lab.copy_notebooks(tmp_path / "taken")


def test_the_command_copies_and_tells_what_it_left_alone(tmp_path: Path) -> None:
    first = CliRunner().invoke(command, [str(tmp_path / "course"), "--copy-only"])
    second = CliRunner().invoke(command, [str(tmp_path / "course"), "--copy-only"])
    assert first.exit_code == second.exit_code == 0
    assert "left as they are" not in first.output
    assert second.output.startswith("0 files copied")
    assert "left as they are" in second.output


def test_without_jupyterlab_the_line_to_type_is_told_and_nothing_is_copied(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    result = CliRunner().invoke(command, [str(tmp_path / "course")])
    assert isinstance(result.exception, MissingExtraError)
    assert "pip install 'lmsyz[notebooks]'" in str(result.exception)
    assert not (tmp_path / "course").exists()


def test_jupyterlab_runs_in_the_folder_with_the_sandbox_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: dict[str, Any] = {}

    def run(args: list[str], *, cwd: Path, check: bool) -> subprocess.CompletedProcess[bytes]:
        seen.update(args=args, cwd=cwd, url=sandbox.start(default=False).url)
        return subprocess.CompletedProcess(args, 3)

    monkeypatch.setattr(lab, "check_installed", lambda: None)
    monkeypatch.setattr("lmsyz.lab.subprocess.run", run)
    assert lab.open_lab(tmp_path, browser=False) == 3
    assert seen["args"] == [sys.executable, "-m", "jupyterlab", "--no-browser"]
    assert seen["cwd"] == tmp_path
    assert seen["url"].startswith("http://127.0.0.1:")


def test_a_sandbox_that_ran_before_goes_on_running(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lab, "check_installed", lambda: None)
    monkeypatch.setattr("lmsyz.lab.subprocess.run", lambda args, **_: subprocess.CompletedProcess(args, 0))
    with sandbox.start(default=False) as box:
        lab.open_lab(tmp_path, browser=False)
        assert box.stats()["n_requests"] == 0  # it still answers


def test_an_installation_without_notebooks_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lab, "__file__", str(tmp_path / "lmsyz" / "lab.py"))
    with pytest.raises(UsageError, match="holds no notebooks"):
        lab.notebooks_home()
