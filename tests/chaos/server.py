"""The sandbox's own server, in a thread of this process, and its log: every request as it came and as it was answered.

The log is kept around the application, so that it holds what went over the wire: who asked (the key names the call),
about which rows, when the request was in and when its answer was out, and the tokens that the answer was billed with.
"""

from __future__ import annotations

import asyncio
import json
import re
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import uvicorn

from lmsyz.sandbox.__main__ import KEEP_ALIVE_S, _bind, _Protocol
from lmsyz.sandbox.batch_input import requests_in, rows_of
from lmsyz.sandbox.batch_runner import Runner
from lmsyz.sandbox.batch_shelf import Shelf
from lmsyz.sandbox.batches import OPENAI_LABELS, Batch
from lmsyz.sandbox.faults import Faults
from lmsyz.sandbox.server import APIS, make_app
from lmsyz.sandbox.state import State

from .kernel import digest_of

__all__ = ["BatchSeen", "Seen", "Server", "served"]

LIVE_PATHS = {api.path: api for api in APIS}
CREATE_PATHS = ("/v1/batches", "/v1/messages/batches")
TASK = re.compile(r"\[task ([\w/-]+)\]")
START_S = 20.0


@dataclass(slots=True, kw_only=True)
class Seen:
    """One live request, by the monotonic clock that all processes of this machine share.

    ``clean`` are the texts whose answer in the reply is as it should be: there once, and with the text's own digest.
    """

    call: str
    task: str
    rows: tuple[tuple[str, str], ...]
    body: bytes
    came: float
    left: float = 0.0
    status: int = 0
    request_id: str = ""
    tokens: tuple[int, int] | None = None
    clean: frozenset[str] = frozenset()

    @property
    def texts(self) -> tuple[str, ...]:
        """The rows that were asked about."""
        return tuple(text for _, text in self.rows)

    @property
    def is_paid(self) -> bool:
        """Whether the answer was a reply with a bill."""
        return self.status == 200 and self.tokens is not None


@dataclass(slots=True, kw_only=True)
class BatchSeen:
    """One request of a batch that was accepted."""

    task: str
    texts: tuple[str, ...]
    batch: str
    custom_id: str
    created: float
    is_paid: bool
    tokens: tuple[int, int] | None


class Server:
    """The sandbox with its log; made by :func:`served`."""

    def __init__(self, seed: int) -> None:
        self.state = State(seed, Faults())
        self.shelf = Shelf()
        self.runner = Runner(self.shelf, APIS, self.state.fell)
        self.log: list[Seen] = []
        self.n_created: dict[str, int] = {}
        self._app = make_app(self.state, "no-token", lambda: None, self.runner)
        self._sock = _bind(None)
        self._loop: asyncio.AbstractEventLoop | None = None
        config = uvicorn.Config(
            self._logged,
            interface="asgi3",
            http=_Protocol,
            ws="none",
            lifespan="off",
            access_log=False,
            log_level="critical",
            server_header=False,
            timeout_keep_alive=KEEP_ALIVE_S,
            timeout_graceful_shutdown=1,
        )
        self._server = uvicorn.Server(config)
        self._thread = threading.Thread(target=lambda: asyncio.run(self._serve()), name="sandbox", daemon=True)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._sock.getsockname()[1]}"

    def start(self) -> None:
        self._thread.start()
        until = time.monotonic() + START_S
        while not self._server.started:
            if time.monotonic() > until or not self._thread.is_alive():
                raise RuntimeError("the server did not start")
            time.sleep(0.01)

    def stop(self) -> None:
        self._server.should_exit = True
        self._thread.join(timeout=START_S)
        self.runner.close()

    def set_faults(self, faults: Faults) -> None:
        self._in_loop(lambda: self.state.configure(faults))

    def advance(self, seconds: float) -> None:
        self._in_loop(lambda: self.shelf.advance(seconds))

    def forget(self) -> None:
        """Make it as good as new; only when nobody asks."""
        self._in_loop(lambda: (self.state.reset(), self.runner.reset()))
        self.log.clear()

    def fallen(self) -> dict[str, int]:
        """Return the faults that fell since :meth:`forget`, by kind."""
        found: dict[str, int] = self.state.stats()["n_faults"]
        return found

    def is_idle(self) -> bool:
        return self.state.in_flight == 0

    def batch_log(self) -> list[BatchSeen]:
        """Return the requests of all batches that did not fail, those answered whose time is over."""
        self._settle()
        return [seen for b in reversed(self.shelf.newest_first()) if not b.problems for seen in self._batch_seen(b)]

    # --- inside -------------------------------------------------------------------------------------------------

    async def _serve(self) -> None:
        self._loop = asyncio.get_running_loop()
        await self._server.serve(sockets=[self._sock])

    def _in_loop(self, do: Any) -> None:
        done = threading.Event()
        assert self._loop is not None
        self._loop.call_soon_threadsafe(lambda: (do(), done.set()))
        if not done.wait(START_S):
            raise RuntimeError("the server does not answer")

    def _settle(self) -> None:
        assert self._loop is not None
        settling = self.runner.settle(*self.shelf.newest_first(), patience_s=START_S)
        asyncio.run_coroutine_threadsafe(settling, self._loop).result(2 * START_S)

    def _batch_seen(self, batch: Batch) -> Iterator[BatchSeen]:
        bills = self._bills(batch) if batch.is_answered else {}
        for custom_id, body in requests_in(self.shelf.path(batch, "in")):
            yield BatchSeen(
                task=_task_of(json.dumps(body)),
                texts=tuple(row.text.raw for row in rows_of(body)),
                batch=batch.id,
                custom_id=custom_id,
                created=batch.created,
                is_paid=custom_id in bills,
                tokens=bills.get(custom_id),
            )

    def _bills(self, batch: Batch) -> dict[str, tuple[int, int]]:
        """Return the tokens of each request of a batch that got a reply."""
        is_openai = batch.label in OPENAI_LABELS
        path = self.shelf.file_path(batch.output) if is_openai else self.shelf.path(batch, "results")
        found: dict[str, tuple[int, int]] = {}
        for line in path.read_bytes().splitlines() if path.is_file() else ():
            one = json.loads(line)
            inner = (one.get("response") or {}).get("body") if is_openai else one["result"].get("message")
            # As loose batch APIs write it.
            tokens = _tokens_of(json.loads(inner) if isinstance(inner, str) else inner)
            if tokens is not None:
                found.setdefault(one["custom_id"], tokens)
        return found

    async def _logged(self, scope: Any, receive: Any, send: Any) -> None:
        path = scope.get("path", "")
        if path in CREATE_PATHS and scope.get("method") == "POST":
            self.n_created[_call_of(scope)] = self.n_created.get(_call_of(scope), 0) + 1
        if path not in LIVE_PATHS:
            await self._app(scope, receive, send)
            return
        came, got, sent, seen = time.monotonic(), bytearray(), bytearray(), None

        async def hear() -> Any:
            nonlocal seen
            message = await receive()
            if message["type"] == "http.request":
                got.extend(message.get("body", b""))
                if not message.get("more_body"):
                    seen = self._begun(_call_of(scope), bytes(got), came)
            return message

        async def say(message: Any) -> None:
            if seen is not None and message["type"] == "http.response.start":
                headers = {k.decode().lower(): v.decode() for k, v in message.get("headers", ())}
                seen.status = message["status"]
                seen.request_id = headers.get("x-request-id") or headers.get("request-id") or ""
            sent.extend(message.get("body", b""))
            if seen is not None and message["type"] == "http.response.body" and not message.get("more_body"):
                _finish(seen, bytes(sent))
                seen.left = time.monotonic()  # before it leaves, so that nothing that follows from it is earlier
            await send(message)

        try:
            await self._app(scope, hear, say)
        finally:
            if seen is not None and not seen.left:
                seen.left = time.monotonic()

    def _begun(self, call: str, body: bytes, came: float) -> Seen:
        rows = tuple((str(row.id), row.text.raw) for row in rows_of(_bodied(body)))
        seen = Seen(call=call, task=_task_of(body.decode("utf-8", "replace")), rows=rows, body=body, came=came)
        self.log.append(seen)
        return seen


