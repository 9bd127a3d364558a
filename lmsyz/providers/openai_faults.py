"""What OpenAI's errors, and those of servers that speak its API, mean. Pure.

Codes decide where there are codes; many compatible servers have none, and there the message has to do.
"""

from __future__ import annotations

import re
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
from lmsyz.providers.gateway_faults import is_flagged

__all__ = ["error_of", "status_in_body"]

FORM_PARAMS = ("response_format", "text.format", "tools", "tool_choice", "json_schema", "functions")
FORM_WORDS = (
    "response_format",
    "response format",
    "text.format",
    "json_schema",
    "json_object",
    "json mode",
    "schema",
    "structured output",
    "grammar",
    "tools",
    "tool_choice",
    "tool choice",
    "tool use",
    "function calling",
    "handle the requested parameters",  # OpenRouter, where no host of the model knows the form
)
LONG_CODES = {"context_length_exceeded", "string_above_max_length", "exceed_context_size_error"}
LONG_WORDS = ("context length", "context size", "context window", "prompt is too long", "input is too long")
BLOCKED_CODES = {"content_filter", "content_policy_violation", "responsibleaipolicyviolation", "invalid_prompt"}
BLOCKED_WORDS = ("flagged", "moderation", "content policy", "content management policy")
UNKNOWN_MODEL = re.compile(
    r"(?i)\bmodels?\b.*(not found|not exist)|not a valid model|(unknown|no such|invalid) model|deployment .*not exist"
    r"|no endpoints found (for|matching)|no allowed providers"  # OpenRouter: a model that nobody serves, or not to you
)
UNKNOWN_MODEL_CODES = {"model_not_found", "deploymentnotfound"}
KEY_WORDS = re.compile(r"(?i)api[ _-]?key")  # Gemini answers 400 to a bad one
ROW_PARAMS = ("messages", "input", "instructions", "url", "image_url")  # url: an image that cannot be fetched
# Gemini, of a field that it does not know, and of a country; Azure, of a version that it does not know.
EVERY_ROW = re.compile(r"(?i)unknown name .*cannot find field|location is not supported|api version not supported")
PERMANENT_CODES = {"unsupported_parameter", "unsupported_value", "unknown_parameter"}


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
    if fault.status is not None:
        special = _about_these_rows(fault) or _about_the_model(fault) or _about_the_form(fault)
        if special is not None:
            return special
    return plain_error(fault) or _about_every_row(fault) or fault.as_error(RequestError)


def status_in_body(error: Mapping[str, object]) -> int | None:
    """Return the HTTP status that an error object inside a 200 stands for; None is a failure that passes."""
    code = error.get("code")
    if isinstance(code, str) and re.fullmatch("[0-9]{1,9}", code):
        code = int(code)
    if isinstance(code, int) and not isinstance(code, bool) and 400 <= code < 600:
        return code
    if code == "rate_limit_exceeded":
        return 429
    return None if code in (None, "server_error") or isinstance(code, int) else 400


def _about_these_rows(fault: Fault) -> ProviderError | None:
    """Return the error for a request that is too long or not allowed, where others may be neither."""
    words = fault.words.lower()
    if fault.codes & LONG_CODES or (fault.status in (400, 413, 422) and any(w in words for w in LONG_WORDS)):
        return fault.as_error(TooLongError)
    if fault.status == 429 and "request too large" in words:
        # A whole minute's tokens would not be enough for it: waiting is in vain.
        return fault.as_error(TooLongError)
    if fault.codes & BLOCKED_CODES or (fault.status in (400, 403) and any(w in words for w in BLOCKED_WORDS)):
        return fault.as_error(BlockedError)
    if fault.status == 403 and is_flagged(fault.error):
        return fault.as_error(BlockedError)
    return None


def _about_the_model(fault: Fault) -> ProviderError | None:
    """Return the error for a model that there is not."""
    if fault.status not in (400, 404, 422):
        return None
    if fault.codes & UNKNOWN_MODEL_CODES or fault.param == "model" or UNKNOWN_MODEL.search(fault.words):
        is_azure = "deploymentnotfound" in fault.codes
        hint = "check model=, or the client's azure_deployment=, which goes before it" if is_azure else "check model="
        return fault.as_error(RejectedError, hint=hint)
    return None


def _about_the_form(fault: Fault) -> ProviderError | None:
    """Return the error for a way of asking for structured output that is not known here."""
    if fault.status not in (400, 404, 422, 500, 501):
        return None
    words = fault.words.lower()
    # Reasoning models name their effort as the field at fault where it is the tool that they do not take.
    named = any(w in words for w in (FORM_WORDS if not fault.param else ("tools", "tool_choice")))
    named = named or fault.param.startswith(FORM_PARAMS)
    # llama-cpp-python answers 500 with a validation error in the body where it does not know json_schema.
    if named or (fault.status == 500 and "validation error" in words):
        return fault.as_error(UnsupportedFormError)
    return None


def _about_every_row(fault: Fault) -> ProviderError | None:
    """Return the error for what is wrong with every request of a run."""
    if KEY_WORDS.search(fault.words):
        return fault.as_error(RejectedError, hint="check api_key= or the environment")
    if fault.status == 404:
        return fault.as_error(RejectedError, hint="is base_url right? For OpenAI's API it ends in /v1")
    if "unrecognized request argument" in fault.words.lower() or EVERY_ROW.search(fault.words):
        # Said without a code or a param, as public issue threads show.
        return fault.as_error(RejectedError, hint="an option of this call: check its spelling")
    param = re.split(r"[.\[]", fault.param)[0]
    if param and param not in ROW_PARAMS:
        return fault.as_error(RejectedError, hint=f"the option {param}= of this call")
    return fault.as_error(RejectedError) if fault.codes & PERMANENT_CODES else None
