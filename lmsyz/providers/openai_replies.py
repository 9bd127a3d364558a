"""Reading what Chat Completions and the Responses API send back. Pure."""

from __future__ import annotations

import json

from lmsyz.alignment import read_results
from lmsyz.errors import MalformedError, UnavailableError
from lmsyz.providers.base import JsonObject, Reply, Stop, Usage, as_dict, as_int, dicts_in
from lmsyz.providers.faults import Fault, error_object, hide_keys, no_reply
from lmsyz.providers.openai_faults import error_of, status_in_body

__all__ = ["parse_chat", "parse_responses"]

NAME = "openai"
# "length" is OpenAI's word; Mistral and some gateways pass on others.
TRUNCATED = ("length", "max_tokens", "model_length", "max_output_tokens")
# Gemini's endpoint passes on Google's own words for a filter, in capitals and with no text beside them (public threads:
# HKUDS/Vibe-Trading 308, NousResearch/hermes-agent 53610).
FILTERED = ("safety", "recitation", "blocklist", "prohibited_content", "spii", "image_safety")


def parse_chat(payload: JsonObject, text: str) -> Reply:
    """Read a chat completion."""
    choice = next(iter(dicts_in(payload.get("choices"))), None)
    if choice is None:
        if not _is_prompt_filtered(payload):
            raise no_reply(NAME, text)
        choice = {"finish_reason": "content_filter"}
    reason = str(choice.get("finish_reason") or choice.get("native_finish_reason") or "").lower()
    if choice.get("error") or reason == "error":
        # OpenRouter: the model's own host failed after the answer had begun.
        error = error_object(choice)
        raise error_of(Fault(provider=NAME, status=status_in_body(error), error=error))
    message = choice.get("message")
    if not isinstance(message, dict):
        # What a filter stopped may have no message at all.
        if _stop_of(reason) is Stop.COMPLETE:
            raise no_reply(NAME, text)
        message = {}
    refusal = message.get("refusal")
    return Reply(
        text=_tool_arguments(message) or _joined(message.get("content")),
        stop=Stop.REFUSED if refusal else _stop_of(reason),
        detail=hide_keys(str(refusal or "")),
        model=str(payload.get("model") or ""),
        usage=_usage(payload, "prompt_tokens", "completion_tokens"),
    )


def parse_responses(payload: JsonObject, text: str) -> Reply:
    """Read a response of the Responses API."""
    status = payload.get("status")
    parts = _final_parts(payload.get("output"))
    refusals = [str(p.get("refusal")) for p in parts if p.get("type") == "refusal"]
    reason = as_dict(payload.get("incomplete_details")).get("reason")
    stop = Stop.COMPLETE
    if refusals:
        stop = Stop.REFUSED
    elif status == "incomplete":
        stop = Stop.FILTERED if reason == "content_filter" else Stop.TRUNCATED
    elif status in ("failed", "cancelled", "queued", "in_progress"):
        raise UnavailableError(f"{NAME}: the response came back {status}", provider=NAME, status=200)
    elif status != "completed":
        raise no_reply(NAME, text)
    return Reply(
        text="".join(str(p.get("text") or "") for p in parts if p.get("type") == "output_text"),
        stop=stop,
        detail=hide_keys("; ".join(refusals) or str(reason or "")),
        model=str(payload.get("model") or ""),
        usage=_usage(payload, "input_tokens", "output_tokens"),
    )


def _final_parts(output: object) -> list[JsonObject]:
    """Return the content of the last message that is an answer; commentary may come before it."""
    answers = [m for m in dicts_in(output) if m.get("type") == "message" and m.get("phase") in (None, "final_answer")]
    return dicts_in(answers[-1].get("content")) if answers else []


def _tool_arguments(message: JsonObject) -> str:
    """Return a tool call's arguments; several calls, as some models make one a row, become one."""
    calls = [as_dict(call.get("function")).get("arguments") for call in dicts_in(message.get("tool_calls"))]
    arguments = [a for a in calls if isinstance(a, str)]
    if len(arguments) < 2:
        return arguments[0] if arguments else ""
    try:
        results = [result for each in arguments for result in read_results(each)]
    except MalformedError:
        return arguments[0]
    return json.dumps({"all_results": results}, ensure_ascii=False)


def _joined(content: object) -> str:
    """Return a content's text, also of one that came as a list of parts, as some gateways send it."""
    if isinstance(content, str):
        return content
    return "".join(str(p.get("text") or "") for p in dicts_in(content))


def _stop_of(reason: str) -> Stop:
    if reason in TRUNCATED:
        return Stop.TRUNCATED
    return Stop.FILTERED if reason.startswith("content_filter") or reason in FILTERED else Stop.COMPLETE


def _is_prompt_filtered(payload: JsonObject) -> bool:
    """Whether Azure says of a reply without any choice that its filter stopped the prompt."""
    found = [as_dict(p.get("content_filter_results")) for p in dicts_in(payload.get("prompt_filter_results"))]
    return any(as_dict(category).get("filtered") is True for results in found for category in results.values())


def _usage(payload: JsonObject, input_name: str, output_name: str) -> Usage:
    usage = as_dict(payload.get("usage"))
    given = as_dict(usage.get(f"{input_name}_details"))
    written = as_dict(usage.get(f"{output_name}_details"))
    n_in, n_out = as_int(usage.get(input_name)), as_int(usage.get(output_name))
    reasoning = as_int(written.get("reasoning_tokens"))
    if n_in is not None and n_out is not None and reasoning is not None:
        # OpenAI counts reasoning in its output; where the total shows that a server counts it apart, it is paid too.
        is_apart = as_int(usage.get("total_tokens")) == n_in + n_out + reasoning
        n_out += reasoning if is_apart else 0
    return Usage(
        input_tokens=n_in,
        output_tokens=n_out,
        cached_tokens=as_int(given.get("cached_tokens")),
        cache_write_tokens=as_int(given.get("cache_write_tokens")),
        reasoning_tokens=reasoning,
        service_tier=str(payload.get("service_tier") or ""),
    )
