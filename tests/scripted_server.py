"""A loopback server that plays a script: one step an answer, and it remembers what it was asked."""

from __future__ import annotations

import json
import socket
import threading
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from lmsyz.providers import APIS, connect, wire
from lmsyz.providers.base import Form
from lmsyz.providers.models import DEFAULT_MODELS
from lmsyz.schema import read_schema
from lmsyz.task import Task


@dataclass(frozen=True)
class Step:
    """One answer.

    ``before_s`` passes before a byte is sent; ``hang`` sends headers and then nothing; ``trickle_s`` passes between
    the single bytes of the body; ``drop`` closes the connection without an answer, ``cut`` in the middle of the body;
    ``endless`` sends the body again and again, in chunks, until the client hangs up.
    """

    status: int = 200
    body: object = None
    headers: dict[str, str] = field(default_factory=dict)
    before_s: float = 0.0
    trickle_s: float = 0.0
    hang: bool = False
    drop: bool = False
    cut: bool = False
    endless: bool = False

    @property
    def payload(self) -> bytes:
        if isinstance(self.body, bytes):
            return self.body
        return json.dumps(self.body, ensure_ascii=False).encode()


@dataclass(frozen=True)
class Asked:
    """One request as it came over the wire."""

    path: str
    headers: dict[str, str]
    raw: bytes
    connection: int

    @property
    def body(self) -> dict[str, Any]:
        return json.loads(self.raw)


class ScriptedServer:
    """Plays steps in order; the last one is played for ever."""

    def __init__(self, steps: Iterable[Step]) -> None:
        self._steps = list(steps)
        self._lock = threading.Lock()
        self.asked: list[Asked] = []
        self.over = threading.Event()
        server = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"
            disable_nagle_algorithm = True

            def do_POST(self) -> None:
                server.answer(self)

            do_GET = do_POST

            def log_message(self, *_: object) -> None:
                pass

        class Server(ThreadingHTTPServer):
            daemon_threads = True
            request_queue_size = 256

            def handle_error(self, *_: object) -> None:
                pass  # a client that went away is part of the play

        self._http = Server(("127.0.0.1", 0), Handler)
        self._thread = threading.Thread(target=self._http.serve_forever, args=(0.01,), daemon=True)
        self._thread.start()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._http.server_address[1]}"

    @property
    def n_connections(self) -> int:
        return len({a.connection for a in self.asked})

    def play(self, *steps: Step) -> None:
        """Begin another script."""
        with self._lock:
            self._steps = list(steps)
            self.asked.clear()

    def answer(self, handler: BaseHTTPRequestHandler) -> None:
        raw = handler.rfile.read(int(handler.headers.get("content-length") or 0))
        headers = {k.lower(): v for k, v in handler.headers.items()}
        with self._lock:
            self.asked.append(Asked(handler.path, headers, raw, handler.client_address[1]))
            step = self._steps.pop(0) if len(self._steps) > 1 else self._steps[0]
        self.over.wait(step.before_s)
        if step.drop:
            self._hang_up(handler)
            return
        handler.send_response(step.status)
        for name, value in {"content-type": "application/json", **step.headers}.items():
            handler.send_header(name, value)
        if step.endless:
            handler.send_header("transfer-encoding", "chunked")
        else:
            handler.send_header("content-length", str(len(step.payload)))
        handler.end_headers()
        handler.wfile.flush()
        self._send_body(handler, step)

    def _send_body(self, handler: BaseHTTPRequestHandler, step: Step) -> None:
        if step.hang:
            self.over.wait(30)
        elif step.endless:
            chunk = b"%x\r\n%b\r\n" % (len(step.payload), step.payload)
            while not self.over.wait(step.trickle_s):
                handler.wfile.write(chunk)
        elif step.cut:
            handler.wfile.write(step.payload[: len(step.payload) // 2])
            self._hang_up(handler)
        elif step.trickle_s:
            for i in range(len(step.payload)):
                handler.wfile.write(step.payload[i : i + 1])
                handler.wfile.flush()
                if self.over.wait(step.trickle_s):
                    return
        else:
            handler.wfile.write(step.payload)

    def _hang_up(self, handler: BaseHTTPRequestHandler) -> None:
        handler.wfile.flush()
        handler.close_connection = True
        handler.connection.shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        self.over.set()
        self._http.shutdown()
        self._http.server_close()
        self._thread.join()


@contextmanager
def scripted(*steps: Step | object) -> Iterator[ScriptedServer]:
    """Run a server for one test; a step that is no `Step` is the body of a 200."""
    server = ScriptedServer(s if isinstance(s, Step) else Step(body=s) for s in steps)
    try:
        yield server
    finally:
        server.close()


@contextmanager
def provider_at(server: ScriptedServer | str, backend: str, **arguments: Any) -> Iterator[Any]:
    """Connect to a scripted server with a real SDK client of ours, and close it again."""
    url = server if isinstance(server, str) else server.url + ("/v1" if backend == "openai" else "")
    places = {"api": APIS[backend][0], "model": DEFAULT_MODELS[backend], "api_key": "sk-test-0123456789abcdef"}
    provider = connect(backend, **(places | {"base_url": url} | arguments))
    try:
        yield provider
    finally:
        provider.client.close()


def task_of(
    backend: str, *, schema: Any = None, model: str | None = None, api: str | None = None, **options: Any
) -> Task:
    return Task(
        backend=backend,
        api=api or APIS[backend][0],
        endpoint="http://127.0.0.1",
        model=model or DEFAULT_MODELS[backend],
        prompt="Say the tone.",
        schema=read_schema(schema),
        options=options,
    )


def body_of(backend: str, text: str = "fine", **options: Any) -> dict[str, Any]:
    """Build a plain request body."""
    return wire(backend, api="", model="m").build(task_of(backend, **options), text, Form.TEXT)


CHAT_REPLY = {
    "id": "chatcmpl-1",
    "object": "chat.completion",
    "model": "gpt-6-luna-2026-08-01",
    "choices": [
        {"index": 0, "finish_reason": "stop", "message": {"role": "assistant", "content": '{"all_results":[]}'}}
    ],
    "usage": {"prompt_tokens": 12, "completion_tokens": 5, "total_tokens": 17},
}
MESSAGES_REPLY = {
    "id": "msg_1",
    "type": "message",
    "role": "assistant",
    "model": "claude-haiku-5-5",
    "content": [{"type": "text", "text": '{"all_results":[]}'}],
    "stop_reason": "end_turn",
    "usage": {"input_tokens": 12, "output_tokens": 5},
}
REPLIES = {"openai": CHAT_REPLY, "anthropic": MESSAGES_REPLY}
