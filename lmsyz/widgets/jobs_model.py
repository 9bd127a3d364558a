"""What the panel knows of batch jobs: read from their ledgers, moved on by daemon threads. No widgets.

A job is polled by one model in a kernel at most: whoever shows it first holds the claim until it is closed.
"""

from __future__ import annotations

import logging
import random
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from lmsyz.batch_job import BatchJob
from lmsyz.batch_ledger import LEDGER, Ledger
from lmsyz.batch_status import BatchStatus, status_of
from lmsyz.batch_wait import usual_pause_s
from lmsyz.errors import BatchError, LmsyzError

__all__ = ["ACTIONS", "JobCard", "JobsModel"]

log = logging.getLogger(__name__)

LONGEST_BACK_OFF_S = 600.0
IDLE_S = 1.0
ACTIONS = ("refresh", "collect", "cancel", "retry")
DOING = {"refresh": "Refreshing", "collect": "Collecting", "cancel": "Cancelling", "retry": "Retrying"}

_claims: dict[Path, JobsModel] = {}
_claims_lock = threading.Lock()


@dataclass(frozen=True, slots=True, kw_only=True)
class JobCard:
    """One job as it is shown.

    Parameters
    ----------
    job_id : str
        Its name.
    created : float
        Unix time, 0 where it is not known.
    status : BatchStatus or None
        As the ledger has it; None where that is damaged.
    doing, said, checked : str
        What is under way, what came of the last action, and when the provider was last asked.
    problem : str
        What went wrong, as plain text; from others, so to be escaped.
    """

    job_id: str
    created: float
    status: BatchStatus | None
    doing: str = ""
    said: str = ""
    checked: str = ""
    problem: str = ""


@dataclass(slots=True)
class _Notes:
    """What this kernel knows of a job beyond its ledger."""

    doing: str = ""
    said: str = ""
    checked: str = ""
    problem: str = ""
    n_failures: int = 0
    due: float = 0.0


