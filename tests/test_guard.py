"""The guards of this test suite hold."""

from __future__ import annotations

import os
import socket
import urllib.request
from pathlib import Path

import pytest


def test_no_test_reaches_another_host(strangers: list[str]) -> None:
    with pytest.raises(ConnectionRefusedError, match=r"not 192\.0\.2\.1"), socket.socket() as there:
        there.connect(("192.0.2.1", 80))
    with pytest.raises(ConnectionRefusedError, match=r"not 192\.0\.2\.2"), socket.socket() as there:
        there.connect_ex(("192.0.2.2", 80))
    with pytest.raises(OSError, match=r"not example\.com"):
        urllib.request.urlopen("http://example.com/", timeout=1)
    assert strangers == ["192.0.2.1", "192.0.2.2", "example.com"]
    strangers.clear()


def test_a_name_that_never_exists_is_no_stranger() -> None:
    with pytest.raises(socket.gaierror, match=r"far\.invalid does not exist"):
        socket.create_connection(("far.invalid", 80))


def test_a_test_may_reach_this_machine() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server, socket.create_connection(server.getsockname()) as there:
        assert there.getpeername() == server.getsockname()


def test_a_test_sees_no_key_no_setting_and_no_env_file(tmp_path: Path) -> None:
    ours = [n for n in os.environ if n.startswith(("OPENAI_", "ANTHROPIC_", "LMSYZ_"))]
    assert ours == ["LMSYZ_SANDBOX_DIR"]
    assert Path(os.environ["LMSYZ_SANDBOX_DIR"]).is_relative_to(tmp_path)
    assert Path.cwd() == tmp_path
    assert not Path(".env").exists()
