"""Sockets that reach this machine alone. Of the standard library only: every Python that is started loads it."""

from __future__ import annotations

import ipaddress
import socket
from collections.abc import Callable
from typing import Any

INTERNET = (socket.AF_INET, socket.AF_INET6)


def is_this_machine(host: object) -> bool:
    """Whether a host is loopback, by name or address."""
    if host in (None, "", b"", "localhost", b"localhost"):
        return True
    try:
        return ipaddress.ip_address(str(host)).is_loopback
    except ValueError:
        return False


def guards(refuse: Callable[[object], None]) -> list[tuple[Any, str, Callable[..., Any]]]:
    """Return what to put in the place of what, so that every host but this machine is refused first."""
    connect, connect_ex, getaddrinfo = socket.socket.connect, socket.socket.connect_ex, socket.getaddrinfo

    def check(host: object) -> None:
        if not is_this_machine(host):
            refuse(host)

    def guarded_connect(self: socket.socket, address: Any) -> None:
        if self.family in INTERNET:
            check(address[0])
        connect(self, address)

    def guarded_connect_ex(self: socket.socket, address: Any) -> int:
        if self.family in INTERNET:
            check(address[0])
        return connect_ex(self, address)

    def guarded_getaddrinfo(host: Any, *args: Any, **kwargs: Any) -> Any:
        check(host)
        return getaddrinfo(host, *args, **kwargs)

    return [
        (socket.socket, "connect", guarded_connect),
        (socket.socket, "connect_ex", guarded_connect_ex),
        (socket, "getaddrinfo", guarded_getaddrinfo),
    ]
