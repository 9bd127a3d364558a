"""What went wrong, out of whatever came: an API's error object, a page, a list, nothing. Pure.

A :class:`Fault` gathers status, error object and headers; each provider's error map turns it into one of our errors,
and :func:`plain_error` holds what means the same everywhere.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, TypeVar

from lmsyz.errors import ProviderError, RateLimitError, RejectedError, RequestError, TooLongError, UnavailableError
from lmsyz.providers.base import JsonObject
from lmsyz.providers.gateway_faults import (
    is_budget_in_flight,
    is_quota_of_a_day,
    is_quota_of_nothing,
    told_wait_s,
    with_upstream_words,
)
from lmsyz.ratelimit_headers import retry_after_s
from lmsyz.transient import codes_of, is_out_of_credit, is_transient_status

__all__ = ["Fault", "error_object", "hide_keys", "loads_reply", "no_reply", "plain_error"]

LONGEST_WORDS = 500
LONGEST_CODE = 80
# What looks like a key, also one that an API has masked in the middle, or a token of a sign-in (a JWT).
KEY = re.compile(
    r"(?i)\b(?:sk|pk|rk|gsk|xai|csk)[-_][\w*\-]{6,}|\bAIza[\w\-]{10,}|\bBearer\s+[\w.~+/*\-]{16,}=*"
    r"|\beyJ[\w\-]{8,}\.[\w.\-]*"
)
COMMENTS = re.compile(r"\A(?:\s*:[^\n]*(?:\n|\Z))+")
# Control characters, which a terminal would obey, and halves of pairs, which no file would take.
UNSHOWN = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\ud800-\udfff]")
HALF = re.compile(r"\\u[dD][89a-fA-F]")
PAGE = re.compile(r"(?is)^\s*<(?:!doctype|html|head|body|\?xml)\b.*?(?:<title[^>]*>\s*(.*?)\s*</title>|$)")

E = TypeVar("E", bound=ProviderError)


@dataclass(frozen=True, slots=True, kw_only=True)
class Fault:
    """One failed call as the API or the network told it.

    Parameters
    ----------
    provider : str
        ``"openai"`` or ``"anthropic"``.
    status : int or None
        HTTP status; None where there was no answer.
    error : mapping
        The API's error object, see :func:`error_object`.
    headers : mapping
        Response headers with lower-case names.
    """

    provider: str
    status: int | None
    error: Mapping[str, object] = field(default_factory=dict)
    headers: Mapping[str, str] = field(default_factory=dict)

    @property
    def codes(self) -> set[str]:
        """Every machine-readable reason, in lower case."""
        return {code.lower() for code in codes_of(self.error)}

    @property
    def words(self) -> str:
        """The API's own message, without keys."""
        return hide_keys(str(self.error.get("message") or ""))[:LONGEST_WORDS]

    @property
    def param(self) -> str:
        """The request field that the API names, empty where it names none."""
        return hide_keys(str(self.error.get("param") or ""))[:LONGEST_CODE]

    def as_error(self, kind: type[E], *, hint: str = "") -> E:
        """Return an error of one class, with all that is known, and what to do about it in brackets."""
        answered = f"{self.provider} answered {self.status}" if self.status else self.provider
        details = self.error.get("details")
        details = details.get("error_code") if isinstance(details, Mapping) else None
        code = hide_keys(str(details or self.error.get("code") or self.error.get("type") or ""))[:LONGEST_CODE]
        said = self.words or code
        wait = retry_after_s(self.headers)
        return kind(
            (f"{answered}: {said}" if said else answered) + (f" ({hint})" if hint else ""),
            provider=self.provider,
            status=self.status,
            code=code,
            request_id=hide_keys(self.headers.get("x-request-id") or self.headers.get("request-id") or ""),
            retry_after=told_wait_s(self.error) if wait is None else wait,
            headers=self.headers,
        )


