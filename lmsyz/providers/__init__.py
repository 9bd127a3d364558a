"""The providers: one wire format each, behind the protocol of :mod:`lmsyz.providers.base`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from lmsyz.errors import MissingKeyError, UsageError
from lmsyz.providers.base import Provider
from lmsyz.providers.models import quirks_of

__all__ = ["APIS", "BACKENDS", "base_url_of", "connect"]

APIS = {"openai": ("chat", "responses"), "anthropic": ("messages",)}
BACKENDS = tuple(APIS)
KEY_VARIABLES = {"openai": "OPENAI_API_KEY", "anthropic": "ANTHROPIC_API_KEY"}
DEFAULT_URLS = {"openai": "https://api.openai.com/v1", "anthropic": "https://api.anthropic.com"}


def connect(
    backend: str,
    *,
    api: str,
    model: str,
    client: Any = None,
    api_key: str | None = None,
    base_url: str | None = None,
    connections: int = 100,
    timeout_s: float = 600.0,
    quirks: Mapping[str, Any] | None = None,
) -> Provider:
    """Return a provider that is ready to send.

    Parameters
    ----------
    backend, api, model : str
        Which wire, and the model whose quirks apply.
    client : SDK client, optional
        A preconfigured client of the backend's SDK; its own retries are switched off in a copy.
    api_key, base_url : str, optional
        For a client of ours.
    connections : int
        How many calls may be in flight; the connection pool is sized to it.
    timeout_s : float
        Seconds that one call may take in all.
    quirks : mapping, optional
        Overrides of :class:`~lmsyz.providers.models.Quirks`.

    Returns
    -------
    Provider
        With a client that never retries by itself.
    """
    known = quirks_of(model, quirks)
    if client is not None:
        client = _checked(backend, client).with_options(max_retries=0)
    else:
        client = _new_client(backend, api_key, base_url, connections, timeout_s)
    if backend == "openai":
        from lmsyz.providers.openai import OpenAIProvider

        return OpenAIProvider(client, api=api, quirks=known)
    from lmsyz.providers.anthropic import AnthropicProvider

    return AnthropicProvider(client, quirks=known)


def base_url_of(backend: str, client: Any, base_url: str | None) -> str:
    """Return the URL that requests go to, without a trailing slash."""
    url = str(client.base_url) if client is not None else base_url or DEFAULT_URLS[backend]
    return url.rstrip("/")


def _checked(backend: str, client: Any) -> Any:
    if not callable(getattr(client, "with_options", None)) or not callable(getattr(client, "post", None)):
        raise UsageError(
            f"client= takes a client of the {backend} SDK (openai.OpenAI(...) or anthropic.Anthropic(...)), got"
            f" {type(client).__module__}.{type(client).__name__}"
        )
    name = "OpenAI" if backend == "openai" else "Anthropic"
    if type(client).__name__.startswith("Async"):
        raise UsageError(
            f"client= takes a synchronous client: {name}(...) instead of {type(client).__name__}(...)"
        )
    home = {cls.__module__.partition(".")[0] for cls in type(client).__mro__}
    other = "anthropic" if backend == "openai" else "openai"
    if other in home and backend not in home:
        raise UsageError(
            f"client= is a client of the {other} SDK, but backend={backend!r}; say backend={other!r}"
        )
    return client


def _new_client(
    backend: str, api_key: str | None, base_url: str | None, connections: int, timeout_s: float
) -> Any:
    if not api_key:
        raise MissingKeyError(missing_key_message(backend))
    import httpx2

    # Both SDKs keep 100 connections alive by default; above that, requests would open a new one each.
    limits = httpx2.Limits(max_connections=connections + 8, max_keepalive_connections=connections + 8)
    timeout = httpx2.Timeout(timeout_s, connect=10.0, pool=timeout_s)
    options: Any = {"api_key": api_key, "base_url": base_url, "max_retries": 0, "timeout": timeout}
    if backend == "openai":
        import openai

        return openai.OpenAI(**options, http_client=openai.DefaultHttpxClient(limits=limits, timeout=timeout))
    import anthropic

    return anthropic.Anthropic(
        **options, http_client=anthropic.DefaultHttpxClient(limits=limits, timeout=timeout)
    )


def missing_key_message(backend: str) -> str:
    """Say where a key may come from, and what works without one."""
    variable = KEY_VARIABLES[backend]
    return (
        f"No API key for {backend}: set {variable} in the environment or in a .env file, or pass api_key=... ."
        " No key at hand? lmsyz.sandbox.start() answers by rules on this machine, without a model and without cost;"
        " base_url='http://127.0.0.1:...' takes any local server that speaks OpenAI's API."
    )
