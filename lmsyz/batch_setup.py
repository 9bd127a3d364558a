"""What making a batch job shares with moving it on: who carries it, its task read back, its parts written."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from lmsyz.batch import BatchEngine
from lmsyz.batch_files import PartWriter, read_keys
from lmsyz.batch_ledger import Ledger
from lmsyz.cache import SqliteCache
from lmsyz.engine import Plan
from lmsyz.errors import LmsyzError, RequestError, UsageError
from lmsyz.image_rows import chunks_within
from lmsyz.ladder import Ladder
from lmsyz.place import Place, connect_place, find_place
from lmsyz.providers import batches_of
from lmsyz.providers.base import Provider, call_options
from lmsyz.providers.batches import Batches, BatchLimits
from lmsyz.providers.images import image_limits
from lmsyz.rows import Rows, chunk_positions
from lmsyz.schema import read_schema
from lmsyz.settings import Settings
from lmsyz.task import Task, hidden_names, without_hidden

__all__ = [
    "Connection",
    "add_parts",
    "can_build",
    "connected",
    "keys_away",
    "keys_of",
    "make_engine",
    "reconnect",
    "stored_task",
    "told",
]

BYTES_A_PART = 100_000_000
CONNECTIONS = 4


@dataclass(frozen=True, slots=True, kw_only=True)
class Connection:
    """What it takes to move a job on: what is asked, where, and who carries it."""

    task: Task
    place: Place
    provider: Provider
    batches: Batches
    deadline_s: float


def make_engine(ledger: Ledger, connection: Connection) -> BatchEngine:
    """Return the engine of a job."""
    return BatchEngine(
        ledger,
        task=connection.task,
        provider=connection.provider,
        batches=connection.batches,
        call=call_options(connection.task.options, deadline_s=connection.deadline_s),
        store_factory=lambda: SqliteCache(ledger.cache_path),
    )


def add_parts(
    ledger: Ledger,
    connection: Connection,
    planned: Plan,
    rows: Rows,
    *,
    alone: frozenset[bytes] = frozenset(),
) -> None:
    """Write requests for the rows of a plan into new parts, and the parts into the ledger."""
    batches = connection.batches
    limits = BatchLimits(
        n_requests=min(batches.limits.n_requests, ledger.requests_a_part),
        n_bytes=min(batches.limits.n_bytes, BYTES_A_PART),
    )
    writer = PartWriter(
        ledger,
        task=connection.task,
        rows=rows,
        twins=planned.twins,
        provider=connection.provider,
        batches=batches,
        # As the live path would ask now: a form that this endpoint refused there would fail here, a day later.
        form=Ladder(connection.task, connection.provider.forms(connection.task)).form,
        limits=limits,
    )
    together = [p for p in planned.ask if rows.keys[p] not in alone]
    parts = writer.write(_chunks(ledger, rows, together, [p for p in planned.ask if rows.keys[p] in alone]))
    if parts:
        ledger.parts += parts
        ledger.save()


def keys_of(ledger: Ledger, *, only_open: bool = False) -> set[bytes]:
    """Return the texts that were sent, or that are still on their way."""
    parts = [p for p in ledger.parts if p.state.is_open or not only_open]
    return {key for part in parts for key in read_keys(ledger, part)}


def keys_away(ledger: Ledger) -> set[bytes]:
    """Return the texts that are on their way in a job whose lock is not held: a draft may be taken back meanwhile."""
    try:
        return keys_of(ledger, only_open=True)
    except FileNotFoundError:
        return keys_of(Ledger.load(ledger.folder), only_open=True)


def stored_task(ledger: Ledger, schema: Any = None) -> Task:
    """Return what a job asks, as its ledger has it; what cannot be kept on disk has to be given again."""
    record = ledger.record
    return Task(
        backend=record.backend,
        api=record.api,
        endpoint=record.endpoint,
        model=record.model,
        prompt=record.prompt,
        schema=read_schema(schema if schema is not None else json.loads(record.schema) if record.schema else None),
        options=without_hidden(json.loads(record.options)),
        verify=ledger.verify,
        stored=record,
    )


def told(error: LmsyzError, job_id: str) -> LmsyzError:
    """Say beside an error that nothing is lost, and how to go on."""
    error.add_note(
        f"What was submitted is safe: the same call goes on from there, and so does lmsyz.BatchJob.load({job_id!r})."
        " Nothing is created twice."
    )
    if isinstance(error, RequestError) and error.status != 404:
        error.add_note(
            "A batch was refused as it stands. If it is too large for this endpoint, the same call with a smaller"
            " max_requests_per_batch= sends its rows in smaller ones; job.cancel() takes them back."
        )
    return error


def can_build(connection: Connection, job_id: str) -> Connection:
    """Return a connection by which new requests can be built as the job's first were.

    Raises
    ------
    UsageError
        A part of their body may be secret, so it is not on disk: without it they would ask something else.
    """
    stored = connection.task.stored
    hidden = hidden_names(json.loads(stored.options).get("extra_body")) if stored else []
    if hidden:
        raise UsageError(
            f"the requests of job {job_id!r} have {hidden[0]!r} in extra_body=, which may be a secret and is not on"
            f" disk. Make the same call of df.ie.batch again, with job_id={job_id!r}: it sends nothing twice, and what"
            " it returns can do this"
        )
    return connection


def connected(task: Task, place: Place, *, timeout_s: float) -> Connection:
    """Return what it takes to move a job on.

    Raises
    ------
    MissingKeyError
        There is no key.
    """
    provider = connect_place(place, connections=CONNECTIONS, timeout_s=timeout_s)
    return Connection(task=task, place=place, provider=provider, batches=batches_of(provider), deadline_s=timeout_s)


def reconnect(
    ledger: Ledger, settings: Settings, *, schema: Any, api_key: str | None, base_url: str | None, client: Any
) -> Connection:
    """Return what it takes to move a job of another kernel on.

    Raises
    ------
    UsageError
        Something that is not on disk has to be given again: a model, a client, a base URL.
    """
    record = ledger.record
    if ledger.schema_model and schema is None:
        raise UsageError(
            f"the answers of job {ledger.job_id!r} are held against the pydantic model {ledger.schema_model}, whose"
            f" code is not on disk: lmsyz.BatchJob.load({ledger.job_id!r}, schema={ledger.schema_model})"
        )
    if ledger.own_client and client is None and base_url is None:
        raise UsageError(
            f"job {ledger.job_id!r} was sent by a client of your own: give it again,"
            f" lmsyz.BatchJob.load({ledger.job_id!r}, client=...)"
        )
    place = find_place(
        settings,
        backend=record.backend,
        model=record.model,
        api=record.api,
        api_key=api_key,
        base_url=base_url if base_url is not None else ledger.base_url or None,
        client=client,
        quirks=ledger.quirks,
    )
    if place.endpoint != record.endpoint:
        raise UsageError(
            f"job {ledger.job_id!r} was sent to {record.endpoint}, and this call would go to {place.endpoint}; "
            + (
                "start the sandbox first: lmsyz.sandbox.start()"
                if record.endpoint == "sandbox"
                else "give base_url=, or take LMSYZ_SANDBOX_URL and base URLs out of the environment"
            )
        )
    return connected(stored_task(ledger, schema), place, timeout_s=settings.timeout)


def _chunks(ledger: Ledger, rows: Rows, together: list[int], alone: list[int]) -> Iterator[tuple[int, ...]]:
    chunks = chunk_positions(
        rows, together, size=ledger.chunk_size, token_budget=ledger.token_budget, distinct_openings=ledger.verify
    )
    yield from chunks_within(chunks, rows, image_limits(ledger.record.backend))
    yield from ((p,) for p in alone)
