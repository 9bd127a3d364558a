"""A process that has everything imported and forks kernels on demand: two seconds of imports are paid once.

It reads the path of an order a line, and says on its output ``born <name> <pid>`` and ``died <name> <status>``. It ends
with its standard input.
"""

from __future__ import annotations

import contextlib
import json
import os
import select
import signal
import subprocess
import sys
import threading
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

__all__ = ["Kernel", "Nursery"]

LOOK_S = 0.02
PATIENCE_S = 30.0


@dataclass(slots=True, kw_only=True)
class Kernel:
    """A kernel as its parent sees it."""

    name: str
    orders: dict[str, Any]
    pid: int = 0
    born: threading.Event = field(default_factory=threading.Event)
    died: threading.Event = field(default_factory=threading.Event)
    died_at: float = 0.0
    status: int = 0
    signals: list[int] = field(default_factory=list)

    def signal(self, number: int) -> bool:
        """Send a signal if it lives; whether it did."""
        if not self.born.wait(PATIENCE_S) or self.died.is_set():
            return False
        try:
            os.kill(self.pid, number)
        except ProcessLookupError:
            return False
        self.signals.append(number)
        return True


class Nursery:
    """Starts kernels; a context manager."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._kernels: dict[str, Kernel] = {}
        root = Path(__file__).resolve().parents[2]
        quiet = {"OPENBLAS_NUM_THREADS": "1", "LMSYZ_PROGRESS": "false", "NO_PROXY": "127.0.0.1"}
        kept = {k: v for k, v in os.environ.items() if not k.startswith(("OPENAI_", "ANTHROPIC_", "LMSYZ_"))}
        self._log = (folder / "kernels.log").open("ab")
        self._process = subprocess.Popen(
            [sys.executable, str(Path(__file__).resolve())],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._log,
            text=True,
            cwd=folder,
            start_new_session=True,  # an interrupt from a keyboard is for the soak, not for its kernels
            env={**kept, **quiet, "PYTHONPATH": os.pathsep.join([str(root), os.environ.get("PYTHONPATH", "")])},
        )
        assert self._process.stdout is not None
        if self._process.stdout.readline() != "ready\n":
            raise RuntimeError(f"no kernels can be started: {(folder / 'kernels.log').read_text()[-2000:]}")
        self._hearing = threading.Thread(target=self._hear, daemon=True)
        self._hearing.start()

    def start(self, orders: dict[str, Any]) -> Kernel:
        """Start a kernel with these orders."""
        kernel = self._kernels[orders["name"]] = Kernel(name=orders["name"], orders=orders)
        path = self._folder / f"{orders['name']}.orders.json"
        path.write_text(json.dumps(orders))
        assert self._process.stdin is not None
        self._process.stdin.write(f"{path}\n")
        self._process.stdin.flush()
        return kernel

    def close(self) -> None:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.close()
        for kernel in self._kernels.values():
            kernel.signal(signal.SIGKILL)
        self._process.wait(timeout=PATIENCE_S)
        self._hearing.join(timeout=PATIENCE_S)
        self._process.stdout.close()
        self._log.close()

    def _hear(self) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            word, name, number = line.split()
            kernel = self._kernels[name]
            if word == "born":
                kernel.pid = int(number)
                kernel.born.set()
            else:
                kernel.status, kernel.died_at = int(number), time.monotonic()
                kernel.died.set()

    def __enter__(self) -> Nursery:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()


def _prepare() -> None:
    """Import what a kernel needs, with clocks that can be set and prices that can be checked."""
    kernel.set_clocks_up()
    sys.modules["rfc3987_syntax"] = None  # type: ignore[assignment]
    import anthropic  # noqa: F401
    import openai  # noqa: F401
    import pandas as pd

    import lmsyz  # noqa: F401
    from lmsyz import batch, batch_job, batch_wait, cache_file, frames, pricing, run  # noqa: F401
    from lmsyz.retry import RetryPolicy

    batch.GRACE_S, batch_wait.SHORTEST_POLL_S = kernel.GRACE_S, 0.05
    assert cache_file.CacheFile.__init__.__kwdefaults__ is not None
    cache_file.CacheFile.__init__.__kwdefaults__["busy_timeout_s"] = kernel.BUSY_S
    # As often as ever, and sooner: a soak has no time for half a minute between two tries.
    RetryPolicy.__init__.__kwdefaults__.update(base_s=0.05, max_wait_s=1.0)  # type: ignore[union-attr]
    pricing._cost = _made_up_cost  # type: ignore[assignment]
    pd.DataFrame({"text": [""]}).ie  # noqa: B018


def _made_up_cost(endpoint: str, model: str, usage: Any) -> float | None:
    if usage.input_tokens is None or usage.output_tokens is None:
        return None
    return kernel.price_of((usage.input_tokens, usage.output_tokens), is_batch=usage.service_tier == "batch")


def _bear(path: str) -> int:
    pid = os.fork()
    if pid:
        return pid
    status = 1
    try:
        null = os.open(os.devnull, os.O_RDWR)
        os.dup2(null, 0)
        os.dup2(2, 1)
        kernel.live_kernel(json.loads(Path(path).read_text()))
        status = 0
    except BaseException:  # noqa: BLE001 - told, and the process ends as a script ends
        import traceback

        traceback.print_exc()
    finally:
        sys.stderr.flush()
        os._exit(status)


def _tell(*words: object) -> None:
    os.write(1, f"{' '.join(map(str, words))}\n".encode())


def main() -> None:
    """Serve orders until the input ends and all kernels have."""
    _prepare()
    _tell("ready")
    alive: dict[int, str] = {}
    waiting, is_open = b"", True
    while is_open or alive:
        if is_open and select.select([0], [], [], LOOK_S)[0]:
            more = os.read(0, 65536)
            is_open = bool(more)
            *lines, waiting = (waiting + more).split(b"\n")
            for line in lines:
                name = Path(line.decode()).name.removesuffix(".orders.json")
                pid = _bear(line.decode())
                alive[pid] = name
                _tell("born", name, pid)
        elif not is_open:
            time.sleep(LOOK_S)
        with contextlib.suppress(ChildProcessError):
            while (found := os.waitpid(-1, os.WNOHANG))[0]:
                _tell("died", alive.pop(found[0]), os.waitstatus_to_exitcode(found[1]))


if __name__ == "__main__":
    import kernel

    main()
