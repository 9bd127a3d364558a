"""One body out, one answer back: through an SDK client's plain methods, within a deadline, errors made ours.

The SDK keeps what is its own: keys, headers, base URL, query, Azure's and Bedrock's paths. What is left out is what
costs most of a call, its parameter transforms and its models (see the error map of each provider for the rest).
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any

from lmsyz.errors import ProviderError, RejectedError, UnavailableError, UsageError
from lmsyz.providers.base import Call, JsonObject, Raw
from lmsyz.providers.credentials import HTTP_LIBRARIES, credential_error, hide_secrets
from lmsyz.providers.faults import Fault, error_object

__all__ = [
    "QUIET_S",
    "STAY_HERE",
    "allow_only",
    "deadline_of",
    "errors_made_ours",
    "file_deadline",
    "post_once",
    "send_once",
]

# No provider's reply comes near; a body without end must not fill the memory.
LARGEST_REPLY = 64 * 1024 * 1024
CONNECT_S = 10.0
SDK_TIMEOUT_S = 600.0  # of a client that was given none
SLOWEST_BYTES_PER_S = 32 * 1024  # a file of 200 MB may take 100 minutes
QUIET_S = 60.0  # within a file, without a byte
SDK_ERRORS = ("OpenAIError", "AnthropicError")
# A redirect would take the texts to another host, and the key as well, in any header but one. And a file is read once.
STAY_HERE = {"follow_redirects": False}


def post_once(
    client: Any,
    path: str,
    *,
    provider: str,
    body: JsonObject,
    call: Call,
    error_of: Callable[[Fault], ProviderError],
) -> Raw:
    """Post a body once and return the answer's exact text.

    Parameters
    ----------
    client : SDK client
        With its own retries off.
    path : str
        As the SDK's own methods have it.
    provider : str
        For messages.
    body : dict
        The request body.
    call : Call
        Headers, query and deadline.
    error_of : callable
        The provider's error map.

    Returns
    -------
    Raw

    Raises
    ------
    ProviderError
        One of our errors, whatever happened on the way.
    """
    return send_once(client, "post", path, provider=provider, call=call, error_of=error_of, body=body, stream=True)


def send_once(
    client: Any,
    method: str,
    path: str,
    *,
    provider: str,
    call: Call,
    error_of: Callable[[Fault], ProviderError],
    n_bytes: int = 0,
    **arguments: Any,
) -> Raw:
    """Do what :func:`post_once` does, by any of an SDK client's methods and with whatever it takes.

    Parameters
    ----------
    client, path, provider, call, error_of
        As for :func:`post_once`.
    method : str
        ``"get"``, ``"post"`` or ``"delete"``.
    n_bytes : int
        Size of a file that is sent along, which may take its time, see :func:`file_deadline`.
    **arguments
        For the SDK's method. With ``stream=True`` the answer is read here, against the clock, and nowhere parsed.

    Returns
    -------
    Raw
    """
    answer_s = deadline_of(client, call)
    deadline_s = file_deadline(answer_s, n_bytes)
    import httpx2

    timeout = httpx2.Timeout(answer_s, connect=min(answer_s, CONNECT_S))
    options: Any = {"headers": call.headers, "params": call.query, "timeout": timeout, **STAY_HERE}
    started = time.monotonic()
    with errors_made_ours(client, provider, error_of, deadline_s):
        response = getattr(client, method)(path, cast_to=httpx2.Response, options=options, **arguments)
        return _read(provider, response, started, deadline_s)


def deadline_of(client: Any, call: Call) -> float:
    """Return the seconds that a call may take: as asked for, or else no more than a user's own client allows.

    Raises
    ------
    UsageError
        There is no client to send with.
    """
    if client is None:
        raise UsageError(
            "this provider was made to build and read only; lmsyz.providers.connect(...) makes one that sends"
        )
    return call.deadline_s if call.is_asked_for else min(call.deadline_s, _own_timeout_s(client))


def file_deadline(deadline_s: float, n_bytes: int) -> float:
    """Return the seconds that a call with a file may take: its own, and what the file needs on a slow line."""
    return deadline_s + n_bytes / SLOWEST_BYTES_PER_S


@contextmanager
def errors_made_ours(
    client: Any, provider: str, error_of: Callable[[Fault], ProviderError], deadline_s: float
) -> Iterator[None]:
    """Turn whatever an SDK or the network raises into one of our errors; what is no fault of a call stays."""
    try:
        yield
    except ProviderError:
        raise
    except Exception as error:
        fault = _status_fault(provider, error, client)
        if fault is not None:
            # All that the SDK's exception knows is in ours; its own text may repeat the key.
            raise error_of(fault) from None
        ours = _network_error(provider, error, client, deadline_s)
        if ours is None:
            raise
        raise ours from (None if isinstance(ours, RejectedError) else error)


def _own_timeout_s(client: Any) -> float:
    """Return the seconds that a user's own client was made with, infinity where it has the SDK's default."""
    timeout = getattr(client, "timeout", None)
    seconds = getattr(timeout, "read", timeout)
    if not isinstance(seconds, (int, float)) or seconds == SDK_TIMEOUT_S:
        return math.inf
    return float(seconds)


def _read(provider: str, response: Any, started: float, deadline_s: float) -> Raw:
    """Read an answer against the clock and a size that a reply can have."""
    until = started + deadline_s
    try:
        allow_only(response, until - time.monotonic())
        text = _text(provider, response.iter_bytes(), until, deadline_s)
        headers = {k.lower(): v for k, v in response.headers.items()}
    finally:
        response.close()
    return Raw(text=text, headers=headers, latency_s=time.monotonic() - started)


def allow_only(response: Any, seconds: float) -> None:
    """Let the body be waited for no longer than what is left; a read timeout counts anew from every byte."""
    # The transport looks at this when the body's first byte is asked for.
    timeouts = response.request.extensions.get("timeout")
    if isinstance(timeouts, dict):
        timeouts["read"] = max(seconds, 0.001)


def _text(provider: str, pieces: Iterable[bytes], until: float, deadline_s: float) -> str:
    body = bytearray()
    for piece in pieces:
        body += piece
        if time.monotonic() > until:
            raise _too_late(provider, deadline_s)
        if len(body) > LARGEST_REPLY:
            raise UnavailableError(
                f"{provider} sent more than {LARGEST_REPLY >> 20} MiB for one reply", provider=provider
            )
    return body.decode("utf-8", "replace")


def _too_late(provider: str, deadline_s: float) -> UnavailableError:
    return UnavailableError(
        f"{provider} had not finished its answer after {deadline_s:g} s (timeout=... changes that)", provider=provider
    )


def _status_fault(provider: str, error: Exception, client: Any) -> Fault | None:
    """Return what an SDK's status error knows, read by attributes; None for any other exception."""
    status = getattr(error, "status_code", None)
    if not isinstance(status, int):
        return None
    found = {
        name: hide_secrets(value, client) if isinstance(value, str) else value
        for name, value in error_object(getattr(error, "body", None)).items()
    }
    headers = getattr(getattr(error, "response", None), "headers", None) or {}
    return Fault(
        provider=provider,
        status=status,
        error=found,
        headers={str(k).lower(): str(v) for k, v in headers.items()},
    )


