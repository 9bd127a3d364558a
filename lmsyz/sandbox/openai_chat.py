"""OpenAI's ``POST /v1/chat/completions``: what it takes, what it refuses, what it answers."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any

from lmsyz.sandbox import openai_common as common
from lmsyz.sandbox.faults import Draws
from lmsyz.sandbox.images import openai_pictures, tokens_of_pictures
from lmsyz.sandbox.openai_shapes import CHAT_BODY
from lmsyz.sandbox.strict import draft_fault, openai_fault
from lmsyz.sandbox.wire import THINKING_TOKENS, ApiError, Ask, JsonObject, LimitState, Model, Outcome, tokens_of

__all__ = ["OpenAIChat"]

NOT_READ = ("audio", "function_call", "functions", "prediction", "web_search_options", "moderation")
SAMPLING = ("stop", "top_p", "frequency_penalty", "presence_penalty", "logit_bias", "logprobs", "top_logprobs")


class OpenAIChat:
    """The chat completions endpoint."""

    label = "chat"
    path = "/v1/chat/completions"

    def authorise(self, headers: Mapping[str, str]) -> None:
        """Raise the 401 that a missing or wrong key gets."""
        common.check_key(headers)

    def read(self, raw: bytes, headers: Mapping[str, str]) -> Ask:
        """Read and check a body."""
        body = common.body_of(raw)
        unknown = [k for k in body if k not in CHAT_BODY.fields]
        if unknown:
            plural = "s" if len(unknown) > 1 else ""
            raise common.error(400, f"Unrecognized request argument{plural} supplied: {', '.join(unknown)}")
        common.check_body(body, CHAT_BODY)
        model = common.model_of(body)
        _check_support(body)
        if model.reasoning:
            _check_reasoning(body, model)
        seen = openai_pictures(body["messages"], "messages")
        system, user, said = _texts(body["messages"])
        form, schema, tool = _form_of(body, said)
        output = body.get("max_completion_tokens") or body.get("max_tokens")
        stops = body.get("stop") or ()
        return Ask(
            body=body,
            model=model,
            system=system,
            user=user,
            form=form,
            schema=schema,
            tool=tool,
            max_tokens=output,
            thinking_tokens=THINKING_TOKENS if model.reasoning and body.get("reasoning_effort") != "none" else 0,
            input_tokens=tokens_of(said)
            + tokens_of_pictures(seen)
            + 4 * len(body["messages"])
            + common.extra_tokens(body, "response_format", "tools"),
            cacheable=common.cacheable(model, system),
            stop_sequences=(stops,) if isinstance(stops, str) else tuple(stops),
            seen=seen,
        )

    def reply(self, ask: Ask, outcome: Outcome, draws: Draws) -> JsonObject:
        """Return a chat completion."""
        choice = {
            "index": 0,
            "message": _message(outcome, draws),
            "logprobs": None,
            "finish_reason": _finish(ask, outcome),
        }
        return {
            "id": f"chatcmpl-sandbox{draws.tag}",
            "object": "chat.completion",
            "created": int(time.time()),
            "model": ask.model.id,
            "choices": [choice | {"index": i} for i in range(ask.body.get("n") or 1)],
            "usage": _usage(ask, outcome),
            "service_tier": "default",
            "system_fingerprint": "sandbox-rules",
        }

    def failure(self, kind: str, message: str = "", *, retry_after_s: float | None = None) -> ApiError:
        """Return the error for what can happen to any request."""
        return common.failure(kind, message, retry_after_s=retry_after_s)

    def too_long(self, size: int, limit: int) -> ApiError:
        """Return the 400 of a request over the context window."""
        message = (
            f"This model's maximum context length is {limit} tokens. However, your messages resulted in {size} tokens."
            " Please reduce the length of the messages."
        )
        return common.error(400, message, param="messages", code="context_length_exceeded")

    def refuse_form(self, form: str) -> ApiError:
        """Return the 400 of a model that does not know a way of asking for structured output."""
        if form == "tool":
            return common.error(
                400, "tools is not supported in this model.", param="tools", code="unsupported_parameter"
            )
        message = f"Invalid parameter: 'response_format' of type '{form}' is not supported with this model."
        return common.error(400, message, param="response_format")

    def headers(self, request_id: str, limits: LimitState) -> dict[str, str]:
        """Return the headers of every answer."""
        return common.headers(request_id, limits)


def _check_support(body: JsonObject) -> None:
    """Refuse what the API knows and the sandbox does not do, rather than ignore it."""
    if body.get("stream"):
        raise common.no_streaming()
    for name in NOT_READ:
        if body.get(name) is not None:
            raise common.error(400, f"The sandbox does not support '{name}'.", param=name, code="unsupported_parameter")
    for i, message in enumerate(body["messages"]):
        for j, part in enumerate(message["content"] if isinstance(message.get("content"), list) else ()):
            if part["type"] not in ("text", "refusal", "image_url"):
                said = f"Invalid content type. {part['type']} is not supported by the sandbox."
                raise common.error(400, said, param=f"messages[{i}].content[{j}].type", code="invalid_value")
    if body.get("max_tokens") is not None and body.get("max_completion_tokens") is not None:
        said = "Setting 'max_tokens' and 'max_completion_tokens' at the same time is not supported."
        raise common.error(400, said, param="max_tokens", code="invalid_value")


def _check_reasoning(body: JsonObject, model: Model) -> None:
    if body.get("max_tokens") is not None:
        raise common.unsupported(model, "max_tokens", "Use 'max_completion_tokens' instead.")
    common.check_temperature(body)
    for name in SAMPLING:
        if body.get(name) not in (None, False):
            raise common.unsupported(model, name)


def _texts(messages: list[JsonObject]) -> tuple[str, str, str]:
    """Return the system messages' text, the last user message's, and all text there is."""
    texts = [(m["role"], common.text_in(m.get("content"))) for m in messages]
    system = "\n\n".join(t for role, t in texts if role in ("system", "developer"))
    user = next((t for role, t in reversed(texts) if role == "user"), "")
    return system, user, "\n".join(t for _, t in texts)


def _form_of(body: JsonObject, said: str) -> tuple[str, Mapping[str, Any] | None, str]:
    """Return the way structured output is asked for, its schema, and the tool to call."""
    tool = _tool_of(body)
    form = body.get("response_format") or {"type": "text"}
    if form["type"] == "json_object" and "json" not in said.lower():
        message = (
            "'messages' must contain the word 'json' in some form, to use 'response_format' of type 'json_object'."
        )
        raise common.error(400, message, param="messages")
    if form["type"] == "json_schema":
        wanted = form["json_schema"]
        schema = wanted.get("schema")
        fault = openai_fault(schema) if wanted.get("strict") else draft_fault(schema or {})
        if fault is not None:
            raise common.error(
                400, f"Invalid schema for response_format '{wanted['name']}': {fault}", param="response_format"
            )
        if tool is None or body.get("tool_choice", "auto") == "auto":
            return "json_schema", schema, ""
    if tool is not None:
        return "tool", tool.get("parameters") or {"type": "object", "properties": {}}, tool["name"]
    return form["type"], None, ""


def _tool_of(body: JsonObject) -> JsonObject | None:
    """Return the function that will be called: the one named, else the first, None where none may be."""
    functions = [t["function"] for t in body.get("tools") or [] if t["type"] == "function"]
    for i, function in enumerate(functions):
        schema = function.get("parameters") or {}
        fault = openai_fault(schema) if function.get("strict") else draft_fault(schema)
        if fault is not None:
            message = f"Invalid schema for function '{function['name']}': {fault}"
            param = f"tools[{i}].function.parameters"
            raise common.error(400, message, param=param, code="invalid_function_parameters")
    choice = body.get("tool_choice", "auto" if functions else "none")
    if choice not in ("none", "auto") and not functions:
        message = "'tool_choice' is only allowed when 'tools' are specified."
        raise common.error(400, message, param="tool_choice")
    if isinstance(choice, dict) and choice["type"] == "function":
        name = choice["function"]["name"]
        named = next((f for f in functions if f["name"] == name), None)
        if named is None:
            raise common.error(400, f"Tool choice '{name}' not found in 'tools' parameter.", param="tool_choice")
        return dict(named)
    return dict(functions[0]) if functions and choice != "none" else None


def _message(outcome: Outcome, draws: Draws) -> JsonObject:
    message: JsonObject = {"role": "assistant", "content": outcome.text, "refusal": None, "annotations": []}
    if outcome.stop == "refused":
        return message | {"content": None, "refusal": outcome.refusal}
    if outcome.tool:
        function = {"name": outcome.tool, "arguments": outcome.text}
        call = {"id": f"call_sandbox{draws.tag}", "type": "function", "function": function}
        return message | {"content": None, "tool_calls": [call]}
    return message


def _finish(ask: Ask, outcome: Outcome) -> str:
    if outcome.stop in ("length", "filtered"):
        return {"length": "length", "filtered": "content_filter"}[outcome.stop]
    # A call that was forced by name ends with "stop"; only one that the model chose ends with "tool_calls".
    chosen = outcome.tool and not isinstance(ask.body.get("tool_choice"), dict)
    return "tool_calls" if chosen else "stop"


def _usage(ask: Ask, outcome: Outcome) -> JsonObject:
    given, written = common.usage_details(outcome)
    return {
        "prompt_tokens": ask.input_tokens,
        "completion_tokens": outcome.output_tokens,
        "total_tokens": ask.input_tokens + outcome.output_tokens,
        "prompt_tokens_details": given | {"audio_tokens": 0},
        "completion_tokens_details": written
        | {"audio_tokens": 0, "accepted_prediction_tokens": 0, "rejected_prediction_tokens": 0},
    }
