"""``df.ie``: the calls a user types. Stateless, since pandas 3 makes a new accessor at every look."""

from __future__ import annotations

import os
from collections.abc import Hashable, Sequence
from typing import TYPE_CHECKING, Any, Self

import pandas as pd

if TYPE_CHECKING:
    from lmsyz.batch_job import BatchJob
    from lmsyz.draft import Draft
    from lmsyz.rows import Merge
    from lmsyz.run import Run
    from lmsyz.widgets.panel import Panel

__all__ = ["ExtractionAccessor", "register"]


class ExtractionAccessor:
    """Ask a language model about each row of a frame."""

    def __init__(self, df: pd.DataFrame) -> None:
        self._df = df

    def extract(
        self,
        prompt: str,
        *,
        schema: Any = None,
        text_col: Hashable | Sequence[Hashable] = "text",
        id_col: Hashable | None = None,
        image_col: Hashable | None = None,
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
        long_texts: str = "refuse",
        max_text_tokens: int | None = None,
        merge: Merge | None = None,
        api_key: str | None = None,
        base_url: str | None = None,
        client: Any = None,
        progress: bool | str | None = None,
        background: bool = False,
        **request_options: Any,
    ) -> pd.DataFrame | Run:
        """Ask the model about each row and return its answers, aligned to this frame.

        What was answered before is not asked again: an answer is reused where endpoint, model, prompt, schema,
        request options and the row's own text are the same.

        Parameters
        ----------
        prompt : str
            What to extract, in plain words; the output contract is added to it.
        schema : None, dict, pydantic model, str or Path, optional
            The shape of one row's answer, as in ``{"tone": ["good", "bad"], "score": float}``.
        text_col : label or list of labels
            The column to ask about; several are sent as named fields.
        id_col : label, optional
            Unique row ids; None tells rows apart by position and text.
        image_col : label, optional
            A column of images, one to a row or None: a path, an http(s) or data URL, or the bytes of a PNG, JPEG, GIF
            or WEBP. Text and image are asked about together; ``text_col=None`` asks about images alone. All are looked
            at before anything is sent; a request holds 4 rows unless `chunk_size` says otherwise. An answer is reused
            where the image's SHA-256 is the same too; for a web address it is the address that is compared, so that
            ``fresh=True`` asks again about what it shows now.
        backend : {"openai", "anthropic"}, optional
            The wire; ``"openai"`` with `base_url` for anything that speaks its API.
        model : str, optional
            Any model of the endpoint.
        chunk_size : int, optional
            Rows in one request, at most.
        max_workers : int, optional
            Requests in flight, at most; None adapts.
        cache_path : str or Path, optional
            The store; ``lmsyz_cache.sqlite`` in the working directory unless set otherwise.
        fresh : bool
            Ask again and keep the old answers.
        ignore_prompt_hash : bool
            Also reuse answers to another prompt.
        on_error : {"keep", "drop", "raise"}
            What becomes of rows without an answer.
        dedupe : bool
            Ask equal texts once.
        verify_rows : bool
            Have the model repeat each row's opening words, and ask again where they are another row's.
        long_texts : {"refuse", "split"}
            What becomes of a text that is longer than the model reads, by a rough estimate (a quarter of its bytes).
            ``"refuse"``: it is not sent and says so in ``ie_error``; only where it is over by a quarter, what is
            closer to the limit is sent and the provider decides. ``"split"``: it is cut at paragraphs, sentences or
            spaces, each part is asked and stored as a row of its own would be, and the answers are merged field by
            field: entries of lists joined without repeats, True where any part says so, else the value that most
            parts give and of equals the earliest; null only where every part says null. The model is not told that it
            sees a part. Of several columns the longest field is cut and the others go along with each part.
        max_text_tokens : int, optional
            With ``"split"``, cut every text that is longer than this into parts of at most so many tokens; for models
            that read long texts badly, or whose window is not known.
        merge : callable, optional
            With ``"split"``, your own rule: a function from the list of the parts' answers (dicts, in order) to one.
        api_key, base_url, client
            Where to ask, beyond the settings; `client` is any preconfigured client of the backend's SDK.
        progress : bool or "panel", optional
            Whether a bar is shown; ``"panel"`` shows the panel's live view of the run instead, in a notebook.
        background : bool
            Return a :class:`~lmsyz.run.Run` at once instead of the frame.
        **request_options
            Go to the request as they are (``temperature=0``, ``reasoning_effort="low"``, ``max_tokens=500``).
            lmsyz's own: ``api="responses"``, ``requests_per_minute``, ``tokens_per_minute``, ``timeout`` (seconds a
            call may take in all), ``quirks`` (what is peculiar to the model), ``context_window`` (tokens that the model
            reads and writes in one request, where lmsyz does not know it or knows it wrong; 0 for no limit).

        Returns
        -------
        DataFrame or Run
            One row per row, same index and order: the fields as typed columns, and ``ie_error`` last, ``<NA>`` for a
            good row.

        Raises
        ------
        UsageError
            The call is wrong; nothing was sent.
        MissingKeyError
            There are rows to ask and no key to ask with.
        CacheError
            The store cannot be opened or written.
        ProviderError
            No request of this run could work; what was answered before is stored.
        RunInterrupted
            The cell was interrupted; every finished row is stored.
        ExtractionError
            With ``on_error="raise"``, where rows have no answer.

        Examples
        --------
        >>> import lmsyz
        >>> with lmsyz.sandbox.start():  # doctest: +SKIP
        ...     df.join(df.ie.extract("Classify the tone.", schema={"tone": ["good", "bad"]}))
        """
        from lmsyz.extract import make_run

        long = {"long_texts": long_texts, "max_text_tokens": max_text_tokens, "merge": merge}
        run = make_run(
            self._df,
            prompt,
            schema=schema,
            text_col=text_col,
            id_col=id_col,
            image_col=image_col,
            backend=backend,
            model=model,
            chunk_size=chunk_size,
            max_workers=max_workers,
            cache_path=cache_path,
            fresh=fresh,
            ignore_prompt_hash=ignore_prompt_hash,
            on_error=on_error,
            dedupe=dedupe,
            verify_rows=verify_rows,
            api_key=api_key,
            base_url=base_url,
            client=client,
            progress=progress,
            request_options=request_options | long,
        )
        if not background:
            return run.result()
        run.start()
        return run

    def batch(
        self,
        prompt: str,
        *,
        schema: Any = None,
        text_col: Hashable | Sequence[Hashable] = "text",
        id_col: Hashable | None = None,
        image_col: Hashable | None = None,
        backend: str | None = None,
        model: str | None = None,
        job_id: str | None = None,
        batch_root_dir: str | os.PathLike[str] = "batch_jobs",
        chunk_size: int | None = None,
        max_requests_per_batch: int | None = None,
        cache_path: str | os.PathLike[str] | None = None,
        fresh: bool = False,
        ignore_prompt_hash: bool = False,
        dedupe: bool = True,
        verify_rows: bool = False,
        long_texts: str = "refuse",
        max_text_tokens: int | None = None,
        merge: Merge | None = None,
        api_key: str | None = None,
        base_url: str | None = None,
        client: Any = None,
        progress: bool | None = None,
        **request_options: Any,
    ) -> BatchJob:
        """Submit the rows through the provider's batch API, at half the price and within a day, and return at once.

        Rows that are stored already are not sent. The same call again, in this kernel or another, goes on where the
        job stands: nothing is created twice, and only new rows are sent.

        Parameters
        ----------
        prompt, schema, text_col, id_col, image_col, backend, model, chunk_size, cache_path, fresh
            As in :meth:`extract`. Images are copied into the requests in the job's folder, and read from there later.
        ignore_prompt_hash, dedupe
            As in :meth:`extract`.
        job_id : str, optional
            The job's name, and its folder's. Without it, it is drawn from the task, so that the same question finds
            its job again.
        batch_root_dir : str or Path
            Where jobs lie: what was sent and came back, in plain files, readable by you alone.
        max_requests_per_batch : int, optional
            Requests in one batch at the provider, 5,000 unless set; more make several batches.
        verify_rows, long_texts, max_text_tokens, merge, api_key, base_url, client, progress, **request_options
            As in :meth:`extract`.

        Returns
        -------
        BatchJob
            With ``status()``, ``wait()``, ``results()``, ``cancel()``, ``retry()`` and ``finish_live()``.

        Raises
        ------
        UsageError
            The call is wrong, or `job_id` is a job that asks something else; nothing was sent.
        ProviderError
            The provider refused, or could not be reached. What was submitted by then is safe; the same call goes on.
        BatchError
            Another kernel is at work on the job, or its ledger cannot be read.

        Examples
        --------
        >>> job = df.ie.batch("Classify the tone.", schema={"tone": ["good", "bad"]})  # doctest: +SKIP
        >>> job.wait()  # doctest: +SKIP
        >>> df.join(job.results())  # doctest: +SKIP
        """
        from lmsyz.batch_submit import submit_batch

        long = {"long_texts": long_texts, "max_text_tokens": max_text_tokens, "merge": merge}
        return submit_batch(
            self._df,
            prompt,
            schema=schema,
            text_col=text_col,
            id_col=id_col,
            image_col=image_col,
            backend=backend,
            model=model,
            job_id=job_id,
            batch_root_dir=batch_root_dir,
            chunk_size=chunk_size,
            max_requests_per_batch=max_requests_per_batch,
            cache_path=cache_path,
            fresh=fresh,
            ignore_prompt_hash=ignore_prompt_hash,
            dedupe=dedupe,
            verify_rows=verify_rows,
            api_key=api_key,
            base_url=base_url,
            client=client,
            progress=progress,
            request_options=request_options | long,
        )

    def draft(
        self,
        goal: str,
        *,
        text_col: Hashable | Sequence[Hashable] = "text",
        n_rows: int = 5,
        as_schema: bool = False,
        backend: str | None = None,
        model: str | None = None,
        api_key: str | None = None,
        base_url: str | None = None,
        client: Any = None,
        **request_options: Any,
    ) -> Draft:
        """Ask the model for a starting prompt, and show it a few rows; one request, of which nothing is stored.

        Parameters
        ----------
        goal : str
            What is to be found out about each row, in your own words.
        text_col : label or list of labels
            The column to ask about.
        n_rows : int
            How many rows the model is shown, at even distances.
        as_schema : bool
            Whether a schema is drafted as well.
        backend, model, api_key, base_url, client, **request_options
            As in :meth:`extract`.

        Returns
        -------
        Draft
            The prompt as text, with ``prompt``, ``schema``, ``model``, ``cost`` and ``usage``.

        Examples
        --------
        >>> draft = df.ie.draft("Is the firm expanding?", as_schema=True)  # doctest: +SKIP
        >>> df.ie.extract(draft.prompt, schema=draft.schema)  # doctest: +SKIP
        """
        from lmsyz.draft import draft_prompt

        return draft_prompt(
            goal,
            df=self._df,
            text_col=text_col,
            n_rows=n_rows,
            as_schema=as_schema,
            backend=backend,
            model=model,
            api_key=api_key,
            base_url=base_url,
            client=client,
            **request_options,
        )

    def stale(
        self,
        prompt: str,
        *,
        schema: Any = None,
        text_col: Hashable | Sequence[Hashable] = "text",
        id_col: Hashable | None = None,
        image_col: Hashable | None = None,
        backend: str | None = None,
        model: str | None = None,
        cache_path: str | os.PathLike[str] | None = None,
        fresh: bool = False,
        ignore_prompt_hash: bool = False,
        dedupe: bool = True,
        verify_rows: bool = False,
        long_texts: str = "refuse",
        max_text_tokens: int | None = None,
        merge: Merge | None = None,
        base_url: str | None = None,
        client: Any = None,
        **request_options: Any,
    ) -> pd.DataFrame:
        """Tell how many rows a call of :meth:`extract` would reuse and how many it would ask, and why.

        Nothing is sent and no file is made.

        Parameters
        ----------
        prompt, schema, text_col, id_col, image_col, backend, model, cache_path, fresh, ignore_prompt_hash, dedupe
            As in :meth:`extract`.
        verify_rows
            As in :meth:`extract`.
        long_texts, max_text_tokens, merge, base_url, client, **request_options
            As in :meth:`extract`; arguments of it and of :meth:`batch` that say how to ask and not what
            (``chunk_size``, ``max_workers``, ``on_error``, ``progress``, ``background``, ``api_key``, ``job_id``,
            ``batch_root_dir``, ``max_requests_per_batch``) change nothing here.

        Returns
        -------
        DataFrame
            Columns ``action`` (``reuse``, ``ask`` or ``skip``), ``reason`` and ``rows``.
        """
        from lmsyz.staleness import stale_rows

        long = {"long_texts": long_texts, "max_text_tokens": max_text_tokens, "merge": merge}
        return stale_rows(
            self._df,
            prompt,
            schema=schema,
            text_col=text_col,
            id_col=id_col,
            image_col=image_col,
            backend=backend,
            model=model,
            cache_path=cache_path,
            fresh=fresh,
            ignore_prompt_hash=ignore_prompt_hash,
            dedupe=dedupe,
            verify_rows=verify_rows,
            base_url=base_url,
            client=client,
            request_options=request_options | long,
        )

    def panel(
        self,
        prompt: str | None = None,
        *,
        schema: Any = None,
        text_col: Hashable | Sequence[Hashable] = "text",
        id_col: Hashable | None = None,
        image_col: Hashable | None = None,
        backend: str | None = None,
        model: str | None = None,
        cache_path: str | os.PathLike[str] | None = None,
        fresh: bool = False,
        ignore_prompt_hash: bool = False,
        dedupe: bool = True,
        verify_rows: bool = False,
        long_texts: str = "refuse",
        max_text_tokens: int | None = None,
        merge: Merge | None = None,
        base_url: str | None = None,
        client: Any = None,
        **request_options: Any,
    ) -> Panel:
        """Show the panel, with which of this frame's rows are stored for a question and why others would be asked.

        Nothing is sent and no file is made.

        Parameters
        ----------
        prompt : str, optional
            The question; without it this is :func:`lmsyz.panel`.
        schema, text_col, id_col, image_col, backend, model, cache_path, fresh, ignore_prompt_hash, dedupe, verify_rows
            As in :meth:`stale`.
        long_texts, max_text_tokens, merge, base_url, client, **request_options
            As in :meth:`stale`.

        Returns
        -------
        Panel
            ``.rows()`` is the state of each row as a frame.
        """
        from lmsyz.widgets.panel import frame_panel

        long = {"long_texts": long_texts, "max_text_tokens": max_text_tokens, "merge": merge}
        options = {
            "schema": schema,
            "text_col": text_col,
            "id_col": id_col,
            "image_col": image_col,
            "backend": backend,
            "model": model,
            "cache_path": cache_path,
            "fresh": fresh,
            "ignore_prompt_hash": ignore_prompt_hash,
            "dedupe": dedupe,
            "verify_rows": verify_rows,
            "base_url": base_url,
            "client": client,
        }
        return frame_panel(self._df, prompt, options, request_options | long)


