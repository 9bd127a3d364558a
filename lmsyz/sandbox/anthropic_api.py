"""Anthropic's ``POST /v1/messages`` and ``/v1/messages/count_tokens``: what they take, refuse and answer."""

from __future__ import annotations

import datetime
import hashlib
import json
from collections.abc import Mapping
from typing import Any

from lmsyz.sandbox import anthropic_common as common
from lmsyz.sandbox.anthropic_shapes import BODY, COUNT_BODY
from lmsyz.sandbox.faults import Draws
from lmsyz.sandbox.images import anthropic_pictures, tokens_of_pictures
from lmsyz.sandbox.shapes import Shape
from lmsyz.sandbox.strict import anthropic_fault, draft_fault
from lmsyz.sandbox.wire import (
    MAX_OUTPUT_TOKENS,
    THINKING_TOKENS,
    ApiError,
    Ask,
    JsonObject,
    LimitState,
    Model,
    Outcome,
    tokens_of,
)

__all__ = ["AnthropicMessages"]

CACHE_MIN_TOKENS = 1024


class AnthropicMessages:
    """The messages endpoint."""

    label = "messages"
    path = "/v1/messages"

    def authorise(self, headers: Mapping[str, str]) -> None:
        """Raise the 401 of a missing or wrong key, or the 400 of a missing or unknown version.

        The key may come as ``x-api-key`` or as a bearer token. A wrong key is one that contains ``invalid``.
        """
        common.check_key(headers)

    def read(self, raw: bytes, headers: Mapping[str, str]) -> Ask:
        """Read and check a body."""
        return self._read(raw, headers, BODY)

    def count(self, raw: bytes, headers: Mapping[str, str]) -> JsonObject:
        """Return the answer of count_tokens."""
        return {"input_tokens": self._read(raw, headers, COUNT_BODY).input_tokens}

    def _read(self, raw: bytes, headers: Mapping[str, str], shape: Shape) -> Ask:
        body = common.body_of(raw)
        common.check_sampling(body, headers)
        common.check_body(body, shape)
        model = common.model_of(body)
        _check_support(body)
        _check_messages(body, model)
        seen = anthropic_pictures(body["messages"])
        system = common.text_in(body.get("system"))
        user = next((common.text_in(m["content"]) for m in reversed(body["messages"]) if m["role"] == "user"), "")
        form, schema, tool = _form_of(body, model)
        last = body["messages"][-1]
        return Ask(
            body=body,
            model=model,
            system="\n\n".join(
                [system, *(common.text_in(m["content"]) for m in body["messages"] if m["role"] == "system")]
            ),
            user=user,
            form=form,
            schema=schema,
            tool=tool,
            max_tokens=body.get("max_tokens"),
            thinking_tokens=THINKING_TOKENS if _thinks(body, model) else 0,
            input_tokens=_input_tokens(body, system) + tokens_of_pictures(seen),
            cacheable=_cacheable(body, model),
            stop_sequences=tuple(body.get("stop_sequences") or ()),
            prefill=common.text_in(last["content"]).rstrip() if last["role"] == "assistant" else "",
            seen=seen,
        )

    def reply(self, ask: Ask, outcome: Outcome, draws: Draws) -> JsonObject:
        """Return a message."""
        reasons = {"stop": "end_turn", "length": "max_tokens", "filtered": "refusal", "refused": "refusal"}
        reason = "tool_use" if outcome.tool and outcome.stop == "stop" else reasons.get(outcome.stop, outcome.stop)
        details = None
        if reason == "refusal":
            details = {"type": "refusal", "category": None, "explanation": outcome.refusal}
        return {
            "id": f"msg_sandbox{draws.tag}",
            "type": "message",
            "role": "assistant",
            "model": ask.model.id,
            "content": _content(outcome, draws),
            "stop_reason": reason,
            "stop_sequence": outcome.stop_sequence or None,
            "stop_details": details,
            "usage": _usage(ask, outcome),
        }

    def failure(self, kind: str, message: str = "", *, retry_after_s: float | None = None) -> ApiError:
        """Return the error for what can happen to any request."""
        headers = {} if retry_after_s is None else {"retry-after": f"{retry_after_s:g}"}
        if kind in ("requests", "tokens"):
            unit = "requests" if kind == "requests" else "tokens"
            said = message or f"This request would exceed your organization's rate limit of {unit} per minute."
            return common.error(429, said, headers=headers)
        if kind == "out_of_quota":
            said = "Your organization has reached its enforced spend limit for this month."
            return common.error(429, said, code="enforced_spend_limit_reached")
        if kind == "overloaded":
            return common.error(529, "Overloaded", headers=headers)
        if kind == "timeout":
            return common.error(504, "The gateway did not get an answer in time.")
        if kind == "batch_errors":
            return common.error(400, "The sandbox fails this request, as its faults ask it to.")
        if kind == "blocked":
            return common.error(400, "Output blocked by content filtering policy")
        if kind == "nested":
            return common.error(400, "The request body is nested too deeply.")
        return common.error(500, "Internal server error")

    def too_long(self, size: int, limit: int) -> ApiError:
        """Return the 400 of a request over the context window."""
        return common.error(400, f"prompt is too long: {size} tokens > {limit} maximum")

    def refuse_form(self, form: str) -> ApiError:
        """Return the 400 of a model that does not know a way of asking for structured output."""
        if form == "tool":
            return common.error(400, "tool_choice: this model does not support tool use")
        return common.error(400, "output_config.format: structured outputs are not supported by this model")

    def headers(self, request_id: str, limits: LimitState) -> dict[str, str]:
        """Return the headers of every answer."""
        found = {"request-id": request_id, "anthropic-organization-id": "sandbox"}
        now = datetime.datetime.now(datetime.UTC)
        tokens = limits.tokens
        shown = (("requests", limits.requests), ("tokens", tokens), ("input-tokens", tokens), ("output-tokens", tokens))
        for name, (limit, remaining, reset_s) in shown:
            found[f"anthropic-ratelimit-{name}-limit"] = str(limit)
            found[f"anthropic-ratelimit-{name}-remaining"] = str(remaining)
            reset = now + datetime.timedelta(seconds=reset_s)
            found[f"anthropic-ratelimit-{name}-reset"] = reset.strftime("%Y-%m-%dT%H:%M:%SZ")
        return found


