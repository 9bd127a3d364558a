"""OpenAI's Batch API: a file of requests, a batch of it, and files of results and of errors.

Azure's differs (its ``url`` has no ``/v1``, and a deployment stands for the model) and is not spoken here.
"""

from __future__ import annotations

import json
import logging
import re
from collections.abc import Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any, Literal

from lmsyz.errors import ProviderError
from lmsyz.providers.base import Call, JsonObject, as_dict, as_int, dicts_in, dump_body
from lmsyz.providers.batch_http import ID, BatchHttp, batches_since, ended_or_raise, id_of
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
from lmsyz.providers.openai_faults import error_of

__all__ = ["OpenAIBatches"]

NAME = "openai"
log = logging.getLogger(__name__)

ENDPOINTS = {"chat": "/v1/chat/completions", "responses": "/v1/responses"}
PAGE = 100
# Words of servers that speak OpenAI's API; one still to come is taken for a batch that is not done.
OTHER_STATES = {"canceled": BatchState.CANCELLED, "canceling": BatchState.CANCELLING, "error": BatchState.FAILED}
ENDED_AT = ("completed_at", "failed_at", "expired_at", "cancelled_at")
ENDED_KINDS: dict[str, Literal["expired", "cancelled"]] = {
    "batch_expired": "expired",
    "batch_cancelled": "cancelled",
    "batch_canceled": "cancelled",
}


class OpenAIBatches:
    """OpenAI's Batch API, and that of servers which speak it.

    Parameters
    ----------
    client : openai.OpenAI or None
        A client whose own retries are off; None for one that only writes and reads lines.
    api : str
        ``"chat"`` or ``"responses"``.
    """

    limits = BatchLimits(n_requests=50_000, n_bytes=200_000_000)
    envelope = (b"", b"\n", b"\n")
    keeps_metadata = True

    def __init__(self, client: Any = None, *, api: str = "chat") -> None:
        self._http = BatchHttp(client=client, provider=NAME, error_of=error_of)
        self._endpoint = ENDPOINTS[api]
        self._after_id = f',"method":"POST","url":"{self._endpoint}","body":'

    def request_line(self, custom_id: str, body: JsonObject) -> bytes:
        """Return one request as it stands in an input file."""
        return f'{{"custom_id":{json.dumps(custom_id)}{self._after_id}{dump_body(body)}}}'.encode()

    def read_result(self, line: bytes) -> BatchResult:
        """Read one line of an output or error file."""
        custom_id, payload = loads_line(line)
        response = as_dict(payload.get("response"))
        word = str(response.get("status_code"))
        status = int(word) if re.fullmatch("[0-9]{3}", word) else 200
        body = _unquoted(response.get("body"))
        request_id = str(response.get("request_id") or "")
        if status >= 400:
            fault = Fault(provider=NAME, status=status, error=error_object(body or payload))
            return failed_result(custom_id, error_of(fault), request_id=request_id)
        if isinstance(body, dict):
            return BatchResult(custom_id=custom_id, reply=dump_reply(body), request_id=request_id)
        return _without_reply(custom_id, payload.get("error"))

    def upload(self, path: Path, call: Call) -> str:
        """Upload an input file and return its id."""
        return id_of(self._http.send_file("/files", path, call, form={"purpose": "batch"}), NAME)

    def create(self, path: Path, upload_id: str, metadata: Mapping[str, str], call: Call) -> RemoteBatch:
        """Create a batch of an uploaded file."""
        body = {
            "input_file_id": upload_id,
            "endpoint": self._endpoint,
            "completion_window": "24h",
            "metadata": dict(metadata),
        }
        sought = f"the input file {upload_id}"
        return _read_batch(self._http.ask("post", "/batches", call, body=body, sought=sought, creates=True))

    def retrieve(self, batch_id: str, call: Call) -> RemoteBatch:
        """Return how far a batch has come."""
        sought = f"the batch {batch_id}"
        return _read_batch(self._http.ask("get", f"/batches/{path_id(batch_id)}", call, sought=sought))

    def recent(self, since: float, call: Call) -> Iterator[RemoteBatch]:
        """Go through the account's batches created since a Unix time, newest first."""

        def page_after(cursor: str) -> JsonObject:
            after = {"after": cursor} if cursor else {}
            return self._http.ask("get", "/batches", call, query={"limit": PAGE, **after})

        return batches_since(since, page_after, _read_batch)

    def cancel(self, batch_id: str, call: Call) -> RemoteBatch:
        """Ask to stop a batch; what is answered by then is kept."""
        sought = f"the batch {batch_id}"
        try:
            return _read_batch(self._http.ask("post", f"/batches/{path_id(batch_id)}/cancel", call, sought=sought))
        except ProviderError as error:
            return ended_or_raise(error, partial(self.retrieve, batch_id, call))

    def download(self, file: ResultFile, path: Path, call: Call) -> None:
        """Fetch a result file."""
        sought = f"the {file.kind} file {file.remote}"
        self._http.fetch_file(f"/files/{path_id(file.remote)}/content", path, call, sought=sought)

    def delete_upload(self, upload_id: str, call: Call) -> None:
        """Delete an input file that no batch came of."""
        try:
            self._http.ask("delete", f"/files/{path_id(upload_id)}", call, sought=f"the file {upload_id}")
        except ProviderError as error:
            log.debug("an input file stays behind: %s", error)


