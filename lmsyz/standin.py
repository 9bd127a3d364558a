"""What the endpoints on this machine share: a process of their own, being the default, and saying who answers.

The default endpoint is told by environment variables, so that what a program starts sees it too. Only one holds it: who
takes it puts the others aside, and puts back what was there when it gives it up.
"""

from __future__ import annotations

import contextlib
import html
import json
import os
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Mapping
from typing import Any

from lmsyz.html_block import html_block

__all__ = ["VARIABLES", "Addresses", "DefaultEndpoint", "end", "hear", "show", "spawn"]

VARIABLES = ("LMSYZ_SANDBOX_URL", "LMSYZ_LOCAL_URL", "LMSYZ_LOCAL_MODEL", "LMSYZ_LOCAL_CONTEXT")


class Addresses:
    """Where a server on this machine listens, as each SDK wants it."""

    _port: int

    @property
    def url(self) -> str:
        """Where it listens."""
        return f"http://127.0.0.1:{self._port}"

    @property
    def openai_base_url(self) -> str:
        """What ``base_url=`` wants with ``backend="openai"``, and ``openai.OpenAI(base_url=...)``."""
        return f"{self.url}/v1"

    @property
    def anthropic_base_url(self) -> str:
        """What ``base_url=`` wants with ``backend="anthropic"``, and ``anthropic.Anthropic(base_url=...)``."""
        return self.url


class DefaultEndpoint:
    """One server's claim to be where calls go that name no server.

    Parameters
    ----------
    **variables : str
        What of :data:`VARIABLES` is set while it holds; the others are not set.
    """

    def __init__(self, **variables: str) -> None:
        self._variables = variables
        self._before: Mapping[str, str] | None = None

    @property
    def is_taken(self) -> bool:
        """Whether the claim stands."""
        return self._before is not None

    def take(self) -> None:
        """Make it the default; taking it twice does no harm."""
        if self._before is None:
            self._before = _now()
            _claims.append(self)
        _set(self._variables)

    def give_back(self) -> None:
        """Restore what was the default before; one that took over since keeps it, and will not restore this one."""
        before, self._before = self._before, None
        if before is None:
            return
        _claims.remove(self)
        before = {} if before == self._variables else before
        for other in _claims:
            if other._before == self._variables:
                other._before = before
        if _now() == self._variables:
            _set(before)


_claims: list[DefaultEndpoint] = []


def spawn(*arguments: str, log: Any) -> subprocess.Popen[bytes]:
    """Start a Python of our own that takes its orders from its input; what it complains of goes to ``log``."""
    options: dict[str, Any] = {}
    if os.name == "posix":
        options["start_new_session"] = True  # neither Ctrl-C nor a kernel's restart is for it
    else:
        options["creationflags"] = 0x00000008 | 0x00000200  # DETACHED_PROCESS, CREATE_NEW_PROCESS_GROUP
    # -P: a file of the user's that is named like a module must not be imported in its place.
    return subprocess.Popen(
        [sys.executable, "-P", *arguments],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=log,
        cwd=tempfile.gettempdir(),
        **options,
    )


def hear(process: subprocess.Popen[bytes], orders: Mapping[str, Any], *, within_s: float) -> bytes:
    """Give a server its orders and return the line that says where it listens; empty where it ended instead."""
    assert process.stdin is not None
    assert process.stdout is not None
    giving_up = threading.Timer(within_s, process.kill)
    giving_up.start()
    try:
        process.stdin.write(json.dumps(orders).encode() + b"\n")
        process.stdin.flush()
        return process.stdout.readline()
    except OSError:
        return b""
    except BaseException:
        end(process)
        raise
    finally:
        giving_up.cancel()
        process.stdout.close()


def end(process: subprocess.Popen[bytes]) -> None:
    """See a server to its end, and close what leads to it."""
    if process.stdin is not None:
        with contextlib.suppress(OSError):
            process.stdin.close()
    try:
        process.wait(5)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def show(text: str) -> bool:
    """Display a text in the running notebook; False where no kernel runs."""
    if "IPython" not in sys.modules:
        return False
    import IPython
    import IPython.display

    shell = IPython.get_ipython()
    if shell is None or getattr(shell, "kernel", None) is None:
        return False
    display: Callable[..., object] = IPython.display.display
    display({"text/plain": text, "text/html": html_block(html.escape(text))}, raw=True)
    return True


def _now() -> dict[str, str]:
    return {name: os.environ[name] for name in VARIABLES if name in os.environ}


def _set(variables: Mapping[str, str]) -> None:
    for name in VARIABLES:
        if name in variables:
            os.environ[name] = variables[name]
        else:
            os.environ.pop(name, None)
