"""What Anthropic's errors mean. Pure.

The API has few types and asks not to go by its wording; where a type covers both what one request and what every
request does wrong, there is nothing else to go by.
"""

from __future__ import annotations

from collections.abc import Mapping

from lmsyz.errors import (
    BlockedError,
    ProviderError,
    RejectedError,
    RequestError,
    TooLongError,
    UnsupportedFormError,
)
from lmsyz.providers.faults import Fault, plain_error

__all__ = ["error_of", "status_of_type"]

LONG_WORDS = ("prompt is too long", "context window", "exceed context limit")
BLOCKED_WORDS = ("content filtering policy", "usage policy")
FORM_WORDS = (
    "output_config",
    "output_format",
    "tool_choice",
    "grammar",
    "input_schema",
    "tools.",
    "structured output",
)
SAMPLING = ("temperature", "top_p", "top_k")
EVERY_ROW_WORDS = ("credit balance", "extra inputs", "max_tokens", "model:")
# Bedrock's words for a model that it does not have, or not under this name.
MODEL_WORDS = ("model identifier is invalid", "on-demand throughput")
STATUS_OF_TYPE = {
    "invalid_request_error": 400,
    "authentication_error": 401,
    "billing_error": 402,
    "permission_error": 403,
    "not_found_error": 404,
    "request_too_large": 413,
    "rate_limit_error": 429,
    "api_error": 500,
    "timeout_error": 504,
    "overloaded_error": 529,
}
OLD_VERSION = "extra_body={'temperature': 0}, extra_headers={'anthropic-version': '2023-06-01'}"


def error_of(fault: Fault) -> ProviderError:
    """Return our error for what the API said.

    Parameters
    ----------
    fault : Fault
        Status, error object and headers.

    Returns
    -------
    ProviderError
        Its class decides what happens next, see :mod:`lmsyz.errors`.
    """
    plain = plain_error(fault)
    if plain is not None:
        return plain
    words = fault.words.lower()

    def says(*any_of: str) -> bool:
        return any(word in words for word in any_of)

    if says(*LONG_WORDS):
        return fault.as_error(TooLongError)
    if says(*BLOCKED_WORDS):
        return fault.as_error(BlockedError)
    if says(*FORM_WORDS):
        return fault.as_error(UnsupportedFormError)
    if says(*SAMPLING):
        return fault.as_error(RejectedError, hint=f"leave it out of this call; an older model takes {OLD_VERSION}")
    if fault.status == 404 or says(*MODEL_WORDS):
        is_model = says("model", "deployment")
        hint = "check model=" if is_model else "is base_url right? For Anthropic's API it has no /v1"
        return fault.as_error(RejectedError, hint=hint)
    return fault.as_error(RejectedError if says(*EVERY_ROW_WORDS) else RequestError)


def status_of_type(error: Mapping[str, object]) -> int | None:
    """Return the HTTP status that an error object inside a 200, or in a batch's result, stands for."""
    return STATUS_OF_TYPE.get(str(error.get("type")))