def _unquoted(body: object) -> object:
    """Return a body that a server wrote as a text of JSON as what it says."""
    if not isinstance(body, str):
        return body
    try:
        return json.loads(body)
    except (ValueError, RecursionError):
        return body


def _without_reply(custom_id: str, error: object) -> BatchResult:
    fault = Fault(provider=NAME, status=None, error=error_object(error))
    code = str(fault.error.get("code") or fault.error.get("type") or "")
    said = ": ".join(w for w in (hide_keys(code), fault.words) if w) or "the result holds neither a reply nor an error"
    kind: Literal["error", "expired", "cancelled"] = ENDED_KINDS.get(code, "error")
    return BatchResult(
        custom_id=custom_id,
        reason=f"{'cancelled' if kind == 'cancelled' else 'failed'}: {said}",
        kind=kind,
        is_permanent="invalid" in code,
    )


def _read_batch(payload: JsonObject) -> RemoteBatch:
    batch_id = id_of(payload, NAME)
    word = str(payload.get("status")).lower()
    state = BatchState(word) if word in list(BatchState) else OTHER_STATES.get(word, BatchState.IN_PROGRESS)
    counts = as_dict(payload.get("request_counts"))
    return RemoteBatch(
        id=batch_id,
        state=state,
        n_total=as_int(counts.get("total")),
        n_ok=as_int(counts.get("completed")),
        n_failed=as_int(counts.get("failed")),
        created=unix_s(payload.get("created_at")),
        expires=unix_s(payload.get("expires_at")),
        ended=next((t for t in (unix_s(payload.get(name)) for name in ENDED_AT) if t is not None), None),
        result_files=_result_files(payload) if state.is_terminal else (),
        problems=tuple(_problems(payload.get("errors"))),
        metadata={str(k): str(v) for k, v in as_dict(payload.get("metadata")).items()},
    )


def _result_files(payload: JsonObject) -> tuple[ResultFile, ...]:
    """Return both files, of which any may be missing in any state; some servers name none with an empty text."""
    kinds: tuple[Literal["output", "error"], ...] = ("output", "error")
    named = ((kind, payload.get(f"{kind}_file_id")) for kind in kinds)
    found = [(kind, remote) for kind, remote in named if isinstance(remote, str) and ID.fullmatch(remote)]
    return tuple(ResultFile(kind=kind, remote=remote) for kind, remote in found)


def _problems(errors: object) -> Iterator[BatchProblem]:
    for error in dicts_in(errors if isinstance(errors, list) else as_dict(errors).get("data")):
        code, message = (hide_keys(str(error.get(name) or "")) for name in ("code", "message"))
        yield BatchProblem(code=code, message=message, line=as_int(error.get("line")))
