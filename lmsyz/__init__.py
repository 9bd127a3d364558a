"""Turn a text column into measured data with an LLM: ``import lmsyz`` gives every DataFrame ``df.ie``."""

from __future__ import annotations

import importlib
from typing import Any

from lmsyz import accessor as _accessor

_accessor.register()

__version__ = "0.1.0"

_HOMES = {
    "AnthropicBatchExtractor": "lmsyz.extractors",
    "BatchError": "lmsyz.errors",
    "BatchJob": "lmsyz.batch_job",
    "DataFrameIterator": "lmsyz.frame_rows",
    "ExtractionError": "lmsyz.errors",
    "LmsyzError": "lmsyz.errors",
    "MissingKeyError": "lmsyz.errors",
    "OpenAIBatchExtractor": "lmsyz.extractors",
    "Run": "lmsyz.run",
    "RunInterrupted": "lmsyz.errors",
    "Settings": "lmsyz.settings",
    "SqliteCache": "lmsyz.cache",
    "UsageError": "lmsyz.errors",
    "batch_jobs": "lmsyz.batch_job",
    "compute_prompt_hash": "lmsyz.task",
    "draft_prompt": "lmsyz.draft",
    "extract_df": "lmsyz.seed_extract",
    "last_run": "lmsyz.run",
    "panel": "lmsyz.widgets.panel",
    "retry_api_call": "lmsyz.retry",
}
_MODULES = ("csv_guard", "data", "local", "sandbox")

__all__ = sorted([*_HOMES, *_MODULES])


def __getattr__(name: str) -> Any:
    if name in _MODULES:
        return importlib.import_module(f"lmsyz.{name}")
    if name in _HOMES:
        return getattr(importlib.import_module(_HOMES[name]), name)
    raise AttributeError(f"module 'lmsyz' has no attribute {name!r}")


def __dir__() -> list[str]:
    return [*__all__, "__version__"]
