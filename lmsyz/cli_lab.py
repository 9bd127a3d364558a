"""``lmsyz lab``: the teaching notebooks in JupyterLab."""

from __future__ import annotations

from pathlib import Path

import click

from lmsyz.lab import check_installed, copy_notebooks, open_lab

__all__ = ["lab"]


@click.command()
@click.argument("folder", default="lmsyz-notebooks", type=click.Path(file_okay=False, path_type=Path))
@click.option("--copy-only", is_flag=True, help="Copy the notebooks and open nothing.")
@click.option("--browser/--no-browser", default=True, show_default=True, help="Open a browser as well.")
@click.pass_context
def lab(ctx: click.Context, folder: Path, copy_only: bool, browser: bool) -> None:
    """Open JupyterLab on a copy of the teaching notebooks in FOLDER, with the sandbox ready.

    FOLDER is lmsyz-notebooks unless said. A file that is there already is never overwritten: your work stays, and only
    what is missing is copied.
    """
    if not copy_only:
        check_installed()
    copied, kept = copy_notebooks(folder)
    left = f"; {len(kept)} were there already and are left as they are" if kept else ""
    click.echo(f"{len(copied)} files copied to {folder}{left}.")
    if not copy_only:
        ctx.exit(open_lab(folder, browser=browser))
