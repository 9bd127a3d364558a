"""Texts that are longer than a model reads: said before anything is sent, or cut and asked in parts.

A text's tokens are estimated as a quarter of its bytes. That is rough: prose is often less, tables and some scripts are
more. So a text is refused only where prompt, text and room for an answer are by estimate a quarter over the window;
what is in between is sent, and the provider decides. Parts are cut with room to spare instead.

A part is a row of its own to everything that asks, packs, stores and looks up: its key is drawn from its own text. So
the model is not told that it sees a part, and the system prompt is the same for short and long texts: the same text
under the same task is the same question, whatever it was cut from. Where parts call for words of their own ("the text
may be an excerpt"), they belong into the prompt.
"""

from __future__ import annotations

import json
import operator
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, SupportsIndex

from lmsyz.errors import UsageError
from lmsyz.long_rows import with_parts
from lmsyz.place import Place
from lmsyz.providers.models import OUTPUT_LIMITS, quirks_of
from lmsyz.rows import Merge, Rows, estimate_tokens, text_key
from lmsyz.settings import Settings
from lmsyz.task import Task
from lmsyz.text_parts import cut_text
from lmsyz.windows import SMALLEST_WINDOW, context_window, reserved_for_output

__all__ = ["LongTexts", "read_long_texts"]

HOW = ("refuse", "split")
MARGIN = 1.25  # a text that fits must not be refused for an estimate that is too high
SPLIT_FROM, PART_SHARE = 0.8, 0.5  # nor a part be sent that does not fit, for one that is too low
ANSWER_TOKENS = 1_000
LEAST_PART = 16
FIELDS_SHARE = 0.5  # what goes along with every part may take this much of it


