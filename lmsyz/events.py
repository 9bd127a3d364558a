"""What an engine tells while it works. Engines know no screen; tqdm, the run's report and a panel listen."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Protocol

__all__ = [
    "ChunkDone",
    "Event",
    "Observer",
    "RequestRetried",
    "RequestSent",
    "RowsFailed",
    "RunFinished",
    "RunStarted",
    "emit",
]

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class RunStarted:
    """A plan is made: how many rows are stored already, hold no text, or will be asked."""

    n_rows: int
    n_cached: int
    n_empty: int
    n_asked: int
    why_empty: str = "invalid: empty text"


@dataclass(frozen=True, slots=True, kw_only=True)
class RequestSent:
    """One request is about to leave, a first try or a repeated one."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RequestRetried:
    """A request failed in a way that passes, and waits to be sent again."""

    kind: str
    wait_s: float


@dataclass(frozen=True, slots=True, kw_only=True)
class ChunkDone:
    """A reply came and its good rows are on disk; rows count every row of the frame that they answer."""

    n_ok: int
    n_reasked: int
    n_foreign: int
    outcome: str
    input_tokens: int | None
    output_tokens: int | None
    cached_tokens: int | None
    cost: float | None
    latency_s: float
    model: str


@dataclass(frozen=True, slots=True, kw_only=True)
class RowsFailed:
    """Rows will not be asked again in this run; some of them may have been counted as answered before."""

    n_rows: int
    reason: str
    examples: Sequence[str] = field(default_factory=tuple)
    n_told_ok: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class RunFinished:
    """The run has ended: ``done``, ``stopped`` or ``failed``."""

    how: str


Event = RunStarted | RequestSent | RequestRetried | ChunkDone | RowsFailed | RunFinished


class Observer(Protocol):
    """Whatever wants to know; called from the engine's threads, so it must be quick and thread-safe."""

    def __call__(self, event: Event, /) -> None:
        """Take note of one event."""


def emit(observers: Sequence[Observer], event: Event) -> None:
    """Tell all observers; one that fails is logged and never harms a run that costs money."""
    for observer in observers:
        try:
            observer(event)
        except Exception:
            log.exception("an observer failed on %s", type(event).__name__)