class _OnSeries:
    """What ``df["text"].ie`` says: an AttributeError, so that ``hasattr`` is false, with what to type instead.

    No accessor of pandas' own kind: with one a label "ie" could no longer be read as ``series.ie``.
    """

    def __get__(self, series: pd.Series[Any] | None, owner: type | None = None) -> Self:
        if series is None:
            return self
        name = "text" if series.name is None else series.name
        named = "" if name == "text" else f", text_col={name!r}"
        frame = "series.to_frame('text')" if series.name is None else f"df[[{name!r}]]"
        raise AttributeError(
            f"a Series has no .ie; a frame has, and text_col= names its column: df.ie.extract(prompt{named}), or"
            f" {frame}.ie.extract(prompt{named}) for this column alone"
        )


def register() -> None:
    """Give every DataFrame ``df.ie``; again after a module reload, without pandas' warning."""
    if "ie" not in vars(pd.Series):
        pd.Series.ie = _OnSeries()  # type: ignore[attr-defined]
        # Not offered by the Tab key, as pandas leaves out any accessor that does not go with the values.
        hidden: frozenset[str] = getattr(pd.Series, "_hidden_attrs", frozenset())
        pd.Series._hidden_attrs = hidden | {"ie"}  # type: ignore[attr-defined]
    known = getattr(pd.DataFrame, "ie", None)
    if known is ExtractionAccessor:
        return
    if getattr(known, "__module__", "") == __name__:
        # ``%autoreload`` has made this class anew: the old one gives way without pandas' warning of a clash.
        delattr(pd.DataFrame, "ie")
    pd.api.extensions.register_dataframe_accessor("ie")(ExtractionAccessor)
