"""The judgement of one round: what the server saw, held against what the store keeps and what the kernels told.

Every request for a row beyond the first must have a reason, and each reason has its bound:

after a fault
    The answer before was none (a fault, an error, a lost connection) or held no usable answer to this row.
lost with a kernel
    The kernel was killed, or ended, between the reply and the disk. At most what its window holds: two requests a
    worker, and one a worker for each jump of its monotonic clock beyond a call's deadline.
two kernels at once
    Another kernel, alive at the same time, asked it too; neither had it in its store when it began.

Whatever has none of these is a violation: a row paid for twice. So is an answer that is not its row's, a right answer
that was not kept, a reply that is not in the store, a token that the store counts otherwise than the server.
"""

from __future__ import annotations

import json
import math
import sqlite3
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from hashlib import sha256
from pathlib import Path
from typing import Any

from .kernel import CACHE, digest_of, price_of
from .nursery import Kernel
from .server import TASK, BatchSeen, Seen

__all__ = ["Figures", "Round", "audit"]

ASKS_PER_ROW, MOST_UNAVAILABLE, MOST_RATE_LIMITED = 4, 6, 20
DEFAULT_CHUNK = 5
DEADLINE_S = 600.0
REASONS = ("refused", "truncated", "invalid", "missing", "failed", "cancelled", "pending")
WAITED = (429, 529)
SHOWN = 20


@dataclass(slots=True, kw_only=True)
class Figures:
    """What happened, summed over rounds."""

    n_rounds: int = 0
    n_kernels: int = 0
    n_kills: int = 0
    n_interrupts: int = 0
    n_rows: int = 0
    n_requests: int = 0
    n_rows_asked: int = 0
    n_replies: int = 0
    n_batches: int = 0
    n_batch_requests: int = 0
    tokens_server: int = 0
    tokens_store: int = 0
    tokens_lost: int = 0
    tokens_gone: int = 0
    n_replies_lost: int = 0
    longest_lost_s: float = 0.0
    n_flagged: int = 0
    faults: Counter[str] = field(default_factory=Counter)
    hazards: Counter[str] = field(default_factory=Counter)
    again: Counter[str] = field(default_factory=Counter)
    errors: Counter[str] = field(default_factory=Counter)
    lost: list[str] = field(default_factory=list)
    wrong: list[str] = field(default_factory=list)
    twice: list[str] = field(default_factory=list)
    other: list[str] = field(default_factory=list)

    @property
    def violations(self) -> list[str]:
        return [f"{kind}: {what}" for kind in ("lost", "wrong", "twice", "other") for what in getattr(self, kind)]


@dataclass(slots=True, kw_only=True)
class Round:
    """All there is to judge a round by."""

    name: str
    folder: Path
    chunk_size: int
    n_workers: int
    kernels: list[Kernel]
    journals: dict[str, list[dict[str, Any]]]
    seen: list[Seen]
    batches: list[BatchSeen]
    n_batches: int
    were_gone: bool


@dataclass(slots=True, kw_only=True)
class _Stored:
    """One exchange in the store."""

    name: str
    task: str
    run_id: str
    tokens: tuple[int | None, int | None]
    cost: float | None
    is_batch: bool
    good: set[bytes]


def audit(told: Round, figures: Figures) -> None:
    """Hold a round's stores and journals against the server's log, and add what came of it to the figures."""
    stored = list(_stored(told.folder / CACHE))
    ends = {k.name: k for k in told.kernels}
    _count(told, figures)
    _rows(told, figures)
    _errors(told, figures)
    _ends(told, figures)
    _money(told, stored, figures)
    _lost_replies(told, stored, ends, figures)
    _asks(told, stored, ends, figures)
    _retries(told, figures)
    _batches(told, stored, figures)
    left = figures.tokens_server - figures.tokens_store - figures.tokens_lost - figures.tokens_gone
    if left and not figures.violations:
        figures.other.append(f"{told.name}: {left} tokens of the server's bills are nowhere")


def key_of(text: str) -> bytes:
    """Return the key that stands for a text in the store."""
    return sha256(text.encode()).digest()[:16]


