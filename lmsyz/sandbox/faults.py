"""Faults on demand: what may go wrong, how often, and the seeded draws that decide it.

Every draw is a hash of (seed, request body, how often this body came, kind of fault, row), so a run can be repeated
exactly, whatever the order in which requests arrive, and a repeated request can fare better than the first. Only
``blocked`` and ``refused`` are a matter of the row's text and the seed alone: such a row is refused for ever.
"""

from __future__ import annotations

import dataclasses
import hashlib
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from lmsyz.errors import UsageError

__all__ = ["FORMS", "Draws", "Faults", "refuses"]

FORMS = ("json_schema", "tool", "json_object")
_ROOM = float(2**64)


@dataclass(frozen=True, slots=True, kw_only=True)
class Faults:
    """What the sandbox does wrong, and how often. Rates are probabilities from 0 to 1; the default is no fault.

    The faults of a request are drawn in the order given here, each on its own; the first that falls decides.

    Parameters
    ----------
    rate_limited : float
        Request answered 429 with retry-after headers.
    retry_after_s : float
        Seconds that such a 429 asks to wait.
    overloaded : float
        Request answered 529 (Anthropic) or 503 (OpenAI).
    server_error : float
        Request answered 500.
    dropped : float
        Connection closed without a reply.
    not_a_reply : float
        Status 200 with an HTML page, as a captive portal sends it.
    filtered : float
        Reply stopped by a content filter (Anthropic, which has none, refuses).
    truncated : float
        Reply cut as if at the token limit, with the finish or stop reason that says so.
    malformed : float
        Broken JSON with a normal finish or stop reason.
    blocked : float
        Share of row texts that a content policy stops before the model sees them: an error, for the whole request.
    refused : float
        Share of row texts that the model refuses. A request that holds one is refused as a whole.
    missing : float
        Row left out of the reply.
    duplicated : float
        Row's id given twice, the second time on another row's answer where there is one.
    several : float
        Row answered three times under its own id, each time otherwise, as small models do.
    swapped : float
        Row's id exchanged with the next row's.
    foreign : float
        Row accompanied by an answer under an id nobody asked for.
    latency_s, latency_jitter_s : float
        Seconds before an answer, and the most that is added to them at random.
    requests_per_minute, tokens_per_minute : float or None
        Real limits with real headers and 429s; a second's worth of requests may come at once.
    out_of_quota : bool
        Every request answered with a 429 that waiting will not help.
    refused_forms : tuple of str
        Ways of asking for structured output that are answered 400: ``"json_schema"``, ``"tool"``, ``"json_object"``.
    ignored_forms : tuple of str
        Ways that are accepted and then ignored: the reply is JSON within prose, by the prompt's contract alone.
    max_output_tokens : int or None
        The most the model writes, whatever the request allows.
    context_tokens : int or None
        Longer requests are answered 400.
    batch_s : float
        Seconds from a batch's creation to its end, if it is not cancelled. For this and the next eight the setting at
        a batch's creation holds to its end, and so it does for what else spoils replies and rows.
    batch_expires_at : float or None
        Share of a batch's requests that are run by then, where it expires; None lets it come to its end.
    batch_failed : str
        OpenAI batch that fails after its creation, with this code, such as ``"invalid_json_line"``.
    batch_stuck : bool
        Batch that never ends: it is in progress for ever, or being cancelled for ever once it was told to stop, as
        OGX 1.5 leaves those that ran when it was killed. Nothing of it is run or paid.
    token_limit_batches : int
        OpenAI batches that may be on their way at once; a further one is created and then fails with
        ``token_limit_exceeded``. 0 is any number.
    batch_errors : float
        Request of a batch that ends in an error of its own: passing, lasting, or (OpenAI) without any response.
    error_file_only : bool
        All requests of a batch end in errors, so that OpenAI names no output file.
    batch_duplicated, batch_foreign : float
        Request whose result is there twice; result under a custom_id that nobody sent.
    cancelled_files_gone : bool
        OpenAI batch that names no result files once it was cancelled, and still counts what was answered (and paid)
        by then, as OGX 1.5 does.
    loose_batches : bool
        Batch APIs that take it easily, as OGX 1.5 does. In results OpenAI's bodies are JSON texts, and errors are a
        type and a message alone, whatever they were; both files are named, though one is empty; ``expires_at`` is
        null. Errors of the endpoints have a message alone, without type or code; ``Range`` is ignored, and so is an
        unknown id that a list is to go on from. Results are written as the setting was at a batch's creation.
    max_batch_requests : int or None
        A batch of more requests is answered 400, as OGX 1.5 answers one of over 1,000 at Anthropic's endpoint.
    create_timeout : float
        Batch that is created without the client hearing of it: the connection is closed, or the answer is a 504.
    upload_dropped : float
        File that is taken without the client hearing of it.
    not_found_after_create : int
        How often a new batch is answered 404.
    slow_download_bytes_s : float or None
        Bytes of results sent in a second at most.
    broken_download : float
        Results that end in the middle.
    results_gone : bool
        Results past their retention: 404.

    Raises
    ------
    UsageError
        A rate is no probability, or a form is unknown.

    Examples
    --------
    >>> Faults(server_error=0.1).server_error
    0.1
    """

    rate_limited: float = 0.0
    retry_after_s: float = 1.0
    overloaded: float = 0.0
    server_error: float = 0.0
    dropped: float = 0.0
    not_a_reply: float = 0.0
    filtered: float = 0.0
    truncated: float = 0.0
    malformed: float = 0.0
    blocked: float = 0.0
    refused: float = 0.0
    missing: float = 0.0
    duplicated: float = 0.0
    several: float = 0.0
    swapped: float = 0.0
    foreign: float = 0.0
    latency_s: float = 0.0
    latency_jitter_s: float = 0.0
    requests_per_minute: float | None = None
    tokens_per_minute: float | None = None
    out_of_quota: bool = False
    refused_forms: tuple[str, ...] = ()
    ignored_forms: tuple[str, ...] = ()
    max_output_tokens: int | None = None
    context_tokens: int | None = None
    batch_s: float = 3.0
    batch_expires_at: float | None = None
    batch_failed: str = ""
    batch_stuck: bool = False
    token_limit_batches: int = 0
    batch_errors: float = 0.0
    error_file_only: bool = False
    batch_duplicated: float = 0.0
    batch_foreign: float = 0.0
    cancelled_files_gone: bool = False
    loose_batches: bool = False
    max_batch_requests: int | None = None
    create_timeout: float = 0.0
    upload_dropped: float = 0.0
    not_found_after_create: int = 0
    slow_download_bytes_s: float | None = None
    broken_download: float = 0.0
    results_gone: bool = False

    def __post_init__(self) -> None:
        for name in RATES:
            _check_number(name, getattr(self, name), low=0, high=1, words="a probability from 0 to 1")
        for name in SECONDS:
            _check_number(name, getattr(self, name), low=0, high=3600, words="seconds from 0 to 3600")
        for name in LIMITS:
            if getattr(self, name) is not None:
                _check_number(name, getattr(self, name), low=1, high=math.inf, words="a number of at least 1, or None")
        for name in SWITCHES:
            if not isinstance(getattr(self, name), bool):
                raise UsageError(f"{name}={getattr(self, name)!r} must be True or False")
        for name in COUNTS:
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, int) or value < 0:
                raise UsageError(f"{name}={value!r} must be an int from 0 up")
        _check_number("batch_s", self.batch_s, low=0, high=DAY_S, words="seconds from 0 to 86400")
        if self.batch_expires_at is not None:
            _check_number(
                "batch_expires_at", self.batch_expires_at, low=0, high=1, words="a share from 0 to 1, or None"
            )
        if not isinstance(self.batch_failed, str):
            raise UsageError(f"batch_failed={self.batch_failed!r} must be an error code, or empty")
        for name in ("refused_forms", "ignored_forms"):
            object.__setattr__(self, name, _forms(name, getattr(self, name)))

    @classmethod
    def of(cls, faults: Faults | None = None, rates: Mapping[str, Any] | None = None) -> Faults:
        """Return `faults` (none by default) with some of its fields replaced.

        Raises
        ------
        UsageError
            A name is no fault, or a value is out of range.
        """
        if faults is not None and not isinstance(faults, Faults):
            raise UsageError(f"faults={faults!r} must be lmsyz.sandbox.Faults(...) or None")
        unknown = sorted(set(rates or {}) - {f.name for f in dataclasses.fields(cls)})
        if unknown:
            known = ", ".join(f.name for f in dataclasses.fields(cls))
            raise UsageError(f"no such fault: {', '.join(map(repr, unknown))}; the faults are {known}")
        return dataclasses.replace(faults or cls(), **(rates or {}))

    def as_dict(self) -> dict[str, Any]:
        """Return the fields that differ from the default, as plain values."""
        plain = dataclasses.asdict(self)
        return {f.name: plain[f.name] for f in dataclasses.fields(self) if plain[f.name] != f.default}


