"""What the engines need of a store: look up, put a chunk, explain, page through. No SQL here, and no file."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple, Protocol

__all__ = [
    "AnswerRecord",
    "ChunkRecord",
    "RequestRecord",
    "Saved",
    "Store",
    "StoredAnswer",
    "StoredRun",
    "StoredTask",
    "TaskRecord",
]


@dataclass(frozen=True, slots=True, kw_only=True)
class TaskRecord:
    """A task as the store keeps it: what was asked, and the hashes by which two tasks are compared.

    Parameters
    ----------
    fingerprint : str
        SHA-256 of all that shapes an answer but the row's own text; the task's identity.
    backend, api, endpoint, model : str
        Where it was asked.
    prompt, system : str
        The user's own prompt, and the system prompt as sent.
    schema, options : str
        Canonical JSON; ``schema`` is empty where there is none.
    prompt_hash : str
        First 16 hex digits of the prompt's SHA-256, as the seed package stamps its rows.
    system_hash, schema_hash, options_hash : str
        SHA-256 in hex.
    """

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

    Parameters
    ----------
    body : str
        The request's JSON exactly as sent.
    user : str
        The JSON text of the user message as it stands in ``body``, so that what is the same in every
        request of a task is stored once; empty where it cannot be told apart.
    reply : str
        The reply exactly as it came.
    form : str
        How structured output was asked for: ``json_schema``, ``tool``, ``json_object``, ``text``, ...
    outcome : str
        ``ok``, ``partial``, ``truncated``, ``refused``, ``malformed``, ...
    model, provider_request_id : str
        As the provider returned them.
    input_tokens, output_tokens, cached_tokens, cache_write_tokens, reasoning_tokens : int or None
        As the provider counted them; None where it did not.
    cost : float or None
        US dollars; None where the price is not known.
    latency_s : float
        Seconds from sending to the whole reply.
    attempts, n_rows : int
        How often it was sent, and the rows it asked about.
    run_id : str
        The run it belongs to.
    created : float
        Unix time.
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
    """One row's answer, to be stored.

    Parameters
    ----------
    key : bytes
        16 bytes drawn from the row's text.
    answer : str
        One JSON object.
    row_ids : tuple of str
        The user's ids that share the text; may be empty.
    """

    key: bytes
    answer: str
    row_ids: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredAnswer:
    """One answer as it lies in the store.

    Parameters
    ----------
    id : int
        Its number; a newer answer has a higher one.
    task_id, request_id : int
        The task it belongs to, and the exchange it came from.
    key : bytes
        The key of the row's text.
    answer : str
        One JSON object.
    created : float
        Unix time of the exchange.
    """

    id: int
    task_id: int
    request_id: int
    key: bytes
    answer: str
    created: float


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredRun:
    """One run as it lies in the store.

    Parameters
    ----------
    run_id : str
        Its name, as each exchange of it carries it.
    task_id : int
        What was asked.
    started : float
        Unix time.
    ended : float or None
        Unix time; None while it goes on, or where its process was killed.
    manifest : str
        JSON text.
    """

    run_id: str
    task_id: int
    started: float
    ended: float | None
    manifest: str


class StoredTask(NamedTuple):
    """One task as it lies in the store, with how many answers it has and when the first and the last came."""

    id: int
    record: TaskRecord
    n_answers: int
    first: float | None
    last: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Saved:
    """What stored answers cost when they were bought.

    Parameters
    ----------
    n_rows : int
        Answers that were found.
    cost : float or None
        US dollars; None where the price of any of them is unknown.
    input_tokens, output_tokens : float
        Each answer's share of its exchange; an exchange without counts adds nothing.
    n_cost_unknown : int
        Answers whose price is unknown.
    """

    n_rows: int = 0
    cost: float | None = 0.0
    input_tokens: float = 0.0
    output_tokens: float = 0.0
    n_cost_unknown: int = 0

    def plus(self, other: Saved) -> Saved:
        """Return the sum of both."""
        unknown = self.cost is None or other.cost is None
        return Saved(
            n_rows=self.n_rows + other.n_rows,
            cost=None if unknown else (self.cost or 0.0) + (other.cost or 0.0),
            input_tokens=self.input_tokens + other.input_tokens,
            output_tokens=self.output_tokens + other.output_tokens,
            n_cost_unknown=self.n_cost_unknown + other.n_cost_unknown,
        )


ChunkRecord = tuple[int, RequestRecord, Sequence[AnswerRecord]]
"""One task's exchange and the answers it brought: task, request, answers."""


class Store(Protocol):
    """Where answers are kept; several may be open on the same place at once."""

    def task_id(self, record: TaskRecord) -> int:
        """Return the task's number, writing the task down if it is new."""

    def reading_tasks(self, record: TaskRecord, ignore_prompt: bool = False) -> list[int]:
        """Return the tasks whose answers may be reused: itself, or also the same under other prompts."""

    def similar_tasks(self, record: TaskRecord, *, ignoring: Collection[str]) -> list[tuple[int, TaskRecord]]:
        """Return the tasks that differ from a task at most in the named parts."""

    def answers(self, task_ids: Sequence[int], keys: Collection[bytes] | None) -> dict[bytes, str]:
        """Return the newest answer of each key under any of the tasks; of all their keys for None."""

    def reuse(
        self, task_ids: Sequence[int], keys: Collection[bytes], *, after: int = 0
    ) -> tuple[dict[bytes, str], Saved]:
        """Return the newest answer of each key, of those after a number, and what these cost when they were bought."""

    def last_answer(self) -> int:
        """Return the number of the newest answer, 0 where there is none."""

    def put_chunks(self, chunks: Sequence[ChunkRecord]) -> Sequence[int]:
        """Write several exchanges and their answers, all or nothing; return the numbers of the exchanges."""

    def seed_rows(self, prompt_hash: str | None, ids: Collection[str]) -> dict[str, str]:
        """Return rows of the seed package's table that no task has taken over yet."""

    def adopt(self, task_id: int, rows: Iterable[tuple[str, bytes, str]], run_id: str) -> set[str]:
        """Take seed rows over into a task (row id, text key, answer); return the ids that were still free."""

    def tasks_with(self, keys: Collection[bytes]) -> dict[bytes, list[int]]:
        """Return for each key the tasks that hold an answer, newest first."""

    def ids_with_other_text(self, task_ids: Sequence[int], pairs: Mapping[str, bytes]) -> set[str]:
        """Return the row ids that these tasks know, but only under another text."""

    def saved(self, task_ids: Sequence[int], keys: Collection[bytes]) -> Saved:
        """Return what the answers to these keys cost when they were bought."""

    def save_run(self, run_id: str, task_id: int, started: float, ended: float | None, manifest: str) -> None:
        """Write a run down, or what has become of it."""

    def run(self, run_id: str) -> StoredRun | None:
        """Return a run, None where there is no such run."""

    def exchange_names(self, run_id: str) -> set[str]:
        """Return what the exchanges of a run are called by the provider (``provider_request_id``)."""

    def answers_of_run(self, run_id: str) -> Iterator[StoredAnswer]:
        """Go through the answers that a run brought home, in the order they came."""

    def page_answers(self, *, after_id: int = 0, limit: int = 50, task_id: int | None = None) -> list[StoredAnswer]:
        """Return the next answers after a number, oldest first."""

    def close(self) -> None:
        """Let go of the place."""
