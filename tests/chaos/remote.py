"""A provider's batch API in this process, that fails at will: what it holds is the truth that a job is held against.

It has no server and no sleep, so that thousands of restarts take seconds. Its lines and bodies are the provider's own
(`request_line`, `read_result`), its answers those of the sandbox's rules.
"""

from __future__ import annotations

import itertools
import json
import random
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NoReturn

from lmsyz.errors import RateLimitError, RequestError, UnavailableError
from lmsyz.providers.batches import BatchProblem, BatchState, RemoteBatch, ResultFile
from lmsyz.sandbox.batch_lines import anthropic_line, openai_line
from lmsyz.sandbox.faults import Draws, Faults
from lmsyz.sandbox.replies import reply_to
from lmsyz.sandbox.server import APIS

__all__ = ["Held", "Remote"]

LOST_BEFORE, LOST_AFTER, REFUSED, FAILED = 0.08, 0.12, 0.05, 0.03  # of creations
UNAVAILABLE = 0.05  # of all other calls
MOST_POLLS = 12


@dataclass(slots=True, kw_only=True)
class Held:
    """One batch at the provider."""

    id: str
    created: float
    requests: list[tuple[str, Any]]
    metadata: dict[str, str]
    polls_left: int
    fails: bool
    is_ours: bool = True
    lines: list[bytes] = field(default_factory=list)

    @property
    def is_over(self) -> bool:
        return self.polls_left <= 0


class Remote:
    """The batch API that an engine is given in place of a provider's.

    Parameters
    ----------
    real : Batches
        The provider's own, for what is pure.
    rng : random.Random
        Draws what goes wrong.
    now : callable
        The provider's clock, which is right.
    step : callable
        Called before and after whatever changes something there: the process may be killed in it.
    """

    def __init__(self, real: Any, rng: random.Random, now: Callable[[], float], step: Callable[[], None]) -> None:
        self._real, self._rng, self._now, self._step = real, rng, now, step
        self.limits, self.envelope = real.limits, real.envelope
        self.keeps_metadata: bool = real.keeps_metadata
        self.request_line, self.read_result = real.request_line, real.read_result
        self._api = next(a for a in APIS if a.label == ("chat" if real.keeps_metadata else "messages"))
        self._ids = itertools.count(1)
        self.held: dict[str, Held] = {}
        self.n_lost_answers = 0

    # --- the calls of an engine --------------------------------------------------------------------------------

    def upload(self, path: Path, call: Any) -> str:
        self._step()
        self._maybe_unavailable()
        self._step()
        return f"file-{next(self._ids)}" if self.keeps_metadata else ""

    def create(self, path: Path, upload_id: str, metadata: Mapping[str, str], call: Any) -> RemoteBatch:
        self._step()
        draw = self._rng.random()
        if draw < REFUSED:
            raise RateLimitError("too many batches for now", status=429)
        if draw < REFUSED + LOST_BEFORE:
            self._lost()
        held = self._hold(path, metadata if self.keeps_metadata else {})
        self._step()
        if draw < REFUSED + LOST_BEFORE + LOST_AFTER:
            self.n_lost_answers += 1
            self._lost()
        return self._told(held)

    def retrieve(self, batch_id: str, call: Any) -> RemoteBatch:
        self._step()
        self._maybe_unavailable()
        held = self.held.get(batch_id)
        if held is None:
            raise RequestError(f"no batch {batch_id}", status=404)
        return self._told(held)

    def recent(self, since: float, call: Any) -> Iterator[RemoteBatch]:
        self._step()
        self._maybe_unavailable()
        for held in sorted(self.held.values(), key=lambda h: h.created, reverse=True):
            if held.created >= since:
                yield self._told(held)

    def cancel(self, batch_id: str, call: Any) -> RemoteBatch:
        return self.retrieve(batch_id, call)

    def download(self, file: ResultFile, path: Path, call: Any) -> None:
        self._step()
        self._maybe_unavailable()
        held = self.held[file.remote.removeprefix("output-")]
        path.write_bytes(b"\n".join(held.lines) + b"\n")
        self._step()

    def delete_upload(self, upload_id: str, call: Any) -> None:
        self._step()

    # --- the provider's own life --------------------------------------------------------------------------------

    def pass_time(self) -> None:
        """Let what runs come nearer to its end."""
        for held in self.held.values():
            held.polls_left -= 1

    def add_stranger(self, like: Held) -> None:
        """Somebody else of the account creates a batch of the same size."""
        requests = [(f"stranger-{i}", body) for i, (_, body) in enumerate(like.requests)]
        self._keep(requests, {}, is_ours=False)

    def _hold(self, path: Path, metadata: Mapping[str, str]) -> Held:
        if self.keeps_metadata:
            lines = [json.loads(line) for line in path.read_bytes().splitlines() if line.strip()]
            return self._keep([(line["custom_id"], line["body"]) for line in lines], metadata)
        entries = json.loads(path.read_bytes())
        entries = entries["requests"] if isinstance(entries, dict) else entries
        return self._keep([(e["custom_id"], e["params"]) for e in entries], metadata)

    def _keep(self, requests: list[tuple[str, Any]], metadata: Mapping[str, str], *, is_ours: bool = True) -> Held:
        held = Held(
            id=f"batch-{next(self._ids)}",
            created=self._now(),
            requests=requests,
            metadata=dict(metadata),
            polls_left=self._rng.randint(1, MOST_POLLS),
            fails=is_ours and self.keeps_metadata and self._rng.random() < FAILED,
            is_ours=is_ours,
        )
        held.lines = [] if held.fails else [self._line(custom_id, body) for custom_id, body in requests]
        self._rng.shuffle(held.lines)
        self.held[held.id] = held
        return held

    def _line(self, custom_id: str, body: Any) -> bytes:
        raw = json.dumps(body).encode()
        draws = Draws(0, custom_id.encode() + raw, 0)
        ask = self._api.read(raw, {"anthropic-version": "2023-06-01"})
        reply = self._api.reply(ask, reply_to(ask, Faults(), draws, 0).outcome, draws)
        found = {"status": 200, "body": reply, "tag": draws.tag}
        if self.keeps_metadata:
            return json.dumps(openai_line(custom_id, "succeeded", found, draws.tag)).encode()
        return json.dumps(anthropic_line(custom_id, "succeeded", found)).encode()

    def _told(self, held: Held) -> RemoteBatch:
        over = held.is_over
        state = (BatchState.FAILED if held.fails else BatchState.COMPLETED) if over else BatchState.IN_PROGRESS
        return RemoteBatch(
            id=held.id,
            state=state,
            n_total=len(held.requests),
            created=held.created,
            ended=self._now() if over else None,
            result_files=(ResultFile(kind="output", remote=f"output-{held.id}"),) if over and not held.fails else (),
            problems=(BatchProblem(code="invalid_request", message="drawn"),) if over and held.fails else (),
            metadata=held.metadata,
        )

    def _maybe_unavailable(self) -> None:
        if self._rng.random() < UNAVAILABLE:
            self._lost()

    def _lost(self) -> NoReturn:
        raise UnavailableError("the connection was lost")
