"""An index as JSON and back, so that another kernel can give a batch's rows their labels again."""

from __future__ import annotations

from collections.abc import Hashable
from typing import Any

import numpy as np
import pandas as pd

__all__ = ["index_as_json", "index_from_json"]

PLAIN = (str, int, float, bool)
CLOCKS = "mM"  # numpy's kinds of time spans and moments


def index_as_json(index: pd.Index) -> tuple[dict[str, Any], list[list[Any]]]:
    """Return what an index is, and the labels of each of its levels, JSON-able.

    Parameters
    ----------
    index : Index
        Any; labels that JSON cannot hold are left out, and said so.

    Returns
    -------
    tuple of dict and list of lists

    Examples
    --------
    >>> index_as_json(pd.RangeIndex(3, name="row"))
    ({'kind': 'range', 'range': [0, 3, 1], 'names': ['row']}, [])
    """
    names = [_name(n) for n in index.names]
    if isinstance(index, pd.RangeIndex):
        return {"kind": "range", "range": [index.start, index.stop, index.step], "names": names}, []
    levels = [index.get_level_values(i) for i in range(index.nlevels)]
    labels = [_labels(level) for level in levels]
    if any(level is None for level in labels):
        return {"kind": "lost", "names": names}, []
    about = {"kind": "levels", "names": names, "dtypes": [str(level.dtype) for level in levels]}
    if any(isinstance(level, pd.CategoricalIndex) for level in levels):
        about["categories"] = [_categories(level) for level in levels]
    return about, [level for level in labels if level is not None]


def index_from_json(about: dict[str, Any], labels: list[list[Any]], n: int) -> tuple[pd.Index, bool]:
    """Return an index, and whether it is the one that was.

    Parameters
    ----------
    about, labels
        As :func:`index_as_json` gave them.
    n : int
        Rows.

    Returns
    -------
    tuple of Index and bool
        A plain range and False where labels could not be kept.
    """
    names: list[Hashable] = list(about["names"])
    if about["kind"] == "range":
        start, stop, step = about["range"]
        return pd.RangeIndex(start, stop, step, name=names[0]), True
    if about["kind"] == "lost":
        return pd.RangeIndex(n), False
    labels = labels or [[] for _ in about["dtypes"]]
    # Jobs of before have none of them on disk.
    categories = about.get("categories") or [{}] * len(labels)
    try:
        levels = [_level(*level) for level in zip(labels, about["dtypes"], categories, strict=True)]
    except (KeyError, TypeError, ValueError):  # a time zone that goes by no name, or an extension type unknown here
        return pd.RangeIndex(n), False
    if len(levels) == 1:
        return levels[0].rename(names[0]), True
    return pd.MultiIndex.from_arrays(levels, names=names), True


def _name(name: object) -> Any:
    return name if name is None or isinstance(name, PLAIN) else str(name)


def _categories(level: pd.Index) -> dict[str, Any]:
    """Return which labels a categorical level may hold, and whether they have an order; empty for another one."""
    if not isinstance(level, pd.CategoricalIndex):
        return {}
    return {"categories": level.categories.tolist(), "ordered": level.ordered}


def _labels(level: pd.Index) -> list[Any] | None:
    if level.dtype.kind in CLOCKS:
        return [int(v) for v in level.to_numpy().view("i8")] if level.dtype.kind == "m" else _moments(level)
    values = [None if not isinstance(v, tuple) and _is_null(v) else v for v in level.tolist()]
    kept = [*values, *_categories(level).get("categories", ())]
    return values if all(v is None or isinstance(v, PLAIN) for v in kept) else None


def _moments(level: pd.Index) -> list[int]:
    return [int(v) for v in pd.DatetimeIndex(level).asi8]


def _is_null(value: Any) -> bool:
    return bool(np.ndim(value) == 0 and pd.isna(value))


def _level(values: list[Any], dtype: str, categories: dict[str, Any]) -> pd.Index:
    if dtype.startswith(("datetime64", "timedelta64")):
        unit = dtype.partition("[")[2].rstrip("]").partition(",")[0]
        kind = "M8" if dtype.startswith("datetime") else "m8"
        plain = np.array(values, dtype="i8").view(f"{kind}[{unit}]")
        zone = dtype.partition(", ")[2].rstrip("]")
        made: pd.Index = pd.Index(plain)
        return pd.DatetimeIndex(plain).tz_localize("UTC").tz_convert(zone) if zone else made
    if dtype == "category":
        return pd.CategoricalIndex(values, **categories)
    plain_index: pd.Index = pd.Index(values, dtype=dtype)
    return plain_index
