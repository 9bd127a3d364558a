"""OpenAI's ``POST /v1/responses``: what it takes, what it refuses, what it answers."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any

from lmsyz.sandbox import openai_common as common
from lmsyz.sandbox.faults import Draws
from lmsyz.sandbox.images import openai_pictures, tokens_of_pictures
from lmsyz.sandbox.openai_shapes import RESPONSES_BODY
from lmsyz.sandbox.strict import draft_fault, openai_fault
from lmsyz.sandbox.wire import THINKING_TOKENS, ApiError, Ask, JsonObject, LimitState, Outcome, tokens_of

__all__ = ["OpenAIResponses"]

NOT_READ = ("background", "conversation", "previous_response_id", "prompt", "moderation")


class OpenAIResponses:
    """The responses endpoint."""

    label = "responses"
    path = "/v1/responses"

    def authorise(self, headers: Mapping[str, str]) -> None:
        """Raise the 401 that a missing or wrong key gets."""
        common.check_key(headers)

    def read(self, raw: bytes, headers: Mapping[str, str]) -> Ask:
        """Read and check a body."""
        body = common.body_of(raw)
        common.check_body(body, RESPONSES_BODY)
        model = common.model_of(body)
        _check_support(body)
        if model.reasoning:
            common.check_temperature(body)
            for name in ("top_p", "top_logprobs"):
                if body.get(name) is not None:
                    raise common.unsupported(model, name)
        messages = [{"role": "user", "content": body["input"]}] if isinstance(body["input"], str) else body["input"]
        seen = openai_pictures(messages, "input")
        texts = [(m["role"], common.text_in(m["content"])) for m in messages]
        instructions = body.get("instructions") or ""
        system = "\n\n".join([instructions, *(t for role, t in texts if role in ("system", "developer"))]).strip()
        said = "\n".join(t for _, t in texts)
        form, schema, tool = _form_of(body, said)
        effort = (body.get("reasoning") or {}).get("effort")
        return Ask(
            body=body,
            model=model,
            system=system,
            user=next((t for role, t in reversed(texts) if role == "user"), ""),
            form=form,
            schema=schema,
            tool=tool,
            max_tokens=body.get("max_output_tokens"),
            thinking_tokens=THINKING_TOKENS if model.reasoning and effort != "none" else 0,
            input_tokens=tokens_of(instructions + said)
            + tokens_of_pictures(seen)
            + 4 * len(texts)
            + common.extra_tokens(body, "text", "tools"),
            cacheable=common.cacheable(model, system),
            seen=seen,
        )

    def reply(self, ask: Ask, outcome: Outcome, draws: Draws) -> JsonObject:
        """Return a response object."""
        body, now = ask.body, int(time.time())
        reasons = {"length": "max_output_tokens", "filtered": "content_filter"}
        reason = reasons.get(outcome.stop)
        status = "incomplete" if reason else "completed"
        return {
            "id": f"resp_sandbox{draws.tag}",
            "object": "response",
            "created_at": now,
            "completed_at": None if reason else now,
            "status": status,
            "background": False,
            "error": None,
            "incomplete_details": {"reason": reason} if reason else None,
            "instructions": body.get("instructions"),
            "max_output_tokens": body.get("max_output_tokens"),
            "metadata": body.get("metadata") or {},
            "model": ask.model.id,
            "output": _output(ask, outcome, draws, status),
            "parallel_tool_calls": body.get("parallel_tool_calls", True),
            "previous_response_id": None,
            "reasoning": {"effort": (body.get("reasoning") or {}).get("effort"), "summary": None},
            "service_tier": "default",
            "store": body.get("store") is not False,
            "temperature": body.get("temperature", 1.0),
            "text": {"format": {"type": "text"}} | (body.get("text") or {}),
            "tool_choice": body.get("tool_choice", "auto"),
            "tools": body.get("tools") or [],
            "top_p": body.get("top_p", 1.0),
            "truncation": body.get("truncation") or "disabled",
            "usage": _usage(ask, outcome),
            "user": body.get("user"),
        }

    def failure(self, kind: str, message: str = "", *, retry_after_s: float | None = None) -> ApiError:
        """Return the error for what can happen to any request."""
        return common.failure(kind, message, retry_after_s=retry_after_s)

    def too_long(self, size: int, limit: int) -> ApiError:
        """Return the 400 of a request over the context window."""
        message = "Your input exceeds the context window of this model. Please adjust your input and try again."
        return common.error(400, message, param="input", code="context_length_exceeded")

    def refuse_form(self, form: str) -> ApiError:
        """Return the 400 of a model that does not know a way of asking for structured output."""
        if form == "tool":
            return common.error(
                400, "tools is not supported in this model.", param="tools", code="unsupported_parameter"
            )
        message = f"Invalid parameter: 'text.format' of type '{form}' is not supported with this model."
        return common.error(400, message, param="text.format")

    def headers(self, request_id: str, limits: LimitState) -> dict[str, str]:
        """Return the headers of every answer."""
        return common.headers(request_id, limits)


def _check_support(body: JsonObject) -> None:
    """Refuse what the API knows and the sandbox does not do, rather than ignore it."""
    if body.get("stream"):
        raise common.no_streaming()
    for name in NOT_READ:
        if body.get(name):
            raise common.error(400, f"The sandbox does not support '{name}'.", param=name, code="unsupported_parameter")
    for i, message in enumerate(body["input"] if isinstance(body["input"], list) else ()):
        for j, part in enumerate(message["content"] if isinstance(message["content"], list) else ()):
            if part["type"] not in ("input_text", "output_text", "refusal", "input_image"):
                said = f"Invalid content type. {part['type']} is not supported by the sandbox."
                raise common.error(400, said, param=f"input[{i}].content[{j}].type", code="invalid_value")


def _form_of(body: JsonObject, said: str) -> tuple[str, Mapping[str, Any] | None, str]:
    """Return the way structured output is asked for, its schema, and the tool to call."""
    tool = _tool_of(body)
    form = (body.get("text") or {}).get("format") or {"type": "text"}
    if form["type"] == "json_object" and "json" not in said.lower():
        # The instructions do not count: they are no part of the input.
        message = (
            "Response input messages must contain the word 'json' in some form to use 'text.format' of type"
            " 'json_object'."
        )
        raise common.error(400, message, param="input")
    if form["type"] == "json_schema":
        # Unlike chat completions, a schema is strict here unless the request says otherwise.
        strict = form.get("strict") is not False
        fault = openai_fault(form["schema"]) if strict else draft_fault(form["schema"])
        if fault is not None:
            message = f"Invalid schema for response_format '{form['name']}': {fault}"
            raise common.error(400, message, param="text.format.schema", code="invalid_json_schema")
        if tool is None or body.get("tool_choice", "auto") == "auto":
            return "json_schema", form["schema"], ""
    if tool is not None:
        return "tool", tool["parameters"] or {"type": "object", "properties": {}}, tool["name"]
    return form["type"], None, ""


def _tool_of(body: JsonObject) -> JsonObject | None:
    tools = body.get("tools") or []
    for i, tool in enumerate(tools):
        schema = tool["parameters"] or {}
        fault = openai_fault(schema) if tool.get("strict") is not False else draft_fault(schema)
        if fault is not None:
            message = f"Invalid schema for function '{tool['name']}': {fault}"
            raise common.error(400, message, param=f"tools[{i}].parameters", code="invalid_function_parameters")
    choice = body.get("tool_choice", "auto" if tools else "none")
    if isinstance(choice, dict):
        named = next((t for t in tools if t["name"] == choice["name"]), None)
        if named is None:
            said = f"Tool choice '{choice['name']}' not found in 'tools' parameter."
            raise common.error(400, said, param="tool_choice")
        return dict(named)
    return dict(tools[0]) if tools and choice != "none" else None


def _output(ask: Ask, outcome: Outcome, draws: Draws, status: str) -> list[JsonObject]:
    output: list[JsonObject] = []
    if ask.model.reasoning and outcome.thinking_tokens:
        output.append({"id": f"rs_sandbox{draws.tag}", "type": "reasoning", "summary": []})
    if outcome.tool:
        call = {"id": f"fc_sandbox{draws.tag}", "call_id": f"call_sandbox{draws.tag}", "type": "function_call"}
        return [*output, call | {"name": outcome.tool, "arguments": outcome.text, "status": status}]
    if not outcome.text and status == "incomplete":
        return output
    part: JsonObject = {"type": "output_text", "text": outcome.text, "annotations": [], "logprobs": []}
    if outcome.stop == "refused":
        part = {"type": "refusal", "refusal": outcome.refusal}
    message = {"id": f"msg_sandbox{draws.tag}", "type": "message", "role": "assistant", "status": status}
    return [*output, message | {"content": [part]}]


def _usage(ask: Ask, outcome: Outcome) -> JsonObject:
    given, written = common.usage_details(outcome)
    return {
        "input_tokens": ask.input_tokens,
        "input_tokens_details": given,
        "output_tokens": outcome.output_tokens,
        "output_tokens_details": written,
        "total_tokens": ask.input_tokens + outcome.output_tokens,
    }
