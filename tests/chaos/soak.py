"""Rounds for as long as there is time, and the summary of all of them."""

from __future__ import annotations

import itertools
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from .audit import Figures
from .disks import can_mount
from .nursery import Nursery
from .restarts import Restarts, restart_often
from .rounds import Plan, play
from .server import served

__all__ = ["Told", "restarts_told", "soak"]

SHOWN = 12


@dataclass(slots=True, kw_only=True)
class Told:
    """What a soak has to say."""

    seed: int
    minutes: float
    may_mount: bool
    figures: Figures = field(default_factory=Figures)
    bad_rounds: list[int] = field(default_factory=list)

    @property
    def is_good(self) -> bool:
        return not self.figures.violations

    def summary(self, restarts: Restarts | None = None) -> str:
        f = self.figures
        lines = [
            f"seed {self.seed}, {self.minutes:.1f} minutes, {f.n_rounds} rounds, {f.n_kernels} kernels:"
            f" {f.n_kills} killed, {f.n_interrupts} interrupted",
            f"hazards: {_counted(f.hazards)}"
            + ("" if self.may_mount else " (no right to mount: files limited in size)"),
            f"faults: {_counted(f.faults)}",
            f"rows {f.n_rows:,}; live requests {f.n_requests:,} for {f.n_rows_asked:,} rows, {f.n_replies:,} replies;"
            f" batches {f.n_batches:,} with {f.n_batch_requests:,} requests",
            f"flagged in ie_error on the way: {f.n_flagged:,}; errors told: {_counted(f.errors)}",
            f"asked again: {_counted(f.again)}",
            f"tokens: the server counted {f.tokens_server:,}, the stores {f.tokens_store:,}; {f.tokens_lost:,} in"
            f" {f.n_replies_lost:,} replies were lost with their kernels (the longest {f.longest_lost_s:.2f} s before"
            f" its end), {f.tokens_gone:,} in results that the provider no longer had",
            f"lost {len(f.lost)}, wrong {len(f.wrong)}, paid twice {len(f.twice)}, other {len(f.other)}",
        ]
        lines += [f"  {violation}" for violation in f.violations[:SHOWN]]
        lines += [str(restarts)] if restarts else []
        lines += [
            f"  {w}"
            for w in ([*restarts.lost, *restarts.wrong, *restarts.twice, *restarts.stuck][:SHOWN] if restarts else [])
        ]
        lines += [f"again: python -m tests.chaos --seed {self.seed} --round {n}" for n in self.bad_rounds]
        return "\n".join(lines)


def soak(
    seed: int,
    folder: Path,
    *,
    minutes: float = 0.0,
    n_rounds: int | None = None,
    only_round: int | None = None,
    may_mount: bool = True,
    n_rows: int = 100,
    n_waves: int = 7,
    say: Callable[[str], None] = lambda line: None,
) -> Told:
    """Play rounds for so many minutes, or so many rounds, or one.

    Parameters
    ----------
    seed : int
        Draws all that happens.
    folder : Path
        Where everything lies.
    minutes, n_rounds, only_round
        How long.
    may_mount : bool
        Whether disks may be mounted.
    n_rows, n_waves : int
        How hard a round is.
    say : callable
        Told a line after each round.

    Returns
    -------
    Told
    """
    began, figures = time.monotonic(), Figures()
    told = Told(seed=seed, minutes=0.0, may_mount=may_mount and can_mount(folder / "mount"), figures=figures)
    numbers = [only_round] if only_round is not None else itertools.count() if n_rounds is None else range(n_rounds)
    with Nursery(folder) as nursery, served(seed) as server:
        for number in numbers:
            if n_rounds is None and only_round is None and time.monotonic() - began > 60 * minutes:
                break
            plan = Plan(seed=seed, number=number, n_rows=n_rows, n_waves=n_waves, may_mount=told.may_mount)
            before, at = set(figures.violations), time.monotonic()
            play(plan, server, nursery, folder, figures)
            new = [violation for violation in figures.violations if violation not in before]
            if new:
                told.bad_rounds.append(number)
            say(
                f"round {number}: {time.monotonic() - at:.1f} s, {figures.n_requests:,} requests so far, {len(new)} bad"
            )
            for violation in new:
                say(f"  {violation}")
    told.minutes = (time.monotonic() - began) / 60
    return told


def restarts_told(n_restarts: int, seed: int, folder: Path) -> Restarts:
    """Run the simulated restarts in memory where the system has such a place."""
    shared = Path("/dev/shm")
    with tempfile.TemporaryDirectory(dir=shared if shared.is_dir() else folder) as fast:
        return restart_often(n_restarts, seed, Path(fast))


def _counted(counts: Counter[str]) -> str:
    return ", ".join(f"{name} {n:,}" for name, n in counts.most_common() if n) or "none"
