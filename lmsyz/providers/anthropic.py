"""Anthropic's wire: the Messages API."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from lmsyz.errors import (
    ProviderError,
    RejectedError,
    RequestError,
    TooLongError,
    UnsupportedFormError,
)
from lmsyz.providers.base import (
    Call,
    Form,
    JsonObject,
    Raw,
    Reply,
    Stop,
    Usage,
    as_int,
    body_options,
    is_connection_fault,
    loads_reply,
    no_reply,
    plain_status_error,
    read_body,
    sdk_error_facts,
)
from lmsyz.providers.models import Quirks
from lmsyz.schema_render import render
from lmsyz.task import Task

__all__ = ["AnthropicProvider"]

NAME = "anthropic"
TOOL_NAME = "rows"
STOPS = {
    "end_turn": Stop.COMPLETE,
    "stop_sequence": Stop.COMPLETE,
    "tool_use": Stop.COMPLETE,
    "max_tokens": Stop.TRUNCATED,
    "model_context_window_exceeded": Stop.TRUNCATED,
    "refusal": Stop.REFUSED,
}
SPEND_LIMITS = ("enforced_spend_limit", "contract_spend_limit", "spend_limit_reached")
FORM_WORDS = (
    "output_config",
    "output_format",
    "tool_choice",
    "grammar",
    "input_schema",
    "tools.",
    "structured output",
)
STATUS_OF_TYPE = {
    "invalid_request_error": 400,
    "authentication_error": 401,
    "billing_error": 402,
    "permission_error": 403,
    "not_found_error": 404,
    "request_too_large": 413,
    "rate_limit_error": 429,
    "api_error": 500,
    "timeout_error": 504,
    "overloaded_error": 529,
}


class AnthropicProvider:
    """Anthropic through the official SDK's plain ``post``.

    Parameters
    ----------
    client : anthropic.Anthropic
        A client whose own retries are off.
    quirks : Quirks
        What is peculiar to the model.
    """

    name = NAME

    def __init__(self, client: Any, *, quirks: Quirks | None = None) -> None:
        self.client = client
        self.quirks = quirks or Quirks()

    def forms(self, task: Task) -> tuple[Form, ...]:
        """Return the ways to ask for structured output, best first."""
        if not task.schema:
            return (Form.TEXT,)
        forms = (
            Form.SCHEMA if self.quirks.schema else None,
            Form.TOOL if self.quirks.forced_tool else None,
            Form.TEXT,
        )
        return tuple(f for f in forms if f)

    def build(self, task: Task, user: str, form: Form) -> JsonObject:
        """Return the request body for one user message."""
        system: JsonObject = {"type": "text", "text": task.system}
        if self.quirks.prompt_cache:
            # On the system block alone: marked at the top, the cache would be written anew for every chunk.
            system["cache_control"] = {"type": "ephemeral"}
        options = body_options(task.options)
        body: JsonObject = {
            "model": task.model,
            "max_tokens": options.pop("max_tokens", self.quirks.max_tokens),
            "system": [system],
            "messages": [{"role": "user", "content": user}],
        }
        if form is Form.SCHEMA:
            wanted = {"type": "json_schema", "schema": self._envelope(task)}
            body["output_config"] = {"format": wanted} | (options.pop("output_config", None) or {})
        elif form is Form.TOOL:
            tool = {"name": TOOL_NAME, "description": "Give the results for all rows."}
            body["tools"] = [tool | {"input_schema": self._envelope(task)}]
            body["tool_choice"] = {"type": "tool", "name": TOOL_NAME}
        return body | options

    def parse(self, text: str) -> Reply:
        """Read a reply body."""
        payload = loads_reply(NAME, text)
        error = payload.get("error")
        if isinstance(error, dict):
            raise error_of(STATUS_OF_TYPE.get(str(error.get("type"))), error, {})
        content = payload.get("content")
        if not isinstance(content, list):
            raise no_reply(NAME, text)
        blocks = [b for b in content if isinstance(b, dict)]
        reason = payload.get("stop_reason")
        details = payload.get("stop_details")
        details = details if isinstance(details, dict) else {}
        # pause_turn and reasons still to come leave a reply that is held against its rows like any other.
        return Reply(
            text=_text_of(blocks),
            stop=STOPS.get(str(reason), Stop.COMPLETE),
            detail=str(details.get("explanation") or details.get("category") or ""),
            model=str(payload.get("model") or ""),
            usage=_usage(payload.get("usage")),
        )

    def send(self, body: JsonObject, call: Call) -> Raw:
        """Send one body once."""
        import anthropic
        import httpx2

        options: Any = {"headers": call.headers, "params": call.query, "timeout": call.deadline_s}

        def post() -> Any:
            return self.client.post(
                "/v1/messages",
                cast_to=httpx2.Response,
                body=body,
                options=options,
                stream=True,
                stream_cls=anthropic.Stream,
            )

        try:
            return read_body(NAME, post, deadline_s=call.deadline_s)
        except anthropic.AnthropicError as error:
            status, detail, headers = sdk_error_facts(error)
            if status is None and not is_connection_fault(error):
                raise RejectedError(f"the {NAME} client refused the call: {error}", provider=NAME) from error
            raise error_of(status, detail or {"message": str(error)}, headers) from error
        except TypeError as error:
            # The SDK finds a missing key only now, and says so with a TypeError.
            if "authentication" not in str(error):
                raise
            raise RejectedError(f"the {NAME} client has no key: {error}", provider=NAME) from error
        except (httpx2.HTTPError, httpx2.StreamError) as error:
            raise error_of(None, {"message": f"the connection broke: {error}"}, {}) from error

    def _envelope(self, task: Task) -> JsonObject:
        return render(task.schema, "anthropic", verify=task.verify)


def _text_of(blocks: list[JsonObject]) -> str:
    """Return a tool's input as JSON text, or else the text blocks; thinking blocks come before either."""
    for block in blocks:
        if block.get("type") == "tool_use" and block.get("name") == TOOL_NAME:
            return json.dumps(block.get("input"), ensure_ascii=False)
    return "".join(str(b.get("text") or "") for b in blocks if b.get("type") == "text")


