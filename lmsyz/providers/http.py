"""The HTTP client under an SDK client of ours: pool, timeouts, and a bound on bodies that only the SDK reads.

Imported where a client is made, never at import of the package: it loads the SDKs' transport.
"""

from __future__ import annotations

import os
import ssl
import threading
import time
from collections.abc import Callable, Iterator
from functools import lru_cache
from typing import Any
from urllib.request import getproxies

import httpx2

from lmsyz.providers.sending import CONNECT_S

__all__ = ["http_options"]

LARGEST_ERROR_BODY = 1024 * 1024


def http_options(connections: int, timeout_s: float) -> dict[str, Any]:
    """Return the arguments of an SDK's ``DefaultHttpxClient``.

    Parameters
    ----------
    connections : int
        Calls in flight, at most. Both SDKs keep 100 connections alive by default; above that, every request would
        open a new one.
    timeout_s : float
        Seconds that a call may take. The pool's own default waits 600 s for a free connection.
    """
    limits = httpx2.Limits(max_connections=connections + 8, max_keepalive_connections=connections + 8)
    verify = _certificates(os.environ.get("SSL_CERT_FILE"), os.environ.get("SSL_CERT_DIR"))
    options: dict[str, Any] = {
        "limits": limits,
        "timeout": httpx2.Timeout(timeout_s, connect=min(timeout_s, CONNECT_S)),
        "event_hooks": {"response": [_bound_error_body]},
        "verify": verify,
    }
    if not getproxies().keys() & {"http", "https", "all"}:
        # A client that is given its transport does not look for proxies.
        options["transport"] = _OneAThread(lambda: httpx2.HTTPTransport(verify=verify, limits=limits))
    return options


@lru_cache(maxsize=4)
def _certificates(file: str | None, folder: str | None) -> ssl.SSLContext:
    """Return what a client verifies servers by. Reading it is most of what making a client costs."""
    return httpx2.create_ssl_context()


def _bound_error_body(response: httpx2.Response) -> None:
    # The SDKs read these themselves, before anyone sees the response, with a timeout that every byte starts anew.
    if response.status_code >= 300 and isinstance(response.stream, httpx2.SyncByteStream):
        response.stream = _Bounded(response, response.request.extensions.get("timeout", {}).get("read"))
        response.headers.pop("content-encoding", None)


class _Bounded(httpx2.SyncByteStream):
    """A body, unpacked, that ends after so many bytes, and fails after so many seconds."""

    def __init__(self, response: httpx2.Response, seconds: float | None) -> None:
        # Unpacked here, piece by piece: packed, a thousandth of the bytes would fill the memory all the same.
        packing = [("content-encoding", name) for name in response.headers.get_list("content-encoding")]
        self._unpacked = httpx2.Response(
            response.status_code, headers=packing, stream=response.stream, request=response.request
        )
        self._until = None if seconds is None else time.monotonic() + seconds

    def __iter__(self) -> Iterator[bytes]:
        size = 0
        for piece in self._unpacked.iter_bytes():
            yield piece
            size += len(piece)
            if size > LARGEST_ERROR_BODY:
                return
            if self._until is not None and time.monotonic() > self._until:
                raise httpx2.ReadTimeout("the body of an error answer did not end in time")

    def close(self) -> None:
        self._unpacked.close()


class _OneAThread(httpx2.BaseTransport):
    """A transport for each thread: a shared one looks through all its connections, twice a request."""

    def __init__(self, make: Callable[[], httpx2.HTTPTransport]) -> None:
        self._make = make
        self._own = threading.local()
        self._all: list[httpx2.HTTPTransport] = []

    def handle_request(self, request: httpx2.Request) -> httpx2.Response:
        transport: httpx2.HTTPTransport | None = getattr(self._own, "transport", None)
        if transport is None:
            transport = self._own.transport = self._make()
            self._all.append(transport)
        return transport.handle_request(request)

    def close(self) -> None:
        for transport in self._all:
            transport.close()