def _stored(path: Path) -> Iterator[_Stored]:
    if not path.exists():
        return
    db = sqlite3.connect(path)
    if db.execute("PRAGMA integrity_check").fetchall() != [("ok",)]:
        raise AssertionError(f"{path} is damaged")
    good: dict[int, set[bytes]] = defaultdict(set)
    for request_id, key, answer, prompt in db.execute(
        "SELECT a.request_id, a.key, a.answer, t.prompt FROM answers a JOIN tasks t ON t.id = a.task_id"
    ):
        assert TASK.search(prompt)
        assert isinstance(json.loads(answer), dict)
        good[request_id].add(key)
    sql = (
        "SELECT r.id, r.provider_request_id, t.prompt, r.run_id, r.input_tokens, r.output_tokens, r.cost"
        " FROM requests r JOIN tasks t ON t.id = r.task_id ORDER BY r.id"
    )
    for number, name, prompt, run_id, given, written, cost in db.execute(sql):
        yield _Stored(
            name=name,
            task=_task_of(prompt),
            run_id=run_id,
            tokens=(given, written),
            cost=cost,
            is_batch=run_id.startswith("batch-"),
            good=good[number],
        )
    db.close()


def _task_of(prompt: str) -> str:
    found = TASK.search(prompt)
    return found[1] if found else ""


def _count(told: Round, figures: Figures) -> None:
    figures.n_rounds += 1
    figures.n_kernels += len(told.kernels)
    figures.n_kills += sum(k.signals.count(9) for k in told.kernels)
    figures.n_interrupts += sum(k.signals.count(2) for k in told.kernels)
    figures.n_requests += len(told.seen)
    figures.n_rows_asked += sum(len(s.rows) for s in told.seen)
    figures.n_replies += sum(s.is_paid for s in told.seen)
    figures.n_batches += told.n_batches
    figures.n_batch_requests += len(told.batches)
    figures.n_rows += len({(s.task, t) for s in (*told.seen, *told.batches) for t in s.texts})


# --- what the kernels told ---------------------------------------------------------------------------------------


def _entries(told: Round, what: str) -> Iterator[tuple[str, dict[str, Any]]]:
    for name, journal in told.journals.items():
        for entry in journal:
            if entry["what"] == what:
                yield name, entry


def _rows(told: Round, figures: Figures) -> None:
    """Every row is answered right or says why not; at the end of a round every row is answered."""
    last: dict[str, list[list[Any]]] = {}
    tasks = {e["call"]: e["task"] for _, e in _entries(told, "call")}
    for name, entry in _entries(told, "done"):
        rows = entry.get("rows")
        if rows is None:
            continue
        if name.endswith("final"):
            last[tasks[entry["call"]]] = rows
        for text, digest, reason in rows:
            if reason is None and digest != digest_of(text):
                figures.wrong.append(f"{entry['call']}: {text!r} was answered {digest!r}")
            elif reason is not None and (digest is not None or not reason.startswith(REASONS)):
                figures.wrong.append(f"{entry['call']}: {text!r} has {digest!r} and says {reason!r}")
            figures.n_flagged += reason is not None
    wanted = {s["task"] for k in told.kernels if k.name.endswith("final") for s in k.orders["steps"] if "texts" in s}
    for task in sorted(wanted):
        bad = [(text, reason) for text, _, reason in last.get(task, [["all", None, "no frame"]]) if reason is not None]
        if bad:
            figures.lost.append(f"{task}: {len(bad)} rows have no answer in the end, as {bad[0]}")


def _errors(told: Round, figures: Figures) -> None:
    for _, entry in _entries(told, "error"):
        figures.errors[entry["kind"]] += 1
        if not entry["is_ours"]:
            figures.other.append(f"{entry['call']} crashed: {entry['kind']}: {entry['words']}\n{entry['trace']}")


def _ends(told: Round, figures: Figures) -> None:
    for kernel in told.kernels:
        journal = told.journals.get(kernel.name, [])
        ended = bool(journal) and journal[-1]["what"] in ("end", "interrupted")
        if not kernel.signals and not (ended and kernel.status == 0):
            figures.other.append(f"{kernel.name} ended before its end, with status {kernel.status}")


# --- money -------------------------------------------------------------------------------------------------------


