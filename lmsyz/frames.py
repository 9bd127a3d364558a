"""From answers to a typed frame with the index of the frame that was asked about. The engines know no pandas."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from itertools import repeat
from typing import TYPE_CHECKING, Any

import pandas as pd

from lmsyz.engine import EMPTY_ROW, EMPTY_TEXT
from lmsyz.merging import merged
from lmsyz.rows import Rows
from lmsyz.schema import RowSchema

if TYPE_CHECKING:
    from lmsyz.batch_status import BatchStatus

__all__ = ["ERROR_COLUMN", "answers_frame", "empty_reason", "errors_frame", "jobs_frame"]

ERROR_COLUMN = "ie_error"
PENDING = "pending: no answer yet"
PARSED_AT_ONCE = 2000


def answers_frame(
    index: pd.Index,
    rows: Rows,
    answers: Mapping[bytes, str],
    failures: Mapping[bytes, str],
    schema: RowSchema | None,
) -> pd.DataFrame:
    """Return one row per row asked, in the same order: the fields as typed columns, and ``ie_error`` last.

    Parameters
    ----------
    index : Index
        The index of the frame that was asked about.
    rows : Rows
        Its rows.
    answers : mapping
        JSON text of each answer by text key.
    failures : mapping
        Reasons by text key.
    schema : RowSchema or None
        Types of the columns; without it they are drawn from the answers.
    """
    answers, failures = merged(rows, answers, failures, schema)
    values = _read_values(rows, answers, [field.name for field in schema.fields] if schema else None)
    columns = _schema_columns(values, schema, index) if schema else _free_columns(values, index)
    columns[ERROR_COLUMN] = pd.array(
        [None if k in answers else failures.get(k, PENDING) if k else empty_reason(rows) for k in rows.keys],
        dtype="string",
    )
    return pd.DataFrame(columns, index=index)


def errors_frame(
    index: pd.Index,
    rows: Rows,
    answers: Mapping[bytes, str],
    failures: Mapping[bytes, str],
    schema: RowSchema | None = None,
) -> pd.DataFrame:
    """Return the rows that have no answer: position, row id, kind and reason, at the frame's own index."""
    answers, failures = merged(rows, answers, failures, schema)
    at = [i for i, key in enumerate(rows.keys) if key not in answers]
    reasons = [failures.get(rows.keys[i], PENDING) if rows.keys[i] else empty_reason(rows) for i in at]
    return pd.DataFrame(
        {
            "position": pd.array(at, dtype="Int64"),
            "row_id": pd.array([rows.ids[i] if rows.ids is not None else None for i in at], dtype="string"),
            "kind": pd.array([r.partition(":")[0] for r in reasons], dtype="string"),
            "reason": pd.array(reasons, dtype="string"),
        },
        index=index[at],
    )


def jobs_frame(jobs: Sequence[BatchStatus]) -> pd.DataFrame:
    """Return batch jobs as a frame, the latest first."""
    jobs = sorted(jobs, key=lambda job: job.submitted or float("inf"), reverse=True)
    moments = {
        name: pd.to_datetime([getattr(job, name) for job in jobs], unit="s", utc=True)
        for name in ("submitted", "expires")
    }
    return pd.DataFrame(
        {
            **{
                name: pd.array([getattr(j, name) for j in jobs], "string")
                for name in ("job_id", "backend", "model", "state")
            },
            "rows": pd.array([j.n_rows for j in jobs], "Int64"),
            "sent": pd.array([j.n_sent for j in jobs], "Int64"),
            "answered": pd.array([j.n_good for j in jobs], "Int64"),
            "failed": pd.array([j.n_bad for j in jobs], "Int64"),
            "pending": pd.array([j.n_pending for j in jobs], "Int64"),
            "parts": pd.array([len(j.parts) for j in jobs], "Int64"),
            **moments,
            "cost": pd.array([j.cost for j in jobs], "Float64"),
        }
    )


def empty_reason(rows: Rows) -> str:
    """Return what is said of rows that hold nothing to ask about."""
    return EMPTY_TEXT if rows.images is None else EMPTY_ROW


def _read_values(rows: Rows, answers: Mapping[bytes, str], names: Sequence[str] | None) -> dict[str, list[Any]]:
    """Read answers into a list a field, many at a time: one ``loads`` of 2,000 rows costs a third of 2,000 of them.

    Without names all that the answers have are read. What is parsed is let go of at once, since it takes more room
    than texts and result together.
    """
    values: dict[str, list[Any]] = {name: [] for name in names or ()}
    for start in range(0, len(rows), PARSED_AT_ONCE):
        texts = map(answers.get, rows.keys[start : start + PARSED_AT_ONCE], repeat("{}"))
        parsed = json.loads("[" + ",".join(texts) + "]")
        if names is None:
            for name in (name for answer in parsed for name in answer):
                if name not in values:
                    values[name] = [None] * start
        for name, column in values.items():
            column += [answer.get(name) for answer in parsed]
    return values


def _schema_columns(values: Mapping[str, list[Any]], schema: RowSchema, index: pd.Index) -> dict[str, Any]:
    columns = {}
    for field in schema.fields:
        if field.dtype == "category":
            codes = {category: code for code, category in enumerate(field.categories)}
            categories = pd.Index(list(field.categories))
            columns[field.name] = pd.Categorical.from_codes([codes.get(v, -1) for v in values[field.name]], categories)
        else:
            columns[field.name] = _typed(values[field.name], field.dtype, index)
    return columns


def _free_columns(values: Mapping[str, list[Any]], index: pd.Index) -> dict[str, Any]:
    # A model may use the name of our own last column; its value is kept under another name.
    ours = f"{ERROR_COLUMN}_"
    while ours in values:
        ours += "_"
    return {ours if name == ERROR_COLUMN else name: _typed(c, _dtype_of(c), index) for name, c in values.items()}


def _dtype_of(values: Sequence[object]) -> str:
    kinds = {type(v) for v in values if v is not None}
    if kinds == {bool}:
        return "boolean"
    if kinds == {int}:
        return "Int64" if all(-(2**63) <= v < 2**63 for v in values if isinstance(v, int)) else "object"
    if kinds and kinds <= {int, float}:
        # A float cannot hold every integer beyond 2**53: such a column is kept as it is rather than rounded.
        return "Float64" if all(_fits_float(v) for v in values if isinstance(v, int)) else "object"
    return "string" if kinds == {str} else "object"


def _fits_float(value: int) -> bool:
    try:
        return int(float(value)) == value
    except OverflowError:
        return False


def _typed(values: list[Any], dtype: str, index: pd.Index) -> Any:
    if dtype != "object":
        try:
            return pd.array(values, dtype=dtype)  # type: ignore[call-overload]
        except OverflowError:  # an integer beyond 64 bits: kept as it is rather than rounded
            pass
    # A series, not an array: of an array pandas 2 would look for a type of its own, and fail on very large integers.
    return pd.Series(values, dtype=object, index=index)
