"""The file of a batch job that holds the rows of its frame, for a kernel that has no frame. No pandas."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from typing import Any

from lmsyz.batch_ledger import Ledger
from lmsyz.errors import BatchError
from lmsyz.long_rows import long_from_json, long_to_json
from lmsyz.rows import Rows

__all__ = ["FrameFile"]

ROWS_A_LINE = 2000


class FrameFile:
    """The rows of the frame that a job was last called with, so that another kernel can give them back in order.

    Parameters
    ----------
    ledger : Ledger
        The job.
    """

    def __init__(self, ledger: Ledger) -> None:
        self._path = ledger.path("frame.jsonl")

    def write(self, rows: Rows, index: Mapping[str, Any], labels: Sequence[Sequence[Any]]) -> None:
        """Write keys, ids and labels of all rows.

        Parameters
        ----------
        rows : Rows
            The rows.
        index : mapping
            What the index is, JSON-able.
        labels : sequence of sequences
            The labels of each of its levels, JSON-able; empty where positions will do.
        """
        new = self._path.with_name(self._path.name + ".new")
        with open(os.open(new, os.O_CREAT | os.O_TRUNC | os.O_WRONLY, 0o600), "wb") as file:
            head = {"n": len(rows), "ids": rows.ids is not None, "named": rows.named_fields, "index": dict(index)}
            head["images"] = rows.images is not None
            if rows.long:
                head["long"] = long_to_json(rows.long)
            file.write(json.dumps(head).encode() + b"\n")
            for start in range(0, len(rows), ROWS_A_LINE):
                part = slice(start, start + ROWS_A_LINE)
                line: dict[str, Any] = {"keys": [k.hex() for k in rows.keys[part]]}
                if rows.ids is not None:
                    line["ids"] = list(rows.ids[part])
                line["labels"] = [list(level[part]) for level in labels]
                file.write(json.dumps(line, ensure_ascii=False).encode("utf-8", "replace") + b"\n")
            file.flush()
            os.fsync(file.fileno())
        new.replace(self._path)

    def read(self) -> tuple[Rows, dict[str, Any], list[list[Any]]]:
        """Return the rows, without their texts, with what the index is and its labels.

        Raises
        ------
        BatchError
            The file is gone or damaged.
        """
        try:
            return self._read()
        except FileNotFoundError as error:
            raise BatchError(self._trouble("is gone")) from error
        except (ValueError, KeyError, TypeError) as error:
            raise BatchError(self._trouble(f"is damaged ({type(error).__name__})")) from error

    def _trouble(self, what: str) -> str:
        return (
            f"{str(self._path)!r} {what}: it holds the order of the rows. Their answers are in the store: the call that"
            " made the job, made again with the same frame, writes it anew, and df.ie.extract returns what is stored"
        )

    def _read(self) -> tuple[Rows, dict[str, Any], list[list[Any]]]:
        with self._path.open("rb") as file:
            head = json.loads(file.readline())
            keys: list[bytes] = []
            ids: list[str] = []
            labels: list[list[Any]] = []
            for line in map(json.loads, file):
                keys += [bytes.fromhex(k) for k in line["keys"]]
                ids += line.get("ids", [])
                labels = labels or [[] for _ in line["labels"]]
                for level, more in zip(labels, line["labels"], strict=True):
                    level += more
        nothing = [None] * len(keys)
        rows = Rows(
            texts=nothing,
            keys=keys,
            ids=ids if head["ids"] else None,
            named_fields=head["named"],
            images=nothing if head.get("images") else None,
        )
        return long_from_json(rows, head["long"]) if "long" in head else rows, head["index"], labels
