"""From arguments and settings to where requests go and what is asked; nothing is sent and no file is made."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import SplitResult, urlsplit

from lmsyz.errors import MissingKeyError, UsageError
from lmsyz.providers import APIS, BACKENDS, DEFAULT_URLS, base_url_of, check_key, connect, missing_key_message
from lmsyz.providers.base import Provider, body_options, call_options
from lmsyz.providers.models import DEFAULT_MODELS, SANDBOX_MODEL, check_options, quirks_of
from lmsyz.request_options import split_options
from lmsyz.schema import read_schema
from lmsyz.schema_render import render
from lmsyz.settings import Settings
from lmsyz.task import Task

__all__ = ["Place", "connect_place", "find_place", "make_task", "read_task"]

# Sent where no key is wanted; unlike any word of a message, since keys are taken out of messages.
NO_KEY = "no-key-needed"
LOOPBACK = ("127.0.0.1", "localhost", "::1")
FAMILIES = {"anthropic": re.compile(r"claude\b"), "openai": re.compile(r"(chat)?gpt\b|o[1-9]\b")}
# The name of a model that lmsyz.local serves ends in the checksum of its file, which says more than a port would.
LOCAL_MODEL = re.compile(r"@[0-9a-f]{12}$")


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """Where requests go: backend, API, model, URL and key, as arguments and settings say."""

    backend: str
    api: str
    model: str
    endpoint: str
    base_url: str | None
    api_key: str | None
    client: Any
    quirks: Mapping[str, Any]

    @property
    def has_key(self) -> bool:
        """Whether requests could be sent; a client of the user's own brings its own key."""
        return self.client is not None or bool(self.api_key)

    def __repr__(self) -> str:
        return f"<Place {self.backend} {self.api} {self.model} at {self.endpoint}>"  # never the key


def find_place(
    settings: Settings,
    *,
    backend: str | None,
    model: str | None,
    api: str | None,
    api_key: str | None,
    base_url: str | None,
    client: Any,
    quirks: Mapping[str, Any] | None,
) -> Place:
    """Decide where requests go.

    Parameters
    ----------
    settings : Settings
        Defaults for what is None.
    backend, model, api, api_key, base_url, client, quirks
        As in :meth:`df.ie.extract`.

    Returns
    -------
    Place

    Raises
    ------
    UsageError
        The backend or its API is unknown, or the model or URL is none.
    """
    backend, api = _wire(settings, backend, api)
    stand_in = (settings.local_url or settings.sandbox_url) if client is None and base_url is None else None
    if stand_in:
        base_url = stand_in.rstrip("/") + ("/v1" if backend == "openai" else "")
        api_key = api_key or NO_KEY
    elif client is None:
        base_url = base_url or settings.base_url_of(backend)
        api_key = api_key or settings.key_of(backend)
    sandboxed = bool(stand_in) and not settings.local_url
    if stand_in and not sandboxed:
        model = _served_model(settings, model)
    model = _model(settings, backend, model, sandboxed)
    quirks_of(model, quirks)
    url = base_url_of(backend, client, base_url)
    _refuse_others_model(backend, model, url)
    if client is None and api_key:
        check_key(backend, api_key)
    is_local = _is_loopback(url)
    if is_local and not api_key:
        api_key = NO_KEY  # a server on this machine wants no key, but the SDK does
    is_sandbox = sandboxed or (is_local and model.startswith(SANDBOX_MODEL))
    return Place(
        backend=backend,
        api=api,
        model=model,
        endpoint="sandbox" if is_sandbox else "local" if is_local and LOCAL_MODEL.search(model) else _endpoint(url),
        base_url=base_url,
        api_key=api_key,
        client=client,
        quirks=dict(quirks or {}),
    )


def read_task(
    settings: Settings,
    prompt: str,
    *,
    schema: Any,
    backend: str | None,
    model: str | None,
    base_url: str | None,
    client: Any,
    verify_rows: bool,
    request_options: Mapping[str, Any],
    api_key: str | None = None,
) -> tuple[Place, Task, dict[str, Any]]:
    """Read a call's arguments into where it goes, what it asks, and lmsyz's own options.

    Parameters
    ----------
    settings : Settings
        Defaults for what is None.
    prompt, schema, backend, model, base_url, client, verify_rows, request_options, api_key
        As in :meth:`df.ie.extract`.

    Returns
    -------
    tuple of Place, Task and dict

    Raises
    ------
    UsageError
        Anything of it cannot be; see :func:`find_place`, :func:`make_task` and :func:`split_options`.
    """
    own, options = split_options(request_options)
    place = find_place(
        settings,
        backend=backend,
        model=model,
        api=own.get("api"),
        api_key=api_key,
        base_url=base_url,
        client=client,
        quirks=own.get("quirks"),
    )
    return place, make_task(place, prompt, schema, verify_rows, options), own


