"""From a frame to rows: its texts, ids and images. The engines know no pandas."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Hashable, Iterator, Sequence
from typing import Any

import numpy as np
import pandas as pd

from lmsyz.errors import UsageError
from lmsyz.image_check import read_images
from lmsyz.image_rows import with_images
from lmsyz.images import ImageLimits
from lmsyz.rows import Rows, text_key, text_keys

__all__ = ["DataFrameIterator", "read_rows", "row_ids"]

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


def _column(df: pd.DataFrame, name: Hashable, argument: str) -> pd.Series[Any]:
    if not isinstance(name, Hashable):
        several = " or a list of names, as list(columns)" if argument == "text_col" else ""
        raise UsageError(f"{argument}= is a column's name{several}; got a {type(name).__name__}")
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
    if isinstance(value, np.ndarray):
        value = value.tolist()
    return _text(
        json.dumps(value, ensure_ascii=False, default=_plain) if isinstance(value, (list, dict)) else str(value)
    )


def _plain(value: object) -> Any:
    # An array as the list that it was before it went through a Parquet file: str() leaves most of a long one out.
    return value.tolist() if isinstance(value, np.ndarray) else str(value)


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