def _check_support(body: JsonObject) -> None:
    """Refuse what the API knows and the sandbox does not do, rather than ignore it."""
    if body.get("stream"):
        raise common.error(400, "stream: the sandbox does not stream; send stream=false")
    if body.get("container") is not None:
        raise common.error(400, "container: the sandbox has no containers")
    if body.get("max_tokens") is not None and body["max_tokens"] > MAX_OUTPUT_TOKENS:
        said = f"max_tokens: {body['max_tokens']} > {MAX_OUTPUT_TOKENS}, the maximum allowed number of output tokens"
        raise common.error(400, said)
    for i, message in enumerate(body["messages"]):
        for j, block in enumerate(message["content"] if isinstance(message["content"], list) else ()):
            if block["type"] in ("document", "search_result", "container_upload"):
                raise common.error(
                    400, f"messages.{i}.content.{j}: the sandbox reads text and images, not {block['type']}"
                )
            if block["type"] == "text" and not block["text"].strip():
                raise common.error(400, "messages: text content blocks must be non-empty")


def _check_messages(body: JsonObject, model: Model) -> None:
    messages = body["messages"]
    last = len(messages) - 1
    for i, message in enumerate(messages):
        if not message["content"] and not (i == last and message["role"] == "assistant"):
            said = "all messages must have non-empty content except for the optional final assistant message"
            raise common.error(400, f"messages.{i}: {said}")
    if messages[last]["role"] == "assistant" and model.reasoning:
        said = "This model does not support assistant message prefill. The conversation must end with a user message."
        raise common.error(400, said)
    if messages[last]["role"] == "assistant" and common.text_in(messages[last]["content"]).endswith((" ", "\n", "\t")):
        raise common.error(400, "messages: final assistant content cannot end with trailing whitespace")


