"""From a frame to rows, and from answers to a typed frame with the same index. The engines know no pandas."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Hashable, Iterator, Mapping, Sequence
from itertools import repeat
from typing import TYPE_CHECKING, Any

import pandas as pd

from lmsyz.engine import EMPTY_ROW, EMPTY_TEXT
from lmsyz.errors import UsageError
from lmsyz.image_check import read_images
from lmsyz.image_rows import with_images
from lmsyz.images import ImageLimits
from lmsyz.merging import merged
from lmsyz.rows import Rows, text_key, text_keys
from lmsyz.schema import RowSchema

if TYPE_CHECKING:
    from lmsyz.batch_status import BatchStatus

__all__ = [
    "ERROR_COLUMN",
    "DataFrameIterator",
    "answers_frame",
    "empty_reason",
    "errors_frame",
    "jobs_frame",
    "read_rows",
    "row_ids",
]

ERROR_COLUMN = "ie_error"
PENDING = "pending: no answer yet"
PARSED_AT_ONCE = 2000
OFFENDERS_SHOWN = 5


def read_rows(
    df: pd.DataFrame,
    text_col: Hashable | Sequence[Hashable],
    id_col: Hashable | None = None,
    *,
    dedupe: bool = True,
    image_col: Hashable | None = None,
    image_limits: ImageLimits | None = None,
) -> Rows:
    """Read a frame's texts and ids.

    Parameters
    ----------
    df : DataFrame
        Any index will do.
    text_col : label or list of labels
        The column to ask about; several are sent as named fields. None asks about images alone.
    id_col : label, optional
        A column of non-null, non-blank ids, unique after ``str()``.
    dedupe : bool
        Whether equal texts (with equal images) share one key, and so one question.
    image_col : label, optional
        A column of images, see :func:`lmsyz.image_check.read_images`.
    image_limits : ImageLimits, optional
        What the provider takes of them.

    Returns
    -------
    Rows

    Raises
    ------
    UsageError
        A column is missing or there twice, ids are null, blank or repeated, or an image cannot be sent.
    """
    ids = None if id_col is None else row_ids(df, id_col)
    if image_col is not None and image_limits is not None:
        return _rows_with_images(df, text_col, ids, image_col, image_limits, dedupe=dedupe)
    named = isinstance(text_col, list)
    texts = (
        _named_texts(df, text_col) if isinstance(text_col, list) else _plain_texts(_column(df, text_col, "text_col"))
    )
    keys = text_keys(texts, named_fields=named) if dedupe else _keys_of_each(texts, named)
    return Rows(texts=texts, keys=keys, ids=ids, named_fields=named)


def _rows_with_images(
    df: pd.DataFrame,
    text_col: Hashable | Sequence[Hashable],
    ids: list[str] | None,
    image_col: Hashable,
    limits: ImageLimits,
    *,
    dedupe: bool,
) -> Rows:
    column = _column(df, image_col, "image_col")
    try:
        plain = Rows(texts=[None] * len(df), keys=[]) if text_col is None else read_rows(df, text_col)
    except UsageError as error:
        raise UsageError(f"{error} To ask about images alone, text_col=None.") from error
    values = [None if _is_null(v) else v for v in column.tolist()]
    images = read_images(values, column=image_col, limits=limits, ids=ids)
    return with_images(plain, images, ids=ids, dedupe=dedupe)


def row_ids(df: pd.DataFrame, id_col: Hashable) -> list[str]:
    """Return a column's values as row ids.

    Raises
    ------
    UsageError
        Some are null, blank, or the same after ``str()``; the first few are named.
    """
    column = _column(df, id_col, "id_col")
    null = column.isna().to_numpy()
    if null.any():
        raise UsageError(
            f"id_col={id_col!r} is null in {int(null.sum()):,} of {len(df):,} rows (first at positions"
            f" {_first(i for i, is_null in enumerate(null) if is_null)}). Fill them in, or use id_col=None."
        )
    ids = [_encodable(str(v)) for v in column.tolist()]
    blank = [i for i, v in enumerate(ids) if not v.strip()]
    if blank:
        raise UsageError(f"id_col={id_col!r} is blank in {len(blank):,} rows (first at positions {_first(blank)}).")
    if len(set(ids)) < len(ids):
        again = [v for v, n in Counter(ids).items() if n > 1]
        raise UsageError(
            f"id_col={id_col!r} has {len(again):,} ids more than once after str() (first: {_first(again)}). Row ids"
            " must be unique; make them so, or use id_col=None."
        )
    return ids


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
    columns = _schema_columns(values, schema) if schema else _free_columns(values)
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


class DataFrameIterator:
    """Chunks of a frame as lists of ``{"input_id", "input_text"}`` dicts (the seed package's iterator).

    Parameters
    ----------
    dataframe : DataFrame
        Source rows.
    id_col, text_col : str
        Source columns.
    chunk_size : int
        Rows a chunk.
    formatted_id_col, formatted_text_col : str
        Keys of the dicts.

    Examples
    --------
    >>> frame = pd.DataFrame({"id": [1, 2, 3], "text": ["a", "b", "c"]})
    >>> [len(chunk) for chunk in DataFrameIterator(frame, "id", "text", chunk_size=2)]
    [2, 1]
    """

    def __init__(
        self,
        dataframe: pd.DataFrame,
        id_col: str,
        text_col: str,
        chunk_size: int = 5,
        formatted_id_col: str = "input_id",
        formatted_text_col: str = "input_text",
    ) -> None:
        if isinstance(chunk_size, bool) or not isinstance(chunk_size, int) or chunk_size < 1:
            raise UsageError(f"chunk_size must be a whole number from 1 up, got {chunk_size!r}")
        self.dataframe = dataframe
        self.chunk_size = chunk_size
        self._ids = row_ids(dataframe, id_col)
        self._texts = _column(dataframe, text_col, "text_col").tolist()
        self._names = (formatted_id_col, formatted_text_col)

    def __iter__(self) -> Iterator[list[dict[str, str]]]:
        id_name, text_name = self._names
        for start in range(0, len(self._ids), self.chunk_size):
            part = slice(start, start + self.chunk_size)
            pairs = zip(self._ids[part], self._texts[part], strict=True)
            yield [{id_name: row_id, text_name: str(text)} for row_id, text in pairs]

    def __len__(self) -> int:
        return -(-len(self._ids) // self.chunk_size)


def empty_reason(rows: Rows) -> str:
    """Return what is said of rows that hold nothing to ask about."""
    return EMPTY_TEXT if rows.images is None else EMPTY_ROW


def _column(df: pd.DataFrame, name: Hashable, argument: str) -> pd.Series[Any]:
    n = sum(1 for c in df.columns if c == name)
    if n != 1:
        what = "has no column" if not n else f"has {n} columns called"
        have = ", ".join(map(repr, list(df.columns)[:12])) or "none"
        raise UsageError(f"the frame {what} {name!r}; it has {have}. Say which one with {argument}=")
    return df[name]


def _plain_texts(column: pd.Series[Any]) -> list[str | None]:
    # The plain case is decided here: a call a row is what costs most of it.
    return [v if type(v) is str and v.isascii() and v and not v.isspace() else _text(v) for v in column.tolist()]


def _text(value: object) -> str | None:
    if isinstance(value, str):
        return _encodable(value) if value and not value.isspace() else None
    if _is_null(value):
        return None
    return _text(json.dumps(value, ensure_ascii=False, default=str) if isinstance(value, (list, dict)) else str(value))


def _named_texts(df: pd.DataFrame, names: list[Hashable]) -> list[str | None]:
    if not names:
        raise UsageError("text_col=[] names no column")
    if len({str(name) for name in names}) < len(names):
        raise UsageError(f"text_col={names!r} names a column twice after str(); give each its own name")
    columns = [[_text(v) for v in _column(df, name, "text_col").tolist()] for name in names]
    labels = [str(name) for name in names]
    texts: list[str | None] = []
    for values in zip(*columns, strict=True):
        blank = all(v is None for v in values)
        fields = dict(zip(labels, values, strict=True))
        texts.append(None if blank else json.dumps(fields, ensure_ascii=False, separators=(",", ":")))
    return texts


def _keys_of_each(texts: Sequence[str | None], named: bool) -> list[bytes]:
    seen: dict[str, int] = {}
    keys = []
    for text in texts:
        if text is None:
            keys.append(b"")
            continue
        n = seen.get(text, 0)
        seen[text] = n + 1
        keys.append(text_key(text, occurrence=n, named_fields=named))
    return keys


def _is_null(value: object) -> bool:
    if isinstance(value, (list, dict, tuple, set)):
        return False
    null = pd.isna(value)  # type: ignore[call-overload]
    return bool(null) if isinstance(null, bool) or getattr(null, "ndim", 0) == 0 else False


def _encodable(text: str) -> str:
    if text.isascii():
        return text
    # A lone surrogate has no UTF-8 form, so no server could be sent it.
    return text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")


def _first(offenders: Any) -> str:
    shown = []
    for value in offenders:
        shown.append(repr(value))
        if len(shown) == OFFENDERS_SHOWN:
            break
    return ", ".join(shown)


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


def _schema_columns(values: Mapping[str, list[Any]], schema: RowSchema) -> dict[str, Any]:
    columns = {}
    for field in schema.fields:
        if field.dtype == "category":
            codes = {category: code for code, category in enumerate(field.categories)}
            categories = pd.Index(list(field.categories))
            columns[field.name] = pd.Categorical.from_codes([codes.get(v, -1) for v in values[field.name]], categories)
        else:
            columns[field.name] = _typed(values[field.name], field.dtype)
    return columns


def _free_columns(values: Mapping[str, list[Any]]) -> dict[str, Any]:
    # A model may use the name of our own last column; its value is kept under another name.
    taken = {ERROR_COLUMN: f"{ERROR_COLUMN}_"}
    return {taken.get(name, name): _typed(column, _dtype_of(column)) for name, column in values.items()}


def _dtype_of(values: Sequence[object]) -> str:
    kinds = {type(v) for v in values if v is not None}
    if kinds == {bool}:
        return "boolean"
    if kinds == {int}:
        return "Int64" if all(-(2**63) <= v < 2**63 for v in values if isinstance(v, int)) else "object"
    if kinds and kinds <= {int, float}:
        return "Float64"
    return "string" if kinds == {str} else "object"


def _typed(values: list[Any], dtype: str) -> Any:
    if dtype == "object":
        return pd.Series(values, dtype=object).to_numpy()
    try:
        return pd.array(values, dtype=dtype)  # type: ignore[call-overload]
    except OverflowError:
        # An integer beyond 64 bits: kept as it is rather than rounded.
        return pd.Series(values, dtype=object).to_numpy()