@contextmanager
def served(seed: int) -> Iterator[Server]:
    """Run a server for as long as the block lasts."""
    server = Server(seed)
    server.start()
    try:
        yield server
    finally:
        server.stop()


def _call_of(scope: Any) -> str:
    headers = {k.decode().lower(): v.decode() for k, v in scope["headers"]}
    return headers.get("x-api-key") or headers.get("authorization", "").removeprefix("Bearer ")


def _task_of(text: str) -> str:
    found = TASK.search(text)
    return found[1] if found else ""


def _bodied(body: bytes) -> dict[str, Any]:
    try:
        found = json.loads(body)
    except ValueError:
        return {}
    if isinstance(found, dict) and "input" in found:
        found = {"messages": found["input"], **found}
    return found if isinstance(found, dict) else {}


def _finish(seen: Seen, sent: bytes) -> None:
    try:
        reply = json.loads(sent)
    except ValueError:
        return
    seen.tokens = _tokens_of(reply)
    seen.clean = _clean(seen.rows, reply) if seen.is_paid else frozenset()


def _tokens_of(reply: Any) -> tuple[int, int] | None:
    usage = reply.get("usage") if isinstance(reply, dict) else None
    if not isinstance(usage, dict):
        return None
    given = usage.get("prompt_tokens", usage.get("input_tokens"))
    written = usage.get("completion_tokens", usage.get("output_tokens"))
    return (given, written) if isinstance(given, int) and isinstance(written, int) else None


def _clean(rows: tuple[tuple[str, str], ...], reply: dict[str, Any]) -> frozenset[str]:
    told = [row for row in next(_envelopes(reply), []) if isinstance(row, dict)]
    ids = Counter(str(row.get("input_id")) for row in told)
    digests = {str(row.get("input_id")): row.get("digest") for row in told}
    return frozenset(text for row_id, text in rows if ids[row_id] == 1 and digests[row_id] == digest_of(text))


def _envelopes(value: Any) -> Iterator[list[Any]]:
    """Find the list of results in a reply, written as JSON in a text or given as a tool's input."""
    if isinstance(value, str) and "all_results" in value:
        try:
            yield from _envelopes(json.loads(value))
        except ValueError:
            return
    elif isinstance(value, dict):
        if isinstance(value.get("all_results"), list):
            yield value["all_results"]
        for inner in value.values():
            yield from _envelopes(inner)
    elif isinstance(value, list):
        for inner in value:
            yield from _envelopes(inner)
