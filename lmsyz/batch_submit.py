"""From ``df.ie.batch`` to a job on disk and at the provider."""

from __future__ import annotations

import os
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Unpack
from urllib.parse import urlsplit, urlunsplit

from lmsyz.batch_files import INPUT, OUTPUT, index_path, input_path, read_keys
from lmsyz.batch_frame import FrameFile
from lmsyz.batch_job import BATCH_ROOT, BatchJob
from lmsyz.batch_ledger import (
    LEDGER,
    REQUESTS_A_PART,
    Ledger,
    Part,
    PartState,
    check_job_id,
    ledgers_in,
)
from lmsyz.batch_lock import disk_error, locked
from lmsyz.batch_setup import Connection, add_parts, connected, keys_away, keys_of, make_engine, told
from lmsyz.cache import SqliteCache
from lmsyz.engine import plan
from lmsyz.errors import MissingKeyError, UsageError
from lmsyz.extract import check_size
from lmsyz.frame_index import index_as_json
from lmsyz.in_flight import settle_earlier, store_what_is_left
from lmsyz.long_rows import parts_words, refusals
from lmsyz.place import Place
from lmsyz.providers import missing_key_message
from lmsyz.question import QuestionArguments, read_question
from lmsyz.rows import Rows
from lmsyz.settings import load_settings
from lmsyz.staleness import differences
from lmsyz.task import Task

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["submit_batch"]

ID_DIGITS = 32
NO_BATCH = (PartState.BUILT, PartState.UPLOADED, PartState.HELD)
LIVE_ARGUMENTS = {
    "max_workers": "The provider decides how much of it runs at once",
    "on_error": "Say it when you read the answers: job.results(on_error=...)",
    "background": "It returns at once by itself",
}


def submit_batch(
    df: pd.DataFrame,
    prompt: str,
    *,
    job_id: str | None = None,
    batch_root_dir: str | os.PathLike[str] = BATCH_ROOT,
    chunk_size: int | None = None,
    max_requests_per_batch: int | None = None,
    cache_path: str | os.PathLike[str] | None = None,
    fresh: bool = False,
    ignore_prompt_hash: bool = False,
    progress: bool | None = None,
    send: bool = True,
    **about: Unpack[QuestionArguments],
) -> BatchJob:
    """Build, submit and return at once; see :meth:`df.ie.batch`.

    With ``send=False`` the requests are written and nothing is sent: a draft, which the job's next ``refresh()`` or
    ``wait()`` submits. Drafted again, requests that were never sent are built anew, and rows that came home without an
    answer are among them.
    """
    _refuse_live_arguments(about.get("request_options") or {})
    settings = load_settings()
    question = read_question(settings, df, prompt, **about)
    task, place, rows = question.task, question.place, question.rows
    size = check_size(chunk_size, "chunk_size", question.rows_a_request)
    if max_requests_per_batch is not None:
        check_size(max_requests_per_batch, "max_requests_per_batch", REQUESTS_A_PART)
    if not len(df):
        raise UsageError("the frame has no rows, so there is nothing to submit")
    name = check_job_id(job_id) if job_id is not None else task.fingerprint[:ID_DIGITS]
    folder = Path(batch_root_dir).expanduser().absolute() / name
    store = Path(settings.cache_path if cache_path is None else cache_path).expanduser().absolute()
    if not place.has_key:
        raise MissingKeyError(missing_key_message(place.backend))
    connection = connected(task, place, timeout_s=settings.timeout)
    new = _new_ledger(folder, task, place, store=store, chunk_size=size, token_budget=question.token_budget)
    settle_earlier(store, task.fingerprint)
    how = {"requests_a_part": max_requests_per_batch, "fresh": fresh, "ignore": ignore_prompt_hash}
    _put_down(new, connection, rows, df.index, send=send, **how)
    show = settings.progress if progress is None else progress
    return BatchJob(folder, lambda: connection, rows=rows, index=df.index, show_progress=show)


def _refuse_live_arguments(options: Mapping[str, Any]) -> None:
    for name in LIVE_ARGUMENTS.keys() & options.keys():
        raise UsageError(f"{name}= is for df.ie.extract; a batch has no use for it. {LIVE_ARGUMENTS[name]}")


def _put_down(
    new: Ledger,
    connection: Connection,
    rows: Rows,
    index: pd.Index,
    *,
    send: bool,
    requests_a_part: int | None,
    **how: Any,
) -> None:
    """Write the job down under its lock, and submit what is not submitted yet unless it is to be a draft."""
    _make_folders(new.folder)
    with locked(new.folder):
        ledger = _ledger_of(new) if send else _draft_of(new)
        again = _make_smaller(ledger, requests_a_part) if requests_a_part is not None else set()
        _plan_parts(ledger, connection, rows, index, again=again, failed_too=not send, **how)
        errors = make_engine(ledger, connection).push(poll=False) if send else []
    if errors:
        raise told(errors[0], new.job_id)


