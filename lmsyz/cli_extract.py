"""``lmsyz extract``: a file in, a file out. Data on stdout with ``--out -`` alone, all else on stderr."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from lmsyz.cli_options import asking, check_out, read_prompt, read_table, write_table
from lmsyz.errors import UsageError

if TYPE_CHECKING:
    import pandas as pd

    from lmsyz.run import Run

__all__ = ["extract"]

SOME_WITHOUT_ANSWER = 3
STDOUT = "-"
ERROR = "ie_error"
_WORD = re.compile(r"[A-Za-z][\w.\-]*")


@click.command()
@asking
@click.option("--schema", help='The shape of one row\'s answer: a JSON file, or JSON such as \'{"price": "float"}\'.')
@click.option("--image-col", help="A column with each row's image: its path or its web address.")
@click.option("--out", help="A .csv, .parquet or .jsonl file; - is CSV on stdout.")
@click.option("--overwrite", is_flag=True, help="Replace OUT if it exists.")
@click.option("--answers-only", is_flag=True, help="Write ids and answers without the other columns of IN.")
@click.option("--safe-csv", is_flag=True, help="Put an apostrophe before texts that a spreadsheet would run.")
@click.option("--encoding", default="utf-8-sig", help="Of a CSV file that is read.  [default: utf-8]")
@click.option("--limit", type=click.IntRange(min=1), help="Ask about the first rows only, to see how it goes.")
@click.option("--chunk-size", type=click.IntRange(min=1), help="Rows in one request, at most.")
@click.option("--max-workers", type=click.IntRange(min=1), help="Requests in flight, at most.")
@click.option("--base-url", help="Ask another server that speaks the backend's API.")
@click.option("--fresh", is_flag=True, help="Ask again, and keep the old answers.")
@click.option("--verify-rows", is_flag=True, help="Have the model repeat each row's opening words.")
@click.option(
    "--on-error",
    type=click.Choice(["keep", "drop", "raise"]),
    default="keep",
    show_default=True,
    help="What becomes of rows without an answer; with raise nothing is written.",
)
@click.option("--option", "options", multiple=True, metavar="KEY=JSON", help="For the request, as temperature=0.")
@click.option("--dry-run", is_flag=True, help="Tell how many rows would be asked, and why; nothing is spent.")
@click.option("--quiet", is_flag=True, help="No progress and no report.")
def extract(
    source: Path,
    prompt: str,
    text_col: tuple[str, ...],
    schema: str | None,
    out: str | None,
    overwrite: bool,
    answers_only: bool,
    safe_csv: bool,
    encoding: str,
    limit: int | None,
    options: tuple[str, ...],
    dry_run: bool,
    quiet: bool,
    **asked: Any,
) -> None:
    """Ask about each row of a CSV, Parquet or JSON-lines file, live.

    Answers are stored as they come: after an interrupt or a failure the same command goes on where it stopped. OUT is
    written at the end, whole or not at all.

    Exit codes: 0 every row has an answer; 1 the run failed; 2 the call is wrong, nothing was spent; 3 some rows have no
    answer (they say why in ie_error); 130 interrupted.
    """
    if out is None and not dry_run:
        raise click.UsageError("--out says where to write: a .csv, .parquet or .jsonl file, or - for stdout")
    if out not in (None, STDOUT) and not dry_run:
        check_out(Path(str(out)), overwrite=overwrite, sources=[source])
    asked |= {"text_col": text_col[0] if len(text_col) == 1 else list(text_col), "schema": _schema(schema)}
    request_options = dict(map(_option, options))
    df = _rows_of(source, encoding, limit)
    if (image_col := asked["image_col"]) in df.columns:
        df[image_col] = df[image_col].mask(df[image_col] == "", None)  # a file says no image by an empty field
    if dry_run:
        _tell_stale(df, read_prompt(prompt), asked, request_options)
        return
    run = _run(df, read_prompt(prompt), asked | {"progress": not quiet}, request_options)
    frame = run.result()
    table = frame if answers_only else df
    if answers_only and asked["id_col"] is not None:
        table = df[[asked["id_col"]]]
    _put(table if table is frame else _joined(table, frame), str(out), safe_csv)
    if not quiet:
        click.echo(f"{run!r}\n{len(frame):,} rows written to {'stdout' if out == STDOUT else out}", err=True)
    if sum(run.counts.n_failed.values()):
        click.get_current_context().exit(SOME_WITHOUT_ANSWER)


def _run(df: pd.DataFrame, prompt: str, asked: dict[str, Any], request_options: dict[str, Any]) -> Run:
    from lmsyz.extract import make_run

    return make_run(df, prompt, **asked, request_options=request_options)


def _tell_stale(df: pd.DataFrame, prompt: str, asked: dict[str, Any], request_options: dict[str, Any]) -> None:
    from lmsyz.staleness import stale_rows

    what = {k: v for k, v in asked.items() if k not in ("chunk_size", "max_workers", "on_error")}
    counts = stale_rows(
        df, prompt, **what, client=None, ignore_prompt_hash=False, dedupe=True, request_options=request_options
    )
    click.echo(counts.to_string(index=False), err=True)


def _rows_of(source: Path, encoding: str, limit: int | None) -> pd.DataFrame:
    df = read_table(source, encoding=encoding)
    # An index that a Parquet file brought along is data as well; a plain one is not.
    df = df.reset_index(drop=df.index.names == [None])
    return df if limit is None else df.head(limit)


def _joined(df: pd.DataFrame, frame: pd.DataFrame) -> pd.DataFrame:
    """Return the input's columns and the answers'; an answer with the name of a column gets a suffix."""
    taken = [name for name in frame.columns if name in df.columns]
    if taken:
        click.echo(f"IN has columns of these names already: {', '.join(taken)}; the answers' end in _answer", err=True)
    return df.join(frame.rename(columns={name: f"{name}_answer" for name in taken}), how="right")


def _put(table: pd.DataFrame, out: str, safe_csv: bool) -> None:
    if safe_csv and (out == STDOUT or out.lower().endswith(".csv")):
        from lmsyz.csv_guard import guarded_frame

        table = guarded_frame(table)
    if out == STDOUT:
        click.echo(table.to_csv(index=False), nl=False)
    else:
        write_table(table, Path(out), index=False)


def _schema(said: str | None) -> Any:
    if said is None or not said.lstrip().startswith("{"):
        return None if said is None else Path(said)
    try:
        return json.loads(said)
    except ValueError as error:
        raise UsageError(f"--schema is not JSON: {error}. A file's name does as well") from error


def _option(said: str) -> tuple[str, Any]:
    name, equals, value = said.partition("=")
    if not equals or not name.isidentifier():
        raise UsageError(f"--option {said!r}: write KEY=JSON, such as temperature=0 or reasoning_effort=low")
    try:
        return name, json.loads(value)
    except ValueError as error:
        if _WORD.fullmatch(value):
            return name, value
        raise UsageError(f"--option {said!r}: the value is neither JSON nor a word: {error}") from error
