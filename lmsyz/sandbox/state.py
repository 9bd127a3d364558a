"""What one running sandbox remembers: its faults, its counts, the last requests. Nothing of it leaves the process."""

from __future__ import annotations

import hashlib
import json
import time
from collections import Counter, OrderedDict, deque
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from lmsyz.sandbox.faults import Draws, Faults
from lmsyz.sandbox.limits import Limits

__all__ = ["State"]

MAX_BODIES = 500_000  # how many bodies' attempts are remembered
MAX_CACHED = 1_000  # how many prompt prefixes
KEPT_REQUESTS, KEPT_BYTES = 1_000, 32 * 1024 * 1024
SHOWN_HEADERS = (
    "content-type",
    "user-agent",
    "anthropic-version",
    "anthropic-beta",
    "x-stainless-retry-count",
    "x-stainless-package-version",
    "idempotency-key",
)


class State:
    """All that changes while a sandbox runs.

    Parameters
    ----------
    seed : int
        Seed of every draw.
    faults : Faults
        What goes wrong.
    """

    def __init__(self, seed: int, faults: Faults) -> None:
        self.seed = seed
        self.started = time.time()
        self.last_used = time.monotonic()
        self.in_flight = 0
        self.era = 0  # how often it was reset: what came before the last reset is not counted after it
        self.configure(faults, seed)
        self.reset()

    def configure(self, faults: Faults, seed: int | None = None) -> None:
        """Set what goes wrong, with fresh rate limits; with a seed, as what a reset goes back to."""
        self.faults = faults
        self.limits = Limits(faults)
        if seed is not None:
            self.seed = seed
            self._at_start = faults

    def reset(self) -> None:
        """Forget all counts, the last requests, and how often each body came; go back to the faults of the start."""
        self.configure(self._at_start)
        self.era += 1
        self._answers: Counter[tuple[str, int]] = Counter()
        self._faults: Counter[str] = Counter()
        self.n_requests = self.n_rows = self.n_unanswered = self.max_in_flight = 0
        self.n_uploads = self.n_batches_created = self.n_downloads = 0
        self._attempts: OrderedDict[bytes, int] = OrderedDict()
        self._prefixes: OrderedDict[str, None] = OrderedDict()
        self._kept: deque[dict[str, Any]] = deque(maxlen=KEPT_REQUESTS)
        self._kept_bytes = 0

    def draws(self, path: str, raw: bytes) -> Draws:
        """Return the draws of a request and count that its body came."""
        key = hashlib.blake2b(path.encode() + b"\0" + raw, digest_size=16).digest()
        attempt = self._attempts.pop(key, 0)
        self._attempts[key] = attempt + 1
        if len(self._attempts) > MAX_BODIES:
            self._attempts.popitem(last=False)
        return Draws(self.seed, key, attempt)

    @contextmanager
    def flight(self) -> Iterator[None]:
        """Count a request, and count it as in flight."""
        self.n_requests += 1
        self.last_used = time.monotonic()
        self.in_flight += 1
        self.max_in_flight = max(self.max_in_flight, self.in_flight)
        try:
            yield
        finally:
            self.in_flight -= 1
            self.last_used = time.monotonic()

    def touch(self) -> None:
        """Note that somebody is there."""
        self.last_used = time.monotonic()

    def is_cached(self, key: str) -> bool:
        """Return whether a prompt prefix has come before, and remember it."""
        known = key in self._prefixes
        self._prefixes[key] = None
        self._prefixes.move_to_end(key)
        if len(self._prefixes) > MAX_CACHED:
            self._prefixes.popitem(last=False)
        return known

    def fell(self, *kinds: str) -> None:
        """Count faults."""
        self._faults.update(kinds)

    def keep(
        self, label: str, path: str, raw: bytes, headers: Mapping[str, str], status: int, *, counted_as: str = ""
    ) -> None:
        """Count an answer and keep its request among the last; never its key. Status 0 is a connection dropped."""
        self._answers[counted_as or path, status] += 1
        shown = {name: headers[name] for name in SHOWN_HEADERS if name in headers}
        self._kept_bytes += len(raw)
        if len(self._kept) == self._kept.maxlen:
            self._kept_bytes -= len(self._kept.popleft()["raw"])
        self._kept.append({"api": label, "path": path, "status": status, "headers": shown, "raw": raw})
        while self._kept_bytes > KEPT_BYTES and len(self._kept) > 1:
            self._kept_bytes -= len(self._kept.popleft()["raw"])

    def requests(self, last: int) -> list[dict[str, Any]]:
        """Return the last requests, oldest first."""
        kept = list(self._kept)[-last:] if last > 0 else []
        return [{**{k: v for k, v in k_.items() if k != "raw"}, "body": _json(k_["raw"])} for k_ in kept]

    def stats(self) -> dict[str, Any]:
        """Return the counts since the start or the last reset."""
        answers: dict[str, dict[str, int]] = {}
        for (path, status), n in sorted(self._answers.items()):
            answers.setdefault(path, {})[str(status) if status else "dropped"] = n
        return {
            "n_requests": self.n_requests,
            "n_by_endpoint": answers,
            "n_rows": self.n_rows,
            "n_rows_unanswered": self.n_unanswered,
            "n_uploads": self.n_uploads,
            "n_batches_created": self.n_batches_created,
            "n_downloads": self.n_downloads,
            "max_in_flight": self.max_in_flight,
            "in_flight": self.in_flight,
            "n_faults": dict(sorted(self._faults.items())),
            "faults": self.faults.as_dict(),
            "seed": self.seed,
            "started": self.started,
        }


def _json(raw: bytes) -> Any:
    try:
        return json.loads(raw)
    except ValueError:
        return raw.decode("utf-8", "replace")