def error_object(body: object) -> JsonObject:
    """Return an API's error object out of a body as it came.

    Examples
    --------
    >>> error_object([{"error": {"message": "no such model", "code": 404}}])["message"]
    'no such model'
    """
    if isinstance(body, list):
        body = next((item for item in body if isinstance(item, Mapping)), None)
    if isinstance(body, Mapping):
        inner = body.get("error") or body.get("errors") or body
        if inner is not body and not isinstance(inner, Mapping):
            return error_object(inner) if isinstance(inner, list) else {"message": str(inner)}
        found = dict(inner)
        if not isinstance(found.get("message"), str):
            found["message"] = _said(found.get("message") or found.get("detail") or found.get("msg"))
        return with_upstream_words(found)
    if isinstance(body, str) and body.strip():
        page = PAGE.match(body)
        if page is None:
            return {"message": body.strip()}
        return {"message": f"a web page, no API's answer: {page[1] or 'untitled'}"}
    return {}


def hide_keys(text: str, key: str = "") -> str:
    """Return a text for a message: nothing that may be an API key is left in it, and nothing that steers a screen."""
    if len(key) >= 4:
        text = text.replace(key, "(key)")
    return UNSHOWN.sub("\ufffd", KEY.sub("(key)", text))


def plain_error(fault: Fault) -> ProviderError | None:
    """Return the error where status and code mean the same everywhere, None for what is a provider's own."""
    status = fault.status
    if status is None:
        return fault.as_error(UnavailableError)
    if status == 402 and is_budget_in_flight(fault.error):
        return fault.as_error(RateLimitError)
    if 300 <= status < 400:
        return fault.as_error(RequestError, hint=_moved(fault.headers.get("location") or ""))
    if is_out_of_credit(fault.codes) or status == 402:
        return fault.as_error(RejectedError, hint="no credit or a spend limit: waiting will not help")
    if status in (429, 529):
        return _spent_quota(fault) or fault.as_error(RateLimitError)
    if status == 401:
        return fault.as_error(RejectedError, hint="the API key was not accepted: check api_key= or the environment")
    if status == 403:
        return fault.as_error(RejectedError, hint="this key may not do that")
    if status == 413:
        return fault.as_error(TooLongError)
    if is_transient_status(status):
        return fault.as_error(UnavailableError)
    return None


def _spent_quota(fault: Fault) -> ProviderError | None:
    """Return the error for a 429 that no wait within a run ends, whatever wait it asks for itself."""
    if is_quota_of_nothing(fault.error):
        return fault.as_error(RejectedError, hint="this key has no quota for this model: check model= or the plan")
    if is_quota_of_a_day(fault.error) and retry_after_s(fault.headers) is None:
        hint = "a day's quota is used up: run the same call again when it is full, what is done is stored"
        return fault.as_error(RejectedError, hint=hint)
    return None


def loads_reply(provider: str, text: str) -> JsonObject:
    """Read a reply's JSON object, also behind the comments by which OpenRouter keeps a connection open."""
    if text.lstrip().startswith(":"):
        text = COMMENTS.sub("", text, count=1)
    try:
        payload = json.loads(text)
        payload = _whole(payload) if HALF.search(text) else payload
    except (ValueError, RecursionError):
        payload = None
    if not isinstance(payload, dict):
        raise no_reply(provider, text)
    return payload


def no_reply(provider: str, text: str) -> UnavailableError:
    """Return the error for a 200 that is no reply (a proxy's page, an empty body, another API's object)."""
    shown = hide_keys(text[:80])
    return UnavailableError(
        f"the endpoint answered 200, but no {provider} reply: {shown!r}. Is base_url right, or a proxy in between?",
        provider=provider,
        status=200,
    )


def _whole(value: Any) -> Any:
    """Return a JSON value with U+FFFD for every half of a pair (a lone surrogate) in its texts."""
    if isinstance(value, str):
        return value.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")
    if isinstance(value, dict):
        return {_whole(k): _whole(v) for k, v in value.items()}
    return [_whole(v) for v in value] if isinstance(value, list) else value


def _said(value: object) -> str:
    if value is None or isinstance(value, str):
        return value or ""
    try:
        return json.dumps(value, ensure_ascii=False, default=str)
    except RecursionError:
        return ""


def _moved(location: str) -> str:
    """Say where an answer points to, without what may be secret in it."""
    to = hide_keys(location.partition("?")[0].rpartition("@")[2])[:LONGEST_WORDS]
    return f"it points to {to!r}, and neither key nor text is sent to where a server points: is base_url right?"
