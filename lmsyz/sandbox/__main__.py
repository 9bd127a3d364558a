"""The server process: reads its orders as one line of JSON, binds a loopback port, says where, and serves.

Started by ``lmsyz.sandbox.start()``, never by hand. It ends when told to (``/sandbox/stop``, SIGTERM), when it has been
idle for hours, or, if it is private to its parent, when its standard input is closed: that is, with its parent.
"""

from __future__ import annotations

import asyncio
import contextlib
import importlib
import json
import os
import socket
import sys
import threading
import time
from pathlib import Path
from typing import Any

import uvicorn
from uvicorn.protocols.http.auto import AutoHTTPProtocol

from lmsyz.sandbox import registry, tone
from lmsyz.sandbox.batch_runner import Runner
from lmsyz.sandbox.batch_shelf import Shelf
from lmsyz.sandbox.faults import Faults
from lmsyz.sandbox.server import APIS, make_app
from lmsyz.sandbox.state import State

IDLE_CHECK_S = 10.0
KEEP_ALIVE_S = 120  # longer than any client keeps an idle connection, so that none is closed under a request


class _Protocol(AutoHTTPProtocol):  # type: ignore[misc, valid-type]
    """Uvicorn's protocol, with small packets sent at once, and the connection in reach of the fault that drops it."""

    app_state: dict[str, Any]

    def connection_made(self, transport: asyncio.Transport) -> None:
        """Take a new connection."""
        sock = transport.get_extra_info("socket")
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.app_state = {**self.app_state, "transport": transport}
        super().connection_made(transport)


def _read_line() -> dict[str, Any]:
    data = b""
    while not data.endswith(b"\n"):
        # Not sys.stdin: a thread that still waits in its buffer when the process ends would bring it down.
        more = os.read(0, 65536)
        if not more:
            raise SystemExit("the sandbox's server is started by lmsyz.sandbox.start()")
        data += more
    orders: dict[str, Any] = json.loads(data)
    return orders


def _bind(port: int | None) -> socket.socket:
    sock = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    if os.name == "posix":
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    sock.bind(("127.0.0.1", port or 0))
    sock.listen(2048)
    return sock


def _end_with_parent(server: uvicorn.Server) -> None:
    def wait() -> None:
        while os.read(0, 65536):
            pass
        server.should_exit = True

    threading.Thread(target=wait, daemon=True).start()


def _warm_up() -> None:
    """Load lexicon and validator while whoever started us is still on the way back to their own work."""
    importlib.import_module("jsonschema")
    tone.read("")


async def _serve(server: uvicorn.Server, sock: socket.socket, state: State, idle_s: float) -> None:
    async def watch() -> None:
        while True:
            await asyncio.sleep(min(IDLE_CHECK_S, idle_s))
            if not state.in_flight and time.monotonic() - state.last_used > idle_s:
                server.should_exit = True

    watching = asyncio.create_task(watch())
    try:
        await server.serve(sockets=[sock])
    finally:
        watching.cancel()


def main() -> None:
    """Serve until told to stop."""
    orders = _read_line()
    state = State(orders["seed"], Faults.of(None, orders["faults"]))
    try:
        sock = _bind(orders["port"])
    except OSError as error:
        sys.stdout.write(json.dumps({"error": f"port {orders['port']} cannot be used: {error}"}) + "\n")
        return
    holder: list[uvicorn.Server] = []
    folder = Path(orders["state_dir"]) if orders["state_dir"] else None
    runner = Runner(Shelf(None if folder is None else folder / "batches"), APIS, state.fell)
    app = make_app(state, orders["token"], lambda: setattr(holder[0], "should_exit", True), runner)
    config = uvicorn.Config(
        app,
        http=_Protocol,
        ws="none",
        lifespan="off",
        access_log=False,
        log_level="warning",
        server_header=False,
        timeout_keep_alive=KEEP_ALIVE_S,
        timeout_graceful_shutdown=1,
    )
    server = uvicorn.Server(config)
    holder.append(server)
    entry = registry.Entry(pid=os.getpid(), port=sock.getsockname()[1], token=orders["token"], build=registry.build())
    if folder is not None:
        registry.write(folder, entry)
    if orders["private"]:
        _end_with_parent(server)
    sys.stdout.write(json.dumps({"port": entry.port, "pid": entry.pid}) + "\n")
    sys.stdout.flush()
    _warm_up()
    try:
        asyncio.run(_serve(server, sock, state, orders["idle_s"]))
    except KeyboardInterrupt:
        pass
    finally:
        runner.close()
        if folder is not None:
            with contextlib.suppress(OSError):
                registry.forget(folder, entry)


if __name__ == "__main__":
    main()