def _network_error(provider: str, error: Exception, client: Any, deadline_s: float) -> ProviderError | None:
    """Return our error for a call that brought no answer; None for what is no fault of the call, such as a bug."""
    chain = list(_causes(error))
    names = {cls.__name__ for e in chain for cls in type(e).__mro__}
    untaken = credential_error(provider, chain, client)
    if untaken is not None:
        return untaken
    where = hide_secrets(str(getattr(client, "base_url", "")).rstrip("/"), client)
    if any("CERTIFICATE_VERIFY_FAILED" in str(e) for e in chain):
        hint = "behind a proxy that opens TLS, SSL_CERT_FILE names its certificates"
        return RejectedError(f"{provider}: the certificate of {where} cannot be verified ({hint})", provider=provider)
    if "LocalProtocolError" in names or "UnicodeEncodeError" in names:
        # Its text shows the header, and the header may be the key.
        return RejectedError(
            f"{provider}: the key, a header or the text of this call holds a character that cannot be sent",
            provider=provider,
        )
    if names & {"TimeoutException", "APITimeoutError"}:
        connecting = "ConnectTimeout" in names
        within = f"within {min(deadline_s, CONNECT_S) if connecting else deadline_s:g} s"
        what = f"cannot be reached {within}" if connecting else f"gave no answer {within}"
        return UnavailableError(f"{provider}: {where} {what} (timeout=... changes that)", provider=provider)
    if "APIConnectionError" in names or any(_is_of_http(e) or isinstance(e, OSError) for e in chain):
        reason = hide_secrets(str(chain[-1]) or type(chain[-1]).__name__, client)
        hint = (
            " (is it running, and is base_url right?)"
            if any(isinstance(e, ConnectionRefusedError) for e in chain)
            else ""
        )
        return UnavailableError(f"{provider}: the connection to {where} failed: {reason}{hint}", provider=provider)
    if names & set(SDK_ERRORS) or (isinstance(error, TypeError) and "authentication" in str(error)):
        reason = hide_secrets(str(error), client)
        return RejectedError(f"the {provider} client refused the call: {reason}", provider=provider)
    return None


def _causes(error: BaseException) -> Iterable[BaseException]:
    at: BaseException | None = error
    seen: set[int] = set()
    while at is not None and id(at) not in seen:
        seen.add(id(at))
        yield at
        at = at.__cause__ or at.__context__


def _is_of_http(error: BaseException) -> bool:
    return any(cls.__module__.partition(".")[0] in HTTP_LIBRARIES for cls in type(error).__mro__)
