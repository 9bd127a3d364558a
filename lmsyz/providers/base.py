"""What a provider is: two pure functions over plain dicts, and the calls that carry them.

``build(task, user, form) -> body`` and ``parse(text) -> Reply`` hold a wire format, written once and used by live and
batch alike; ``send`` carries one body. Everything an SDK raises is turned into our own errors here, once, by status
and code, so that nothing above this package knows an SDK.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, Protocol

from lmsyz.errors import (
    ProviderError,
    RateLimitError,
    RejectedError,
    TooLongError,
    UnavailableError,
)
from lmsyz.ratelimit import retry_after_s
from lmsyz.task import Task

__all__ = [
    "Call",
    "Form",
    "Provider",
    "Raw",
    "Reply",
    "Stop",
    "Usage",
    "call_options",
    "dump_body",
    "read_body",
]

MAX_REPLY_BYTES = (
    64 * 1024 * 1024
)  # no provider's reply comes near; a body without end must not fill the memory
CALL_OPTIONS = ("extra_headers", "extra_query", "extra_body", "timeout")

JsonObject = dict[str, Any]


class Form(StrEnum):
    """A way of asking for structured output, from the strictest to none."""

    SCHEMA = "json_schema"
    TOOL = "tool"
    OBJECT = "json_object"
    TEXT = "text"


class Stop(StrEnum):
    """Why a reply ended."""

    COMPLETE = "complete"
    TRUNCATED = "truncated"
    REFUSED = "refused"
    FILTERED = "filtered"


@dataclass(frozen=True, slots=True, kw_only=True)
class Usage:
    """Tokens of one exchange; ``input_tokens`` includes what was read from and written to a prompt cache.

    None means that the server did not say.
    """

    input_tokens: int | None = None
    output_tokens: int | None = None
    cached_tokens: int | None = None
    cache_write_tokens: int | None = None
    reasoning_tokens: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Reply:
    """One reply as read from the wire, before it is held against its rows."""

    text: str
    stop: Stop
    detail: str = ""
    model: str = ""
    usage: Usage = field(default_factory=Usage)


@dataclass(frozen=True, slots=True, kw_only=True)
class Raw:
    """One HTTP answer with status 200: its exact text and its headers (lower-case names)."""

    text: str
    headers: Mapping[str, str]
    latency_s: float

    @property
    def request_id(self) -> str:
        """The provider's id for this exchange, empty where it gave none."""
        return self.headers.get("x-request-id") or self.headers.get("request-id") or ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Call:
    """What travels beside a body: extra headers, extra query, and the time a call may take in all."""

    headers: Mapping[str, str] = field(default_factory=dict)
    query: Mapping[str, Any] = field(default_factory=dict)
    deadline_s: float = 600.0


class Provider(Protocol):
    """What every provider has; a batch API will add its own calls to the same object."""

    name: str

    def forms(self, task: Task) -> tuple[Form, ...]:
        """Return the ways to ask for structured output, best first."""

    def build(self, task: Task, user: str, form: Form) -> JsonObject:
        """Return the request body for one user message. Pure."""

    def parse(self, text: str) -> Reply:
        """Read a reply body. Pure. Raises our errors for a 200 that is no reply."""

    def send(self, body: JsonObject, call: Call) -> Raw:
        """Send one body once, without any retry."""


def call_options(options: Mapping[str, Any], *, deadline_s: float) -> Call:
    """Take out of the request options what does not belong into the body."""
    timeout = options.get("timeout")
    return Call(
        headers=dict(options.get("extra_headers") or {}),
        query=dict(options.get("extra_query") or {}),
        deadline_s=float(timeout) if isinstance(timeout, (int, float)) else deadline_s,
    )


def body_options(options: Mapping[str, Any]) -> JsonObject:
    """Return the request options that go into the body as they are, ``extra_body`` merged in."""
    body = {k: v for k, v in options.items() if k not in CALL_OPTIONS}
    body.update(options.get("extra_body") or {})
    return body


