"""From arguments and settings to a run of the live path."""

from __future__ import annotations

import logging
import operator
import os
from collections.abc import Container, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, SupportsIndex, Unpack

from lmsyz.cache import SqliteCache
from lmsyz.engine import Plan, plan
from lmsyz.errors import CacheError, MissingKeyError, UsageError
from lmsyz.events import RowsFailed, RunFinished, RunStarted
from lmsyz.frames import empty_reason
from lmsyz.in_flight import settle_earlier, store_what_is_left
from lmsyz.live import LiveEngine, LiveOptions
from lmsyz.long_rows import n_in_parts, refusals
from lmsyz.merging import invalid_merges
from lmsyz.place import Place, connect_place
from lmsyz.providers import missing_key_message
from lmsyz.providers.base import Provider, call_options
from lmsyz.providers.local_server import LOCAL_ENDPOINT, slots_at
from lmsyz.question import QuestionArguments, read_question
from lmsyz.report import Tally
from lmsyz.rows import Rows
from lmsyz.run import Run, new_run_id
from lmsyz.settings import Settings, load_settings
from lmsyz.store import Store
from lmsyz.task import Task

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["check_size", "make_run", "run_rows"]

log = logging.getLogger(__name__)

ADAPTIVE_WORKERS = 64  # where the user names no cap, the limiter finds the rest
ON_ERROR = ("keep", "drop", "raise")
EXAMPLES = 5