REQUEST_FAULTS = ("rate_limited", "overloaded", "server_error", "dropped", "not_a_reply")
REPLY_FAULTS = ("filtered", "truncated", "malformed")
ROW_FAULTS = ("blocked", "refused", "missing", "duplicated", "several", "swapped", "foreign")
BATCH_FAULTS = (
    "batch_errors",
    "batch_duplicated",
    "batch_foreign",
    "create_timeout",
    "upload_dropped",
    "broken_download",
)
RATES = (*REQUEST_FAULTS, *REPLY_FAULTS, *ROW_FAULTS, *BATCH_FAULTS)
SWITCHES = (
    "out_of_quota",
    "batch_stuck",
    "error_file_only",
    "cancelled_files_gone",
    "loose_batches",
    "results_gone",
)
COUNTS = ("token_limit_batches", "not_found_after_create")
DAY_S = 86_400.0
SECONDS = ("retry_after_s", "latency_s", "latency_jitter_s")
LIMITS = (
    "requests_per_minute",
    "tokens_per_minute",
    "max_output_tokens",
    "context_tokens",
    "max_batch_requests",
    "slow_download_bytes_s",
)


def _check_number(name: str, value: object, *, low: float, high: float, words: str) -> None:
    number = isinstance(value, int | float) and not isinstance(value, bool)
    if not number or not low <= float(value) <= high:  # type: ignore[arg-type]
        raise UsageError(f"{name}={value!r} must be {words}")


