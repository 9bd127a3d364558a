"""The files of a batch job: requests going out, results coming home, and whose rows they are. No pandas, no network.

In a job's folder, private to the user::

    batch_input/batch_1.jsonl (OpenAI) or requests.json (Anthropic)     exactly what is sent
    batch_input/batch_1.rows                                            whose rows each request holds
    batch_output/batch_result_<id>.jsonl, batch_error_<id>.txt (OpenAI) or results_<n>.jsonl (Anthropic)
    batch_output/failures_1.json                                        rows without an answer, and why
    frame.jsonl                                                         the rows of the frame, in their order

A request is known by its ``custom_id``, drawn from the job, what it asks, the part and its rows. Rows are joined by
it, never by position.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import IO, Any

from lmsyz.batch_ledger import Ledger, Part, flush_folder, write_private
from lmsyz.errors import BatchError
from lmsyz.images import IMAGE_FIELD, Image, Kept, image_of_reference, image_parts, places_in, rows_text
from lmsyz.providers.base import Form, Provider, dump_body, dump_content
from lmsyz.providers.batches import Batches, BatchLimits
from lmsyz.rows import TEXT_FIELD, Chunk, Rows, make_chunk
from lmsyz.task import Task

__all__ = [
    "Asked",
    "PartWriter",
    "read_failures",
    "read_index",
    "read_keys",
    "read_texts",
    "result_lines",
    "write_failures",
]

INPUT, OUTPUT = "batch_input", "batch_output"


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """One request of a part, as needed to hold a reply against it.

    Parameters
    ----------
    custom_id : str
        Its name on the wire.
    keys : tuple of bytes
        The key of each row's text, in the order sent.
    wire_ids : tuple of str
        The ids that the model was given.
    row_ids : tuple of tuple of str
        The user's ids that share each text.
    openings : tuple of str
        What each row opens with, where that is verified.
    body_at, body_n : int
        Where the body stands in the request file, in bytes.
    user_at, user_n : int
        Where the user message stands in the body, in characters.
    images : tuple of (int, int, str)
        Where the base64 of each image stands in the body, in bytes, and its reference; an image that the provider
        fetches has its address and no bytes.
    """

    custom_id: str
    keys: tuple[bytes, ...]
    wire_ids: tuple[str, ...]
    row_ids: tuple[tuple[str, ...], ...]
    openings: tuple[str, ...]
    body_at: int
    body_n: int
    user_at: int
    user_n: int
    images: tuple[tuple[int, int, str], ...] = ()

    def as_stored(self, sent: IO[bytes]) -> tuple[str, str]:
        """Return the body and the user message in it as the store keeps them, from the file that was sent."""
        sent.seek(self.body_at)
        body, at, n_left_out = b"", 0, 0
        for start, n, reference in self.images:
            if n:
                body += sent.read(start - at) + reference.encode()
                sent.seek(n, os.SEEK_CUR)
                at, n_left_out = start + n, n_left_out + n - len(reference)
        text = (body + sent.read(self.body_n - at)).decode("utf-8", "replace")
        return text, text[self.user_at : self.user_at + max(self.user_n - n_left_out, 0)]

    def image(self, number: object, path: Path) -> Image | None:
        """Return an image by its number in the request; its bytes stay in the file that was sent."""
        if not isinstance(number, int):
            return None
        at, n, reference = self.images[number - 1]
        return image_of_reference(reference, Kept(path=path, at=self.body_at + at, n=n))

    def chunk(self) -> Chunk:
        """Return the chunk as the engine knows it, its rows numbered from 0."""
        openings = self.openings or ("",) * len(self.keys)
        return Chunk(
            positions=tuple(range(len(self.keys))), wire_ids=self.wire_ids, openings=openings, user="", tokens=0
        )


class PartWriter:
    """Streams chunks into the request files of new parts, within a provider's limits.

    Parameters
    ----------
    ledger : Ledger
        The job; its parts are not changed.
    task, rows : Task, Rows
        What is asked, of what.
    twins : mapping
        All positions of a text that occurs more than once, by its key.
    provider, batches : Provider, Batches
        Build the bodies and the lines.
    form : Form
        How structured output is asked for.
    limits : BatchLimits
        Requests and bytes a part, at most.
    """

    def __init__(
        self,
        ledger: Ledger,
        *,
        task: Task,
        rows: Rows,
        twins: Mapping[bytes, Sequence[int]],
        provider: Provider,
        batches: Batches,
        form: Form,
        limits: BatchLimits,
    ) -> None:
        self._ledger, self._task, self._rows, self._twins = ledger, task, rows, twins
        self._provider, self._batches, self._form, self._limits = provider, batches, form, limits
        self._next = 1 + max((p.n for p in ledger.parts), default=0)

    def write(self, chunks: Iterable[tuple[int, ...]]) -> list[Part]:
        """Write all chunks into files and return the parts they make; a file that was begun before is begun anew."""
        parts: list[Part] = []
        writing: _Writing | None = None
        try:
            for positions in chunks:
                if writing is not None and not writing.has_room:
                    parts.append(writing.close())
                    writing = None
                if writing is None:
                    writing = self._begin(self._next + len(parts))
                if not self._add(writing, positions):
                    parts.append(writing.close())
                    writing = self._begin(self._next + len(parts))
                    if not self._add(writing, positions):
                        raise BatchError(
                            f"one request alone is over {self._limits.n_bytes:,} bytes; lower chunk_size or shorten it"
                        )
            if writing is not None:
                parts.append(writing.close())
        except BaseException:
            if writing is not None:
                writing.abandon()
            raise
        return parts

    def _begin(self, n: int) -> _Writing:
        part = Part(n=n, n_requests=0, n_rows=0, n_bytes=0, form=str(self._form))
        return _Writing(self._ledger, part, self._batches, self._limits)

    def _add(self, writing: _Writing, positions: tuple[int, ...]) -> bool:
        chunk = make_chunk(self._rows, positions)
        images = image_parts(chunk.images)
        body = self._provider.build(self._task, chunk.user, self._form, images)
        keys = tuple(self._rows.keys[p] for p in positions)
        custom_id = _custom_id(self._ledger, writing.part.n, keys)
        body_text = dump_body(body)
        line = self._batches.request_line(custom_id, body)
        user = dump_content(self._provider.content(chunk.user, images))
        about = {
            "id": custom_id,
            "keys": [k.hex() for k in keys],
            "wire": chunk.wire_ids,
            "rows": [self._row_ids(p) for p in positions],
            "open": chunk.openings if self._task.verify else [],
            "user": [max(body_text.find(user), 0), len(user) if user in body_text else 0],
        }
        body_bytes = body_text.encode()
        if images:
            about["images"] = list(places_in(body_bytes, images, chunk.images))
        return writing.add(line, body_bytes, about, n_rows=len(keys))

    def _row_ids(self, position: int) -> list[str]:
        if self._rows.ids is None:
            return []
        ids = self._rows.ids
        return [ids[p] for p in self._twins.get(self._rows.keys[position], (position,))]


class _Writing:
    """One part's two files while they are written."""

    def __init__(self, ledger: Ledger, part: Part, batches: Batches, limits: BatchLimits) -> None:
        self.part, self._limits = part, limits
        self._before, self._between, self._after = batches.envelope
        self._paths = (input_path(ledger, part), index_path(ledger, part))
        self._files: list[IO[bytes]] = []
        for path in self._paths:
            new = path.with_name(path.name + ".new")
            self._files.append(open(os.open(new, os.O_CREAT | os.O_TRUNC | os.O_WRONLY, 0o600), "wb"))  # noqa: SIM115
        self._at = self._files[0].write(self._before)

    @property
    def has_room(self) -> bool:
        return self.part.n_requests < self._limits.n_requests

    def add(self, line: bytes, body: bytes, about: dict[str, Any], *, n_rows: int) -> bool:
        """Write one request; False, and nothing written, where the file would become too large."""
        head = self._between if self.part.n_requests else b""
        if self._at + len(head) + len(line) + len(self._after) > self._limits.n_bytes:
            return False
        about["body"] = [self._at + len(head) + line.index(body), len(body)]
        self._at += self._files[0].write(head + line)
        self._files[1].write(json.dumps(about, ensure_ascii=False, separators=(",", ":")).encode() + b"\n")
        self.part.n_requests += 1
        self.part.n_rows += n_rows
        return True

    def close(self) -> Part:
        self.part.n_bytes = self._at + self._files[0].write(self._after)
        for file, path in zip(self._files, self._paths, strict=True):
            file.flush()
            os.fsync(file.fileno())
            file.close()
            path.with_name(path.name + ".new").replace(path)
        flush_folder(self._paths[0].parent)
        return self.part

    def abandon(self) -> None:
        for file, path in zip(self._files, self._paths, strict=True):
            file.close()
            path.with_name(path.name + ".new").unlink(missing_ok=True)


