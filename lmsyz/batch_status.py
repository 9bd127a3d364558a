"""How a batch job is doing, as figures, text and safe HTML."""

from __future__ import annotations

import html
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

from lmsyz.batch_ledger import Ledger, Part, PartState
from lmsyz.html_block import html_block

__all__ = ["BatchStatus", "status_of"]

SENDING = (PartState.BUILT, PartState.UPLOADED, PartState.CREATING)
# Both providers end a batch within a day; what ends at the last moment is not overdue yet.
DAY_S, GRACE_S = 86_400.0, 3_600.0
# The least advanced of several parts is what a job is waiting for.
REMOTE_ORDER = ("validating", "in_progress", "cancelling", "finalizing")


@dataclass(frozen=True, slots=True, kw_only=True)
class BatchStatus:
    """A batch job at one moment.

    Parameters
    ----------
    job_id, state, backend, model : str
        ``state`` is ``submitting``, ``unsure``, ``held``, a provider's ``validating``, ``in_progress``,
        ``finalizing`` or ``cancelling``, ``collecting``, or ``done``.
    n_rows : int
        Rows of the frame.
    n_too_long : int
        How many of them were not sent, since they are over what the model reads.
    in_parts : str
        How many of them are asked in how many parts, as words.
    n_sent, n_good, n_bad, n_pending : int
        Distinct texts: sent in all parts, home with an answer, home without, and on their way.
    n_requests, n_requests_done : int
        Requests, and how many of them the provider says are done.
    submitted, expires : float or None
        Unix times of the first creation and of the next expiry.
    cost : float or None
        US dollars of what is home; None where a price is not known.
    parts : tuple of Part
        The batches at the provider.
    """

    job_id: str
    state: str
    backend: str
    model: str
    n_rows: int
    n_sent: int
    n_good: int
    n_bad: int
    n_pending: int
    n_requests: int
    n_requests_done: int
    submitted: float | None
    expires: float | None
    cost: float | None
    parts: tuple[Part, ...]
    n_too_long: int = 0
    in_parts: str = ""

    @property
    def is_done(self) -> bool:
        """Whether nothing more is on its way."""
        return self.state == "done"

    @property
    def problems(self) -> tuple[str, ...]:
        """What the provider said against any part."""
        return tuple(f"part {p.n}: {words}" for p in self.parts for words in p.problems)

    def __repr__(self) -> str:
        lines = [f"<batch job {self.job_id}: {self.state}>", *(f"  {name}: {value}" for name, value in self.facts())]
        return "\n".join(lines)

    def _repr_html_(self) -> str:
        """Show the status as a small table; everything is escaped, since problems quote the provider."""
        rows = "".join(
            f'<tr><th style="text-align:left">{html.escape(name)}</th>'
            f'<td style="text-align:left">{html.escape(value)}</td></tr>'
            for name, value in self.facts()
        )
        return html_block(f"<b>{html.escape(f'batch job {self.job_id}: {self.state}')}</b><table>{rows}</table>")

    def facts(self) -> list[tuple[str, str]]:
        """Return what there is to say, as names and values."""
        cost = "<NA> (price unknown)" if self.cost is None else f"${self.cost:,.4f}"
        if self.n_pending and not self.n_requests_done:
            cost = "not known before something is back"
        facts = [
            ("model", f"{self.model} ({self.backend})"),
            ("frame", f"{self.n_rows:,} rows" + (f", {self.in_parts}" if self.in_parts else "")),
            (
                "texts sent",
                f"{self.n_sent:,}: {self.n_good:,} answered, {self.n_bad:,} without answer, "
                f"{self.n_pending:,} on their way",
            ),
            ("requests", f"{self.n_requests_done:,} of {self.n_requests:,} done"),
            ("cost", cost),
        ]
        facts += [("without answer", f"{n:,} x {reason}") for reason, n in self._reasons().most_common(3)]
        if self.n_too_long:
            facts.append(("not sent", f"{self.n_too_long:,} rows are too long for the model"))
        if self.submitted:
            facts.append(("submitted", _date(self.submitted)))
        if self.expires and not self.is_done:
            facts.append(("expires", _date(self.expires)))
        for part in self.parts:
            facts.append((f"part {part.n}", f"{part.state} {part.remote} {part.remote_state}".strip()))
            if part.state is PartState.UNSURE:
                facts.append((f"part {part.n}", f"may be one of {', '.join(part.candidates)}"))
            if _is_overdue(part):
                said = f"is past its time. If it will never end: job.give_up({part.n}), then job.retry() asks it again"
                facts.append((f"part {part.n}", said))
        return facts + [("problem", words) for words in self.problems]

    def _reasons(self) -> Counter[str]:
        found: Counter[str] = Counter()
        for part in self.parts:
            found.update(part.reasons)
        return found


def status_of(ledger: Ledger) -> BatchStatus:
    """Return how a job is doing, from its ledger alone.

    Parameters
    ----------
    ledger : Ledger
        As it is on disk.

    Returns
    -------
    BatchStatus
    """
    parts = ledger.parts
    settled = [p for p in parts if not p.state.is_open]
    return BatchStatus(
        job_id=ledger.job_id,
        state=_state(parts),
        backend=ledger.record.backend,
        model=ledger.record.model,
        n_rows=ledger.n_rows,
        n_sent=sum(p.n_rows for p in parts),
        n_good=sum(p.n_good for p in settled),
        n_bad=sum(p.n_bad for p in settled),
        n_pending=sum(p.n_rows for p in parts if p.state.is_open),
        n_requests=sum(p.n_requests for p in parts),
        n_requests_done=sum(_n_done(p) for p in parts),
        submitted=min((p.submitted for p in parts if p.submitted), default=None),
        expires=min((p.expires for p in parts if p.expires and p.state.is_open), default=None),
        cost=_total([p.cost for p in settled]),
        parts=tuple(parts),
        n_too_long=ledger.n_too_long,
        in_parts=ledger.in_parts,
    )


def _state(parts: Sequence[Part]) -> str:
    states = {p.state for p in parts if p.state.is_open}
    if not states:
        return "done"
    if PartState.UNSURE in states:
        return "unsure"
    if states & set(SENDING):
        return "submitting"
    remote = {p.remote_state for p in parts if p.state is PartState.SUBMITTED}
    waiting_for = [s for s in REMOTE_ORDER if s in remote]
    if waiting_for:
        return waiting_for[0]
    if PartState.HELD in states:
        return "held"
    return "collecting"


def _is_overdue(part: Part) -> bool:
    due = part.expires or (part.submitted or 0.0) + DAY_S
    return part.state is PartState.SUBMITTED and time.time() > due + GRACE_S


def _n_done(part: Part) -> int:
    if part.state in (PartState.SETTLED, PartState.FETCHED):
        return part.n_requests
    return (part.n_ok or 0) + (part.n_failed or 0)


def _total(costs: Sequence[float | None]) -> float | None:
    known = [c for c in costs if c is not None]
    return sum(known) if len(known) == len(costs) else None


def _date(at: float) -> str:
    return datetime.fromtimestamp(at, UTC).strftime("%Y-%m-%d %H:%M UTC")
