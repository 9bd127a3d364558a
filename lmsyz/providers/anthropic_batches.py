"""Anthropic's Message Batches: one body with all requests, and one file of results.

A create takes neither metadata nor an idempotency key, so a batch that may have been created is found again only by
looking through :meth:`AnthropicBatches.recent`.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any

from lmsyz.errors import ProviderError
from lmsyz.providers.anthropic_faults import error_of, status_of_type
from lmsyz.providers.base import Call, JsonObject, as_dict, as_int, dump_body
from lmsyz.providers.batch_http import BatchHttp, batches_since, ended_or_raise, id_of
from lmsyz.providers.batches import (
    BatchLimits,
    BatchProblem,
    BatchResult,
    BatchState,
    RemoteBatch,
    ResultFile,
    dump_reply,
    failed_result,
    loads_line,
    path_id,
    unix_s,
)
from lmsyz.providers.faults import Fault, error_object, hide_keys

__all__ = ["AnthropicBatches"]

NAME = "anthropic"
PATH = "/v1/messages/batches"
PAGE = 100
COUNTS = ("processing", "succeeded", "errored", "canceled", "expired")
ARCHIVED = BatchProblem(code="archived", message="the results are past their retention and were deleted")


class AnthropicBatches:
    """Anthropic's Message Batches.

    Parameters
    ----------
    client : anthropic.Anthropic or None
        A client whose own retries are off; None for one that only writes and reads lines.
    """

    limits = BatchLimits(n_requests=100_000, n_bytes=256_000_000)
    envelope = (b'{"requests":[', b",", b"]}")
    keeps_metadata = False

    def __init__(self, client: Any = None) -> None:
        self._http = BatchHttp(client=client, provider=NAME, error_of=error_of)

    def request_line(self, custom_id: str, body: JsonObject) -> bytes:
        """Return one request as it stands in an input file."""
        return f'{{"custom_id":{json.dumps(custom_id)},"params":{dump_body(body)}}}'.encode()

    def read_result(self, line: bytes) -> BatchResult:
        """Read one line of the results."""
        custom_id, payload = loads_line(line)
        result = as_dict(payload.get("result"))
        # By the word alone: the SDK takes a type that it does not know for a success.
        kind = result.get("type")
        message = result.get("message")
        if kind == "succeeded" and isinstance(message, dict):
            return BatchResult(custom_id=custom_id, reply=dump_reply(message))
        if kind == "errored":
            return _errored(custom_id, result)
        if kind == "expired":
            reason = "failed: batch_expired: the batch's time was over before its turn"
            return BatchResult(custom_id=custom_id, reason=reason, kind="expired")
        if kind == "canceled":
            reason = "cancelled: the batch was cancelled before its turn"
            return BatchResult(custom_id=custom_id, reason=reason, kind="cancelled")
        said = "holds no message" if kind == "succeeded" else f"is of an unknown type, {hide_keys(str(kind))[:80]!r}"
        return BatchResult(custom_id=custom_id, reason=f"failed: the result {said}", kind="error")

    def upload(self, path: Path, call: Call) -> str:
        """Send nothing: the file goes with the batch."""
        return ""

    def create(self, path: Path, upload_id: str, metadata: Mapping[str, str], call: Call) -> RemoteBatch:
        """Create a batch of a file, whose bytes are the body; there is no place for metadata."""
        return _read_batch(self._http.send_file(PATH, path, call, creates=True))

    def retrieve(self, batch_id: str, call: Call) -> RemoteBatch:
        """Return how far a batch has come."""
        return _read_batch(self._http.ask("get", f"{PATH}/{path_id(batch_id)}", call, sought=f"the batch {batch_id}"))

    def recent(self, since: float, call: Call) -> Iterator[RemoteBatch]:
        """Go through the workspace's batches created since a Unix time, newest first."""

        def page_after(cursor: str) -> JsonObject:
            after = {"after_id": cursor} if cursor else {}
            return self._http.ask("get", PATH, call, query={"limit": PAGE, **after})

        return batches_since(since, page_after, _read_batch)

    def cancel(self, batch_id: str, call: Call) -> RemoteBatch:
        """Ask to stop a batch; what is answered by then is kept."""
        sought = f"the batch {batch_id}"
        try:
            return _read_batch(self._http.ask("post", f"{PATH}/{path_id(batch_id)}/cancel", call, sought=sought))
        except ProviderError as error:
            return ended_or_raise(error, partial(self.retrieve, batch_id, call))

    def download(self, file: ResultFile, path: Path, call: Call) -> None:
        """Fetch the results."""
        # Not by the batch's results_url: behind a gateway it names another host, which would be sent the key.
        source = f"{PATH}/{path_id(file.remote)}/results"
        self._http.fetch_file(source, path, call, sought=f"the results of batch {file.remote}")

    def delete_upload(self, upload_id: str, call: Call) -> None:
        """Delete nothing: nothing was uploaded."""


def _errored(custom_id: str, result: JsonObject) -> BatchResult:
    given = as_dict(result.get("error"))
    error = error_object(given or {"message": result.get("message")})
    fault = Fault(provider=NAME, status=status_of_type(error), error=error)
    return failed_result(custom_id, error_of(fault), request_id=str(given.get("request_id") or ""))


def _read_batch(payload: JsonObject) -> RemoteBatch:
    batch_id = id_of(payload, NAME)
    counts = {name: as_int(as_dict(payload.get("request_counts")).get(name)) or 0 for name in COUNTS}
    state = _state_of(payload, counts)
    is_archived = payload.get("archived_at") is not None
    has_files = state.is_terminal and not is_archived
    failed = counts["errored"] + counts["canceled"] + counts["expired"]
    return RemoteBatch(
        id=batch_id,
        state=state,
        n_total=sum(counts.values()) or None,
        # Until all of a batch has ended, everything counts as being processed.
        n_ok=counts["succeeded"] if state.is_terminal else None,
        n_failed=failed if state.is_terminal else None,
        created=unix_s(payload.get("created_at")),
        expires=unix_s(payload.get("expires_at")),
        ended=unix_s(payload.get("ended_at")),
        result_files=(ResultFile(kind="output", remote=batch_id),) if has_files else (),
        problems=(ARCHIVED,) if is_archived else (),
    )


def _state_of(payload: JsonObject, counts: Mapping[str, int]) -> BatchState:
    """Say in OpenAI's words what ``ended`` leaves open: any request that expired, or was cancelled, names the end."""
    status = payload.get("processing_status")
    if status != "ended":
        return BatchState.CANCELLING if status == "canceling" else BatchState.IN_PROGRESS
    if counts["expired"]:
        return BatchState.EXPIRED
    nothing_told = not any(counts.values())
    if counts["canceled"] or (nothing_told and payload.get("cancel_initiated_at")):
        return BatchState.CANCELLED
    return BatchState.COMPLETED
