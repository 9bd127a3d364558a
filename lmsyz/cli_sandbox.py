"""``lmsyz sandbox``: the sandbox in the foreground, for another program or another language to ask."""

from __future__ import annotations

import dataclasses
import json
import signal
import threading
from types import FrameType
from typing import TYPE_CHECKING, Any

import click

from lmsyz.errors import SandboxError, UsageError

if TYPE_CHECKING:
    from lmsyz.sandbox import Sandbox

__all__ = ["sandbox"]

LOOK_S = 2.0
KEY = "sandbox"  # any will do that does not hold the word invalid


@click.command()
@click.option("--port", type=click.IntRange(min=1, max=65535), help="Where to listen.  [default: a free port]")
@click.option("--seed", type=int, default=0, show_default=True, help="Of every fault that is drawn.")
@click.option(
    "--fault",
    "faults",
    multiple=True,
    metavar="NAME=JSON",
    help="What goes wrong, as rate_limited=0.1 or latency_s=0.5; several times for several.",
)
@click.option("--list-faults", is_flag=True, help="Tell the names of the faults, and what they are if not set.")
def sandbox(port: int | None, seed: int, faults: tuple[str, ...], list_faults: bool) -> None:
    """Serve the sandbox on this machine until Ctrl-C.

    It speaks OpenAI's and Anthropic's wire protocols, live and batch, and answers by documented rules, not by a
    language model. The lines on stdout have other programs ask it: type them in another shell.
    """
    from lmsyz.sandbox import Faults, start

    if list_faults:
        for fault in dataclasses.fields(Faults):
            click.echo(f"{fault.name}={json.dumps(fault.default)}")
        return
    chosen = Faults.of(None, dict(map(_fault, faults)))
    over = threading.Event()
    before = {each: signal.signal(each, _ender(over)) for each in (signal.SIGINT, signal.SIGTERM)}
    try:
        with start(port=port, seed=seed, faults=chosen, default=False, fresh=True) as box:
            click.echo("\n".join(_lines(box)))
            click.echo("Serving; Ctrl-C ends it.", err=True)
            _wait(box, over)
            click.echo(f"{_counted(box)} Stopped.", err=True)
    finally:
        for each, handler in before.items():
            signal.signal(each, handler)


def _ender(over: threading.Event) -> Any:
    def end(number: int, frame: FrameType | None) -> None:
        over.set()

    return end


def _lines(box: Sandbox) -> list[str]:
    """Return what a POSIX shell takes: the first for lmsyz, the others for the two SDKs."""
    values = {
        "LMSYZ_SANDBOX_URL": box.url,
        "OPENAI_BASE_URL": box.openai_base_url,
        "OPENAI_API_KEY": KEY,
        "ANTHROPIC_BASE_URL": box.anthropic_base_url,
        "ANTHROPIC_API_KEY": KEY,
    }
    return [f"export {name}={value}" for name, value in values.items()]


def _wait(box: Sandbox, over: threading.Event) -> None:
    while not over.wait(LOOK_S):
        try:
            box.stats()
        except SandboxError as error:
            raise SandboxError(f"the sandbox at {box.url} has ended by itself; start it again") from error


def _counted(box: Sandbox) -> str:
    stats = box.stats()
    return f"{stats['n_requests']:,} requests, {stats['n_rows']:,} rows answered."


def _fault(said: str) -> tuple[str, Any]:
    name, equals, value = said.partition("=")
    if not equals:
        raise UsageError(f"--fault {said!r}: write NAME=JSON, such as rate_limited=0.1; --list-faults names them all")
    try:
        found = json.loads(value)
    except ValueError:
        return name, value
    return name, tuple(found) if isinstance(found, list) else found
