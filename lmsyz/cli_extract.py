"""``lmsyz extract``: a file in, a file out. Data on stdout with ``--out -`` alone, all else on stderr."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from lmsyz.cli_options import asking, check_out, read_asked, write_table

if TYPE_CHECKING:
    import pandas as pd

    from lmsyz.run import Run

__all__ = ["extract"]

SOME_WITHOUT_ANSWER = 3
STDOUT = "-"
ERROR = "ie_error"


@click.command()
@asking
@click.option("--out", help="A .csv, .parquet or .jsonl file; - is CSV on stdout.")
@click.option("--overwrite", is_flag=True, help="Replace OUT if it exists.")
@click.option("--answers-only", is_flag=True, help="Write ids and answers without the other columns of IN.")
@click.option("--safe-csv", is_flag=True, help="Put an apostrophe before texts that a spreadsheet would run.")
@click.option("--max-workers", type=click.IntRange(min=1), help="Requests in flight, at most.")
@click.option(
    "--on-error",
    type=click.Choice(["keep", "drop", "raise"]),
    default="keep",
    show_default=True,
    help="What becomes of rows without an answer; with raise nothing is written.",
)
@click.option("--dry-run", is_flag=True, help="Tell how many rows would be asked, and why; nothing is spent.")
@click.option("--quiet", is_flag=True, help="No progress and no report.")
def extract(
    source: Path,
    out: str | None,
    overwrite: bool,
    answers_only: bool,
    safe_csv: bool,
    max_workers: int | None,
    on_error: str,
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
    df, about = read_asked(source, **asked)
    # An index that a Parquet file brought along is data as well; a plain one is not.
    df = df.reset_index(drop=df.index.names == [None])
    if dry_run:
        _tell_stale(df, about)
        return
    run = _run(df, about | {"max_workers": max_workers, "on_error": on_error, "progress": not quiet})
    frame = run.result()
    table = frame if answers_only else df
    if answers_only and about["id_col"] is not None:
        table = df[[about["id_col"]]]
    _put(table if table is frame else _joined(table, frame), str(out), safe_csv)
    if not quiet:
        click.echo(f"{run!r}\n{len(frame):,} rows written to {'stdout' if out == STDOUT else out}", err=True)
    if sum(run.counts.n_failed.values()):
        click.get_current_context().exit(SOME_WITHOUT_ANSWER)


def _run(df: pd.DataFrame, about: dict[str, Any]) -> Run:
    from lmsyz.extract import make_run

    return make_run(df, **about)


def _tell_stale(df: pd.DataFrame, about: dict[str, Any]) -> None:
    from lmsyz.staleness import stale_rows

    what = {k: v for k, v in about.items() if k != "chunk_size"}
    click.echo(stale_rows(df, **what).to_string(index=False), err=True)


def _joined(df: pd.DataFrame, frame: pd.DataFrame) -> pd.DataFrame:
    """Return the input's columns and the answers'; an answer with the name of a column gets a suffix."""
    names: dict[str, str] = {}
    for name in frame.columns:
        free = name
        # A second suffix where IN is what an earlier run of this command wrote.
        while free in df.columns or free in names.values() or (free != name and free in frame.columns):
            free += "_answer"
        names[name] = free
    renamed = [f"{name} as {free}" for name, free in names.items() if name != free]
    if renamed:
        click.echo(f"IN has columns of these names already; the answers are written: {', '.join(renamed)}", err=True)
    return df.join(frame.rename(columns=names), how="right")


def _put(table: pd.DataFrame, out: str, safe_csv: bool) -> None:
    if safe_csv and (out == STDOUT or out.lower().endswith(".csv")):
        from lmsyz.csv_guard import guarded_frame

        table = guarded_frame(table)
    if out == STDOUT:
        click.echo(table.to_csv(index=False), nl=False)
    else:
        write_table(table, Path(out), index=False)
