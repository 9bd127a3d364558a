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

from lmsyz.batch_files import INPUT, OUTPUT, FrameFile, input_path, read_failures, read_index
from lmsyz.batch_job import BATCH_ROOT, REQUESTS_A_PART, BatchJob, stored_task
from lmsyz.batch_ledger import LEDGER, Ledger, Part, PartState, check_job_id, write_private
from lmsyz.batch_status import BatchStatus
from lmsyz.batch_submit import submit_batch
from lmsyz.cache import SqliteCache
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

    def __init__(
        self,
        batch_root_dir: str | os.PathLike[str],
        max_requests: int,
        api_key: str | None,
        base_url: str | None,
        client: Any,
        cache_path: str | os.PathLike[str] | None,
    ) -> None:
        self.batch_root_dir = Path(batch_root_dir)
        self.max_requests_per_batch = check_size(max_requests, "max_requests_per_batch", REQUESTS_A_PART)
        self.client = client
        self._cache_path = cache_path
        self._reach: dict[str, Any] = {"api_key": api_key, "base_url": base_url}

    def _build(self, dataframe: pd.DataFrame, job_id: str, prompt: str, **about: Any) -> Ledger:
        """Write the requests; nothing is sent."""
        job = submit_batch(
            dataframe,
            prompt,
            job_id=job_id,
            batch_root_dir=self.batch_root_dir,
            max_requests_per_batch=self.max_requests_per_batch,
            cache_path=self._cache_path,
            client=self.client,
            send=False,
            **self._reach,
            **about,
        )
        ledger = Ledger.load(job.folder)
        n = sum(p.n_requests for p in ledger.parts if p.state is PartState.BUILT)
        log.info("job %s: %d requests are in %s; nothing was sent yet", job_id, n, job.folder / INPUT)
        return ledger

    def _submit(self, job_id: str) -> BatchStatus:
        """Send what was built and is not at the provider yet."""
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

    def _look(self, job_id: str, continuous: bool, interval: float, timeout: float | None, step: str) -> BatchStatus:
        """See how the job is doing, once or until it is done, and bring home what has ended; submit nothing."""
        job = self._job(job_id)
        unsent = [p.n for p in job.status().parts if p.state is PartState.BUILT]
        if unsent:
            raise BatchError(
                f"parts {unsent} of job {job_id!r} are built and not submitted: call {step}({job_id!r}) first"
            )
        return self._seen(job.wait(interval, timeout) if continuous else job.refresh())

    def _answers(self, job_id: str) -> pd.DataFrame | None:
        """Return the answers that are home, of this frame and of earlier ones; None without any."""
        folder = self._folder(job_id)
        if not (folder / LEDGER).exists():
            log.warning("there is no batch job in %s", folder)
            return None
        ledger = Ledger.load(folder)
        rows = _all_rows(ledger)
        with SqliteCache(ledger.cache_path) as cache:
            tasks = cache.reading_tasks(ledger.record, ledger.ignore_prompt)
            answers = cache.answers(tasks, {k for k in rows.keys if k})
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
        return BatchJob.load(job_id, batch_root_dir=self.batch_root_dir, client=self.client, **self._reach)

    def _seen(self, status: BatchStatus) -> BatchStatus:
        """Write down each batch as the provider told of it last, for the reader; the engine goes by its ledger."""
        for part in status.parts:
            if part.remote:
                about = {"id": part.remote, "job_id": status.job_id, "model": status.model, **asdict(part)}
                path = self._folder(status.job_id) / self._manifest(part)
                write_private(path, json.dumps(about, ensure_ascii=False, indent=1).encode(), flush=False)
        log.info("%r", status)
        return status

    def _manifest(self, part: Part) -> str:
        return f"{OUTPUT}/submission_{part.remote}.json"


