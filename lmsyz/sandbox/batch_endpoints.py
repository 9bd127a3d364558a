"""The batch endpoints of both APIs: OpenAI's files and batches, Anthropic's message batches."""

from __future__ import annotations

import asyncio
import datetime
import json
import re
import uuid
from collections import Counter
from collections.abc import Awaitable, Callable
from typing import Any

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from lmsyz.sandbox import anthropic_common, openai_common
from lmsyz.sandbox.anthropic_api import AnthropicMessages
from lmsyz.sandbox.batches import DAY_S, Batch, Shelf
from lmsyz.sandbox.control import LABEL_HEADER, json_response
from lmsyz.sandbox.dropping import CutShort, Dropped
from lmsyz.sandbox.faults import Draws
from lmsyz.sandbox.openai_chat import OpenAIChat
from lmsyz.sandbox.state import State
from lmsyz.sandbox.wire import ApiError, JsonObject

__all__ = ["batch_routes"]

OPENAI_LABELS = {"/v1/chat/completions": "chat", "/v1/responses": "responses"}
OPENAI_MOST, ANTHROPIC_MOST = 50_000, 100_000
CUSTOM_ID = re.compile(r"[a-zA-Z0-9_-]{1,64}")
Answer = Callable[[Request], Awaitable[Response]]


def batch_routes(state: State, shelf: Shelf) -> list[Route]:
    """Return the routes of both APIs."""
    files, openai, anthropic = _Files(state, shelf), _OpenAI(state, shelf), _Anthropic(state, shelf)
    table: list[tuple[str, str, Answer, Any]] = [
        ("POST", "/v1/files", files.upload, files),
        ("GET", "/v1/files", files.many, files),
        ("GET", "/v1/files/{id}", files.one, files),
        ("DELETE", "/v1/files/{id}", files.delete, files),
        ("GET", "/v1/files/{id}/content", files.download, files),
        ("POST", "/v1/batches", openai.create, openai),
        ("GET", "/v1/batches", openai.many, openai),
        ("GET", "/v1/batches/{id}", openai.one, openai),
        ("POST", "/v1/batches/{id}/cancel", openai.cancel, openai),
        ("POST", "/v1/messages/batches", anthropic.create, anthropic),
        ("GET", "/v1/messages/batches", anthropic.many, anthropic),
        ("GET", "/v1/messages/batches/{id}", anthropic.one, anthropic),
        ("DELETE", "/v1/messages/batches/{id}", anthropic.delete, anthropic),
        ("POST", "/v1/messages/batches/{id}/cancel", anthropic.cancel, anthropic),
        ("GET", "/v1/messages/batches/{id}/results", anthropic.results, anthropic),
    ]
    return [Route(path, home.guarded(answer), methods=[method]) for method, path, answer, home in table]


class _Endpoints:
    """What the endpoints share: authorisation, error answers, draws by count."""

    label = "batches"
    api: Any

    def __init__(self, state: State, shelf: Shelf) -> None:
        self.state = state
        self.shelf = shelf
        self._n: Counter[str] = Counter()

    def guarded(self, answer: Answer) -> Answer:
        """Return an endpoint that checks the key and turns errors into answers."""

        async def handle(request: Request) -> Response:
            self.state.touch()
            headers = self.api.headers(f"req_sandbox{uuid.uuid4().hex[:16]}", self.state.limits.state())
            try:
                self.api.authorise(request.headers)
                response = await answer(request)
                response.headers.update({**headers, **LABEL_HEADER})
            except ApiError as error:
                response = json_response(error.status, error.body, {**headers, **error.headers})
            status = 0 if isinstance(response, Dropped) else response.status_code
            self.state.keep(self.label, request.url.path, b"", request.headers, status)
            return response

        return handle

    def falls(self, kind: str, rate: float) -> bool:
        """Return whether a fault falls this time."""
        self._n[kind] += 1
        fell = Draws(self.state.seed, kind.encode(), self._n[kind]).falls(kind, rate)
        if fell:
            self.state.fell(kind)
        return fell

    def missing(self, what: str) -> ApiError:
        """Return the 404 of an unknown id."""
        raise NotImplementedError(what)

    def batch(self, request: Request, *labels: str) -> Batch:
        """Return the batch of a path."""
        batch = self.shelf.batches.get(request.path_params["id"])
        if batch is None or batch.label not in labels:
            raise self.missing(request.path_params["id"])
        return batch

    def look(self, batch: Batch) -> None:
        """Answer 404 to the first looks at a batch, if the faults ask for it."""
        self.shelf.n_looks[batch.id] += 1
        if self.shelf.n_looks[batch.id] <= self.state.faults.not_found_after_create:
            self.state.fell("not_found_after_create")
            raise self.missing(batch.id)

    async def settled(self, batch: Batch) -> Batch:
        """See that an ended batch has been answered."""
        if batch.has_ended(self.shelf.now()) and not batch.is_answered:
            await asyncio.to_thread(self.shelf.answer, batch, self.state.seed)
        return batch

    def sent(self, content: bytes) -> Response:
        """Return a file, or the part of it that a broken download brings."""
        if self.state.faults.results_gone:
            raise self.missing("results")
        if self.falls("broken_download", self.state.faults.broken_download):
            return CutShort(content)
        return Response(content, 200, media_type="application/octet-stream")

    def created(self, body: JsonObject) -> Response:
        """Answer a create, or lose the answer."""
        if self.falls("create_timeout", self.state.faults.create_timeout):
            return Dropped()
        return json_response(200, body, {})


