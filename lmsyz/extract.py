"""From arguments and settings to a run; and ``extract_df``, the seed package's function over the same engine."""

from __future__ import annotations

import json
import logging
import os
import time
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from lmsyz.cache import SqliteCache
from lmsyz.engine import plan
from lmsyz.errors import MissingKeyError, UsageError
from lmsyz.events import RunStarted
from lmsyz.frames import ERROR_COLUMN, read_rows
from lmsyz.live import LiveEngine, LiveOptions
from lmsyz.providers import APIS, BACKENDS, base_url_of, connect, missing_key_message
from lmsyz.providers.base import Provider, call_options
from lmsyz.providers.models import DEFAULT_MODELS, SANDBOX_MODEL, quirks_of
from lmsyz.report import Tally
from lmsyz.rows import Rows
from lmsyz.run import Run, new_run_id, settle_interrupted
from lmsyz.schema import read_schema
from lmsyz.schema_render import render
from lmsyz.settings import Settings, load_settings
from lmsyz.task import Task

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["Place", "extract_df", "find_place", "make_run", "make_task"]

log = logging.getLogger(__name__)

ADAPTIVE_WORKERS = 64  # where the user names no cap, the limiter finds the rest
OWN_OPTIONS = ("api", "quirks", "requests_per_minute", "tokens_per_minute")
LOOPBACK = ("127.0.0.1", "localhost", "::1")


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """Where requests go: backend, API, model, URL and key, as arguments and settings say."""

    backend: str
    api: str
    model: str
    endpoint: str
    base_url: str | None
    api_key: str | None
    client: Any
    quirks: Mapping[str, Any]


def find_place(
    settings: Settings,
    *,
    backend: str | None,
    model: str | None,
    api: str | None,
    api_key: str | None,
    base_url: str | None,
    client: Any,
    quirks: Mapping[str, Any] | None,
) -> Place:
    """Decide where requests go; nothing is sent.

    Raises
    ------
    UsageError
        The backend or its API is unknown.
    """
    backend = settings.backend if backend is None else backend
    if backend not in BACKENDS:
        raise UsageError(
            f"unknown backend {backend!r}; use backend='openai' (also for compatible servers) or 'anthropic'"
        )
    api = api or APIS[backend][0]
    if api not in APIS[backend]:
        raise UsageError(
            f"unknown api={api!r}; the {backend} backend has {' and '.join(map(repr, APIS[backend]))}"
        )
    sandboxed = client is None and base_url is None and settings.sandbox_url is not None
    if sandboxed:
        assert settings.sandbox_url is not None
        base_url = settings.sandbox_url.rstrip("/") + ("/v1" if backend == "openai" else "")
        api_key = "sandbox"
    elif client is None:
        base_url = base_url or settings.base_url_of(backend)
        api_key = api_key or settings.key_of(backend)
    default = settings.model if backend == settings.backend else None
    model = model or default or (SANDBOX_MODEL if sandboxed else DEFAULT_MODELS[backend])
    if not isinstance(model, str) or not model.strip():
        raise UsageError(f"model= takes a model's name, got {model!r}")
    url = base_url_of(backend, client, base_url)
    local = (urlsplit(url).hostname or "") in LOOPBACK
    if local and not api_key:
        api_key = "none"  # a server on this machine wants no key, but the SDK does
    is_sandbox = sandboxed or (local and model.startswith(SANDBOX_MODEL))
    quirks_of(model, quirks)
    return Place(
        backend=backend,
        api=api,
        model=model,
        endpoint="sandbox" if is_sandbox else _endpoint(url),
        base_url=base_url,
        api_key=api_key,
        client=client,
        quirks=dict(quirks or {}),
    )


def make_task(
    place: Place, prompt: str, schema: Any, verify_rows: bool, request_options: Mapping[str, Any]
) -> Task:
    """Put together what is asked, and refuse what cannot be.

    Raises
    ------
    UsageError
        The prompt is empty, or the schema or an option cannot be sent.
    """
    if not isinstance(prompt, str) or not prompt.strip():
        raise UsageError(
            "prompt is empty; say in a sentence what to extract, as in df.ie.extract('Name the acquirer.')"
        )
    row_schema = read_schema(schema)
    try:
        json.dumps({k: v for k, v in request_options.items() if k not in ("extra_headers", "timeout")})
    except (TypeError, ValueError) as error:
        raise UsageError(f"a request option cannot be sent as JSON: {error}") from error
    reserved = sorted(
        {"messages", "input", "system", "instructions", "stream", "response_format"} & set(request_options)
    )
    if reserved:
        raise UsageError(
            f"{reserved[0]}= is lmsyz's own part of the request; use prompt= and schema= instead"
        )
    task = Task(
        backend=place.backend,
        api=place.api,
        endpoint=place.endpoint,
        model=place.model,
        prompt=prompt,
        schema=row_schema,
        options=dict(request_options),
        verify=verify_rows,
    )
    if row_schema:
        render(row_schema, "anthropic" if place.backend == "anthropic" else "openai", verify=verify_rows)
    return task