def input_path(ledger: Ledger, part: Part) -> Path:
    """Return the file that is sent for a part, named as the seed package names it."""
    name = f"requests{_suffix(part)}.json" if ledger.record.backend == "anthropic" else f"batch_{part.n}.jsonl"
    return ledger.path(INPUT, name)


def index_path(ledger: Ledger, part: Part) -> Path:
    """Return the file that tells whose rows a part's requests hold."""
    # Jobs of before this name ended in .jsonl, where a glob for requests found them.
    old = ledger.path(INPUT, f"batch_{part.n}.rows.jsonl")
    return old if old.exists() else ledger.path(INPUT, f"batch_{part.n}.rows")


def result_path(ledger: Ledger, part: Part, kind: str) -> Path:
    """Return where a part's results or errors are kept as they came."""
    if ledger.record.backend == "anthropic":
        return ledger.path(OUTPUT, f"results{_suffix(part)}.jsonl")
    remote = re.sub(r"[^\w.\-]", "_", part.remote)  # some servers' ids have a slash, which no file name has
    name = f"batch_error_{remote}.txt" if kind == "error" else f"batch_result_{remote}.jsonl"
    return ledger.path(OUTPUT, name)


def _suffix(part: Part) -> str:
    return "" if part.n == 1 else f"_{part.n}"  # the seed package's jobs have one part, without a number


