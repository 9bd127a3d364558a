"""Answers that do not arrive: a connection closed without a reply, and one closed in the middle of it."""

from __future__ import annotations

from starlette.responses import Response
from starlette.types import Receive, Scope, Send

__all__ = ["CutShort", "Dropped"]


class Dropped(Response):
    """Closes the connection without a reply."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Abort the transport, and wait until the server has noticed."""
        scope["state"]["transport"].abort()
        while (await receive())["type"] != "http.disconnect":
            pass


class CutShort(Response):
    """Sends the head and half of the body, and closes the connection."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send half, then abort the transport."""
        headers = [*self.raw_headers]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        half = bytes(self.body)[: len(self.body) // 2]
        await send({"type": "http.response.body", "body": half, "more_body": True})
        transport = scope["state"]["transport"]
        transport.close()
        while (await receive())["type"] != "http.disconnect":
            pass
