"""One round of chaos: a folder, a server, kernels in waves, and whatever may befall them; then the audit.

All of a round is drawn from the soak's seed and the round's number, so that a round can be played again by itself. What
the machine makes of it, which request is in flight when a kill comes, is another each time: what must hold, must hold
for all of them.
"""

from __future__ import annotations

import json
import random
import shutil
import signal
import time
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from lmsyz.sandbox.faults import BATCH_FAULTS, REPLY_FAULTS, REQUEST_FAULTS, ROW_FAULTS, Faults

from .audit import Figures, Round, audit
from .disks import read_only, small_disk
from .nursery import Kernel, Nursery
from .server import Server

__all__ = ["Plan", "play"]

LONGEST_KERNEL_S = 40.0
QUIET_S = 20.0
ENOUGH = 8  # looks at batch jobs at the end of a round
BACKENDS = ("openai", "anthropic")
FORMS = ("json_schema", "tool", "json_object")
HAZARDS = ("kills", "kernels", "clock", "locked", "full disk", "read-only", "edits", "limits", "forms")
KNOWN = {f.name for f in fields(Faults)}


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """How hard a round is.

    Parameters
    ----------
    seed, number : int
        Draw the round.
    n_rows : int
        Rows of each task.
    n_waves : int
        Waves of kernels before the last.
    may_mount : bool
        Whether disks may be mounted.
    """

    seed: int
    number: int
    n_rows: int = 100
    n_waves: int = 7
    may_mount: bool = True


def play(plan: Plan, server: Server, nursery: Nursery, folder: Path, figures: Figures) -> None:
    """Play one round and judge it."""
    with ExitStack() as stack:
        place = folder / f"round-{plan.number}"
        place.mkdir()
        mounted = stack.enter_context(small_disk(place)) if plan.may_mount else False
        _Play(plan, server, nursery, place, figures, mounted=mounted).run()
    shutil.rmtree(place, ignore_errors=True)


