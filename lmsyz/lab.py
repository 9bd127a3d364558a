"""The teaching notebooks: where they lie, a copy of them in a folder of the user's, and JupyterLab on that copy."""

from __future__ import annotations

import importlib.util
import os
import shutil
import subprocess
import sys
from pathlib import Path

from lmsyz.errors import MissingExtraError, UsageError

__all__ = ["copy_notebooks", "notebooks_home", "open_lab"]

NEEDED = ("jupyterlab", "matplotlib")


def notebooks_home() -> Path:
    """Return the folder of the notebooks: within the installed package, or beside it in a checkout.

    Returns
    -------
    Path

    Raises
    ------
    UsageError
        This installation holds no notebooks.
    """
    package = Path(__file__).resolve().parent
    for home in (package / "notebooks", package.parent / "notebooks"):
        if any(home.glob("01_*.ipynb")):
            return home
    raise UsageError("this installation of lmsyz holds no notebooks; install it from a wheel or a full checkout")


def copy_notebooks(folder: str | os.PathLike[str]) -> tuple[list[Path], list[Path]]:
    """Copy the notebooks into a folder; a file that is there already stays as it is.

    Parameters
    ----------
    folder : path
        Made where it does not exist.

    Returns
    -------
    tuple of two lists of Path
        What was copied, and what was there before and left alone.

    Raises
    ------
    UsageError
        The folder cannot be made, or a file stands in its place.
    """
    home, target = notebooks_home(), Path(folder).expanduser()
    copied: list[Path] = []
    kept: list[Path] = []
    try:
        for source in _files(home):
            goal = target / source.relative_to(home)
            (copied if _copy(source, goal) else kept).append(goal)
    except OSError as error:
        raise UsageError(f"the notebooks cannot be copied to {target}: {error}; choose another folder") from error
    return copied, kept


def open_lab(folder: str | os.PathLike[str], *, browser: bool = True) -> int:
    """Open JupyterLab on a folder, with the sandbox running, and wait until it ends.

    Parameters
    ----------
    folder : path
        Where JupyterLab's files are.
    browser : bool
        Open a browser as well.

    Returns
    -------
    int
        JupyterLab's exit code.

    Raises
    ------
    MissingExtraError
        JupyterLab or matplotlib is not installed.
    """
    check_installed()
    from lmsyz import sandbox

    command = [sys.executable, "-m", "jupyterlab", *([] if browser else ["--no-browser"])]
    # Every notebook finds this sandbox. One that ran before goes on running afterwards: others may be using it.
    with sandbox.start(default=False):
        return subprocess.run(command, cwd=Path(folder).expanduser(), check=False).returncode


def check_installed() -> None:
    """Refuse where what the notebooks need is not installed.

    Raises
    ------
    MissingExtraError
        With the line to type.
    """
    missing = [name for name in NEEDED if importlib.util.find_spec(name) is None]
    if missing:
        raise MissingExtraError(
            f"the notebooks need {' and '.join(missing)} (not installed here): pip install 'lmsyz[notebooks]'"
        )


def _files(home: Path) -> list[Path]:
    found = [*home.glob("*.ipynb"), *home.glob("solutions/*.ipynb"), *home.glob("README.md")]
    return sorted(found)


def _copy(source: Path, goal: Path) -> bool:
    goal.parent.mkdir(parents=True, exist_ok=True)
    try:
        want = goal.open("xb")  # "x": never over what is there
    except FileExistsError:
        return False
    try:
        with source.open("rb") as have, want:
            shutil.copyfileobj(have, want)
    except BaseException:
        # Else the next call would take the half of a notebook for the user's own and leave it alone.
        goal.unlink(missing_ok=True)
        raise
    return True
