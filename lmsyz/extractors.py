"""The seed package's step-by-step batch classes: build, submit, look, retrieve, over the engine of ``df.ie.batch``.

Each step may be killed, and run again in any kernel. What was sent and came back lies under ``batch_root_dir/job_id/``
in the seed's files, beside the ledger; a job made here is a :class:`~lmsyz.BatchJob` like any other.
"""

from __future__ import annotations

import json
import logging
import os
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pandas as pd

from lmsyz.batch_files import INPUT, OUTPUT, input_path, read_failures, read_index
from lmsyz.batch_frame import FrameFile
from lmsyz.batch_job import BATCH_ROOT, BatchJob
from lmsyz.batch_ledger import LEDGER, REQUESTS_A_PART, Ledger, Part, PartState, check_job_id, write_private
from lmsyz.batch_setup import stored_task
from lmsyz.batch_status import BatchStatus
from lmsyz.batch_submit import submit_batch
from lmsyz.cache import SqliteCache
from lmsyz.engine import stored_answers
from lmsyz.errors import BatchError
from lmsyz.extract import check_size
from lmsyz.frames import ERROR_COLUMN, answers_frame
from lmsyz.providers.models import quirks_of
from lmsyz.rows import Rows

__all__ = ["AnthropicBatchExtractor", "OpenAIBatchExtractor"]

log = logging.getLogger(__name__)

ANTHROPIC_REQUESTS = 100_000  # what Anthropic takes in one batch
EXAMPLES = 10


class _Steps:
    """What both classes do: a draft, its submission, a look, and the answers."""

    def __init__(self, batch_root_dir: str | os.PathLike[str], max_requests: int, **about: Any) -> None:
        self.batch_root_dir = Path(batch_root_dir)
        self.max_requests_per_batch = check_size(max_requests, "max_requests_per_batch", REQUESTS_A_PART)
        self._cache_path = about.pop("cache_path")
        self._reach = about  # key, address and client, as every step needs them

    def _build(self, dataframe: pd.DataFrame, job_id: str, prompt: str, **about: Any) -> Ledger:
        job = submit_batch(
            dataframe,
            prompt,
            job_id=job_id,
            batch_root_dir=self.batch_root_dir,
            max_requests_per_batch=self.max_requests_per_batch,
            cache_path=self._cache_path,
            send=False,
            **self._reach,
            **about,
        )
        ledger = Ledger.load(job.folder)
        n = sum(p.n_requests for p in ledger.parts if p.state is PartState.BUILT)
        log.info("job %s: %d requests are in %s; nothing was sent yet", job_id, n, job.folder / INPUT)
        return ledger

    def _submit(self, job_id: str) -> BatchStatus:
        status = self._seen(self._job(job_id).refresh())
        for part in status.parts:
            if part.state in (PartState.CREATING, PartState.UNSURE):
                raise BatchError(
                    f"part {part.n} of job {job_id!r} may have been created just before the connection or the kernel"
                    " was lost, and the provider does not tell yet. Submit again in a minute: nothing is created twice."
                    f" Should it stay so, lmsyz.BatchJob.load({job_id!r}, batch_root_dir={str(self.batch_root_dir)!r})"
                    ".wait() tells what to do"
                )
        return status

    def _look(self, job_id: str, continuous: bool, interval: float, timeout: float | None = None) -> BatchStatus:
        """See how the job is doing and bring home what has ended; a draft stays a draft."""
        job = self._job(job_id)
        drafts = [p.n for p in job.status().parts if p.state is PartState.BUILT]
        if drafts:
            raise BatchError(f"parts {drafts} of job {job_id!r} are built and were never submitted: submit them first")
        return self._seen(job.wait(interval, timeout) if continuous else job.refresh())

    def _answers(self, job_id: str) -> pd.DataFrame | None:
        if not (self._folder(job_id) / LEDGER).exists():
            log.warning("there is no batch job in %s", self._folder(job_id))
            return None
        ledger = Ledger.load(self._folder(job_id))
        rows = _all_rows(ledger)
        with SqliteCache(ledger.cache_path) as cache:
            task_id, keys = cache.task_id(ledger.record), {key for key in (*rows.keys, *rows.asked.keys) if key}
            answers, _ = stored_answers(
                cache, ledger.record, task_id, keys, ignore_prompt=ledger.ignore_prompt, after=ledger.fresh_after
            )
        failures, schema = read_failures(ledger), stored_task(ledger).schema
        out = answers_frame(pd.RangeIndex(len(rows)), rows, answers, failures, schema)
        out.insert(0, "input_id", list(rows.ids or ()))
        bad = out[ERROR_COLUMN].notna()
        if bad.any():
            first = out.loc[bad, ["input_id", ERROR_COLUMN]].head(EXAMPLES).to_records(index=False).tolist()
            log.warning("job %s: %d of %d rows have no answer (yet): %s", job_id, int(bad.sum()), len(out), first)
        good = out[~bad].drop(columns=ERROR_COLUMN).reset_index(drop=True)
        return good if len(good) else None

    def _folder(self, job_id: str) -> Path:
        return self.batch_root_dir.expanduser().absolute() / check_job_id(job_id)

    def _job(self, job_id: str) -> BatchJob:
        return BatchJob.load(job_id, batch_root_dir=self.batch_root_dir, **self._reach)

    def _seen(self, status: BatchStatus) -> BatchStatus:
        """Write down each batch as the provider told of it last, for the reader; the engine goes by its ledger."""
        for part in (p for p in status.parts if p.remote):
            about = {"id": part.remote, "job_id": status.job_id, "model": status.model, **asdict(part)}
            path = self._folder(status.job_id) / self._manifest(part)
            write_private(path, json.dumps(about, ensure_ascii=False, indent=1).encode("utf-8", "replace"), flush=False)
        log.info("%r", status)
        return status

    def _manifest(self, part: Part) -> str:
        return f"{OUTPUT}/submission_{part.remote}.json"


