"""Batches and their files: on disk, on a clock that can be moved forward, answered when somebody first looks.

A batch is one JSON file, written as a whole, so that a killed server finds it again. What state it is in follows from
its moments and the clock alone; nothing runs in the background. Once it has ended its requests are answered, by the
live endpoints' own code, into result files, in an order of their own.
"""

from __future__ import annotations

import json
import os
import random
import shutil
import tempfile
import threading
import time
import uuid
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from lmsyz.sandbox.faults import Draws, Faults
from lmsyz.sandbox.replies import reply_to
from lmsyz.sandbox.wire import CONTEXT_TOKENS, Api, ApiError, JsonObject

__all__ = ["Batch", "Shelf", "write_whole"]

DAY_S = 86_400.0
VALIDATING_SHARE, FINALIZING_SHARE = 0.1, 0.9  # of a batch's time
VERSION = {"anthropic-version": "2026-10-21"}


@dataclass(slots=True, kw_only=True)
class Batch:
    """One batch.

    Parameters
    ----------
    id : str
        Its name.
    label : str
        The endpoint that answers its requests: ``"chat"``, ``"responses"`` or ``"messages"``.
    input : str
        Name of the file of its requests, one ``{"custom_id", "body"}`` a line.
    n : int
        Requests.
    metadata : dict
        What it was created with.
    created : float
        Unix time by the batch clock.
    faults : dict
        The faults when it was created.
    failed : list of (str, str, int or None)
        Code, message and line of what is wrong with it as a whole.
    cancelled : float or None
        When it was told to stop.
    output, errors : str
        Names of the result files, once there are any.
    counts : dict
        Requests by how they ended: ``succeeded``, ``errored``, ``canceled``, ``expired``.
    paid : dict
        How often each text was answered.
    input_file_id : str
        OpenAI's id of the file that it was created from.
    """

    id: str
    label: str
    input: str
    n: int
    metadata: dict[str, str]
    created: float
    faults: dict[str, Any]
    failed: list[tuple[str, str, int | None]] = field(default_factory=list)
    cancelled: float | None = None
    output: str = ""
    errors: str = ""
    counts: dict[str, int] = field(default_factory=dict)
    paid: dict[str, int] = field(default_factory=dict)
    is_answered: bool = False
    input_file_id: str = ""

    @property
    def options(self) -> Faults:
        """The faults when it was created."""
        return Faults.of(None, self.faults)

    @property
    def ends(self) -> float:
        """When it ends, by the batch clock."""
        if self.failed:
            return self.created
        return self.cancelled if self.cancelled is not None else self.created + self.options.batch_s

    def state(self, now: float) -> str:
        """Return OpenAI's word for how far it is."""
        if self.failed:
            return "failed"
        if self.cancelled is not None:
            return "cancelled"
        if now >= self.ends:
            return "expired" if self.options.batch_expires_at is not None else "completed"
        done = (now - self.created) / max(self.options.batch_s, 1e-9)
        if done < VALIDATING_SHARE:
            return "validating"
        return "in_progress" if done < FINALIZING_SHARE else "finalizing"

    def has_ended(self, now: float) -> bool:
        """Whether nothing more will come of it."""
        return now >= self.ends

    @property
    def share_run(self) -> float:
        """The share of its requests that are run before it ends."""
        options = self.options
        if self.cancelled is not None:
            return min(max((self.cancelled - self.created) / max(options.batch_s, 1e-9), 0.0), 1.0)
        return 1.0 if options.batch_expires_at is None else options.batch_expires_at


