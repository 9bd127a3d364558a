"""What a provider's batch API is: three pure parts and seven calls, in one vocabulary for all.

A batch carries the bodies that a live call would carry; :meth:`Batches.request_line` and :meth:`Batches.read_result`
are all that is written for it, ``build`` and ``parse`` are the provider's. The calls go through the SDK client's own
plain methods, once each; whatever happens becomes one of our errors, and its class tells a caller that creates whether
there may be a batch now (:func:`batch_error`).
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from enum import StrEnum
from pathlib import Path
from typing import Literal, Protocol
from urllib.parse import quote

from lmsyz.errors import (
    BlockedError,
    MalformedError,
    ProviderError,
    RateLimitError,
    RejectedError,
    RequestError,
    UnavailableError,
    UsageError,
)
from lmsyz.providers.base import Call, JsonObject
from lmsyz.providers.faults import Fault, hide_keys, plain_error

__all__ = [
    "BatchLimits",
    "BatchProblem",
    "BatchResult",
    "BatchState",
    "Batches",
    "RemoteBatch",
    "ResultFile",
    "batch_error",
]

TERMINAL = ("completed", "failed", "expired", "cancelled")
TOKEN_LIMIT = "token_limit_exceeded"
INPUT_FILE = "input_file_id"
KEYLESS_STATUSES = (401, 402, 403)
NO_BATCH_API = "has this endpoint a batch API, and is base_url right? OpenAI's ends in /v1, Anthropic's does not"
LATEST_S = 2.0**33  # the year 2242: what is later is no Unix time in seconds
_encode = json.JSONEncoder(ensure_ascii=False, separators=(",", ":")).encode


class BatchState(StrEnum):
    """How far a provider says that a batch has come."""

    VALIDATING = "validating"
    IN_PROGRESS = "in_progress"
    FINALIZING = "finalizing"
    CANCELLING = "cancelling"
    COMPLETED = "completed"
    FAILED = "failed"
    EXPIRED = "expired"
    CANCELLED = "cancelled"

    @property
    def is_terminal(self) -> bool:
        """Whether nothing more will come; results there are may be fetched, in every one of these states."""
        return self.value in TERMINAL


@dataclass(frozen=True, slots=True, kw_only=True)
class ResultFile:
    """Something to download: a file id at OpenAI, the batch's own id at Anthropic."""

    kind: Literal["output", "error"]
    remote: str


@dataclass(frozen=True, slots=True, kw_only=True)
class BatchProblem:
    """What a provider says against a batch as a whole, with the line of the input file where it names one."""

    code: str
    message: str
    line: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class RemoteBatch:
    """A batch as the provider tells of it.

    Parameters
    ----------
    id : str
        The provider's name for it.
    state : BatchState
        How far it has come.
    n_total, n_ok, n_failed : int or None
        Requests in it, answered and failed; None where the provider does not tell (yet).
    created, expires, ended : float or None
        Unix times.
    result_files : tuple of ResultFile
        What can be downloaded now.
    problems : tuple of BatchProblem
        What the provider says against it.
    metadata : mapping
        What it was created with, where the provider keeps that.
    """

    id: str
    state: BatchState
    n_total: int | None = None
    n_ok: int | None = None
    n_failed: int | None = None
    created: float | None = None
    expires: float | None = None
    ended: float | None = None
    result_files: tuple[ResultFile, ...] = ()
    problems: tuple[BatchProblem, ...] = ()
    metadata: Mapping[str, str] = field(default_factory=dict)

    @property
    def is_over_token_limit(self) -> bool:
        """Whether it failed only since too many tokens wait already: create it again once there is room."""
        return self.state is BatchState.FAILED and any(p.code == TOKEN_LIMIT for p in self.problems)


@dataclass(frozen=True, slots=True, kw_only=True)
class BatchLimits:
    """What one input file may hold."""

    n_requests: int
    n_bytes: int


@dataclass(frozen=True, slots=True, kw_only=True)
class BatchResult:
    """One line of a result file.

    Parameters
    ----------
    custom_id : str
        Which request it is of.
    reply : str or None
        The reply's body as JSON text, as a live reply's would be; None where there is none.
    reason : str
        Why there is none, as ``ie_error`` shows it.
    kind : str
        ``"reply"``, ``"error"``, ``"expired"`` or ``"cancelled"``.
    is_permanent : bool
        Whether the same request would fail again.
    request_id : str
        The provider's id of this one exchange.
    """

    custom_id: str
    reply: str | None = None
    reason: str = ""
    kind: Literal["reply", "error", "expired", "cancelled"] = "reply"
    is_permanent: bool = False
    request_id: str = ""


