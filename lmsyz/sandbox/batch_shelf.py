"""Batches and files on disk, under a clock that can be moved forward.

Each batch and each file is one JSON record, put in place as a whole once its content is there, so that a server that
is killed at any moment finds everything again that it had told of. Beside the record lie, by name: ``.bin`` a file's
content, ``.in`` a batch's own copy of its requests, ``.results`` what Anthropic's batch brought, ``.paid`` the rows
that it answered.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import tempfile
import time
import uuid
from collections import Counter
from dataclasses import asdict
from pathlib import Path
from typing import IO, Any

from lmsyz.sandbox.batches import Batch
from lmsyz.sandbox.wire import JsonObject

__all__ = ["Shelf", "opened_private"]


class Shelf:
    """All batches and files of a sandbox.

    Parameters
    ----------
    folder : Path or None
        Where they lie; None for a temporary folder of this process, made when it is needed.
    """

    def __init__(self, folder: Path | None = None) -> None:
        self._given = folder
        self._made: Path | None = None
        self._load()

    def _load(self) -> None:
        self.batches: dict[str, Batch] = {}
        self.files: dict[str, JsonObject] = {}
        self.n_looks: Counter[str] = Counter()
        self.offset_s = 0.0
        if self._given is None or not self._given.is_dir():
            return
        for stored in _records(self._given, "batch.json"):
            with contextlib.suppress(TypeError):  # of another version of this package
                batch = Batch.of(stored)
                self.batches[batch.id] = batch
        self.files = {stored["id"]: stored for stored in _records(self._given, "file.json") if "id" in stored}
        for stored in _records(self._given, "clock.json"):
            self.offset_s = float(stored["offset_s"])
        for path in self._given.glob("*.new"):
            path.unlink(missing_ok=True)

    @property
    def folder(self) -> Path:
        """Where all of it lies."""
        if self._made is None:
            if self._given is None:
                self._made = Path(tempfile.mkdtemp(prefix="lmsyz-sandbox-"))
            else:
                self._made = self._given
                self._made.mkdir(mode=0o700, parents=True, exist_ok=True)
        return self._made

    def now(self) -> float:
        """Return the batch clock's Unix time."""
        return time.time() + self.offset_s

    def advance(self, seconds: float) -> None:
        """Move the batch clock forward."""
        self.offset_s += seconds
        self._write("clock", "clock.json", {"offset_s": self.offset_s})

    def reset(self) -> None:
        """Forget all batches and files, and set the clock right."""
        if self._made is not None or self._given is not None:
            shutil.rmtree(self.folder, ignore_errors=True)
            self._made = None
        self._load()

    def close(self) -> None:
        """Remove what was only for this process."""
        if self._given is None and self._made is not None:
            shutil.rmtree(self._made, ignore_errors=True)
            self._made = None

    def new_path(self) -> Path:
        """Return a name for a file that is still being written."""
        return self.folder / f"{uuid.uuid4().hex}.new"

    # --- files ------------------------------------------------------------------------------------------------------

    def take_file(
        self, path: Path, filename: str, purpose: str, *, file_id: str = "", life_s: float | None = None
    ) -> JsonObject:
        """Move a written file to the shelf and return OpenAI's object of it."""
        file_id = file_id or f"file-sandbox{uuid.uuid4().hex[:20]}"
        created = int(self.now())
        found: JsonObject = {
            "id": file_id,
            "object": "file",
            "bytes": path.stat().st_size,
            "created_at": created,
            "expires_at": None if life_s is None else created + int(life_s),
            "filename": filename,
            "purpose": purpose,
            "status": "processed",
            "status_details": None,
        }
        path.replace(self.file_path(file_id))
        self._write(file_id, "file.json", found)
        self.files[file_id] = found
        return found

    def file(self, file_id: object) -> JsonObject | None:
        """Return OpenAI's object of a file, None for one that is unknown, deleted or past its time."""
        found = self.files.get(file_id) if isinstance(file_id, str) else None
        return found if found is not None and self._lives(found) else None

    def newest_files(self) -> list[JsonObject]:
        """Return the objects of all files, newest first."""
        found = [f for f in self.files.values() if self._lives(f)]
        return sorted(found, key=lambda f: f["created_at"])[::-1]  # of the same second, the last to come first

    def _lives(self, found: JsonObject) -> bool:
        expires = found.get("expires_at")
        return expires is None or self.now() < expires

    def file_path(self, file_id: str) -> Path:
        """Return where a file's content lies."""
        return self.folder / f"{file_id}.bin"

    def drop_file(self, file_id: str) -> None:
        """Delete a file."""
        self.files.pop(file_id, None)
        self._remove(file_id, "file.json", "bin")

    # --- batches ----------------------------------------------------------------------------------------------------

    def add(self, batch: Batch, requests: Path, *, keep: bool) -> None:
        """Keep a batch with its requests: a file that moves here, or with `keep` a file of which this is a copy."""
        if not keep:
            requests.replace(self.path(batch, "in"))
        else:
            try:
                os.link(requests, self.path(batch, "in"))
            except OSError:  # a file system without links
                shutil.copyfile(requests, self.path(batch, "in"))
        self.batches[batch.id] = batch
        self.save(batch)

    def save(self, batch: Batch) -> None:
        """Put a batch's record on disk, as a whole."""
        self._write(batch.id, "batch.json", asdict(batch))

    def path(self, batch: Batch, ending: str) -> Path:
        """Return where something of a batch's lies."""
        return self.folder / f"{batch.id}.{ending}"

    def drop(self, batch: Batch) -> None:
        """Delete a batch and all that came of it."""
        self.batches.pop(batch.id, None)
        self._remove(batch.id, "batch.json", "in", "results", "paid")

    def newest_first(self, *labels: str) -> list[Batch]:
        """Return the batches of some endpoints; of all where none is named."""
        found = [b for b in self.batches.values() if not labels or b.label in labels]
        return sorted(found, key=lambda b: (b.created, b.ordinal), reverse=True)

    def _write(self, name: str, ending: str, value: Any) -> None:
        new = self.new_path()
        with opened_private(new) as file:
            file.write(json.dumps(value).encode())
        new.replace(self.folder / f"{name}.{ending}")

    def _remove(self, name: str, *endings: str) -> None:
        for ending in endings:
            (self.folder / f"{name}.{ending}").unlink(missing_ok=True)


def _records(folder: Path, ending: str) -> list[JsonObject]:
    """Return the records of a kind that can be read."""
    found = []
    for path in sorted(folder.glob(f"*{ending}"), key=_written_at):
        with contextlib.suppress(OSError, ValueError):
            value = json.loads(path.read_bytes())
            if isinstance(value, dict):
                found.append(value)
    return found


def _written_at(path: Path) -> float:
    return path.stat().st_mtime


def opened_private(path: Path) -> IO[bytes]:
    """Open a file anew for writing, readable by its owner alone."""
    return open(path, "wb", opener=_private_opener)


def _private_opener(name: str, flags: int) -> int:
    return os.open(name, flags, 0o600)
