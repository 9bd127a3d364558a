"""What a test wants to know of batches and no provider tells: who sent what how often, and what was paid for."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator

from lmsyz.sandbox.batch_input import requests_in, rows_of
from lmsyz.sandbox.batch_shelf import Shelf
from lmsyz.sandbox.batches import Batch
from lmsyz.sandbox.text import Text
from lmsyz.sandbox.wire import JsonObject

__all__ = ["batch_told", "paid_texts", "rows_told"]


def batch_told(shelf: Shelf, batch: Batch, now: float) -> JsonObject:
    """Return all there is to a batch."""
    return {
        "id": batch.id,
        "api": batch.label,
        "state": batch.state(now),
        "created": batch.created,
        "n_requests": batch.n,
        "n_rows": batch.n_rows,
        "n_rows_paid": batch.n_rows_paid,
        "counts": batch.counts,
        "problems": batch.problems,
        "metadata": batch.metadata,
        "input_file_id": batch.input_file_id,
        "output_file_id": batch.output,
        "error_file_id": batch.errors,
        "faults": batch.faults,
        "custom_ids": [] if batch.problems else [custom_id for custom_id, _ in requests_in(shelf.path(batch, "in"))],
    }


def paid_texts(shelf: Shelf) -> dict[str, int]:
    """Return how often each text was answered by a batch."""
    return dict(Counter(text for batch in shelf.newest_first() for _, text, _ in _paid(shelf, batch)))


def rows_told(shelf: Shelf) -> list[JsonObject]:
    """Return the rows in all batches that did not fail, with how often each was taken and how often it was paid for."""
    found: dict[tuple[str, str], JsonObject] = {}

    def row(row_id: object, text: str) -> JsonObject:
        key = str(row_id), Text(text).digest
        blank: JsonObject = {"row_id": key[0], "digest": key[1], "n_taken": 0, "n_paid": 0, "custom_ids": []}
        return found.setdefault(key, blank)

    for batch in reversed(shelf.newest_first()):
        if batch.problems:
            continue
        for custom_id, body in requests_in(shelf.path(batch, "in")):
            for asked in rows_of(body):
                one = row(asked.id, asked.text.raw)
                one["n_taken"] += 1
                one["custom_ids"].append(custom_id)
        for row_id, text, _ in _paid(shelf, batch):
            row(row_id, text)["n_paid"] += 1
    return list(found.values())


def _paid(shelf: Shelf, batch: Batch) -> Iterator[tuple[object, str, str]]:
    if batch.is_answered:
        with shelf.path(batch, "paid").open("rb") as file:
            for line in file:
                row_id, text, custom_id = json.loads(line)
                yield row_id, text, custom_id