class OpenAIBatchExtractor(_Steps):
    """OpenAI batches step by step: ``create_batch_jsonl``, ``submit_batches``, ``check_batch_status``,
    ``retrieve_results_as_dataframe``.

    Parameters
    ----------
    batch_root_dir : str or Path
        Where jobs lie, each in a folder of its name.
    max_requests_per_batch : int
        Requests in one file, and so in one batch.
    api_key : str, optional
        Goes before the settings.
    base_url, client, cache_path : optional
        As in :meth:`df.ie.batch`.

    Examples
    --------
    >>> steps = OpenAIBatchExtractor(batch_root_dir="my_job")
    >>> steps.create_batch_jsonl(df, "id", "text", prompt, "tone", "gpt-4.1-mini")  # doctest: +SKIP
    >>> steps.submit_batches("tone")  # doctest: +SKIP
    >>> steps.check_batch_status("tone", continuous=True)  # doctest: +SKIP
    >>> out = steps.retrieve_results_as_dataframe("tone")  # doctest: +SKIP
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
        super().__init__(batch_root_dir, max_requests_per_batch, api_key, base_url, client, cache_path)

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

        Requests that were built before and never submitted are built anew, so that a prompt can still be changed.

        Parameters
        ----------
        dataframe, id_col, text_col, prompt, chunk_size
            As in :meth:`df.ie.batch`; `id_col` is required here.
        job_id : str
            The job's name, and its folder's.
        model_name : str
            As it stands in the request.
        temperature : float
            Left out for models that take none but their own (o1, o3, gpt-5 and later).
        exclude_processed : bool
            Leave out rows that are answered already. Rows that are on their way are left out always, and rows that
            came home without an answer never.
        schema_dict : dict, optional
            Any form of schema that :meth:`df.ie.extract` takes.
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
        """Upload the files and create a batch of each, once, however often this is called.

        Each batch is written down in ``batch_output/submission_<id>.json``.

        Parameters
        ----------
        job_id : str
            The job.

        Raises
        ------
        ProviderError
            The provider refused, or could not be reached; the same call goes on from there.
        BatchError
            It cannot be told yet whether a batch was created.
        """
        self._submit(job_id)

    def check_batch_status(self, job_id: str, continuous: bool = False, interval: float = 300) -> BatchStatus:
        """Ask how the batches are doing and fetch what has ended: ``batch_result_<id>.jsonl``, ``batch_error_<id>.txt``.

        Parameters
        ----------
        job_id : str
            The job.
        continuous : bool
            Go on until every batch has ended.
        interval : float
            Seconds between looks, then.

        Returns
        -------
        BatchStatus
        """
        return self._look(job_id, continuous, interval, None, "submit_batches")

    def retrieve_results_as_dataframe(self, job_id: str) -> pd.DataFrame | None:
        """Return what :meth:`check_batch_status` has brought home; sends nothing.

        Parameters
        ----------
        job_id : str
            The job.

        Returns
        -------
        DataFrame or None
            ``input_id`` (the ids as text) and the extracted fields. Rows without an answer are left out and logged.
        """
        return self._answers(job_id)


class AnthropicBatchExtractor(_Steps):
    """Anthropic message batches step by step: ``create_batch_requests``, ``submit_batch``, ``check_batch_status``,
    ``retrieve_results_as_dataframe``.

    Parameters
    ----------
    batch_root_dir : str or Path
        Where jobs lie, each in a folder of its name.
    api_key : str, optional
        Goes before the settings.
    base_url, client, cache_path : optional
        As in :meth:`df.ie.batch`.

    Examples
    --------
    >>> steps = AnthropicBatchExtractor(batch_root_dir="my_job")
    >>> steps.create_batch_requests(df, "id", "text", prompt, "tone", "claude-haiku-5-5")  # doctest: +SKIP
    >>> steps.submit_batch("tone")  # doctest: +SKIP
    >>> steps.check_batch_status("tone", continuous=True)  # doctest: +SKIP
    >>> out = steps.retrieve_results_as_dataframe("tone")  # doctest: +SKIP
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
        super().__init__(batch_root_dir, ANTHROPIC_REQUESTS, api_key, base_url, client, cache_path)

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
        """Write the requests to ``batch_input/requests.json``; nothing is sent.

        Rows that are answered already or on their way are left out; rows that came home without an answer are not.
        Requests that were built before and never submitted are built anew, so that a prompt can still be changed.

        Parameters
        ----------
        dataframe, id_col, text_col, prompt, chunk_size
            As in :meth:`df.ie.batch`; `id_col` is required here.
        job_id : str
            The job's name, and its folder's.
        model_name : str
            As it stands in the request.
        schema_dict : dict, optional
            Any form of schema that :meth:`df.ie.extract` takes.
        tool_name : str
            Not used: the shape of an answer is asked for by the provider's own means.
        max_tokens : int
            The most that one reply may take.

        Returns
        -------
        Path
            The file that was written last; the job's folder for it where there was nothing to ask.
        """
        about: dict[str, Any] = {"text_col": text_col, "id_col": id_col, "chunk_size": chunk_size}
        options = {"max_tokens": max_tokens}
        ledger = self._build(
            dataframe,
            job_id,
            prompt,
            schema=schema_dict,
            backend="anthropic",
            model=model_name,
            request_options=options,
            **about,
        )
        return input_path(ledger, ledger.parts[-1]) if ledger.parts else ledger.path(INPUT)

    def submit_batch(self, job_id: str) -> str:
        """Create the batch, once, however often this is called; it is written down in ``batch_input/submission.json``.

        Parameters
        ----------
        job_id : str
            The job.

        Returns
        -------
        str
            The batch's id at Anthropic, the latest where there are several; empty where there was nothing to ask.

        Raises
        ------
        ProviderError
            The provider refused, or could not be reached; the same call goes on from there.
        BatchError
            It cannot be told yet whether a batch was created.
        """
        return next((p.remote for p in reversed(self._submit(job_id).parts) if p.remote), "")

    def check_batch_status(
        self, job_id: str, continuous: bool = False, interval: float = 30, timeout: float | None = None
    ) -> str:
        """Ask how the batch is doing and fetch its results, once it has ended, to ``batch_output/results.jsonl``.

        Parameters
        ----------
        job_id : str
            The job.
        continuous : bool
            Go on until it has ended.
        interval : float
            Seconds between looks, then.
        timeout : float, optional
            Seconds to go on for, at most.

        Returns
        -------
        str
            ``"in_progress"``, ``"canceling"`` or ``"ended"``.

        Raises
        ------
        TimeoutError
            It had not ended by then.
        """
        status = self._look(job_id, continuous, interval, timeout, "submit_batch")
        if continuous and not status.is_done:
            raise TimeoutError(f"batch job {job_id!r} did not end within {timeout} s; it goes on at Anthropic")
        return "ended" if status.is_done else "canceling" if status.state == "cancelling" else "in_progress"

    def retrieve_results_as_dataframe(self, job_id: str, tool_name: str = "extract_results") -> pd.DataFrame | None:
        """Return what has come home, after one more look at Anthropic where something is still on its way.

        Parameters
        ----------
        job_id : str
            The job.
        tool_name : str
            Not used.

        Returns
        -------
        DataFrame or None
            ``input_id`` (the ids as text) and the extracted fields. Rows without an answer are left out and logged.
        """
        job = self._folder(job_id) / LEDGER
        states = {p.state for p in Ledger.load(job.parent).parts} if job.exists() else set()
        if PartState.BUILT not in states and any(state.is_open for state in states):
            self._look(job_id, False, 0, None, "submit_batch")
        return self._answers(job_id)


def _all_rows(ledger: Ledger) -> Rows:
    """Return the rows of the latest frame, and after them those of earlier ones that were sent."""
    rows = FrameFile(ledger).read()[0]
    ids = rows.ids if rows.ids is not None else [str(i) for i in range(len(rows))]
    keys = dict(zip(ids, rows.keys, strict=True))
    for part in reversed(ledger.parts):
        for asked in read_index(ledger, part):
            for key, sharing in zip(asked.keys, asked.row_ids, strict=True):
                for row_id in sharing:
                    keys.setdefault(row_id, key)
    return Rows(texts=[None] * len(keys), keys=list(keys.values()), ids=list(keys), named_fields=rows.named_fields)
