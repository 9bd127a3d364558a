"""``lmsyz local``: serve a real model on this machine, for other programs or another terminal."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING

import click

from lmsyz.errors import LocalModelError

if TYPE_CHECKING:
    from lmsyz.local import LocalModel

__all__ = ["local"]

CHECK_S = 1.0


@click.command()
@click.argument("model", required=False, type=click.Path(path_type=Path))
@click.option("--port", type=click.IntRange(0, 65535), default=0, help="Port to listen on.  [default: a free one]")
@click.option("--context", type=click.IntRange(min=64), default=4096, show_default=True, help="Tokens a request.")
@click.option("--slots", type=click.IntRange(1, 256), default=2, show_default=True, help="Requests at the same time.")
def local(model: Path | None, port: int, context: int, slots: int) -> None:
    """Serve MODEL, a .gguf file, on this machine until Ctrl-C.

    Without MODEL it is SmolLM2-135M-Instruct: real, but a demonstration, not a research tool.
    """
    from lmsyz.local import start

    with _told_to_stop() as told, start(model, port=port, context=context, slots=slots, default=False) as server:
        for line in _about(server):
            click.echo(line)
        while not told.wait(CHECK_S):
            if not server.is_alive:
                raise LocalModelError(f"the server of {server.model} ended by itself. Start it again.")
    click.echo("Stopped.", err=True)


@contextmanager
def _told_to_stop() -> Iterator[threading.Event]:
    """Have Ctrl-C and SIGTERM set an event, for as long as this lasts."""
    told = threading.Event()

    def tell(number: int, frame: FrameType | None) -> None:
        told.set()

    before = {number: signal.signal(number, tell) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield told
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _about(server: LocalModel) -> list[str]:
    return [
        f"model    {server.model}",
        f"file     {server.path}",
        f"sha256   {server.sha256}",
        f"port     {server.url.rpartition(':')[2]}",
        f"context  {server.context} tokens a request",
        f"slots    {server.slots}",
        f'ask it   df.ie.extract(..., model="{server.model}", base_url="{server.openai_base_url}")',
        f"Ready at {server.openai_base_url}. Ctrl-C stops it.",
    ]