class _Files(_Endpoints):
    """OpenAI's files."""

    api = OpenAIChat()
    label = "files"

    def missing(self, what: str) -> ApiError:
        """Return the 404 of an unknown file."""
        return openai_common.error(404, f"No such File object: {what}", param="id")

    async def upload(self, request: Request) -> Response:
        """Take a file."""
        async with request.form(max_part_size=512 * 1024 * 1024) as form:
            file, purpose = form.get("file"), form.get("purpose")
            if not hasattr(file, "read"):
                raise openai_common.error(400, "Missing required parameter: 'file'.", param="file")
            if purpose != "batch":
                raise openai_common.error(400, f"'{purpose}' is not one of ['batch']", param="purpose")
            content = await file.read()  # type: ignore[union-attr]
            name = str(getattr(file, "filename", "") or "input.jsonl")
        if self.falls("upload_dropped", self.state.faults.upload_dropped):
            return Dropped()
        return json_response(200, self.shelf.add_upload(content, name, "batch"), {})

    async def many(self, request: Request) -> Response:
        """List files, newest first."""
        data = sorted(self.shelf.uploads.values(), key=lambda f: f["created_at"], reverse=True)
        return json_response(200, {"object": "list", "data": data, "has_more": False}, {})

    async def one(self, request: Request) -> Response:
        """Return a file's object."""
        return json_response(200, self._upload(request), {})

    async def delete(self, request: Request) -> Response:
        """Delete a file."""
        file_id = self._upload(request)["id"]
        self.shelf.drop(file_id)
        return json_response(200, {"id": file_id, "object": "file", "deleted": True}, {})

    async def download(self, request: Request) -> Response:
        """Send a file."""
        return self.sent(self.shelf.content(self._upload(request)["id"]))

    def _upload(self, request: Request) -> JsonObject:
        upload = self.shelf.uploads.get(request.path_params["id"])
        if upload is None:
            raise self.missing(request.path_params["id"])
        return upload