class JobsModel:
    """The jobs under a folder, with what can be done to them.

    Parameters
    ----------
    root : Path
        Where batch jobs lie.
    load : callable, optional
        Makes a job of its id; by default from disk and the settings.
    """

    def __init__(self, root: Path, *, load: Callable[[str], BatchJob] | None = None) -> None:
        self.root = root.expanduser().absolute()
        self._load = load or (lambda job_id: BatchJob.load(job_id, batch_root_dir=self.root))
        self._lock = threading.Lock()
        self._notes: dict[str, _Notes] = {}
        self._read: dict[Path, tuple[int, JobCard]] = {}
        self._closed = threading.Event()
        self._poller: threading.Thread | None = None

    def cards(self, limit: int | None = None) -> tuple[list[JobCard], int]:
        """Return the newest jobs, and how many there are; sends nothing.

        Parameters
        ----------
        limit : int, optional
            How many at most.

        Returns
        -------
        list of JobCard, int
        """
        with self._lock:
            found = [card for path in self.root.glob(f"*/{LEDGER}") if (card := self._card(path))]
            self._read = {p: kept for p, kept in self._read.items() if p.exists()}
            found.sort(key=lambda card: (card.created, card.job_id), reverse=True)
            return [self._noted(card) for card in found[:limit]], len(found)

    def start(self, job_id: str, action: str) -> threading.Thread | None:
        """Do something to a job on a thread of its own; None where something is under way there already.

        Parameters
        ----------
        job_id : str
            Which job.
        action : {"refresh", "collect", "cancel", "retry"}
            What to do.

        Returns
        -------
        Thread or None
        """
        if not self._begin(job_id, action):
            return None
        thread = threading.Thread(target=self._work, args=(job_id, action), name=f"lmsyz-{action}", daemon=True)
        thread.start()
        return thread

    def watch(self, limit: Callable[[], int]) -> None:
        """Refresh open jobs by itself from now on, until :meth:`close`.

        Parameters
        ----------
        limit : callable
            How many of the newest jobs are shown now; others are left alone.
        """
        if self._poller is None:
            self._poller = threading.Thread(target=self._poll, args=(limit,), name="lmsyz-jobs", daemon=True)
            self._poller.start()

    def poll_once(self, limit: int) -> None:
        """Refresh those open jobs whose time has come and that nobody else in this kernel polls."""
        for card in self.cards(limit)[0]:
            if self._closed.is_set():
                return
            if self._is_due(card) and self._begin(card.job_id, "refresh"):
                self._work(card.job_id, "refresh")

    def close(self) -> None:
        """Poll no more; an action under way ends by itself."""
        self._closed.set()
        with _claims_lock:
            for folder in [f for f, model in _claims.items() if model is self]:
                del _claims[folder]

    # --- inside -----------------------------------------------------------------------------------------------

    def _card(self, path: Path) -> JobCard | None:
        try:
            stamp = path.stat().st_mtime_ns
        except OSError:
            return None
        kept = self._read.get(path)
        if kept is None or kept[0] != stamp:
            kept = self._read[path] = (stamp, _read_card(path))
        return kept[1]

    def _noted(self, card: JobCard) -> JobCard:
        notes = self._notes.get(card.job_id)
        if notes is None:
            return card
        return JobCard(
            job_id=card.job_id,
            created=card.created,
            status=card.status,
            doing=notes.doing,
            said=notes.said,
            checked=notes.checked,
            problem=notes.problem or card.problem,
        )

    def _is_due(self, card: JobCard) -> bool:
        if card.status is None or card.status.is_done:
            return False
        with _claims_lock:
            if self._closed.is_set() or _claims.setdefault(self.root / card.job_id, self) is not self:
                return False
        with self._lock:
            return time.monotonic() >= self._notes.setdefault(card.job_id, _Notes()).due

    def _begin(self, job_id: str, action: str) -> bool:
        if action not in ACTIONS:
            raise ValueError(f"action={action!r}; use one of {', '.join(ACTIONS)}")
        with self._lock:
            notes = self._notes.setdefault(job_id, _Notes())
            if notes.doing:
                return False
            notes.doing, notes.said = DOING[action], ""
            return True

    def _work(self, job_id: str, action: str) -> None:
        said, problem = "", ""
        try:
            said = _act(self._load(job_id), action)
        except LmsyzError as error:
            problem = str(error)
        except Exception as error:  # whatever it is, it belongs on the card and not in a thread that nobody reads
            log.exception("batch job %s: %s failed", job_id, action)
            problem = f"{type(error).__name__}: {error}"
        with self._lock:
            notes = self._notes[job_id]
            notes.doing, notes.said, notes.problem = "", said, problem
            notes.checked = time.strftime("%H:%M:%S")
            notes.n_failures = notes.n_failures + 1 if problem else 0
            notes.due = time.monotonic() + pause_s(self._age_s(job_id), notes.n_failures)

    def _age_s(self, job_id: str) -> float:
        kept = self._read.get(self.root / job_id / LEDGER)
        return time.time() - kept[1].created if kept and kept[1].created else 0.0

    def _poll(self, limit: Callable[[], int]) -> None:
        while not self._closed.wait(IDLE_S):
            try:
                self.poll_once(limit())
            except Exception:  # the poller lives as long as the panel
                log.exception("looking after the batch jobs failed; it is tried again")


def pause_s(age_s: float, n_failures: int) -> float:
    """Return how long to leave a job alone: longer with its age and with each failure, and never twice the same."""
    pause = min(usual_pause_s(age_s) * 2.0 ** min(n_failures, 10), LONGEST_BACK_OFF_S)
    return pause * random.uniform(0.9, 1.1)


def _read_card(path: Path) -> JobCard:
    try:
        ledger = Ledger.load(path.parent)
    except BatchError as error:
        return JobCard(job_id=path.parent.name, created=0.0, status=None, problem=str(error))
    return JobCard(job_id=path.parent.name, created=ledger.created, status=status_of(ledger))


def _act(job: BatchJob, action: str) -> str:
    if action == "cancel":
        job.cancel()
        return "Asked the provider to stop; what it has done still comes home."
    if action == "retry":
        before = job.status().n_sent
        sent = job.retry().n_sent - before
        return f"Sent {sent:,} texts again." if sent else "There is nothing to send again."
    status = job.refresh()
    if action == "collect":
        return f"{status.n_good:,} answers are home: lmsyz.BatchJob.load({job.job_id!r}).results()"
    return ""
