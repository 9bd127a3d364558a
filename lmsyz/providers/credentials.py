"""What a client of the user's own brings along: secrets that no message may show, and tokens that cannot be had.

A client may get its key from a function of the user's (Azure's ``azure_ad_token_provider``, a callable ``api_key``,
workload identity, Anthropic's ``credentials``). The SDKs call it before each request and let through whatever it
raises, which without a word of ours would look like a bug in the call.
"""

from __future__ import annotations

import re
import traceback
from typing import Any

from lmsyz.errors import ProviderError, RejectedError, UnavailableError
from lmsyz.providers.faults import hide_keys

__all__ = ["credential_error", "hide_secrets"]

SDKS = ("openai", "anthropic")
HTTP_LIBRARIES = ("httpx2", "httpx", "httpcore2", "httpcore")
# As openai 3.54 has it for an exchange of tokens (auth/_workload.py).
BUSY = re.compile(r"failed with status (?:429|5\d\d)\b")
SECRETS = ("api_key", "auth_token", "access_token", "_azure_ad_token", "aws_secret_key", "aws_session_token")
# Where the two SDKs put a request's credentials together; nothing else that can fail happens there.
STEPS = frozenset(
    {
        "_apply_credentials",
        "_ensure_access_token",
        "_get_azure_ad_token",
        "_get_subject_token",
        "_prepare_options",
        "_prepare_request",
        "_refresh_api_key",
        "get_token",
    }
)


def hide_secrets(text: str, client: Any) -> str:
    """Return a text in which neither a client's own secrets are left nor anything else that may be a key."""
    for name in SECRETS:
        secret = getattr(client, name, None)
        if isinstance(secret, str):
            text = hide_keys(text, secret)
    return hide_keys(text)


def credential_error(provider: str, chain: list[BaseException], client: Any) -> ProviderError | None:
    """Return our error for a token that could not be had, None for a call that failed elsewhere.

    Parameters
    ----------
    provider : str
        For the message.
    chain : list of BaseException
        What was raised, and what caused it.
    client : SDK client
        Whose secrets the message must not show.
    """
    if not any(map(_is_of_credentials, chain)):
        return None
    said = [f"{type(e).__name__}: {e}" if str(e) else type(e).__name__ for e in chain if not _is_plain_wrapping(e)]
    reason = hide_secrets(said[0] if said else type(chain[0]).__name__, client)
    message = f"{provider}: client= could not prepare the call, so nothing was sent: {reason}"
    if any(map(_passes, chain)):
        return UnavailableError(message, provider=provider)
    hint = "is its token provider, its key or its sign-in in order?"
    return RejectedError(f"{message} ({hint})", provider=provider)


def _is_plain_wrapping(error: BaseException) -> bool:
    return type(error).__name__ == "APIConnectionError"  # its text is "Connection error."


def _passes(error: BaseException) -> bool:
    """Whether it was the network that failed, or the server that gives tokens, so that another try can help."""
    if isinstance(error, (FileNotFoundError, PermissionError, IsADirectoryError)):
        return False
    is_of_http = any(cls.__module__.partition(".")[0] in HTTP_LIBRARIES for cls in type(error).__mro__)
    return is_of_http or isinstance(error, OSError) or BUSY.search(str(error)) is not None


def _is_of_credentials(error: BaseException) -> bool:
    return any(
        frame.f_code.co_name in STEPS and str(frame.f_globals.get("__name__")).partition(".")[0] in SDKS
        for frame, _ in traceback.walk_tb(error.__traceback__)
    )
