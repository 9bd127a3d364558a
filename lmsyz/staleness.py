"""Before any money is spent: which rows would be reused, which asked, and why."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Unpack

import pandas as pd

from lmsyz.cache import SqliteCache
from lmsyz.errors import CacheError
from lmsyz.question import QuestionArguments, read_question
from lmsyz.rows import LongRows, Rows
from lmsyz.settings import load_settings
from lmsyz.store import TaskRecord
from lmsyz.task import Task

__all__ = ["differences", "row_actions", "stale_rows", "tasks_read"]

PARTS = {
    "endpoint changed": ("backend", "api", "endpoint"),
    "model changed": ("model",),
    "prompt changed": ("prompt_hash",),
    "schema changed": ("schema_hash",),
    "options changed": ("options_hash",),
}
# Arguments of extract and batch that say how to ask and not what, so that a call can be looked at by changing its name
# alone.
HOW_NOT_WHAT = frozenset(
    [
        *("chunk_size", "max_workers", "on_error", "progress", "background", "api_key"),
        *("job_id", "batch_root_dir", "max_requests_per_batch"),
    ]
)
NEW, TEXT_CHANGED, AFRESH = "new row", "text changed", "asked afresh"
ROW_CHANGED = "text or image changed"
MARKED = "marked to be asked again"
TOO_LONG, IN_PARTS = "too long for the model", "in parts"


def stale_rows(
    df: pd.DataFrame,
    prompt: str,
    *,
    cache_path: str | os.PathLike[str] | None = None,
    fresh: bool = False,
    ignore_prompt_hash: bool = False,
    **about: Unpack[QuestionArguments],
) -> pd.DataFrame:
    """Return counts by action and reason; see :meth:`df.ie.stale`."""
    _, actions = row_actions(
        df, prompt, cache_path=cache_path, fresh=fresh, ignore_prompt_hash=ignore_prompt_hash, **about
    )
    return _counted(actions)


def row_actions(
    df: pd.DataFrame,
    prompt: str,
    *,
    cache_path: str | os.PathLike[str] | None = None,
    fresh: bool = False,
    ignore_prompt_hash: bool = False,
    **about: Unpack[QuestionArguments],
) -> tuple[Task, list[tuple[str, str]]]:
    """Return the task, and what a call of ``extract`` would do with each row and why, in the frame's order."""
    settings = load_settings()
    options = about.get("request_options") or {}
    about["request_options"] = {k: v for k, v in options.items() if k not in HOW_NOT_WHAT}
    question = read_question(settings, df, prompt, **about)
    task, rows = question.task, question.rows
    path = Path(settings.cache_path if cache_path is None else cache_path).expanduser()
    if fresh or not path.exists():
        reasons = [(AFRESH if fresh else NEW) if k else "" for k in rows.asked.keys]
    else:
        reasons = _reasons(path, task, rows.asked, ignore_prompt_hash)
    if rows.long:
        return task, _actions_of_long(rows, rows.long, reasons)
    return task, [_action(rows, key, reason) for key, reason in zip(rows.keys, reasons, strict=True)]


def _action(rows: Rows, key: bytes, reason: str) -> tuple[str, str]:
    if not key:
        return "skip", "empty text" if rows.images is None else "neither text nor image"
    return ("ask", reason) if reason else ("reuse", "same question")


def _actions_of_long(rows: Rows, long: LongRows, reasons: Sequence[str]) -> list[tuple[str, str]]:
    """Return what would be done with each row of the frame, by what would be done with its parts."""
    by_row: list[list[str]] = [[] for _ in rows.keys]
    for position, reason in zip(long.at, reasons, strict=True):
        by_row[position].append(reason)
    actions = []
    for key, of_row in zip(rows.keys, by_row, strict=True):
        new = [reason for reason in of_row if reason]
        if key in long.refused:
            actions.append(("skip", TOO_LONG) if new else _action(rows, key, ""))
        elif key in long.parts and new:
            # A row of which some parts are stored was asked before, if with another text.
            reason = TEXT_CHANGED if TEXT_CHANGED in new or (NEW in new and len(new) < len(of_row)) else new[0]
            actions.append(("ask", f"{reason}, {IN_PARTS}"))
        else:
            actions.append(_action(rows, key, new[0] if new else ""))
    return actions


def _counted(actions: Sequence[tuple[str, str]]) -> pd.DataFrame:
    counts = Counter(actions)
    order = sorted(counts.items(), key=lambda item: ({"reuse": 0, "ask": 1, "skip": 2}[item[0][0]], -item[1]))
    return pd.DataFrame(
        {
            "action": pd.array([a for (a, _), _ in order], dtype="string"),
            "reason": pd.array([r for (_, r), _ in order], dtype="string"),
            "rows": pd.array([n for _, n in order], dtype="Int64"),
        }
    )


def tasks_read(path: Path, task: Task, *, ignore_prompt: bool) -> list[int] | None:
    """Return the numbers of the stored tasks whose answers a question reuses; None where there is no store."""
    if not path.exists():
        return None
    with opened_to_read(path) as cache:
        return list(cache.reading_tasks(task.record, ignore_prompt))


def opened_to_read(path: Path) -> SqliteCache:
    """Open a cache file without changing it, or bring one of an older lmsyz up to date first."""
    try:
        return SqliteCache(path, read_only=True)
    except CacheError:
        return SqliteCache(path)


def _reasons(path: Path, task: Task, rows: Rows, ignore_prompt: bool) -> list[str]:
    """Return for each row why it would be asked; empty where it would be reused."""
    record = task.record
    with opened_to_read(path) as cache:
        read = cache.reading_tasks(record, ignore_prompt)
        stored = cache.answers(read, {k for k in rows.keys if k})
        missing = {k for k in rows.keys if k and k not in stored}
        marked = cache.marked(read, missing)
        others = cache.tasks_with(missing)
        tasks = dict(cache.similar_tasks(record, ignoring=_EVERYTHING)) if missing else {}
        changed: set[str] = set()
        if rows.ids is not None:
            unknown = {rows.ids[i]: k for i, k in enumerate(rows.keys) if k in missing and k not in others}
            changed = cache.ids_with_other_text(tuple(tasks), unknown)
            seed = cache.seed_rows(None if ignore_prompt else record.prompt_hash, unknown.keys())
        else:
            seed = {}
    reasons = []
    for i, key in enumerate(rows.keys):
        row_id = rows.ids[i] if rows.ids is not None else ""
        if not key or key in stored or (row_id in seed and not rows.has_image(i)):
            reasons.append("")
        elif key in marked:
            reasons.append(MARKED)
        elif key in others:
            reasons.append(_nearest(record, [tasks[t] for t in others[key] if t in tasks]))
        else:
            changes = TEXT_CHANGED if rows.images is None else ROW_CHANGED
            reasons.append(changes if row_id in changed else NEW)
    return reasons


_EVERYTHING = {"backend", "api", "endpoint", "model", "system", "schema", "options"}


def differences(record: TaskRecord, other: TaskRecord) -> list[str]:
    """Name what of a task has changed against another one, such as ``prompt changed``."""
    named = [why for why, parts in PARTS.items() if any(getattr(record, p) != getattr(other, p) for p in parts)]
    # verify_rows and the shape of the contract show in the system prompt alone.
    return named or ["prompt changed"]


def _nearest(record: TaskRecord, tasks: Sequence[TaskRecord]) -> str:
    """Name what differs from the task that differs least, the newest first."""
    best: list[str] = []
    for other in tasks:
        differs = differences(record, other)
        if not best or len(differs) < len(best):
            best = differs
    return ", ".join(best) or NEW
