"""Every error that lmsyz raises.

The class decides what happens next, so that the engines never look at status codes or SDK types::

    LmsyzError
    ├─ UsageError (ValueError)           the call is wrong; nothing was sent, nothing spent
    │   └─ MissingKeyError               no API key; names the variable, the setting and the argument
    ├─ MissingExtraError (ImportError)   an optional package is not installed; gives the pip line
    ├─ CacheError                        the cache file cannot be opened, read or written
    ├─ SandboxError                      the loopback sandbox cannot be started or reached
    ├─ LocalModelError                   the local model cannot be served
    ├─ ProviderError                     the provider did not answer with a reply
    │   ├─ RateLimitError                try again later; everyone slows down if it helps (429, 529)
    │   ├─ UnavailableError              try again (5xx, timeout, connection, a 200 that is no reply)
    │   ├─ RejectedError                 stop the run now (bad key, no credit, unknown model or option)
    │   └─ RequestError                  this request cannot work; the others may
    │       ├─ TooLongError              over the model's window or the body limit: split it
    │       ├─ BlockedError              refused before the model saw it (content policy)
    │       └─ UnsupportedFormError      this way of asking for structured output is not supported here
    ├─ ReplyError                        a reply came, was paid for, and is unusable as a whole
    │   ├─ TruncatedError                stopped at the token limit
    │   ├─ RefusedError                  the model refused, or a content filter stopped it
    │   └─ MalformedError                not the JSON that was asked for
    ├─ ImageError                        an image cannot be read any more as it was when the call began
    ├─ BatchError                        a batch job cannot go on by itself; says what to type
    └─ ExtractionError                   on_error="raise": some rows have no answer

One row's trouble is data (``ie_error``); a whole run's trouble is an exception, raised once.
``RunInterrupted`` is a KeyboardInterrupt: a notebook's stop button or Ctrl-C, with what was kept.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

__all__ = [
    "BatchError",
    "BlockedError",
    "CacheError",
    "ExtractionError",
    "ImageError",
    "LmsyzError",
    "LocalModelError",
    "MalformedError",
    "MissingExtraError",
    "MissingKeyError",
    "ProviderError",
    "RateLimitError",
    "RefusedError",
    "RejectedError",
    "ReplyError",
    "RequestError",
    "RunInterrupted",
    "SandboxError",
    "TooLongError",
    "TruncatedError",
    "UnavailableError",
    "UnsupportedFormError",
    "UsageError",
]


class LmsyzError(Exception):
    """Base of every error that lmsyz raises on its own account."""


class UsageError(LmsyzError, ValueError):
    """The call is wrong. Nothing was sent and nothing was spent."""


class MissingKeyError(UsageError):
    """No API key for a provider that needs one."""


class MissingExtraError(LmsyzError, ImportError):
    """An optional package is not installed; the message gives the pip line."""


class CacheError(LmsyzError):
    """The cache file cannot be opened, read or written."""


class SandboxError(LmsyzError):
    """The loopback sandbox cannot be started, found or reached."""


class LocalModelError(LmsyzError):
    """The model file is not what it should be, or its server cannot be started."""


class ProviderError(LmsyzError):
    """The provider did not answer with a reply.

    Parameters
    ----------
    message : str
        What happened, in one line, without any secret.
    provider : str
        ``"openai"`` or ``"anthropic"``.
    status : int or None
        HTTP status, None where no answer came at all.
    code : str
        The provider's own error code or type, empty where it gave none.
    request_id : str
        The provider's id for the request, for its support desk.
    retry_after : float or None
        Seconds the provider asked to wait.
    headers : mapping, optional
        The answer's headers, names in lower case, for the rate limits they tell.
    """

    def __init__(
        self,
        message: str,
        *,
        provider: str = "",
        status: int | None = None,
        code: str = "",
        request_id: str = "",
        retry_after: float | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(message)
        self.provider = provider
        self.status = status
        self.code = code
        self.request_id = request_id
        self.retry_after = retry_after
        self.headers = dict(headers or {})


class RateLimitError(ProviderError):
    """Too many requests or tokens for now (429), or the provider is overloaded (529)."""


class UnavailableError(ProviderError):
    """No usable answer this time: 5xx, timeout, lost connection, or a 200 that is no reply."""


class RejectedError(ProviderError):
    """No request of this run can work: bad key, no credit, unknown model, refused option."""


class RequestError(ProviderError):
    """The request cannot work as it is; others of the run may."""


class TooLongError(RequestError):
    """The request is over the model's window or the provider's body limit."""


class BlockedError(RequestError):
    """The provider's content policy refused the request before the model saw it."""


class UnsupportedFormError(RequestError):
    """The endpoint or model does not support this way of asking for structured output."""


class ReplyError(LmsyzError):
    """A reply came and was paid for, but is unusable as a whole."""


class TruncatedError(ReplyError):
    """The reply stopped at the output token limit or the end of the context window."""


class RefusedError(ReplyError):
    """The model refused to answer, or a content filter stopped it."""


class MalformedError(ReplyError):
    """The reply is not the JSON that was asked for."""


class ImageError(LmsyzError):
    """An image cannot be read, or is not what it was when the call began; its row was not sent."""


class BatchError(LmsyzError):
    """A batch job cannot go on by itself: its ledger, its lock, or what the provider knows of it. Nothing was lost."""


class ExtractionError(LmsyzError):
    """Some rows have no answer and the call asked for ``on_error="raise"``.

    Parameters
    ----------
    message : str
        How many rows failed, why, and what to do.
    result : DataFrame or None
        The full aligned result, failed rows marked in ``ie_error``; every good row is stored.
    """

    def __init__(self, message: str, result: Any = None) -> None:
        super().__init__(message)
        self.result = result


class RunInterrupted(KeyboardInterrupt):
    """A run was interrupted; every finished row is stored and the next call goes on from there."""

    def _render_traceback_(self) -> list[str]:
        """Show one line instead of a traceback (read by IPython)."""
        return [str(self)]