def make_run(
    df: pd.DataFrame,
    prompt: str,
    *,
    chunk_size: int | None = None,
    max_workers: int | None = None,
    cache_path: str | os.PathLike[str] | None = None,
    fresh: bool = False,
    ignore_prompt_hash: bool = False,
    on_error: str = "keep",
    progress: bool | str | None = None,
    **about: Unpack[QuestionArguments],
) -> Run:
    """Check everything, find what is stored, and return a run for the rest that is ready to start.

    The parameters are those of :meth:`df.ie.extract`. Bad input is refused before a file is made or a request sent.
    """
    settings = load_settings()
    if on_error not in ON_ERROR:
        raise UsageError(f"on_error={on_error!r}; use 'keep' (marked in ie_error), 'drop' or 'raise'")
    if isinstance(progress, str) and progress != "panel":
        raise UsageError(f"progress={progress!r}; use True (a bar), False (nothing) or 'panel' (the panel's live view)")
    question = read_question(settings, df, prompt, **about)
    own = question.own
    live_options = LiveOptions(
        chunk_size=check_size(chunk_size, "chunk_size", question.rows_a_request),
        token_budget=question.token_budget,
        max_workers=_n_workers(settings, question.place, max_workers),
        requests_per_minute=_cap(own, "requests_per_minute", settings.requests_per_minute),
        tokens_per_minute=_cap(own, "tokens_per_minute", settings.tokens_per_minute),
    )
    return _Preparation(
        task=question.task,
        rows=question.rows,
        place=question.place,
        options=live_options,
        path=Path(settings.cache_path if cache_path is None else cache_path).expanduser().absolute(),
        timeout_s=settings.timeout,
        fresh=fresh,
        ignore_prompt=ignore_prompt_hash,
        dedupe=question.dedupe,
    ).run(df.index, on_error=on_error, show_progress=settings.progress if progress is None else progress)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Preparation:
    """The steps from a checked call to a run that can start."""

    task: Task
    rows: Rows
    place: Place
    options: LiveOptions
    path: Path
    timeout_s: float
    fresh: bool
    ignore_prompt: bool
    dedupe: bool
    after: int = 0  # where a run that asked everything again is repeated: what was stored before it does not count

    def run(self, index: pd.Index, *, on_error: str, show_progress: bool | str) -> Run:
        # What the store answers in full needs no key: a paper's tables can be made again from its cache file alone.
        if not self.place.has_key and not self.path.exists():
            raise MissingKeyError(missing_key_message(self.place.backend))
        # A client that will not do is refused before a file is made; our own is made only when there is work for it.
        provider = self._provider() if self.place.client is not None else None
        settle_earlier(self.path, self.task.fingerprint)
        run_id = new_run_id()
        with self._opened() as cache:
            if not cache.read_only:
                store_what_is_left(self.path, cache)
            last = cache.last_answer()
            planned = plan(
                cache,
                self.task,
                self.rows,
                fresh=self.fresh,
                ignore_prompt=self.ignore_prompt,
                run_id=run_id,
                after=self.after,
            )
            if planned.ask and not self.place.has_key:
                raise MissingKeyError(missing_key_message(self.place.backend))
            if planned.ask and cache.read_only:
                SqliteCache(self.path).close()  # says why it cannot be written
            return self.run_of(
                cache,
                planned,
                index,
                provider=provider,
                on_error=on_error,
                show_progress=show_progress,
                run_id=run_id,
                after=last if self.fresh else self.after,
            )

    def _opened(self) -> SqliteCache:
        """Open the store; one that cannot be written, as of an archived study, will do where all is stored."""
        try:
            return SqliteCache(self.path)
        except CacheError:
            if not self.path.is_file():
                raise
            try:
                return SqliteCache(self.path, read_only=True)
            except CacheError:
                pass
            raise

    def run_of(
        self,
        cache: SqliteCache,
        planned: Plan,
        index: pd.Index,
        *,
        on_error: str,
        show_progress: bool | str,
        provider: Provider | None = None,
        run_id: str | None = None,
        after: int = 0,
    ) -> Run:
        """Return the run of a plan, written down in the store."""
        run = Run(
            run_id=run_id or new_run_id(),
            task=self.task,
            task_id=planned.task_id,
            cache_path=self.path,
            rows=self.rows,
            index=index,
            tally=Tally(),
            answers=planned.answers,
            saved=planned.saved,
            how_asked=self._how_asked(planned),
            on_error=on_error,
            show_progress=show_progress,
            n_seed=planned.n_seed,
            again=lambda: replace(self, fresh=False, after=after).run(index, on_error=on_error, show_progress=False),
        )
        spoilt = invalid_merges(self.rows, planned.answers, self.task.schema)
        self._tell(run.tally, planned, spoilt)
        if not cache.read_only:
            run.save(cache)
        if planned.ask:
            told = {position for positions in spoilt.values() for position in positions}
            run.engine = self._engine(run, planned, provider or self._provider(), told)
        return run

    def _tell(self, tally: Tally, planned: Plan, spoilt: Mapping[str, Sequence[int]]) -> None:
        n_cached = planned.n_cached - sum(map(len, spoilt.values()))
        failed = refusals(self.rows, planned.answers) | dict(spoilt)
        tally(
            RunStarted(
                n_rows=len(self.rows),
                n_cached=n_cached,
                n_empty=planned.n_empty,
                n_asked=len(self.rows) - n_cached - planned.n_empty - sum(map(len, failed.values())),
                why_empty=empty_reason(self.rows),
            )
        )
        for reason, positions in failed.items():
            tally(RowsFailed(n_rows=len(positions), reason=reason, examples=self._names(positions)))
        if not planned.ask:
            tally(RunFinished(how="done"))
        if planned.n_seed:
            log.warning(
                "%d answers were taken over from a seed cache that recorded neither text nor model; fresh=True asks"
                " again",
                planned.n_seed,
            )

    def _end(self, run: Run, told: Container[int], store: Store) -> None:
        """Count rows in parts by what their merged answers are worth, and write the run down."""
        for reason, positions in invalid_merges(self.rows, run.answers, self.task.schema).items():
            if new := [p for p in positions if p not in told]:
                names = self._names(new)
                run.tally(RowsFailed(n_rows=len(new), reason=reason, examples=names, n_told_ok=len(new)))
        run.save(store)

    def _names(self, positions: Sequence[int]) -> tuple[str, ...]:
        ids = self.rows.ids
        return tuple(ids[p] if ids is not None else str(p) for p in positions[:EXAMPLES])

    def _how_asked(self, planned: Plan) -> dict[str, Any]:
        return {
            "chunk_size": self.options.chunk_size,
            "chunk_token_budget": self.options.token_budget,
            "max_workers": self.options.max_workers,
            "requests_per_minute": self.options.requests_per_minute,
            "tokens_per_minute": self.options.tokens_per_minute,
            "verify_rows": self.task.verify,
            "dedupe": self.dedupe,
            "fresh": self.fresh,
            "ignore_prompt_hash": self.ignore_prompt,
            "rows_taken_from_seed_cache": planned.n_seed,
            **({"rows_with_images": n} if (n := sum(map(self.rows.has_image, range(len(self.rows))))) else {}),
            "rows_asked_in_parts": n_in_parts(self.rows),
            "parts": len(self.rows.asked) - len(self.rows) + n_in_parts(self.rows),
            "parts_merged_by": (self.rows.long and self.rows.long.merge_name) or "lmsyz's rules",
        }

    def _engine(self, run: Run, planned: Plan, provider: Provider, told: Container[int]) -> LiveEngine:
        return LiveEngine(
            task=self.task,
            rows=self.rows,
            plan=planned,
            provider=provider,
            call=call_options(self.task.options, deadline_s=self.timeout_s),
            store_factory=lambda: SqliteCache(self.path),
            options=self.options,
            observers=[run.tally],
            run_id=run.run_id,
            on_end=lambda store: self._end(run, told, store),
        )

    def _provider(self) -> Provider:
        deadline_s = call_options(self.task.options, deadline_s=self.timeout_s).deadline_s
        return connect_place(self.place, connections=self.options.max_workers, timeout_s=deadline_s)


