"""The sandbox's own endpoints, under ``/sandbox/``: health, stats, faults, requests, batches, reset, stop."""

from __future__ import annotations

import asyncio
import hmac
import inspect
import json
import math
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from lmsyz.errors import UsageError
from lmsyz.sandbox import batch_oracle
from lmsyz.sandbox.batch_runner import Runner
from lmsyz.sandbox.batches import Batch
from lmsyz.sandbox.faults import Faults
from lmsyz.sandbox.state import State
from lmsyz.sandbox.wire import LABEL, MODELS, JsonObject

__all__ = ["LABEL_HEADER", "Control", "json_response"]

STATS_PATIENCE_S = 20.0
LABEL_HEADER = {"x-lmsyz-sandbox": LABEL}


def json_response(status: int, body: JsonObject, headers: Mapping[str, str]) -> Response:
    """Return a JSON answer with the sandbox's label."""
    content = json.dumps(body, separators=(",", ":")).encode()
    return Response(content, status, {**headers, **LABEL_HEADER}, media_type="application/json")


class Control:
    """The sandbox's own endpoints. What changes or reveals something needs the token."""

    def __init__(self, state: State, runner: Runner, token: str, stop: Callable[[], None]) -> None:
        self.state = state
        self.runner = runner
        self.shelf = runner.shelf
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
            "batch_rows": self._batch_rows,
        }

    async def _health(self, request: Request) -> Response:
        return json_response(200, {"service": "lmsyz sandbox", "answers": LABEL, "models": list(MODELS)}, {})

    async def _stats(self, request: Request) -> Response:
        found = await self._settled()
        live, n_paid = self.state.stats(), sum(b.n_rows_paid for b in found)
        batches = {
            "n_batches": len(found),
            "n_batch_rows": sum(b.n_rows for b in found if not b.problems),
            "n_batch_rows_paid": n_paid,
            "n_rows_paid": live["n_rows"] + n_paid,
            "batch_rows_paid": await asyncio.to_thread(batch_oracle.paid_texts, self.shelf),
        }
        return json_response(200, live | batches, {})

    async def _settled(self) -> list[Batch]:
        """Return all batches, newest first, those answered whose time is over."""
        found = self.shelf.newest_first()
        await self.runner.settle(*found, patience_s=STATS_PATIENCE_S)
        return found

    def _guarded(self, do: Callable[[JsonObject], Any]) -> Callable[[Request], Awaitable[Response]]:
        async def handle(request: Request) -> Response:
            if not hmac.compare_digest(request.headers.get("x-sandbox-token", "").encode(), self.token.encode()):
                return json_response(403, {"error": "this needs the sandbox's token"}, {})
            raw = await request.body()
            try:
                result = do(json.loads(raw or b"{}"))
                return json_response(200, {"result": await result if inspect.isawaitable(result) else result}, {})
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
        self.runner.reset()

    def _stop(self, body: JsonObject) -> None:
        self.stop()

    def _advance(self, body: JsonObject) -> float:
        seconds = float(body["seconds"])
        if not 0 <= seconds < math.inf:
            raise UsageError(f"seconds={seconds!r} must be a number from 0 up")
        self.shelf.advance(seconds)
        return self.shelf.now()

    async def _batches(self, body: JsonObject) -> list[JsonObject]:
        found, now = await self._settled(), self.shelf.now()
        return await asyncio.to_thread(lambda: [batch_oracle.batch_told(self.shelf, b, now) for b in found])

    async def _batch_rows(self, body: JsonObject) -> list[JsonObject]:
        await self._settled()
        return await asyncio.to_thread(batch_oracle.rows_told, self.shelf)
