"""What went wrong, out of whatever came: an API's error object, a page, a list, nothing. Pure.

A :class:`Fault` gathers status, error object and headers; each provider's error map turns it into one of our errors,
and :func:`plain_error` holds what means the same everywhere.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TypeVar

from lmsyz.errors import ProviderError, RateLimitError, RejectedError, TooLongError, UnavailableError
from lmsyz.providers.base import JsonObject
from lmsyz.ratelimit_headers import retry_after_s
from lmsyz.transient import codes_of, is_out_of_credit, is_transient_status

__all__ = ["Fault", "error_object", "hide_keys", "loads_reply", "no_reply", "plain_error"]

LONGEST_WORDS = 500
# What looks like a key, also one that an API has masked in the middle.
KEY = re.compile(r"(?i)\b(?:sk|pk|rk|gsk|xai|csk)[-_][\w*\-]{6,}|\bAIza[\w\-]{10,}|\bBearer\s+[\w.~+/*\-]{16,}=*")
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
        return str(self.error.get("param") or "")

    def as_error(self, kind: type[E], *, hint: str = "") -> E:
        """Return an error of one class, with all that is known, and what to do about it in brackets."""
        answered = f"{self.provider} answered {self.status}" if self.status else self.provider
        details = self.error.get("details")
        details = details.get("error_code") if isinstance(details, Mapping) else None
        code = str(details or self.error.get("code") or self.error.get("type") or "")
        said = self.words or code
        return kind(
            (f"{answered}: {said}" if said else answered) + (f" ({hint})" if hint else ""),
            provider=self.provider,
            status=self.status,
            code=code,
            request_id=self.headers.get("x-request-id") or self.headers.get("request-id") or "",
            retry_after=retry_after_s(self.headers),
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
        return found
    if isinstance(body, str) and body.strip():
        page = PAGE.match(body)
        if page is None:
            return {"message": body.strip()}
        return {"message": f"a web page, no API's answer: {page[1] or 'untitled'}"}
    return {}


def hide_keys(text: str, key: str = "") -> str:
    """Return a text in which nothing that may be an API key is left."""
    if len(key) >= 4:
        text = text.replace(key, "(key)")
    return KEY.sub("(key)", text)


def plain_error(fault: Fault) -> ProviderError | None:
    """Return the error where status and code mean the same everywhere, None for what is a provider's own."""
    status = fault.status
    if status is None:
        return fault.as_error(UnavailableError)
    if is_out_of_credit(fault.codes) or status == 402:
        return fault.as_error(RejectedError, hint="no credit or a spend limit: waiting will not help")
    if status in (429, 529):
        return fault.as_error(RateLimitError)
    if status == 401:
        return fault.as_error(RejectedError, hint="the API key was not accepted: check api_key= or the environment")
    if status == 403:
        return fault.as_error(RejectedError, hint="this key may not do that")
    if status == 413:
        return fault.as_error(TooLongError)
    if is_transient_status(status):
        return fault.as_error(UnavailableError)
    return None


def loads_reply(provider: str, text: str) -> JsonObject:
    """Read a reply's JSON object."""
    try:
        payload = json.loads(text)
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


def _said(value: object) -> str:
    if value is None or isinstance(value, str):
        return value or ""
    return json.dumps(value, ensure_ascii=False, default=str)