def _money(told: Round, stored: Sequence[_Stored], figures: Figures) -> None:
    """Each exchange in the store is one of the server's, once, with its tokens and its price."""
    bills = {s.request_id: s.tokens for s in told.seen if s.is_paid} | {
        b.custom_id: b.tokens for b in told.batches if b.is_paid
    }
    seen: Counter[str] = Counter()
    for exchange in stored:
        seen[exchange.name] += 1
        bill = bills.get(exchange.name)
        figures.tokens_store += sum(t or 0 for t in exchange.tokens)
        if bill is None:
            figures.other.append(f"{exchange.task}: the store has {exchange.name!r}, which the server never answered")
        elif exchange.tokens != bill:
            figures.other.append(f"{exchange.name}: the store counts {exchange.tokens} tokens, the server {bill}")
        elif exchange.cost is None or not math.isclose(exchange.cost, price_of(bill, is_batch=exchange.is_batch)):
            figures.other.append(f"{exchange.name}: the store says {exchange.cost} for {bill}")
    figures.twice += [f"exchange {name} is stored {n} times" for name, n in seen.items() if n > 1]
    figures.tokens_server += sum(sum(bill) for bill in bills.values() if bill)
    _bills_of_runs(told, stored, figures)


def _bills_of_runs(told: Round, stored: Sequence[_Stored], figures: Figures) -> None:
    """What a run says it took is what the store has of it."""
    sums: dict[str, list[int]] = defaultdict(lambda: [0, 0])
    for exchange in stored:
        for i, tokens in enumerate(exchange.tokens):
            sums[exchange.run_id][i] += tokens or 0
    for _, entry in _entries(told, "done"):
        bill = entry.get("bill")
        if bill and [n or 0 for n in bill["tokens"]] != sums[bill["run_id"]]:
            figures.other.append(
                f"{entry['call']} tells of {bill['tokens']} tokens, its store of {sums[bill['run_id']]}"
            )


def _lost_replies(told: Round, stored: Sequence[_Stored], ends: dict[str, Kernel], figures: Figures) -> None:
    """A reply that is not in the store was lost with its kernel, and no kernel loses more than its window."""
    names = {e.name for e in stored}
    gone: dict[str, list[Seen]] = defaultdict(list)
    for seen in told.seen:
        if seen.is_paid and seen.request_id not in names:
            gone[_kernel_of(seen.call)].append(seen)
            figures.tokens_lost += sum(seen.tokens or ())
            figures.n_replies_lost += 1
    for name, lost in gone.items():
        kernel = ends[name]
        failed = any(e["what"] == "error" for e in told.journals.get(name, []))
        jumps = sum(seconds >= DEADLINE_S for _, clock, seconds in kernel.orders["jumps"] if clock == "monotonic")
        allowed = told.n_workers * jumps + (2 * told.n_workers if kernel.signals or failed else 0)
        if len(lost) > allowed:
            what = f"{name} lost {len(lost)} replies that were paid for, {allowed} at most could be"
            figures.lost.append(f"{what}: {[s.request_id for s in lost][:4]} (signals {kernel.signals})")
        figures.longest_lost_s = max(figures.longest_lost_s, *(kernel.died_at - s.left for s in lost))


def _kernel_of(call: str) -> str:
    return call.rpartition("-")[0]


# --- who asked what, and why again ---------------------------------------------------------------------------------


def _asks(told: Round, stored: Sequence[_Stored], ends: dict[str, Kernel], figures: Figures) -> None:
    exchanges = {e.name: e for e in stored if not e.is_batch}
    held = {e["call"]: {bytes.fromhex(k) for k in e["stored"]} for _, e in _entries(told, "call")}
    began = {e["call"]: e["at"] for _, e in _entries(told, "call")}
    asks: dict[tuple[str, str], list[Seen]] = defaultdict(list)
    for seen in sorted(told.seen, key=lambda s: s.came):
        for text in seen.texts:
            asks[seen.task, text].append(seen)
        exchange = exchanges.get(seen.request_id)
        unused = [t for t in seen.clean if exchange is not None and key_of(t) not in exchange.good]
        if unused:
            figures.lost.append(f"{seen.call}: the right answer to {unused[0]!r} came in {seen.request_id}, unused")
    for (task, text), of_row in asks.items():
        key = key_of(text)
        for i, ask in enumerate(of_row):
            if key in held.get(ask.call, ()):
                figures.twice.append(f"{ask.call} asked {text!r} of {task}, which was stored when it began")
            elif i:
                why = _why_again(key, of_row[:i], ask, exchanges, ends, began)
                figures.again[why.partition(":")[0]] += 1
                if why.startswith("violation"):
                    figures.twice.append(f"{ask.call} asked {text!r} of {task} again: {why.partition(': ')[2]}")


