"""What is peculiar to a model: one small table, which a user can override.

The longest prefix of the model's name decides (``openai/``, ``us.anthropic.`` and the like in front of it are passed
over). Unknown models get the defaults; there is no list of allowed names. Sources: the OpenAI and Anthropic SDKs' type
files and model pages as of November 2026.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from typing import Any

from lmsyz.errors import UsageError

__all__ = ["DEFAULT_MODELS", "OUTPUT_LIMITS", "SANDBOX_MODEL", "Quirks", "check_options", "quirks_of"]

DEFAULT_MODELS = {"openai": "gpt-6-luna", "anthropic": "claude-haiku-5-5"}
SANDBOX_MODEL = "sandbox-rules"
# The names that the APIs have for the output limit.
OUTPUT_LIMITS = ("max_tokens", "max_completion_tokens", "max_output_tokens")


@dataclass(frozen=True, slots=True, kw_only=True)
class Quirks:
    """How a model wants to be asked.

    Parameters
    ----------
    max_tokens_name : str
        What OpenAI's chat API calls the output limit for this model; a ``max_tokens`` option is sent under it.
    max_tokens : int
        Output limit sent where the API demands one (Anthropic) and the user names none.
    max_output : int
        The most that the model can write; a larger request is refused before it is sent. 0 is unknown.
    forced_tool : bool
        Whether a forced tool call is accepted (Anthropic's current models refuse it).
    schema : bool
        Whether the provider's own structured output is supported.
    prompt_cache : bool
        Whether the system block is marked for Anthropic's prompt cache.
    """

    max_tokens_name: str = "max_tokens"
    max_tokens: int = 16_384
    max_output: int = 0
    forced_tool: bool = True
    schema: bool = True
    prompt_cache: bool = True

    @property
    def usual_max_tokens(self) -> int:
        """The output limit where the user names none, and never above what the model can write."""
        return min(self.max_tokens, self.max_output or self.max_tokens)


_NEW_OPENAI = {"max_tokens_name": "max_completion_tokens"}
_NO_SCHEMA = {"schema": False, "max_tokens": 8_192}
_NO_FORCED_TOOL = {"forced_tool": False, "max_output": 128_000}
TABLE: Mapping[str, Mapping[str, Any]] = {
    "gpt-4o": {"max_output": 16_384},
    "gpt-4.1": {"max_output": 32_768},
    "gpt-5": {**_NEW_OPENAI, "max_output": 128_000},
    "gpt-6": {**_NEW_OPENAI, "max_output": 128_000},
    "o1": _NEW_OPENAI,
    "o3": {**_NEW_OPENAI, "max_output": 100_000},
    "o4": {**_NEW_OPENAI, "max_output": 100_000},
    "claude-": {"max_output": 128_000},
    "claude-haiku-4-5": {"max_output": 64_000},
    "claude-sonnet-4-5": {"max_output": 64_000},
    "claude-opus-4-5": {"max_output": 64_000},
    "claude-opus-4-0": {**_NO_SCHEMA, "max_output": 32_000},
    "claude-opus-4-1": {**_NO_SCHEMA, "max_output": 32_000},
    "claude-opus-4-2": {**_NO_SCHEMA, "max_output": 32_000},
    "claude-sonnet-4-0": {**_NO_SCHEMA, "max_output": 64_000},
    "claude-sonnet-4-2": {**_NO_SCHEMA, "max_output": 64_000},
    "claude-3": {"schema": False, "max_tokens": 4_096, "max_output": 8_192},
    "claude-haiku-5-5": _NO_FORCED_TOOL,
    "claude-sonnet-5-5": _NO_FORCED_TOOL,
    "claude-opus-5-5": _NO_FORCED_TOOL,
    "claude-fable-5-": _NO_FORCED_TOOL,
    "claude-mythos-5-": _NO_FORCED_TOOL,
}


def quirks_of(model: str, override: Mapping[str, Any] | None = None) -> Quirks:
    """Return what is peculiar to a model, the user's own word last.

    Parameters
    ----------
    model : str
        The model's name as asked for.
    override : mapping, optional
        Fields of :class:`Quirks` to set, as in ``quirks={"max_tokens": 4000}``.

    Returns
    -------
    Quirks

    Raises
    ------
    UsageError
        `override` has a field that there is not, or a value of another type.

    Examples
    --------
    >>> quirks_of("openai/gpt-6-luna").max_tokens_name
    'max_completion_tokens'
    """
    name = model.lower().rpartition("/")[2].rpartition("anthropic.")[2]
    known = [prefix for prefix in TABLE if name.startswith(prefix)]
    quirks = Quirks(**TABLE[max(known, key=len)]) if known else Quirks()
    if override is not None and not isinstance(override, Mapping):
        raise UsageError(f"quirks= takes a dict such as {{'max_tokens': 4000}}, got {override!r}")
    allowed = {f.name: type(f.default) for f in fields(Quirks)}
    unknown = [field for field in override or {} if field not in allowed]
    if unknown:
        raise UsageError(f"unknown quirks {unknown}; a model's quirks are {', '.join(sorted(allowed))}")
    for field, value in (override or {}).items():
        if type(value) is not allowed[field]:
            raise UsageError(f"the quirk {field!r} is of type {allowed[field].__name__}, got {value!r}")
    return replace(quirks, **(override or {}))


def check_options(model: str, options: Mapping[str, Any], quirks: Quirks) -> None:
    """Refuse what a model cannot do, before it is sent.

    Parameters
    ----------
    model : str
        The model's name, for the message.
    options : mapping
        Request options as they go into the body.
    quirks : Quirks
        What is peculiar to the model.

    Raises
    ------
    UsageError
        The output limit is no whole number from 1 up, or more than the model can write.
    """
    for name in OUTPUT_LIMITS:
        asked = options.get(name)
        if asked is None:
            continue
        if isinstance(asked, bool) or not isinstance(asked, int) or asked < 1:
            raise UsageError(f"{name}= is a whole number from 1 up, got {asked!r}")
        if quirks.max_output and asked > quirks.max_output:
            raise UsageError(
                f"{name}={asked} is more than {model} can write; the most is {quirks.max_output}. Should that be out of"
                " date, quirks={'max_output': 0} sends it all the same"
            )
