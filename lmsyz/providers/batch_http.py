"""The calls of a batch API: small ones in JSON, and files of any size in flat memory.

A file is sent from its handle and fetched into ``<name>.part``, which becomes the file once all of it is there. What a
broken download brought is gone on from where the server honours a ``Range`` and its bytes join ours; otherwise it is
begun again.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import IO, Any

from lmsyz.errors import ProviderError, UnavailableError
from lmsyz.providers.base import Call, JsonObject, dicts_in
from lmsyz.providers.batches import RemoteBatch, batch_error
from lmsyz.providers.faults import Fault, loads_reply, no_reply
from lmsyz.providers.sending import (
    QUIET_S,
    STAY_HERE,
    allow_only,
    deadline_of,
    errors_made_ours,
    file_deadline,
    send_once,
)

__all__ = ["BatchHttp", "batches_since", "ended_or_raise", "id_of"]

# So many bytes of a part are fetched anew, to see that they and what follows are of one file.
OVERLAP = 4096
TAIL = 64 * 1024
# An id becomes part of addresses and of file names.
ID = re.compile(r"[!-~]{1,300}")
CONTENT_RANGE = re.compile(r"bytes (\d+)-\d+/(\d+|\*)")


class _OtherFile(Exception):
    """What is here of a file does not fit to what the server has."""


@dataclass(frozen=True, slots=True, kw_only=True)
class BatchHttp:
    """A provider's SDK client, and how its errors become ours.

    Parameters
    ----------
    client : SDK client or None
        With its own retries off.
    provider : str
        For messages.
    error_of : callable
        The provider's error map of live calls.
    """

    client: Any
    provider: str
    error_of: Callable[[Fault], ProviderError]

    def ask(
        self,
        method: str,
        path: str,
        call: Call,
        *,
        query: Mapping[str, Any] | None = None,
        body: JsonObject | None = None,
        sought: str = "",
        creates: bool = False,
    ) -> JsonObject:
        """Make a small call and return the JSON object that it answers."""
        arguments: JsonObject = {} if method == "delete" else {"stream": True}
        if body is not None:
            arguments["body"] = body
        error_of = self._error_of(sought, creates)
        call = replace(call, query={**call.query, **(query or {})})
        raw = send_once(self.client, method, path, provider=self.provider, call=call, error_of=error_of, **arguments)
        return loads_reply(self.provider, raw.text)

    def send_file(
        self,
        to: str,
        path: Path,
        call: Call,
        *,
        form: Mapping[str, str] | None = None,
        creates: bool = False,
    ) -> JsonObject:
        """Post a file, as the body or as the file of a form, and return the JSON object that is answered."""
        deadline_s, n_bytes = deadline_of(self.client, call), path.stat().st_size
        with path.open("rb") as file:
            watched = _Watched(file, self.provider, file_deadline(deadline_s, n_bytes))
            arguments: JsonObject = {"content": watched}
            if form is not None:
                arguments = {"body": form, "files": [("file", (path.name, watched, "application/jsonl"))]}
                call = replace(call, headers={"Content-Type": "multipart/form-data", **call.headers})
            raw = send_once(
                self.client,
                "post",
                to,
                provider=self.provider,
                call=call,
                error_of=self._error_of("", creates),
                n_bytes=n_bytes,
                stream=True,
                **arguments,
            )
        return loads_reply(self.provider, raw.text)

    def fetch_file(self, source: str, target: Path, call: Call, *, sought: str) -> None:
        """Get a file and put it in place as a whole."""
        part = target.with_name(target.name + ".part")
        try:
            self._fetch(source, part, call, sought)
        except _OtherFile:
            part.unlink(missing_ok=True)
            self._fetch(source, part, call, sought)
        part.replace(target)
        _flush_folder(target.parent)

    def _error_of(self, sought: str, creates: bool) -> Callable[[Fault], ProviderError]:
        return partial(batch_error, error_of=self.error_of, sought=sought, creates=creates)

    def _fetch(self, source: str, part: Path, call: Call, sought: str) -> None:
        had = part.stat().st_size if part.exists() else 0
        start = max(0, had - OVERLAP)
        with self._opened(source, call, sought, start) as (response, error_of), _private(part) as file:
            total = _size_of(response, start)
            pieces = self._pieces(response, call, error_of)
            if start and response.status_code == 206:
                file.seek(start)
                pieces = _joined(pieces, file.read())
            for piece in pieces:
                file.write(piece)
            file.truncate()
            file.flush()
            os.fsync(file.fileno())
            size = file.tell()
        # The same bytes twice are no broken download: it is all that the server has.
        is_whole = size == total if total is not None else size == had or _ends_well(part)
        if not is_whole:
            of = "" if total is None else f" of {total:,}"
            raise UnavailableError(
                f"{self.provider}: the download of {sought} broke off after {size:,}{of} bytes", provider=self.provider
            )

    @contextmanager
    def _opened(
        self, source: str, call: Call, sought: str, start: int
    ) -> Iterator[tuple[Any, Callable[[Fault], ProviderError]]]:
        """Ask for a file, from a byte on, and close the answer in the end."""
        deadline_s = deadline_of(self.client, call)
        import httpx2

        # Packed, neither length nor range would count the bytes that are written.
        headers = {"Accept": "application/binary", "Accept-Encoding": "identity", **call.headers}
        if start:
            headers["Range"] = f"bytes={start}-"
        timeout = httpx2.Timeout(deadline_s, connect=min(deadline_s, QUIET_S))
        options: Any = {"headers": headers, "params": call.query, "timeout": timeout, **STAY_HERE}
        error_of = self._error_of(sought, creates=False)
        try:
            with errors_made_ours(self.client, self.provider, error_of, deadline_s):
                response = self.client.get(source, cast_to=httpx2.Response, options=options, stream=True)
        except ProviderError as error:
            if start and error.status == 416:
                raise _OtherFile from error
            raise
        try:
            yield response, error_of
        finally:
            response.close()

    def _pieces(self, response: Any, call: Call, error_of: Callable[[Fault], ProviderError]) -> Iterator[bytes]:
        """Read an answer against the clock, which allows for its size; what the reader does is not looked at."""
        deadline_s, started, n_bytes = deadline_of(self.client, call), time.monotonic(), 0
        quiet_s = min(deadline_s, QUIET_S)
        allow_only(response, quiet_s)
        with errors_made_ours(self.client, self.provider, error_of, quiet_s):
            for piece in response.iter_bytes():
                n_bytes += len(piece)
                if time.monotonic() - started > file_deadline(deadline_s, n_bytes):
                    raise _too_slow(self.provider, "send")
                yield piece


class _Watched:
    """A file that is read by a transport, until its time is up."""

    def __init__(self, file: IO[bytes], provider: str, deadline_s: float) -> None:
        self._file, self._provider = file, provider
        self._until = time.monotonic() + deadline_s
        # What a transport finds out a file's length by, whichever way it does.
        self.seek, self.tell, self.fileno = file.seek, file.tell, file.fileno

    def read(self, size: int = -1) -> bytes:
        if time.monotonic() > self._until:
            raise _too_slow(self._provider, "take")
        return self._file.read(size)

    def __iter__(self) -> Iterator[bytes]:
        return iter(partial(self.read, 64 * 1024), b"")


def id_of(payload: JsonObject, provider: str) -> str:
    """Return the id of what an answer tells of; without one it is no answer."""
    found = payload.get("id")
    if not isinstance(found, str) or not ID.fullmatch(found) or ".." in found:
        raise no_reply(provider, json.dumps(payload, ensure_ascii=False))
    return found


def batches_since(
    since: float, page_after: Callable[[str], JsonObject], read: Callable[[JsonObject], RemoteBatch]
) -> Iterator[RemoteBatch]:
    """Go through a listing's pages, newest first, until one ends with a batch from before a time.

    Parameters
    ----------
    since : float
        Unix time.
    page_after : callable
        Fetches the page after an id, or the first for an empty one.
    read : callable
        Reads one entry.
    """
    cursor, seen = "", {""}
    while True:
        page = page_after(cursor)
        batches = [read(entry) for entry in dicts_in(page.get("data"))]
        yield from (b for b in batches if b.created is None or b.created >= since)
        cursor = batches[-1].id if batches else ""
        is_old = bool(batches) and batches[-1].created is not None and batches[-1].created < since
        # A server that knows no cursor gives the same page for ever.
        if is_old or not page.get("has_more") or cursor in seen:
            return
        seen.add(cursor)


def ended_or_raise(error: ProviderError, retrieve: Callable[[], RemoteBatch]) -> RemoteBatch:
    """Return a batch that could not be cancelled since it has ended, or is on its way to; raise the error otherwise."""
    if error.status not in (400, 409):
        raise error
    batch = retrieve()
    if not batch.state.is_terminal and batch.state != "cancelling":
        raise error
    return batch


def _too_slow(provider: str, what: str) -> UnavailableError:
    return UnavailableError(f"{provider} did not {what} the file in time: the line is too slow", provider=provider)


@contextmanager
def _private(path: Path) -> Iterator[IO[bytes]]:
    """Open a file of the user's own to read and write, as it is."""
    with open(os.open(path, os.O_CREAT | os.O_RDWR | getattr(os, "O_BINARY", 0), 0o600), "r+b") as file:
        yield file


