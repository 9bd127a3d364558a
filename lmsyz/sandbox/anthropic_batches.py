"""Anthropic's message batches: ``/v1/messages/batches`` and what is below it."""

from __future__ import annotations

import asyncio
import datetime
from pathlib import Path

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from lmsyz.sandbox import anthropic_common as common
from lmsyz.sandbox.anthropic_api import AnthropicMessages
from lmsyz.sandbox.batch_endpoints import Endpoints, number_in
from lmsyz.sandbox.batch_input import Checked, split_anthropic
from lmsyz.sandbox.batch_shelf import opened_private
from lmsyz.sandbox.batches import Batch
from lmsyz.sandbox.control import json_response
from lmsyz.sandbox.shapes import integer, obj, string
from lmsyz.sandbox.wire import ApiError, JsonObject

__all__ = ["AnthropicBatches"]

LARGEST = 256 * 1024 * 1024
QUERY = obj(limit=integer(1, 1000), before_id=string(), after_id=string())
ENDED = ("succeeded", "errored", "canceled", "expired")


class AnthropicBatches(Endpoints):
    """The message batches."""

    api = AnthropicMessages()
    label = "message_batches"
    labels = ("messages",)

    def routes(self) -> list[Route]:
        """Return the routes."""
        home = "/v1/messages/batches"
        return [
            self.route("POST", home, self.create),
            self.route("GET", home, self.many),
            self.route("GET", home + "/{id}", self.one),
            self.route("DELETE", home + "/{id}", self.delete),
            self.route("POST", home + "/{id}/cancel", self.cancel),
            self.route("GET", home + "/{id}/results", self.results),
        ]

    def missing(self, what: str) -> ApiError:
        """Return the 404 of an unknown batch."""
        return common.error(404, f"Message Batch {what} not found")

    async def create(self, request: Request) -> Response:
        """Create a batch, its body straight to disk; its params are looked at only when they are run."""
        if self.state.faults.out_of_quota:
            self.state.fell("out_of_quota")
            raise self.api.failure("out_of_quota")
        body, requests = self.shelf.new_path(), self.shelf.new_path()
        try:
            await _receive(request, body)
            checked = await asyncio.to_thread(_split, body, requests)
            if said := self.too_many(checked.n):
                raise common.error(400, said)
            version = request.headers["anthropic-version"]
            batch = self.new_batch("msgbatch", "messages", version=version, n=checked.n, n_rows=checked.n_rows)
            self.shelf.add(batch, requests, keep=False)
        finally:
            body.unlink(missing_ok=True)
            requests.unlink(missing_ok=True)
        return self.created(self._object(batch, request))

    async def many(self, request: Request) -> Response:
        """List the batches, newest first."""
        query: JsonObject = dict(request.query_params) | {"limit": number_in(request, "limit", 20)}
        common.check_body(query, QUERY)
        found = self.shelf.newest_first("messages")
        query = self.followed(query, [b.id for b in found])
        start, end = self._window([b.id for b in found], query)
        page = found[start:end]
        await self.runner.settle(*page)
        shown = {
            "data": [self._object(b, request) for b in page],
            "has_more": start > 0 if "before_id" in query else end < len(found),
            "first_id": page[0].id if page else None,
            "last_id": page[-1].id if page else None,
        }
        return json_response(200, shown, {})

    def _window(self, ids: list[str], query: JsonObject) -> tuple[int, int]:
        """Return where a page begins and ends."""
        if "before_id" in query and "after_id" in query:
            raise common.error(400, "before_id: only one of before_id and after_id may be given")
        for name in ("before_id", "after_id"):
            if name in query and query[name] not in ids:
                raise common.error(400, f"{name}: there is no Message Batch {query[name]}")
        if "before_id" in query:
            end = ids.index(query["before_id"])
            return max(0, end - query["limit"]), end
        start = ids.index(query["after_id"]) + 1 if "after_id" in query else 0
        return start, min(len(ids), start + query["limit"])

    async def one(self, request: Request) -> Response:
        """Return a batch."""
        return json_response(200, self._object(await self.looked_at(request), request), {})

    async def cancel(self, request: Request) -> Response:
        """Tell a batch to stop."""
        batch, now = self.batch(request), self.shelf.now()
        await self.runner.settle(batch)
        if batch.is_over(now):
            raise common.error(400, f"Message Batch {batch.id} has ended and cannot be canceled")
        if batch.cancelled is None:
            batch.cancelled = now
            self.shelf.save(batch)
        return json_response(200, self._object(batch, request), {})

    async def delete(self, request: Request) -> Response:
        """Delete a batch that has ended."""
        batch = self.batch(request)
        await self.runner.settle(batch)
        if not batch.has_ended(self.shelf.now()):
            raise common.error(400, f"Message Batch {batch.id} has not ended and cannot be deleted; cancel it first")
        self.shelf.drop(batch)
        return json_response(200, {"id": batch.id, "type": "message_batch_deleted"}, {})

    async def results(self, request: Request) -> Response:
        """Send the results of a batch that has ended."""
        batch = self.batch(request)
        await self.runner.settle(batch)
        if not batch.has_ended(self.shelf.now()):
            raise common.error(404, f"Message Batch {batch.id} has no results yet: it has not ended")
        if self._is_archived(batch):
            raise common.error(404, f"Message Batch {batch.id} is archived; its results are no longer available")
        return self.sent(request, self.shelf.path(batch, "results"))

    def _is_archived(self, batch: Batch) -> bool:
        return self.state.faults.results_gone or self.shelf.now() >= batch.archives

    def _object(self, batch: Batch, request: Request) -> JsonObject:
        has_ended = batch.has_ended(self.shelf.now())
        is_archived = has_ended and self._is_archived(batch)
        counts = {word: batch.counts.get(word, 0) if has_ended else 0 for word in ENDED}
        url = f"{request.base_url}v1/messages/batches/{batch.id}/results"
        status = "ended" if has_ended else "in_progress" if batch.cancelled is None else "canceling"
        return {
            "id": batch.id,
            "type": "message_batch",
            "processing_status": status,
            "request_counts": {"processing": 0 if has_ended else batch.n, **counts},
            "created_at": _moment(batch.created),
            "expires_at": _moment(batch.expires),
            "ended_at": _moment(batch.ends) if has_ended else None,
            "cancel_initiated_at": None if batch.cancelled is None else _moment(batch.cancelled),
            "archived_at": _moment(min(batch.archives, self.shelf.now())) if is_archived else None,
            "results_url": url if has_ended and not is_archived else None,
        }


async def _receive(request: Request, path: Path) -> None:
    n_bytes = 0
    with opened_private(path) as file:
        async for block in request.stream():
            n_bytes += len(block)
            if n_bytes <= LARGEST:
                file.write(block)
    if n_bytes > LARGEST:
        raise common.error(413, "Request exceeds the maximum allowed number of bytes.")


def _split(body: Path, requests: Path) -> Checked:
    with opened_private(requests) as file:
        return split_anthropic(body, file)


def _moment(at: float) -> str:
    return datetime.datetime.fromtimestamp(at, datetime.UTC).isoformat().replace("+00:00", "Z")
