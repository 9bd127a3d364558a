"""One Lab and one browser for all of these tests; one notebook and kernel for each."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from lab import Lab, Notebook, running_browser, running_lab, what_is_missing

# Read now: a test's clean environment has no LMSYZ_ variable left.
IS_REQUIRED = os.environ.get("LMSYZ_REQUIRE_BROWSER") == "1"
SCREENSHOTS = os.environ.get("LMSYZ_SCREENSHOTS")


@pytest.fixture(scope="package")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    if missing := what_is_missing():
        reason = f"a browser test needs {', '.join(missing)}: pip install 'lmsyz[browser]' and a chromium on the PATH"
        (pytest.fail if IS_REQUIRED else pytest.skip)(reason)
    with running_lab(tmp_path_factory.mktemp("lab")) as server:
        yield server


# Not for the whole session: while Playwright's loop runs in this thread, asyncio.run() fails in every other test.
@pytest.fixture(scope="package")
def browser(lab: Lab) -> Iterator[Any]:
    with running_browser() as chromium:
        yield chromium


@pytest.fixture
def open_notebook(lab: Lab, browser: Any, request: pytest.FixtureRequest) -> Iterator[Callable[..., Notebook]]:
    """Open notebooks of the given cells; at the end no other host may have been asked, and no kernel is left."""
    opened: list[Notebook] = []

    def open_one(*cells: str, **size: int) -> Notebook:
        folder = request.node.name.replace("[", "-").rstrip("]")
        path = lab.write(f"{folder}/{len(opened)}.ipynb", cells)
        opened.append(Notebook(lab, browser, path, **size))
        return opened[-1]

    yield open_one
    strangers = [url for notebook in opened for url in notebook.strangers]
    for notebook in opened:
        notebook.close()
    lab.end_kernels()
    assert not strangers, f"the page asked other hosts: {strangers}"


@pytest.fixture(scope="package")
def screenshots(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where pictures go: ``LMSYZ_SCREENSHOTS``, or a directory that pytest forgets."""
    return Path(SCREENSHOTS).resolve() if SCREENSHOTS else tmp_path_factory.mktemp("screenshots")
