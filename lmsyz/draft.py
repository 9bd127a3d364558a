"""``draft_prompt``: a starting prompt, and with ``as_schema=True`` a schema, by one request to a model.

The request is an ordinary one of one row, whose text has the named fields ``goal`` and ``examples``: so it goes the way
of every other, through the same providers, forms, retries and checks, and what stands in a row of the user's is quoted
as material. No store is opened: a draft is no answer about a row, and asking again is meant to give another one.
"""

from __future__ import annotations

import html
import json
import threading
from collections.abc import Hashable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from lmsyz.errors import (
    LmsyzError,
    MalformedError,
    RefusedError,
    ReplyError,
    TruncatedError,
    UsageError,
)
from lmsyz.extract import check_size
from lmsyz.frame_rows import read_rows
from lmsyz.html_block import html_block
from lmsyz.place import Place, connect_place, make_task, read_task
from lmsyz.providers.base import Usage, call_options
from lmsyz.ratelimit import Limiter
from lmsyz.report import reason_word
from lmsyz.retry import RetryPolicy
from lmsyz.rows import Rows, text_key
from lmsyz.settings import load_settings
from lmsyz.task import Task
from lmsyz.worker import Asker, Exchange

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["Draft", "draft_prompt"]

LONGEST_GOAL = 20_000
LONGEST_EXAMPLE = 2_000
MOST_EXAMPLES = 50
LOOK_S = 0.1

_REQUEST = """\
You help a researcher who will ask a language model about every row of a table of texts. Each row of this request has \
the researcher's "goal", in their own words, and "examples": a few of the texts, which may be none. Write the \
instructions that the model will be given with each text.
A good prompt says in one sentence what to do; then, field by field, what is meant, what counts and what does not, and \
how to decide in doubtful cases, as a codebook for human coders would; and says to give null where the text does not \
say, never a guess. It fits any text of this kind, not only the examples, and repeats nothing of them. It does not \
describe JSON, ids or the form of the reply: that is added to it."""
_WITHOUT_SCHEMA = "It names the fields to give, each with a short name in lower case and with its type or its values."
_WITH_SCHEMA = """\
Beside it, list the fields of one row's answer: as few as the goal needs. A field of type "category" takes one of its \
values, which leave no text without a place; the other types have no values."""

_PROMPT = (str, "the instructions, in plain words")
_FIELD = {
    "name": (str, "short, in lower case, words joined by underscores"),
    "type": ["text", "integer", "number", "boolean", "category", "list of texts"],
    "values": ([str], "all values of a category, else none"),
    "may_be_null": (bool, "whether a text may not say"),
    "description": (str, "what is meant, in a few words"),
}
_JSON_TYPES = {
    "text": "string",
    "integer": "integer",
    "number": "number",
    "boolean": "boolean",
    "category": "string",
    "list of texts": "array",
}
_ERRORS: Mapping[str, tuple[type[ReplyError], str]] = {
    "refused": (RefusedError, "Say the goal in other words, show other rows, or try another model"),
    "truncated": (TruncatedError, "Raise max_tokens, or show fewer rows"),
}
_AGAIN = (MalformedError, "Ask again, or try another model")


