"""Where a running sandbox is found: one small file, readable by its owner alone, in a directory of the user's own."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from lmsyz.errors import SandboxError

__all__ = ["Entry", "build", "folder_of", "forget", "lock", "read", "write"]

VARIABLE = "LMSYZ_SANDBOX_DIR"
FILE = "sandbox.json"
LOCK = "sandbox.lock"
LOCK_PATIENCE_S = 45.0  # longer than a server may take to start


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """One running sandbox.

    Parameters
    ----------
    pid, port : int
        Its process, and where it listens.
    token : str
        What its control endpoints want.
    build : str
        Stands for the code it runs.
    """

    pid: int
    port: int
    token: str
    build: str

    def __repr__(self) -> str:
        return f"Entry(pid={self.pid}, port={self.port})"


@cache
def build() -> str:
    """Return a digest of the sandbox's own source, so that a server of other code is never taken for this one."""
    digest = hashlib.sha256()
    for path in sorted(Path(__file__).parent.glob("*.py")):
        digest.update(path.read_bytes())
    return digest.hexdigest()[:16]


def folder_of(state_dir: str | os.PathLike[str] | None) -> Path:
    """Return the directory of the user's sandbox, made if need be, closed to others.

    Raises
    ------
    SandboxError
        It cannot be made or written.
    """
    folder = Path(state_dir or os.environ.get(VARIABLE) or Path.home() / ".lmsyz" / "sandbox").expanduser()
    try:
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        folder.chmod(0o700)
    except OSError as error:
        raise SandboxError(
            f"the sandbox's directory {folder} cannot be used: {error}. Give state_dir= or set {VARIABLE}."
        ) from error
    return folder


def read(folder: Path) -> Entry | None:
    """Return what the file says, None where there is none or it says nothing of use."""
    try:
        entry = Entry(**json.loads((folder / FILE).read_text("utf-8")))
    except (OSError, ValueError, TypeError):
        return None
    fits = isinstance(entry.port, int) and isinstance(entry.pid, int) and isinstance(entry.token, str)
    return entry if fits else None


def write(folder: Path, entry: Entry) -> None:
    """Write the file, at once and readable by its owner alone."""
    draft = folder / f"{FILE}.{os.getpid()}"
    fd = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(fd, "w", encoding="utf-8") as file:
        json.dump(dataclasses.asdict(entry), file)
    os.replace(draft, folder / FILE)


def forget(folder: Path, entry: Entry) -> None:
    """Remove the file if it still speaks of this sandbox."""
    if read(folder) == entry:
        (folder / FILE).unlink(missing_ok=True)


@contextmanager
def lock(folder: Path) -> Iterator[None]:
    """Let one process at a time look for and start a sandbox; the lock of one that died is free."""
    from filelock import FileLock, Timeout

    held = FileLock(folder / LOCK, timeout=LOCK_PATIENCE_S, mode=0o600)
    try:
        held.acquire()
    except Timeout as error:
        raise SandboxError(f"another process is starting a sandbox in {folder}; try again in a moment") from error
    except (OSError, NotImplementedError) as error:  # the second is of a file system without locks
        raise SandboxError(
            f"the sandbox's directory {folder} cannot be locked: {error}. Give state_dir= or set {VARIABLE}."
        ) from error
    try:
        yield
    finally:
        held.release()
