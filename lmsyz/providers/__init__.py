"""The providers: one wire format each, behind the protocol of :mod:`lmsyz.providers.base`."""

from __future__ import annotations

import weakref
from collections.abc import Mapping
from typing import Any

from lmsyz.errors import MissingKeyError, UsageError
from lmsyz.providers.base import Provider
from lmsyz.providers.batches import Batches
from lmsyz.providers.models import quirks_of

__all__ = ["APIS", "BACKENDS", "base_url_of", "batches_of", "connect", "missing_key_message", "wire"]

APIS = {"openai": ("chat", "responses"), "anthropic": ("messages",)}
BACKENDS = tuple(APIS)
CLIENTS = {"openai": "openai.OpenAI", "anthropic": "anthropic.Anthropic"}
# Clients without a batch API, and what there is instead. Azure's needs other paths and other names for its models.
BATCHLESS = {
    "AzureOpenAI": "Azure's batches are not spoken here",
    "AnthropicBedrock": "the SDK has no batches on Bedrock",
    "AnthropicVertex": "the SDK has no batches on Vertex",
    "AnthropicFoundry": "Foundry has no batch API",
}
KEY_VARIABLES = {"openai": "OPENAI_API_KEY", "anthropic": "ANTHROPIC_API_KEY"}
DEFAULT_URLS = {"openai": "https://api.openai.com/v1", "anthropic": "https://api.anthropic.com"}


def wire(backend: str, *, api: str, model: str, quirks: Mapping[str, Any] | None = None) -> Provider:
    """Return a provider that builds and reads, and has no client to send with.

    Parameters
    ----------
    backend, api, model : str
        Which wire, and the model whose quirks apply.
    quirks : mapping, optional
        Overrides of :class:`~lmsyz.providers.models.Quirks`.

    Returns
    -------
    Provider
    """
    return _provider(backend, api, model, quirks, client=None)


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
        With a client that never retries by itself; ``close()`` it when all is sent.

    Raises
    ------
    MissingKeyError
        There is no key.
    UsageError
        `client` is no synchronous client of the backend's SDK, or the key cannot be sent.
    """
    if client is not None:
        return _provider(backend, api, model, quirks, client=_checked(backend, client).with_options(max_retries=0))
    ours = _new_client(backend, api_key, base_url, connections, timeout_s)
    provider = _provider(backend, api, model, quirks, client=ours, owns_client=True)
    # Whoever forgets close() leaves no socket open: the client goes with the provider.
    weakref.finalize(provider, ours.close)
    return provider


def batches_of(provider: Provider) -> Batches:
    """Return the batch API that goes with a provider: the same bodies, the same client.

    Parameters
    ----------
    provider : Provider
        As :func:`connect` makes it; one of :func:`wire` will do to write requests and to read results.

    Returns
    -------
    Batches

    Raises
    ------
    UsageError
        The provider is none of ours, or its client is one without a batch API.
    """
    _refuse_batchless(getattr(provider, "client", None))
    from lmsyz.providers.anthropic import AnthropicProvider
    from lmsyz.providers.openai import OpenAIProvider

    if isinstance(provider, OpenAIProvider):
        from lmsyz.providers.openai_batches import OpenAIBatches

        return OpenAIBatches(provider.client, api=provider.api)
    if isinstance(provider, AnthropicProvider):
        from lmsyz.providers.anthropic_batches import AnthropicBatches

        return AnthropicBatches(provider.client)
    raise UsageError(f"{type(provider).__name__} has no batch API; backend= is one of {', '.join(BACKENDS)}")


def _refuse_batchless(client: Any) -> None:
    """Say of a client that cannot create batches what can be done with it, before a file is made."""
    for cls in type(client).__mro__:
        if cls.__name__ in BATCHLESS:
            why = BATCHLESS[cls.__name__]
            raise UsageError(
                f"client= is of {cls.__name__}, which lmsyz cannot send a batch with ({why}): ask live with"
                " df.ie.extract(..., client=...), or batch at the provider itself"
            )


def base_url_of(backend: str, client: Any, base_url: str | None) -> str:
    """Return the URL that requests go to, without a trailing slash."""
    url = str(_checked(backend, client).base_url) if client is not None else base_url or DEFAULT_URLS[backend]
    return url.rstrip("/")


def missing_key_message(backend: str) -> str:
    """Say where a key may come from, and what works without one."""
    return (
        f"No API key for {backend}: set {KEY_VARIABLES[backend]} in the environment or in a .env file, or pass"
        " api_key=... . No key at hand? lmsyz.sandbox.start() answers by rules on this machine, without a model and"
        " without cost; lmsyz.local.start() runs a small model here; base_url='http://127.0.0.1:...' takes any local"
        " server that speaks OpenAI's API."
    )


def check_key(backend: str, key: str) -> None:
    """Refuse a key that cannot be sent.

    Raises
    ------
    UsageError
        It holds a space or a character that no header can hold.
    """
    key = key.strip()
    if not key.isascii() or not key.isprintable() or " " in key:
        raise UsageError(f"the API key for {backend} holds a character that no key has; copy it again")


def _provider(
    backend: str,
    api: str,
    model: str,
    quirks: Mapping[str, Any] | None,
    *,
    client: Any,
    owns_client: bool = False,
) -> Provider:
    known = quirks_of(model, quirks)
    if backend == "openai":
        from lmsyz.providers.openai import OpenAIProvider

        return OpenAIProvider(client, api=api, quirks=known, owns_client=owns_client)
    from lmsyz.providers.anthropic import AnthropicProvider

    return AnthropicProvider(client, quirks=known, owns_client=owns_client)


def _checked(backend: str, client: Any) -> Any:
    """Return a client that can be asked, and say of any other what to pass instead."""
    wanted = f"{CLIENTS[backend]}(...)"
    needed = ("with_options", "post", "base_url")
    if isinstance(client, type) or not all(hasattr(client, name) for name in needed):
        kind = client if isinstance(client, type) else type(client)
        raise UsageError(
            f"client= takes a client of the {backend} SDK, {wanted}, got {kind.__module__}.{kind.__qualname__}"
        )
    names = {cls.__name__ for cls in type(client).__mro__}
    if names & {"AsyncAPIClient", "AsyncOpenAI", "AsyncAnthropic"}:
        raise UsageError(f"client= takes a synchronous client: {wanted} instead of {type(client).__name__}(...)")
    homes = {cls.__module__.partition(".")[0] for cls in type(client).__mro__}
    other = next(b for b in BACKENDS if b != backend)
    if other in homes and backend not in homes:
        raise UsageError(f"client= is a client of the {other} SDK, but backend={backend!r}; say backend={other!r}")
    return client


def _new_client(backend: str, api_key: str | None, base_url: str | None, connections: int, timeout_s: float) -> Any:
    key = (api_key or "").strip()
    if not key:
        raise MissingKeyError(missing_key_message(backend))
    check_key(backend, key)
    from lmsyz.providers.http import http_options

    options: Any = {"api_key": key, "base_url": base_url or DEFAULT_URLS[backend], "max_retries": 0}
    transport = http_options(connections, timeout_s)
    if backend == "openai":
        import openai

        return openai.OpenAI(
            **options, timeout=transport["timeout"], http_client=openai.DefaultHttpxClient(**transport)
        )
    import anthropic

    return anthropic.Anthropic(
        **options, timeout=transport["timeout"], http_client=anthropic.DefaultHttpxClient(**transport)
    )
