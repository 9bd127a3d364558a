"""The dialect of Gemini's OpenAI-compatible endpoint, at ``<sandbox>/gemini/v1beta/openai``.

Any ``gemini-...`` name, also as ``models/gemini-...``, stands for ``sandbox-rules``. As public threads show it: errors
are Google's, in a list (page-assist 406); a 429 tells its wait in ``RetryInfo``, not in a header, and does so even
where a quota a day is used up (inspect_ai 5526, continue 12643); a field that is not known is a 400 ``Unknown name ...
Cannot find field`` (SkyrimNet-GamePlugin 77), and so are some keywords in a tool's schema (zed 44875, openswarm 24); a
filter's word stands in ``finish_reason`` in Google's capitals, and no text beside it (Vibe-Trading 308). Usage may be
missing.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from lmsyz.sandbox.doors import Answered, Asked, key_of, model_behind
from lmsyz.sandbox.wire import MODELS, ApiError, JsonObject

__all__ = ["GeminiChat"]

UNKNOWN_FIELDS = ("extra_body", "frequency_penalty", "reasoning", "top_k")
UNKNOWN_KEYWORDS = ("$schema", "const", "propertyNames")
TYPE = "type.googleapis.com/google.rpc."
STATUSES = {
    400: "INVALID_ARGUMENT",
    401: "UNAUTHENTICATED",
    404: "NOT_FOUND",
    429: "RESOURCE_EXHAUSTED",
    500: "INTERNAL",
    503: "UNAVAILABLE",
}
QUOTA = "You exceeded your current quota, please check your plan and billing details."
METRIC = "generativelanguage.googleapis.com/generate_content_free_tier_requests"


def error(status: int, message: str, *details: JsonObject) -> ApiError:
    """Return an error in Google's shape, in a list."""
    said: JsonObject = {"code": status, "message": message, "status": STATUSES.get(status, "UNKNOWN")}
    wrapped: Any = [{"error": said | ({"details": list(details)} if details else {})}]
    return ApiError(status, wrapped)


class GeminiChat:
    """Gemini's chat completions."""

    label = "gemini"
    routes: tuple[str, ...] = ("/gemini/v1beta/openai/chat/completions",)
    endpoint = "chat"

    def enter(self, asked: Asked) -> tuple[JsonObject, dict[str, str]]:
        """Check key, model and fields."""
        if not key_of(asked.headers):
            reason = {"@type": f"{TYPE}ErrorInfo", "reason": "API_KEY_INVALID", "domain": "googleapis.com"}
            raise error(400, "API key not valid. Please pass a valid API key.", reason)
        name = str(asked.body.get("model") or "").removeprefix("models/")
        model = model_behind(name) if name in MODELS or name.startswith("gemini-") else ""
        if not model:
            raise error(
                404, f"models/{name} is not found for API version v1main, or is not supported for generateContent."
            )
        unknown = list(_unknown_names(asked.body))
        if unknown:
            said = [f"Invalid JSON payload received. Unknown name {where}: Cannot find field." for where in unknown]
            violations = [{"description": line} for line in said]
            raise error(400, "\n".join(said), {"@type": f"{TYPE}BadRequest", "fieldViolations": violations})
        return {**asked.body, "model": model}, {"authorization": "Bearer gemini"}

    def leave(self, asked: Asked, answered: Answered) -> Answered:
        """Return the answer with Google's words."""
        headers = {k: v for k, v in answered.headers.items() if not k.startswith(("x-ratelimit", "retry-after"))}
        if answered.status == 200:
            return Answered(status=200, body=_spoken(asked, answered), headers=headers)
        if answered.error.get("code") == "invalid_prompt":
            stopped = {"index": 0, "finish_reason": "PROHIBITED_CONTENT", "message": {"role": "assistant"}}
            body = {"object": "chat.completion", "model": asked.body["model"], "choices": [stopped]}
            return Answered(status=200, body=body, headers=headers)
        failed = _failed(answered)
        return Answered(status=failed.status, body=failed.body, headers=headers)


def _unknown_names(body: JsonObject) -> Iterator[str]:
    """Give each name that is not known, in quotes, and where it stands if that is not the top."""
    yield from (f'"{name}"' for name in UNKNOWN_FIELDS if name in body)
    tools = body.get("tools")
    for i, tool in enumerate(tools if isinstance(tools, list) else ()):
        function = tool.get("function") if isinstance(tool, dict) else None
        parameters = function.get("parameters") if isinstance(function, dict) else None
        where = f"tools[{i}].function_declarations[0].parameters"
        yield from (f"\"{name}\" at '{where}'" for name in _keywords_in(parameters) if name in UNKNOWN_KEYWORDS)


def _keywords_in(node: Any) -> set[str]:
    if isinstance(node, list):
        return set().union(*map(_keywords_in, node))
    if not isinstance(node, dict):
        return set()
    return {k for k, v in node.items() if not isinstance(v, dict)}.union(*map(_keywords_in, node.values()))


def _spoken(asked: Asked, answered: Answered) -> JsonObject:
    body = dict(answered.body)
    choices = []
    for choice in body["choices"]:
        if choice.get("finish_reason") == "content_filter":
            word = ("SAFETY", "RECITATION", "PROHIBITED_CONTENT")[answered.way % 3]
            choice = {"index": choice["index"], "finish_reason": word, "message": {"role": "assistant"}}
        choices.append(choice)
    if answered.way % 4 == 2:
        del body["usage"]
    return {**body, "choices": choices, "model": asked.body["model"]}


def _failed(answered: Answered) -> ApiError:
    said = answered.error
    if answered.status == 429:
        a_day = said.get("code") == "insufficient_quota"
        wait = answered.headers.get("retry-after", "45.5")
        what = "Day" if a_day else "Minute"
        violation = {"quotaMetric": METRIC, "quotaId": f"GenerateRequestsPer{what}PerProjectPerModel-FreeTier"}
        return error(
            429,
            f"{QUOTA}\n* Quota exceeded for metric: {METRIC}, limit: 20\nPlease retry in {wait}s.",
            {"@type": f"{TYPE}QuotaFailure", "violations": [violation]},
            {"@type": f"{TYPE}RetryInfo", "retryDelay": f"{wait}s"},
        )
    if answered.status == 503:
        return error(503, "The model is overloaded. Please try again later.")
    if answered.status >= 500:
        return error(500, "An internal error has occurred. Please retry.")
    return error(answered.status, str(said.get("message")))