def connect_place(place: Place, *, connections: int, timeout_s: float) -> Provider:
    """Return a provider that sends to a place.

    Parameters
    ----------
    place : Place
        Where requests go.
    connections : int
        Requests in flight, at most.
    timeout_s : float
        Seconds that one call may take in all.

    Returns
    -------
    Provider

    Raises
    ------
    MissingKeyError
        There is no key to send with.
    """
    if not place.has_key:
        raise MissingKeyError(missing_key_message(place.backend))
    return connect(
        place.backend,
        api=place.api,
        model=place.model,
        client=place.client,
        api_key=place.api_key,
        base_url=place.base_url,
        connections=connections,
        timeout_s=timeout_s,
        quirks=place.quirks,
    )


def make_task(place: Place, prompt: str, schema: Any, verify_rows: bool, request_options: Mapping[str, Any]) -> Task:
    """Put together what is asked, and refuse what cannot be.

    Parameters
    ----------
    place : Place
        Where it is asked.
    prompt, schema, verify_rows
        As in :meth:`df.ie.extract`.
    request_options : mapping
        What goes into the request as it is.

    Returns
    -------
    Task

    Raises
    ------
    UsageError
        The prompt is empty, an option cannot be, or the schema cannot be read or asked for at this provider.
    """
    if not isinstance(prompt, str) or not prompt.strip():
        raise UsageError(
            "prompt is empty; say in a sentence what to extract, as in df.ie.extract('Name the acquirer.')"
        )
    check_options(place.model, body_options(request_options), quirks_of(place.model, place.quirks))
    call_options(request_options, deadline_s=1.0)
    task = Task(
        backend=place.backend,
        api=place.api,
        endpoint=place.endpoint,
        model=place.model,
        prompt=prompt,
        schema=read_schema(schema),
        options=dict(request_options),
        verify=verify_rows,
    )
    if task.schema:
        # Rendered here as well, so that what a provider cannot express is refused before a file is made.
        render(task.schema, "anthropic" if place.backend == "anthropic" else "openai", verify=verify_rows)
    return task


def _wire(settings: Settings, backend: str | None, api: str | None) -> tuple[str, str]:
    backend = settings.backend if backend is None else backend
    if backend not in BACKENDS:
        raise UsageError(
            f"unknown backend {backend!r}; use backend='openai' (also for compatible servers, with base_url=...) or"
            " backend='anthropic'"
        )
    api = APIS[backend][0] if api is None else api
    if api not in APIS[backend]:
        raise UsageError(f"unknown api={api!r}; the {backend} backend has {' and '.join(map(repr, APIS[backend]))}")
    return backend, api


def _model(settings: Settings, backend: str, model: str | None, sandboxed: bool) -> str:
    default = settings.model if backend == settings.backend and not sandboxed else None
    model = model if model is not None else default or (SANDBOX_MODEL if sandboxed else DEFAULT_MODELS[backend])
    if not isinstance(model, str) or not model.strip():
        raise UsageError(f"model= takes a model's name, such as {DEFAULT_MODELS[backend]!r}, got {model!r}")
    return model


def _refuse_others_model(backend: str, model: str, url: str) -> None:
    """Name the backend of a model that is asked of the other one; a gateway or a server of one's own may have both."""
    of = next((other for other, name in FAMILIES.items() if name.match(model)), backend)
    if of != backend and url == DEFAULT_URLS[backend]:
        raise UsageError(
            f"model={model!r} is not served by {backend}'s API; say backend={of!r} with it (in a shell: --backend {of})"
        )


def _served_model(settings: Settings, model: str | None) -> str | None:
    """Return the one model that a local server has; it would answer under any name, and the answers would lie."""
    if model is not None and settings.local_model and model != settings.local_model:
        raise UsageError(
            f"model={model!r}, but calls go to lmsyz.local, which serves {settings.local_model} alone: leave model="
            " out, stop() the local model, or say with base_url= whom to ask"
        )
    return settings.local_model or model


def _is_loopback(url: str) -> bool:
    return (_split(url).hostname or "") in LOOPBACK


def _split(url: str) -> SplitResult:
    """Cut an address into its parts, empty ones where it is none."""
    try:
        parts = urlsplit(url)
        _ = parts.port  # read here, since a port that is no number is told of only now
    except ValueError:
        return urlsplit("")
    return parts


def _endpoint(url: str) -> str:
    """Return scheme, host, port and path: never a user, a password or a query."""
    parts = _split(url)
    port = f":{parts.port}" if parts.port else ""
    if parts.scheme not in ("http", "https") or not parts.hostname:
        shown = url.rpartition("@")[2]  # never a password
        raise UsageError(f"base_url={shown!r} is no web address; give one like 'http://127.0.0.1:8080/v1'")
    return f"{parts.scheme}://{parts.hostname}{port}{parts.path.rstrip('/')}"