class OpenAIBatchExtractor(_Steps):
    """OpenAI's batches in four steps: create_batch_jsonl, submit_batches, check_batch_status, retrieve_results...

    Parameters
    ----------
    batch_root_dir : str or Path
        Where jobs lie, each in a folder of its name.
    max_requests_per_batch : int
        Requests in one file, and so in one batch.
    api_key, base_url, client, cache_path : optional
        As in :meth:`df.ie.batch`.
    """

    def __init__(
        self,
        batch_root_dir: str | os.PathLike[str] = BATCH_ROOT,
        max_requests_per_batch: int = REQUESTS_A_PART,
        api_key: str | None = None,
        *,
        base_url: str | None = None,
        client: Any = None,
        cache_path: str | os.PathLike[str] | None = None,
    ) -> None:
        about = {"api_key": api_key, "base_url": base_url, "client": client, "cache_path": cache_path}
        super().__init__(batch_root_dir, max_requests_per_batch, **about)

    def create_batch_jsonl(
        self,
        dataframe: pd.DataFrame,
        id_col: str,
        text_col: str,
        prompt: str,
        job_id: str,
        model_name: str,
        temperature: float = 0.0,
        chunk_size: int = 5,
        exclude_processed: bool = True,
        schema_dict: dict[str, Any] | None = None,
    ) -> None:
        """Write the requests to ``batch_input/batch_N.jsonl``; nothing is sent.

        What was built before and never submitted is built anew, so that a prompt can still be changed.

        Parameters
        ----------
        dataframe, id_col, text_col, prompt, job_id, model_name, chunk_size, schema_dict
            As in :meth:`df.ie.batch`, where the last three are `model`, `chunk_size` and `schema`.
        temperature : float
            Left out for models that take none but their own (o1, o3, gpt-5 and later).
        exclude_processed : bool
            Leave out rows that are answered already. Rows on their way are left out always; rows that came home
            without an answer are asked again.
        """
        reasons = quirks_of(model_name).max_tokens_name != "max_tokens"
        self._build(
            dataframe,
            job_id,
            prompt,
            schema=schema_dict,
            text_col=text_col,
            id_col=id_col,
            backend="openai",
            model=model_name,
            chunk_size=chunk_size,
            fresh=not exclude_processed,
            request_options={} if reasons else {"temperature": temperature},
        )

    def submit_batches(self, job_id: str) -> None:
        """Upload each file and create its batch, once, however often this is called; ``submission_<id>.json`` tells.

        Raises
        ------
        ProviderError
            The provider refused, or could not be reached; the same call goes on from there.
        BatchError
            It cannot be told yet whether a batch was created.
        """
        self._submit(job_id)

    def check_batch_status(self, job_id: str, continuous: bool = False, interval: float = 300) -> BatchStatus:
        """Fetch what has ended, as ``batch_result_<id>.jsonl`` and ``batch_error_<id>.txt``, and tell of the rest.

        `continuous` goes on, with `interval` seconds between looks, until every batch has ended.
        """
        return self._look(job_id, continuous, interval)

    def retrieve_results_as_dataframe(self, job_id: str) -> pd.DataFrame | None:
        """Return what is home, None if nothing is: ``input_id`` (as text) and the fields; failed rows only logged."""
        return self._answers(job_id)


