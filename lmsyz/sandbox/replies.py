"""From a question to what is replied: the rules' answer, and what the faults of replies and rows make of it."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from lmsyz.sandbox.answers import ENVELOPES, ID, Answer, Row, answer, read_rows
from lmsyz.sandbox.faults import Draws, Faults, refuses
from lmsyz.sandbox.text import Text
from lmsyz.sandbox.wire import CONTEXT_TOKENS, MAX_OUTPUT_TOKENS, Api, ApiError, Ask, Outcome, tokens_of

__all__ = ["Replied", "cache_told", "refusal_of", "reply_to"]

REFUSAL = "The sandbox refuses this request, as its faults ask it to."
UNKNOWN = "The sandbox answers by rules, and no rule finds a value that the schema demands."


@dataclass(frozen=True, slots=True, kw_only=True)
class Replied:
    """An outcome and what it was made of.

    Parameters
    ----------
    outcome : Outcome
        What is sent.
    rows : list of Row
        Rows asked; one without an id where the request was not in rows form.
    n_unanswered : int
        Rows that no rule could answer.
    faults : tuple of str
        The faults that fell, one entry each time.
    """

    outcome: Outcome
    rows: list[Row] = field(default_factory=list)
    n_unanswered: int = 0
    faults: tuple[str, ...] = ()


def refusal_of(api: Api, ask: Ask, faults: Faults, seed: int) -> tuple[str, ApiError] | None:
    """Return the fault and the error of a request whose form, size or text is not taken, None for one that is."""
    if ask.form in faults.refused_forms:
        return "refused_forms", api.refuse_form(ask.form)
    if ask.input_tokens > (faults.context_tokens or CONTEXT_TOKENS):
        return "context_tokens", api.too_long(ask.input_tokens, faults.context_tokens or CONTEXT_TOKENS)
    if faults.blocked and _is_blocked(ask, faults.blocked, seed):
        return "blocked", api.failure("blocked")
    return None


def _is_blocked(ask: Ask, rate: float, seed: int) -> bool:
    texts = [row.text.raw for row in read_rows(ask.user)] or [ask.user]
    return any(refuses(seed, text, rate, kind="blocked") for text in texts)


def cache_told(ask: Ask, outcome: Outcome, is_cached: Callable[[str], bool]) -> Outcome:
    """Tell in the usage what a prompt cache would have read and written."""
    if ask.cacheable is None:
        return outcome
    key, size = ask.cacheable
    if is_cached(key):
        return dataclasses.replace(outcome, cached_tokens=size)
    return dataclasses.replace(outcome, cache_write_tokens=size)


def reply_to(ask: Ask, faults: Faults, draws: Draws, seed: int) -> Replied:
    """Answer a question by the rules, then let its faults fall."""
    rows = read_rows(ask.user, ask.seen)
    asked = rows or [Row(id="", text=Text(ask.user))]
    if any(refuses(seed, row.text.raw, faults.refused) for row in asked):
        return Replied(outcome=_refused(ask, REFUSAL), rows=asked, faults=("refused",))
    if draws.falls("filtered", faults.filtered):
        return Replied(outcome=_filtered(ask), rows=asked, faults=("filtered",))
    ignored = ask.form in faults.ignored_forms
    found = answer(
        rows, ask.user, ask.system, None if ignored else ask.schema, wants_json=ask.form != "text" and not ignored
    )
    if found.whole is None and not found.envelope and not found.prose:
        return Replied(outcome=_refused(ask, UNKNOWN), rows=asked, n_unanswered=1)
    found, fallen = _row_faults(found, rows, faults, draws, _fields_of(ask.schema, found.envelope))
    value, text = _written(ask, found, ignored=ignored)
    outcome, more = _finished(ask, value, text, faults, draws, tool="" if ignored else ask.tool)
    return Replied(outcome=outcome, rows=asked, n_unanswered=found.n_unanswered, faults=(*fallen, *more))


def _refused(ask: Ask, words: str) -> Outcome:
    size = ask.thinking_tokens + tokens_of(words)
    return Outcome(text="", stop="refused", refusal=words, output_tokens=size, thinking_tokens=ask.thinking_tokens)


def _filtered(ask: Ask) -> Outcome:
    words = "The sandbox's content filter stopped this reply, as its faults ask it to."
    return Outcome(text="", stop="filtered", refusal=words, output_tokens=ask.thinking_tokens)


def _row_faults(
    found: Answer, rows: list[Row], faults: Faults, draws: Draws, fields: Mapping[str, Any]
) -> tuple[Answer, list[str]]:
    """Leave out, repeat, exchange and add rows."""
    if not found.envelope or not rows:
        return found, []
    fallen: list[str] = []
    kept = [dict(row) for row in found.rows]
    tags = [str(row.get(ID, i)) for i, row in enumerate(kept)]

    def falls(kind: str, rate: float, i: int) -> bool:
        fell = draws.falls(kind, rate, tags[i])
        if fell:
            fallen.append(kind)
        return fell

    swaps = [i for i in range(len(kept) - 1) if falls("swapped", faults.swapped, i)]
    for i in swaps:
        if ID in kept[i] and ID in kept[i + 1]:
            kept[i][ID], kept[i + 1][ID] = kept[i + 1][ID], kept[i][ID]
    result: list[dict[str, Any]] = []
    for i, row in enumerate(kept):
        if not falls("missing", faults.missing, i):
            result.append(row)
            if falls("duplicated", faults.duplicated, i):
                # As a model does it: one row's id a second time, on the answer that belongs to the next row.
                result.append({**kept[(i + 1) % len(kept)], ID: row.get(ID)})
            if falls("several", faults.several, i):
                result += [_otherwise(row, fields, way) for way in (1, 2)]
        if falls("foreign", faults.foreign, i):
            result.append({**row, ID: f"foreign-{draws.tag[:8]}-{i}"})
    return (
        dataclasses.replace(found, rows=result),
        fallen,
    )


def _fields_of(schema: Mapping[str, Any] | None, envelope: str) -> Mapping[str, Any]:
    """Return the schemas of a row's fields, none where the reply has no schema."""
    node: Any = schema
    for step in ("properties", envelope, "items", "properties"):
        node = node.get(step) if isinstance(node, Mapping) else None
    return node if isinstance(node, Mapping) else {}