class Draft(str):
    """A drafted prompt: text like any other, that knows its schema, its model and its cost. It cannot be changed.

    Parameters
    ----------
    prompt : str
        The prompt; the text itself.
    schema : dict, optional
        JSON Schema of one row's answer, where one was asked for.
    model : str
        The model that wrote it.
    cost : float, optional
        What it cost in US dollars; None where that is unknown.
    usage : Usage
        The tokens of the request.

    Examples
    --------
    >>> draft = Draft("Name the acquirer.", model="some-model")
    >>> draft == draft.prompt, draft.schema
    (True, None)
    """

    __slots__ = ("_cost", "_model", "_schema", "_usage")

    _schema: str
    _model: str
    _cost: float | None
    _usage: Usage

    def __new__(
        cls,
        prompt: str,
        schema: Mapping[str, Any] | None = None,
        model: str = "",
        cost: float | None = None,
        usage: Usage | None = None,
    ) -> Draft:
        """Make a draft."""
        draft = super().__new__(cls, prompt)
        # As text, so that nobody changes it by changing what `schema` returned.
        object.__setattr__(draft, "_schema", json.dumps(schema))
        object.__setattr__(draft, "_model", model)
        object.__setattr__(draft, "_cost", cost)
        object.__setattr__(draft, "_usage", usage or Usage())
        return draft

    @property
    def prompt(self) -> str:
        """The prompt, for ``df.ie.extract(draft.prompt, schema=draft.schema)``."""
        return str.__str__(self)

    @property
    def schema(self) -> dict[str, Any] | None:
        """JSON Schema of one row's answer; None where none was asked for."""
        schema: dict[str, Any] | None = json.loads(self._schema)
        return schema

    @property
    def model(self) -> str:
        """The model that wrote it, as it names itself."""
        return self._model

    @property
    def cost(self) -> float | None:
        """What it cost in US dollars; None where the price is unknown."""
        return self._cost

    @property
    def usage(self) -> Usage:
        """The tokens of the request."""
        return self._usage

    def __setattr__(self, name: str, value: object) -> None:
        raise AttributeError(f"a draft cannot be changed ({name}); write its words into a prompt of your own")

    def __reduce__(self) -> tuple[Any, ...]:
        return Draft, (self.prompt, self.schema, self.model, self.cost, self.usage)

    def __str__(self) -> str:
        return self.prompt

    def __repr__(self) -> str:
        schema = "" if self.schema is None else f"\n\nschema: {json.dumps(self.schema, ensure_ascii=False, indent=2)}"
        return f"<draft by {self._told()}>\n{self.prompt}{schema}"

    def _repr_html_(self) -> str:
        schema = "" if self.schema is None else json.dumps(self.schema, ensure_ascii=False, indent=2)
        shown = f"<details><summary>Schema</summary><pre>{html.escape(schema)}</pre></details>" if schema else ""
        prompt = f'<pre style="white-space: pre-wrap">{html.escape(self.prompt)}</pre>'
        return html_block(f"<p>Draft by {html.escape(self._told())}</p>{prompt}{shown}")

    def _told(self) -> str:
        cost = "cost unknown" if self.cost is None else f"${self.cost:.4f}"
        tokens = [n for n in (self.usage.input_tokens, self.usage.output_tokens) if n is not None]
        return ", ".join([self.model or "an unnamed model", *([f"{sum(tokens):,} tokens"] if tokens else []), cost])


def draft_prompt(
    goal: str,
    *,
    df: pd.DataFrame | None = None,
    text_col: Hashable | Sequence[Hashable] = "text",
    n_rows: int = 5,
    examples: Sequence[str] = (),
    as_schema: bool = False,
    backend: str | None = None,
    model: str | None = None,
    api_key: str | None = None,
    base_url: str | None = None,
    client: Any = None,
    **request_options: Any,
) -> Draft:
    """Ask the model for a starting prompt; one request, never taken from the store and never kept there.

    Parameters
    ----------
    goal : str
        What is to be found out about each text, in your own words.
    df : DataFrame, optional
        Some of its rows are shown to the model.
    text_col : label or list of labels
        Its column or columns of text.
    n_rows : int
        How many rows are shown, at even distances, the first 2,000 characters of each.
    examples : sequence of str
        Texts to show, in place of a frame's or beside them.
    as_schema : bool
        Whether a schema is drafted as well.
    backend, model, api_key, base_url, client, **request_options
        As in :meth:`df.ie.extract`.

    Returns
    -------
    Draft
        The prompt as text, with ``prompt``, ``schema``, ``model``, ``cost`` and ``usage``.

    Raises
    ------
    UsageError
        The call is wrong; nothing was sent.
    ReplyError
        The model refused, was cut off, or wrote something that cannot be used; the message tells what it cost.
    ProviderError
        The request could not be answered.

    Examples
    --------
    >>> draft = draft_prompt("Is the firm expanding?", df=df, as_schema=True)  # doctest: +SKIP
    >>> df.ie.extract(draft.prompt, schema=draft.schema)  # doctest: +SKIP
    """
    _check_goal(goal)
    shown = [*_texts_of(examples), *(_sample(df, text_col, n_rows) if df is not None else ())]
    settings = load_settings()
    place, task, _ = read_task(
        settings,
        f"{_REQUEST}\n{_WITH_SCHEMA if as_schema else _WITHOUT_SCHEMA}",
        schema={"prompt": _PROMPT, "fields": [_FIELD]} if as_schema else {"prompt": _PROMPT},
        backend=backend,
        model=model,
        base_url=base_url,
        client=client,
        verify_rows=False,
        request_options=request_options,
        api_key=api_key,
    )
    text = json.dumps({"goal": goal.strip(), "examples": shown}, ensure_ascii=False)
    return _draft_of(place, task, _ask(place, task, text, settings.timeout))


def _check_goal(goal: object) -> None:
    if not isinstance(goal, str) or not goal.strip():
        said = "is empty" if isinstance(goal, str) else f"is text, got {type(goal).__name__}"
        raise UsageError(f"the goal {said}; say what to find out, as in draft_prompt('Is the firm expanding?')")
    if len(goal) > LONGEST_GOAL:
        raise UsageError(
            f"the goal has {len(goal):,} characters, and {LONGEST_GOAL:,} are the most: say in a few sentences what to"
            " find out, and give texts with examples= or df="
        )
    if _has_surrogate(goal):
        raise UsageError("the goal holds a broken character (half of a surrogate pair); write it anew")