class _OpenAI(_Endpoints):
    """OpenAI's batches."""

    api = OpenAIChat()

    def missing(self, what: str) -> ApiError:
        """Return the 404 of an unknown batch."""
        return openai_common.error(404, f"No batch found with id '{what}'.", param="id")

    async def create(self, request: Request) -> Response:
        """Create a batch; what is wrong with its file is found afterwards, as with the real one."""
        body = openai_common.body_of(await request.body())
        label = OPENAI_LABELS.get(str(body.get("endpoint")))
        if label is None:
            raise openai_common.error(400, f"Invalid value: '{body.get('endpoint')}'.", param="endpoint")
        if body.get("completion_window") != "24h":
            raise openai_common.error(
                400, "Invalid value for 'completion_window': use '24h'.", param="completion_window"
            )
        if body.get("input_file_id") not in self.shelf.uploads:
            raise openai_common.error(400, f"No such File object: {body.get('input_file_id')}", param="input_file_id")
        batch = Batch(
            id=f"batch_sandbox{uuid.uuid4().hex[:20]}",
            label=label,
            input=body["input_file_id"],
            input_file_id=body["input_file_id"],
            n=0,
            metadata=dict(body.get("metadata") or {}),
            created=self.shelf.now(),
            faults=self.state.faults.as_dict(),
        )
        await asyncio.to_thread(self._check, batch, body["endpoint"])
        self.shelf.add(batch)
        return self.created(self._object(batch))

    def _check(self, batch: Batch, endpoint: str) -> None:
        faults = self.state.faults
        seen: set[str] = set()
        for i, line in enumerate(self.shelf.content(batch.input).split(b"\n"), 1):
            if not line.strip():
                continue
            problem = _problem(line, endpoint, seen)
            if problem:
                batch.failed.append((*problem, i))
            batch.n += 1
        busy = [b for b in self.shelf.newest_first("chat", "responses") if not b.has_ended(self.shelf.now())]
        if not batch.n:
            batch.failed.append(("empty_file", "The input file is empty.", None))
        elif batch.n > OPENAI_MOST:
            batch.failed.append(("too_many_tasks", f"The batch has more than {OPENAI_MOST} requests.", None))
        elif faults.batch_failed:
            batch.failed.append((faults.batch_failed, "The sandbox fails this batch, as its faults ask it to.", None))
        elif faults.token_limit_batches and len(busy) >= faults.token_limit_batches:
            batch.failed.append(("token_limit_exceeded", "Enqueued token limit reached for this model.", None))

    async def many(self, request: Request) -> Response:
        """List batches, newest first."""
        found = self.shelf.newest_first("chat", "responses")
        ids, after = [b.id for b in found], request.query_params.get("after")
        start = ids.index(after) + 1 if after in ids else 0
        limit = int(request.query_params.get("limit", 20))
        page = [self._object(await self.settled(b)) for b in found[start : start + limit]]
        more = start + limit < len(found)
        first, last = (page[0]["id"], page[-1]["id"]) if page else (None, None)
        return json_response(
            200, {"object": "list", "data": page, "first_id": first, "last_id": last, "has_more": more}, {}
        )

    async def one(self, request: Request) -> Response:
        """Return a batch."""
        batch = self.batch(request, "chat", "responses")
        self.look(batch)
        return json_response(200, self._object(await self.settled(batch)), {})

    async def cancel(self, request: Request) -> Response:
        """Tell a batch to stop."""
        batch = self.batch(request, "chat", "responses")
        if batch.has_ended(self.shelf.now()):
            state = batch.state(self.shelf.now())
            raise openai_common.error(400, f"Cannot cancel a batch with status '{state}'.")
        batch.cancelled = self.shelf.now()
        self.shelf.save(batch)
        return json_response(200, self._object(batch) | {"status": "cancelling"}, {})

    def _object(self, batch: Batch) -> JsonObject:
        now = self.shelf.now()
        state, counts = batch.state(now), batch.counts
        failed = sum(counts.get(k, 0) for k in ("errored", "expired", "canceled"))
        moments = {f"{s}_at": int(batch.ends) if s == state else None for s in ("completed", "expired", "cancelled")}
        errors = [{"code": c, "message": m, "line": line, "param": None} for c, m, line in batch.failed[:20]]
        return {
            "id": batch.id,
            "object": "batch",
            "endpoint": next(p for p, label in OPENAI_LABELS.items() if label == batch.label),
            "errors": {"object": "list", "data": errors} if errors else None,
            "input_file_id": batch.input_file_id,
            "completion_window": "24h",
            "status": state,
            "output_file_id": batch.output or None,
            "error_file_id": batch.errors or None,
            "created_at": int(batch.created),
            "in_progress_at": int(batch.created) if state != "validating" else None,
            "expires_at": int(batch.created + DAY_S),
            "finalizing_at": None,
            "failed_at": int(batch.created) if batch.failed else None,
            "cancelling_at": int(batch.cancelled) if batch.cancelled is not None else None,
            **moments,
            "request_counts": {"total": batch.n, "completed": counts.get("succeeded", 0), "failed": failed},
            "metadata": batch.metadata or None,
        }


def _problem(line: bytes, endpoint: str, seen: set[str]) -> tuple[str, str] | None:
    try:
        request = json.loads(line)
        custom_id, url, method = request["custom_id"], request["url"], request["method"]
    except (ValueError, TypeError, KeyError):
        return "invalid_json_line", "This line is not parseable as valid JSON with custom_id, method, url and body."
    if url != endpoint or method != "POST":
        return "url_mismatch", f"The URL '{url}' does not match the batch's endpoint '{endpoint}'."
    if custom_id in seen:
        return "duplicate_custom_id", f"The custom_id '{custom_id}' is there twice."
    seen.add(custom_id)
    return None


