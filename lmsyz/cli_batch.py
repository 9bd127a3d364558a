"""``lmsyz batch``: a batch job from the command line. Tables on stdout, all else on stderr."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from lmsyz.cli_options import FILE, asking, check_out, read_asked, write_table
from lmsyz.errors import BatchError

if TYPE_CHECKING:
    from lmsyz.batch_job import BatchJob

__all__ = ["batch"]

_root = click.option(
    "--root",
    type=click.Path(file_okay=False, path_type=Path),
    default="batch_jobs",
    show_default=True,
    help="Jobs' folder.",
)
_job = click.argument("job_id", metavar="JOB")


@click.group()
def batch() -> None:
    """Ask about a file's rows through the provider's batch API: half the price, within a day."""


@batch.command()
@asking
@click.option("--job-id", help="The job's name.  [default: drawn from what is asked]")
@_root
def submit(source: Path, job_id: str | None, root: Path, **asked: Any) -> None:
    """Submit the rows of a CSV, Parquet or JSON-lines file.

    The same command again goes on where the job stands: nothing is sent twice, and of a longer file only the new rows.
    """
    from lmsyz.batch_submit import submit_batch

    df, about = read_asked(source, **asked)
    if (id_col := about["id_col"]) in df.columns:
        df = df.set_index(id_col, drop=False)
    job = submit_batch(df, job_id=job_id, batch_root_dir=root, **about)
    click.echo(repr(job))
    click.echo(f"To wait for it: lmsyz batch wait {job.job_id}", err=True)


@batch.command()
@_job
@_root
@click.option("--refresh", is_flag=True, help="Look at the provider first, and move on what can be.")
def status(job_id: str, root: Path, refresh: bool) -> None:
    """Tell how a job is doing, as of the last look at the provider."""
    job = _load(job_id, root)
    click.echo(repr(job.refresh() if refresh else job.status()))


@batch.command()
@_job
@_root
@click.option(
    "--interval", type=click.FloatRange(min=0), help="Seconds between looks.  [default: slows with the job's age]"
)
@click.option("--timeout", type=click.FloatRange(min=0), help="Seconds to wait, at most.")
def wait(job_id: str, root: Path, interval: float | None, timeout: float | None) -> None:
    """Wait until everything is home; Ctrl-C ends the waiting, not the job."""
    job = _load(job_id, root)
    status = job.wait(interval, timeout)
    click.echo(repr(status))
    if not status.is_done:
        raise BatchError(f"job {job_id} is not done after {timeout:g} s; it goes on at the provider")


@batch.command()
@_job
@_root
@click.option("--out", type=FILE, help="A .csv, .parquet or .jsonl file.  [default: CSV on stdout]")
@click.option("--overwrite", is_flag=True, help="Replace OUT if it exists.")
@click.option("--drop-failed", is_flag=True, help="Leave out rows without an answer.")
@click.option("--safe-csv", is_flag=True, help="Put an apostrophe before texts that a spreadsheet would run.")
def results(job_id: str, root: Path, out: Path | None, overwrite: bool, drop_failed: bool, safe_csv: bool) -> None:
    """Write what has come home so far: one line a row, ids first, ie_error last."""
    if out is not None:
        check_out(out, overwrite=overwrite)
    frame = _load(job_id, root).results(on_error="drop" if drop_failed else "keep")
    n_bad = int(frame["ie_error"].notna().sum())
    if frame.index.nlevels == 1 and frame.index.name is None:
        frame = frame.rename_axis("row")
    if safe_csv and (out is None or out.suffix.lower() == ".csv"):
        from lmsyz.csv_guard import guarded_frame

        frame = guarded_frame(frame)
    if out is None:
        click.echo(frame.to_csv(), nl=False)
    else:
        write_table(frame, out)
    click.echo(f"{len(frame):,} rows, {n_bad:,} of them without an answer" + (f": {out}" if out else ""), err=True)


@batch.command()
@_job
@_root
@click.option("--yes", is_flag=True, help="Do not ask first.")
def cancel(job_id: str, root: Path, yes: bool) -> None:
    """Ask the provider to stop; what it had done by then is paid for and comes home with wait."""
    job = _load(job_id, root)
    if not yes:
        n = job.status().n_pending
        click.confirm(f"Cancel job {job_id}, with {n:,} texts on their way?", abort=True, err=True)
    click.echo(repr(job.cancel()))


@batch.command("list")
@_root
def list_jobs(root: Path) -> None:
    """List the jobs on this disk, as of the last look at the provider."""
    from lmsyz.batch_job import batch_jobs

    jobs = batch_jobs(root)
    if jobs.empty:
        click.echo(f"There are no batch jobs in {root}.", err=True)
    else:
        click.echo(jobs.to_string(index=False))


def _load(job_id: str, root: Path) -> BatchJob:
    from lmsyz.batch_job import BatchJob

    try:
        return BatchJob.load(job_id, batch_root_dir=root)
    except BatchError as error:
        error.add_note("In a shell: lmsyz batch list")
        raise
