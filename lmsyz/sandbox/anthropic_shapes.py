"""What an Anthropic request body may hold, after the API's own request types."""

from __future__ import annotations

from lmsyz.sandbox.shapes import (
    ANY,
    array,
    boolean,
    either,
    integer,
    literal,
    mapping,
    maybe,
    number,
    obj,
    string,
    tagged,
)

__all__ = ["BODY", "COUNT_BODY", "SAMPLING", "VERSIONS"]

VERSIONS = ("2023-06-01", "2026-10-21")
SAMPLING = {"temperature": number(0, 1), "top_p": number(0, 1), "top_k": integer(0)}
_CACHE = maybe(obj("type", type=literal("ephemeral"), ttl=literal("5m", "1h")))
_TEXT_BLOCK = obj("type text", type=ANY, text=string(), cache_control=_CACHE, citations=ANY)
_OPEN = mapping(required="type")
_MEDIA = literal("image/jpeg", "image/png", "image/gif", "image/webp")
_IMAGE_SOURCES = {
    "base64": obj("type media_type data", type=ANY, media_type=_MEDIA, data=string()),
    "url": obj("type url", type=ANY, url=string()),
}
_BLOCKS = {
    "text": _TEXT_BLOCK,
    "tool_use": obj(
        "type id name input",
        type=ANY,
        id=string(),
        name=string(),
        input=ANY,
        cache_control=_CACHE,
        caller=ANY,
    ),
    "tool_result": obj(
        "type tool_use_id",
        type=ANY,
        tool_use_id=string(),
        content=ANY,
        is_error=boolean(),
        cache_control=_CACHE,
    ),
    "thinking": obj("type thinking signature", type=ANY, thinking=string(), signature=string()),
    "redacted_thinking": obj("type data", type=ANY, data=string()),
    "image": obj(
        "type source", type=ANY, source=tagged("type", _IMAGE_SOURCES), cache_control=_CACHE, transformations=ANY
    ),
    "document": _OPEN,
    "search_result": _OPEN,
    "container_upload": _OPEN,
}
_CONTENT = either(string(), array(tagged("type", _BLOCKS)))
_SYSTEM = either(string(), array(tagged("type", {"text": _TEXT_BLOCK})))
_MESSAGES = array(
    tagged(
        "role",
        {
            "user": obj("role content", role=ANY, content=_CONTENT),
            "assistant": obj("role content", role=ANY, content=_CONTENT),
            "system": obj("role content", role=ANY, content=_SYSTEM),
        },
    ),
    low=1,
    high=100_000,
)
_TOOL = obj(
    "name input_schema",
    name=string(low=1, high=128, pattern="[a-zA-Z0-9_-]{1,128}"),
    input_schema=mapping(),
    description=string(),
    type=ANY,
    cache_control=_CACHE,
    allowed_callers=ANY,
    defer_loading=boolean(),
    eager_input_streaming=maybe(boolean()),
    input_examples=array(mapping()),
    strict=boolean(),
)
_PARALLEL = boolean()
_TOOL_CHOICE = tagged(
    "type",
    {
        "auto": obj("type", type=ANY, disable_parallel_tool_use=_PARALLEL),
        "any": obj("type", type=ANY, disable_parallel_tool_use=_PARALLEL),
        "tool": obj("type name", type=ANY, name=string(), disable_parallel_tool_use=_PARALLEL),
        "none": obj("type", type=ANY),
    },
)
_DISPLAY = maybe(literal("summarized", "omitted"))
_THINKING = tagged(
    "type",
    {
        "enabled": obj("type budget_tokens", type=ANY, budget_tokens=integer(1024), display=_DISPLAY),
        "adaptive": obj("type", type=ANY, display=_DISPLAY),
        "disabled": obj("type", type=ANY),
        "between_tools": obj("type", type=ANY),
    },
)
_OUTPUT_CONFIG = obj(
    effort=maybe(literal("low", "medium", "high", "xhigh", "max")),
    format=maybe(tagged("type", {"json_schema": obj("type schema", type=ANY, schema=mapping())})),
)
_SHARED = {
    "messages": _MESSAGES,
    "model": string(low=1),
    "cache_control": _CACHE,
    "output_config": _OUTPUT_CONFIG,
    "speed": maybe(literal("standard", "fast")),
    "system": _SYSTEM,
    "thinking": _THINKING,
    "tool_choice": _TOOL_CHOICE,
    "tools": array(_TOOL),
    "user_profile_id": string(),
}
COUNT_BODY = obj("messages model", **_SHARED)
BODY = obj(
    "max_tokens messages model",
    **_SHARED,
    max_tokens=integer(0),
    container=ANY,
    diagnostics=maybe(obj(previous_message_id=maybe(string()))),
    inference_geo=maybe(string()),
    metadata=obj(user_id=maybe(string(high=256))),
    service_tier=literal("auto", "standard_only"),
    stop_sequences=array(string()),
    stream=boolean(),
)
