"""What a request body of OpenAI's two endpoints may hold, after the API's own request types."""

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

__all__ = ["CHAT_BODY", "RESPONSES_BODY"]

_NAME_PATTERN = "[a-zA-Z0-9_-]+"
_EFFORTS = ("none", "minimal", "low", "medium", "high", "xhigh", "max")
_BREAKPOINT = obj("mode", mode=literal("explicit"), ttl=literal("30m", "12h"))
_TEXT_PART = obj("type text", type=ANY, text=string(), prompt_cache_breakpoint=_BREAKPOINT)
_DETAIL = literal("auto", "low", "high", "original")
_PARTS = {
    "text": _TEXT_PART,
    "image_url": obj(
        "type image_url",
        type=ANY,
        image_url=obj("url", url=string(), detail=_DETAIL),
        prompt_cache_breakpoint=_BREAKPOINT,
    ),
    "input_audio": mapping(required="type"),
    "file": mapping(required="type"),
}
_TEXT = either(string(), array(tagged("type", {"text": _TEXT_PART}), low=1))
_USER_CONTENT = either(string(), array(tagged("type", _PARTS), low=1))
_REFUSAL = obj("type refusal", type=ANY, refusal=string())
_CALL = obj("id type", type=ANY, id=string(), function=ANY, custom=ANY)
_MESSAGES = {
    "system": obj("role content", role=ANY, content=_TEXT, name=string()),
    "developer": obj("role content", role=ANY, content=_TEXT, name=string()),
    "user": obj("role content", role=ANY, content=_USER_CONTENT, name=string()),
    "assistant": obj(
        "role",
        role=ANY,
        content=maybe(either(string(), array(tagged("type", {"text": _TEXT_PART, "refusal": _REFUSAL})))),
        name=string(),
        refusal=maybe(string()),
        tool_calls=array(_CALL),
        function_call=ANY,
        audio=ANY,
        annotations=ANY,
    ),
    "tool": obj("role content tool_call_id", role=ANY, content=_TEXT, tool_call_id=string()),
    "function": obj("role name", role=ANY, name=string(), content=maybe(string())),
}
_FUNCTION = obj(
    "name",
    name=string(low=1, high=64, pattern=_NAME_PATTERN),
    description=string(),
    parameters=mapping(),
    strict=maybe(boolean()),
)
_TOOL = tagged(
    "type",
    {
        "function": obj("type function", type=ANY, function=_FUNCTION),
        "custom": obj("type custom", type=ANY, custom=ANY),
    },
)
_FORMAT = tagged(
    "type",
    {
        "text": obj("type", type=ANY),
        "json_object": obj("type", type=ANY),
        "json_schema": obj(
            "type json_schema",
            type=ANY,
            json_schema=obj(
                "name",
                name=string(low=1, high=64, pattern=_NAME_PATTERN),
                description=string(),
                schema=mapping(),
                strict=maybe(boolean()),
            ),
        ),
    },
)
_TOOL_CHOICE = either(
    literal("none", "auto", "required"),
    tagged(
        "type",
        {
            "function": obj("type function", type=ANY, function=obj("name", name=string())),
            "allowed_tools": obj("type allowed_tools", type=ANY, allowed_tools=ANY),
            "custom": obj("type custom", type=ANY, custom=ANY),
        },
    ),
)
_METADATA = maybe(mapping(string(high=512)))
_CACHE_OPTIONS = obj(mode=literal("implicit", "explicit"), ttl=literal("30m"))
CHAT_BODY = obj(
    "messages model",
    messages=array(tagged("role", _MESSAGES), low=1),
    model=string(),
    audio=ANY,
    frequency_penalty=maybe(number(-2, 2)),
    function_call=ANY,
    functions=ANY,
    logit_bias=maybe(mapping(number(-100, 100))),
    logprobs=maybe(boolean()),
    max_completion_tokens=maybe(integer(1)),
    max_tokens=maybe(integer(1)),
    metadata=_METADATA,
    modalities=maybe(array(literal("text", "audio"))),
    moderation=ANY,
    n=maybe(integer(1, 128)),
    parallel_tool_calls=boolean(),
    prediction=ANY,
    presence_penalty=maybe(number(-2, 2)),
    prompt_cache_key=maybe(string()),
    prompt_cache_options=_CACHE_OPTIONS,
    prompt_cache_retention=maybe(literal("in_memory", "24h")),
    reasoning_effort=maybe(literal(*_EFFORTS)),
    response_format=_FORMAT,
    safety_identifier=maybe(string(high=128)),
    seed=maybe(integer()),
    service_tier=maybe(literal("auto", "default", "flex", "scale", "priority", "fast")),
    stop=maybe(either(string(), array(string(), low=1, high=4))),
    store=maybe(boolean()),
    stream=maybe(boolean()),
    stream_options=ANY,
    temperature=maybe(number(0, 2)),
    tool_choice=_TOOL_CHOICE,
    tools=array(_TOOL, low=1, high=128),
    top_logprobs=maybe(integer(0, 20)),
    top_p=maybe(number(0, 1)),
    user=string(),
    verbosity=maybe(literal("low", "medium", "high")),
    web_search_options=ANY,
)
_RESPONSES_PART = obj("type text", type=ANY, text=string(), prompt_cache_breakpoint=ANY, annotations=ANY, logprobs=ANY)
_RESPONSES_PARTS = {
    "input_text": _RESPONSES_PART,
    "output_text": _RESPONSES_PART,
    "refusal": _REFUSAL,
    "input_image": obj(
        "type",
        type=ANY,
        detail=_DETAIL,
        file_id=maybe(string()),
        image_url=maybe(string()),
        prompt_cache_breakpoint=_BREAKPOINT,
    ),
    "input_file": mapping(required="type"),
    "input_audio": mapping(required="type"),
}
_RESPONSES_MESSAGE = obj(
    "role content",
    type=literal("message"),
    role=literal("user", "assistant", "system", "developer"),
    content=either(string(), array(tagged("type", _RESPONSES_PARTS))),
    id=string(),
    status=literal("in_progress", "completed", "incomplete"),
    phase=maybe(literal("commentary", "final_answer")),
)
_RESPONSES_FORMAT = tagged(
    "type",
    {
        "text": obj("type", type=ANY),
        "json_object": obj("type", type=ANY),
        "json_schema": obj(
            "type name schema",
            type=ANY,
            name=string(low=1, high=64, pattern=_NAME_PATTERN),
            schema=mapping(),
            description=string(),
            strict=maybe(boolean()),
        ),
    },
)
_RESPONSES_TOOL = tagged(
    "type",
    {
        "function": obj(
            "type name parameters",
            type=ANY,
            name=string(low=1, high=64, pattern=_NAME_PATTERN),
            parameters=maybe(mapping()),
            strict=maybe(boolean()),
            description=maybe(string()),
        )
    },
)
_RESPONSES_TOOL_CHOICE = either(
    literal("none", "auto", "required"), tagged("type", {"function": obj("type name", type=ANY, name=string())})
)
RESPONSES_BODY = obj(
    "model input",
    access_programs=ANY,
    background=maybe(boolean()),
    background_options=ANY,
    context_management=ANY,
    conversation=ANY,
    image=ANY,
    include=maybe(array(string())),
    input=either(string(), array(_RESPONSES_MESSAGE, low=1)),
    instructions=maybe(string()),
    max_output_tokens=maybe(integer(16)),
    max_tool_calls=maybe(integer()),
    metadata=_METADATA,
    model=string(),
    moderation=ANY,
    parallel_tool_calls=maybe(boolean()),
    previous_response_id=maybe(string()),
    prompt=ANY,
    prompt_cache_key=maybe(string()),
    prompt_cache_options=obj(**{**_CACHE_OPTIONS.fields, "prewarm": boolean(), "comparison_response_id": string()}),
    prompt_cache_retention=maybe(literal("in_memory", "24h")),
    reasoning=maybe(obj(effort=maybe(literal(*_EFFORTS)), summary=ANY, generate_summary=ANY, context=ANY, mode=ANY)),
    safety_identifier=maybe(string(high=128)),
    service_tier=maybe(string()),
    store=maybe(boolean()),
    stream=maybe(boolean()),
    stream_options=ANY,
    temperature=maybe(number(0, 2)),
    text=obj(format=_RESPONSES_FORMAT, verbosity=maybe(literal("low", "medium", "high"))),
    tool_choice=_RESPONSES_TOOL_CHOICE,
    tools=array(_RESPONSES_TOOL),
    top_logprobs=maybe(integer(0, 20)),
    top_p=maybe(number(0, 1)),
    truncation=maybe(literal("auto", "disabled")),
    user=string(),
)
