"""What runs of this kernel have in flight or could not store: it is paid for, so whoever asks next waits for it."""

from __future__ import annotations

import logging
import threading
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from lmsyz.store import Store

if TYPE_CHECKING:
    from lmsyz.live import LiveEngine

__all__ = ["remember", "settle_earlier", "store_what_is_left"]

log = logging.getLogger(__name__)

SLICE_S = 0.1
PATIENCE_S = 2.0


@dataclass(frozen=True, slots=True, eq=False)
class _Flight:
    run_id: str
    cache_path: Path
    fingerprint: str
    engine: LiveEngine


_unsettled: set[_Flight] = set()
_lock = threading.Lock()


def remember(run_id: str, cache_path: Path, fingerprint: str, engine: LiveEngine) -> None:
    """Take note of a run that is about to begin, and forget those of which all is on disk."""
    with _lock:
        _unsettled.difference_update([f for f in _unsettled if f.engine.is_settled])
        _unsettled.add(_Flight(run_id, cache_path, fingerprint, engine))


def settle_earlier(cache_path: Path, fingerprint: str) -> None:
    """Wait until earlier runs on this store have brought home what they paid for.

    That is what a stopped run still has in flight, and all of a background run that asks the same question: were its
    rows asked at the same time, they would be paid for twice.
    """
    patience = time.monotonic() + PATIENCE_S
    for flight in _on(cache_path):
        if not flight.engine.stopped and flight.fingerprint != fingerprint:
            continue
        while not flight.engine.finished.wait(SLICE_S):
            if time.monotonic() > patience:
                patience = float("inf")
                log.warning("waiting for run %s, which %s", flight.run_id, _why_waiting(flight.engine))


def store_what_is_left(cache_path: Path, store: Store) -> None:
    """Store what earlier runs of this kernel brought home and could not store then: it is paid for."""
    for flight in _on(cache_path):
        if flight.engine.finished.is_set():
            flight.engine.store_what_is_left(store)


def _on(cache_path: Path) -> list[_Flight]:
    with _lock:
        return [f for f in _unsettled if f.cache_path.resolve() == cache_path.resolve()]


def _why_waiting(engine: LiveEngine) -> str:
    if engine.limiter.state.paused and not engine.stopped:
        return (
            "asks the same for this store and is paused: its rows would be paid for twice (interrupt to stop waiting,"
            " then resume() it, or stop() it and call again)"
        )
    return (
        "has requests in flight for this store: they are paid for, and their answers will be used (interrupt to stop"
        " waiting)"
    )
