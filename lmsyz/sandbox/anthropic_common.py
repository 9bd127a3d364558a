"""What Anthropic's endpoints share: keys, error bodies, models, and the words for a fault in a body."""

from __future__ import annotations

import datetime
import json
from collections.abc import Mapping
from typing import Any

from lmsyz.sandbox.anthropic_shapes import SAMPLING, VERSIONS
from lmsyz.sandbox.shapes import Fault, Shape, find_fault
from lmsyz.sandbox.wire import CONTEXT_TOKENS, MAX_OUTPUT_TOKENS, MODELS, ApiError, JsonObject, Model

__all__ = ["body_of", "check_body", "check_key", "check_sampling", "error", "model_object", "model_of", "text_in"]

MAX_BODY_BYTES = 32 * 1024 * 1024
_TYPES = {
    400: "invalid_request_error",
    401: "authentication_error",
    403: "permission_error",
    404: "not_found_error",
    405: "invalid_request_error",
    413: "request_too_large",
    429: "rate_limit_error",
    500: "api_error",
    504: "timeout_error",
    529: "overloaded_error",
}


def error(status: int, message: str, *, code: str = "", headers: Mapping[str, str] | None = None) -> ApiError:
    """Return an error in Anthropic's shape."""
    said: JsonObject = {"type": _TYPES[status], "message": message}
    if code:
        said["details"] = {"error_code": code}
    return ApiError(status, {"type": "error", "error": said}, headers)


def check_key(headers: Mapping[str, str]) -> None:
    """Raise the 401 of a missing or wrong key, or the 400 of a missing or unknown version."""
    scheme, _, token = headers.get("authorization", "").partition(" ")
    key = headers.get("x-api-key", "").strip() or (token.strip() if scheme.lower() == "bearer" else "")
    if not key:
        raise error(401, "x-api-key header is required. Any key will do for the sandbox.")
    if "invalid" in key:
        raise error(401, "invalid x-api-key")
    version = headers.get("anthropic-version")
    if version is None:
        raise error(400, "anthropic-version: header is required")
    if version not in VERSIONS:
        raise error(400, f"anthropic-version: {version!r} is not a valid version. Use one of {', '.join(VERSIONS)}.")


def model_object(model: Model, created: int) -> JsonObject:
    """Return a model as the models endpoint lists it."""
    yes, no = {"supported": True}, {"supported": False}
    efforts = dict.fromkeys(("low", "medium", "high", "xhigh", "max"), yes)
    thinking = {"adaptive": yes, "between_tools": no, "disabled": yes, "enabled": yes}
    capabilities = {
        "batch": yes,
        "citations": no,
        "code_execution": no,
        "context_management": no,
        "effort": yes | efforts,
        "image_input": yes,
        "pdf_input": no,
        "server_tools": no | {"code_execution": no, "web_search": no},
        "structured_outputs": yes,
        "thinking": {"supported": model.reasoning, "types": thinking},
    }
    return {
        "type": "model",
        "id": model.id,
        "display_name": model.words,
        "created_at": datetime.datetime.fromtimestamp(created, datetime.UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
        "lifecycle": "active",
        "max_input_tokens": CONTEXT_TOKENS,
        "max_tokens": MAX_OUTPUT_TOKENS,
        "capabilities": capabilities,
    }


def body_of(raw: bytes) -> JsonObject:
    """Return the body as an object."""
    if len(raw) > MAX_BODY_BYTES:
        raise error(413, "Request exceeds the maximum allowed number of bytes.")
    try:
        body = json.loads(raw)
    except (ValueError, RecursionError) as exc:
        raise error(400, f"The request body is not valid JSON: {exc}") from None
    if not isinstance(body, dict):
        raise error(400, "Input should be a valid dictionary")
    return body


def model_of(body: JsonObject) -> Model:
    """Return the model asked for, or raise the 404 that names the known ones."""
    model = MODELS.get(body["model"])
    if model is None:
        raise error(404, f"model: {body['model']} (the sandbox has {', '.join(MODELS)})")
    return model


def check_sampling(body: JsonObject, headers: Mapping[str, str]) -> None:
    """Refuse sampling parameters: from the version of October 2026 on for all models, before it for reasoning ones."""
    named = MODELS.get(body["model"]) if isinstance(body.get("model"), str) else None
    for name in SAMPLING:
        if name not in body:
            continue
        if headers.get("anthropic-version") != VERSIONS[0]:
            raise error(400, f"{name}: Extra inputs are not permitted")
        if named is not None and named.reasoning:
            raise error(400, f"`{name}` is deprecated for this model.")


def check_body(body: JsonObject, shape: Shape) -> None:
    """Raise the 400 for the first fault of a body."""
    fault = find_fault({k: v for k, v in body.items() if k not in SAMPLING}, shape)
    if fault is None:
        fault = find_fault({k: body[k] for k in SAMPLING if k in body}, _SAMPLING_SHAPE)
    if fault is not None:
        raise error(400, f"{'.'.join(map(str, fault.path))}: {_said(fault)}")


_SAMPLING_SHAPE = Shape(kind="object", fields=SAMPLING)
_NOUNS = {
    "string": "string",
    "integer": "integer",
    "number": "number",
    "boolean": "boolean",
    "array": "list",
    "object": "dictionary",
    "tagged": "dictionary",
}


def _said(fault: Fault) -> str:
    """Return a fault in Anthropic's words."""
    shape, kind = fault.shape, fault.kind
    if kind == "unknown":
        return "Extra inputs are not permitted"
    if kind == "missing":
        return "Field required"
    if kind == "type":
        kinds = list(shape.options) if shape.kind == "either" else [shape.kind]
        return "Input should be a valid " + " or ".join(_NOUNS[k] for k in kinds)
    if kind == "value":
        words = [repr(v) for v in shape.values]
        return "Input should be " + (" or ".join([", ".join(words[:-1]), words[-1]]) if len(words) > 1 else words[0])
    if kind == "pattern":
        return f"String should match pattern '^{shape.pattern}$'"
    noun = {"string": "String should have", "array": "List should have"}.get(shape.kind, "Input should be")
    if kind in ("below", "above"):
        side = f"greater than or equal to {shape.low}" if kind == "below" else f"less than or equal to {shape.high}"
        return f"{noun} {side}"
    limit = f"at most {shape.high}" if kind == "long" else f"at least {shape.low}"
    return f"{noun} {limit} {'characters' if shape.kind == 'string' else 'items'}"


def text_in(content: Any) -> str:
    """Return the text of a message's or the system's content: a string, or a list of blocks."""
    if isinstance(content, str):
        return content
    return "".join(b["text"] for b in content or () if b["type"] == "text")
