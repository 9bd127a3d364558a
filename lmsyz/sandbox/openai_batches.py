"""OpenAI's batches: ``/v1/batches`` and what is below it."""

from __future__ import annotations

import asyncio

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from lmsyz.sandbox import openai_common as common
from lmsyz.sandbox.batch_endpoints import Endpoints, number_in
from lmsyz.sandbox.batch_input import Checked, check_openai
from lmsyz.sandbox.batches import DAY_S, OPENAI_LABELS, Batch, problem
from lmsyz.sandbox.control import json_response
from lmsyz.sandbox.openai_chat import OpenAIChat
from lmsyz.sandbox.openai_files import EXPIRES_AFTER, page_after
from lmsyz.sandbox.shapes import integer, literal, mapping, maybe, obj, string
from lmsyz.sandbox.wire import ApiError, JsonObject

__all__ = ["OpenAIBatches"]

ENDPOINTS = {"/v1/chat/completions": "chat", "/v1/responses": "responses"}
PATHS = {label: path for path, label in ENDPOINTS.items()}
MOST_PAIRS, LONGEST_KEY = 16, 64
CREATE = obj(
    "input_file_id endpoint completion_window",
    input_file_id=string(low=1),
    endpoint=literal(*ENDPOINTS),
    completion_window=literal("24h"),
    metadata=maybe(mapping(string(high=512))),
    output_expires_after=EXPIRES_AFTER,
)
QUERY = obj(limit=integer(1, 100), after=string())
ENDED = ("completed", "expired", "cancelled", "failed")


class OpenAIBatches(Endpoints):
    """The batches."""

    api = OpenAIChat()
    label = "batches"
    labels = OPENAI_LABELS

    def routes(self) -> list[Route]:
        """Return the routes."""
        return [
            self.route("POST", "/v1/batches", self.create, keeps_body=True),
            self.route("GET", "/v1/batches", self.many),
            self.route("GET", "/v1/batches/{id}", self.one),
            self.route("POST", "/v1/batches/{id}/cancel", self.cancel),
        ]

    def missing(self, what: str) -> ApiError:
        """Return the 404 of an unknown batch."""
        return common.error(404, f"No batch found with id '{what}'.")

    async def create(self, request: Request) -> Response:
        """Create a batch; what is wrong with its file is told afterwards."""
        body = common.body_of(await request.body())
        common.check_body(body, CREATE)
        _check_metadata(body.get("metadata") or {})
        file = self.shelf.file(body["input_file_id"])
        if file is None:
            raise common.error(400, f"No such File object: {body['input_file_id']}", param="input_file_id")
        if file["purpose"] != "batch":
            said = f"Invalid file purpose: expected 'batch', but got '{file['purpose']}'."
            raise common.error(400, said, param="input_file_id")
        path = self.shelf.file_path(file["id"])
        checked = await asyncio.to_thread(check_openai, path, body["endpoint"])
        if said := self.too_many(checked.n):
            raise common.error(400, said, param="input_file_id")
        batch = self.new_batch(
            "batch",
            ENDPOINTS[body["endpoint"]],
            input_file_id=file["id"],
            n=checked.n,
            n_rows=checked.n_rows,
            model=checked.model,
            metadata=body.get("metadata"),
            result_life_s=body.get("output_expires_after", {}).get("seconds", 30 * DAY_S),
            problems=self._problems(checked),
        )
        self.shelf.add(batch, path, keep=True)
        return self.created(self._object(batch))

    def _problems(self, checked: Checked) -> list[JsonObject]:
        """Return what will fail a batch: its file, the faults, or what is on its way already."""
        faults = self.state.faults
        if checked.problems:
            return checked.problems
        if faults.batch_failed:
            self.state.fell("batch_failed")
            return [problem(faults.batch_failed, "The sandbox fails this batch, as its faults ask it to.", line=1)]
        if faults.out_of_quota:
            self.state.fell("out_of_quota")
            return [problem("billing_hard_limit_reached", "Billing hard limit has been reached.")]
        now, limit = self.shelf.now(), faults.token_limit_batches
        n_busy = sum(not b.is_over(now) and not b.problems for b in self.shelf.newest_first(*OPENAI_LABELS))
        if limit and n_busy >= limit:
            self.state.fell("token_limit_batches")
            said = (
                f"Enqueued token limit reached for {checked.model} in organization sandbox. Please try again once"
                " some in_progress batches have been completed."
            )
            return [problem("token_limit_exceeded", said)]
        return []

    async def many(self, request: Request) -> Response:
        """List the batches, newest first."""
        query: JsonObject = dict(request.query_params) | {"limit": number_in(request, "limit", 20)}
        common.check_body(query, QUERY)
        found = self.shelf.newest_first(*OPENAI_LABELS)
        query = self.followed(query, [b.id for b in found])
        page = page_after([{"id": b.id} for b in found], query, self.missing)
        batches = [self.shelf.batches[each["id"]] for each in page["data"]]
        await self.runner.settle(*batches)
        return json_response(200, page | {"data": [self._object(b) for b in batches]}, {})

    async def one(self, request: Request) -> Response:
        """Return a batch."""
        return json_response(200, self._object(await self.looked_at(request)), {})

    async def cancel(self, request: Request) -> Response:
        """Tell a batch to stop."""
        batch, now = self.batch(request), self.shelf.now()
        await self.runner.settle(batch)
        if batch.is_over(now) or batch.cancelled is not None:
            raise common.error(400, f"Cannot cancel a batch with status '{batch.state(now)}'.")
        batch.cancelled = now
        self.shelf.save(batch)
        return json_response(200, self._object(batch), {})

    def _object(self, batch: Batch) -> JsonObject:
        now = self.shelf.now()
        state = batch.state(now)
        has_ended = batch.has_ended(now)
        errors = {"object": "list", "data": batch.problems} if state == "failed" else None
        return {
            "id": batch.id,
            "object": "batch",
            "endpoint": PATHS[batch.label],
            "model": batch.model or None,
            "errors": errors,
            "input_file_id": batch.input_file_id,
            "completion_window": "24h",
            "status": state,
            "output_file_id": (batch.output or None) if has_ended else None,
            "error_file_id": (batch.errors or None) if has_ended else None,
            **_moments(batch, now, state),
            "request_counts": _counts(batch, now, state),
            "usage": _usage(batch) if has_ended and state != "failed" else None,
            "metadata": batch.metadata,
        }


