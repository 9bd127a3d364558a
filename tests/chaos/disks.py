"""Disks that fill up or cannot be written: a small one of the round's own where the system lets us mount it.

Without the right to mount, a full disk is a limit on the size of files (the kernel sets it itself, see `kernel`), which
SQLite meets as it meets a full disk; and a file that cannot be written is one without the right to, which means nothing
to root: then that hazard is left out.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

__all__ = ["can_mount", "read_only", "small_disk"]

SIZE = "6m"


def can_mount(folder: Path) -> bool:
    """Return whether this process may mount a disk of its own."""
    if not sys.platform.startswith("linux") or os.geteuid() != 0 or shutil.which("mount") is None:
        return False
    folder.mkdir(exist_ok=True)
    done = _run("mount", "-t", "tmpfs", "-o", "size=64k", "lmsyz-chaos", str(folder))
    if done:
        _run("umount", str(folder))
    return done


@contextmanager
def small_disk(folder: Path) -> Iterator[bool]:
    """Make the folder a small disk for a while; yields whether it is one."""
    folder.mkdir(exist_ok=True)
    mounted = can_mount(folder) and _run("mount", "-t", "tmpfs", "-o", f"size={SIZE}", "lmsyz-chaos", str(folder))
    try:
        yield mounted
    finally:
        if mounted and not _run("umount", str(folder)):
            _run("umount", "-l", str(folder))


@contextmanager
def read_only(folder: Path, *, mounted: bool) -> Iterator[bool]:
    """Let nobody write to the folder for a while; yields whether that could be done."""
    if mounted:
        done = _run("mount", "-o", "remount,ro", str(folder))
        try:
            yield done
        finally:
            _run("mount", "-o", f"remount,rw,size={SIZE}", str(folder))
        return
    if os.name != "posix" or os.geteuid() == 0:
        yield False
        return
    kept = {path: path.stat().st_mode for path in (*folder.glob("*.sqlite*"), folder)}
    try:
        for path, mode in kept.items():
            path.chmod(mode & ~0o222)
        yield True
    finally:
        for path, mode in kept.items():
            path.chmod(mode)


def _run(*command: str) -> bool:
    return subprocess.run(command, capture_output=True, check=False).returncode == 0
