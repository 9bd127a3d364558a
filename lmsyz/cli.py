"""The command line.

Exit codes: 0 fine; 1 the run failed, for a reason told in one message; 2 the call is wrong; 3 (``extract``) some rows
have no answer; 130 interrupted.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from lmsyz.cli_batch import batch
from lmsyz.cli_cache import cache
from lmsyz.cli_extract import extract
from lmsyz.cli_lab import lab
from lmsyz.cli_local import local
from lmsyz.cli_sandbox import sandbox
from lmsyz.errors import LmsyzError, MissingKeyError, UsageError

__all__ = ["main"]

INTERRUPTED = 130
IN_A_SHELL = (
    "In a shell: set the key in the environment or in .env, or name a server by --base-url. `lmsyz sandbox` serves one"
    " that needs no key, and prints the lines that point here."
)


class _FailedRun(click.ClickException):
    """One of our errors as a message without a traceback."""

    def __init__(self, error: LmsyzError) -> None:
        super().__init__("\n".join([str(error), *getattr(error, "__notes__", ())]))


class _WrongCall(_FailedRun):
    exit_code = 2


class _Commands(click.Group):
    """Commands whose faults of our own kind end in a message and an exit code."""

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except UsageError as error:
            if isinstance(error, MissingKeyError):
                error.add_note(IN_A_SHELL)
            raise _WrongCall(error) from error
        except LmsyzError as error:
            raise _FailedRun(error) from error
        except KeyboardInterrupt as interrupt:
            click.echo(str(interrupt) or "Interrupted.", err=True)
            ctx.exit(INTERRUPTED)


@click.group(cls=_Commands, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="lmsyz", message="%(prog)s %(version)s", prog_name="lmsyz")
def main() -> None:
    """Turn a text column into measured data with an LLM."""


main.add_command(batch)
main.add_command(cache)
main.add_command(extract)
main.add_command(lab)
main.add_command(local)
main.add_command(sandbox)


@main.command()
@click.option("--backend", type=click.Choice(["openai", "anthropic"]), help="Whose API to speak.")
@click.option("--model", help="Ask this model, and pay for it; needs a key in the environment or .env.")
@click.option("--local", "is_local", is_flag=True, help="Ask a small real model on this machine; --model is its file.")
@click.option("--rows", type=click.IntRange(min=1), help="How much to ask about.  [default: 200; with --local 12]")
@click.option(
    "--cache",
    "cache_path",
    type=click.Path(dir_okay=False, path_type=Path),
    help="Keep the answers in this file; asked again, they come from there.  [default: a new temporary file]",
)
@click.option("--base-url", help="Ask another server that speaks the backend's API; needs --model.")
def demo(
    backend: str | None,
    model: str | None,
    is_local: bool,
    rows: int | None,
    cache_path: Path | None,
    base_url: str | None,
) -> None:
    """Code 200 paragraphs of State of the Union addresses, and show what came of it.

    Without --model the answers come from the sandbox: rules on this machine, no language model, no key, no cost. With
    --local a small real model reads a few sentences, by the extra "local" and a model file.
    """
    if is_local:
        if backend or base_url:
            raise click.UsageError("--local asks a model on this machine: leave out --backend and --base-url")
        from lmsyz.demo_local import run_local_demo

        run_local_demo(n_rows=rows, cache_path=cache_path, model=model)
        return
    if base_url and not model:
        raise click.UsageError("--base-url needs --model: which model of that server is to be asked?")
    from lmsyz.demo import run_demo

    run_demo(backend=backend, model=model, n_rows=rows or 200, cache_path=cache_path, base_url=base_url)
