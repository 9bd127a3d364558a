"""What live and batch share: finding what is stored already, and turning a reply into stored answers.

`plan` reads the store once and says which rows are left to ask. `settle` holds one reply against the rows that were
asked; it is pure. Neither knows how a request travels.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field

from lmsyz.alignment import align, read_results, salvage_results
from lmsyz.cache_file import clean
from lmsyz.errors import MalformedError
from lmsyz.long_rows import is_answered
from lmsyz.providers.base import Reply, Stop
from lmsyz.rows import Chunk, Rows, answer_json
from lmsyz.schema_check import InvalidAnswer, check
from lmsyz.store import Saved, Store, TaskRecord
from lmsyz.task import Task

__all__ = ["EMPTY_ROW", "EMPTY_TEXT", "Plan", "Settled", "plan", "settle", "stored_answers"]

# Whoever reads an answer back, at whatever depth of calls, and whatever a frame is exported to, must be able to.
DEEPEST = 100
TOO_DEEP = "the answer is nested too deeply"
NOT_FINITE = "the answer holds a number that is not finite"

EMPTY_TEXT = "invalid: empty text"
EMPTY_ROW = "invalid: neither text nor image"


@dataclass(slots=True, kw_only=True)
class Plan:
    """What is stored and what is left.

    Parameters
    ----------
    task_id : int
        The task in the store.
    answers : dict
        Stored answers by text key; the engine adds the new ones.
    ask : list of int
        Positions to ask, one for each distinct text.
    twins : dict
        All positions of a text that occurs more than once, by its key.
    n_cached, n_empty : int
        Rows of the frame answered from the store, and rows without text.
    n_seed : int
        Rows taken over from a seed package's cache.
    saved : Saved
        What the stored answers cost when they were bought.
    """

    task_id: int
    answers: dict[bytes, str]
    ask: list[int]
    twins: dict[bytes, list[int]]
    n_cached: int
    n_empty: int
    n_seed: int = 0
    saved: Saved = field(default_factory=Saved)


@dataclass(frozen=True, slots=True, kw_only=True)
class Settled:
    """One reply held against its rows.

    Parameters
    ----------
    good : dict
        Answers as JSON text by position.
    bad : dict
        Why a row has no answer, by position; begins with the word that ``ie_error`` begins with.
    outcome : str
        ``ok``, ``partial``, ``empty``, or what spoilt the reply as a whole.
    readable : bool
        Whether the reply could be read at all, so that asking in this way works here.
    swapped : frozenset of int
        Bad positions whose answer opened with another row's words: to be asked again alone.
    n_foreign : int
        Answers under ids that nobody asked about.
    """

    good: dict[int, str]
    bad: dict[int, str]
    outcome: str
    readable: bool = True
    swapped: frozenset[int] = frozenset()
    n_foreign: int = 0


def plan(
    store: Store,
    task: Task,
    rows: Rows,
    *,
    fresh: bool = False,
    ignore_prompt: bool = False,
    run_id: str = "",
    after: int = 0,
) -> Plan:
    """Find what is stored for these rows and what is left to ask.

    Parameters
    ----------
    store : Store
        Where answers are kept.
    task : Task
        What is asked.
    rows : Rows
        Of what.
    fresh : bool
        Ask everything again; what is stored stays.
    ignore_prompt : bool
        Also reuse answers to another prompt, all else being equal.
    run_id : str
        The run that rows of a seed package's cache are taken over by.
    after : int
        Where everything was asked again: the newest answer of before, which does not count, nor do those before it.

    Returns
    -------
    Plan
    """
    task_id = store.task_id(task.record)
    asked = rows.asked
    keys = {key for key in asked.keys if key}
    found = Plan(task_id=task_id, answers={}, ask=[], twins={}, n_cached=0, n_empty=0)
    if not fresh:
        found.answers, found.saved = stored_answers(
            store, task.record, task_id, keys, ignore_prompt=ignore_prompt, after=after
        )
        if not after:
            found.n_seed = _adopt_seed_rows(store, task, asked, task_id, found.answers, run_id, ignore_prompt)
    _sort_out(found, asked, n_distinct=len(keys))
    if rows.long:
        found.ask = [p for p in found.ask if asked.keys[p] not in rows.long.refused]
        found.n_cached = sum(is_answered(rows.long, key, found.answers) for key in rows.keys if key)
    return found


def stored_answers(
    store: Store, record: TaskRecord, task_id: int, keys: Collection[bytes], *, ignore_prompt: bool, after: int = 0
) -> tuple[dict[bytes, str], Saved]:
    """Return what is stored for some texts, and what it cost; another prompt's answers only where there is no own.

    Parameters
    ----------
    store : Store
        Where answers are kept.
    record : TaskRecord
        What is asked.
    task_id : int
        Its number in the store.
    keys : collection of bytes
        The texts' keys.
    ignore_prompt : bool
        Whether answers to another prompt do as well.
    after : int
        As in :func:`plan`.

    Returns
    -------
    tuple of dict and Saved
    """
    answers, saved = store.reuse([task_id], keys, after=after)
    if ignore_prompt and len(answers) < len(keys):
        others = [t for t in store.reading_tasks(record, True) if t != task_id]
        more, cost = store.reuse(others, [k for k in keys if k not in answers], after=after)
        answers, saved = answers | more, saved.plus(cost)
    return answers, saved


def _sort_out(found: Plan, rows: Rows, *, n_distinct: int) -> None:
    """Find out which rows are left to ask."""
    answers = found.answers
    if len(answers) == n_distinct:
        found.n_empty = rows.keys.count(b"")
        found.n_cached = len(rows) - found.n_empty
        return
    ask: list[int] = []
    twins: dict[bytes, list[int]] = {}
    n_empty = n_cached = 0
    first: dict[bytes, int] = {}
    repeated = n_distinct < len(rows)
    for position, key in enumerate(rows.keys):
        if not key:
            n_empty += 1
            continue
        if key in answers:
            n_cached += 1
            continue
        if repeated:
            if key in first:
                twins.setdefault(key, [first[key]]).append(position)
                continue
            first[key] = position
        ask.append(position)
    found.ask, found.twins, found.n_cached, found.n_empty = ask, twins, n_cached, n_empty


def _adopt_seed_rows(
    store: Store,
    task: Task,
    rows: Rows,
    task_id: int,
    answers: dict[bytes, str],
    run_id: str,
    ignore_prompt: bool,
) -> int:
    """Take over what the seed package stored for these ids and this prompt; it knew neither text nor model.

    An adopted row belongs to this task and this text from now on, and to no other: a later change of either asks again.
    """
    if rows.ids is None:
        return 0
    # It knew no images either, so what it has of a row is no answer about one.
    wanted = {
        rows.ids[i]: key for i, key in enumerate(rows.keys) if key and key not in answers and not rows.has_image(i)
    }
    if not wanted:
        return 0
    found = store.seed_rows(None if ignore_prompt else task.record.prompt_hash, wanted.keys())
    usable: list[tuple[str, bytes, str]] = []
    for row_id, text in found.items():
        answer = _seed_answer(task, text)
        if answer is not None:
            usable.append((row_id, wanted[row_id], answer))
    # Another kernel may have taken some of them over since they were found.
    taken = store.adopt(task_id, usable, run_id) if usable else set()
    answers.update({key: answer for row_id, key, answer in usable if row_id in taken})
    return len(taken)


def _seed_answer(task: Task, text: str) -> str | None:
    try:
        results = read_results(f'{{"all_results":[{text}]}}')
    except MalformedError:
        return None
    if len(results) != 1 or not isinstance(results[0], dict):
        return None
    answer = {k: v for k, v in results[0].items() if k != "input_id"}
    try:
        return _checked(task, answer)
    except InvalidAnswer:
        return None


def settle(task: Task, chunk: Chunk, reply: Reply) -> Settled:
    """Hold a reply against the rows that were asked.

    Parameters
    ----------
    task : Task
        What was asked; its schema validates each answer.
    chunk : Chunk
        The rows of the request.
    reply : Reply
        What came back.

    Returns
    -------
    Settled
        Every position of the chunk is in either ``good`` or ``bad``.
    """
    if reply.stop in (Stop.REFUSED, Stop.FILTERED):
        what = "content filter" if reply.stop is Stop.FILTERED else "the model refused"
        reason = f"refused: {what}" + (f" ({reply.detail[:120]})" if reply.detail else "")
        return _nothing(chunk, reason, str(reply.stop))
    try:
        results = salvage_results(reply.text) if reply.stop is Stop.TRUNCATED else read_results(reply.text)
    except MalformedError as error:
        return _nothing(chunk, f"invalid: {error}", "malformed", readable=False)
    return _aligned(task, chunk, results, truncated=reply.stop is Stop.TRUNCATED)


def _aligned(task: Task, chunk: Chunk, results: Sequence[object], *, truncated: bool) -> Settled:
    aligned = align(results, chunk, verify=task.verify)
    missing = "truncated: the reply stopped at its token limit" if truncated else "missing: the reply has no answer"
    bad = dict.fromkeys(aligned.missing, missing)
    bad |= dict.fromkeys(aligned.duplicated, "invalid: more than one answer in the reply")
    bad |= dict.fromkeys(aligned.swapped, "invalid: the answer's opening words are another row's")
    good: dict[int, str] = {}
    for position, answer in aligned.answers.items():
        try:
            good[position] = _checked(task, answer)
        except InvalidAnswer as error:
            bad[position] = f"invalid: {error}" + (f" (got {error.shown})" if error.shown else "")
    outcome = "truncated" if truncated else "ok" if not bad else "partial" if good else "empty"
    return Settled(
        good=good,
        bad=bad,
        outcome=outcome,
        swapped=frozenset(aligned.swapped),
        n_foreign=len(aligned.foreign),
    )


def _nothing(chunk: Chunk, reason: str, outcome: str, *, readable: bool = True) -> Settled:
    return Settled(good={}, bad=dict.fromkeys(chunk.positions, reason), outcome=outcome, readable=readable)


def _checked(task: Task, answer: Mapping[str, object]) -> str:
    """Return an answer's JSON text, as it can be stored and read back anywhere."""
    found = check(task.schema, answer) if task.schema else answer
    try:
        text = answer_json(found)
    except RecursionError:
        raise InvalidAnswer(TOO_DEEP) from None
    if text.count("[") + text.count("{") > DEEPEST and _is_deep(found):
        raise InvalidAnswer(TOO_DEEP)
    if ("Infinity" in text or "NaN" in text) and not _is_json(found):
        raise InvalidAnswer(NOT_FINITE)
    return text if text.isascii() else clean(text)


def _is_json(answer: object) -> bool:
    """Whether an answer has no number that is not finite, as 1e999 is read and a model's own code may return."""
    try:
        json.dumps(answer, allow_nan=False)
    except ValueError:
        return False
    return True


def _is_deep(answer: object) -> bool:
    level = [answer]
    for _ in range(DEEPEST):
        level = [
            inner
            for value in level
            if isinstance(value, dict | list)
            for inner in (value.values() if isinstance(value, dict) else value)
        ]
        if not level:
            return False
    return True
