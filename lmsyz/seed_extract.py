"""``extract_df``: the seed package's function, by its name and rules, over the live path."""

from __future__ import annotations

import logging
import os
from typing import TYPE_CHECKING, Any

from lmsyz.extract import make_run
from lmsyz.frames import ERROR_COLUMN

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["extract_df"]

log = logging.getLogger(__name__)

SEED_EXAMPLES = 10


def extract_df(
    df: pd.DataFrame,
    *,
    prompt: str,
    cache_path: str | os.PathLike[str],
    model: str,
    schema: Any = None,
    backend: str = "openai",
    id_col: str = "id",
    text_col: str = "text",
    chunk_size: int = 5,
    max_workers: int = 20,
    fresh: bool = False,
    ignore_prompt_hash: bool = False,
    api_key: str | None = None,
    base_url: str | None = None,
    client: Any = None,
    **request_options: Any,
) -> pd.DataFrame:
    """Ask about each row, as the seed package did: an ``input_id`` column, failed rows left out and logged.

    Parameters
    ----------
    df : DataFrame
        With `id_col` and `text_col`.
    prompt, schema, backend, model, chunk_size, max_workers, fresh, ignore_prompt_hash, api_key, base_url, client
        As in :meth:`df.ie.extract`.
    cache_path : str or Path
        The cache file; required here.
    id_col, text_col : str
        Columns of ids and texts.
    **request_options
        Go to the request as they are.

    Returns
    -------
    DataFrame
        ``input_id`` (the ids as text) and the extracted fields, one row per row that has an answer.
    """
    run = make_run(
        df,
        prompt,
        schema=schema,
        text_col=text_col,
        id_col=id_col,
        backend=backend,
        model=model,
        chunk_size=chunk_size,
        max_workers=max_workers,
        cache_path=cache_path,
        fresh=fresh,
        ignore_prompt_hash=ignore_prompt_hash,
        api_key=api_key,
        base_url=base_url,
        client=client,
        request_options=request_options,
    )
    out = run.result()
    out.insert(0, "input_id", list(run.rows.ids or ()))
    bad = out[ERROR_COLUMN].notna()
    if bad.any():
        first = out.loc[bad, ["input_id", ERROR_COLUMN]].head(SEED_EXAMPLES).to_records(index=False).tolist()
        log.warning("extract_df: %d of %d rows have no answer: %s", int(bad.sum()), len(out), first)
    return out[~bad].drop(columns=ERROR_COLUMN).reset_index(drop=True)
