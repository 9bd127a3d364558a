"""Anthropic's Messages API as Foundry, Bedrock and Vertex speak it: paths, keys and error bodies of their own.

The addresses are what the SDK's clients want as ``base_url``: ``<sandbox>/anthropic`` for ``AnthropicFoundry``,
``<sandbox>`` for ``AnthropicBedrock``, ``<sandbox>/v1`` for ``AnthropicVertex``. Any model's name stands for
``sandbox-rules``, or for the sandbox's model of that name; one that holds ``missing`` does not exist. A key or token
that holds ``invalid`` is wrong; signatures of AWS are not checked. Paths, and the version in the body instead of a
header, are as anthropic 2.12 sends them (``lib/bedrock``, ``lib/vertex``, ``lib/foundry.py``).
"""

from __future__ import annotations

from typing import Any

from lmsyz.sandbox.anthropic_shapes import VERSIONS
from lmsyz.sandbox.doors import Answered, Asked, key_of, model_behind
from lmsyz.sandbox.wire import ApiError, JsonObject

__all__ = ["Bedrock", "Foundry", "Vertex"]

A_DAY = "Too many tokens per day, please wait before trying again."
VERTEX_STATUSES = {401: "UNAUTHENTICATED", 403: "PERMISSION_DENIED", 404: "NOT_FOUND", 429: "RESOURCE_EXHAUSTED"}
AMAZON_ERRORS = {
    400: "ValidationException",
    403: "AccessDeniedException",
    429: "ThrottlingException",
    500: "InternalServerException",
    503: "ServiceUnavailableException",
}
NO_DEPLOYMENT = (
    "The API deployment for this resource does not exist. If you created the deployment within the last 5 minutes,"
    " please wait a moment and try again."
)


class Foundry:
    """Microsoft Foundry: Anthropic's own API, a deployment as the model."""

    label = "foundry"
    routes: tuple[str, ...] = ("/anthropic/v1/messages",)
    endpoint = "messages"

    def enter(self, asked: Asked) -> tuple[JsonObject, dict[str, str]]:
        """Check key and deployment."""
        if not key_of(asked.headers):
            said = {"code": "401", "message": "Access denied due to invalid subscription key or wrong API endpoint."}
            raise ApiError(401, {"error": said})
        model = model_behind(str(asked.body.get("model") or ""))
        if not model:
            raise ApiError(404, {"error": {"code": "DeploymentNotFound", "message": NO_DEPLOYMENT}})
        return {**asked.body, "model": model}, _inner_headers(asked.headers.get("anthropic-version"))

    def leave(self, asked: Asked, answered: Answered) -> Answered:
        """Return the answer as it is."""
        return answered


class Bedrock:
    """Amazon Bedrock: the model in the path, the version in the body, errors of AWS."""

    label = "bedrock"
    routes: tuple[str, ...] = ("/model/{model}/invoke",)
    endpoint = "messages"

    def enter(self, asked: Asked) -> tuple[JsonObject, dict[str, str]]:
        """Check key, version and model."""
        if not key_of(asked.headers):
            raise _amazon(403, "The security token included in the request is invalid.")
        if not asked.body.get("anthropic_version"):
            raise _amazon(400, "anthropic_version: Field required")
        if "model" in asked.body:
            raise _amazon(400, "#: extraneous key [model] is not permitted, please reformat your input and try again.")
        model = model_behind(asked.path["model"])
        if not model:
            raise _amazon(400, "The provided model identifier is invalid.")
        return _with_model(asked.body, model), _inner_headers(asked.body.get("anthropic_version"))

    def leave(self, asked: Asked, answered: Answered) -> Answered:
        """Return the answer, an error in the shape of AWS."""
        if answered.status == 200:
            return answered
        said = A_DAY if _is_out_of_quota(answered) else str(answered.error.get("message"))
        failed = _amazon(503 if answered.status == 529 else answered.status, said)
        kept = {k: v for k, v in answered.headers.items() if k == "retry-after"}
        return Answered(status=failed.status, body=failed.body, headers={**kept, **failed.headers})


class Vertex:
    """Google Vertex AI: project, place and model in the path, errors of Google's where they are Google's."""

    label = "vertex"
    routes: tuple[str, ...] = (
        "/v1/projects/{project}/locations/{region}/publishers/anthropic/models/{model}:rawPredict",
    )
    endpoint = "messages"

    def enter(self, asked: Asked) -> tuple[JsonObject, dict[str, str]]:
        """Check token, version and model."""
        if not key_of(asked.headers):
            raise _google(401, "Request had invalid authentication credentials.")
        if not asked.body.get("anthropic_version"):
            raise ApiError(400, _anthropic("invalid_request_error", "anthropic_version: Field required"))
        model = model_behind(asked.path["model"])
        if not model:
            name = f"projects/{asked.path['project']}/locations/{asked.path['region']}/…/{asked.path['model']}"
            raise _google(404, f"Publisher Model `{name}` was not found or your project does not have access to it.")
        return _with_model(asked.body, model), _inner_headers(asked.body.get("anthropic_version"))

    def leave(self, asked: Asked, answered: Answered) -> Answered:
        """Return the answer; a limit is Google's, all else Anthropic's."""
        if answered.status != 429:
            return answered
        if _is_out_of_quota(answered):
            failed = _google(403, "This API method requires billing to be enabled.")
            return Answered(status=failed.status, body=failed.body)
        failed = _google(429, "Quota exceeded for aiplatform.googleapis.com/online_prediction_requests_per_base_model.")
        kept = {k: v for k, v in answered.headers.items() if k == "retry-after"}
        return Answered(status=429, body=failed.body, headers=kept)


def _inner_headers(version: Any) -> dict[str, str]:
    """Return the headers of Anthropic's own API; versions of a platform's own have none of their own there."""
    return {"x-api-key": "platform", "anthropic-version": version if version in VERSIONS else VERSIONS[0]}


def _with_model(body: JsonObject, model: str) -> JsonObject:
    return {k: v for k, v in body.items() if k not in ("anthropic_version", "anthropic_beta")} | {"model": model}


def _is_out_of_quota(answered: Answered) -> bool:
    return "details" in answered.error


def _amazon(status: int, message: str) -> ApiError:
    return ApiError(status, {"message": message}, {"x-amzn-errortype": AMAZON_ERRORS.get(status, "Exception")})


def _google(status: int, message: str) -> ApiError:
    return ApiError(status, {"error": {"code": status, "message": message, "status": VERTEX_STATUSES[status]}})


def _anthropic(kind: str, message: str) -> dict[str, Any]:
    return {"type": "error", "error": {"type": kind, "message": message}}