def _otherwise(row: Mapping[str, Any], fields: Mapping[str, Any], way: int) -> dict[str, Any]:
    """Return a row's answer with other values, of which a schema's own are kept to."""
    return {k: v if k == ID else _other_value(v, fields.get(k), way) for k, v in row.items()}


def _other_value(value: Any, node: Any, way: int) -> Any:
    choices = node.get("enum") if isinstance(node, Mapping) else None
    if choices and value in choices:
        return choices[(choices.index(value) + way) % len(choices)]
    if isinstance(value, bool):
        return value if way == 2 else not value
    if isinstance(value, int | float):
        highest = node.get("maximum") if isinstance(node, Mapping) else None
        return value - way if highest is not None and value + way > highest else value + way
    return f"{value} ({way + 1})" if isinstance(value, str) else value


def _written(ask: Ask, found: Answer, *, ignored: bool) -> tuple[Any, str]:
    """Return the reply as a value and as text."""
    if found.prose:
        return None, found.prose
    value = {**found.beside, found.envelope: found.rows} if found.envelope else found.whole
    text = json.dumps(value, ensure_ascii=False, separators=(",", ":"))
    if ignored:
        return value, f"Here is what the rules find:\n\n```json\n{text}\n```\n\nThese are rules, not a language model."
    return value, text


def _finished(ask: Ask, value: Any, text: str, faults: Faults, draws: Draws, *, tool: str) -> tuple[Outcome, list[str]]:
    """End the reply: whole, at a stop sequence, broken, or at the token limit."""
    fallen: list[str] = []
    stop, met = "stop", ""
    if ask.prefill and text.startswith(ask.prefill):
        text = text[len(ask.prefill) :]
    for sequence in ask.stop_sequences:
        if sequence and sequence in text:
            text, stop, met = text[: text.index(sequence)], "stop_sequence", sequence
    cut = _cut_of(ask, text, faults, draws)
    if cut < len(text):
        if draws.falls("truncated", faults.truncated):
            fallen.append("truncated")
        value, text, stop, met = _fitting(value, text[:cut]), text[:cut], "length", ""
    elif draws.falls("malformed", faults.malformed):
        fallen.append("malformed")
        value, text = _broken_value(value), _broken(text, draws)
    outcome = Outcome(
        text=text,
        value=value,
        stop=stop,
        stop_sequence=met,
        tool=tool,
        output_tokens=ask.thinking_tokens + tokens_of(text),
        thinking_tokens=ask.thinking_tokens,
    )
    return outcome, fallen


def _cut_of(ask: Ask, text: str, faults: Faults, draws: Draws) -> int:
    """Return how many characters of the text are written before the limit, or before the fault that feigns one."""
    limits = [ask.max_tokens, faults.max_output_tokens, MAX_OUTPUT_TOKENS]
    room = min(n for n in limits if n is not None) - ask.thinking_tokens
    size = tokens_of(text)
    cut = len(text) if size <= room else max(0, len(text) * room // size)
    if draws.falls("truncated", faults.truncated):
        cut = min(cut, int(len(text) * (0.2 + 0.7 * draws.uniform("cut"))))
    return cut


def _fitting(value: Any, text: str) -> Any:
    """Return what of a tool's input a cut reply holds: the rows that are whole."""
    name = next((n for n in ENVELOPES if isinstance(value, Mapping) and isinstance(value.get(n), list)), "")
    if not name:
        return {}
    kept: list[Any] = []
    size = len(name) + 6
    for row in value[name]:
        size += len(json.dumps(row, ensure_ascii=False, separators=(",", ":"))) + 1
        if size > len(text):
            break
        kept.append(row)
    return {name: kept}


def _broken_value(value: Any) -> Any:
    """Return a tool's input as models break it: the list as one string."""
    if isinstance(value, Mapping):
        return {k: json.dumps(v)[:-1] for k, v in value.items()}
    return {}


def _broken(text: str, draws: Draws) -> str:
    """Return JSON that no strict reader takes."""
    way = int(draws.uniform("breakage") * 4)
    if way == 0:
        return text[: max(1, int(len(text) * 0.6))]
    if way == 1:
        return text[:-1]
    if way == 2:
        return text.replace('"', "'")
    middle = text.find(",", len(text) // 3)
    return text[:middle] + text[middle + 1 :] if middle > 0 else text + "}"
