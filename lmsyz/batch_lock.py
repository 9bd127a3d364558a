"""The lock of a batch job's folder: one writer at a time, whatever interrupts come; and what a bad disk is told as."""

from __future__ import annotations

import os
import queue
import threading
from contextlib import AbstractContextManager
from pathlib import Path

from lmsyz.batch_ledger import write_private
from lmsyz.errors import BatchError

__all__ = ["disk_error", "locked"]

LOCK = "job.lock"
LOCK_PATIENCE_S = 15.0
SLICE_S = 0.1


def locked(folder: Path, *, patience_s: float = LOCK_PATIENCE_S) -> AbstractContextManager[None]:
    """Hold a job's lock: one writer at a time. The lock of a process that died is free.

    Raises
    ------
    BatchError
        Another kernel holds it for too long, or the job's folder cannot be written or read.
    """
    return _Locked(folder, patience_s)


class _Locked:
    """A job's lock within a ``with``; given back also where an interrupt kept the block from ending as it should.

    A thread that asks for a lock which it has already cannot be inside the block any more: an interrupt came between
    the lock and the block, and a traceback that a notebook keeps would hold the lock for as long.
    """

    def __init__(self, folder: Path, patience_s: float) -> None:
        self._folder = folder
        self._key = (folder, threading.get_ident())
        self._keeper = _Keeper(folder, patience_s)

    def __enter__(self) -> None:
        from filelock import Timeout

        try:
            if (abandoned := _held.get(self._key)) is not None:
                abandoned.let_go()
            _held[self._key] = self._keeper
            self._keeper.take()
        except BaseException as error:
            self._let_go()
            if isinstance(error, Timeout):
                raise self._is_busy() from None
            if isinstance(error, OSError):
                raise disk_error(self._folder, error) from error
            if isinstance(error, NotImplementedError):  # filelock's word for a file system without locks
                raise self._has_no_locks(error) from error
            raise

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        self._let_go()
        if isinstance(error, OSError):
            raise disk_error(self._folder, error) from error

    def _let_go(self) -> None:
        self._keeper.let_go()
        _held.pop(self._key, None)

    def _is_busy(self) -> BatchError:
        owner = self._folder / f"{LOCK}.owner"
        who = owner.read_text() if owner.exists() else "unknown"
        return BatchError(
            f"another kernel (process {who}) is working on the batch job in {str(self._folder)!r}. Wait for it, or stop"
            " it; nothing was sent"
        )

    def _has_no_locks(self, error: NotImplementedError) -> BatchError:
        return BatchError(
            f"the folder of the batch job, {str(self._folder)!r}, cannot be locked: {error}. Give a batch_root_dir= on"
            " another disk; nothing was sent"
        )


class _Keeper:
    """Takes a job's lock, holds it and gives it back in a thread of its own.

    An interrupt comes to the main thread alone. There it could leave the lock half taken, and so for the kernel's life.
    """

    def __init__(self, folder: Path, patience_s: float) -> None:
        self._folder, self._patience_s = folder, patience_s
        # Queues, not events: an interrupt within an event's Python code could leave it locked, and the job with it.
        self._told: queue.SimpleQueue[BaseException | None] = queue.SimpleQueue()
        self._done: queue.SimpleQueue[None] = queue.SimpleQueue()
        self._gone = threading.Event()
        self._is_taken = False

    def take(self) -> None:
        """Take the lock, or raise what kept it from being taken."""
        threading.Thread(target=self._keep, name="lmsyz-job-lock", daemon=True).start()
        while True:
            try:
                error = self._told.get(timeout=SLICE_S)
                break
            except queue.Empty:
                continue
        if error is not None:
            raise error
        self._is_taken = True

    def let_go(self) -> None:
        """Give the lock back, or see that it is as soon as it is taken."""
        self._done.put(None)
        if self._is_taken:
            self._gone.wait(1.0)

    def _keep(self) -> None:
        from filelock import FileLock

        try:
            with FileLock(self._folder / LOCK, timeout=self._patience_s, mode=0o600):
                write_private(self._folder / f"{LOCK}.owner", str(os.getpid()).encode(), flush=False)
                self._told.put(None)
                self._done.get()
        except BaseException as error:  # noqa: BLE001 - raised where the lock is asked for
            self._told.put(error)
        finally:
            self._gone.set()


_held: dict[tuple[Path, int], _Keeper] = {}


def disk_error(folder: Path, error: OSError) -> BatchError:
    """Return what is said where a job's folder cannot be written or read."""
    return BatchError(
        f"the folder of the batch job, {str(folder)!r}, cannot be written or read: {error.strerror or error}. Make room"
        " there or see to its rights, then make the same call again: what was submitted stands in the job's ledger, and"
        " nothing is created twice"
    )
