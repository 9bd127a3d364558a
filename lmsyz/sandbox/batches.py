"""A batch as it is remembered, and what follows from its moments and the clock: its state and how far it is.

Nothing runs in the background for this. A batch is validated in the first tenth of its time, is run until nine tenths
of it, and is finalized in the rest; one that is cancelled takes a short while to stop. Once its time is over it has
ended as soon as its requests are answered, which happens when somebody first looks (:mod:`lmsyz.sandbox.batch_runner`).
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from functools import cached_property
from typing import Any

from lmsyz.sandbox.faults import Faults
from lmsyz.sandbox.wire import JsonObject

__all__ = ["DAY_S", "OPENAI_LABELS", "Batch", "problem"]

DAY_S = 86_400.0
RETENTION_S = 29 * DAY_S  # of Anthropic's results
VALIDATING_SHARE, FINALIZING_SHARE = 0.1, 0.9
# Short also where a batch takes long, so that whoever cancels one by hand need not wait.
CANCELLING_SHARE, LONGEST_CANCELLING_S = 0.1, 0.5
OPENAI_LABELS = ("chat", "responses")


def problem(code: str, message: str, *, line: int | None = None, param: str | None = None) -> JsonObject:
    """Return an entry of OpenAI's ``errors.data``."""
    return {"code": code, "message": message, "line": line, "param": param}


@dataclass(kw_only=True)
class Batch:
    """One batch.

    Parameters
    ----------
    id : str
        Its name.
    label : str
        The endpoint that answers its requests: ``"chat"``, ``"responses"`` or ``"messages"``.
    created : float
        Unix time by the batch clock.
    ordinal : int
        How many batches there had been before it, so that a request that comes again can fare better.
    seed : int
        The sandbox's seed when it was created.
    faults : dict
        The sandbox's faults when it was created, which hold for it to its end.
    version : str
        The ``anthropic-version`` of the request that created it.
    input_file_id : str
        OpenAI's id of the file that it was created from.
    n, n_rows : int
        Requests, and rows in them.
    model : str
        The model of all requests, where they must have the same.
    metadata : dict or None
        What it was created with.
    result_life_s : float
        Seconds after which OpenAI's result files are gone.
    problems : list of dict
        What is wrong with it as a whole; if anything is, it fails once it has been validated.
    cancelled : float or None
        When it was told to stop.
    is_answered : bool
        Whether its requests have been answered. What follows is told only then.
    counts : dict
        Requests by how they ended: ``succeeded``, ``errored``, ``canceled``, ``expired``.
    usage : dict
        Tokens.
    n_rows_paid : int
        Rows in the requests that got a reply.
    output, errors : str
        OpenAI's ids of the result files; empty for none.
    """

    id: str
    label: str
    created: float
    ordinal: int
    seed: int
    faults: dict[str, Any]
    version: str = ""
    input_file_id: str = ""
    n: int = 0
    n_rows: int = 0
    model: str = ""
    metadata: dict[str, str] | None = None
    result_life_s: float = 30 * DAY_S
    problems: list[JsonObject] = field(default_factory=list)
    cancelled: float | None = None
    is_answered: bool = False
    counts: dict[str, int] = field(default_factory=dict)
    usage: dict[str, int] = field(default_factory=dict)
    n_rows_paid: int = 0
    output: str = ""
    errors: str = ""

    @classmethod
    def of(cls, stored: Mapping[str, Any]) -> Batch:
        """Return a batch as it was stored, whatever else the record says."""
        return cls(**{f.name: stored[f.name] for f in fields(cls) if f.name in stored})

    @cached_property
    def options(self) -> Faults:
        """The faults when it was created."""
        return Faults.of(None, self.faults)

    @property
    def begins(self) -> float:
        """When it has been validated."""
        return self.created + VALIDATING_SHARE * self.options.batch_s

    @property
    def finalizes(self) -> float:
        """When all that will be run of it has been run."""
        return math.inf if self.options.batch_stuck else self.created + FINALIZING_SHARE * self.options.batch_s

    @property
    def ends(self) -> float:
        """When its time is over."""
        if self.problems:
            return self.begins
        if self.options.batch_stuck:
            return math.inf
        whole = self.created + self.options.batch_s
        if self.cancelled is None:
            return whole
        return min(whole, self.cancelled + min(CANCELLING_SHARE * self.options.batch_s, LONGEST_CANCELLING_S))

    @property
    def expires(self) -> float:
        """When it expires, or would."""
        return self.created + (DAY_S if self.options.batch_expires_at is None else self.options.batch_s)

    def is_over(self, now: float) -> bool:
        """Whether its time is over."""
        return now >= self.ends

    def has_ended(self, now: float) -> bool:
        """Whether nothing more will come of it."""
        return self.is_over(now) and (self.is_answered or bool(self.problems))

    @property
    def archives(self) -> float:
        """When Anthropic deletes its results."""
        return self.created + RETENTION_S

    def state(self, now: float) -> str:
        """Return OpenAI's word for how far it is."""
        if self.problems:
            return "failed" if self.is_over(now) else "validating"
        if self.cancelled is not None:
            return "cancelled" if self.has_ended(now) else "cancelling"
        if self.has_ended(now):
            return "completed" if self.options.batch_expires_at is None else "expired"
        if now < self.begins:
            return "validating"
        return "in_progress" if now < self.finalizes else "finalizing"

    @property
    def share_run(self) -> float:
        """The share of its requests that are run before it ends."""
        share = 1.0 if self.options.batch_expires_at is None else self.options.batch_expires_at
        if self.cancelled is not None:
            share *= min(max((self.cancelled - self.created) / max(self.options.batch_s, 1e-9), 0.0), 1.0)
        return share

    @property
    def n_run(self) -> int:
        """How many of its requests are run."""
        return round(self.n * self.share_run)

    def n_run_by(self, now: float) -> int:
        """Return how many have been run so far."""
        if self.problems or now < self.begins:
            return 0
        if self.is_over(now):
            return self.n_run
        done = (now - self.begins) / max(self.finalizes - self.begins, 1e-9)
        return min(self.n_run, int(self.n_run * done))
