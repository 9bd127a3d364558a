"""OpenRouter's dialect of OpenAI's chat API, at ``<sandbox>/openrouter/api/v1``.

A model is ``vendor/name``; what the name stands for is said in :func:`lmsyz.sandbox.doors.model_behind`. From its page
"Errors and Debugging": errors are ``{"error": {"code", "message", "metadata"}}`` with the HTTP status of the code, but
status 200 once the model's host has begun; ``metadata`` holds the host's own words (``raw``, ``provider_name``), what
moderation found, or which budget is used up, of which one alone passes by waiting (402 with ``Retry-After``). A host
that fails in the middle is told of in the choice. Free models' 429s carry their headers in the body (public issue
Gitlawb/openclaude 936). While a host works, whitespace and comments keep the connection open (CLIProxyAPI 417). Usage
may be missing. Which of several ways a failure takes is drawn with the request.
"""

from __future__ import annotations

import json
import time
from typing import Any

from lmsyz.sandbox.doors import Answered, Asked, key_of, model_behind
from lmsyz.sandbox.wire import ApiError, JsonObject

__all__ = ["OpenRouterChat"]

HOST = "Sandbox"
# Of OpenRouter's own, which no host behind it sees.
OWN_FIELDS = ("provider", "models", "route", "transforms", "plugins", "reasoning", "usage")
NO_HOST = "No endpoints found that can handle the requested parameters."
BLANK = "\n         \n"
COMMENT = ": OPENROUTER PROCESSING\n\n"


def error(status: int, message: str, metadata: JsonObject | None = None) -> ApiError:
    """Return an error in OpenRouter's shape."""
    said: JsonObject = {"code": status, "message": message}
    return ApiError(status, {"error": said | ({"metadata": metadata} if metadata else {})})


class OpenRouterChat:
    """OpenRouter's chat completions."""

    label = "openrouter"
    routes: tuple[str, ...] = ("/openrouter/api/v1/chat/completions",)
    endpoint = "chat"

    def enter(self, asked: Asked) -> tuple[JsonObject, dict[str, str]]:
        """Check the key, and take the vendor off the model."""
        if not key_of(asked.headers):
            raise error(401, "No auth credentials found")
        name = str(asked.body.get("model") or "")
        model = model_behind(name.rpartition("/")[2])
        if not model:
            raise error(400, f"{name} is not a valid model ID")
        body = {k: v for k, v in asked.body.items() if k not in OWN_FIELDS}
        return {**body, "model": model}, {"authorization": "Bearer openrouter"}

    def leave(self, asked: Asked, answered: Answered) -> Answered:
        """Return the answer as a host's, or the error in one of the places where errors stand."""
        headers = {k: v for k, v in answered.headers.items() if not k.startswith("x-ratelimit")}
        if answered.status == 200:
            before = BLANK + (COMMENT if answered.way % 4 == 1 else "")
            return Answered(status=200, body=_as_hosted(asked, answered), headers=headers, before=before)
        status, body = _failed(asked, answered)
        return Answered(status=status, body=body, headers=headers, before=BLANK if status == 200 else "")


def _as_hosted(asked: Asked, answered: Answered) -> JsonObject:
    body = dict(answered.body)
    body["choices"] = [{**c, "native_finish_reason": _native(c.get("finish_reason"))} for c in body["choices"]]
    body["usage"] = {**body["usage"], "cost": 0.0, "is_byok": False}
    if answered.way % 4 == 2:
        del body["usage"]
    return body | {"provider": HOST, "model": asked.body["model"]}


def _native(reason: Any) -> str:
    return {"length": "MAX_TOKENS", "content_filter": "SAFETY"}.get(str(reason), "STOP")


def _failed(asked: Asked, answered: Answered) -> tuple[int, JsonObject]:
    status, said = answered.status, answered.error
    code = said.get("code")
    if code == "insufficient_quota":
        return _told(402, "Insufficient credits. Add more and try again.", {"limit_source": "openrouter_credits"})
    if code == "invalid_prompt":
        found = {"reasons": ["violence"], "flagged_input": "…", "provider_name": HOST, "model_slug": "sandbox-rules"}
        return _told(403, f"{asked.body['model']} requires moderation on {HOST}.", found)
    if status == 429:
        return _too_many(answered)
    if status >= 500:
        return _host_failed(asked, answered)
    if said.get("param") in ("response_format", "tools"):
        return _told(404, NO_HOST)
    return _told(status, "Provider returned error", {"raw": json.dumps({"error": said}), "provider_name": HOST})


def _told(status: int, message: str, metadata: JsonObject | None = None) -> tuple[int, JsonObject]:
    refused = error(status, message, metadata)
    return refused.status, refused.body


def _too_many(answered: Answered) -> tuple[int, JsonObject]:
    """Return a 429 of the host, one of OpenRouter's own, or its 402 that passes."""
    wait_s = float(answered.headers.get("retry-after", "1"))
    way = answered.way % 3
    if way == 0:
        raw = "sandbox-rules is temporarily rate-limited upstream. Please retry shortly."
        return _told(429, "Provider returned error", {"raw": raw, "provider_name": HOST})
    if way == 1:
        reset = str(int((time.time() + wait_s) * 1000))
        headers = {"X-RateLimit-Limit": "20", "X-RateLimit-Remaining": "0", "X-RateLimit-Reset": reset}
        return _told(429, "Rate limit exceeded: free-models-per-min.", {"headers": headers, "provider_name": None})
    busy = "Requests under way already fill this account's in-flight spending budget."
    return _told(402, busy, {"limit_source": "openrouter_in_flight_budget"})


def _host_failed(asked: Asked, answered: Answered) -> tuple[int, JsonObject]:
    """Return a host's failure: as a status, as a 200 with nothing but an error, or as a choice that broke off."""
    if answered.status == 503:
        return _told(503, "There is no available model provider that meets your routing requirements.")
    _, body = _told(502, "Provider returned error", {"raw": json.dumps(answered.body), "provider_name": HOST})
    if answered.way % 3 == 0:
        return 502, body
    if answered.way % 3 == 1:
        return 200, body
    choice = {
        "index": 0,
        "finish_reason": "error",
        "native_finish_reason": None,
        "message": {"role": "assistant", "content": '{"all_results":[{"input_id":'},
        "error": body["error"],
    }
    return 200, {"id": "gen-sandbox", "object": "chat.completion", "model": asked.body["model"], "choices": [choice]}