def _usage(usage: object) -> Usage:
    if not isinstance(usage, dict):
        return Usage()
    plain = as_int(usage.get("input_tokens"))
    read = as_int(usage.get("cache_read_input_tokens"))
    written = as_int(usage.get("cache_creation_input_tokens"))
    details = usage.get("output_tokens_details")
    return Usage(
        # Anthropic counts cached input apart; OpenAI, and we, count it in.
        input_tokens=None if plain is None else plain + (read or 0) + (written or 0),
        output_tokens=as_int(usage.get("output_tokens")),
        cached_tokens=read,
        cache_write_tokens=written,
        reasoning_tokens=as_int(details.get("thinking_tokens")) if isinstance(details, dict) else None,
    )


def error_of(status: int | None, error: Mapping[str, Any], headers: Mapping[str, str]) -> ProviderError:
    """Return our error for what the API said.

    Parameters
    ----------
    status : int or None
        HTTP status; None where there was no answer.
    error : mapping
        The API's error object: ``type`` and ``message``.
    headers : mapping
        Response headers with lower-case names.
    """
    code = str(error.get("error_code") or error.get("type") or "")
    words = str(error.get("message") or f"status {status}")[:500]
    message = f"{NAME} answered {status}: {words}" if status else f"{NAME}: {words}"
    facts: dict[str, Any] = {
        "provider": NAME,
        "status": status,
        "code": code,
        "request_id": headers.get("request-id", ""),
    }
    lowered = words.lower()
    if status == 429 and any(s in code or s.replace("_", " ") in lowered for s in SPEND_LIMITS):
        return RejectedError(f"{message} (a spend limit: waiting will not help)", **facts)
    plain = plain_status_error(NAME, status, message, code, headers)
    if plain is not None:
        return plain
    if "prompt is too long" in lowered or "context window" in lowered or "exceed context limit" in lowered:
        return TooLongError(message, **facts)
    if any(word in lowered for word in FORM_WORDS):
        return UnsupportedFormError(message, **facts)
    if "temperature" in lowered or "top_p" in lowered or "top_k" in lowered:
        return RejectedError(f"{message} (leave sampling options out of this call)", **facts)
    if status == 404 or "credit balance" in lowered or "extra inputs" in lowered or "max_tokens" in lowered:
        return RejectedError(message, **facts)
    return RequestError(message, **facts)
