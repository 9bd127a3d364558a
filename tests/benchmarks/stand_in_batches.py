"""Both batch APIs at next to no cost: a batch is done when it is looked at again, with a ready-made row for each asked.

A process of its own, as `stand_in` is. What is uploaded and what comes back is kept in its memory.
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from itertools import count

from tests.benchmarks.stand_in import CHAT, IDS, MESSAGES, ROW

ASKED = re.compile(rb'"custom_id": ?"([^"]+)"')
CREATED = "2026-01-01T00:00:00Z"
numbers = count(1)
kept: dict[str, bytes] = {}
looked_at: set[str] = set()


class Batches(BaseHTTPRequestHandler):
    """Both providers' paths tell themselves apart."""

    protocol_version = "HTTP/1.1"

    def log_message(self, *_: object) -> None:
        """Say nothing."""

    def do_GET(self) -> None:
        path = self.path.partition("?")[0]
        name = path.split("/")[3 if "messages" not in path else 4 :]
        if not name:
            self.give({"object": "list", "data": [], "has_more": False})
        elif name[-1] in ("content", "results"):
            self.give(kept[name[0]])
        elif "messages" in path:
            self.give(message_batch(name[0], is_done=is_done(name[0])))
        else:
            self.give(chat_batch(name[0], is_done=is_done(name[0])))

    def do_DELETE(self) -> None:
        self.give({"id": self.path.split("/")[3], "object": "file", "deleted": True})

    def do_POST(self) -> None:
        body = self.body()
        number = next(numbers)
        if self.path.startswith("/v1/files"):
            kept[f"file-{number}"] = body
            self.give({"id": f"file-{number}", "object": "file", "bytes": len(body), "purpose": "batch"})
        elif "messages" in self.path:
            kept[f"b{number}"] = answers(
                body, MESSAGES, '{"custom_id":"%s","result":{"type":"succeeded","message":%s}}'
            )
            self.give(message_batch(f"b{number}"))
        else:
            line = '{"id":"r","custom_id":"%s","response":{"status_code":200,"request_id":"q","body":%s},"error":null}'
            kept[f"b{number}"] = answers(kept.pop(json.loads(body)["input_file_id"]), CHAT, line)
            self.give(chat_batch(f"b{number}"))

    def body(self) -> bytes:
        if "content-length" in self.headers:
            return self.rfile.read(int(self.headers["content-length"]))
        pieces = []
        while size := int(self.rfile.readline(), 16):
            pieces.append(self.rfile.read(size))
            self.rfile.readline()
        self.rfile.readline()
        return b"".join(pieces)

    def give(self, what: object) -> None:
        body = what if isinstance(what, bytes) else json.dumps(what).encode()
        self.send_response(200)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


def answers(asked: bytes, reply: str, line: str) -> bytes:
    """Answer each request between its custom id and the next one's."""
    found = list(ASKED.finditer(asked))
    ends = [m.start() for m in found[1:]] + [len(asked)]
    lines = []
    for match, end in zip(found, ends, strict=True):
        rows = ",".join(ROW % i.decode() for i in IDS.findall(asked, match.end(), end))
        lines.append(line % (match[1].decode(), reply % json.dumps('{"all_results":[' + rows + "]}")))
    return "\n".join([*lines, ""]).encode()


def is_done(name: str) -> bool:
    """Whether a batch has been looked at before."""
    before = name in looked_at
    looked_at.add(name)
    return before


def chat_batch(name: str, *, is_done: bool = False) -> dict[str, object]:
    n = kept[name].count(b"\n")
    about = {"id": name, "object": "batch", "endpoint": "/v1/chat/completions", "created_at": 1_767_225_600}
    how = {"status": "completed", "output_file_id": name} if is_done else {"status": "in_progress"}
    counts = {"total": n, "completed": n if is_done else 0, "failed": 0}
    return {**about, **how, "request_counts": counts, "metadata": {}}


def message_batch(name: str, *, is_done: bool = False) -> dict[str, object]:
    n = kept[name].count(b"\n")
    counts = {
        "processing": 0 if is_done else n,
        "succeeded": n if is_done else 0,
        "errored": 0,
        "canceled": 0,
        "expired": 0,
    }
    about = {
        "id": name,
        "type": "message_batch",
        "created_at": CREATED,
        "expires_at": CREATED,
        "request_counts": counts,
    }
    if not is_done:
        return {**about, "processing_status": "in_progress", "ended_at": None, "results_url": None}
    how = {"processing_status": "ended", "ended_at": CREATED}
    return {**about, **how, "results_url": f"/v1/messages/batches/{name}/results"}


@contextmanager
def running() -> Iterator[str]:
    """Run one in a process of its own; gives its address."""
    command = [sys.executable, "-m", "tests.benchmarks.stand_in_batches"]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        try:
            yield f"http://127.0.0.1:{process.stdout.readline().strip()}"
        finally:
            process.kill()


if __name__ == "__main__":
    server = ThreadingHTTPServer(("127.0.0.1", 0), Batches)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    print(server.server_port, flush=True)
    sys.stdin.read()