def dump_body(body: Mapping[str, Any]) -> str:
    """Return a body's JSON text exactly as both SDKs write it on the wire."""
    return json.dumps(body, ensure_ascii=False, separators=(",", ":"), allow_nan=False)


def read_body(provider: str, post: Callable[[], Any], *, deadline_s: float) -> Raw:
    """Call `post` and read its answer, within a wall-clock deadline and a size that a reply can have.

    A read timeout counts from the last byte received, so a server that trickles would never meet it.
    """
    started = time.monotonic()
    response = post()
    try:
        text = _read(provider, response.iter_bytes(), started + deadline_s, deadline_s)
        headers = {k.lower(): v for k, v in response.headers.items()}
    finally:
        response.close()
    return Raw(text=text, headers=headers, latency_s=time.monotonic() - started)


def _read(provider: str, pieces: Iterable[bytes], until: float, deadline_s: float) -> str:
    body = bytearray()
    for piece in pieces:
        body += piece
        if time.monotonic() > until:
            raise UnavailableError(
                f"{provider} had not finished its answer after {deadline_s:g} s (timeout=... changes that)",
                provider=provider,
            )
        if len(body) > MAX_REPLY_BYTES:
            raise UnavailableError(
                f"{provider} sent more than {MAX_REPLY_BYTES >> 20} MiB for one reply", provider=provider
            )
    return body.decode("utf-8", "replace")


def loads_reply(provider: str, text: str) -> JsonObject:
    """Read a reply's JSON object."""
    try:
        payload = json.loads(text)
    except (ValueError, RecursionError):
        payload = None
    if not isinstance(payload, dict):
        raise no_reply(provider, text)
    return payload


def no_reply(provider: str, text: str) -> UnavailableError:
    """Return the error for a 200 that is no reply (a proxy's page, an empty body, another API's object)."""
    return UnavailableError(
        f"the endpoint answered 200, but with no {provider} reply: {text[:80]!r}. Is base_url right, is a proxy in"
        " between?",
        provider=provider,
        status=200,
    )


def is_connection_fault(error: Exception) -> bool:
    """Tell a lost connection or a timeout from an error of the SDK's client itself, such as a missing key."""
    return any(cls.__name__ == "APIConnectionError" for cls in type(error).__mro__)


def sdk_error_facts(error: Exception) -> tuple[int | None, JsonObject, Mapping[str, str]]:
    """Return status, error object and lower-cased headers of an SDK's exception, without knowing its class."""
    status = getattr(error, "status_code", None)
    headers = getattr(getattr(error, "response", None), "headers", None) or {}
    body = getattr(error, "body", None)
    detail = body.get("error", body) if isinstance(body, dict) else {}
    return (
        status if isinstance(status, int) else None,
        detail if isinstance(detail, dict) else {"message": str(detail)},
        {str(k).lower(): str(v) for k, v in headers.items()},
    )


def plain_status_error(
    provider: str, status: int | None, message: str, code: str, headers: Mapping[str, str]
) -> ProviderError | None:
    """Return the error for the statuses that mean the same everywhere; None for 400, 404, 422 and permanent 429s."""
    facts: dict[str, Any] = {
        "provider": provider,
        "status": status,
        "code": code,
        "request_id": headers.get("x-request-id") or headers.get("request-id") or "",
        "retry_after": retry_after_s(headers),
        "headers": headers,
    }
    if status is None:
        return UnavailableError(message, **facts)
    if status in (429, 529):
        return RateLimitError(message, **facts)
    if status in (401, 402, 403):
        return RejectedError(message, **facts)
    if status == 413:
        return TooLongError(message, **facts)
    if status in (408, 409) or status >= 500:
        return UnavailableError(message, **facts)
    return None


def as_int(value: object) -> int | None:
    """Return a token count, None for anything that is not one."""
    return value if isinstance(value, int) and not isinstance(value, bool) else None