class Shelf:
    """All batches and files of a sandbox.

    Parameters
    ----------
    folder : Path or None
        Where they lie; None for a temporary folder of this process.
    apis : iterable of Api
        The endpoints that answer.
    seed : callable
        Returns the sandbox's seed.
    """

    def __init__(self, folder: Path | None, apis: Iterable[Api]) -> None:
        self.folder = folder if folder is not None else Path(tempfile.mkdtemp(prefix="lmsyz-sandbox-"))
        self._is_private = folder is None
        self.apis = {api.label: api for api in apis}
        self._lock = threading.Lock()
        self._load()

    def _load(self) -> None:
        self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        self.batches: dict[str, Batch] = {}
        self.uploads: dict[str, JsonObject] = {}
        self.n_looks: Counter[str] = Counter()
        self.offset_s = 0.0
        for path in sorted(self.folder.glob("*.batch.json")):
            batch = Batch(**json.loads(path.read_bytes()))
            self.batches[batch.id] = batch
        for path in sorted(self.folder.glob("*.file.json")):
            upload = json.loads(path.read_bytes())
            self.uploads[upload["id"]] = upload
        clock = self.folder / "clock.json"
        if clock.exists():
            self.offset_s = float(json.loads(clock.read_bytes()))

    def now(self) -> float:
        """Return the batch clock's Unix time."""
        return time.time() + self.offset_s

    def advance(self, seconds: float) -> None:
        """Move the batch clock forward."""
        self.offset_s += seconds
        write_whole(self.folder / "clock.json", json.dumps(self.offset_s).encode())

    def reset(self) -> None:
        """Forget all batches and files, and set the clock right."""
        shutil.rmtree(self.folder, ignore_errors=True)
        self._load()

    def close(self) -> None:
        """Remove what was only for this process."""
        if self._is_private:
            shutil.rmtree(self.folder, ignore_errors=True)

    # --- files --------------------------------------------------------------------------------------------------

    def add_upload(self, content: bytes, filename: str, purpose: str, *, file_id: str = "") -> JsonObject:
        """Keep a file and return OpenAI's object of it."""
        file_id = file_id or f"file-sandbox{uuid.uuid4().hex[:20]}"
        upload: JsonObject = {
            "id": file_id,
            "object": "file",
            "bytes": len(content),
            "created_at": int(self.now()),
            "filename": filename,
            "purpose": purpose,
            "status": "processed",
        }
        write_whole(self.folder / f"{file_id}.bin", content)
        write_whole(self.folder / f"{file_id}.file.json", json.dumps(upload).encode())
        self.uploads[file_id] = upload
        return upload

    def content(self, file_id: str) -> bytes:
        """Return a file's bytes."""
        return (self.folder / f"{file_id}.bin").read_bytes()

    def drop(self, file_id: str) -> None:
        """Delete a file."""
        self.uploads.pop(file_id, None)
        for ending in ("file.json", "bin"):
            (self.folder / f"{file_id}.{ending}").unlink(missing_ok=True)

    # --- batches ------------------------------------------------------------------------------------------------

    def add(self, batch: Batch) -> None:
        """Keep a batch."""
        self.batches[batch.id] = batch
        self.save(batch)

    def save(self, batch: Batch) -> None:
        """Put a batch on disk, whole."""
        write_whole(self.folder / f"{batch.id}.batch.json", json.dumps(asdict(batch)).encode())

    def newest_first(self, *labels: str) -> list[Batch]:
        """Return the batches of some endpoints."""
        found = [b for b in self.batches.values() if b.label in labels]
        return sorted(found, key=lambda b: b.created, reverse=True)

    def requests(self, batch: Batch) -> Iterator[tuple[str, JsonObject]]:
        """Go through a batch's requests."""
        for line in self.content(batch.input).split(b"\n"):
            if line.strip():
                request = json.loads(line)
                yield request["custom_id"], request.get("body", request.get("params", {}))

    def paid(self, seed: int) -> Counter[str]:
        """Return how often each text was answered by a batch that has ended."""
        total: Counter[str] = Counter()
        for batch in list(self.batches.values()):
            if batch.has_ended(self.now()):
                self.answer(batch, seed)
                total.update(batch.paid)
        return total

    def answer(self, batch: Batch, seed: int) -> None:
        """Run an ended batch's requests, once; may take a while, so not on the event loop."""
        with self._lock:
            if batch.is_answered:
                return
            if not batch.failed:
                self._answer(batch, seed)
            batch.is_answered = True
            self.save(batch)

    def _answer(self, batch: Batch, seed: int) -> None:
        api, options = self.apis[batch.label], batch.options
        n_run = round(batch.n * batch.share_run)
        lines: dict[str, list[JsonObject]] = {"output": [], "error": []}
        counts: Counter[str] = Counter()
        paid: Counter[str] = Counter()
        for i, (custom_id, body) in enumerate(self.requests(batch)):
            if i < n_run:
                kind, line, texts = _run(api, options, seed, custom_id, body, i)
                paid.update(texts)
            else:
                kind, line = "canceled" if batch.cancelled is not None else "expired", None
            counts[kind] += 1
            where = "output" if kind == "succeeded" and not options.error_file_only else "error"
            lines[where].append(_line(batch, custom_id, kind, line, spoil=options.error_file_only))
        batch.counts, batch.paid = dict(counts), {} if options.error_file_only else dict(paid)
        for where, found in lines.items():
            if found:
                random.Random(f"{seed} {batch.id} {where}").shuffle(found)
                content = b"".join(json.dumps(line).encode() + b"\n" for line in found)
                name = self.add_upload(content, f"{batch.id}_{where}.jsonl", "batch_output")["id"]
                batch.output, batch.errors = (name, batch.errors) if where == "output" else (batch.output, name)


