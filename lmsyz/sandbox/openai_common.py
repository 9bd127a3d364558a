"""What OpenAI's two endpoints share: keys, error bodies, headers, and the words for a fault in a body."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from typing import Any

from lmsyz.sandbox.shapes import Fault, Path, Shape, find_fault
from lmsyz.sandbox.wire import MODELS, ApiError, JsonObject, LimitState, Model, Outcome, tokens_of

__all__ = [
    "body_of",
    "cacheable",
    "check_body",
    "check_key",
    "check_temperature",
    "error",
    "extra_tokens",
    "failure",
    "headers",
    "model_object",
    "model_of",
    "no_streaming",
    "text_in",
    "unsupported",
    "usage_details",
]

CACHE_MIN_TOKENS, CACHE_STEP = 1024, 128
KEYS_URL = "https://platform.openai.com/account/api-keys"


def error(
    status: int,
    message: str,
    *,
    param: str | None = None,
    code: str | None = None,
    kind: str = "invalid_request_error",
    headers: Mapping[str, str] | None = None,
) -> ApiError:
    """Return an error in OpenAI's shape."""
    body = {"error": {"message": message, "type": kind, "param": param, "code": code}}
    return ApiError(status, body, headers)


def check_key(headers: Mapping[str, str]) -> None:
    """Raise the 401 of a missing or wrong key. A wrong key is one that contains ``invalid``."""
    scheme, _, key = headers.get("authorization", "").partition(" ")
    if scheme.lower() != "bearer" or not key.strip():
        raise error(
            401,
            "You didn't provide an API key. You need to provide your API key in an Authorization header using Bearer"
            " auth (i.e. Authorization: Bearer YOUR_KEY). Any key will do for the sandbox.",
        )
    if "invalid" in key:
        shown = f"{key[:3]}***{key[-4:]}" if len(key) > 12 else "***"
        raise error(
            401,
            f"Incorrect API key provided: {shown}. You can find your API key at {KEYS_URL}.",
            code="invalid_api_key",
        )


def body_of(raw: bytes) -> JsonObject:
    """Return the body as an object."""
    try:
        body = json.loads(raw)
    except (ValueError, RecursionError):
        body = None
    if not isinstance(body, dict):
        raise error(
            400,
            "We could not parse the JSON body of your request. (HINT: This likely means you aren't using your HTTP"
            " library correctly. The OpenAI API expects a JSON payload, but what was sent was not valid JSON.)",
        )
    return body


def model_of(body: JsonObject) -> Model:
    """Return the model asked for, or raise the 404 that names the known ones."""
    name = body.get("model")
    model = MODELS.get(name) if isinstance(name, str) else None
    if model is None:
        raise error(
            404,
            f"The model `{name}` does not exist or you do not have access to it. The sandbox has {', '.join(MODELS)}.",
            code="model_not_found",
        )
    return model


def model_object(model: Model, created: int) -> JsonObject:
    """Return a model as the models endpoint lists it."""
    return {"id": model.id, "object": "model", "created": created, "owned_by": "lmsyz-sandbox"}


def check_body(body: JsonObject, shape: Shape) -> None:
    """Raise the 400 for the first fault of a body."""
    fault = find_fault(body, shape)
    if fault is not None:
        raise _said(fault)


def spelt(path: Path) -> str:
    """Return a path as OpenAI writes it: ``messages[0].content``."""
    text = ""
    for part in path:
        text += f"[{part}]" if isinstance(part, int) else f".{part}" if text else part
    return text


_EXPECTED = {
    "string": "a string",
    "integer": "an integer",
    "number": "a decimal",
    "boolean": "a boolean",
    "array": "an array",
    "object": "an object",
    "tagged": "an object",
}


def _got(value: Any) -> str:
    if value is None:
        return "null"
    if isinstance(value, bool):
        return "a boolean"
    names = {str: "a string", int: "an integer", float: "a decimal", list: "an array", dict: "an object"}
    return names[type(value)]


def _said(fault: Fault) -> ApiError:
    param, shape = spelt(fault.path), fault.shape
    if fault.kind == "unknown":
        return error(400, f"Unknown parameter: '{param}'.", param=param, code="unknown_parameter")
    if fault.kind == "missing":
        return error(400, f"Missing required parameter: '{param}'.", param=param, code="missing_required_parameter")
    if fault.kind == "type":
        wanted = [_EXPECTED[k] for k in (shape.options if shape.kind == "either" else (shape.kind,))]
        said = wanted[0] if len(wanted) == 1 else "one of " + " or ".join(wanted)
        message = f"Invalid type for '{param}': expected {said}, but got {_got(fault.value)} instead."
        return error(400, message, param=param, code="invalid_type")
    if fault.kind == "value":
        values = [f"'{v}'" for v in shape.values]
        listed = " and ".join([", ".join(values[:-1]), values[-1]]) if len(values) > 1 else values[0]
        message = f"Invalid value: '{fault.value}'. Supported values are: {listed}."
        return error(400, message, param=param, code="invalid_value")
    return _size_said(fault, param)