def _forms(name: str, value: object) -> tuple[str, ...]:
    given = (value,) if isinstance(value, str) else value
    if not isinstance(given, tuple | list) or any(form not in FORMS for form in given):
        raise UsageError(f"{name}={value!r} must be a tuple of {', '.join(map(repr, FORMS))}")
    return tuple(given)


class Draws:
    """The draws of one request.

    Parameters
    ----------
    seed : int
        The sandbox's seed.
    body : bytes
        The request's body.
    attempt : int
        How often this body has come before.
    """

    def __init__(self, seed: int, body: bytes, attempt: int) -> None:
        self._key = hashlib.sha256(b"%d\0%d\0" % (seed, attempt) + body).digest()

    @property
    def tag(self) -> str:
        """24 hex digits that name this request and attempt."""
        return self._key.hex()[:24]

    def uniform(self, kind: str, what: str = "") -> float:
        """Return the draw of a kind, from 0 up to but not including 1."""
        return _uniform(self._key, f"{kind}\0{what}")

    def falls(self, kind: str, rate: float, what: str = "") -> bool:
        """Return whether a fault of this rate falls."""
        return rate > 0 and self.uniform(kind, what) < rate


def refuses(seed: int, text: str, rate: float, *, kind: str = "refused") -> bool:
    """Return whether a row's text is among those that are refused for ever, by the model or (``blocked``) before it."""
    return rate > 0 and _uniform(b"%d" % seed, f"{kind}\0{text}") < rate


def _uniform(key: bytes, what: str) -> float:
    digest = hashlib.blake2b(what.encode("utf-8", "surrogatepass"), key=key, digest_size=8)
    return int.from_bytes(digest.digest(), "big") / _ROOM