def _plan_parts(
    ledger: Ledger,
    connection: Connection,
    rows: Rows,
    index: pd.Index,
    *,
    again: set[bytes],
    fresh: bool,
    ignore: bool,
    failed_too: bool,
) -> None:
    """Write down the frame, and requests for what is neither stored nor sent already, or was taken back."""
    with SqliteCache(ledger.cache_path) as cache:
        store_what_is_left(Path(ledger.cache_path), cache)
        planned = plan(cache, connection.task, rows, fresh=fresh, ignore_prompt=ignore)
        last = cache.last_answer()
    sent = keys_of(ledger, only_open=fresh or failed_too) - again
    asked = rows.asked
    planned.ask = [p for p in planned.ask if asked.keys[p] not in sent]
    _refuse_what_is_on_its_way(ledger, {asked.keys[p] for p in planned.ask})
    ledger.ignore_prompt = ignore
    if not fresh:
        ledger.fresh_after = 0
    elif planned.ask:  # what is on its way from an earlier call is fresh enough
        ledger.fresh_after = last
    FrameFile(ledger).write(rows, *index_as_json(index))
    ledger.n_rows = len(rows)
    ledger.in_parts = parts_words(rows)
    ledger.n_too_long = sum(map(len, refusals(rows, planned.answers).values()))
    ledger.save()
    add_parts(ledger, connection, planned, asked)


def _refuse_what_is_on_its_way(ledger: Ledger, keys: set[bytes]) -> None:
    """Refuse rows that another job beside this one has sent with the same question: they would be paid for twice."""
    for other in ledgers_in(ledger.folder.parent) if keys else ():
        if not isinstance(other, Ledger) or other.job_id == ledger.job_id:
            continue
        if other.record.fingerprint == ledger.record.fingerprint and (n := len(keys & keys_away(other))):
            raise UsageError(
                f"{n:,} of these rows are on their way in job {other.job_id!r}, which asks the same: use"
                f" job_id={other.job_id!r}, or collect it first with lmsyz.BatchJob.load({other.job_id!r}).wait()"
            )


def _ledger_of(new: Ledger) -> Ledger:
    """Return the ledger that is there, if it is of the same task, or the new one."""
    if not new.path(LEDGER).exists():
        return new
    old = Ledger.load(new.folder)
    if old.record.fingerprint != new.record.fingerprint:
        what = ", ".join(differences(new.record, old.record))
        raise UsageError(
            f"job {old.job_id!r} asks something else ({what}). Leave job_id out or give another one; the old job stays"
            " as it is"
        )
    if old.cache_path != new.cache_path:
        raise UsageError(f"job {old.job_id!r} puts its answers into {old.cache_path}: cache_path={old.cache_path!r}")
    return old


def _draft_of(new: Ledger) -> Ledger:
    """Return the ledger without the parts that were never sent; one that has no others may ask something else."""
    if not new.path(LEDGER).exists():
        return new
    old = Ledger.load(new.folder)
    unsent = [p for p in old.parts if p.state is PartState.BUILT]
    ledger = new if len(unsent) == len(old.parts) else _ledger_of(new)
    ledger.parts = [p for p in ledger.parts if p.state is not PartState.BUILT]
    ledger.chunk_size = new.chunk_size
    ledger.save()
    _remove_files(old, unsent)
    return ledger


def _make_smaller(ledger: Ledger, requests_a_part: int) -> set[bytes]:
    """Hold new parts to a size, take back larger ones that no batch came of, and return their texts' keys."""
    ledger.requests_a_part = requests_a_part
    larger = [p for p in ledger.parts if p.state in NO_BATCH and p.n_requests > requests_a_part]
    keys = {key for part in larger for key in read_keys(ledger, part)}
    if larger:
        ledger.parts = [p for p in ledger.parts if p not in larger]
        ledger.save()
        _remove_files(ledger, larger)
    return keys


def _remove_files(ledger: Ledger, parts: Sequence[Part]) -> None:
    for part in parts:
        for path in (input_path(ledger, part), index_path(ledger, part)):
            path.unlink(missing_ok=True)


def _new_ledger(folder: Path, task: Task, place: Place, *, store: Path, chunk_size: int, token_budget: int) -> Ledger:
    model = task.schema.model if task.schema else None
    return Ledger(
        folder=folder,
        job_id=folder.name,
        record=task.record,
        schema_model=model.__name__ if model else "",
        base_url="" if place.endpoint == "sandbox" else _without_secrets(place.base_url or ""),
        cache_path=str(store),
        chunk_size=chunk_size,
        token_budget=token_budget,
        quirks=dict(place.quirks),
        verify=task.verify,
        own_client=place.client is not None,
        created=time.time(),
    )


def _without_secrets(url: str) -> str:
    parts = urlsplit(url)
    return urlunsplit((parts.scheme, parts.netloc.rpartition("@")[2], parts.path, "", ""))


def _make_folders(folder: Path) -> None:
    if not (folder / LEDGER).exists() and any(folder.glob(f"{OUTPUT}/*")):
        raise UsageError(
            f"{str(folder)!r} holds a batch job without a ledger of lmsyz (another program's, or a ledger that was"
            " deleted). It was left as it is, nothing was sent; give another job_id"
        )
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        for path in (folder, folder / INPUT, folder / OUTPUT):
            path.mkdir(mode=0o700, exist_ok=True)
    except OSError as error:
        raise disk_error(folder, error) from error
