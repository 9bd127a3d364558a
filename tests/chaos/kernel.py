"""What a user's kernel does: the steps it was ordered to run, and a journal of what came of each.

Runs in a process of its own, forked from `nursery`, which may be interrupted or killed at any moment. The journal is
written line by line, each with one call, so that a kill leaves whole lines. Before a call the kernel notes which of its
texts the store holds already: those must not be asked.
"""

from __future__ import annotations

import contextlib
import faulthandler
import hashlib
import json
import logging
import os
import resource
import signal
import sqlite3
import threading
import time
import traceback
from collections.abc import Mapping
from pathlib import Path
from types import FrameType
from typing import Any

__all__ = ["CACHE", "JOBS", "clocks", "digest_of", "live_kernel", "price_of", "prompt_of", "set_clocks_up"]

CACHE, JOBS, FILLER = "answers.sqlite", "jobs", "filler.bin"
BUSY_S = 1.0  # how long this kernel waits for a locked file, in place of 30 s
GRACE_S = 1.5
SCHEMA = {"digest": str}

clocks = {"time": 0.0, "monotonic": 0.0}
_real_time, _real_monotonic = time.time, time.monotonic


def set_clocks_up() -> None:
    """Put this process's clocks under our hand; before anything is imported that keeps them."""
    time.time = lambda: _real_time() + clocks["time"]
    time.monotonic = lambda: _real_monotonic() + clocks["monotonic"]


def digest_of(text: str) -> str:
    """Return what the right answer to a text is."""
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def price_of(tokens: tuple[int, int], *, is_batch: bool) -> float:
    """Return what an exchange costs here: a made-up price list, since a sandbox has none."""
    return (tokens[0] + 2 * tokens[1]) * (0.5 if is_batch else 1.0)


def prompt_of(task: str) -> str:
    """Return the prompt of a task, whose name stands in every request of it."""
    return f"Give the digest of each text. [task {task}]"


def live_kernel(orders: Mapping[str, Any]) -> None:
    """Run the ordered steps, as a notebook runs its cells."""
    signal.signal(signal.SIGINT, _interrupt)
    faulthandler.register(signal.SIGUSR1)  # where it hangs, should it hang
    os.environ["LMSYZ_SANDBOX_URL"] = orders["url"]
    kernel = _Kernel(orders)
    os.chdir(orders["folder"])
    if orders["jumps"]:
        threading.Thread(target=_jump, args=(orders["jumps"],), daemon=True).start()
    kernel.write(what="begin")
    try:
        for n, step in enumerate(orders["steps"]):
            if not kernel.run(n, step) and orders["ends_when_interrupted"]:
                break
        kernel.write(what="end")
    except KeyboardInterrupt:  # between two cells
        kernel.write(what="interrupted")


def _interrupt(number: int, frame: FrameType | None) -> None:
    """Raise KeyboardInterrupt, as Python does, except where Python itself would then keep a lock for good.

    An interrupt between taking a lock and the block that gives it back leaves it taken: CPython 3.11 does so in
    `logging` and in `threading`'s conditions, and every thread that logs then waits for ever. That is no doing of ours,
    and was met once in some hundred interrupts.
    """
    inner = frame
    while inner is not None and inner.f_code.co_filename != logging.__file__:
        inner = inner.f_back
    if inner is None and (frame is None or frame.f_code.co_name not in ("__enter__", "__exit__")):
        raise KeyboardInterrupt
    threading.Timer(0.005, os.kill, (os.getpid(), number)).start()


def _jump(jumps: list[list[Any]]) -> None:
    for after_s, name, seconds in jumps:
        threading.Event().wait(after_s)  # whose clock is the real one
        clocks[name] += seconds


