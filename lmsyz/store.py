"""What the engines need of a store: look up, put a chunk, explain, page through. No SQL here, and no file."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

__all__ = ["AnswerRecord", "ChunkRecord", "RequestRecord", "Saved", "Store", "TaskRecord"]


@dataclass(frozen=True, slots=True, kw_only=True)
class TaskRecord:
    """A task as the store keeps it: what was asked, and the hashes by which two tasks are compared."""

    fingerprint: str
    backend: str
    api: str
    endpoint: str
    model: str
    prompt: str
    system: str
    schema: str
    options: str
    prompt_hash: str
    system_hash: str
    schema_hash: str
    options_hash: str


@dataclass(frozen=True, slots=True, kw_only=True)
class RequestRecord:
    """One exchange that was paid for: the exact request and reply of one chunk, and what it took.

    ``user`` is the JSON text of the user message as it stands in ``body``, so that what is the same in every request
    of a task is stored once; empty where it cannot be told apart.
    """

    body: str
    user: str
    reply: str
    form: str
    outcome: str
    model: str
    provider_request_id: str
    input_tokens: int | None
    output_tokens: int | None
    cached_tokens: int | None
    cache_write_tokens: int | None
    reasoning_tokens: int | None
    cost: float | None
    latency_s: float
    attempts: int
    n_rows: int
    run_id: str
    created: float


@dataclass(frozen=True, slots=True, kw_only=True)
class AnswerRecord:
    """One row's answer as JSON text, under the key of its text; ``row_ids`` are the user's ids that share the text."""

    key: bytes
    answer: str
    row_ids: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Saved:
    """What stored answers cost when they were bought; ``cost`` is None where any price is unknown."""

    n_rows: int = 0
    cost: float | None = 0.0
    input_tokens: float = 0.0
    output_tokens: float = 0.0


ChunkRecord = tuple[int, RequestRecord, Sequence[AnswerRecord]]


class Store(Protocol):
    """Where answers are kept; several may be open on the same place at once."""

    def task_id(self, record: TaskRecord) -> int:
        """Return the task's number, writing the task down if it is new."""

    def reading_tasks(self, record: TaskRecord, ignore_prompt: bool = False) -> list[int]:
        """Return the tasks whose answers may be reused for a task: itself, or also the same under other prompts."""

    def answers(self, task_ids: Sequence[int], keys: Collection[bytes]) -> dict[bytes, str]:
        """Return the newest answer of each key under any of the tasks."""

    def put_chunks(self, chunks: Sequence[ChunkRecord]) -> None:
        """Write several exchanges and their answers, all or nothing."""

    def seed_rows(self, prompt_hash: str | None, ids: Collection[str]) -> dict[str, str]:
        """Return rows of the seed package's table that no task has taken over yet."""

    def adopt(self, task_id: int, rows: Iterable[tuple[str, bytes, str]], run_id: str) -> None:
        """Take seed rows over into a task: row id, text key, answer."""

    def tasks_with(self, keys: Collection[bytes]) -> dict[bytes, list[int]]:
        """Return for each key the tasks that hold an answer, newest first."""

    def ids_with_other_text(self, task_ids: Sequence[int], pairs: Mapping[str, bytes]) -> set[str]:
        """Return the row ids that these tasks know, but under another text."""

    def saved(self, task_ids: Sequence[int], keys: Collection[bytes]) -> Saved:
        """Return what the answers to these keys cost when they were bought."""

    def save_run(self, run_id: str, task_id: int, started: float, ended: float | None, manifest: str) -> None:
        """Write a run down, or what has become of it."""

    def close(self) -> None:
        """Let go of the place."""
