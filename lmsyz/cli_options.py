"""What several commands share: the options that say what to ask, and tables in and out of files."""

from __future__ import annotations

import importlib.util
import json
import os
import re
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from lmsyz.errors import MissingExtraError, UsageError
from lmsyz.whole_file import whole_file

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["FILE", "asking", "check_out", "file_kind", "read_asked", "read_table", "write_table"]

T = TypeVar("T")

KINDS = (".csv", ".parquet", ".jsonl")
FILE = click.Path(dir_okay=False, path_type=Path)
COLUMNS_SHOWN = 12
OTHER_SEPARATORS = (";", "\t", "|")  # Excel writes the first one where the comma is the sign of decimals
_WORD = re.compile(r"[A-Za-z][\w.\-]*")
NO_PARQUET = "Parquet files need the pyarrow package: pip install pyarrow"

_ASKING = (
    click.argument("source", metavar="IN", type=click.Path(exists=True, dir_okay=False, path_type=Path)),
    click.option("--prompt", required=True, help="What to extract; @FILE reads it from a file."),
    click.option(
        "--text-col", multiple=True, default=["text"], show_default=True, help="The text; several times for several."
    ),
    click.option("--image-col", help="A column with each row's image: its path or its web address."),
    click.option("--id-col", help="A column of unique ids, kept in the results."),
    click.option(
        "--schema", help='The shape of one row\'s answer: a JSON file, or JSON such as \'{"price": "float"}\'.'
    ),
    click.option("--backend", type=click.Choice(["openai", "anthropic"]), help="Whose API to speak."),
    click.option("--model", help="The model to ask."),
    click.option("--base-url", help="Ask another server that speaks the backend's API."),
    click.option("--option", "options", multiple=True, metavar="KEY=JSON", help="For the request, as temperature=0."),
    click.option("--chunk-size", type=click.IntRange(min=1), help="Rows in one request, at most."),
    click.option("--verify-rows", is_flag=True, help="Have the model repeat each row's opening words."),
    click.option("--fresh", is_flag=True, help="Ask again, and keep the old answers."),
    click.option("--limit", type=click.IntRange(min=1), help="Ask about the first rows only, to see how it goes."),
    click.option("--encoding", default="utf-8-sig", help="Of a CSV file that is read.  [default: utf-8]"),
    click.option("--cache", "cache_path", type=FILE, help="The store of answers.  [default: lmsyz_cache.sqlite]"),
)


def asking(command: Callable[..., T]) -> Callable[..., T]:
    """Give a command the argument IN and the options that say what is asked of whom."""
    for option in reversed(_ASKING):
        command = option(command)
    return command


def read_asked(
    source: Path,
    *,
    prompt: str,
    text_col: tuple[str, ...],
    image_col: str | None,
    schema: str | None,
    options: tuple[str, ...],
    limit: int | None,
    encoding: str,
    **more: Any,
) -> tuple[pd.DataFrame, dict[str, Any]]:
    """Return the frame and the arguments of a call that the options of :func:`asking` say."""
    about = {
        "prompt": _prompt(prompt),
        "text_col": text_col[0] if len(text_col) == 1 else list(text_col),
        "image_col": image_col,
        "schema": _schema(schema),
        "request_options": dict(map(_option, options)),
    }
    df = read_table(source, encoding=encoding)
    asked = [*(("--text-col", name) for name in text_col), ("--image-col", image_col), ("--id-col", more["id_col"])]
    _check_columns(df, source, asked)
    df = df if limit is None else df.head(limit)
    if image_col is not None and image_col in df.columns:
        # A file says no image by an empty field.
        df = df.assign(**{image_col: df[image_col].mask(df[image_col] == "", None)})
    return df, more | about


