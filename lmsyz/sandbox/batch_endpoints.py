"""What all endpoints of files and batches share: keys, errors, faults of the request, lists, lost answers."""

from __future__ import annotations

import asyncio
import contextlib
import uuid
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Awaitable, Callable, Collection
from pathlib import Path
from typing import Any

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from lmsyz.sandbox.batch_runner import Runner
from lmsyz.sandbox.batch_shelf import Shelf
from lmsyz.sandbox.batches import Batch
from lmsyz.sandbox.control import LABEL_HEADER, json_response
from lmsyz.sandbox.faults import Draws
from lmsyz.sandbox.sending import Dropped, FileSent, Portal
from lmsyz.sandbox.state import State
from lmsyz.sandbox.wire import Api, ApiError, JsonObject

__all__ = ["Answer", "Endpoints", "number_in"]

Answer = Callable[[Request], Awaitable[Response]]
CURSORS = ("after", "after_id", "before_id")


class Endpoints(ABC):
    """A group of endpoints.

    Parameters
    ----------
    state : State
        What the sandbox remembers.
    runner : Runner
        Answers batches.
    """

    api: Api
    label: str
    labels: tuple[str, ...] = ()

    def __init__(self, state: State, runner: Runner) -> None:
        self.state = state
        self.runner = runner
        self._n: Counter[str] = Counter()

    @property
    def shelf(self) -> Shelf:
        """Where batches and files lie."""
        return self.runner.shelf

    def route(self, method: str, path: str, answer: Answer, *, keeps_body: bool = False) -> Route:
        """Return an endpoint that checks the key, lets the faults of requests fall, and turns errors into answers."""

        async def handle(request: Request) -> Response:
            self.state.touch()
            request_id = f"req_sandbox{uuid.uuid4().hex[:24]}"
            headers = self.api.headers(request_id, self.state.limits.state())
            try:
                self.api.authorise(request.headers)
                response = await self._request_fault(f"{method} {path}") or await answer(request)
                response.headers.update({**headers, **LABEL_HEADER})
            except ApiError as error:
                body = self._told(error, request_id)
                response = json_response(error.status, body, {**headers, **error.headers})
            raw = await request.body() if keeps_body else await _read_away(request)
            status = 0 if isinstance(response, Dropped) else response.status_code
            self.state.keep(self.label, request.url.path, raw, request.headers, status, counted_as=path)
            return response

        return Route(path, handle, methods=[method])

    def _told(self, error: ApiError, request_id: str) -> JsonObject:
        if self.state.faults.loose_batches:
            return {"error": {"message": error.body["error"]["message"]}}
        return error.body | ({"request_id": request_id} if self.api.label == "messages" else {})

    async def _request_fault(self, what: str) -> Response | None:
        """Raise or return what a request gets in place of an answer, as the live endpoints do."""
        faults = self.state.faults
        draws = self._draws(what)
        if faults.latency_s or faults.latency_jitter_s:
            await asyncio.sleep(faults.latency_s + faults.latency_jitter_s * draws.uniform("latency"))
        for kind in ("rate_limited", "overloaded", "server_error", "dropped", "not_a_reply"):
            if not draws.falls(kind, getattr(faults, kind)):
                continue
            self.state.fell(kind)
            if kind == "dropped":
                return Dropped()
            if kind == "not_a_reply":
                return Portal({})
            retry_after_s = faults.retry_after_s if kind == "rate_limited" else None
            raise self.api.failure("requests" if kind == "rate_limited" else kind, retry_after_s=retry_after_s)
        return None

    def _draws(self, what: str) -> Draws:
        self._n[what] += 1
        return Draws(self.state.seed, what.encode(), self._n[what])

    def falls(self, kind: str) -> Draws | None:
        """Return the draws of a fault that falls this time, None where it does not."""
        draws = self._draws(kind)
        if not draws.falls(kind, getattr(self.state.faults, kind)):
            return None
        self.state.fell(kind)
        return draws

    @abstractmethod
    def missing(self, what: str) -> ApiError:
        """Return the 404 of an unknown id."""

    def batch(self, request: Request) -> Batch:
        """Return the batch of a path."""
        batch = self.shelf.batches.get(request.path_params["id"])
        if batch is None or batch.label not in self.labels:
            raise self.missing(request.path_params["id"])
        return batch

    async def looked_at(self, request: Request) -> Batch:
        """Return the batch of a path, answered if its time is over; the first looks find none if the faults say so."""
        batch = self.batch(request)
        self.shelf.n_looks[batch.id] += 1
        if self.shelf.n_looks[batch.id] <= self.state.faults.not_found_after_create:
            self.state.fell("not_found_after_create")
            raise self.missing(batch.id)
        await self.runner.settle(batch)
        return batch

    def new_batch(self, name: str, label: str, **about: Any) -> Batch:
        """Return a batch that is not yet on the shelf."""
        return Batch(
            id=f"{name}_sandbox{uuid.uuid4().hex[:20]}",
            label=label,
            created=self.shelf.now(),
            ordinal=1 + max((b.ordinal for b in self.shelf.batches.values()), default=-1),
            seed=self.state.seed,
            faults=self.state.faults.as_dict(),
            **about,
        )

    def created(self, body: JsonObject) -> Response:
        """Answer a create, or lose the answer on the way."""
        self.state.n_batches_created += 1
        for kind in ("batch_stuck", "loose_batches"):
            if getattr(self.state.faults, kind):
                self.state.fell(kind)
        lost = self.falls("create_timeout")
        if lost is None:
            return json_response(200, body, {})
        if lost.uniform("way") < 0.5:
            return Dropped()
        raise self.api.failure("timeout")

    def sent(self, request: Request, path: Path) -> Response:
        """Send a file."""
        self.state.n_downloads += 1
        breaks = self.falls("broken_download") is not None
        rate = self.state.faults.slow_download_bytes_s
        asked = "" if self.state.faults.loose_batches else request.headers.get("range", "")
        return FileSent(path, asked, breaks=breaks, bytes_per_s=rate)

    def too_many(self, n: int) -> str:
        """Return what to say against a batch of n requests; empty where the faults say nothing against it."""
        limit = self.state.faults.max_batch_requests
        if limit is None or n <= limit:
            return ""
        self.state.fell("max_batch_requests")
        return f"requests: List should have at most {limit} items, not {n}"

    def followed(self, query: JsonObject, ids: Collection[str]) -> JsonObject:
        """Return a list's query, without ids to go on from that are unknown where the faults have them ignored."""
        if not self.state.faults.loose_batches:
            return query
        return {name: value for name, value in query.items() if name not in CURSORS or value in ids}


async def _read_away(request: Request) -> bytes:
    """Read what nobody has read of a body, which else would be taken for the next request."""
    with contextlib.suppress(RuntimeError):  # it has been read
        async for _ in request.stream():
            pass
    return b""


def number_in(request: Request, name: str, default: int) -> object:
    """Return a number of the query, or whatever is there in its place."""
    given = request.query_params.get(name)
    return default if given is None else int(given) if given.lstrip("-").isdigit() else given
