"""A server that costs next to nothing, so that what is measured is the client: no model, no rules, no framework.

It answers both wires with one ready-made row for each ``input_id`` that it finds in the request, and a request without
any, of whoever asks for one text at a time, with one bare row. Run as a program it listens on a free port, prints it,
and ends when its standard input does.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import random
import re
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager

IDS = re.compile(rb'\\"input_id\\": ?\\"([^"\\]+)\\"')
TEXTS = re.compile(rb"Sentence number (\d+)")
ROW = '{"input_id":"%s","tone":"positive","words":7,"digest":"0123456789abcdef"}'
BARE_ROW = '{"tone":"positive","words":7,"digest":"0123456789abcdef"}'
STRAGGLERS = 0.01  # of the answers of a spread, and by how much they are later still
LATER = 5
CHAT = (
    '{"id":"c","object":"chat.completion","created":1,"model":"stand-in","choices":[{"index":0,"finish_reason":"stop",'
    '"message":{"role":"assistant","content":%s}}],"usage":{"prompt_tokens":100,"completion_tokens":50,'
    '"total_tokens":150}}'
)
MESSAGES = (
    '{"id":"m","type":"message","role":"assistant","model":"stand-in","stop_reason":"end_turn","stop_sequence":null,'
    '"content":[{"type":"text","text":%s}],"usage":{"input_tokens":100,"output_tokens":50}}'
)
LIMITED = b'{"error":{"message":"slow down","type":"requests","code":"rate_limit_exceeded"}}'


class Limit:
    """A token bucket of one second."""

    def __init__(self, rate: float, clock: asyncio.AbstractEventLoop) -> None:
        self.rate, self.clock = rate, clock
        self.level, self.at = rate, clock.time()

    def admits(self) -> bool:
        now = self.clock.time()
        self.level, self.at = min(self.rate, self.level + (now - self.at) * self.rate), now
        self.level -= (admitted := self.level >= 1)
        return admitted


class Latency:
    """How long answers take: all the same, or lognormal with stragglers, alike for all callers."""

    def __init__(self, median_s: float, sigma: float = 0.0) -> None:
        self.median_s, self.sigma = median_s, sigma
        self.random = random.Random(7)

    def next_s(self) -> float:
        if not self.sigma:
            return self.median_s
        late = LATER if self.random.random() < STRAGGLERS else 1
        return late * self.median_s * self.random.lognormvariate(0, self.sigma)


class Log:
    """Which texts were asked how often, and which of the answers went out to a caller who was still there."""

    def __init__(self) -> None:
        self.asked: Counter[bytes] = Counter()
        self.answered: Counter[bytes] = Counter()

    def report(self) -> dict[str, int]:
        return {
            "rows_asked": self.asked.total(),
            "rows_answered": self.answered.total(),
            "rows_asked_twice": self.asked.total() - len(self.asked),
            "rows_answered_twice": self.answered.total() - len(self.answered),
        }


class Answering(asyncio.Protocol):
    """One connection."""

    latency = Latency(0.0)
    limit: Limit | None = None
    tells_limit = True
    log: Log | None = None
    counts: dict[str, float] = {"requests": 0, "limited": 0, "first_at": 0.0}  # noqa: RUF012 - one for all

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport, self.buffer = transport, bytearray()

    def data_received(self, data: bytes) -> None:
        self.buffer += data
        while (end := self.buffer.find(b"\r\n\r\n")) >= 0:
            head = bytes(self.buffer[:end])
            length = int(re.search(rb"(?i)content-length: *(\d+)", head + b"\r\ncontent-length: 0").group(1))  # type: ignore[union-attr]
            if len(self.buffer) < end + 4 + length:
                return
            body = bytes(self.buffer[end + 4 : end + 4 + length])
            del self.buffer[: end + 4 + length]
            path = head.split(b" ", 2)[1]
            if path == b"/counts":
                self.send(reply(b"200 OK", json.dumps(self.counts | (self.log.report() if self.log else {})).encode()))
                continue
            texts = TEXTS.findall(body) if self.log else []
            answer = self.answer(path, body)
            if self.log:
                self.log.asked.update(texts)
            if latency_s := self.latency.next_s():
                asyncio.get_running_loop().call_later(latency_s, self.send, answer, texts)
            else:
                self.send(answer, texts)

    def send(self, answer: bytes, texts: list[bytes] | None = None) -> None:
        if not self.transport.is_closing():
            self.transport.write(answer)  # type: ignore[attr-defined]
            if texts and self.log:
                self.log.answered.update(texts)

    def answer(self, path: bytes, body: bytes) -> bytes:
        self.counts["requests"] += 1
        self.counts["first_at"] = self.counts["first_at"] or time.time()
        headers = b""
        if self.limit is not None:
            headers = b"x-ratelimit-limit-requests: %d\r\n" % (self.limit.rate * 60) if self.tells_limit else b""
            if not self.limit.admits():
                self.counts["limited"] += 1
                return reply(b"429 Too Many Requests", LIMITED, headers + b"retry-after: 1\r\n")
        content = json.dumps(rows_for(IDS.findall(body)))
        return reply(b"200 OK", ((CHAT if b"chat" in path else MESSAGES) % content).encode(), headers)


def rows_for(ids: list[bytes]) -> str:
    if not ids:
        return BARE_ROW
    return '{"all_results":[' + ",".join(ROW % i.decode() for i in ids) + "]}"


def reply(status: bytes, body: bytes, headers: bytes = b"") -> bytes:
    head = b"HTTP/1.1 %s\r\ncontent-type: application/json\r\n%scontent-length: %d\r\n\r\n"
    return head % (status, headers, len(body)) + body


async def serve(options: argparse.Namespace) -> None:
    loop = asyncio.get_running_loop()
    Answering.latency, Answering.tells_limit = Latency(options.latency_s, options.sigma), not options.silent
    Answering.limit = Limit(options.limit, loop) if options.limit else None
    Answering.log = Log() if options.log else None
    server = await loop.create_server(Answering, "127.0.0.1", 0, backlog=1024)
    print(server.sockets[0].getsockname()[1], flush=True)
    await loop.run_in_executor(None, sys.stdin.read)


@contextmanager
def running(
    *, latency_s: float = 0.0, sigma: float = 0.0, limit: float = 0.0, silent: bool = False, log: bool = False
) -> Iterator[str]:
    """Run one in a process of its own; gives its address."""
    args = ["--latency-s", str(latency_s), "--sigma", str(sigma), "--limit", str(limit)]
    args += ["--silent"] * silent + ["--log"] * log
    command = [sys.executable, __file__, *args]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        try:
            yield f"http://127.0.0.1:{process.stdout.readline().strip()}"
        finally:
            process.kill()


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--latency-s", type=float, default=0.0)
    parser.add_argument("--sigma", type=float, default=0.0)
    parser.add_argument("--limit", type=float, default=0.0)
    parser.add_argument("--silent", action="store_true")
    parser.add_argument("--log", action="store_true")
    asyncio.run(serve(parser.parse_args()))
