"""What is peculiar to a model: one small table, which a user can override.

The longest prefix of the model's name decides (a vendor prefix such as ``openai/`` is passed over). Unknown models get
the defaults; there is no list of allowed names. Sources: the OpenAI and Anthropic SDKs' type files and model pages as
of November 2026.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from typing import Any

from lmsyz.errors import UsageError

__all__ = ["DEFAULT_MODELS", "SANDBOX_MODEL", "Quirks", "quirks_of"]

DEFAULT_MODELS = {"openai": "gpt-6-luna", "anthropic": "claude-haiku-5-5"}
SANDBOX_MODEL = "sandbox-rules"


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
        The most the model can write; a larger request is refused before it is sent. 0 is unknown.
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


_NEW_OPENAI = {"max_tokens_name": "max_completion_tokens"}
TABLE: Mapping[str, Mapping[str, Any]] = {
    "gpt-5": {**_NEW_OPENAI, "max_output": 128_000},
    "gpt-6": {**_NEW_OPENAI, "max_output": 128_000},
    "o1": _NEW_OPENAI,
    "o3": _NEW_OPENAI,
    "o4": _NEW_OPENAI,
    "claude-": {"max_output": 128_000},
    "claude-haiku-4-5": {"max_output": 64_000},
    "claude-sonnet-4-5": {"max_output": 64_000},
    "claude-opus-4-5": {"max_output": 64_000},
    "claude-opus-4-0": {"max_output": 32_000, "max_tokens": 8_192, "schema": False},
    "claude-opus-4-1": {"max_output": 32_000, "max_tokens": 8_192, "schema": False},
    "claude-opus-4-2": {"max_output": 32_000, "max_tokens": 8_192, "schema": False},
    "claude-sonnet-4-0": {"max_output": 64_000, "schema": False},
    "claude-sonnet-4-2": {"max_output": 64_000, "schema": False},
    "claude-3": {"max_output": 8_192, "max_tokens": 4_096, "schema": False},
    "claude-haiku-5-5": {"forced_tool": False, "max_output": 128_000},
    "claude-sonnet-5-5": {"forced_tool": False, "max_output": 128_000},
    "claude-opus-5-5": {"forced_tool": False, "max_output": 128_000},
    "claude-fable-5": {"forced_tool": False, "max_output": 128_000},
    "claude-mythos-5": {"forced_tool": False, "max_output": 128_000},
}


def quirks_of(model: str, override: Mapping[str, Any] | None = None) -> Quirks:
    """Return what is peculiar to a model, the user's own word last.

    Parameters
    ----------
    model : str
        The model's name as asked for.
    override : mapping, optional
        Fields of :class:`Quirks` to set, as in ``quirks={"max_tokens": 4000}``.

    Examples
    --------
    >>> quirks_of("openai/gpt-6-luna").max_tokens_name
    'max_completion_tokens'
    """
    name = model.rpartition("/")[2].lower()
    known = [prefix for prefix in TABLE if name.startswith(prefix)]
    quirks = Quirks(**TABLE[max(known, key=len)]) if known else Quirks()
    allowed = {f.name for f in fields(Quirks)}
    unknown = sorted(set(override or {}) - allowed)
    if unknown:
        raise UsageError(f"unknown quirks {unknown}; a model's quirks are {sorted(allowed)}")
    return replace(quirks, **(override or {}))
