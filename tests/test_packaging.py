"""The project around the code: what is declared agrees with what is there, and a wheel holds what a user needs."""

from __future__ import annotations

import re
import subprocess
import tomllib
import zipfile
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any

import pytest
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet

import lmsyz

ROOT = Path(__file__).resolve().parents[1]
PROJECT: dict[str, Any] = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
EXTRAS: dict[str, list[str]] = PROJECT["optional-dependencies"]
# Spelt so that this file does not hold what it looks for.
MACHINE_PATH = re.compile(r"(?<![\w.:/-])/(?:home|root|Users|work|opt|mnt)" + r"/[\w.]")
REGISTRY = re.compile("|".join(["pypi" + r"\.", "python" + "hosted", "npm" + r"js\.", "simple" + "/ "]))


def environment() -> list[str]:
    lines = (ROOT / "environment.yml").read_text(encoding="utf-8").splitlines()
    return [line.strip()[2:] for line in lines if line.strip().startswith("- ")]


def _is_hidden(path: Path) -> bool:
    return any(part.startswith(".") for part in path.parts[:-1] if part != ".ci")


def files() -> list[Path]:
    """Return every file that is, or may be, under version control."""
    listed = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    if (ROOT / ".git").exists() and not listed.returncode:
        found = [ROOT / name for name in listed.stdout.split("\0") if name]
    else:
        found = [p for p in ROOT.rglob("*") if not _is_hidden(p.relative_to(ROOT))]
    kept = {".py", ".toml", ".yml", ".md", ".csv", ".json", ".txt", "", ".ipynb"}
    return [p for p in found if p.is_file() and p.suffix in kept and "__pycache__" not in p.parts]


def test_the_version_is_said_once() -> None:
    assert PROJECT["version"] == lmsyz.__version__


def test_every_dependency_of_a_user_has_a_floor_and_a_ceiling() -> None:
    for spec in [*PROJECT["dependencies"], *EXTRAS["sandbox"], *EXTRAS["data"]]:
        operators = sorted(s.operator for s in Requirement(spec).specifier)
        assert operators == ["<", ">="], spec


@pytest.mark.parametrize(
    ("name", "bounds"),
    [("pandas", ">=2.2.3,<4"), ("openai", ">=3,<4"), ("anthropic", ">=2,<3"), ("ipywidgets", ">=7.7,<9")],
)
def test_the_bounds_are_those_that_were_promised(name: str, bounds: str) -> None:
    declared = {Requirement(spec).name: Requirement(spec).specifier for spec in PROJECT["dependencies"]}
    assert declared[name] == SpecifierSet(bounds)


def test_the_conda_environment_adds_only_an_interpreter_to_what_pyproject_says() -> None:
    names = [entry for entry in environment() if not entry.startswith("-e ")]
    assert [re.split("[=<>]", name)[0] for name in names] == ["conda-forge", "python", "pip", "pip:"]


def test_the_conda_environment_installs_this_project_with_extras_that_exist() -> None:
    (installed,) = [entry for entry in environment() if entry.startswith("-e ")]
    extras = re.fullmatch(r"-e \.\[([\w,]+)\]", installed)
    assert extras is not None
    assert set(extras[1].split(",")) <= set(EXTRAS)


def test_the_conda_environment_has_a_python_that_is_supported() -> None:
    (python,) = [entry.removeprefix("python=") for entry in environment() if entry.startswith("python=")]
    assert SpecifierSet(PROJECT["requires-python"]).contains(python)
    assert f"Programming Language :: Python :: {python}" in PROJECT["classifiers"]


def test_the_command_is_installed() -> None:
    (script,) = entry_points(group="console_scripts", name="lmsyz")
    assert callable(script.load())


def test_a_wheel_holds_the_package_its_types_its_data_and_no_tests(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from hatchling.build import build_wheel

    monkeypatch.chdir(ROOT)
    with zipfile.ZipFile(tmp_path / build_wheel(str(tmp_path))) as wheel:
        names = set(wheel.namelist())
    package = {p.relative_to(ROOT).as_posix() for p in files() if p.is_relative_to(ROOT / "lmsyz")}
    assert "lmsyz/py.typed" in names
    assert package <= names
    assert any(name.endswith("licenses/LICENSE") for name in names)
    assert {name.partition("/")[0] for name in names - package} <= {"lmsyz", f"lmsyz-{lmsyz.__version__}.dist-info"}


def test_no_file_names_a_path_of_one_machine_or_a_registry() -> None:
    found = []
    for path in files():
        text = path.read_text(encoding="utf-8")
        found += [f"{path.relative_to(ROOT)}: {m[0]}" for p in (MACHINE_PATH, REGISTRY) for m in p.finditer(text)]
    assert not found


def test_the_licence_is_the_one_declared() -> None:
    assert PROJECT["license"] == "MIT"
    assert (ROOT / "LICENSE").read_text(encoding="utf-8").startswith("MIT License")


def test_the_gate_can_be_run() -> None:
    gate = ROOT / ".ci" / "run"
    assert gate.stat().st_mode & 0o111
    assert subprocess.run(["bash", "-n", str(gate)], check=False).returncode == 0
