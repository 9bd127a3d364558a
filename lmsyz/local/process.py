"""The server's process, seen from its parent: starting it, hearing where it listens, seeing it to its end."""

from __future__ import annotations

import atexit
import contextlib
import importlib.util
import json
import os
import socket
import subprocess
import sys
import tempfile
import threading
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from lmsyz.errors import LocalModelError, MissingExtraError, UsageError
from lmsyz.local.weights import Weights

__all__ = ["check_server", "end", "launch"]

START_TIMEOUT_S = 300.0  # a large model on a slow disk
SERVER = Path(__file__).with_name("server.py")
_children: list[subprocess.Popen[bytes]] = []


def check_server() -> None:
    """Raise :class:`MissingExtraError` where the server's package is not installed."""
    if importlib.util.find_spec("xllamacpp") is None:
        raise MissingExtraError(
            "a local model needs xllamacpp, which is not installed (35 MB): pip install 'lmsyz[local]'"
        )


def launch(weights: Weights, *, context: int, slots: int, port: int) -> tuple[int, subprocess.Popen[bytes]]:
    """Start a server process and return its port once it has loaded the model."""
    _check_port(port)
    orders = {
        "path": str(weights.path),
        "model": weights.model,
        "slots": slots,
        "n_ctx": context * slots,  # llama.cpp shares it out among the slots
        "port": port,
    }
    with tempfile.TemporaryFile() as log:
        process = _spawn(log)
        said = _hear(process, orders)
        if not said:
            end(process)
            log.seek(0)
            raise LocalModelError(_why(weights, log.read().decode("utf-8", "replace")))
    _children.append(process)
    return urlsplit(json.loads(said)["address"]).port or port, process


def _check_port(port: int) -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as sock:
        if os.name == "posix":
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            sock.bind(("127.0.0.1", port))
        except OSError as error:
            raise UsageError(
                f"port {port} cannot be used: {error.strerror or error}. Leave port= out for a free one"
            ) from error


def _spawn(log: Any) -> subprocess.Popen[bytes]:
    options: dict[str, Any] = {}
    if os.name == "posix":
        options["start_new_session"] = True  # Ctrl-C is for the parent, which then ends it
    # -P: a file of the user's that is named like a module must not be imported in its place.
    return subprocess.Popen(
        [sys.executable, "-P", str(SERVER)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=log,
        cwd=tempfile.gettempdir(),
        **options,
    )


def _hear(process: subprocess.Popen[bytes], orders: dict[str, Any]) -> bytes:
    """Give the orders and return the line that says where it listens; empty where it ended instead."""
    assert process.stdin is not None
    assert process.stdout is not None
    giving_up = threading.Timer(START_TIMEOUT_S, process.kill)
    giving_up.start()
    try:
        process.stdin.write(json.dumps(orders).encode() + b"\n")
        process.stdin.flush()
        return process.stdout.readline()
    except OSError:
        return b""
    except BaseException:
        end(process)
        raise
    finally:
        giving_up.cancel()
        process.stdout.close()


def _why(weights: Weights, log: str) -> str:
    lines = [line.strip() for line in log.splitlines() if line.strip()]
    told = [line for line in lines if " E " in line] or lines[-1:]
    return f"{weights.path.name} could not be served: {' / '.join(told[:3])[:600] or 'no reason given'}"


def end(process: subprocess.Popen[bytes]) -> None:
    """See a server process to its end, and close what leads to it."""
    if process.stdin is not None:
        with contextlib.suppress(OSError):
            process.stdin.close()
    try:
        process.wait(5)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
    if process in _children:
        _children.remove(process)


@atexit.register
def _leave() -> None:
    for process in list(_children):
        end(process)
