"""The server's process, seen from its parent: starting it, hearing where it listens, seeing it to its end."""

from __future__ import annotations

import atexit
import json
import secrets
import subprocess
import tempfile
from pathlib import Path

from lmsyz import standin
from lmsyz.errors import SandboxError
from lmsyz.sandbox import registry
from lmsyz.sandbox.faults import Faults

__all__ = ["end", "launch"]

IDLE_S = 6 * 3600.0
START_TIMEOUT_S = 30.0
# The server needs nothing of lmsyz but this package and the errors. Through a bare stand-in for the parent package it
# starts without pandas and the accessor: in a third of the time and the memory.
# Jupyter installs rfc3987_syntax, an optional helper of jsonschema that takes a second to import and that no check here
# needs.
BOOT = """\
import runpy, sys, types
package = sys.modules["lmsyz"] = types.ModuleType("lmsyz")
package.__path__ = [sys.argv[1]]
sys.modules["rfc3987_syntax"] = None
runpy.run_module("lmsyz.sandbox.__main__", run_name="__main__")
"""
_children: list[subprocess.Popen[bytes]] = []


def launch(
    port: int | None, seed: int, faults: Faults, folder: Path | None
) -> tuple[registry.Entry, subprocess.Popen[bytes]]:
    """Start a server process and wait until it says where it listens."""
    orders = {
        "port": port,
        "seed": seed,
        "faults": faults.as_dict(),
        "token": secrets.token_urlsafe(24),
        "state_dir": str(folder) if folder is not None else None,
        "private": folder is None,
        "idle_s": IDLE_S,
    }
    with tempfile.TemporaryFile() if folder is None else (folder / "sandbox.log").open("w+b") as log:
        package = Path(__file__).resolve().parent.parent
        process = standin.spawn("-c", BOOT, str(package), log=log)
        said = standin.hear(process, orders, within_s=START_TIMEOUT_S)
        answer = json.loads(said) if said else {}
        if "port" not in answer:
            end(process)
            log.seek(0)
            reason = answer.get("error") or log.read()[-2000:].decode("utf-8", "replace").strip() or "no reason given"
            raise SandboxError(f"the sandbox did not start: {reason}")
    if folder is not None and process.stdin is not None:
        process.stdin.close()
    _children.append(process)
    entry = registry.Entry(pid=process.pid, port=answer["port"], token=str(orders["token"]), build=registry.build())
    return entry, process


def end(process: subprocess.Popen[bytes]) -> None:
    """See a server to its end; what has ended is not looked after at exit."""
    standin.end(process)
    if process in _children:
        _children.remove(process)


@atexit.register
def _leave() -> None:
    for process in _children:
        if process.poll() is None:
            # Private ones end as their input closes; shared ones are meant to outlive us. Neither is a leak.
            process.returncode = 0