def _size_of(response: Any, start: int) -> int | None:
    """Return how long the whole file is, as told; None where it is not."""
    headers = response.headers
    is_packed = headers.get("content-encoding", "identity") != "identity"
    if response.status_code == 206:
        found = CONTENT_RANGE.fullmatch(headers.get("content-range", ""))
        if found is None or int(found[1]) != start or is_packed:
            raise _OtherFile
        return int(found[2]) if found[2].isdigit() else None
    length = headers.get("content-length", "")
    return int(length) if length.isdigit() and not is_packed else None


def _joined(pieces: Iterator[bytes], tail: bytes) -> Iterator[bytes]:
    """Leave out of what comes the end of what is here, and see that it is the same."""
    for piece in pieces:
        n = min(len(tail), len(piece))
        if piece[:n] != tail[:n]:
            raise _OtherFile
        tail = tail[n:]
        yield piece[n:]
    if tail:
        raise _OtherFile


def _ends_well(path: Path) -> bool:
    """Whether the last line of a file is JSON, which one that was cut is not."""
    size = path.stat().st_size
    with path.open("rb") as file:
        n = TAIL
        while True:
            file.seek(max(0, size - n))
            end = file.read().rstrip()
            if b"\n" in end or n >= size:
                break
            n *= 4
    try:
        json.loads(end.rpartition(b"\n")[2] or b"{}")
    except (ValueError, RecursionError):
        return False
    return True


def _flush_folder(folder: Path) -> None:
    """See that a rename is on disk, where folders can be opened."""
    with contextlib.suppress(OSError):
        handle = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)
