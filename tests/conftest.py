"""What every test has: no host but this machine, none of its settings, and a sandbox where one is wanted."""

from __future__ import annotations

import os
import signal
import socket
import sqlite3
import sys
from collections.abc import Iterator
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pytest
from hypothesis import settings
from offline.loopback import guards

PACKAGES = ("pandas", "openai", "anthropic", "ipywidgets", "pydantic", "tenacity")
SETTINGS = ("OPENAI_", "ANTHROPIC_", "LMSYZ_")
NO_PROXY = "127.0.0.1,localhost"

# The benchmarks are a package of their own here; last, so that an installed lmsyz goes before this folder's.
sys.path.append(str(Path(__file__).resolve().parents[1]))

settings.register_profile("lmsyz", deadline=None, derandomize=True, database=None)
settings.load_profile("lmsyz")

if signal.getsignal(signal.SIGINT) == signal.SIG_IGN:
    # A shell without job control ignores it for what it runs in the background, and so would every child of a test.
    signal.signal(signal.SIGINT, signal.default_int_handler)

_strangers: list[str] = []


def pytest_report_header() -> str:
    """Name what the outcome may depend on."""
    versions = [f"{name} {version(name)}" for name in PACKAGES]
    return ", ".join([f"SQLite {sqlite3.sqlite_version}", *versions])


def _refuse(host: object) -> None:
    if str(host).endswith(".invalid"):
        # Reserved never to exist, so a test may use it; what the resolver would say, without asking it.
        raise socket.gaierror(socket.EAI_NONAME, f"{host} does not exist")
    # Code under test may well catch this; the guard reads the list once the test is over.
    _strangers.append(str(host))
    raise ConnectionRefusedError(f"tests reach this machine only, not {host}")


@pytest.fixture(scope="session", autouse=True)
def _loopback_guard() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        for owner, name, guarded in guards(_refuse):
            patch.setattr(owner, name, guarded)
        yield


@pytest.fixture(autouse=True)
def strangers() -> Iterator[list[str]]:
    """The other hosts that this test tried to reach; it fails unless there are none."""
    _strangers.clear()
    yield _strangers
    assert not _strangers, f"the test tried to reach {sorted(set(_strangers))}"


@pytest.fixture(autouse=True)
def clean_env(monkeypatch: pytest.MonkeyPatch, tmp_path: Any) -> None:
    """Take keys, base URLs, lmsyz's settings, proxies, any ``.env`` and the user's own sandbox out of reach."""
    for name in list(os.environ):
        if name.startswith(SETTINGS) or name.upper().endswith("_PROXY"):
            monkeypatch.delenv(name)
    monkeypatch.setenv("NO_PROXY", NO_PROXY)
    monkeypatch.setenv("LMSYZ_SANDBOX_DIR", str(tmp_path / "sandbox"))  # not the developer's own sandbox
    monkeypatch.chdir(tmp_path)


@pytest.fixture(autouse=True)
def forgotten_forms() -> None:
    """Start as a new kernel would: what worked at an endpoint is remembered for a kernel's life, not a test's."""
    from lmsyz.ladder import forget_forms

    forget_forms()


@pytest.fixture(scope="session")
def sandbox_server() -> Iterator[Any]:
    """The one sandbox of this session; tests take :func:`sandbox`, which is as good as new."""
    from lmsyz import sandbox as home

    with home.start(fresh=True, default=False) as server:
        yield server


@pytest.fixture
def sandbox(sandbox_server: Any) -> Any:
    """A sandbox's handle, without faults, counts or batches from other tests; nobody's default endpoint."""
    sandbox_server.set_faults()
    sandbox_server.reset()
    return sandbox_server


@pytest.fixture
def sandbox_default(sandbox: Any, monkeypatch: pytest.MonkeyPatch) -> Any:
    """The same handle, and calls go there by default."""
    monkeypatch.setenv("LMSYZ_SANDBOX_URL", sandbox.url)
    return sandbox


@pytest.fixture
def server(sandbox_default: Any) -> Any:
    """The same handle, with batches that end at once."""
    sandbox_default.set_faults(batch_s=0.05)
    return sandbox_default


@pytest.fixture
def quick_batches(monkeypatch: pytest.MonkeyPatch) -> None:
    """A batch that is not listed at once is not coming; and nobody waits for seconds here."""
    from lmsyz import batch, batch_wait

    monkeypatch.setattr(batch, "GRACE_S", 0.0)
    monkeypatch.setattr(batch_wait, "SHORTEST_POLL_S", 0.02)
    monkeypatch.setenv("LMSYZ_PROGRESS", "false")


@pytest.fixture(params=["openai", "anthropic"])
def backend(request: pytest.FixtureRequest) -> str:
    """Each of the two in turn."""
    return str(request.param)