def read_index(ledger: Ledger, part: Part) -> Iterator[Asked]:
    """Go through the requests of a part."""
    for about in _index_lines(ledger, part):
        yield Asked(
            custom_id=about["id"],
            keys=tuple(bytes.fromhex(k) for k in about["keys"]),
            wire_ids=tuple(about["wire"]),
            row_ids=tuple(tuple(r) for r in about["rows"]),
            openings=tuple(about["open"]),
            body_at=about["body"][0],
            body_n=about["body"][1],
            user_at=about["user"][0],
            user_n=about["user"][1],
            images=tuple((at, n, reference) for at, n, reference in about.get("images", ())),
        )


def read_keys(ledger: Ledger, part: Part) -> Iterator[bytes]:
    """Go through the keys of a part's texts; where no more is wanted, half the time of :func:`read_index`."""
    for about in _index_lines(ledger, part):
        yield from map(bytes.fromhex, about["keys"])


def _index_lines(ledger: Ledger, part: Part) -> Iterator[dict[str, Any]]:
    with index_path(ledger, part).open("rb") as file:
        yield from map(json.loads, file)


def read_texts(ledger: Ledger, rows: Rows, wanted: Collection[bytes]) -> Rows:
    """Return rows with the texts and images of some, as they were sent; for a kernel that has no frame.

    An image is taken from the requests as well: its file may have been changed or deleted since.

    Parameters
    ----------
    ledger : Ledger
        The job.
    rows : Rows
        The rows, without texts.
    wanted : collection of bytes
        Keys of the texts to read.

    Returns
    -------
    Rows
    """
    found: dict[bytes, str | None] = {}
    images: dict[bytes, Image | None] = {}
    for part in ledger.parts:
        with input_path(ledger, part).open("rb") as sent:
            for asked in read_index(ledger, part):
                if not any(k in wanted and k not in found for k in asked.keys):
                    continue
                _, user = asked.as_stored(sent)
                for key, row in zip(asked.keys, json.loads(rows_text(json.loads(user)) or ""), strict=True):
                    found[key] = _text_as_sent(row[TEXT_FIELD])
                    images[key] = asked.image(row.get(IMAGE_FIELD), input_path(ledger, part))
    found = {key: text for key, text in found.items() if key in wanted}
    if rows.images is not None or any(images.values()):
        owned = zip(rows.keys, rows.images or [None] * len(rows), strict=True)
        rows = replace(rows, images=[images.get(key, own) for key, own in owned])
    return replace(rows, texts=[found.get(k, text) for k, text in zip(rows.keys, rows.texts, strict=True)])


def _text_as_sent(value: object) -> str | None:
    if value is None or isinstance(value, str):
        return value
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"))


def result_lines(path: Path) -> Iterator[bytes]:
    """Go through the lines of a result file; only a newline ends one, since texts hold other line separators."""
    with path.open("rb") as file:
        for line in file:
            if stripped := line.strip():
                yield stripped


def write_failures(ledger: Ledger, part: Part, failures: Mapping[bytes, str]) -> None:
    """Write down which rows of a part have no answer, and why."""
    content = json.dumps({k.hex(): reason for k, reason in failures.items()}, ensure_ascii=False, indent=0)
    write_private(ledger.path(OUTPUT, f"failures_{part.n}.json"), content.encode("utf-8", "replace"))


def read_failures(ledger: Ledger) -> dict[bytes, str]:
    """Return why rows have no answer, the latest part's word last."""
    found: dict[bytes, str] = {}
    for part in ledger.parts:
        path = ledger.path(OUTPUT, f"failures_{part.n}.json")
        if path.exists():
            found.update({bytes.fromhex(k): str(r) for k, r in json.loads(path.read_bytes()).items()})
    return found


def _custom_id(ledger: Ledger, n: int, keys: Sequence[bytes]) -> str:
    """Return 32 hex digits: within what both providers take, and the same whenever the part is built anew.

    No other job has them, were it of the same name and of the same rows: by them a batch is told to be ours.
    """
    job = f"{ledger.job_id}\0{ledger.record.fingerprint}\0{ledger.created!r}\0{n}\0"
    return hashlib.sha256(job.encode() + b"".join(keys)).hexdigest()[:32]