def _check_columns(df: pd.DataFrame, source: Path, asked: Iterable[tuple[str, str | None]]) -> None:
    """Say of a column that there is not what to type in a shell, and where the file is cut at other signs."""
    # An index that a Parquet file brought along is read as columns later.
    known = {*df.columns, *df.index.names}
    for option, name in asked:
        if name is None or name in known:
            continue
        have = ", ".join(map(repr, list(df.columns)[:COLUMNS_SHOWN])) or "none"
        told = f"{str(source)!r} has no column {name!r}; it has {have}. Say which one with {option}"
        is_one = file_kind(source) == ".csv" and len(df.columns) == 1
        hint = _other_separator(str(df.columns[0])) if is_one else ""
        raise UsageError(f"{told}. {hint}" if hint else told)


def _other_separator(head: str) -> str:
    """Say of a CSV file's first line that other signs than commas seem to stand between its fields, where they do."""
    found = next((sign for sign in OTHER_SEPARATORS if sign in head and "," not in head), None)
    return "" if found is None else f"It seems to be separated by {found!r}; save it with commas between the fields"


def _prompt(words: str) -> str:
    """Return a prompt as typed, or what is in the file that ``@FILE`` names."""
    if not words.startswith("@"):
        return words
    try:
        return Path(words[1:]).expanduser().read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"the prompt file {words[1:]!r} cannot be read: {error}") from error


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
        ".csv": lambda: _read_csv(path, encoding),
        ".parquet": lambda: pd.read_parquet(path),
        ".jsonl": lambda: pd.DataFrame(_records(path), dtype=object),
    }
    df: pd.DataFrame = _through(readers[file_kind(path)], f"{str(path)!r} cannot be read")
    return df


def _read_csv(path: Path, encoding: str) -> pd.DataFrame:
    import pandas as pd

    try:
        df = pd.read_csv(path, dtype=str, keep_default_na=False, encoding=encoding)
        if isinstance(df.index, pd.RangeIndex):
            return df
        # pandas takes what is too much for an index, and all names would stand over the wrong columns.
        trouble = "its first row has more fields than its header; put quotation marks around texts with commas"
    except pd.errors.ParserError as error:
        trouble = str(error)
    with path.open(encoding=encoding) as file:
        raise ValueError(_other_separator(file.readline()) or trouble)


def write_table(frame: pd.DataFrame, path: Path, *, index: bool = True) -> None:
    """Write a frame; whoever looks sees the old file or the whole new one, never a part."""
    writers: dict[str, Callable[[Path], Any]] = {
        ".csv": lambda part: frame.to_csv(part, index=index),
        ".parquet": lambda part: frame.to_parquet(part, index=index),
        ".jsonl": lambda part: _as_columns(frame, index).to_json(part, orient="records", lines=True, force_ascii=False),
    }

    def write() -> None:
        with whole_file(path) as part:
            writers[file_kind(path)](part)

    _through(write, f"{str(path)!r} cannot be written")


def _as_columns(frame: pd.DataFrame, index: bool) -> pd.DataFrame:
    return frame.reset_index() if index else frame


def _records(path: Path) -> list[Any]:
    with path.open(encoding="utf-8-sig", newline="\n") as file:
        return [_record(n, line) for n, line in enumerate(file, 1) if line.strip()]


def _record(number: int, line: str) -> Any:
    try:
        return json.loads(line)
    except json.JSONDecodeError as error:
        # Python counts lines within the one line that it was given.
        raise ValueError(f"line {number} is no JSON: {error.msg} at character {error.pos + 1}") from error


def _through(step: Callable[[], Any], trouble: str) -> Any:
    try:
        return step()
    except ImportError as error:
        raise MissingExtraError(NO_PARQUET) from error
    except UnicodeDecodeError as error:
        hint = "Excel's own encoding is cp1252 in most of the West; say --encoding cp1252"
        raise UsageError(f"{trouble}: it is not {error.encoding} text ({hint})") from error
    except (OSError, ValueError, LookupError, TypeError, OverflowError) as error:
        raise UsageError(f"{trouble}: {error}") from error
