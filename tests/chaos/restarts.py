"""Ten thousand restarts of the batch engine, in one process: killed at a random step, begun anew from its ledger.

Every step that touches disk or provider may be the last one: before it happens, or after it happened and nobody heard.
What is left is what a dead process leaves, files and batches; a new engine reads the ledger and goes on. A kill is an
exception that nothing catches, since ten thousand processes would take an hour; real ones are killed in `rounds`.
"""

from __future__ import annotations

import contextlib
import functools
import hashlib
import itertools
import json
import os
import random
import shutil
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import anthropic
import openai
import pandas as pd

from lmsyz import batch, batch_ledger, batch_settle
from lmsyz.batch import BatchEngine
from lmsyz.batch_files import read_failures, read_index
from lmsyz.batch_ledger import Ledger, PartState
from lmsyz.batch_submit import submit_batch
from lmsyz.cache import SqliteCache
from lmsyz.providers.base import Call

from .remote import Remote

__all__ = ["Restarts", "restart_often"]

PROMPT, SCHEMA = "Give the digest of each text.", {"digest": str}
N_ROWS, CHUNK, REQUESTS_A_PART = 12, 2, 2
LIVES = (3, 3, 3, 12)  # steps, at most, that a process lives
STUCK_AFTER = 4_000  # restarts of one job
STRANGERS = (0, 0, 1, 2)  # batches of the same size that somebody else of the account creates meanwhile
JUMPS = (0.0, 0.0, 0.0, 90.0, -90.0, 3600.0, -3600.0, 50_000.0, -50_000.0)  # seconds that a clock may be wrong by
STEPS: tuple[tuple[Any, str], ...] = (
    (batch_ledger.Ledger, "save"),
    (batch, "write_failures"),
    (batch_settle, "write_failures"),
    (SqliteCache, "put_chunks"),
    (SqliteCache, "save_run"),
)


class Killed(BaseException):
    """The process is dead."""


@dataclass(slots=True, kw_only=True)
class Restarts:
    """What came of it."""

    n_restarts: int = 0
    n_jobs: int = 0
    n_rows: int = 0
    n_batches: int = 0
    n_created_unheard: int = 0
    n_clock_jumps: int = 0
    lost: list[str] = field(default_factory=list)
    wrong: list[str] = field(default_factory=list)
    twice: list[str] = field(default_factory=list)
    stuck: list[str] = field(default_factory=list)

    @property
    def is_good(self) -> bool:
        return not (self.lost or self.wrong or self.twice or self.stuck)

    def __str__(self) -> str:
        return (
            f"{self.n_restarts:,} restarts of the batch engine, {self.n_jobs:,} jobs, {self.n_rows:,} rows,"
            f" {self.n_batches:,} batches ({self.n_created_unheard:,} created unheard), {self.n_clock_jumps:,} clock"
            f" jumps: lost {len(self.lost)}, wrong {len(self.wrong)}, paid twice {len(self.twice)},"
            f" stuck {len(self.stuck)}"
        )