def _form_of(body: JsonObject, model: Model) -> tuple[str, Mapping[str, Any] | None, str]:
    """Return the way structured output is asked for, its schema, and the tool to call."""
    tool = _tool_of(body, model)
    wanted = (body.get("output_config") or {}).get("format")
    if wanted is not None:
        fault = anthropic_fault(wanted["schema"])
        if fault is not None:
            raise common.error(400, f"output_config.format.schema: {fault}")
        if tool is None or (body.get("tool_choice") or {}).get("type", "auto") == "auto":
            return "json_schema", wanted["schema"], ""
    if tool is not None:
        return "tool", tool["input_schema"], tool["name"]
    return "text", None, ""


def _tool_of(body: JsonObject, model: Model) -> JsonObject | None:
    tools = body.get("tools") or []
    for i, tool in enumerate(tools):
        if tool.get("type") not in (None, "custom"):
            raise common.error(400, f"tools.{i}: the sandbox has no server tools, only your own")
        schema = tool["input_schema"]
        fault = anthropic_fault(schema) if tool.get("strict") else draft_fault(schema)
        if fault is None and schema.get("type") != "object":
            fault = "input_schema.type: Input should be 'object'"
        if fault is not None:
            raise common.error(400, f"tools.{i}.custom.input_schema: {fault}")
    choice = body.get("tool_choice") or {"type": "auto" if tools else "none"}
    if choice["type"] in ("any", "tool") and model.reasoning:
        said = (
            f"tool_choice: type {choice['type']!r} is not supported by this model; use output_config.format or 'auto'"
        )
        raise common.error(400, said)
    if choice["type"] in ("any", "tool") and not tools:
        raise common.error(400, "tool_choice: tool_choice may only be specified while providing tools")
    if choice["type"] == "tool":
        named = next((t for t in tools if t["name"] == choice["name"]), None)
        if named is None:
            raise common.error(400, f"tool_choice.name: Tool '{choice['name']}' not found in provided tools")
        return dict(named)
    return dict(tools[0]) if tools and choice["type"] != "none" else None


def _thinks(body: JsonObject, model: Model) -> bool:
    kind = (body.get("thinking") or {}).get("type")
    return kind in ("enabled", "adaptive") or (model.reasoning and kind != "disabled")


def _input_tokens(body: JsonObject, system: str) -> int:
    said = sum(tokens_of(common.text_in(m["content"])) + 4 for m in body["messages"])
    shown = [body[n] for n in ("tools", "output_config") if body.get(n)]
    return tokens_of(system) + said + sum(tokens_of(json.dumps(s)) for s in shown)


def _cacheable(body: JsonObject, model: Model) -> tuple[str, int] | None:
    """Return key and size of the system blocks up to the last one that is marked, if that is long enough."""
    blocks = body["system"] if isinstance(body.get("system"), list) else []
    marked = [i for i, b in enumerate(blocks) if b.get("cache_control")]
    if not marked:
        return None
    text = "".join(b["text"] for b in blocks[: marked[-1] + 1])
    size = tokens_of(text)
    if size < CACHE_MIN_TOKENS:
        return None
    return hashlib.sha256(f"{model.id}\0{text}".encode("utf-8", "surrogatepass")).hexdigest(), size


def _content(outcome: Outcome, draws: Draws) -> list[JsonObject]:
    blocks: list[JsonObject] = []
    if outcome.thinking_tokens:
        blocks.append({"type": "thinking", "thinking": "", "signature": f"sandbox{draws.tag}"})
    if outcome.stop in ("refused", "filtered"):
        return []
    if outcome.tool:
        call = {
            "type": "tool_use",
            "id": f"toolu_sandbox{draws.tag}",
            "name": outcome.tool,
            "input": outcome.value or {},
        }
        return [*blocks, call]
    return [*blocks, {"type": "text", "text": outcome.text, "citations": None}] if outcome.text else blocks


def _usage(ask: Ask, outcome: Outcome) -> JsonObject:
    cached = outcome.cached_tokens + outcome.cache_write_tokens
    return {
        "input_tokens": ask.input_tokens - cached,
        "cache_creation_input_tokens": outcome.cache_write_tokens,
        "cache_read_input_tokens": outcome.cached_tokens,
        "cache_creation": {"ephemeral_5m_input_tokens": outcome.cache_write_tokens, "ephemeral_1h_input_tokens": 0},
        "output_tokens": outcome.output_tokens,
        "output_tokens_details": {"thinking_tokens": outcome.thinking_tokens},
        "service_tier": "standard",
        "inference_geo": "local",
    }
