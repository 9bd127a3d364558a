"""The sandbox's own endpoints, under ``/sandbox/``: health, stats, faults, requests, reset, stop."""

from __future__ import annotations

import asyncio
import hmac
import json
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from lmsyz.errors import UsageError
from lmsyz.sandbox.batches import Shelf
from lmsyz.sandbox.faults import Faults
from lmsyz.sandbox.state import State
from lmsyz.sandbox.wire import LABEL, MODELS, JsonObject

__all__ = ["LABEL_HEADER", "Control", "json_response"]

LABEL_HEADER = {"x-lmsyz-sandbox": LABEL}


def json_response(status: int, body: JsonObject, headers: Mapping[str, str]) -> Response:
    """Return a JSON answer with the sandbox's label."""
    content = json.dumps(body, separators=(",", ":")).encode()
    return Response(content, status, {**headers, **LABEL_HEADER}, media_type="application/json")


class Control:
    """The sandbox's own endpoints. What changes or reveals something needs the token."""

    def __init__(self, state: State, shelf: Shelf, token: str, stop: Callable[[], None]) -> None:
        self.state = state
        self.shelf = shelf
        self.token = token
        self.stop = stop

    def routes(self) -> list[Route]:
        """Return the routes."""
        return [
            Route("/sandbox/health", self._health, methods=["GET"]),
            Route("/sandbox/stats", self._stats, methods=["GET"]),
            *(Route(f"/sandbox/{name}", self._guarded(do), methods=["POST"]) for name, do in self._actions().items()),
        ]

    def _actions(self) -> dict[str, Callable[[JsonObject], Any]]:
        return {
            "faults": self._faults,
            "requests": self._requests,
            "reset": self._reset,
            "stop": self._stop,
            "advance": self._advance,
            "batches": self._batches,
        }

    async def _health(self, request: Request) -> Response:
        return json_response(200, {"service": "lmsyz sandbox", "answers": LABEL, "models": list(MODELS)}, {})

    async def _stats(self, request: Request) -> Response:
        paid = await asyncio.to_thread(self.shelf.paid, self.state.seed)
        batches = {
            "n_batches": len(self.shelf.batches),
            "n_batch_rows_paid": paid.total(),
            "batch_rows_paid": dict(paid),
        }
        return json_response(200, self.state.stats() | batches, {})

    def _guarded(self, do: Callable[[JsonObject], Any]) -> Callable[[Request], Awaitable[Response]]:
        async def handle(request: Request) -> Response:
            if not hmac.compare_digest(request.headers.get("x-sandbox-token", "").encode(), self.token.encode()):
                return json_response(403, {"error": "this needs the sandbox's token"}, {})
            raw = await request.body()
            try:
                return json_response(200, {"result": do(json.loads(raw or b"{}"))}, {})
            except (UsageError, TypeError, ValueError) as error:
                return json_response(400, {"error": str(error)}, {})

        return handle

    def _faults(self, body: JsonObject) -> JsonObject:
        """Set the faults; also the seed, where one is given."""
        self.state.configure(Faults.of(None, body.get("faults") or {}), body.get("seed"))
        return self.state.faults.as_dict()

    def _requests(self, body: JsonObject) -> list[JsonObject]:
        return self.state.requests(int(body.get("last", 100)))

    def _reset(self, body: JsonObject) -> None:
        self.state.reset()
        self.shelf.reset()

    def _stop(self, body: JsonObject) -> None:
        self.shelf.close()
        self.stop()

    def _advance(self, body: JsonObject) -> float:
        self.shelf.advance(float(body["seconds"]))
        return self.shelf.now()

    def _batches(self, body: JsonObject) -> list[JsonObject]:
        now = self.shelf.now()
        return [
            {
                "id": batch.id,
                "api": batch.label,
                "state": batch.state(now),
                "created": batch.created,
                "n_requests": batch.n,
                "custom_ids": [custom_id for custom_id, _ in self.shelf.requests(batch)],
            }
            for batch in self.shelf.newest_first("chat", "responses", "messages")
        ]