class _Play:
    def __init__(
        self, plan: Plan, server: Server, nursery: Nursery, folder: Path, figures: Figures, *, mounted: bool
    ) -> None:
        self.plan, self.server, self.nursery, self.folder, self.figures = plan, server, nursery, folder, figures
        self.rng = random.Random(f"{plan.seed}/{plan.number}")
        self.mounted = mounted
        self.name = f"r{plan.number}"
        self.verify = plan.number % 2 == 1
        self.chunk_size = self.rng.choice((1, 3, 5, 8))
        self.n_workers = self.rng.choice((2, 4, 8))
        self.texts = {task: self._texts(task) for task in self._tasks()}
        self.kernels: list[Kernel] = []
        self.jobs: set[str] = set()
        self.were_gone = False  # at any time, the results of batches at the provider
        self.were_stuck = False  # at any time, batches that never end

    def run(self) -> None:
        self.server.forget()
        for wave in range(self.plan.n_waves):
            faults = self._faults()
            self.were_gone |= faults.results_gone or faults.cancelled_files_gone
            self.were_stuck |= faults.batch_stuck
            self.server.set_faults(faults)
            self._wave(wave)
            self.server.advance(self.rng.uniform(0.0, 2.0))
        self.figures.faults.update(self.server.fallen())
        self._finish()
        audit(self._told(), self.figures)

    # --- what there is to ask -----------------------------------------------------------------------------------

    def _tasks(self) -> list[str]:
        return [f"{self.name}/{kind}-{backend}" for backend in BACKENDS for kind in ("live", "other", "batch")]

    def _texts(self, task: str) -> list[str]:
        return [
            f"{i} {self.rng.randrange(10**6)} is row {i} of {task}, first version." for i in range(self.plan.n_rows)
        ]

    def _edit(self, task: str) -> None:
        """Change a few texts, as a user does between two calls."""
        texts = self.texts[task]
        for i in self.rng.sample(range(len(texts)), k=max(1, len(texts) // 10)):
            texts[i] = f"{i} {self.rng.randrange(10**6)} is row {i} of {task}, edited."

    def _live_step(self, *, background: bool = False) -> dict[str, Any]:
        backend, kind = self.rng.choice(BACKENDS), self.rng.choice(("live", "live", "other"))
        task = f"{self.name}/{kind}-{backend}"
        step = {"do": "extract", "task": task, "backend": backend, "texts": list(self.texts[task])}
        return step | ({"background_s": self.rng.uniform(0.05, 0.5)} if background else {})

    def _batch_steps(self) -> list[dict[str, Any]]:
        backend = self.rng.choice(BACKENDS)
        task, job = f"{self.name}/batch-{backend}", f"job-{backend}"
        about, texts = {"task": task, "job": job}, self.texts[task]
        submit = {"do": "batch", "backend": backend, "texts": texts, "part_size": 4, **about}
        wait = {"do": "wait", "timeout_s": self.rng.uniform(0.3, 2.5), **about}
        more = {
            "retry": {"do": "retry", **about},
            "finish_live": {"do": "finish_live", "texts": texts, **about},
            "cancel": {"do": "cancel", **about},
            "results": {"do": "results", "texts": texts, **about},
        }
        then = [more[self.rng.choice(("retry", "retry", "finish_live", "cancel", "results"))] for _ in range(2)]
        first = [] if job in self.jobs and self.rng.random() < 0.7 else [submit]
        self.jobs.add(job)
        return [*first, wait, *then]

    # --- what goes wrong ----------------------------------------------------------------------------------------

    def _faults(self) -> Faults:
        rng = self.rng
        rates: dict[str, Any] = {}
        for kind in (*REQUEST_FAULTS, *REPLY_FAULTS, *ROW_FAULTS, *BATCH_FAULTS):
            rates[kind] = rng.uniform(0.0, 0.06)
        # Not of refusals to go faster: the pacer needs more requests than a round has to learn that they are no limit.
        rates[rng.choice((*REQUEST_FAULTS[2:], *REPLY_FAULTS, *ROW_FAULTS))] = 0.2
        rates |= {"refused": 0.02, "blocked": 0.02, "create_timeout": 0.25, "broken_download": 0.2}
        rates |= {"swapped": rates["swapped"] if self.verify else 0.0, "retry_after_s": rng.uniform(0.01, 0.2)}
        rates |= {"latency_s": rng.uniform(0.0, 0.05), "latency_jitter_s": rng.uniform(0.0, 0.1)}
        rates |= {"batch_s": rng.uniform(0.2, 1.0), "not_found_after_create": rng.choice((0, 0, 1, 2))}
        for name, chance, value in (
            ("requests_per_minute", 0.15, 3000),
            ("tokens_per_minute", 0.15, 400_000),
            ("max_output_tokens", 0.1, 60),
            ("context_tokens", 0.1, 420),
            ("refused_forms", 0.1, (rng.choice(FORMS),)),
            ("ignored_forms", 0.1, (rng.choice(FORMS),)),
            ("batch_expires_at", 0.2, 0.5),
            ("batch_failed", 0.1, "invalid_json_line"),
            ("token_limit_batches", 0.2, 1),
            ("error_file_only", 0.1, True),
            ("slow_download_bytes_s", 0.2, 100_000),
            ("results_gone", 0.05, True),
            ("cancelled_files_gone", 0.05, True),
            ("batch_stuck", 0.05, True),
            ("loose_batches", 0.15, True),
            ("max_batch_requests", 0.1, 2),
            ("out_of_quota", 0.03, True),
        ):
            if rng.random() < chance:
                rates[name] = value
        return Faults(**{k: v for k, v in rates.items() if k in KNOWN})

    def _wave(self, wave: int) -> None:
        rng = self.rng
        n = 2 if rng.random() < 0.35 else 1
        hazards = {"two kernels"} if n == 2 else set()
        if rng.random() < 0.3:
            self._edit(f"{self.name}/live-{rng.choice(BACKENDS)}")
            hazards.add("edited texts")
        orders = [self._orders(f"{self.name}-{wave}{'ab'[i]}", self._steps(hazards)) for i in range(n)]
        if rng.random() < 0.2:
            hazards.add("clock jumps")
            orders[0]["jumps"] = self._jumps()
        if rng.random() < 0.15:
            hazards.add("locked database")
            orders.append(self._orders(f"{self.name}-{wave}x", self._holding()))
        with ExitStack() as stack:
            if (
                wave
                and rng.random() < 0.15
                and "full disk" not in hazards
                and stack.enter_context(read_only(self.folder, mounted=self.mounted))
            ):
                hazards.add("read-only file")
            self.figures.hazards.update(hazards)
            kernels = [self._start(o) for o in orders]
            self._haunt([k for k in kernels if not k.name.endswith("x")])
            self._see_them_end(kernels)
        for path in self.folder.glob("filler.bin"):
            path.unlink()

    def _steps(self, hazards: set[str]) -> list[dict[str, Any]]:
        draw = self.rng.random()
        if draw < 0.15:
            hazards.add("full disk")
            fill = {"do": "fill", "room": self.rng.choice((0, 20_000, 60_000))}
            asked = self._batch_steps() if self.rng.random() < 0.4 else [self._live_step()]
            return [fill, *asked, {"do": "make_room"}, *asked, self._live_step()]
        if draw < 0.6:
            return [self._live_step(background=self.rng.random() < 0.3) for _ in range(self.rng.randint(1, 3))]
        return self._batch_steps()

    def _holding(self) -> list[dict[str, Any]]:
        step = {"do": "hold", "seconds": self.rng.choice((0.3, 0.8, 2.5))}
        return [{"do": "sleep", "seconds": self.rng.uniform(0.0, 0.4)}, step]

    def _jumps(self) -> list[list[Any]]:
        """Set the wall clock once, by a day at most, and let the other one leap as after a sleep."""
        wall = self.rng.choice((80_000.0, -80_000.0, 3600.0, -90.0))
        leap = self.rng.choice((0.0, 45.0, 700.0))
        return [[self.rng.uniform(0.05, 0.5), "time", wall], [self.rng.uniform(0.0, 0.5), "monotonic", leap]]

    def _haunt(self, kernels: list[Kernel]) -> None:
        """Interrupt and kill, at moments drawn before; some kernels are left in peace."""
        moments: list[tuple[float, Kernel, int]] = []
        for kernel in kernels:
            fate = self.rng.random()
            at = self.rng.expovariate(2.0)
            if fate < 0.35:
                moments.append((at, kernel, signal.SIGKILL))
            elif fate < 0.65:
                moments.append((at, kernel, signal.SIGINT))
                if self.rng.random() < 0.3:
                    moments.append((at + self.rng.expovariate(3.0), kernel, signal.SIGKILL))
        for kernel in kernels:
            kernel.born.wait(QUIET_S)
        began = time.monotonic()
        for at, kernel, number in sorted(moments, key=lambda m: m[0]):
            kernel.died.wait(max(began + at - time.monotonic(), 0.0))
            kernel.signal(number)

    # --- kernels ------------------------------------------------------------------------------------------------

    def _orders(self, name: str, steps: list[dict[str, Any]]) -> dict[str, Any]:
        return {
            "name": name,
            "folder": str(self.folder),
            "journal": str(self.folder.parent / f"{name}.journal"),
            "url": self.server.url,
            "verify": self.verify,
            "chunk_size": self.chunk_size,
            "n_workers": self.n_workers,
            "own_disk": self.mounted,
            "ends_when_interrupted": self.rng.random() < 0.3,
            "jumps": [],
            "steps": steps,
        }

    def _start(self, orders: dict[str, Any]) -> Kernel:
        kernel = self.nursery.start(orders)
        self.kernels.append(kernel)
        return kernel

    def _see_them_end(self, kernels: list[Kernel]) -> None:
        """Wait for the kernels' ends: one that takes long is killed, and one that asks nothing all that time hangs."""
        until = time.monotonic() + LONGEST_KERNEL_S
        for kernel in kernels:
            if kernel.died.wait(max(until - time.monotonic(), 0.1)):
                continue
            if self._last_sign_of(kernel) > until - LONGEST_KERNEL_S / 2:
                self.figures.hazards["killed for being slow"] += 1
            else:
                kernel.signal(signal.SIGUSR1)  # makes it say where it is
                time.sleep(0.5)
                said = (self.folder.parent / "kernels.log").read_text()[-6000:]
                self.figures.other.append(f"{kernel.name} hangs: {_where(self._journal(kernel))}\n{said}")
            kernel.signal(signal.SIGKILL)
            kernel.died.wait(QUIET_S)
        _until(self.server.is_idle)

    def _last_sign_of(self, kernel: Kernel) -> float:
        asked = [seen.came for seen in list(self.server.log) if seen.call.startswith(f"{kernel.name}-")]
        return max([*asked, *(entry["at"] for entry in self._journal(kernel))], default=0.0)

    def _finish(self) -> None:
        """With no more faults, let one kernel after the other see to it that every row is answered."""
        self.server.set_faults(Faults(batch_s=0.1))
        live = [
            {"do": "extract", "task": task, "backend": task.rpartition("-")[2], "texts": texts}
            for task, texts in self.texts.items()
            if "batch-" not in task
        ]
        self._final(f"{self.name}-live-final", live)
        for backend in BACKENDS:
            for look in range(ENOUGH if f"job-{backend}" in self.jobs else 0):
                self.server.advance(30.0)
                if self._final(f"{self.name}-{backend}{look}-final", self._last_steps(backend)):
                    break

    def _last_steps(self, backend: str) -> list[dict[str, Any]]:
        task, job = f"{self.name}/batch-{backend}", f"job-{backend}"
        texts = self.texts[task]
        about = {"task": task, "job": job}
        submit = {"do": "batch", "backend": backend, "texts": texts, "part_size": 4, **about}
        wait = {"do": "wait", "timeout_s": 3.0 if self.were_stuck else 10.0, **about}
        give_up = [{"do": "give_up", **about}] if self.were_stuck else []
        finish = {"do": "finish_live", "texts": texts, **about}
        return [submit, wait, *give_up, {"do": "retry", **about}, wait, finish]

    def _final(self, name: str, steps: list[dict[str, Any]]) -> bool:
        """Run a kernel that nothing happens to; whether all of its rows have an answer."""
        kernel = self._start(self._orders(name, steps) | {"ends_when_interrupted": True})
        self._see_them_end([kernel])
        done = [e for e in self._journal(kernel) if e["what"] == "done" and "rows" in e]
        return bool(done) and all(reason is None for e in done for _, _, reason in e["rows"])

    def _journal(self, kernel: Kernel) -> list[dict[str, Any]]:
        path = Path(kernel.orders["journal"])
        lines = path.read_bytes().splitlines() if path.exists() else []
        return [json.loads(line) for line in lines]

    def _told(self) -> Round:
        return Round(
            name=self.name,
            folder=self.folder,
            chunk_size=self.chunk_size,
            n_workers=self.n_workers,
            kernels=self.kernels,
            journals={k.name: self._journal(k) for k in self.kernels},
            seen=list(self.server.log),
            batches=self.server.batch_log(),
            n_batches=len(self.server.shelf.batches),
            were_gone=self.were_gone,
        )


def _where(journal: list[dict[str, Any]]) -> str:
    return str({k: v for k, v in journal[-1].items() if k in ("what", "call", "do", "task")}) if journal else "unborn"


def _until(is_so: Callable[[], bool]) -> None:
    until = time.monotonic() + QUIET_S
    while not is_so() and time.monotonic() < until:
        time.sleep(0.02)