def _size_said(fault: Fault, param: str) -> ApiError:
    shape, value = fault.shape, fault.value
    noun = "integer" if shape.kind == "integer" else "decimal"
    if fault.kind == "below":
        message = f"{noun} below minimum value. Expected a value >= {shape.low}, but got {value} instead."
        code = f"{noun}_below_min_value"
    elif fault.kind == "above":
        message = f"{noun} above maximum value. Expected a value <= {shape.high}, but got {value} instead."
        code = f"{noun}_above_max_value"
    elif fault.kind == "pattern":
        message = f"string does not match pattern. Expected a string that matches the pattern '{shape.pattern}'."
        code = "invalid_value"
    else:
        what = "array" if shape.kind == "array" else "string"
        side = "maximum" if fault.kind == "long" else "minimum"
        limit = shape.high if fault.kind == "long" else shape.low
        state = "too long" if fault.kind == "long" else "empty" if not value else "too short"
        message = (
            f"{what} {state}. Expected {what} with {side} length {limit}, but got one of length {len(value)} instead."
        )
        code = (
            f"empty_{what}"
            if state == "empty"
            else f"{what}_{'above_max' if state == 'too long' else 'below_min'}_length"
        )
    return error(400, f"Invalid '{param}': {message}", param=param, code=code)


def failure(kind: str, message: str = "", *, retry_after_s: float | None = None) -> ApiError:
    """Return the error for what can happen to any request."""
    headers = {} if retry_after_s is None else _retry_headers(retry_after_s)
    if kind in ("requests", "tokens"):
        said = (
            message
            or f"Rate limit reached for sandbox-rules on {kind} per min. Please try again in {retry_after_s:g}s."
        )
        return error(429, said, kind=kind, code="rate_limit_exceeded", headers=headers)
    if kind == "out_of_quota":
        said = "You exceeded your current quota, please check your plan and billing details."
        return error(429, said, kind="insufficient_quota", code="insufficient_quota")
    if kind == "overloaded":
        said = "The engine is currently overloaded, please try again later."
        return error(503, said, kind="server_error", code="overloaded", headers=headers)
    if kind == "timeout":
        return error(504, "The gateway did not get an answer in time.", kind="server_error")
    if kind == "batch_errors":
        return error(400, "The sandbox fails this request, as its faults ask it to.")
    if kind == "blocked":
        said = "Invalid prompt: your prompt was flagged as potentially violating our usage policy."
        return error(400, said, code="invalid_prompt")
    if kind == "nested":
        return error(400, "The JSON body of your request is nested too deeply.")
    said = "The server had an error while processing your request. Sorry about that!"
    return error(500, said, kind="server_error")


def _retry_headers(seconds: float) -> dict[str, str]:
    return {"retry-after": f"{seconds:g}", "retry-after-ms": f"{seconds * 1000:g}"}


def headers(request_id: str, limits: LimitState) -> dict[str, str]:
    """Return the headers of every answer."""
    found = {"x-request-id": request_id, "openai-organization": "sandbox", "openai-version": "2020-10-01"}
    for name, (limit, remaining, reset_s) in (("requests", limits.requests), ("tokens", limits.tokens)):
        found[f"x-ratelimit-limit-{name}"] = str(limit)
        found[f"x-ratelimit-remaining-{name}"] = str(remaining)
        found[f"x-ratelimit-reset-{name}"] = _span(reset_s)
    return found


def _span(seconds: float) -> str:
    """Return a span of time as OpenAI writes it: ``120ms``, ``6m0s``."""
    if seconds < 1:
        return f"{round(seconds * 1000)}ms"
    minutes, rest = divmod(seconds, 60)
    return f"{int(minutes)}m{rest:.3g}s" if minutes else f"{rest:.3g}s"


def unsupported(model: Model, param: str, hint: str = "") -> ApiError:
    """Return the 400 for a parameter that a reasoning model does not take."""
    message = f"Unsupported parameter: '{param}' is not supported with this model.{' ' + hint if hint else ''}"
    return error(400, message, param=param, code="unsupported_parameter")


def check_temperature(body: JsonObject) -> None:
    """Raise the 400 that a reasoning model answers to any temperature but its own."""
    if body.get("temperature") not in (None, 1):
        message = (
            f"Unsupported value: 'temperature' does not support {body['temperature']} with this model. Only the default"
            " (1) value is supported."
        )
        raise error(400, message, param="temperature", code="unsupported_value")


def no_streaming() -> ApiError:
    """Return the 400 to a request that wants to be streamed."""
    message = "Unsupported value: 'stream' does not support true with this model. The sandbox does not stream."
    return error(400, message, param="stream", code="unsupported_value")


def text_in(content: Any) -> str:
    """Return the text of a message's content: a string, or a list of parts."""
    if isinstance(content, str):
        return content
    return "".join(p.get("text") or "" for p in content or ())


def extra_tokens(body: JsonObject, *names: str) -> int:
    """Return the size of what else of a body the model is shown: its schemas and tools."""
    return sum(tokens_of(json.dumps(body[n])) for n in names if body.get(n))


def cacheable(model: Model, system: str) -> tuple[str, int] | None:
    """Return key and size of the prompt's shared beginning, if it is long enough for the prompt cache."""
    size = tokens_of(system)
    if size < CACHE_MIN_TOKENS:
        return None
    key = hashlib.sha256(f"{model.id}\0{system}".encode("utf-8", "surrogatepass")).hexdigest()
    return key, size // CACHE_STEP * CACHE_STEP


def usage_details(outcome: Outcome) -> tuple[JsonObject, JsonObject]:
    """Return the details of input and output tokens."""
    given = {"cached_tokens": outcome.cached_tokens, "cache_write_tokens": outcome.cache_write_tokens}
    return given, {"reasoning_tokens": outcome.thinking_tokens}
