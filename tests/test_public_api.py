"""What ``lmsyz`` shows: the names it promises, documented, with examples that hold, and light to import."""

from __future__ import annotations

import doctest
import importlib
import inspect
import pkgutil
import subprocess
import sys
from typing import Any

import pandas as pd
import pytest

import lmsyz
from lmsyz.accessor import ExtractionAccessor

HEAVY = ("openai", "anthropic", "httpx2", "ipywidgets", "IPython", "pydantic", "pydantic_settings", "tqdm", "tenacity")
PROMISED = {
    "AnthropicBatchExtractor",
    "BatchError",
    "BatchJob",
    "DataFrameIterator",
    "ExtractionError",
    "LmsyzError",
    "MissingKeyError",
    "OpenAIBatchExtractor",
    "Run",
    "RunInterrupted",
    "Settings",
    "SqliteCache",
    "UsageError",
    "batch_jobs",
    "compute_prompt_hash",
    "csv_guard",
    "data",
    "draft_prompt",
    "extract_df",
    "last_run",
    "local",
    "panel",
    "retry_api_call",
    "sandbox",
}
ARGUMENTS = [
    *("prompt", "schema", "text_col", "id_col", "image_col", "backend", "model", "chunk_size", "max_workers"),
    *("cache_path", "fresh", "ignore_prompt_hash", "on_error", "dedupe", "verify_rows", "long_texts"),
    *("max_text_tokens", "merge", "api_key", "base_url", "client", "progress"),
    *("background", "request_options"),
]
MODULES = [m.name for m in pkgutil.walk_packages(lmsyz.__path__, "lmsyz.") if not m.name.endswith("__main__")]


def test_all_is_what_was_promised_and_what_dir_shows() -> None:
    assert set(lmsyz.__all__) == PROMISED
    assert list(lmsyz.__all__) == sorted(lmsyz.__all__)
    assert set(dir(lmsyz)) == PROMISED | {"__version__"}


@pytest.mark.parametrize("name", lmsyz.__all__)
def test_every_public_name_is_there_and_documented(name: str) -> None:
    assert inspect.getdoc(getattr(lmsyz, name))


def test_a_name_that_is_not_there_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="has no attribute 'extractor'"):
        _ = lmsyz.extractor


@pytest.mark.parametrize("module", ["lmsyz", *MODULES])
def test_what_a_module_lists_is_there(module: str) -> None:
    home = importlib.import_module(module)
    assert [name for name in getattr(home, "__all__", []) if not hasattr(home, name)] == []
    assert home.__doc__


def test_importing_lmsyz_loads_no_sdk_and_no_screen() -> None:
    script = "import sys, pandas; before = set(sys.modules); import lmsyz; print(*sorted(set(sys.modules) - before))"
    loaded = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True).stdout.split()
    assert "lmsyz.accessor" in loaded
    assert sorted({name.partition(".")[0] for name in loaded} & set(HEAVY)) == []


@pytest.mark.parametrize("method", ["extract", "batch", "stale"])
def test_every_argument_of_the_accessor_is_documented(method: str) -> None:
    function = getattr(ExtractionAccessor, method)
    names = [name for name in inspect.signature(function).parameters if name != "self"]
    assert [name for name in names if name not in (inspect.getdoc(function) or "")] == []


def test_the_arguments_are_those_of_the_contract() -> None:
    assert list(inspect.signature(ExtractionAccessor.extract).parameters)[1:] == ARGUMENTS


def examples() -> list[Any]:
    finder = doctest.DocTestFinder(exclude_empty=True)
    found = [test for name in MODULES for test in finder.find(importlib.import_module(name), name)]
    return [pytest.param(test, id=test.name) for test in found if test.examples]


@pytest.mark.parametrize("example", examples())
def test_the_examples_in_the_docstrings_hold(example: doctest.DocTest, sandbox_default: Any) -> None:
    example.globs.update(lmsyz=lmsyz, pd=pd, df=pd.DataFrame({"text": ["A great year.", "A terrible loss."]}))
    failed, _ = doctest.DocTestRunner(optionflags=doctest.NORMALIZE_WHITESPACE).run(example)
    assert not failed