def _check_metadata(metadata: dict[str, str]) -> None:
    if len(metadata) > MOST_PAIRS:
        said = (
            f"Invalid 'metadata': too many properties. Expected an object with at most {MOST_PAIRS} properties, but"
            f" got an object with {len(metadata)} properties instead."
        )
        raise common.error(400, said, param="metadata", code="object_above_max_properties")
    for key in metadata:
        if len(key) > LONGEST_KEY:
            said = f"Invalid property name in 'metadata': '{key[:LONGEST_KEY]}...' is longer than {LONGEST_KEY}."
            raise common.error(400, said, param="metadata", code="property_name_above_max_length")


def _moments(batch: Batch, now: float, state: str) -> JsonObject:
    def passed(moment: float | None) -> int | None:
        return None if moment is None or now < moment or state == "failed" else int(moment)

    began = batch.begins if batch.cancelled is None or batch.cancelled > batch.begins else None
    ended: JsonObject = {f"{word}_at": int(batch.ends) if word == state else None for word in ENDED}
    return {
        "created_at": int(batch.created),
        "in_progress_at": passed(began),
        "expires_at": None if batch.options.loose_batches else int(batch.expires),
        "finalizing_at": passed(batch.finalizes if batch.cancelled is None else None),
        "cancelling_at": passed(batch.cancelled),
        **ended,
    }


def _counts(batch: Batch, now: float, state: str) -> JsonObject:
    if state in ("validating", "failed"):
        return {"total": 0, "completed": 0, "failed": 0}
    if batch.has_ended(now):
        # Those whose turn did not come are counted nowhere but in the total.
        done, failed = batch.counts.get("succeeded", 0), batch.counts.get("errored", 0)
    else:
        done, failed = batch.n_run_by(now), 0
    return {"total": batch.n, "completed": done, "failed": failed}


def _usage(batch: Batch) -> JsonObject:
    told = {name: batch.usage.get(name, 0) for name in ("input_tokens", "output_tokens")}
    return {
        **told,
        "input_tokens_details": {"cached_tokens": batch.usage.get("cached_tokens", 0)},
        "output_tokens_details": {"reasoning_tokens": batch.usage.get("reasoning_tokens", 0)},
        "total_tokens": sum(told.values()),
    }
