"""Doors: other addresses at which the sandbox's endpoints answer in another provider's dialect.

A door stands before an endpoint of OpenAI's or Anthropic's. It puts a request into that API's words, or refuses it in
its own, and puts the answer back into the dialect. The rules, faults, limits and counts are those of the endpoint
behind it; ``requests()`` and ``stats()`` tell of that endpoint, and of a request refused at the door itself.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

from starlette.requests import Request
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from lmsyz.sandbox.control import LABEL_HEADER
from lmsyz.sandbox.state import State
from lmsyz.sandbox.wire import MODELS, ApiError, JsonObject

__all__ = ["Answered", "Asked", "Dialect", "Door", "key_of", "model_behind", "object_of"]

KEY_HEADERS = ("authorization", "api-key", "x-api-key")
OWN_HEADERS = (*KEY_HEADERS, "content-length", "anthropic-version")
NO_SUCH_MODEL = "missing"  # a name that holds this word names nothing


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """A request as it comes to a door: where, with what, and its body."""

    path: Mapping[str, str]
    query: Mapping[str, str]
    headers: Mapping[str, str]
    body: JsonObject


@dataclass(frozen=True, slots=True, kw_only=True)
class Answered:
    """An answer on its way out: status, body and headers, and what stands before the body."""

    status: int
    body: Any
    headers: Mapping[str, str] = field(default_factory=dict)
    before: str = ""

    @property
    def way(self) -> int:
        """A number from 0 to 15, drawn with the request, to choose among the ways of saying one thing."""
        tag = self.headers.get("x-request-id") or self.headers.get("request-id") or "0"
        return int(tag[-1], 16) if tag[-1] in "0123456789abcdef" else 0

    @property
    def error(self) -> JsonObject:
        """The API's error object; an empty one where there is none."""
        found = self.body.get("error") if isinstance(self.body, dict) else None
        return found if isinstance(found, dict) else {}


class Dialect(Protocol):
    """One provider's way of speaking an API."""

    label: str
    routes: tuple[str, ...]
    endpoint: str  # label of the endpoint behind

    def enter(self, asked: Asked) -> tuple[JsonObject, dict[str, str]]:
        """Return body and headers in the API's own words, or raise the error that a request gets at the door."""

    def leave(self, asked: Asked, answered: Answered) -> Answered:
        """Return an answer in the dialect."""


class Door:
    """The ASGI application of one dialect.

    Parameters
    ----------
    dialect : Dialect
        How it speaks.
    behind : ASGI application
        The endpoint that answers.
    state : State
        Told of what is refused at the door.
    """

    def __init__(self, dialect: Dialect, behind: ASGIApp, state: State) -> None:
        self.dialect = dialect
        self.behind = behind
        self.state = state

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        request = Request(scope, receive, send)
        raw = await request.body()
        asked = Asked(
            path=dict(request.path_params),
            query=dict(request.query_params),
            headers={k.lower(): v for k, v in request.headers.items()},
            body=object_of(raw),
        )
        try:
            body, headers = self.dialect.enter(asked)
        except ApiError as refused:
            with self.state.flight():
                self.state.keep(self.dialect.label, request.url.path, raw, request.headers, refused.status)
            await _response(Answered(status=refused.status, body=refused.body, headers=refused.headers))(
                scope, receive, send
            )
            return
        await self._pass_on(asked, json.dumps(body).encode(), headers, scope, receive, send)

    async def _pass_on(
        self, asked: Asked, raw: bytes, headers: Mapping[str, str], scope: Scope, receive: Receive, send: Send
    ) -> None:
        kept = [(k, v) for k, v in scope["headers"] if k.decode("latin-1").lower() not in OWN_HEADERS]
        inner = {**scope, "headers": kept + [(k.encode(), v.encode("latin-1")) for k, v in headers.items()]}
        heard = _Heard()
        await self.behind(inner, _once(raw, receive), heard.send)
        if heard.start is None:
            return  # the connection was dropped
        if not heard.is_json:
            await send(heard.start)
            await send({"type": "http.response.body", "body": heard.body, "more_body": False})
            return
        await _response(self.dialect.leave(asked, heard.answered()))(scope, receive, send)


class _Heard:
    """What the endpoint behind a door answers."""

    def __init__(self) -> None:
        self.start: Message | None = None
        self.body = b""

    async def send(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self.start = message
        elif message["type"] == "http.response.body":
            self.body += message.get("body", b"")

    @property
    def headers(self) -> dict[str, str]:
        pairs: Iterable[tuple[bytes, bytes]] = self.start["headers"] if self.start else ()
        return {k.decode("latin-1").lower(): v.decode("latin-1") for k, v in pairs}

    @property
    def is_json(self) -> bool:
        return self.headers.get("content-type", "").startswith("application/json")

    def answered(self) -> Answered:
        assert self.start is not None
        left_out = ("content-length", "content-type", *LABEL_HEADER)
        headers = {k: v for k, v in self.headers.items() if k not in left_out}
        return Answered(status=self.start["status"], body=json.loads(self.body), headers=headers)


def _once(raw: bytes, receive: Receive) -> Receive:
    """Return a way to receive a body that was read already, and then what else comes."""
    pending = [{"type": "http.request", "body": raw, "more_body": False}]

    async def take() -> Message:
        return pending.pop() if pending else await receive()

    return take


def _response(answered: Answered) -> Response:
    content = answered.before + json.dumps(answered.body, separators=(",", ":"))
    return Response(content, answered.status, {**answered.headers, **LABEL_HEADER}, media_type="application/json")


def object_of(raw: bytes) -> JsonObject:
    """Return a body's object; an empty one for anything else, which the endpoint behind then refuses."""
    try:
        body = json.loads(raw)
    except (ValueError, RecursionError):
        return {}
    return body if isinstance(body, dict) else {}


def key_of(headers: Mapping[str, str]) -> str:
    """Return the key or token of a request, whichever header holds it; empty for none, and for one that is wrong."""
    scheme, _, token = headers.get("authorization", "").partition(" ")
    key = headers.get("api-key") or headers.get("x-api-key") or (token if scheme else "")
    return "" if "invalid" in key else key.strip()


def model_behind(name: str) -> str:
    """Return the sandbox's model that a deployment or a foreign model's name stands for; empty where it names none."""
    if name in MODELS:
        return name
    return "" if not name or NO_SUCH_MODEL in name else "sandbox-rules"