@dataclass(frozen=True, slots=True, kw_only=True)
class LongTexts:
    """What a call says of long texts.

    Parameters
    ----------
    split : bool
        Whether they are cut, or else refused.
    max_tokens : int or None
        Estimated tokens of a part, at most, as the user wants it.
    window : int or None
        Tokens that the model reads and writes in one request; 0 for no limit, None where the user did not say.
    merge : callable or None
        The user's own way from the parts' answers to the row's.
    """

    split: bool = False
    max_tokens: int | None = None
    window: int | None = None
    merge: Merge | None = None

    def token_budget(self, usual: int, task: Task, place: Place) -> int:
        """Return how many estimated tokens of text may be packed into one request: at most half of a small window.

        Parameters
        ----------
        usual : int
            The setting.
        task, place : Task, Place
            What is asked, and where.

        Returns
        -------
        int
        """
        if not self.window:
            return usual  # the windows that are looked up are far larger
        return min(usual, max(int(self._room(task, place, self.window) * PART_SHARE), LEAST_PART))

    def applied(self, rows: Rows, task: Task, place: Place, *, dedupe: bool = True) -> Rows:
        """Return rows of which too long ones are asked in parts, or not at all.

        Parameters
        ----------
        rows : Rows
            Of the frame.
        task, place : Task, Place
            What is asked, and where.
        dedupe : bool
            Whether equal texts are asked once.

        Returns
        -------
        Rows
            The same where no text is too long.

        Raises
        ------
        UsageError
            Texts are to be cut, and neither the model's window is known nor the size of a part said.
        """
        longest = max(map(len, filter(None, rows.texts)), default=0)
        limits = self._limits(task, place, longest)
        # A character takes four bytes at most, so that a text of fewer characters than that has not as many tokens.
        if limits is None or longest < limits.most:
            return rows
        too_long = {
            position: text
            for position, text in enumerate(rows.texts)
            if text and len(text) >= limits.most and estimate_tokens(text) > limits.most
        }
        if not self.split:
            asked = estimate_tokens(task.system)
            refused = {rows.keys[p]: limits.refusal(asked + estimate_tokens(text)) for p, text in too_long.items()}
            return with_parts(rows, {}, refused)
        return self._cut(rows, too_long, limits, dedupe)

    def _limits(self, task: Task, place: Place, longest: int) -> _Limits | None:
        window = self.window
        if window is None and (self.split or longest >= SMALLEST_WINDOW // 4):
            window = context_window(task.endpoint, task.model)
        if not window and self.split and not self.max_tokens:
            raise UsageError(
                f"long_texts='split': how much {task.model} reads is not known; say max_text_tokens=8_000 for parts of"
                " that size, or context_window= for what it reads"
            )
        if not window:
            return _Limits(model=task.model, most=self.max_tokens, part=self.max_tokens) if self.max_tokens else None
        room = self._room(task, place, window)
        if not self.split:
            reads = window - self._answer_tokens(task, place, window)
            return _Limits(model=task.model, most=room + int(window * (MARGIN - 1)), window=reads)
        most = min(int(room * SPLIT_FROM), self.max_tokens or room)
        part = min(int(room * PART_SHARE), self.max_tokens or room)
        return _Limits(model=task.model, most=max(most, LEAST_PART), part=max(part, LEAST_PART))

    def _room(self, task: Task, place: Place, window: int) -> int:
        """Return what the prompt, the schema and the answer leave of a window."""
        asked = estimate_tokens(task.system) + estimate_tokens(task.schema.canonical if task.schema else "")
        return window - asked - self._answer_tokens(task, place, window)

    def _answer_tokens(self, task: Task, place: Place, window: int) -> int:
        """Return the room that an answer needs in a window, or that the model keeps free for it."""
        asked = [int(task.options[name]) for name in OUTPUT_LIMITS if isinstance(task.options.get(name), int)]
        if task.backend == "anthropic":
            asked = asked or [quirks_of(task.model, place.quirks).usual_max_tokens]
        kept = reserved_for_output(task.model) if self.window is None else 0
        # A limit beyond the window is a matter between the user and the server; it must not refuse every text.
        return min(max(kept, min(ANSWER_TOKENS, window // 8), *asked), window // 2)

    def _cut(self, rows: Rows, too_long: Mapping[int, str], limits: _Limits, dedupe: bool) -> Rows:
        parts: dict[bytes, list[tuple[bytes, str | None]]] = {}
        refused: dict[bytes, str] = {}
        # Where equal texts are asked each on its own, a part that equals another row is so too.
        seen = Counter(text for text in rows.texts if text is not None) if not dedupe else None
        for position, text in too_long.items():
            key = rows.keys[position]
            if key in parts or key in refused:
                continue
            texts = _cut_fields(text, limits.part or 0) if rows.named_fields else cut_text(text, limits.part or 0)
            if isinstance(texts, str):
                refused[key] = texts
                continue
            image = rows.images[position] if rows.images is not None else None
            name = image.name if image is not None else ""
            parts[key] = [(_key(part, seen, rows.named_fields, name), part) for part in texts]
        return with_parts(rows, parts, refused, merge=self.merge, merge_name=_name(self.merge))


@dataclass(frozen=True, slots=True, kw_only=True)
class _Limits:
    """How many estimated tokens a text may have, and a part of one that has more."""

    model: str
    most: int
    part: int | None = None
    window: int = 0

    def refusal(self, n: int) -> str:
        # The figure that differs from row to row stands where the report leaves it out, so that these rows are counted
        # together.
        return (
            f"failed: prompt and text are too long for {self.model}, which reads {self.window:,} tokens, and were not"
            f" sent; long_texts='split' asks about the text's parts, or shorten it (got about {n:,} tokens)"
        )


def read_long_texts(own: Mapping[str, Any], settings: Settings, place: Place) -> LongTexts:
    """Read what a call says of long texts.

    Parameters
    ----------
    own : mapping
        The call's options, of which ``long_texts``, ``max_text_tokens``, ``context_window`` and ``merge`` are read.
    settings : Settings
        Defaults for what is None.
    place : Place
        Where it is asked.

    Returns
    -------
    LongTexts

    Raises
    ------
    UsageError
        One of them cannot be.
    """
    how = "refuse" if own.get("long_texts") is None else own["long_texts"]
    if how not in HOW:
        raise UsageError(f"long_texts={how!r}; use 'refuse' (marked in ie_error, not sent) or 'split' (asked in parts)")
    merge, max_tokens = own.get("merge"), own.get("max_text_tokens")
    for name, value in (("merge", merge), ("max_text_tokens", max_tokens)):
        if value is not None and how != "split":
            raise UsageError(f"{name}= is about texts asked in parts: add long_texts='split'")
    if merge is not None and not callable(merge):
        raise UsageError(f"merge= takes a function from a list of answers (dicts) to one answer, got {merge!r:.60}")
    if max_tokens is not None:
        max_tokens = _whole("max_text_tokens", max_tokens, LEAST_PART)
    window = own.get("context_window")
    window = _window(settings, place) if window is None else _whole("context_window", window, 0)
    return LongTexts(split=how == "split", max_tokens=max_tokens, window=window, merge=merge)


def _window(settings: Settings, place: Place) -> int | None:
    if settings.context_window is None and place.endpoint == "local" and place.model == settings.local_model:
        return settings.local_context
    return settings.context_window


def _whole(name: str, value: object, least: int) -> int:
    size: int = -1 if isinstance(value, bool) or not isinstance(value, SupportsIndex) else operator.index(value)
    if size < least:
        raise UsageError(f"{name} must be a whole number from {least} up, got {value!r:.60}")
    return size


def _key(part: str, seen: Counter[str] | None, named_fields: bool, image: str) -> bytes:
    if seen is None:
        return text_key(part, named_fields=named_fields, image=image)
    seen[part] += 1
    return text_key(part, occurrence=seen[part] - 1, named_fields=named_fields, image=image)


def _name(merge: object) -> str:
    return str(getattr(merge, "__name__", type(merge).__name__)) if merge is not None else ""


def _cut_fields(text: str, part: int) -> list[str] | str:
    """Cut the longest of several named fields; the others go along with each part. Or say why that cannot be."""
    fields = json.loads(text)
    longest = max(fields, key=lambda name: len(fields[name] or ""))
    others = estimate_tokens(_dump({**fields, longest: ""}))
    if others > part * FIELDS_SHARE:
        return (
            f"failed: only the longest field ({longest}) is cut, and the other fields, which go along with each part,"
            f" are too long for parts of {part:,} tokens; leave some out of text_col=, or shorten them (got about"
            f" {others:,} tokens)"
        )
    return [_dump({**fields, longest: piece}) for piece in cut_text(fields[longest], part - others)]


def _dump(fields: Mapping[str, Sequence[str] | None]) -> str:
    return json.dumps(fields, ensure_ascii=False, separators=(",", ":"))
