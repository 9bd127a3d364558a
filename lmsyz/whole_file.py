"""A file of the user's is written beside its place: whoever looks sees the old file or the whole new one."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

__all__ = ["whole_file"]


@contextmanager
def whole_file(path: Path) -> Iterator[Path]:
    """Give a path to write to within the block; what is there after it becomes the file, unless the block raises.

    Parameters
    ----------
    path : Path
        The file; one that is there is replaced.

    Yields
    ------
    Path
        Beside it, with its ending, by which pandas tells the kind.
    """
    part = path.with_name(f".{path.stem}-{os.getpid()}{path.suffix}")
    try:
        yield part
        os.replace(part, path)
    finally:
        with suppress(OSError):  # of a folder that is gone or read-only; the block's own error is told
            part.unlink(missing_ok=True)
