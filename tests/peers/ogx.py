"""OGX, which serves both batch APIs and asks another server for every answer, in an environment of its own.

It needs Python 3.12, which lmsyz does not, so it is no dependency of anything here: the program that ``LMSYZ_OGX``
names is taken, or one is installed for this session alone.
"""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

RELEASE = "ogx==1.5.0"
LINE = f"python3.12 -m venv ogx && ogx/bin/pip install {RELEASE}, then set LMSYZ_OGX=ogx/bin/ogx"
START_S = 90.0
FITS = "import sys; assert (3, 12) <= sys.version_info < (3, 14); print(sys.executable)"
STORES = ("inference", "conversations", "prompts", "connectors")


def python_for_ogx() -> str | None:
    """Find a Python 3.12 or 3.13: this one, one on the PATH, or one that pyenv keeps beside the active one."""
    beside = Path(os.environ.get("PYENV_ROOT", Path.home() / ".pyenv"), "versions").glob("3.1[23].*/bin/python3")
    for name in (sys.executable, "python3.12", "python3", "python3.13", *map(str, sorted(beside))):
        # A name on the PATH is no proof: version managers put shims there for versions that are not active.
        with contextlib.suppress(OSError):
            found = subprocess.run([name, "-c", FITS], capture_output=True, text=True, check=False)
            if found.returncode == 0:
                return found.stdout.strip()
    return None


@contextlib.contextmanager
def installed(python: str, folder: Path) -> Iterator[Path]:
    """Install OGX into a folder, and remove it in the end: it is a quarter of a gigabyte."""
    venv = folder / "venv"
    try:
        for line in ([python, "-m", "venv", str(venv)], [str(venv / "bin" / "pip"), "install", "-q", RELEASE]):
            done = subprocess.run(line, capture_output=True, text=True, check=False)
            assert done.returncode == 0, f"{' '.join(line)}: {done.stderr[-2000:]}"
        yield venv / "bin" / "ogx"
    finally:
        shutil.rmtree(venv, ignore_errors=True)


class Ogx:
    """An OGX server whose answers come from an OpenAI-like server; what it keeps lies in a folder."""

    def __init__(self, program: Path, folder: Path, upstream: str) -> None:
        self._program, self._folder = program, folder
        self._process: subprocess.Popen[bytes] | None = None
        self.port = 0
        self._config = folder / "ogx.json"
        self._config.write_text(json.dumps(_config(folder, upstream)))

    def base_url(self, backend: str) -> str:
        """What a client of a provider takes as its base URL."""
        return f"http://127.0.0.1:{self.port}" + ("/v1" if backend == "openai" else "")

    def start(self) -> None:
        """Start it where it was, or on a free port at first, and wait until it answers."""
        for port in [self.port] if self.port else [_free_port() for _ in range(3)]:
            self.port = port
            if self._starts():
                return
        raise AssertionError(f"OGX did not start: {(self._folder / 'log').read_text(errors='replace')[-3000:]}")

    def kill(self) -> None:
        """End it at once, as a crash would; what it had on disk stays."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()

    def _starts(self) -> bool:
        # Its console prints errors in colours and frames, for seconds, in which it answers nobody.
        told = {"OGX_LOG_FORMAT": "json", "OGX_DISABLE_VERSION_CHECK": "1", "NO_PROXY": "127.0.0.1"}
        kept = {k: v for k, v in os.environ.items() if not k.startswith(("OPENAI_", "ANTHROPIC_", "OGX_", "LMSYZ_"))}
        with (self._folder / "log").open("ab") as log:
            self._process = subprocess.Popen(
                [str(self._program), "run", "--insecure", "--port", str(self.port), str(self._config)],
                stdout=log,
                stderr=subprocess.STDOUT,
                stdin=subprocess.DEVNULL,
                env=kept | told | {"HOME": str(self._folder)},
            )
        until = time.monotonic() + START_S
        while time.monotonic() < until and self._process.poll() is None:
            if self._answers():
                return True
            time.sleep(0.1)
        self.kill()
        return False

    def _answers(self) -> bool:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=5)
        try:
            connection.request("GET", "/v1/models")
            with connection.getresponse() as response:
                return b'"up/' in response.read()
        except (OSError, http.client.HTTPException):
            return False
        finally:
            connection.close()


def _config(folder: Path, upstream: str) -> dict[str, Any]:
    """One request at a time, so that a batch can be stopped between two of them."""
    sql, kv = {"backend": "sql"}, {"backend": "kv"}
    one = {"max_concurrent_requests_per_batch": 1}
    files = {"storage_dir": str(folder / "files"), "metadata_store": sql | {"table_name": "files"}}
    return {
        "version": 2,
        "distro_name": "peer",
        "apis": ["batches", "files", "inference", "messages"],
        "providers": {
            "inference": [_provider("up", "remote::openai", {"api_key": "no-key", "base_url": upstream})],
            "files": [_provider("files", "inline::localfs", files)],
            "batches": [_provider("batches", "inline::reference", one | {"sqlstore": sql | {"table_name": "batches"}})],
            "messages": [_provider("messages", "inline::builtin", one | {"kvstore": kv | {"namespace": "batches"}})],
        },
        "storage": {
            "backends": {
                "kv": {"type": "kv_sqlite", "db_path": str(folder / "kv.db")},
                "sql": {"type": "sql_sqlite", "db_path": str(folder / "sql.db")},
            },
            "stores": {"metadata": kv | {"namespace": "registry"}} | {s: sql | {"table_name": s} for s in STORES},
        },
        "registered_resources": {"models": []},
        "server": {"host": "127.0.0.1"},
    }


def _provider(name: str, kind: str, config: dict[str, Any]) -> dict[str, Any]:
    return {"provider_id": name, "provider_type": kind, "config": config}


def _free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return int(found.getsockname()[1])
