"""``lmsyz cache``: what a cache file holds, without changing it, and its answers in a file of another kind."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from lmsyz.cli_options import FILE, check_out, write_table
from lmsyz.errors import UsageError
from lmsyz.widgets.look import one_line

if TYPE_CHECKING:
    from lmsyz.cache import SqliteCache
    from lmsyz.cache_rows import Group

__all__ = ["cache"]

LONGEST_PROMPT = 48


@click.command()
@click.argument("path", metavar="PATH", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.option("--json", "as_json", is_flag=True, help="As one JSON list on stdout, prompts and schemas in full.")
@click.option("--task", type=int, help="This task alone, by its number in the list.")
@click.option("--export", "out", type=FILE, help="Write the answers into a .csv, .parquet or .jsonl file.")
@click.option("--overwrite", is_flag=True, help="Replace the file that --export names, if it exists.")
@click.option("--safe-csv", is_flag=True, help="Put an apostrophe before texts that a spreadsheet would run.")
def cache(path: Path, as_json: bool, task: int | None, out: Path | None, overwrite: bool, safe_csv: bool) -> None:
    """Tell what is in a cache file: what was asked of which model, how many answers, tokens, cost and dates.

    A task is one prompt, schema, model, endpoint and set of options. An export has one line for the newest answer to
    each text: its id and text as sent, the task, the model that answered, the date, and the fields.
    """
    if out is not None:
        check_out(out, overwrite=overwrite, sources=[path])
    from lmsyz.staleness import opened_to_read

    with opened_to_read(path) as store:
        groups = sorted((g for g in store.groups() if task in (None, g.task_id)), key=lambda g: g.task_id)
        if task is not None and not groups:
            raise UsageError(f"{str(path)!r} has no task number {task}; lmsyz cache {path} lists them")
        if out is not None:
            n = _export(store, task, out, safe_csv)
            click.echo(f"{n:,} answers written to {out}", err=True)
            return
    found = [_facts(group) for group in groups]
    if as_json:
        click.echo(json.dumps(found, ensure_ascii=False, indent=2))
    elif found:
        click.echo(_table(found))
    else:
        click.echo(f"There is nothing in {path} yet.", err=True)


def _facts(group: Group) -> dict[str, Any]:
    """Return what a task asked, how much of it is answered, and what that took."""
    record = dataclasses.asdict(group.task)
    return {
        "task": group.task_id,
        **{name: record[name] for name in ("backend", "api", "endpoint", "model", "prompt", "prompt_hash")},
        "schema": _loaded(record["schema"] or "null"),
        "options": _loaded(record["options"] or "{}"),
        "answers": group.n_rows,
        "stale": group.n_stale,
        "requests": group.n_requests,
        "input_tokens": group.input_tokens,
        "output_tokens": group.output_tokens,
        "cost": group.cost,
        "first": _date(group.first),
        "last": _date(group.last),
    }


def _date(unix: float | None) -> str | None:
    return datetime.fromtimestamp(unix, UTC).isoformat(timespec="seconds") if unix else None


def _loaded(text: str) -> Any:
    """Return JSON, or the text as it stands where it is none."""
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return text


def _table(found: list[dict[str, Any]]) -> str:
    head = ("task", "model", "answers", "tokens in", "out", "cost", "last", "prompt")
    lines = [head, *(_cells(each) for each in found)]
    widths = [max(len(line[i]) for line in lines) for i in range(len(head))]
    aligned = [[cell.ljust(width) for cell, width in zip(line, widths, strict=True)] for line in lines]
    return "\n".join("  ".join(line).rstrip() for line in aligned)


def _cells(facts: dict[str, Any]) -> tuple[str, ...]:
    shown = _on_a_line(facts["prompt"])
    return (
        str(facts["task"]),
        _on_a_line(facts["model"]),
        f"{facts['answers']:,}",
        f"{facts['input_tokens']:,}",
        f"{facts['output_tokens']:,}",
        "unknown" if facts["cost"] is None else f"${facts['cost']:.4f}",
        (facts["last"] or "")[:10],
        shown if len(shown) <= LONGEST_PROMPT else f"{shown[: LONGEST_PROMPT - 1]}…",
    )


def _on_a_line(text: str) -> str:
    return one_line(text, unseen="?")  # a sign that every terminal's encoding has


def _export(store: SqliteCache, task: int | None, out: Path, safe_csv: bool) -> int:
    import pandas as pd

    rows = list(_rows(store, task))
    # Whole numbers stay whole beside tasks that have no such field; Parquet wants one type a column all the same.
    frame = pd.DataFrame(rows, dtype=None if out.suffix.lower() == ".parquet" else object)
    if safe_csv and out.suffix.lower() == ".csv":
        from lmsyz.csv_guard import guarded_frame

        frame = guarded_frame(frame)
    write_table(frame, out, index=False)
    return len(frame)


def _rows(store: SqliteCache, task: int | None) -> Iterator[dict[str, Any]]:
    """Go through the newest answer to each text of each task, with the row as it was sent."""
    from lmsyz.cache_rows import RowFilter

    seen: set[tuple[int, bytes]] = set()
    for row in store.export_rows(RowFilter(task_ids=None if task is None else (task,))):
        if (row.task_id, row.key) in seen:
            continue
        seen.add((row.task_id, row.key))
        told = {"input_id": row.row_id, "input_text": row.text, "ie_task": row.task_id, "ie_model": row.model}
        told["ie_created"] = _date(row.created) or ""
        answer = _loaded(row.answer)
        fields = answer if isinstance(answer, dict) else {"answer": row.answer}
        yield told | {name: value for name, value in fields.items() if name not in told}
