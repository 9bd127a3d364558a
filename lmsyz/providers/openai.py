"""OpenAI's wire: Chat Completions, the Responses API by option, and whatever speaks the first of them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from lmsyz.errors import (
    BlockedError,
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

__all__ = ["OpenAIProvider"]

NAME = "openai"
SCHEMA_NAME = "rows"
PERMANENT_429 = {
    "insufficient_quota",
    "billing_hard_limit_reached",
    "billing_not_active",
    "credits_exhausted",
    "credit_balance_exhausted",
}
FORM_PARAMS = ("response_format", "text.format", "tools", "tool_choice", "json_schema")
BLOCKED_CODES = {"content_filter", "content_policy_violation", "responsibleaipolicyviolation"}
LONG_CODES = {"context_length_exceeded", "string_above_max_length", "exceed_context_size_error"}


class OpenAIProvider:
    """OpenAI and compatible endpoints through the official SDK's plain ``post``.

    Parameters
    ----------
    client : openai.OpenAI
        A client whose own retries are off.
    api : str
        ``"chat"`` or ``"responses"``.
    quirks : Quirks
        What is peculiar to the model.
    """

    name = NAME

    def __init__(self, client: Any, *, api: str = "chat", quirks: Quirks | None = None) -> None:
        self.client = client
        self.api = api
        self.quirks = quirks or Quirks()

    def forms(self, task: Task) -> tuple[Form, ...]:
        """Return the ways to ask for structured output, best first."""
        if self.api == "responses":
            return (Form.SCHEMA, Form.OBJECT, Form.TEXT) if task.schema else (Form.OBJECT, Form.TEXT)
        if task.schema and self.quirks.schema:
            return (Form.SCHEMA, Form.TOOL, Form.OBJECT, Form.TEXT)
        return (Form.OBJECT, Form.TEXT)

    def build(self, task: Task, user: str, form: Form) -> JsonObject:
        """Return the request body for one user message."""
        build = _build_responses if self.api == "responses" else _build_chat
        return build(task, user, form, self.quirks)

    def parse(self, text: str) -> Reply:
        """Read a reply body."""
        payload = loads_reply(NAME, text)
        if isinstance(payload.get("error"), dict):
            # OpenRouter and the Responses API report a failure with status 200.
            raise error_of(_status_in_body(payload["error"]), payload["error"], {})
        return (_parse_responses if self.api == "responses" else _parse_chat)(payload, text)

    def send(self, body: JsonObject, call: Call) -> Raw:
        """Send one body once."""
        import httpx2
        import openai

        path = "/responses" if self.api == "responses" else "/chat/completions"
        options: Any = {"headers": call.headers, "params": call.query, "timeout": call.deadline_s}

        def post() -> Any:
            return self.client.post(
                path,
                cast_to=httpx2.Response,
                body=body,
                options=options,
                stream=True,
                stream_cls=openai.Stream,
            )

        try:
            return read_body(NAME, post, deadline_s=call.deadline_s)
        except openai.OpenAIError as error:
            status, detail, headers = sdk_error_facts(error)
            if status is None and not is_connection_fault(error):
                raise RejectedError(f"the {NAME} client refused the call: {error}", provider=NAME) from error
            raise error_of(status, detail or {"message": str(error)}, headers) from error
        except (httpx2.HTTPError, httpx2.StreamError) as error:
            raise error_of(None, {"message": f"the connection broke: {error}"}, {}) from error


def _build_chat(task: Task, user: str, form: Form, quirks: Quirks) -> JsonObject:
    body: JsonObject = {
        "model": task.model,
        "messages": [{"role": "system", "content": task.system}, {"role": "user", "content": user}],
    }
    if form is Form.SCHEMA:
        schema = {"name": SCHEMA_NAME, "strict": True, "schema": _envelope(task)}
        body["response_format"] = {"type": "json_schema", "json_schema": schema}
    elif form is Form.TOOL:
        function = {"name": SCHEMA_NAME, "strict": True, "parameters": _envelope(task)}
        body["tools"] = [{"type": "function", "function": function}]
        body["tool_choice"] = {"type": "function", "function": {"name": SCHEMA_NAME}}
    elif form is Form.OBJECT:
        body["response_format"] = {"type": "json_object"}
    options = body_options(task.options)
    if "max_tokens" in options:
        options[quirks.max_tokens_name] = options.pop("max_tokens")
    return body | options


def _build_responses(task: Task, user: str, form: Form, _quirks: Quirks) -> JsonObject:
    # store defaults to true there, for 30 days and more; texts are not ours to leave behind.
    body: JsonObject = {"model": task.model, "instructions": task.system, "input": user, "store": False}
    options = body_options(task.options)
    text: JsonObject = {}
    if form is Form.SCHEMA:
        text["format"] = {
            "type": "json_schema",
            "name": SCHEMA_NAME,
            "strict": True,
            "schema": _envelope(task),
        }
    elif form is Form.OBJECT:
        text["format"] = {"type": "json_object"}
        # The word must stand in the input itself, not only in the instructions.
        body["input"] = [{"role": "system", "content": "Answer in JSON."}, {"role": "user", "content": user}]
    text |= options.pop("text", None) or {}
    if text:
        body["text"] = text
    for name in ("max_tokens", "max_completion_tokens"):
        if name in options:
            options["max_output_tokens"] = options.pop(name)
    if "reasoning_effort" in options:
        options["reasoning"] = {"effort": options.pop("reasoning_effort")} | (options.get("reasoning") or {})
    return body | options


def _envelope(task: Task) -> JsonObject:
    return render(task.schema, "openai", verify=task.verify)


def _parse_chat(payload: JsonObject, text: str) -> Reply:
    choices = payload.get("choices")
    choice = choices[0] if isinstance(choices, list) and choices else None
    message = choice.get("message") if isinstance(choice, dict) else None
    if not isinstance(choice, dict) or not isinstance(message, dict):
        raise no_reply(NAME, text)
    content = message.get("content")
    refusal = message.get("refusal")
    reason = choice.get("finish_reason")
    return Reply(
        text=_tool_arguments(message) or (content if isinstance(content, str) else _joined(content)),
        stop=_stop_of(reason, refused=bool(refusal)),
        detail=str(refusal or ""),
        model=str(payload.get("model") or ""),
        usage=_usage(payload.get("usage"), "prompt_tokens", "completion_tokens"),
    )


def _parse_responses(payload: JsonObject, text: str) -> Reply:
    status = payload.get("status")
    parts = _final_parts(payload.get("output"))
    refusals = [str(p.get("refusal")) for p in parts if p.get("type") == "refusal"]
    incomplete = payload.get("incomplete_details")
    reason = incomplete.get("reason") if isinstance(incomplete, dict) else None
    stop = Stop.COMPLETE
    if refusals:
        stop = Stop.REFUSED
    elif status == "incomplete":
        stop = Stop.FILTERED if reason == "content_filter" else Stop.TRUNCATED
    elif status != "completed":
        raise no_reply(NAME, text)
    return Reply(
        text="".join(str(p.get("text") or "") for p in parts if p.get("type") == "output_text"),
        stop=stop,
        detail="; ".join(refusals) or str(reason or ""),
        model=str(payload.get("model") or ""),
        usage=_usage(payload.get("usage"), "input_tokens", "output_tokens"),
    )


def _final_parts(output: object) -> list[JsonObject]:
    """Return the content of the last message that is an answer; commentary may come before it."""
    messages = [m for m in output if isinstance(m, dict)] if isinstance(output, list) else []
    answers = [m for m in messages if m.get("type") == "message" and m.get("phase") in (None, "final_answer")]
    content = answers[-1].get("content") if answers else None
    return [p for p in content if isinstance(p, dict)] if isinstance(content, list) else []


def _tool_arguments(message: JsonObject) -> str:
    calls = message.get("tool_calls")
    function = (
        calls[0].get("function") if isinstance(calls, list) and calls and isinstance(calls[0], dict) else None
    )
    arguments = function.get("arguments") if isinstance(function, dict) else None
    return arguments if isinstance(arguments, str) else ""


def _joined(content: object) -> str:
    """Return the text of a content that came as a list of parts, as some gateways send it."""
    parts = content if isinstance(content, list) else []
    return "".join(str(p.get("text") or "") for p in parts if isinstance(p, dict))


def _stop_of(reason: object, *, refused: bool) -> Stop:
    if refused:
        return Stop.REFUSED
    if reason == "length":
        return Stop.TRUNCATED
    return Stop.FILTERED if reason == "content_filter" else Stop.COMPLETE


def _usage(usage: object, input_name: str, output_name: str) -> Usage:
    if not isinstance(usage, dict):
        return Usage()
    given = usage.get(f"{input_name}_details")
    written = usage.get(f"{output_name}_details")
    given = given if isinstance(given, dict) else {}
    written = written if isinstance(written, dict) else {}
    return Usage(
        input_tokens=as_int(usage.get(input_name)),
        output_tokens=as_int(usage.get(output_name)),
        cached_tokens=as_int(given.get("cached_tokens")),
        cache_write_tokens=as_int(given.get("cache_write_tokens")),
        reasoning_tokens=as_int(written.get("reasoning_tokens")),
    )


def _status_in_body(error: JsonObject) -> int | None:
    code = error.get("code")
    if isinstance(code, int) and not isinstance(code, bool):
        return code
    if code == "rate_limit_exceeded":
        return 429
    return None if code in (None, "server_error") else 400


def error_of(status: int | None, error: Mapping[str, Any], headers: Mapping[str, str]) -> ProviderError:
    """Return our error for what the API said.

    Parameters
    ----------
    status : int or None
        HTTP status; None where there was no answer.
    error : mapping
        The API's error object: ``message``, ``type``, ``param``, ``code``.
    headers : mapping
        Response headers with lower-case names.
    """
    code = str(error.get("code") or error.get("type") or "")
    words = str(error.get("message") or f"status {status}")[:500]
    message = f"{NAME} answered {status}: {words}" if status else f"{NAME}: {words}"
    facts: dict[str, Any] = {
        "provider": NAME,
        "status": status,
        "code": code,
        "request_id": headers.get("x-request-id", ""),
    }
    if status == 429 and {code, str(error.get("type"))} & PERMANENT_429:
        return RejectedError(f"{message} (no credit: waiting will not help)", **facts)
    if status is not None and _refuses_form(status, error, words):
        return UnsupportedFormError(message, **facts)
    plain = plain_status_error(NAME, status, message, code, headers)
    if plain is not None:
        return plain
    return _client_error(status, error, code, message, facts)


def _client_error(
    status: int | None, error: Mapping[str, Any], code: str, message: str, facts: Mapping[str, Any]
) -> ProviderError:
    lowered = message.lower()
    if code.lower() in LONG_CODES or "context length" in lowered or "context size" in lowered:
        return TooLongError(message, **facts)
    if code.lower() in BLOCKED_CODES:
        return BlockedError(message, **facts)
    if status == 404 or code in (
        "unsupported_parameter",
        "unsupported_value",
        "unknown_parameter",
        "model_not_found",
    ):
        param = error.get("param")
        hint = f" (the option {param}= of this call)" if param else ""
        return RejectedError(message + hint, **facts)
    return RequestError(message, **facts)


def _refuses_form(status: int, error: Mapping[str, Any], words: str) -> bool:
    if status not in (400, 404, 422, 500, 501):
        return False
    param = str(error.get("param") or "")
    if any(param.startswith(p) for p in FORM_PARAMS):
        return True
    named = any(p in words for p in (*FORM_PARAMS, "response format", "structured output"))
    # llama-cpp-python answers 500 with a validation error in the body where it does not know json_schema.
    return named if status != 500 else named or "validation error" in words.lower()