def run_rows(
    task: Task,
    place: Place,
    rows: Rows,
    planned: Plan,
    index: pd.Index,
    *,
    path: Path,
    chunk_size: int,
    token_budget: int,
    after: int = 0,
) -> Run:
    """Return a run over rows that a plan left to ask, ready to start; for what a batch job left over.

    Parameters
    ----------
    task, place, rows, planned
        What is asked, where, of what, and what is left.
    index : Index
        Of the frame that the rows are from.
    path : Path
        The store.
    chunk_size, token_budget : int
        Rows, and estimated tokens of text, in a request, at most.
    after : int
        As in :func:`lmsyz.engine.plan`.

    Returns
    -------
    Run
    """
    settings = load_settings()
    preparation = _Preparation(
        task=task,
        rows=rows,
        place=place,
        options=LiveOptions(
            chunk_size=chunk_size,
            token_budget=token_budget,
            max_workers=_n_workers(settings, place, None),
            requests_per_minute=settings.requests_per_minute,
            tokens_per_minute=settings.tokens_per_minute,
        ),
        path=path,
        timeout_s=settings.timeout,
        fresh=False,
        ignore_prompt=False,
        dedupe=True,
    )
    with SqliteCache(path) as cache:
        return preparation.run_of(cache, planned, index, on_error="keep", show_progress=settings.progress, after=after)


def check_size(value: object, name: str, default: int) -> int:
    """Return a size, or the default for None.

    Raises
    ------
    UsageError
        It is no whole number from 1 up.
    """
    if value is None:
        return default
    # A numpy integer will do as well, a float or a bool will not.
    size = 0 if isinstance(value, bool) or not isinstance(value, SupportsIndex) else operator.index(value)
    if size < 1:
        raise UsageError(f"{name} must be a whole number from 1 up, got {value!r}")
    return size


def _n_workers(settings: Settings, place: Place, asked: int | None) -> int:
    """Return how many requests may be in flight: as the user says, else as many as a local server answers at once."""
    if asked is not None or settings.max_workers:
        return check_size(asked, "max_workers", settings.max_workers or ADAPTIVE_WORKERS)
    slots = slots_at(place.base_url) if place.endpoint == LOCAL_ENDPOINT else None
    return slots or ADAPTIVE_WORKERS


def _cap(own: Mapping[str, Any], name: str, default: float | None) -> float | None:
    value = own.get(name, default)
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not value > 0:
        raise UsageError(f"{name} must be a number above 0, got {value!r}")
    return float(value)
