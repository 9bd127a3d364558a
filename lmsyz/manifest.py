"""What a paper's appendix needs to say of one run; JSON-able, without texts and without keys."""

from __future__ import annotations

import json
import platform
from collections.abc import Mapping
from datetime import UTC, datetime
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from typing import Any

from lmsyz.report import Counts
from lmsyz.rows import SHUFFLE_SEED
from lmsyz.store import Saved, TaskRecord

__all__ = ["build_manifest"]

PACKAGES = ("lmsyz", "openai", "anthropic", "pandas", "tenacity", "genai-prices")


def build_manifest(
    record: TaskRecord, counts: Counts, saved: Saved, *, run_id: str, started: float, how_asked: Mapping[str, Any]
) -> dict[str, Any]:
    """Return what a run was and did.

    Parameters
    ----------
    record : TaskRecord
        What was asked; header values that may be secret are not in it.
    counts : Counts
        What came of it.
    saved : Saved
        What the answers from the store had cost.
    run_id : str
        As written beside each exchange.
    started : float
        Unix time.
    how_asked : mapping
        Sizes and switches of the call, as ``chunk_size`` and ``verify_rows``.

    Returns
    -------
    dict
        Model as asked and as returned, prompt and schema with hashes, options, counts, cost, dates, versions.
    """
    return {
        "run_id": run_id,
        **_task(record, counts),
        **how_asked,
        "shuffle_seed": SHUFFLE_SEED,
        **_figures(counts, saved),
        "started": _date(started),
        "ended": None if counts.how == "running" else _date(started + counts.wall_s),
        "how_it_ended": counts.how,
        "versions": dict(_versions()),
    }


def _task(record: TaskRecord, counts: Counts) -> dict[str, Any]:
    return {
        "backend": record.backend,
        "api": record.api,
        "endpoint": record.endpoint,
        "rules_not_a_language_model": record.endpoint == "sandbox",
        "model_asked": record.model,
        "models_returned": sorted(m for m in counts.models if m),
        "task_fingerprint": record.fingerprint,
        "prompt": record.prompt,
        "prompt_hash": record.prompt_hash,
        "system_prompt": record.system,
        "system_prompt_sha256": record.system_hash,
        "schema": json.loads(record.schema) if record.schema else None,
        "schema_sha256": record.schema_hash if record.schema else None,
        "request_options": json.loads(record.options),
    }


def _figures(counts: Counts, saved: Saved) -> dict[str, Any]:
    return {
        "rows": {
            "total": counts.n_rows,
            "cached": counts.n_cached,
            "answered": counts.n_ok,
            "without_answer": dict(counts.n_failed),
        },
        "requests": {
            "sent": counts.n_requests,
            "retries": dict(counts.retries),
            "outcomes": dict(counts.outcomes),
            "rows_asked_again": counts.n_reasked,
            "foreign_answers_not_used": counts.n_foreign,
        },
        "tokens": {
            "input": counts.input_tokens,
            "output": counts.output_tokens,
            "input_from_prompt_cache": counts.cached_tokens,
        },
        "cost_usd": counts.cost,
        "saved_by_cache_usd": saved.cost,
        "wall_s": round(counts.wall_s, 3),
    }


@cache  # reading them off the disk takes longer than a request
def _versions() -> dict[str, str]:
    versions = {"python": platform.python_version()}
    for package in PACKAGES:
        try:
            versions[package] = version(package)
        except PackageNotFoundError:
            versions[package] = "not installed as a package"
    return versions


def _date(at: float) -> str:
    return datetime.fromtimestamp(at, UTC).isoformat(timespec="seconds")