class _Kernel:
    def __init__(self, orders: Mapping[str, Any]) -> None:
        self.orders = orders
        self._journal = os.open(orders["journal"], os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        self._limits = resource.getrlimit(resource.RLIMIT_FSIZE)

    def write(self, **entry: Any) -> None:
        line = json.dumps({"at": _real_monotonic(), **entry}).encode() + b"\n"
        limits = resource.getrlimit(resource.RLIMIT_FSIZE)
        resource.setrlimit(resource.RLIMIT_FSIZE, self._limits)  # the journal is on no disk that is full
        os.write(self._journal, line)
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)

    def run(self, n: int, step: Mapping[str, Any]) -> bool:
        """Run one step; whether the next one may follow."""
        call = f"{self.orders['name']}-{n}"
        task = step.get("task", "")
        try:
            stored = self._stored(task) if task else []
            self.write(what="call", call=call, do=step["do"], task=task, stored=stored)
            told = getattr(self, f"_{step['do']}")(call, **{k: v for k, v in step.items() if k != "do"}) or {}
            self.write(what="done", call=call, **told)
        except KeyboardInterrupt as error:
            self.write(what="error", call=call, kind=type(error).__name__, is_ours=True, words=str(error)[:300])
            return False
        except Exception as error:  # noqa: BLE001 - journalled, and judged by the audit
            from lmsyz.errors import LmsyzError

            words = f"{error} {getattr(error, '__notes__', '')}"[:600]
            is_ours = isinstance(error, (LmsyzError, TimeoutError))
            trace = "" if is_ours else traceback.format_exc()
            self.write(what="error", call=call, kind=type(error).__name__, is_ours=is_ours, words=words, trace=trace)
        return True

    def _stored(self, task: str) -> list[str]:
        """Return the keys that the store answers for a task, read past the package."""
        if not Path(CACHE).exists():
            return []
        sql = "SELECT DISTINCT hex(a.key) FROM answers a JOIN tasks t ON t.id = a.task_id WHERE t.prompt = ?"
        try:
            db = sqlite3.connect(f"file:{CACHE}?mode=ro", uri=True, timeout=20)
            try:
                return [row[0] for row in db.execute(sql, (prompt_of(task),))]
            finally:
                db.close()
        except sqlite3.OperationalError:  # a file without tables yet, or one that cannot be read now: nothing to hold
            return []

    # --- the steps ----------------------------------------------------------------------------------------------

    def _about(self, call: str, **more: Any) -> dict[str, Any]:
        about = {"schema": SCHEMA, "api_key": call, "progress": False, "cache_path": CACHE}
        return about | {"verify_rows": self.orders["verify"], "chunk_size": self.orders["chunk_size"]} | more

    def _extract(self, call: str, *, task: str, backend: str, texts: list[str], background_s: float = 0.0) -> Any:
        import pandas as pd

        import lmsyz

        df = pd.DataFrame({"text": texts})
        about = self._about(call, backend=backend, max_workers=self.orders["n_workers"])
        if background_s:
            run = df.ie.extract(prompt_of(task), background=True, **about)
            time.sleep(background_s)
            run.pause()
            time.sleep(background_s / 4)
            run.resume()
            time.sleep(background_s)
            run.stop()
            out = run.result(timeout=60)
        else:
            out = df.ie.extract(prompt_of(task), **about)
            run = lmsyz.last_run()
        counts = run.counts
        bill = {"run_id": run.run_id, "tokens": [counts.input_tokens, counts.output_tokens]}
        return {"rows": _rows_of(texts, out), "bill": bill}

    def _batch(self, call: str, *, task: str, backend: str, texts: list[str], job: str, part_size: int) -> None:
        import pandas as pd

        about = self._about(call, backend=backend, job_id=job, batch_root_dir=JOBS, max_requests_per_batch=part_size)
        pd.DataFrame({"text": texts}).ie.batch(prompt_of(task), **about)

    def _job(self, call: str, job: str) -> Any:
        import lmsyz

        return lmsyz.BatchJob.load(job, batch_root_dir=JOBS, api_key=call)

    def _wait(self, call: str, *, task: str, job: str, timeout_s: float) -> Any:
        status = self._job(call, job).wait(interval=0.05, timeout=timeout_s)
        return {"state": status.state}

    def _retry(self, call: str, *, task: str, job: str) -> None:
        self._job(call, job).retry()

    def _cancel(self, call: str, *, task: str, job: str) -> None:
        self._job(call, job).cancel()

    def _give_up(self, call: str, *, task: str, job: str) -> None:
        """Wait no longer for batches that never end."""
        held = self._job(call, job)
        for part in held.status().parts:
            if part.state in ("submitted", "unsure"):
                held.give_up(part.n)

    def _finish_live(self, call: str, *, task: str, job: str, texts: list[str]) -> Any:
        return {"rows": _rows_of(texts, self._job(call, job).finish_live())}

    def _results(self, call: str, *, task: str, job: str, texts: list[str]) -> Any:
        return {"rows": _rows_of(texts, self._job(call, job).results())}

    def _sleep(self, call: str, *, seconds: float) -> None:
        time.sleep(seconds)

    def _hold(self, call: str, *, seconds: float) -> None:
        """Lock the store against everybody else for a while."""
        db = sqlite3.connect(CACHE, timeout=20, isolation_level=None)
        with contextlib.suppress(sqlite3.OperationalError):  # as where the disk is read-only: then nothing is locked
            db.execute("BEGIN EXCLUSIVE")
            time.sleep(seconds)
            db.execute("ROLLBACK")
        db.close()

    def _fill(self, call: str, *, room: int) -> None:
        """Leave so many bytes on the disk, or let no file grow by more than that where the disk is everybody's."""
        if not self.orders["own_disk"]:
            largest = max((p.stat().st_size for p in Path(".").glob(f"{CACHE}*")), default=0)
            resource.setrlimit(resource.RLIMIT_FSIZE, (largest + room, self._limits[1]))
            return
        disk = os.statvfs(".")
        with contextlib.suppress(OSError), open(FILLER, "wb") as file:  # another kernel writes too: then it is full
            file.write(bytes(max(disk.f_bavail * disk.f_frsize - room, 0)))

    def _make_room(self, call: str) -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, self._limits)
        Path(FILLER).unlink(missing_ok=True)


def _rows_of(texts: list[str], out: Any) -> list[list[Any]]:
    """Return text, answer and reason of each row; a frame of other rows than were asked is told as a wrong one."""
    if list(out.index) != list(range(len(texts))):
        return [["", None, f"the frame has {len(out)} rows for {len(texts)}"]]
    digests = out["digest"] if "digest" in out else [None] * len(texts)
    return [list(row) for row in zip(texts, _plain(digests), _plain(out["ie_error"]), strict=True)]


def _plain(values: Any) -> list[Any]:
    return [None if str(v) in ("<NA>", "nan", "None") else str(v) for v in values]
