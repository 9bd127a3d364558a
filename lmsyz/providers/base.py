"""What a provider is: two pure functions over plain dicts, and the calls that carry them.

``build(task, user, form) -> body`` and ``parse(text) -> Reply`` hold a wire format, written once and used by live and
batch alike; they need no client. ``send`` carries one body. Everything an SDK raises becomes one of our own errors,
once, by status and code (:mod:`lmsyz.providers.faults`), so that nothing above this package knows an SDK.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, Protocol

from lmsyz.errors import UsageError
from lmsyz.images import ImagePart
from lmsyz.task import Task

__all__ = [
    "Call",
    "Form",
    "JsonObject",
    "Provider",
    "Raw",
    "Reply",
    "Stop",
    "Usage",
    "body_options",
    "call_options",
    "dump_body",
    "dump_content",
]

CALL_OPTIONS = ("extra_headers", "extra_query", "extra_body", "timeout")
# More is no count of one exchange, and 64 bits, all that the store has for a number, hold sums of it.
LARGEST_COUNT = 10**15

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

    None means that the server did not say. What a prompt cache keeps for an hour is counted in what was written to it
    and has a price of its own. ``service_tier`` is what it was processed and priced as, where told.
    """

    input_tokens: int | None = None
    output_tokens: int | None = None
    cached_tokens: int | None = None
    cache_write_tokens: int | None = None
    cache_write_1h_tokens: int | None = None
    reasoning_tokens: int | None = None
    service_tier: str = ""


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


class Unshown(str):
    """A header's value, which may be a key: an SDK logs all options of a call at DEBUG, as ``repr`` shows them."""

    __slots__ = ()

    def __repr__(self) -> str:
        return "'(hidden)'"


@dataclass(frozen=True, slots=True, kw_only=True)
class Call:
    """What travels beside a body, and the seconds that a call may take in all.

    ``is_asked_for`` tells whether the user named the deadline for this call; a client of the user's own that has a
    shorter one keeps it otherwise.
    """

    # Any of them may hold a key.
    headers: Mapping[str, str] = field(default_factory=dict, repr=False)
    query: Mapping[str, Any] = field(default_factory=dict, repr=False)
    deadline_s: float = 600.0
    is_asked_for: bool = False


class Provider(Protocol):
    """What every provider has; a batch API will add its own calls to the same object."""

    name: str

    def forms(self, task: Task) -> tuple[Form, ...]:
        """Return the ways to ask for structured output, best first. Pure."""

    def build(self, task: Task, user: str, form: Form, images: Sequence[ImagePart] = ()) -> JsonObject:
        """Return the request body for one user message. Pure."""

    def content(self, user: str, images: Sequence[ImagePart]) -> str | list[JsonObject]:
        """Return the content of the user message as it stands in the body: each image after its label, then the text.

        Without images it is the text alone. Pure.
        """

    def parse(self, text: str) -> Reply:
        """Read a reply body. Pure. Raises our errors for a 200 that is no reply."""

    def send(self, body: JsonObject, call: Call) -> Raw:
        """Send one body once, without any retry."""

    def close(self) -> None:
        """Close the connections of a client of ours; a user's own stays open."""


def call_options(options: Mapping[str, Any], *, deadline_s: float) -> Call:
    """Take out of the request options what does not belong into the body.

    Parameters
    ----------
    options : mapping
        Request options: ``extra_headers``, ``extra_query``, ``timeout`` and others.
    deadline_s : float
        Seconds where the options name no ``timeout``.

    Returns
    -------
    Call

    Raises
    ------
    UsageError
        ``timeout`` is no number of seconds above 0.
    """
    timeout = options.get("timeout")
    seconds = getattr(timeout, "read", timeout)  # an SDK's Timeout object
    if seconds is not None and (isinstance(seconds, bool) or not isinstance(seconds, (int, float)) or not seconds > 0):
        raise UsageError(f"timeout= is the seconds that one request may take, a number above 0; got {timeout!r}")
    headers = dict(options.get("extra_headers") or {})
    return Call(
        headers={name: Unshown(value) if isinstance(value, str) else value for name, value in headers.items()},
        query=dict(options.get("extra_query") or {}),
        deadline_s=deadline_s if seconds is None else float(seconds),
        is_asked_for=seconds is not None,
    )


def body_options(options: Mapping[str, Any]) -> JsonObject:
    """Return the request options that go into the body as they are, ``extra_body`` merged in."""
    body = {k: v for k, v in options.items() if k not in CALL_OPTIONS}
    body.update(options.get("extra_body") or {})
    return body


def dump_body(body: Mapping[str, Any]) -> str:
    """Return a body's JSON text exactly as both SDKs write it on the wire."""
    return json.dumps(body, ensure_ascii=False, separators=(",", ":"), allow_nan=False)


def dump_content(content: str | list[JsonObject]) -> str:
    """Return a user message's JSON text exactly as it stands in a body."""
    return json.dumps(content, ensure_ascii=False, separators=(",", ":"), allow_nan=False)


def as_int(value: object) -> int | None:
    """Return a token count, None for anything that is not one."""
    if not isinstance(value, int) or isinstance(value, bool):
        return None
    return value if 0 <= value <= LARGEST_COUNT else None


def as_dict(value: object) -> JsonObject:
    """Return a JSON object, an empty one for anything else."""
    return value if isinstance(value, dict) else {}


def dicts_in(value: object) -> list[JsonObject]:
    """Return the JSON objects of a list, none for anything else."""
    return [v for v in value if isinstance(v, dict)] if isinstance(value, list) else []
