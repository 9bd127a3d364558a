"""Answers sent in a way of their own: files, also slowly or in part; none at all; a page of somebody else's."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from starlette.responses import Response
from starlette.types import Receive, Scope, Send

__all__ = ["Dropped", "FileSent", "Portal"]

PORTAL = "<!doctype html><html><head><title>Sign in</title></head><body>Please sign in to the network.</body></html>"
BLOCK = 256 * 1024
TICK_S = 0.05


class Portal(Response):
    """The page of a captive portal, in place of what was asked for."""

    def __init__(self, headers: Mapping[str, str]) -> None:
        super().__init__(PORTAL, 200, headers, media_type="text/html")


class Dropped(Response):
    """Closes the connection without a reply."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Abort the transport, and wait until the server has noticed."""
        await _hang_up(scope, receive)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Part:
    """The bytes of a file that were asked for."""

    start: int
    end: int
    status: int


class FileSent(Response):
    """A file, block by block, or from the byte on that a ``Range`` names.

    Parameters
    ----------
    path : Path
        The file.
    asked : str
        The ``Range`` header.
    breaks : bool
        Whether the connection is closed in the middle.
    bytes_per_s : float or None
        How fast it is sent at most.
    """

    def __init__(self, path: Path, asked: str, *, breaks: bool = False, bytes_per_s: float | None = None) -> None:
        self._path, self._breaks, self._rate = path, breaks, bytes_per_s
        size = path.stat().st_size
        self._part = _part(asked, size)
        super().__init__(None, self._part.status, media_type="application/octet-stream")
        self.headers["accept-ranges"] = "bytes"
        self.headers["content-length"] = str(self._part.end - self._part.start)
        if self._part.status == 206:
            self.headers["content-range"] = f"bytes {self._part.start}-{self._part.end - 1}/{size}"
        elif self._part.status == 416:
            self.headers["content-range"] = f"bytes */{size}"

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send it."""
        await send({"type": "http.response.start", "status": self.status_code, "headers": self.raw_headers})
        end = (self._part.start + self._part.end) // 2 if self._breaks else self._part.end
        async for block in self._blocks(end):
            await send({"type": "http.response.body", "body": block, "more_body": True})
        if self._breaks:
            # What was sent may still be on its way to the socket; an abort would throw it away.
            scope["state"]["transport"].close()
            await _wait_for_the_end(receive)
            return
        await send({"type": "http.response.body", "body": b"", "more_body": False})

    async def _blocks(self, end: int) -> AsyncIterator[bytes]:
        size = BLOCK if self._rate is None else max(1, int(self._rate * TICK_S))
        with self._path.open("rb") as file:
            file.seek(self._part.start)
            for at in range(self._part.start, end, size):
                if self._rate is not None:
                    await asyncio.sleep(size / self._rate)
                yield file.read(min(size, end - at))


def _part(asked: str, size: int) -> _Part:
    found = re.fullmatch(r"bytes=(\d+)-", asked)
    if found is None:
        return _Part(start=0, end=size, status=200)
    start = int(found[1])
    return _Part(start=start, end=size, status=206) if start < size else _Part(start=0, end=0, status=416)


async def _hang_up(scope: Mapping[str, Any], receive: Receive) -> None:
    scope["state"]["transport"].abort()
    await _wait_for_the_end(receive)


async def _wait_for_the_end(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass
