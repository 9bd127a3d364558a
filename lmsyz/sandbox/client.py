"""The near side of the sandbox: starting or finding the server process, and the handle on it."""

from __future__ import annotations

import contextlib
import html
import importlib.util
import json
import os
import subprocess
import time
from pathlib import Path
from types import TracebackType
from typing import Any

from lmsyz.errors import MissingExtraError, SandboxError, UsageError
from lmsyz.html_block import html_block
from lmsyz.sandbox import notice, process, registry
from lmsyz.sandbox.faults import Faults
from lmsyz.standin import Addresses, DefaultEndpoint

__all__ = ["Sandbox", "start"]

NEEDED = ("starlette", "uvicorn", "python_multipart", "vaderSentiment")


def start(
    *,
    port: int | None = None,
    seed: int = 0,
    faults: Faults | None = None,
    default: bool = True,
    state_dir: str | os.PathLike[str] | None = None,
    fresh: bool = False,
) -> Sandbox:
    """Start the sandbox, or find the one that runs, and make it this kernel's default endpoint.

    A process of its own on 127.0.0.1 that answers by documented rules (:mod:`lmsyz.sandbox.rules`), not by a language
    model. It outlives this kernel, so that the next one finds it, and ends by itself after six idle hours.

    Parameters
    ----------
    port : int, optional
        Port to listen on; a free one by default.
    seed : int
        Seed of every fault.
    faults : Faults, optional
        What goes wrong; nothing by default. Both are set anew on a sandbox that already runs.
    default : bool
        Set ``LMSYZ_SANDBOX_URL``, which ``df.ie`` reads, until ``stop()``.
    state_dir : path, optional
        Directory of the registry, batches and files; by default ``LMSYZ_SANDBOX_DIR`` or ``~/.lmsyz/sandbox``.
    fresh : bool
        Start a private one, found by nobody else, that ends with this process.

    Returns
    -------
    Sandbox
        The handle. As a context manager it stops what it started, and leaves what it found.

    Raises
    ------
    MissingExtraError
        The extra ``sandbox`` is not installed.
    SandboxError
        The server does not start.
    UsageError
        An argument is wrong, or the sandbox that runs has another port.

    Examples
    --------
    >>> with start(fresh=True, default=False) as box:
    ...     box.url.startswith("http://127.0.0.1:")
    True
    """
    _check(port, seed)
    faults = Faults.of(faults)
    if fresh:
        box = Sandbox(*process.launch(port, seed, faults, None))
    else:
        box = _found_or_started(registry.folder_of(state_dir), port, seed, faults)
    if default:
        _leave_the_dead(box)
        box._endpoint.take()
        _defaults.append(box)
    notice.say_once(box.url)
    return box


# Whose address is, or once was, this kernel's default endpoint.
_defaults: list[Sandbox] = []


def _leave_the_dead(box: Sandbox) -> None:
    """Give up the defaults of sandboxes that have ended, so that none comes back when a later one is stopped."""
    for other in list(_defaults):
        if other._endpoint.is_taken and (other.url == box.url or other._is_alive()):
            continue
        other._endpoint.give_back()
        _defaults.remove(other)


def _check(port: int | None, seed: int) -> None:
    missing = [name for name in NEEDED if importlib.util.find_spec(name) is None]
    if missing:
        raise MissingExtraError(
            f"the sandbox needs {', '.join(missing)} (not installed here): pip install 'lmsyz[sandbox]'"
        )
    if port is not None and (isinstance(port, bool) or not isinstance(port, int) or not 0 < port < 65536):
        raise UsageError(f"port={port!r} must be a number from 1 to 65535, or None for a free one")
    if isinstance(seed, bool) or not isinstance(seed, int):
        raise UsageError(f"seed={seed!r} must be an int")


def _found_or_started(folder: Path, port: int | None, seed: int, faults: Faults) -> Sandbox:
    with registry.lock(folder):
        return _found(folder, port, seed, faults) or Sandbox(*process.launch(port, seed, faults, folder))


