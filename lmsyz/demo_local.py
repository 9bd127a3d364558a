"""``lmsyz demo --local``: a small real model on this machine reads a few sentences, held against their coding."""

from __future__ import annotations

import shutil
import tempfile
import textwrap
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from lmsyz import data
from lmsyz.local import LocalModel, start
from lmsyz.run import last_run

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["PROMPT", "SCHEMA", "run_local_demo"]

# Whole requests and whole replies: shown answers alone, a model of this size begins a second entry, and is asked again.
# The firm alone: a second field of a null here and a sum there is beyond it, and it copies that of an example.
PROMPT = """\
Name the company in the sentence, copied exactly as written; null where there is none. Answer with one entry, as here.
{"input_id": "x0", "input_text": "Halbrook Foods paid $40 million for a rival."}
{"all_results": [{"input_id": "x0", "company": "Halbrook Foods"}]}
{"input_id": "x1", "input_text": "Shares in Nordvik rose sharply on Monday."}
{"all_results": [{"input_id": "x1", "company": "Nordvik"}]}
{"input_id": "x2", "input_text": "The fine of EUR 2,500 was paid by Castell Bank."}
{"all_results": [{"input_id": "x2", "company": "Castell Bank"}]}"""
SCHEMA: dict[str, Any] = {"company": str | None}
N_ROWS = 12
# One row a request, and room for one short answer: a small model does no better with more.
ASKED: dict[str, Any] = {"chunk_size": 1, "max_tokens": 96}


def run_local_demo(*, n_rows: int | None, cache_path: Path | None, model: str | None) -> None:
    """Have the local model read synthetic sentences of finance; print its answers, a count and the run's report.

    Parameters
    ----------
    n_rows : int, optional
        How many sentences.
    cache_path : Path, optional
        The store; a new temporary file if None.
    model : str, optional
        A ``.gguf`` file; the small model's if None.
    """
    df = data.load("finance_synthetic", n=n_rows or N_ROWS)
    path = cache_path or Path(tempfile.mkdtemp(prefix="lmsyz-demo-")) / "cache.sqlite"
    with start(model) as server:
        click.echo(_whom(server, len(df)), err=True)
        out = df.ie.extract(PROMPT, schema=SCHEMA, cache_path=path, max_workers=server.slots, **ASKED)
    click.echo(_table(df, out))
    click.echo()
    click.echo(f"Made by {server.model}, a real language model on this machine. {_agreement(df, out)}")
    click.echo("A model of this size is a demonstration, not a research tool." if model is None else "")
    click.echo(repr(last_run()))


def _whom(server: LocalModel, n_rows: int) -> str:
    return (
        f"Asking {server.model} (sha256 {server.sha256}) at {server.url} about {n_rows} synthetic sentences: no key, no"
        " network, no cost."
    )


def _table(df: pd.DataFrame, out: pd.DataFrame) -> str:
    shown = out.copy()
    widest = max(map(len, shown.to_string(index=False).splitlines()))
    room = max(20, shutil.get_terminal_size((120, 24)).columns - widest - 3)
    shown.insert(0, "text", [textwrap.shorten(text, room, placeholder="…") for text in df["text"]])
    return shown.to_string(index=False, formatters={"text": lambda text: f"{text:<{room}}"})


def _agreement(df: pd.DataFrame, out: pd.DataFrame) -> str:
    """Count the rows in which the model names the firm that the corpus's authors name."""
    n_same = sum(
        str(answer).casefold() == str(gold).casefold()
        for answer, gold in zip(out["company"], df["company"], strict=True)
    )
    return f"It names the firm as the corpus's authors do in {n_same} of {len(df)} sentences."