class Fuse:
    """Counts steps, and kills at one of them."""

    def __init__(self) -> None:
        self._left = 0  # 0 never kills

    def arm(self, n_steps: int) -> None:
        self._left = n_steps

    def step(self) -> None:
        if self._left:
            self._left -= 1
            if not self._left:
                raise Killed

    def wrap(self, func: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(func)
        def wrapper(*args: Any, **kwargs: Any) -> Any:
            self.step()
            result = func(*args, **kwargs)
            self.step()
            return result

        return wrapper


def restart_often(n_restarts: int, seed: int, folder: Path) -> Restarts:
    """Run jobs to their end, each through as many restarts as it takes, until there were so many.

    Parameters
    ----------
    n_restarts : int
        How often the engine is killed and begun anew, at least.
    seed : int
        Draws all that happens.
    folder : Path
        Where jobs and store lie.

    Returns
    -------
    Restarts
    """
    told, fuse = Restarts(), Fuse()
    with _steps_that_kill(fuse), _no_flush(), SqliteCache(folder / "answers.sqlite") as store:
        for n in itertools.count():
            if told.n_restarts >= n_restarts:
                return told
            _Job(n, random.Random(f"{seed}/{n}"), folder, store, fuse, told).live()
    raise AssertionError("unreachable")


@contextlib.contextmanager
def _steps_that_kill(fuse: Fuse) -> Iterator[None]:
    kept = [(home, name, getattr(home, name)) for home, name in STEPS]
    for home, name, func in kept:
        setattr(home, name, fuse.wrap(func))
    try:
        yield
    finally:
        for home, name, func in kept:
            setattr(home, name, func)


@contextlib.contextmanager
def _no_flush() -> Iterator[None]:
    """Leave out fsync: a killed process, unlike a power cut, leaves what it wrote."""
    flush, os.fsync = os.fsync, lambda handle: None
    try:
        yield
    finally:
        os.fsync = flush


class _Job:
    """One job, from its draft to its last row."""

    def __init__(
        self, n: int, rng: random.Random, folder: Path, store: SqliteCache, fuse: Fuse, told: Restarts
    ) -> None:
        self.name, self.rng, self.store, self.fuse, self.told = f"job-{n}", rng, store, fuse, told
        self.backend = ("openai", "anthropic")[n % 2]
        self.texts = [f"Row {i} of job {n} is one of a dozen." for i in range(N_ROWS)]
        self.true_time, self.skew = 1.8e9 + n * 1e6, rng.choice(JUMPS)
        self.n_strangers = rng.choice(STRANGERS)
        job = submit_batch(
            pd.DataFrame({"text": self.texts}),
            PROMPT,
            schema=SCHEMA,
            backend=self.backend,
            model="sandbox-rules",
            job_id=self.name,
            batch_root_dir=folder / f"jobs-{n}",
            chunk_size=CHUNK,
            max_requests_per_batch=REQUESTS_A_PART,
            cache_path=store.path,
            client=_client(self.backend),
            progress=False,
            send=False,
        )
        self.folder = job.folder
        real = job._connected()
        self.remote = Remote(real.batches, rng, lambda: self.true_time, fuse.step)
        self.connection = replace(real, batches=self.remote)

    def live(self) -> None:
        for _ in range(STUCK_AFTER):
            if self._one_life():
                break
            self._meanwhile()
        else:
            states = Counter(str(p.state) for p in Ledger.load(self.folder).parts)
            self.told.stuck.append(f"{self.name} ({self.backend}): {dict(states)}")
        self.fuse.arm(0)
        self._audit()
        shutil.rmtree(self.folder.parent)

    def _one_life(self) -> bool:
        """Start the engine from what is on disk and let it push until it is killed; whether the job is done."""
        self.fuse.arm(self.rng.randint(1, self.rng.choice(LIVES)))
        try:
            ledger = Ledger.load(self.folder)
            self._engine(ledger).push()
        except Killed:
            self.told.n_restarts += 1
            return False
        return not any(p.state.is_open for p in ledger.parts)

    def _engine(self, ledger: Ledger) -> BatchEngine:
        return BatchEngine(
            ledger,
            task=self.connection.task,
            provider=self.connection.provider,
            batches=self.remote,  # type: ignore[arg-type]
            call=Call(),
            store_factory=lambda: _StaysOpen(self.store),  # type: ignore[arg-type, return-value]
            clock=lambda: self.true_time + self.skew,
        )

    def _meanwhile(self) -> None:
        """Let time pass, clocks be set, and others of the account send batches of their own."""
        self.true_time += self.rng.uniform(0.0, 40.0)
        self.remote.pass_time()
        if self.rng.random() < 0.03:
            self.skew = self.rng.choice(JUMPS)
            self.told.n_clock_jumps += 1
        if self.n_strangers and self.remote.held and self.rng.random() < 0.1:
            self.n_strangers -= 1
            self.remote.add_stranger(self.rng.choice(list(self.remote.held.values())))

    # --- what came of it ----------------------------------------------------------------------------------------

    def _audit(self) -> None:
        ledger, told = Ledger.load(self.folder), self.told
        held = [h for h in self.remote.held.values() if h.is_ours]
        told.n_jobs += 1
        told.n_rows += N_ROWS
        told.n_batches += len(held)
        told.n_created_unheard += self.remote.n_lost_answers
        self._audit_payment([h.requests for h in held if not h.fails])
        answers = self.store.answers([self.store.task_id(ledger.record)], None)
        failures = read_failures(ledger)
        settled = [p for p in ledger.parts if p.state is PartState.SETTLED]
        for key in (k for p in settled for asked in read_index(ledger, p) for k in asked.keys):
            if key not in answers and not failures.get(key, "").startswith("failed: the provider refused the batch"):
                told.lost.append(f"{self.name} ({self.backend}): {key.hex()} {failures.get(key)!r}")
        for text in self.texts:
            digest = hashlib.sha256(text.encode())
            answer = answers.get(digest.digest()[:16])
            if answer is not None and json.loads(answer)["digest"] != digest.hexdigest()[:16]:
                told.wrong.append(f"{self.name} ({self.backend}): {text!r}")

    def _audit_payment(self, batches: list[list[tuple[str, Any]]]) -> None:
        """See that each request was accepted once, and each reply stored once with its tokens."""
        accepted = Counter(custom_id for requests in batches for custom_id, _ in requests)
        self.told.twice += [
            f"{self.name} ({self.backend}): {c} accepted {n} times" for c, n in accepted.items() if n > 1
        ]
        stored: Counter[str] = Counter()
        for part in Ledger.load(self.folder).parts:
            run_id = batch_settle.part_run_id(Ledger.load(self.folder), part)
            stored.update(self.store.request(a.request_id).provider_request_id for a in self._first_of_each(run_id))
        self.told.twice += [f"{self.name} ({self.backend}): {c} stored {n} times" for c, n in stored.items() if n > 1]
        self.told.lost += [f"{self.name} ({self.backend}): {c} not stored" for c in accepted.keys() - stored.keys()]

    def _first_of_each(self, run_id: str) -> Iterator[Any]:
        seen: set[int] = set()
        for answer in self.store.answers_of_run(run_id):
            if answer.request_id not in seen:
                seen.add(answer.request_id)
                yield answer


@functools.cache
def _client(backend: str) -> Any:
    """Return an SDK's client, one for all jobs, of a port where nobody listens: nothing may be sent."""
    if backend == "openai":
        return openai.OpenAI(api_key="none", base_url="http://127.0.0.1:9/v1")
    return anthropic.Anthropic(api_key="none", base_url="http://127.0.0.1:9")


class _StaysOpen:
    """The one store of all lives, which an engine's close leaves open: opening it would cost most of the time."""

    def __init__(self, store: SqliteCache) -> None:
        self._store = store

    def close(self) -> None:
        pass

    def __getattr__(self, name: str) -> Any:
        return getattr(self._store, name)