def _found(folder: Path, port: int | None, seed: int, faults: Faults) -> Sandbox | None:
    """Return the sandbox that runs, with these faults; None where there is none of this code that answers."""
    entry = registry.read(folder)
    if entry is None:
        return None
    box = Sandbox(entry)
    if not box._is_alive():
        return None
    if entry.build != registry.build():
        box.stop()  # other code than this: its answers would not be ours
        return None
    if port is not None and port != entry.port:
        raise UsageError(
            f"a sandbox already runs on port {entry.port}: leave port= out to use it, stop() it first, or give"
            " fresh=True"
        )
    try:
        box._call("faults", {"faults": faults.as_dict(), "seed": seed})
    except SandboxError:
        return None  # a server that does not know our token is not ours
    return box


class Sandbox(Addresses):
    """A running sandbox. Made by :func:`lmsyz.sandbox.start`.

    Its answers come from documented rules, not from a language model.
    """

    def __init__(self, entry: registry.Entry, child: subprocess.Popen[bytes] | None = None) -> None:
        self._entry = entry
        self._port = entry.port
        self._child = child
        self._endpoint = DefaultEndpoint(LMSYZ_SANDBOX_URL=self.url)
        self._is_stopped = False

    @property
    def azure_endpoint(self) -> str:
        """What ``openai.AzureOpenAI(azure_endpoint=...)`` wants; any deployment's name will do."""
        return self.url

    @property
    def openrouter_base_url(self) -> str:
        """Where OpenRouter's dialect of OpenAI's API is spoken; models are ``vendor/name``."""
        return f"{self.url}/openrouter/api/v1"

    @property
    def gemini_base_url(self) -> str:
        """Where the dialect of Gemini's OpenAI-compatible endpoint is spoken; models are ``gemini-...``."""
        return f"{self.url}/gemini/v1beta/openai"

    @property
    def pid(self) -> int:
        """Its process."""
        return self._entry.pid

    def set_faults(self, faults: Faults | None = None, **rates: Any) -> None:
        """Set what goes wrong from now on; without arguments nothing does.

        Parameters
        ----------
        faults : Faults, optional
            All of it.
        **rates
            Fields of :class:`Faults`, on top of `faults`.

        Raises
        ------
        UsageError
            A name is no fault, or a value is out of range.
        """
        self._call("faults", {"faults": Faults.of(faults, rates).as_dict()})

    def stats(self) -> dict[str, Any]:
        """Return the counts since the start or the last :meth:`reset`; those of batches outlive the server.

        Returns
        -------
        dict
            ``n_requests`` (to the three endpoints that answer live, as they arrive), ``n_by_endpoint`` (answers by path
            and status), ``n_rows`` (rows in the live requests that got a reply), ``n_rows_unanswered`` (those that no
            rule could answer), ``n_uploads``, ``n_batches_created``, ``n_downloads`` (as they came, heard of or not),
            ``n_batches`` (that there are), ``n_batch_rows`` (rows in those that did not fail), ``n_batch_rows_paid``
            (those in their requests that got a reply), ``batch_rows_paid`` (the same by text), ``n_rows_paid`` (live
            and batch), ``in_flight``, ``max_in_flight``, ``n_faults`` (by kind), ``faults``, ``seed``, ``started``.
        """
        stats: dict[str, Any] = self._ask("GET", "/sandbox/stats", None)
        return stats

    def reset(self) -> None:
        """Make it as good as new: no counts, requests or batches, and the faults and seed that it was started with."""
        self._call("reset", {})

    def advance(self, seconds: float) -> None:
        """Move the clock of batches and files forward, so that nobody has to wait for a batch to end.

        Parameters
        ----------
        seconds : float
            By how much. It is remembered with the batches.
        """
        self._call("advance", {"seconds": seconds})

    def batches(self) -> list[dict[str, Any]]:
        """Return the batches there are, newest first, with what no provider tells.

        Returns
        -------
        list of dict
            ``id``, ``api`` (``"chat"``, ``"responses"`` or ``"messages"``), ``state``, ``created``, ``n_requests``,
            ``n_rows``, ``n_rows_paid``, ``counts`` (of requests by how they ended), ``problems``, ``metadata``,
            ``input_file_id``, ``output_file_id``, ``error_file_id``, ``faults``, ``custom_ids`` (in the order sent).
        """
        found: list[dict[str, Any]] = self._call("batches", {})
        return found

    def batch_rows(self) -> list[dict[str, Any]]:
        """Return every row that a batch has taken, to see that each was sent and paid for once.

        Returns
        -------
        list of dict
            ``row_id``, ``digest`` (of the text, as the field ``digest`` of an answer), ``n_taken`` (times in a batch
            that did not fail), ``n_paid`` (times in a request that got a reply), ``custom_ids``.
        """
        found: list[dict[str, Any]] = self._call("batch_rows", {})
        return found

    def requests(self, last: int = 100) -> list[dict[str, Any]]:
        """Return the last requests, oldest first: api, path, status, body, and a few headers, never a key.

        The api is ``"chat"``, ``"responses"``, ``"messages"``, ``"count_tokens"``, ``"models"`` or ``"unknown"``.

        Parameters
        ----------
        last : int
            How many at most; a thousand are kept.
        """
        found: list[dict[str, Any]] = self._call("requests", {"last": last})
        return found

    def stop(self) -> None:
        """Stop the server, for everybody who uses it, and restore the default endpoint. Stopping twice does no harm."""
        self._endpoint.give_back()
        if self._is_stopped:
            return
        self._is_stopped = True
        with contextlib.suppress(SandboxError):
            self._call("stop", {})
        if self._child is not None:
            process.end(self._child)
            return
        deadline = time.monotonic() + 5
        while self._is_alive() and time.monotonic() < deadline:
            time.sleep(0.02)

    def __enter__(self) -> Sandbox:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if self._child is not None:
            self.stop()
        else:
            # Found, not started: others may be using it.
            self._endpoint.give_back()

    def __repr__(self) -> str:
        state = "stopped" if self._is_stopped else self.url
        return f"<lmsyz sandbox: {state}; answers by documented rules, not a language model>"

    def _repr_html_(self) -> str:
        state = "stopped" if self._is_stopped else f"at <code>{html.escape(self.url)}</code>"
        return html_block(f"{notice.HTML} Sandbox {state}, models <code>sandbox-rules</code> and others.")

    def _is_alive(self) -> bool:
        try:
            return bool(self._ask("GET", "/sandbox/health", None, timeout_s=2)["service"] == "lmsyz sandbox")
        except (SandboxError, LookupError, TypeError):
            return False

    def _call(self, name: str, body: dict[str, Any]) -> Any:
        return self._ask("POST", f"/sandbox/{name}", body)["result"]

    def _ask(self, method: str, path: str, body: dict[str, Any] | None, timeout_s: float = 30.0) -> Any:
        # Not urllib, which would ask a proxy for the loopback address.
        import http.client

        connection = http.client.HTTPConnection("127.0.0.1", self._entry.port, timeout=timeout_s)
        headers = {"x-sandbox-token": self._entry.token, "content-type": "application/json"}
        try:
            connection.request(method, path, None if body is None else json.dumps(body).encode(), headers)
            response = connection.getresponse()
            status, answer = response.status, json.loads(response.read())
        except (OSError, http.client.HTTPException, ValueError) as error:
            raise SandboxError(f"the sandbox at {self.url} does not answer: {error}. Start it again.") from error
        finally:
            connection.close()
        if status != 200:
            raise SandboxError(f"the sandbox at {self.url} refused {path}: {answer.get('error')}")
        return answer
