"""What a call says beyond its own arguments: lmsyz's own options, fields of the request, and names that are neither."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from difflib import get_close_matches
from typing import Any

from lmsyz.errors import UsageError
from lmsyz.long_rows import LONG_TEXT_OPTIONS
from lmsyz.providers.base import CALL_OPTIONS

__all__ = ["OWN_OPTIONS", "split_options"]

OWN_OPTIONS = ("api", "quirks", "requests_per_minute", "tokens_per_minute", *LONG_TEXT_OPTIONS)
# What lmsyz puts into a request itself; an option of that name would break the way back from reply to row.
RESERVED_OPTIONS = frozenset(
    [
        "messages",
        "input",
        "system",
        "instructions",
        "stream",
        "stream_options",
        "response_format",
        "tools",
        "tool_choice",
        "n",
    ]
)
NOT_JSON_OPTIONS = ("timeout",)
# What a name that is no option may have been meant to be. Many servers ignore fields that they do not know, so that a
# misspelt one would pass unnoticed, and a batch would fail a day later.
ARGUMENTS = (
    *("schema", "text_col", "id_col", "image_col", "backend", "model", "chunk_size", "max_workers", "cache_path"),
    *("fresh", "ignore_prompt_hash", "on_error", "dedupe", "verify_rows", "api_key", "base_url", "client", "progress"),
    *("background", "job_id", "batch_root_dir", "max_requests_per_batch"),
)
REQUEST_FIELDS = (
    *("temperature", "top_p", "top_k", "top_a", "min_p", "seed", "stop", "stop_sequences", "max_tokens"),
    *("max_completion_tokens", "max_output_tokens", "reasoning", "reasoning_effort", "thinking", "verbosity"),
    *("frequency_penalty", "presence_penalty", "repetition_penalty", "logit_bias", "logprobs", "top_logprobs"),
    *("service_tier", "metadata", "store", "user", "safety_identifier", "models", "provider", "cache_control"),
    # Of vLLM and llama.cpp, and so like others here that they would be taken for misspelt.
    *("min_tokens", "repeat_penalty", "reasoning_format"),
)
ALIKE = 0.8


def split_options(options: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return lmsyz's own options and those that go into the request, and refuse what lmsyz sends itself.

    Raises
    ------
    UsageError
        An option has the name of a part that lmsyz fills in or of another call's argument, is misspelt, or is no JSON.
    """
    own = {k: v for k, v in options.items() if k in OWN_OPTIONS}
    rest = {k: v for k, v in options.items() if k not in OWN_OPTIONS}
    extra = rest.get("extra_body") or {}
    if not isinstance(extra, Mapping):
        raise UsageError(f"extra_body= takes a dict of request fields, got {extra!r:.60}")
    if "image_col" in rest:
        raise UsageError(
            "image_col= is for df.ie.extract, df.ie.batch, df.ie.stale and df.ie.panel; this call asks about texts"
        )
    others = [name for name in ARGUMENTS if name in rest]
    if others:
        raise UsageError(f"{others[0]}= is an argument of another call and no part of a request: leave it out here")
    _refuse_misspelt(rest)
    taken = sorted(RESERVED_OPTIONS & {*rest, *extra})
    if taken:
        raise UsageError(
            f"{taken[0]}= is a part of the request that lmsyz fills in itself: say what to ask with prompt=, the shape"
            " of an answer with schema="
        )
    for name, value in rest.items():
        if name not in NOT_JSON_OPTIONS:
            _check_json(name, value)
    return own, rest


def _refuse_misspelt(options: Iterable[str]) -> None:
    known = {*ARGUMENTS, *OWN_OPTIONS, *CALL_OPTIONS, *REQUEST_FIELDS, *RESERVED_OPTIONS}
    for name in options:
        meant = [] if name in known else get_close_matches(name, sorted(known - RESERVED_OPTIONS), n=1, cutoff=ALIKE)
        if meant:
            raise UsageError(
                f"{name}= is no option that is known here: did you mean {meant[0]}=? To send it as it is:"
                f" extra_body={{{name!r}: ...}}"
            )


def _check_json(name: str, value: object) -> None:
    try:
        json.dumps(value, allow_nan=False)
    except (TypeError, ValueError) as error:
        raise UsageError(f"the request option {name}= cannot be sent as JSON: {error}") from error
