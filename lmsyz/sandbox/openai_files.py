"""OpenAI's files: ``/v1/files`` and what is below it."""

from __future__ import annotations

import asyncio
from typing import IO, Any

from starlette.datastructures import FormData, UploadFile
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from lmsyz.sandbox import openai_common as common
from lmsyz.sandbox.batch_endpoints import Endpoints, number_in
from lmsyz.sandbox.batch_shelf import opened_private
from lmsyz.sandbox.batches import DAY_S
from lmsyz.sandbox.control import json_response
from lmsyz.sandbox.openai_chat import OpenAIChat
from lmsyz.sandbox.sending import Dropped
from lmsyz.sandbox.shapes import integer, literal, obj, string
from lmsyz.sandbox.wire import ApiError, JsonObject

__all__ = ["EXPIRES_AFTER", "OpenAIFiles", "page_after"]

LARGEST = 200 * 1024 * 1024
LIFE_S = 30 * DAY_S  # of a batch's input where nothing else is asked for
BLOCK = 1024 * 1024
EXPIRES_AFTER = obj("anchor seconds", anchor=literal("created_at"), seconds=integer(3600, 2_592_000))
UPLOAD = obj("purpose", purpose=literal("batch"), expires_after=EXPIRES_AFTER)
QUERY = obj(limit=integer(1, 10_000), order=literal("asc", "desc"), after=string(), purpose=string())


class OpenAIFiles(Endpoints):
    """The files."""

    api = OpenAIChat()
    label = "files"

    def routes(self) -> list[Route]:
        """Return the routes."""
        return [
            self.route("POST", "/v1/files", self.upload),
            self.route("GET", "/v1/files", self.many),
            self.route("GET", "/v1/files/{id}", self.one),
            self.route("DELETE", "/v1/files/{id}", self.delete),
            self.route("GET", "/v1/files/{id}/content", self.download),
        ]

    def missing(self, what: str) -> ApiError:
        """Return the 404 of an unknown file."""
        return common.error(404, f"No such File object: {what}", param="id")

    async def upload(self, request: Request) -> Response:
        """Take a file, straight to disk."""
        if int(request.headers.get("content-length") or 0) > LARGEST + BLOCK:
            raise _too_large()
        try:
            async with request.form(max_files=1) as form:
                found = await self._taken(form)
        except (HTTPException, ValueError) as error:  # the parser's own, which an early Starlette 1 lets through
            raise common.error(400, f"The form could not be read: {getattr(error, 'detail', error)}") from None
        self.state.n_uploads += 1
        return Dropped() if self.falls("upload_dropped") else json_response(200, found, {})

    async def _taken(self, form: FormData) -> JsonObject:
        file = form.get("file")
        if not isinstance(file, UploadFile):
            raise common.error(400, "'file' is a required property", param="file")
        fields = _fields(form)
        common.check_body(fields, UPLOAD)
        if (file.size or 0) > LARGEST:
            raise _too_large()
        path = self.shelf.new_path()
        await asyncio.to_thread(_copy, file.file, path)
        life_s = fields.get("expires_after", {}).get("seconds", LIFE_S)
        return self.shelf.take_file(path, file.filename or "upload", "batch", life_s=life_s)

    async def many(self, request: Request) -> Response:
        """List the files."""
        query: JsonObject = dict(request.query_params) | {"limit": number_in(request, "limit", 10_000)}
        common.check_body(query, QUERY)
        found = [f for f in self.shelf.newest_files() if query.get("purpose") in (None, f["purpose"])]
        if query.get("order") == "asc":
            found.reverse()
        query = self.followed(query, [f["id"] for f in found])
        return json_response(200, page_after(found, query, self.missing), {})

    async def one(self, request: Request) -> Response:
        """Return a file's object."""
        return json_response(200, self._file(request), {})

    async def delete(self, request: Request) -> Response:
        """Delete a file; a batch that was created of it goes on."""
        file_id = self._file(request)["id"]
        self.shelf.drop_file(file_id)
        return json_response(200, {"id": file_id, "object": "file", "deleted": True}, {})

    async def download(self, request: Request) -> Response:
        """Send a file."""
        found = self._file(request)
        if found["purpose"] == "batch_output" and self.state.faults.results_gone:
            self.state.fell("results_gone")
            raise self.missing(found["id"])
        return self.sent(request, self.shelf.file_path(found["id"]))

    def _file(self, request: Request) -> JsonObject:
        found = self.shelf.file(request.path_params["id"])
        if found is None:
            raise self.missing(request.path_params["id"])
        return found


def page_after(found: list[JsonObject], query: JsonObject, missing: Any) -> JsonObject:
    """Return a page of a list as OpenAI gives it."""
    start, after = 0, query.get("after")
    if after is not None:
        ids = [each["id"] for each in found]
        if after not in ids:
            raise missing(after)
        start = ids.index(after) + 1
    page = found[start : start + query["limit"]]
    return {
        "object": "list",
        "data": page,
        "first_id": page[0]["id"] if page else None,
        "last_id": page[-1]["id"] if page else None,
        "has_more": start + len(page) < len(found),
    }


def _fields(form: FormData) -> JsonObject:
    """Return the form's fields but the file, with ``expires_after[...]`` as an object."""
    fields: JsonObject = {}
    for name, value in form.multi_items():
        if name == "file":
            continue
        if name.startswith("expires_after[") and name.endswith("]"):
            inner = name[len("expires_after[") : -1]
            number = isinstance(value, str) and value.isdigit()
            fields.setdefault("expires_after", {})[inner] = int(str(value)) if number else value
        else:
            fields[name] = value
    return fields


def _copy(source: IO[bytes], path: Any) -> None:
    source.seek(0)
    with opened_private(path) as target:
        while block := source.read(BLOCK):
            target.write(block)


def _too_large() -> ApiError:
    said = f"The batch input file is larger than the {LARGEST} maximum. Please try again with a smaller batch."
    return common.error(400, said, param="file")