class _Anthropic(_Endpoints):
    """Anthropic's message batches."""

    api = AnthropicMessages()

    def missing(self, what: str) -> ApiError:
        """Return the 404 of an unknown batch."""
        return anthropic_common.error(404, f"Message batch not found: {what}")

    async def create(self, request: Request) -> Response:
        """Create a batch; its params are looked at only when it runs, as with the real one."""
        body = anthropic_common.body_of(await request.body())
        requests = body.get("requests")
        if not isinstance(requests, list) or not 0 < len(requests) <= ANTHROPIC_MOST:
            raise anthropic_common.error(400, f"requests: List should have 1 to {ANTHROPIC_MOST} items")
        _check_custom_ids(requests)
        content = b"\n".join(json.dumps(r).encode() for r in requests)
        kept = self.shelf.add_upload(content, "requests.jsonl", "batch", file_id=f"sandboxin{uuid.uuid4().hex[:16]}")
        batch = Batch(
            id=f"msgbatch_sandbox{uuid.uuid4().hex[:16]}",
            label="messages",
            input=kept["id"],
            n=len(requests),
            metadata={},
            created=self.shelf.now(),
            faults=self.state.faults.as_dict() | {"batch_failed": "", "error_file_only": False},
        )
        self.shelf.add(batch)
        return self.created(self._object(batch, request))

    async def many(self, request: Request) -> Response:
        """List batches, newest first."""
        found, query = self.shelf.newest_first("messages"), request.query_params
        ids, limit = [b.id for b in found], int(query.get("limit", 20))
        start = ids.index(query["after_id"]) + 1 if query.get("after_id") in ids else 0
        page = [self._object(await self.settled(b), request) for b in found[start : start + limit]]
        first, last = (page[0]["id"], page[-1]["id"]) if page else (None, None)
        more = start + limit < len(found)
        return json_response(200, {"data": page, "has_more": more, "first_id": first, "last_id": last}, {})

    async def one(self, request: Request) -> Response:
        """Return a batch."""
        batch = self.batch(request, "messages")
        self.look(batch)
        return json_response(200, self._object(await self.settled(batch), request), {})

    async def cancel(self, request: Request) -> Response:
        """Tell a batch to stop; one that has ended stays as it is."""
        batch = self.batch(request, "messages")
        shown = self._object(batch, request)
        if not batch.has_ended(self.shelf.now()):
            batch.cancelled = self.shelf.now()
            self.shelf.save(batch)
            shown = self._object(batch, request) | {"processing_status": "canceling", "ended_at": None}
        return json_response(200, shown, {})

    async def delete(self, request: Request) -> Response:
        """Delete a batch that has ended."""
        batch = self.batch(request, "messages")
        if not batch.has_ended(self.shelf.now()):
            raise anthropic_common.error(400, "Cannot delete a batch that has not ended; cancel it first.")
        self.shelf.batches.pop(batch.id)
        (self.shelf.folder / f"{batch.id}.batch.json").unlink(missing_ok=True)
        return json_response(200, {"id": batch.id, "type": "message_batch_deleted"}, {})

    async def results(self, request: Request) -> Response:
        """Send the results of a batch that has ended."""
        batch = await self.settled(self.batch(request, "messages"))
        if not batch.is_answered:
            raise anthropic_common.error(404, f"Message batch {batch.id} has not ended; no results yet.")
        names = [name for name in (batch.output, batch.errors) if name]
        return self.sent(b"".join(self.shelf.content(name) for name in names))

    def _object(self, batch: Batch, request: Request) -> JsonObject:
        ended = batch.has_ended(self.shelf.now())
        counts = {k: batch.counts.get(k, 0) for k in ("succeeded", "errored", "canceled", "expired")}
        url = f"{request.base_url}v1/messages/batches/{batch.id}/results"
        return {
            "id": batch.id,
            "type": "message_batch",
            "processing_status": "ended" if ended else "in_progress",
            "request_counts": {"processing": 0 if ended else batch.n, **counts},
            "created_at": _moment(batch.created),
            "expires_at": _moment(batch.created + DAY_S),
            "ended_at": _moment(batch.ends) if ended else None,
            "cancel_initiated_at": None if batch.cancelled is None else _moment(batch.cancelled),
            "archived_at": None,
            "results_url": url if ended else None,
        }


def _check_custom_ids(requests: list[Any]) -> None:
    seen: set[str] = set()
    for i, request in enumerate(requests):
        custom_id = request.get("custom_id") if isinstance(request, dict) else None
        if not isinstance(custom_id, str) or not CUSTOM_ID.fullmatch(custom_id):
            raise anthropic_common.error(400, f"requests.{i}.custom_id: String should match '^[a-zA-Z0-9_-]{{1,64}}$'")
        if custom_id in seen:
            raise anthropic_common.error(400, f"requests.{i}.custom_id: custom_ids must be unique ('{custom_id}')")
        if not isinstance(request.get("params"), dict):
            raise anthropic_common.error(400, f"requests.{i}.params: Field required")
        seen.add(custom_id)


def _moment(at: float) -> str:
    return datetime.datetime.fromtimestamp(at, datetime.UTC).isoformat().replace("+00:00", "Z")
