"""What several commands share: the options that say what to ask, and tables in and out of files."""

from __future__ import annotations

import importlib.util
import json
import os
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from lmsyz.errors import MissingExtraError, UsageError

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["FILE", "asking", "check_out", "file_kind", "read_prompt", "read_table", "write_table"]

T = TypeVar("T")

KINDS = (".csv", ".parquet", ".jsonl")
FILE = click.Path(dir_okay=False, path_type=Path)
NO_PARQUET = "Parquet files need the pyarrow package: pip install pyarrow"

_ASKING = (
    click.argument("source", metavar="IN", type=click.Path(exists=True, dir_okay=False, path_type=Path)),
    click.option("--prompt", required=True, help="What to extract; @FILE reads it from a file."),
    click.option(
        "--text-col", multiple=True, default=["text"], show_default=True, help="The text; several times for several."
    ),
    click.option("--id-col", help="A column of unique ids, kept in the results."),
    click.option("--backend", type=click.Choice(["openai", "anthropic"]), help="Whose API to speak."),
    click.option("--model", help="The model to ask."),
    click.option("--cache", "cache_path", type=FILE, help="The store of answers.  [default: lmsyz_cache.sqlite]"),
)


def asking(command: Callable[..., T]) -> Callable[..., T]:
    """Give a command the argument IN and the options that say what is asked of whom."""
    for option in reversed(_ASKING):
        command = option(command)
    return command


def read_prompt(words: str) -> str:
    """Return a prompt as typed, or what is in the file that ``@FILE`` names."""
    if not words.startswith("@"):
        return words
    try:
        return Path(words[1:]).expanduser().read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"the prompt file {words[1:]!r} cannot be read: {error}") from error


def file_kind(path: Path) -> str:
    """Return a file name's ending, which says how it is read and written."""
    kind = path.suffix.lower()
    if kind not in KINDS:
        raise UsageError(f"{str(path)!r}: the file's name has to end in {', '.join(KINDS)}")
    return kind


def check_out(path: Path, *, overwrite: bool, sources: Iterable[Path] = ()) -> None:
    """Refuse, before anything is spent, a file that could not be written in the end."""
    if file_kind(path) == ".parquet" and importlib.util.find_spec("pyarrow") is None:
        raise MissingExtraError(NO_PARQUET)
    if path.resolve() in {source.resolve() for source in sources}:
        raise UsageError(f"{str(path)!r} is the input; give another name to write to")
    if path.exists() and not path.is_file():
        raise UsageError(f"{str(path)!r} is no file; give another name to write to")
    if path.exists() and not overwrite:
        raise UsageError(f"{str(path)!r} exists already; --overwrite replaces it")
    if not os.access(path.absolute().parent, os.W_OK):
        raise UsageError(f"there is no folder {str(path.absolute().parent)!r} that can be written to")


def read_table(path: Path, *, encoding: str = "utf-8-sig") -> pd.DataFrame:
    """Read a file as it is written: no id loses its zeros, and no text is taken for a missing value."""
    import pandas as pd

    readers: dict[str, Callable[[], pd.DataFrame]] = {
        ".csv": lambda: pd.read_csv(path, dtype=str, keep_default_na=False, encoding=encoding),
        ".parquet": lambda: pd.read_parquet(path),
        ".jsonl": lambda: pd.DataFrame(_records(path), dtype=object),
    }
    df: pd.DataFrame = _through(readers[file_kind(path)], f"{str(path)!r} cannot be read")
    return df


def write_table(frame: pd.DataFrame, path: Path, *, index: bool = True) -> None:
    """Write a frame; whoever looks sees the old file or the whole new one, never a part."""
    part = path.with_name(f".{path.stem}-{os.getpid()}{path.suffix}")
    writers: dict[str, Callable[[], Any]] = {
        ".csv": lambda: frame.to_csv(part, index=index),
        ".parquet": lambda: frame.to_parquet(part, index=index),
        ".jsonl": lambda: _as_columns(frame, index).to_json(part, orient="records", lines=True, force_ascii=False),
    }

    def write() -> None:
        try:
            writers[file_kind(path)]()
            os.replace(part, path)
        finally:
            part.unlink(missing_ok=True)

    _through(write, f"{str(path)!r} cannot be written")


def _as_columns(frame: pd.DataFrame, index: bool) -> pd.DataFrame:
    return frame.reset_index() if index else frame


def _records(path: Path) -> list[Any]:
    with path.open(encoding="utf-8-sig", newline="\n") as file:
        return [json.loads(line) for line in file if line.strip()]


def _through(step: Callable[[], Any], trouble: str) -> Any:
    try:
        return step()
    except ImportError as error:
        raise MissingExtraError(NO_PARQUET) from error
    except UnicodeDecodeError as error:
        hint = "Excel's own encoding is cp1252 in most of the West; lmsyz extract takes --encoding cp1252"
        raise UsageError(f"{trouble}: it is not {error.encoding} text ({hint})") from error
    except (OSError, ValueError, LookupError, TypeError, OverflowError) as error:
        raise UsageError(f"{trouble}: {error}") from error