class Batches(Protocol):
    """A provider's batch API.

    ``limits`` are the provider's own. ``envelope`` is what stands before, between and after the request lines in an
    input file, which then is exactly what is sent. ``keeps_metadata`` tells whether a batch comes back with what it was
    created with.

    No call is tried twice here. One that creates raises UnavailableError where there may be a batch now (no answer, a
    lost connection, a 5xx, an answer that is none), and any other error where there is none for sure: RateLimitError to
    try again later, RejectedError, RequestError and TooLongError for a refusal. What is asked for by an id that is not
    there raises a RequestError with ``status=404``.

    A call's deadline holds for all of it; sending and fetching files have, beside it, a second for every 32 KiB, and no
    more than a minute without a byte.
    """

    limits: BatchLimits
    envelope: tuple[bytes, bytes, bytes]
    keeps_metadata: bool

    def request_line(self, custom_id: str, body: JsonObject) -> bytes:
        """Return one request as it stands in an input file; its body is that of a live call, byte for byte. Pure."""

    def read_result(self, line: bytes) -> BatchResult:
        """Read one line of a result file. Pure. Raises MalformedError for a line that is no result."""

    def upload(self, path: Path, call: Call) -> str:
        """Send an input file ahead and return its id there; empty where the provider takes it with the batch."""

    def create(self, path: Path, upload_id: str, metadata: Mapping[str, str], call: Call) -> RemoteBatch:
        """Create a batch: the call that costs money."""

    def retrieve(self, batch_id: str, call: Call) -> RemoteBatch:
        """Return how far a batch has come."""

    def recent(self, since: float, call: Call) -> Iterator[RemoteBatch]:
        """Go through the account's batches created since a Unix time, newest first, fetching pages as needed."""

    def cancel(self, batch_id: str, call: Call) -> RemoteBatch:
        """Ask to stop a batch; what is answered by then is kept. One that has ended is returned as it is."""

    def download(self, file: ResultFile, path: Path, call: Call) -> None:
        """Fetch a result file, all of it or an error; what a broken download brought is gone on from the next time."""

    def delete_upload(self, upload_id: str, call: Call) -> None:
        """Take back an input file that no batch came of; a failure is not worth an error."""


def batch_error(
    fault: Fault, error_of: Callable[[Fault], ProviderError], *, sought: str = "", creates: bool = False
) -> ProviderError:
    """Return our error for what a batch API said. Pure.

    Parameters
    ----------
    fault : Fault
        Status, error object and headers.
    error_of : callable
        The provider's error map of live calls.
    sought : str
        What was asked for by its id; empty for a call that names nothing.
    creates : bool
        Whether the call would have created a batch: only a clear refusal tells that it has not.

    Returns
    -------
    ProviderError
        UnavailableError for every 5xx of a call that creates, whatever its words.
    """
    status = fault.status or 0
    if sought and status in (404, 410):
        hint = f"{sought} is not there: only just made, deleted, past its retention, or of another account"
        return fault.as_error(RequestError, hint=hint)
    if TOKEN_LIMIT in fault.codes:
        return fault.as_error(RateLimitError, hint="too many tokens wait there already")
    if status in (404, 405, 501):
        return fault.as_error(RejectedError, hint=NO_BATCH_API)
    plain = plain_error(fault)
    if status >= 500:
        # The live map reads meaning into some 500s; here one must not pass for a refusal.
        is_refusal = isinstance(plain, RejectedError) or not creates
        return plain if plain is not None and is_refusal else fault.as_error(UnavailableError)
    if plain is None and fault.param == INPUT_FILE:
        return fault.as_error(RequestError)  # of our own making, where the live map would blame an option of the call
    return error_of(fault)


def failed_result(custom_id: str, error: ProviderError, *, request_id: str = "") -> BatchResult:
    """Return the result of a request that the provider could not answer."""
    is_permanent = isinstance(error, (RequestError, RejectedError)) and error.status not in KEYLESS_STATUSES
    word = "refused" if isinstance(error, BlockedError) else "failed"
    return BatchResult(
        custom_id=custom_id,
        reason=f"{word}: {error}",
        kind="error",
        is_permanent=is_permanent,
        request_id=request_id,
    )


def loads_line(line: bytes) -> tuple[str, JsonObject]:
    """Read a result line's JSON object and its custom_id."""
    try:
        payload = json.loads(line)
    except (ValueError, RecursionError):
        payload = None
    custom_id = payload.get("custom_id") if isinstance(payload, dict) else None
    if not isinstance(custom_id, str) or not custom_id:
        shown = hide_keys(line[:80].decode("utf-8", "replace"))
        raise MalformedError(f"not a line of batch results: {shown!r}")
    return custom_id, payload


def dump_reply(body: JsonObject) -> str:
    """Return a reply's body as JSON text that has a UTF-8 form."""
    text = _encode(body)
    try:
        text.encode()
    except UnicodeEncodeError:
        return json.dumps(body, separators=(",", ":"))  # half a character, which only an escape can write
    return text


def unix_s(value: object) -> float | None:
    """Return a time as Unix seconds, from a number or an RFC 3339 text; None for anything else.

    Examples
    --------
    >>> unix_s("1970-01-01T00:01:00Z"), unix_s(60), unix_s(None)
    (60.0, 60.0, None)
    """
    if isinstance(value, (int, float)) and not isinstance(value, bool):
        return float(value) if 0 <= value < LATEST_S else None
    if not isinstance(value, str):
        return None
    try:
        time = datetime.fromisoformat(value)
    except ValueError:
        return None
    return unix_s((time if time.tzinfo else time.replace(tzinfo=UTC)).timestamp())


def path_id(remote: str) -> str:
    """Return an id as it may stand in a URL's path."""
    if not remote or not remote.strip("."):
        raise UsageError(f"{remote!r} is no id of a batch or a file at a provider")
    return quote(remote, safe="")