class AnthropicBatchExtractor(_Steps):
    """Anthropic's batches in four steps: create_batch_requests, submit_batch, check_batch_status, retrieve_results...

    Parameters
    ----------
    batch_root_dir : str or Path
        Where jobs lie, each in a folder of its name.
    api_key, base_url, client, cache_path : optional
        As in :meth:`df.ie.batch`.
    """

    def __init__(
        self,
        batch_root_dir: str | os.PathLike[str] = "anthropic_batch_jobs",
        api_key: str | None = None,
        *,
        base_url: str | None = None,
        client: Any = None,
        cache_path: str | os.PathLike[str] | None = None,
    ) -> None:
        about = {"api_key": api_key, "base_url": base_url, "client": client, "cache_path": cache_path}
        super().__init__(batch_root_dir, ANTHROPIC_REQUESTS, **about)

    def create_batch_requests(
        self,
        dataframe: pd.DataFrame,
        id_col: str,
        text_col: str,
        prompt: str,
        job_id: str,
        model_name: str,
        chunk_size: int = 5,
        schema_dict: dict[str, Any] | None = None,
        tool_name: str = "extract_results",
        max_tokens: int = 32000,
    ) -> Path:
        """Write the requests to ``batch_input/requests.json`` and return its path; nothing is sent.

        Rows that are answered already or on their way are left out; rows that came home without an answer are not.
        What was built before and never submitted is built anew, so that a prompt can still be changed.

        Parameters
        ----------
        dataframe, id_col, text_col, prompt, job_id, model_name, chunk_size, schema_dict, max_tokens
            As in :meth:`df.ie.batch`, where `model_name` is `model` and `schema_dict` is `schema`.
        tool_name : str
            Not needed: the shape of an answer is asked for by the provider's own means.
        """
        ledger = self._build(
            dataframe,
            job_id,
            prompt,
            schema=schema_dict,
            text_col=text_col,
            id_col=id_col,
            backend="anthropic",
            model=model_name,
            chunk_size=chunk_size,
            request_options={"max_tokens": max_tokens},
        )
        return input_path(ledger, ledger.parts[-1]) if ledger.parts else ledger.path(INPUT, "requests.json")

    def submit_batch(self, job_id: str) -> str:
        """Create the batch, once, however often this is called, and return its id; ``submission.json`` tells of it.

        The latest id where a job has several batches, and an empty one where there was nothing to ask. Raises as
        :meth:`OpenAIBatchExtractor.submit_batches` does.
        """
        return next((p.remote for p in reversed(self._submit(job_id).parts) if p.remote), "")

    def check_batch_status(
        self, job_id: str, continuous: bool = False, interval: float = 30, timeout: float | None = None
    ) -> str:
        """Return ``"in_progress"``, ``"canceling"`` or ``"ended"``; then ``batch_output/results.jsonl`` is home.

        `continuous` goes on, with `interval` seconds between looks, until it has ended; a TimeoutError if that takes
        more than `timeout` seconds.
        """
        status = self._look(job_id, continuous, interval, timeout)
        if continuous and not status.is_done:
            raise TimeoutError(f"batch job {job_id!r} did not end within {timeout} s; it goes on at Anthropic")
        return "ended" if status.is_done else "canceling" if status.state == "cancelling" else "in_progress"

    def retrieve_results_as_dataframe(self, job_id: str, tool_name: str = "extract_results") -> pd.DataFrame | None:
        """Return what is home, None if nothing is: ``input_id`` (as text) and the fields; failed rows only logged.

        Where batches are still on their way, Anthropic is looked at once more. `tool_name` is not needed.
        """
        if (self._folder(job_id) / LEDGER).exists():
            states = {p.state for p in Ledger.load(self._folder(job_id)).parts}
            if PartState.BUILT not in states and any(state.is_open for state in states):
                self._look(job_id, continuous=False, interval=0)
        return self._answers(job_id)

    def _manifest(self, part: Part) -> str:
        return f"{INPUT}/submission.json" if part.n == 1 else f"{INPUT}/submission_{part.n}.json"


def _all_rows(ledger: Ledger) -> Rows:
    """Return the rows of the latest frame, and after them those of earlier ones that were sent."""
    rows = FrameFile(ledger).read()[0]
    ids = rows.ids if rows.ids is not None else [str(i) for i in range(len(rows))]
    keys = dict(zip(ids, rows.keys, strict=True))
    parts = set(rows.asked.ids or ()).difference(ids)
    for part in reversed(ledger.parts):
        for asked in read_index(ledger, part):
            for key, sharing in zip(asked.keys, asked.row_ids, strict=True):
                for row_id in (each for each in sharing if each not in parts):
                    keys.setdefault(row_id, key)
    named, long = rows.named_fields, rows.long
    return Rows(texts=[None] * len(keys), keys=list(keys.values()), ids=list(keys), named_fields=named, long=long)