def _has_surrogate(text: str) -> bool:
    return any("\ud800" <= c <= "\udfff" for c in text)


def _texts_of(examples: Any) -> list[str]:
    is_list = isinstance(examples, Sequence) and not isinstance(examples, str)
    if not is_list or not all(isinstance(text, str) for text in examples):
        raise UsageError("examples= takes a list of texts, such as ['Profits rose.', 'The plant closes.']")
    if len(examples) > MOST_EXAMPLES:
        raise UsageError(f"examples= has {len(examples):,} texts; {MOST_EXAMPLES} are the most that are shown")
    return [_shortened(text) for text in examples]


def _sample(df: pd.DataFrame, text_col: Hashable | Sequence[Hashable], n_rows: int) -> list[str]:
    """Return some texts at even distances; those without text are left out."""
    n = check_size(n_rows, "n_rows", 5)
    if n > MOST_EXAMPLES:
        raise UsageError(f"n_rows={n:,}: {MOST_EXAMPLES} rows are the most that are shown")
    n = min(n, len(df))
    some = df.iloc[[i * len(df) // n for i in range(n)]]
    return [_shortened(text) for text in read_rows(some, text_col).texts if text]


def _shortened(text: str) -> str:
    whole = text.encode("utf-8", "replace").decode()
    return whole if len(whole) <= LONGEST_EXAMPLE else f"{whole[:LONGEST_EXAMPLE]} […]"


def _ask(place: Place, task: Task, text: str, timeout_s: float) -> Exchange:
    """Send the one request, in a thread of its own so that an interrupt gives control back at once."""
    call = call_options(task.options, deadline_s=timeout_s)
    provider = connect_place(place, connections=1, timeout_s=call.deadline_s)
    stop = threading.Event()
    asker = Asker(
        task=task,
        rows=Rows(texts=[text], keys=[text_key(text)], named_fields=True),
        provider=provider,
        call=call,
        limiter=Limiter(max_concurrency=1, stop=stop),
        policy=RetryPolicy(),
        stop=stop,
        observers=(),
    )
    outcomes: list[Any] = []

    def ask() -> None:
        try:
            outcomes.append(asker.ask((0,)))
        finally:
            provider.close()

    thread = threading.Thread(target=ask, name="lmsyz-draft", daemon=True)
    thread.start()
    try:
        while thread.is_alive():
            thread.join(LOOK_S)
    finally:
        stop.set()
    outcome = outcomes[0]
    if outcome.exchange is None:
        raise outcome.error or LmsyzError("the request came to nothing")
    exchange: Exchange = outcome.exchange
    return exchange


def _draft_of(place: Place, task: Task, exchange: Exchange) -> Draft:
    reply = exchange.reply
    cost = exchange.cost
    if exchange.settled.bad:
        reason = exchange.settled.bad[0]
        kind, remedy = _ERRORS.get(reason_word(reason), _AGAIN)
        raise _unusable(kind, reason, remedy, cost)
    answer = json.loads(exchange.settled.good[0])
    try:
        schema = _schema_of(answer["fields"]) if "fields" in answer else None
        # What lmsyz or the provider would not take is found out here, and not at the next call.
        make_task(place, answer["prompt"], schema, False, {})
    except UsageError as error:
        raise _unusable(_AGAIN[0], f"invalid: {error}", _AGAIN[1], cost) from error
    return Draft(answer["prompt"].strip(), schema, reply.model or task.model, cost, reply.usage)


def _unusable(kind: type[ReplyError], reason: str, remedy: str, cost: float | None) -> ReplyError:
    paid = "its cost is unknown" if cost is None else f"it cost ${cost:.4f}"
    return kind(f"the draft cannot be used: {reason} ({paid}). {remedy}.")


def _schema_of(fields: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Return the drafted fields as JSON Schema of one row's answer."""
    names = [field["name"].strip() for field in fields]
    again = next((name for name in names if names.count(name) > 1), None)
    if not names or "" in names or again is not None:
        raise UsageError(f"field {again!r} is there twice" if again else "a field has no name, or there is none")
    properties = {name: _property(name, field) for name, field in zip(names, fields, strict=True)}
    return {"type": "object", "properties": properties, "required": names, "additionalProperties": False}


def _property(name: str, field: Mapping[str, Any]) -> dict[str, Any]:
    kind, values = field["type"], list(dict.fromkeys(field["values"]))
    if kind == "category" and not values:
        raise UsageError(f"field {name!r} is a category without values")
    may_be_null = field["may_be_null"]
    node: dict[str, Any] = {"type": [_JSON_TYPES[kind], "null"] if may_be_null else _JSON_TYPES[kind]}
    if kind == "category":
        node["enum"] = [*values, *([None] if may_be_null else [])]
    if kind == "list of texts":
        node["items"] = {"type": "string"}
    return node | ({"description": field["description"].strip()} if field["description"].strip() else {})
