"""What the gateways that speak OpenAI's API say in places of their own: OpenRouter and Gemini. Pure.

Sources: OpenRouter's page "Errors and Debugging" (``error.metadata``: ``raw`` and ``provider_name`` of the host behind
it, ``reasons`` and ``flagged_input`` of moderation, ``limit_source`` of budgets) and, for the headers that it puts into
``metadata.headers``, public issue threads (Gitlawb/openclaude 936, Avarok-Cybersecurity/atlas 543); Google's
``google.rpc`` error details (``RetryInfo``, ``QuotaFailure``) as in public threads on Gemini's endpoint
(continuedev/continue 12643, UKGovernmentBEIS/inspect_ai 5526); Bedrock's words for a day's quota as in
Ivy-Interactive/Ivy-Tendril 1756.
"""

from __future__ import annotations

import json
import re
import time
from collections.abc import Callable, Mapping

from lmsyz.providers.base import JsonObject, as_dict, dicts_in

__all__ = [
    "is_budget_in_flight",
    "is_flagged",
    "is_quota_of_a_day",
    "is_quota_of_nothing",
    "told_wait_s",
    "with_upstream_words",
]

LONGEST_WAIT_S = 86_400.0
SECONDS = re.compile(r"(\d+(?:\.\d+)?)s")
ZERO = re.compile(r"(?i)\bquota exceeded\b.*\blimit: 0\b")
DAYS = re.compile(r"(?i)per_?day|daily")
# Not every "per day": OpenAI's own limits a day run on, and may be over in minutes.
DAYS_SAID = re.compile(r"(?i)free-models-per-day|too many (?:tokens|requests) per day")
EPOCH_MS = 10**11  # a moment in seconds is below this until the year 5138


def told_wait_s(error: Mapping[str, object], now: Callable[[], float] = time.time) -> float | None:
    """Return the seconds that an error's own body asks to wait, None where it does not.

    Examples
    --------
    >>> told_wait_s({"details": [{"@type": "type.googleapis.com/google.rpc.RetryInfo", "retryDelay": "11.5s"}]})
    11.5
    """
    for detail in dicts_in(error.get("details")):
        found = SECONDS.fullmatch(str(detail.get("retryDelay") or ""))
        if str(detail.get("@type") or "").endswith("RetryInfo") and found:
            return min(float(found[1]), LONGEST_WAIT_S)
    headers = {str(k).lower(): str(v) for k, v in as_dict(_metadata(error).get("headers")).items()}
    reset = headers.get("x-ratelimit-reset", "")
    if headers.get("x-ratelimit-remaining") != "0" or not reset.isdigit():
        return None
    at = int(reset) / (1000 if int(reset) >= EPOCH_MS else 1)
    return min(max(at - now(), 0.0), LONGEST_WAIT_S)


def is_budget_in_flight(error: Mapping[str, object]) -> bool:
    """Tell whether OpenRouter's 402 is about what is under way just now, which passes by waiting."""
    return _metadata(error).get("limit_source") == "openrouter_in_flight_budget"


def is_quota_of_a_day(error: Mapping[str, object]) -> bool:
    """Tell whether a quota a day is used up; Gemini asks to wait for seconds even then."""
    ids = [v.get("quotaId") for d in dicts_in(error.get("details")) for v in dicts_in(d.get("violations"))]
    named = [*ids, _metadata(error).get("limit_source")]
    if any(DAYS.search(text) for text in named if isinstance(text, str)):
        return True
    return DAYS_SAID.search(str(error.get("message") or "")) is not None


def is_quota_of_nothing(error: Mapping[str, object]) -> bool:
    """Tell whether a quota is none at all, as for a model that Gemini's free tier does not have."""
    return ZERO.search(str(error.get("message") or "")) is not None


def is_flagged(error: Mapping[str, object]) -> bool:
    """Tell whether OpenRouter's moderation has stopped a request's text."""
    metadata = _metadata(error)
    return bool(metadata.get("flagged_input") or metadata.get("reasons"))


def with_upstream_words(error: JsonObject) -> JsonObject:
    """Return an error with what the host behind a gateway said, where the gateway's own words say nothing.

    Examples
    --------
    >>> raw = '{"error": {"message": "prompt is too long"}}'
    >>> with_upstream_words({"message": "Provider returned error", "metadata": {"raw": raw}})["message"]
    'Provider returned error: prompt is too long'
    """
    metadata = _metadata(error)
    raw = metadata.get("raw")
    if not isinstance(raw, str) or not raw.strip():
        return error
    name = metadata.get("provider_name")
    said = f"{error.get('message') or ''}{f' ({name})' if isinstance(name, str) and name else ''}"
    return {**error, "message": f"{said}: {_words_in(raw)}"}


def _metadata(error: Mapping[str, object]) -> JsonObject:
    return as_dict(error.get("metadata"))


def _words_in(raw: str) -> str:
    try:
        payload = json.loads(raw)
    except (ValueError, RecursionError):
        return raw.strip()
    if isinstance(payload, list):
        payload = next(iter(dicts_in(payload)), {})
    inner = as_dict(payload).get("error", payload)
    message = as_dict(inner).get("message") if isinstance(inner, dict) else inner
    return message if isinstance(message, str) and message else raw.strip()