def _why_again(
    key: bytes,
    earlier: Sequence[Seen],
    ask: Seen,
    exchanges: dict[str, _Stored],
    ends: dict[str, Kernel],
    began: dict[str, float],
) -> str:
    kernel = _kernel_of(ask.call)
    good = [e for e in earlier if e.request_id in exchanges and key in exchanges[e.request_id].good]
    open_still = [e for e in earlier if e.is_paid and e.left > ask.came]
    for e in (*good, *open_still):
        if _kernel_of(e.call) == kernel and not _jumped(ends[kernel]):
            return f"violation: the same kernel had its answer from {e.call}, or was waiting for it"
        if _kernel_of(e.call) != kernel and ends[_kernel_of(e.call)].died_at < began[ask.call]:
            return f"violation: it was answered in {e.call}, whose kernel had ended"
    if good or open_still:
        return "two kernels at once"
    last = earlier[-1]
    if last.is_paid and last.request_id not in exchanges:
        if last.call == ask.call and not _jumped(ends[kernel]):
            return f"violation: a reply to {last.call} came and was not kept"
        return "lost with a kernel" if last.call != ask.call else "lost by a clock's jump"
    return "after a fault"


def _jumped(kernel: Kernel) -> bool:
    return any(clock == "monotonic" and seconds >= DEADLINE_S for _, clock, seconds in kernel.orders["jumps"])


def _retries(told: Round, figures: Figures) -> None:
    """No request and no row is tried more often than the package allows itself."""
    bodies: dict[tuple[str, bytes], Counter[str]] = defaultdict(Counter)
    replies: Counter[tuple[str, str]] = Counter()
    for seen in sorted(told.seen, key=lambda s: s.came):
        tries = bodies[seen.call, seen.body]
        if seen.is_paid:
            tries.clear()
            replies.update((seen.call, text) for text in seen.texts)
        else:
            kind = "rate limited" if seen.status in WAITED else "unavailable"
            tries[kind] += 1
            if tries[kind] > (MOST_RATE_LIMITED if kind == "rate limited" else MOST_UNAVAILABLE):
                figures.other.append(f"{seen.call} tried one request {tries[kind]} times ({kind})")
    most = ASKS_PER_ROW + math.ceil(math.log2(max(told.chunk_size, DEFAULT_CHUNK)))
    for (call, text), n in replies.items():
        if n > most:
            figures.other.append(f"{call} was answered {n} times about {text!r}, {most} at most")


# --- batches -------------------------------------------------------------------------------------------------------


def _batches(told: Round, stored: Sequence[_Stored], figures: Figures) -> None:
    """Each request was accepted once, each reply brought home once, and no row sent again that had an answer."""
    exchanges = {e.name: e for e in stored if e.is_batch}
    for custom_id, n in Counter(b.custom_id for b in told.batches).items():
        if n > 1:
            figures.twice.append(f"batch request {custom_id} was accepted {n} times")
    good: dict[tuple[str, str], str] = {}
    for seen in told.batches:
        exchange = exchanges.get(seen.custom_id)
        if exchange is None and seen.is_paid:
            if told.were_gone:
                figures.tokens_gone += sum(seen.tokens or ())
                figures.again["results gone at the provider"] += 1
            else:
                figures.lost.append(f"{seen.task}: the reply to batch request {seen.custom_id} is not in the store")
        for text in seen.texts:
            before = good.get((seen.task, text))
            if before is not None:
                figures.twice.append(f"{seen.task}: {text!r} was sent in {seen.batch}, and answered before in {before}")
            if exchange is not None and key_of(text) in exchange.good:
                good[seen.task, text] = seen.batch
    figures.again["sent in a later batch"] += _n_sent_again(told.batches)


def _n_sent_again(batches: Iterable[BatchSeen]) -> int:
    sent = Counter((b.task, text) for b in batches for text in b.texts)
    return sum(n - 1 for n in sent.values())
