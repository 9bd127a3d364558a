"""What a call asks, where, and of which rows: read from its arguments once, for live, batch and a look beforehand."""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypedDict

from lmsyz.frame_rows import read_rows
from lmsyz.image_rows import IMAGE_ROWS
from lmsyz.long_texts import read_long_texts
from lmsyz.place import Place, read_task
from lmsyz.providers.images import image_limits
from lmsyz.rows import Rows
from lmsyz.settings import Settings
from lmsyz.task import Task

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["Question", "QuestionArguments", "read_question"]


class QuestionArguments(TypedDict, total=False):
    """The arguments of :meth:`df.ie.extract` that say what is asked; see there."""

    schema: Any
    text_col: Hashable | Sequence[Hashable]
    id_col: Hashable | None
    image_col: Hashable | None
    backend: str | None
    model: str | None
    dedupe: bool
    verify_rows: bool
    api_key: str | None
    base_url: str | None
    client: Any
    request_options: Mapping[str, Any] | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Question:
    """A call, read and found to be sound.

    Parameters
    ----------
    place : Place
        Where it is asked.
    task : Task
        What is asked.
    rows : Rows
        Of what.
    dedupe : bool
        Whether equal rows are asked once.
    own : mapping
        Those of the call's options that are lmsyz's own.
    rows_a_request : int
        Rows in a request, at most, where the call names no number: few where they have images.
    token_budget : int
        Estimated tokens of text in a request, at most.
    """

    place: Place
    task: Task
    rows: Rows
    dedupe: bool
    own: Mapping[str, Any]
    rows_a_request: int
    token_budget: int


def read_question(
    settings: Settings,
    df: pd.DataFrame,
    prompt: str,
    *,
    schema: Any = None,
    text_col: Hashable | Sequence[Hashable] = "text",
    id_col: Hashable | None = None,
    image_col: Hashable | None = None,
    backend: str | None = None,
    model: str | None = None,
    dedupe: bool = True,
    verify_rows: bool = False,
    api_key: str | None = None,
    base_url: str | None = None,
    client: Any = None,
    request_options: Mapping[str, Any] | None = None,
) -> Question:
    """Read what a call asks.

    Parameters
    ----------
    settings : Settings
        Defaults for what is None.
    df, prompt
        The rows, and what is asked of each.
    schema, text_col, id_col, image_col, backend, model, dedupe, verify_rows, api_key, base_url, client, request_options
        As in :meth:`df.ie.extract`.

    Returns
    -------
    Question

    Raises
    ------
    UsageError
        Something in it cannot be; no file is made and no request sent before.
    """
    place, task, own = read_task(
        settings,
        prompt,
        schema=schema,
        backend=backend,
        model=model,
        api_key=api_key,
        base_url=base_url,
        client=client,
        verify_rows=verify_rows,
        request_options=request_options or {},
    )
    long_texts = read_long_texts(own, settings, place)
    rows = read_rows(df, text_col, id_col, dedupe=dedupe, image_col=image_col, image_limits=image_limits(place.backend))
    return Question(
        place=place,
        task=task,
        rows=long_texts.applied(rows, task, place, dedupe=dedupe),
        dedupe=dedupe,
        own=own,
        rows_a_request=_usual_rows_a_request(settings, rows),
        token_budget=long_texts.token_budget(settings.chunk_tokens, task, place),
    )


def _usual_rows_a_request(settings: Settings, rows: Rows) -> int:
    """Return the rows in a request where the user names no number."""
    return min(settings.chunk_size, IMAGE_ROWS) if rows.images is not None else settings.chunk_size