def _run(
    api: Api, options: Faults, seed: int, custom_id: str, body: JsonObject, i: int
) -> tuple[str, JsonObject | None, list[str]]:
    """Answer one request: how it ended, status and body, and the texts that it was paid for."""
    raw = json.dumps(body).encode()
    draws = Draws(seed, custom_id.encode() + raw, 0)
    try:
        if draws.falls("batch_errors", options.batch_errors):
            raise api.failure("server_error")
        ask = api.read(raw, VERSION)
        limit = options.context_tokens or CONTEXT_TOKENS
        if ask.input_tokens > limit:
            raise api.too_long(ask.input_tokens, limit)
        replied = reply_to(ask, options, draws, seed)
        reply = api.reply(ask, replied.outcome, draws)
    except ApiError as error:
        return "errored", {"status": error.status, "body": error.body, "alone": i % 2 == 1}, []
    if isinstance(reply.get("usage"), dict):
        reply["usage"]["service_tier"] = "batch"
    return "succeeded", {"status": 200, "body": reply}, _texts(ask.user)


def _texts(user: str) -> list[str]:
    try:
        rows = json.loads(user)
        return [r["input_text"] if isinstance(r["input_text"], str) else json.dumps(r["input_text"]) for r in rows]
    except (ValueError, TypeError, KeyError):
        return [user]


def _line(batch: Batch, custom_id: str, kind: str, found: JsonObject | None, *, spoil: bool) -> JsonObject:
    if batch.label == "messages":
        return {"custom_id": custom_id, "result": _result(kind, found)}
    line: JsonObject = {"id": f"batch_req_{uuid.uuid4().hex[:16]}", "custom_id": custom_id, "error": None}
    if spoil or found is None or found.get("alone"):
        code = {"expired": "batch_expired", "canceled": "batch_cancelled"}.get(kind, "server_error")
        return line | {"response": None, "error": {"code": code, "message": f"This request ended as {kind}."}}
    response = {"status_code": found["status"], "request_id": f"req_{custom_id[:12]}", "body": found["body"]}
    return line | {"response": response}


def _result(kind: str, found: JsonObject | None) -> JsonObject:
    if found is None:
        return {"type": kind}
    if kind == "errored":
        return {"type": "errored", "error": found["body"]}
    return {"type": "succeeded", "message": found["body"]}


def write_whole(path: Path, content: bytes) -> None:
    """Replace a file as a whole, readable by its owner alone."""
    new = path.with_name(f"{path.name}.{uuid.uuid4().hex[:8]}.new")
    with open(os.open(new, os.O_CREAT | os.O_WRONLY | os.O_TRUNC, 0o600), "wb") as file:
        file.write(content)
    new.replace(path)
