"""What both APIs' faces share: the question as read from a body, the outcome, errors, sizes, and plain checks."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

from lmsyz.sandbox.faults import Draws

if TYPE_CHECKING:
    from lmsyz.sandbox.images import Seen

__all__ = [
    "LABEL",
    "MODELS",
    "Api",
    "ApiError",
    "Ask",
    "JsonObject",
    "LimitState",
    "Model",
    "Outcome",
    "tokens_of",
]

JsonObject = dict[str, Any]
LABEL = "rules, not a language model"


@dataclass(frozen=True, slots=True, kw_only=True)
class Model:
    """A model that the sandbox offers.

    Parameters
    ----------
    id : str
        Its name.
    words : str
        What it stands for.
    reasoning : bool
        Whether it is as strict as current reasoning models are: no sampling parameters, no forced tool, thinking that
        counts as output.
    """

    id: str
    words: str
    reasoning: bool = False


MODELS = {
    m.id: m
    for m in (
        Model(id="sandbox-rules", words="Sandbox Rules (dictionary rules, not a language model)"),
        Model(id="sandbox-rules-mini", words="Sandbox Rules Mini (the same rules under another name)"),
        Model(
            id="sandbox-rules-reasoning", words="Sandbox Rules Reasoning (as strict as current models)", reasoning=True
        ),
        # What the seed package's examples ask for: they run here with only their import changed.
        Model(id="gpt-4.1-mini", words="Sandbox Rules (not a language model, and not OpenAI's of this name)"),
        Model(
            id="claude-haiku-4-5-20251001",
            words="Sandbox Rules (not a language model, and not Anthropic's of this name)",
        ),
    )
}
CREATED = 1_767_225_600  # 2026-01-01; a model's birthday, the same on every machine
CONTEXT_TOKENS = 1_000_000
MAX_OUTPUT_TOKENS = 128_000
THINKING_TOKENS = 64


class ApiError(Exception):
    """An error answer: status, body and headers, ready to send."""

    def __init__(self, status: int, body: JsonObject, headers: Mapping[str, str] | None = None) -> None:
        super().__init__(f"{status}: {body}")
        self.status = status
        self.body = body
        self.headers = dict(headers or {})


@dataclass(frozen=True, slots=True, kw_only=True)
class Ask:
    """One question as read from a request body.

    Parameters
    ----------
    body : dict
        The body.
    model : Model
        The model asked for.
    system, user : str
        The last user message, and all text of the system messages.
    form : str
        ``"json_schema"``, ``"tool"``, ``"json_object"`` or ``"text"``.
    schema : mapping or None
        The schema of the reply, where there is one.
    tool : str
        Name of the tool that will be called, empty for none.
    max_tokens : int or None
        Output limit.
    thinking_tokens : int
        Output that the model spends before it writes.
    input_tokens : int
        Size of the request.
    cacheable : tuple
        A key and the tokens of the prompt's shared beginning that a prompt cache would keep, if any.
    stop_sequences : tuple of str
        Texts at which the reply ends.
    prefill : str
        The beginning of the reply, where the request gives it.
    seen : tuple of Seen
        The images of the last user message.
    """

    body: JsonObject
    model: Model
    system: str
    user: str
    form: str
    schema: Mapping[str, Any] | None
    tool: str = ""
    max_tokens: int | None = None
    thinking_tokens: int = 0
    input_tokens: int = 0
    cacheable: tuple[str, int] | None = None
    stop_sequences: tuple[str, ...] = ()
    prefill: str = ""
    seen: tuple[Seen, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """What is replied to a question.

    Parameters
    ----------
    text : str
        The reply's text: JSON, prose, or what a fault made of it.
    value : object
        What the text says where it is whole JSON, for tools whose input is no text.
    stop : str
        ``"stop"``, ``"length"``, ``"filtered"``, ``"refused"`` or ``"stop_sequence"``.
    stop_sequence : str
        The stop sequence met.
    refusal : str
        What a refusal says.
    tool : str
        Name of the tool called, empty for none.
    output_tokens : int
        Size of the reply, thinking included.
    thinking_tokens : int
        The part of it that was thinking.
    cached_tokens, cache_write_tokens : int
        The part of the input that was read from, or written to, the prompt cache.
    """

    text: str
    value: Any = None
    stop: str = "stop"
    stop_sequence: str = ""
    refusal: str = ""
    tool: str = ""
    output_tokens: int = 0
    thinking_tokens: int = 0
    cached_tokens: int = 0
    cache_write_tokens: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class LimitState:
    """What rate-limit headers tell: for requests and tokens the limit, what is left, and seconds until all is back."""

    requests: tuple[int, int, float]
    tokens: tuple[int, int, float]


class Api(Protocol):
    """One endpoint's wire: reading a body, writing a reply, and its own way of saying no."""

    label: str
    path: str

    def authorise(self, headers: Mapping[str, str]) -> None:
        """Raise the 401 or 400 that wrong headers get."""

    def read(self, raw: bytes, headers: Mapping[str, str]) -> Ask:
        """Read and check a body, or raise the 400 or 404 that it gets."""

    def reply(self, ask: Ask, outcome: Outcome, draws: Draws) -> JsonObject:
        """Return the reply's body."""

    def failure(self, kind: str, message: str = "", *, retry_after_s: float | None = None) -> ApiError:
        """Return the error for what can happen to any request: rate limits, overload, no credit and so on."""

    def too_long(self, size: int, limit: int) -> ApiError:
        """Return the error of a request over the context window."""

    def refuse_form(self, form: str) -> ApiError:
        """Return the error of a model that does not know a way of asking for structured output."""

    def headers(self, request_id: str, limits: LimitState) -> dict[str, str]:
        """Return the headers of every answer."""


def tokens_of(text: str) -> int:
    """Return a text's size in tokens: a quarter of its UTF-8 bytes, at least 1 where there is text."""
    size = len(text) if text.isascii() else len(text.encode("utf-8", "surrogatepass"))
    return (size + 3) // 4
