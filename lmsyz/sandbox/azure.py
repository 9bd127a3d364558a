"""Azure's dialect of OpenAI's API: deployments, the ``api-key`` header, versions, filter results, its own errors.

``azure_endpoint=<sandbox>`` with an ``api_version`` is what ``openai.AzureOpenAI`` wants; ``<sandbox>/openai/v1`` is
the newer address for a plain ``openai.OpenAI``. Every deployment stands for ``sandbox-rules``, or for the sandbox's
model of its name; one whose name holds ``missing`` does not exist. A key or token that holds ``invalid`` is wrong.

Shapes: the paths and headers of the SDK's ``lib/azure.py``; ``prompt_filter_results`` and ``content_filter_results`` of
Azure's reference; error bodies as in public threads (chatbox 861 for ``DeploymentNotFound``, azurechat 351 for the
filter). Azure tells no limit that can be relied on: -1 and 0 have been seen.
"""

from __future__ import annotations

from typing import Any

from lmsyz.sandbox.doors import Answered, Asked, key_of, model_behind
from lmsyz.sandbox.wire import ApiError, JsonObject

__all__ = ["AzureChat", "AzureResponses"]

CATEGORIES = ("hate", "self_harm", "sexual", "violence")
NO_KEY = (
    "Access denied due to invalid subscription key or wrong API endpoint. Make sure to provide a valid key for an"
    " active subscription and use a correct regional API endpoint for your resource."
)
NO_DEPLOYMENT = (
    "The API deployment for this resource does not exist. If you created the deployment within the last 5 minutes,"
    " please wait a moment and try again."
)
FILTERED = (
    "The response was filtered due to the prompt triggering Azure OpenAI's content management policy. Please modify"
    " your prompt and retry."
)


def error(status: int, code: str, message: str, **more: Any) -> ApiError:
    """Return an error in Azure's shape."""
    return ApiError(status, {"error": {"code": code, "message": message, **more}})


class AzureChat:
    """Azure's chat completions, by deployment and in the newer form."""

    label = "azure"
    routes: tuple[str, ...] = ("/openai/deployments/{deployment}/chat/completions", "/openai/v1/chat/completions")
    endpoint = "chat"

    def enter(self, asked: Asked) -> tuple[JsonObject, dict[str, str]]:
        """Check key, version and deployment, and name the model."""
        if not key_of(asked.headers):
            raise error(401, "401", NO_KEY)
        if "deployment" in asked.path and not asked.query.get("api-version"):
            raise error(404, "404", "Resource not found")
        deployment = asked.path.get("deployment") or str(asked.body.get("model") or "")
        model = model_behind(deployment)
        if not model:
            raise error(404, "DeploymentNotFound", NO_DEPLOYMENT)
        return {**asked.body, "model": model}, {"authorization": "Bearer azure"}

    def leave(self, asked: Asked, answered: Answered) -> Answered:
        """Return the answer with what Azure says of its filters, or its words for an error."""
        headers = {**answered.headers, "x-ms-region": "Sandbox", "apim-request-id": "sandbox"}
        for name in ("requests", "tokens"):
            headers[f"x-ratelimit-limit-{name}"] = "-1"
        body = _with_filters(answered.body) if answered.status == 200 else _azure_error(answered)
        return Answered(status=answered.status, body=body, headers=headers)


class AzureResponses(AzureChat):
    """Azure's Responses API, which has the newer form alone."""

    routes: tuple[str, ...] = ("/openai/v1/responses", "/openai/responses")
    endpoint = "responses"


def _severities(filtered: bool) -> JsonObject:
    found: JsonObject = {c: {"filtered": False, "severity": "safe"} for c in CATEGORIES}
    if filtered:
        found["violence"] = {"filtered": True, "severity": "medium"}
    return found


def _with_filters(body: JsonObject) -> JsonObject:
    if "choices" not in body:
        return body
    choices = []
    for choice in body["choices"]:
        filtered = choice.get("finish_reason") == "content_filter"
        message = {"role": "assistant"} if filtered else choice["message"]
        choices.append({**choice, "message": message, "content_filter_results": _severities(filtered)})
    told = [{"prompt_index": 0, "content_filter_results": _severities(False)}]
    return {**body, "choices": choices, "prompt_filter_results": told}


def _azure_error(answered: Answered) -> JsonObject:
    said = answered.error
    code, message = said.get("code"), said.get("message")
    if code == "invalid_prompt":
        inner = {"code": "ResponsibleAIPolicyViolation", "content_filter_result": _severities(True)}
        filtered = {"code": "content_filter", "message": FILTERED, "param": "prompt", "type": None, "status": 400}
        return {"error": {**filtered, "innererror": inner}}
    if answered.status == 429 and code != "insufficient_quota":
        wait = answered.headers.get("retry-after", "1")
        message = (
            "Requests to the ChatCompletions_Create Operation have exceeded call rate limit of your current pricing"
            f" tier. Please retry after {wait} seconds."
        )
        return {"error": {"code": "429", "message": message}}
    if answered.status >= 500:
        return {"error": {"code": "InternalServerError", "message": message}}
    return {"error": said}
