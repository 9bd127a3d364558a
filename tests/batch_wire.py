"""A loopback server that takes and gives files of any size, in whatever way a test wants them broken."""

from __future__ import annotations

import hashlib
import json
import re
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from scripted_server import provider_at

from lmsyz.providers import batches_of

BLOCK = 64 * 1024
KEPT = 1024 * 1024


@dataclass(frozen=True)
class Give:
    """One answer.

    ``repeat`` times the body is sent; ``cut`` is the byte of the whole file where the connection ends; ``sized`` says
    whether a content-length is sent; ``ranged`` whether a Range is honoured; ``drop`` hangs up without an answer;
    ``stall`` sends headers and then nothing; ``trickle`` sends a byte at a time.
    """

    body: object = None
    status: int = 200
    headers: dict[str, str] = field(default_factory=dict)
    repeat: int = 1
    cut: int | None = None
    sized: bool = True
    ranged: bool = False
    drop: bool = False
    stall: bool = False
    trickle: bool = False

    @property
    def piece(self) -> bytes:
        return self.body if isinstance(self.body, bytes) else json.dumps(self.body, ensure_ascii=False).encode()


@dataclass(frozen=True)
class Taken:
    """One request; ``raw`` is kept only of a small one."""

    method: str
    path: str
    headers: dict[str, str]
    size: int
    digest: str
    raw: bytes

    @property
    def body(self) -> Any:
        return json.loads(self.raw)


class FileServer:
    """Gives its answers in order, the last one for ever."""

    def __init__(self, *answers: Give) -> None:
        self._answers = list(answers)
        self.taken: list[Taken] = []
        self.over = threading.Event()
        server = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"
            disable_nagle_algorithm = True

            def do_GET(self) -> None:
                server.serve(self)

            do_POST = do_DELETE = do_GET

            def log_message(self, *_: object) -> None:
                pass

        class Server(ThreadingHTTPServer):
            daemon_threads = True

            def handle_error(self, *_: object) -> None:
                pass

        self._http = Server(("127.0.0.1", 0), Handler)
        self._thread = threading.Thread(target=self._http.serve_forever, args=(0.01,), daemon=True)
        self._thread.start()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._http.server_address[1]}"

    def give(self, *answers: Give) -> None:
        self._answers = list(answers)
        self.taken.clear()

    def serve(self, handler: BaseHTTPRequestHandler) -> None:
        self.taken.append(_take(handler))
        answer = self._answers.pop(0) if len(self._answers) > 1 else self._answers[0]
        if answer.drop:
            _hang_up(handler)
            return
        total, start, status = len(answer.piece) * answer.repeat, 0, answer.status
        asked = re.fullmatch(r"bytes=(\d+)-", handler.headers.get("range", ""))
        if asked and answer.ranged:
            start, status = int(asked[1]), 206
            if start >= total:
                answer, total, start, status = Give(b""), 0, 0, 416
        handler.send_response(status)
        headers = {"content-type": "application/json", **answer.headers}
        if status == 206:
            headers.setdefault("content-range", f"bytes {start}-{total - 1}/{total}")
        if answer.sized:
            headers["content-length"] = str(total - start)
        else:
            headers["connection"] = "close"
        for name, value in headers.items():
            handler.send_header(name, value)
        handler.end_headers()
        self._send(handler, answer, start)

    def _send(self, handler: BaseHTTPRequestHandler, answer: Give, start: int) -> None:
        if answer.stall:
            self.over.wait(30)
            return
        end = len(answer.piece) * answer.repeat if answer.cut is None else answer.cut
        at = 0
        for _ in range(answer.repeat):
            piece = answer.piece[max(0, start - at) : max(0, end - at)]
            for i in range(0, len(piece), 1 if answer.trickle else BLOCK):
                handler.wfile.write(piece[i : i + (1 if answer.trickle else BLOCK)])
                if answer.trickle and self.over.wait(0.02):
                    return
            at += len(answer.piece)
        if answer.cut is not None or not answer.sized:
            _hang_up(handler)

    def close(self) -> None:
        self.over.set()
        self._http.shutdown()
        self._http.server_close()
        self._thread.join()


def _take(handler: BaseHTTPRequestHandler) -> Taken:
    left = size = int(handler.headers.get("content-length") or 0)
    digest, kept = hashlib.sha256(), b""
    while left:
        block = handler.rfile.read(min(BLOCK, left))
        if not block:  # the client hung up in the middle
            handler.close_connection = True
            break
        left -= len(block)
        digest.update(block)
        if size <= KEPT:
            kept += block
    headers = {k.lower(): v for k, v in handler.headers.items()}
    return Taken(handler.command, handler.path, headers, size, digest.hexdigest(), kept)


def _hang_up(handler: BaseHTTPRequestHandler) -> None:
    handler.wfile.flush()
    handler.close_connection = True
    handler.connection.shutdown(socket.SHUT_RDWR)


@contextmanager
def batches_at(backend: str, *answers: Give | object, **arguments: Any) -> Iterator[tuple[FileServer, Any]]:
    """Run a server, and connect a provider's batch API to it by a real SDK client; what is no `Give` is a body."""
    server = FileServer(*(a if isinstance(a, Give) else Give(a) for a in answers))
    url = server.url + ("/v1" if backend == "openai" else "")
    try:
        with provider_at(url, backend, **arguments) as provider:
            yield server, batches_of(provider)
    finally:
        server.close()