def make_run(
    df: pd.DataFrame,
    prompt: str,
    *,
    schema: Any = None,
    text_col: Hashable | Sequence[Hashable] = "text",
    id_col: Hashable | None = None,
    backend: str | None = None,
    model: str | None = None,
    chunk_size: int | None = None,
    max_workers: int | None = None,
    cache_path: str | os.PathLike[str] | None = None,
    fresh: bool = False,
    ignore_prompt_hash: bool = False,
    on_error: str = "keep",
    dedupe: bool = True,
    verify_rows: bool = False,
    api_key: str | None = None,
    base_url: str | None = None,
    client: Any = None,
    progress: bool | None = None,
    request_options: Mapping[str, Any] | None = None,
) -> Run:
    """Check everything, find what is stored, and start a run for the rest.

    The parameters are those of :meth:`df.ie.extract`. Bad input is refused before a file is made or a request sent.
    """
    settings = load_settings()
    own, options = _own_options(request_options or {})
    if on_error not in ("keep", "drop", "raise"):
        raise UsageError(f"on_error={on_error!r}; use 'keep' (marked in ie_error), 'drop' or 'raise'")
    chunk_size = _size(chunk_size, "chunk_size", settings.chunk_size)
    workers = _size(max_workers, "max_workers", settings.max_workers or ADAPTIVE_WORKERS)
    place = find_place(
        settings,
        backend=backend,
        model=model,
        api=own.get("api"),
        api_key=api_key,
        base_url=base_url,
        client=client,
        quirks=own.get("quirks"),
    )
    task = make_task(place, prompt, schema, verify_rows, options)
    live_options = LiveOptions(
        chunk_size=chunk_size,
        token_budget=settings.chunk_tokens,
        max_workers=workers,
        requests_per_minute=_cap(own, "requests_per_minute", settings.requests_per_minute),
        tokens_per_minute=_cap(own, "tokens_per_minute", settings.tokens_per_minute),
    )
    rows = read_rows(df, text_col, id_col, dedupe=dedupe)
    if place.client is None and not place.api_key:
        raise MissingKeyError(missing_key_message(place.backend))
    path = Path(settings.cache_path if cache_path is None else cache_path)
    run = _Preparation(task, rows, place, live_options, path.absolute(), settings.timeout).run(
        df.index, fresh=fresh, ignore_prompt=ignore_prompt_hash, on_error=on_error
    )
    run.start(show_progress=settings.progress if progress is None else progress)
    return run


class _Preparation:
    """The steps from a checked call to a run that can start."""

    def __init__(
        self, task: Task, rows: Rows, place: Place, options: LiveOptions, path: Path, timeout_s: float
    ) -> None:
        self.task, self.rows, self.place = task, rows, place
        self.options, self.path, self.timeout_s = options, path, timeout_s

    def run(self, index: pd.Index, *, fresh: bool, ignore_prompt: bool, on_error: str) -> Run:
        settle_interrupted(self.path)
        run_id = new_run_id()
        tally = Tally()
        with SqliteCache(self.path) as cache:
            planned = plan(
                cache, self.task, self.rows, fresh=fresh, ignore_prompt=ignore_prompt, run_id=run_id
            )
            saved = cache.saved(cache.reading_tasks(self.task.record, ignore_prompt), planned.answers.keys())
        tally(
            RunStarted(
                n_rows=len(self.rows),
                n_cached=planned.n_cached,
                n_empty=planned.n_empty,
                n_asked=len(self.rows) - planned.n_cached - planned.n_empty,
            )
        )
        if planned.n_seed:
            log.warning(
                "%d answers were taken over from a seed cache that recorded neither text nor model; fresh=True asks again",
                planned.n_seed,
            )
        call = call_options(self.task.options, deadline_s=self.timeout_s)
        engine = None
        if planned.ask:
            engine = LiveEngine(
                task=self.task,
                rows=self.rows,
                plan=planned,
                provider=self._provider(call.deadline_s),
                call=call,
                store_factory=lambda: SqliteCache(self.path),
                options=self.options,
                observers=[tally],
                run_id=run_id,
            )
        return Run(
            run_id=run_id,
            task=self.task,
            cache_path=self.path,
            rows=self.rows,
            index=index,
            tally=tally,
            engine=engine,
            answers=planned.answers,
            saved=saved,
            chunk_size=self.options.chunk_size,
            max_workers=self.options.max_workers,
            on_error=on_error,
            n_seed=planned.n_seed,
            save=lambda run: _save_run(run, planned.task_id),
        )

    def _provider(self, deadline_s: float) -> Provider:
        return connect(
            self.place.backend,
            api=self.place.api,
            model=self.place.model,
            client=self.place.client,
            api_key=self.place.api_key,
            base_url=self.place.base_url,
            connections=self.options.max_workers,
            timeout_s=deadline_s,
            quirks=self.place.quirks,
        )


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
        first = out.loc[bad, ["input_id", ERROR_COLUMN]].head(10).to_records(index=False).tolist()
        log.warning("extract_df: %d of %d rows have no answer: %s", int(bad.sum()), len(out), first)
    return out[~bad].drop(columns=ERROR_COLUMN).reset_index(drop=True)


def _save_run(run: Run, task_id: int) -> None:
    with SqliteCache(run.cache_path) as cache:
        cache.save_run(
            run.run_id, task_id, run.started, time.time(), json.dumps(run.manifest(), ensure_ascii=False)
        )


def _own_options(options: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    own = {k: v for k, v in options.items() if k in OWN_OPTIONS}
    return own, {k: v for k, v in options.items() if k not in OWN_OPTIONS}


def _size(value: object, name: str, default: int) -> int:
    if value is None:
        return default
    if isinstance(value, bool) or not hasattr(value, "__index__") or int(value) < 1:  # type: ignore[call-overload]
        raise UsageError(f"{name} must be a whole number from 1 up, got {value!r}")
    return int(value)  # type: ignore[call-overload,no-any-return]


def _cap(own: Mapping[str, Any], name: str, default: float | None) -> float | None:
    value = own.get(name, default)
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not value > 0:
        raise UsageError(f"{name} must be a number above 0, got {value!r}")
    return float(value)


def _endpoint(url: str) -> str:
    parts = urlsplit(url)
    port = f":{parts.port}" if parts.port else ""
    return f"{parts.scheme.lower()}://{(parts.hostname or '').lower()}{port}{parts.path.rstrip('/')}"
