"""Defaults from the environment and a ``.env`` file, read when a call is made and never at import."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from pydantic import AliasChoices, Field, SecretStr, ValidationError, model_validator
from pydantic_settings import BaseSettings, SettingsConfigDict

from lmsyz.errors import UsageError

__all__ = ["Settings", "load_settings"]


def _named(name: str) -> Any:
    return AliasChoices(f"LMSYZ_{name.upper()}", name)


class Settings(BaseSettings):
    """Defaults of every call.

    Keys and base URLs have the providers' own variable names (``OPENAI_API_KEY``, ``ANTHROPIC_API_KEY``,
    ``OPENAI_BASE_URL``, ``ANTHROPIC_BASE_URL``); all else is ``LMSYZ_`` and the field's name in capitals. The
    environment wins over ``.env`` in the working directory. An empty variable counts as not set, and hides the one in
    ``.env``.

    Examples
    --------
    >>> Settings(_env_file=None, chunk_size=10).chunk_size
    10
    """

    model_config = SettingsConfigDict(
        env_file=".env",
        env_file_encoding="utf-8",
        extra="ignore",
        populate_by_name=True,
        hide_input_in_errors=True,
    )

    openai_api_key: SecretStr | None = Field(default=None, description="Key of the OpenAI backend.")
    anthropic_api_key: SecretStr | None = Field(default=None, description="Key of the Anthropic backend.")
    openai_base_url: str | None = Field(default=None, description="Where the OpenAI backend sends; with /v1.")
    anthropic_base_url: str | None = Field(default=None, description="Where the Anthropic backend sends; no /v1.")
    backend: str = Field(default="openai", validation_alias=_named("backend"), description="openai or anthropic.")
    model: str | None = Field(default=None, validation_alias=_named("model"), description="Model of that backend.")
    chunk_size: int = Field(default=5, ge=1, validation_alias=_named("chunk_size"), description="Rows a request.")
    max_workers: int | None = Field(
        default=None, ge=1, validation_alias=_named("max_workers"), description="Requests in flight, at most."
    )
    chunk_tokens: int = Field(
        default=8000,
        ge=1,
        validation_alias=_named("chunk_tokens"),
        description="Estimated text tokens a request.",
    )
    requests_per_minute: float | None = Field(
        default=None, gt=0, validation_alias=_named("requests_per_minute"), description="A cap of your own."
    )
    tokens_per_minute: float | None = Field(
        default=None, gt=0, validation_alias=_named("tokens_per_minute"), description="A cap of your own."
    )
    timeout: float = Field(default=600.0, gt=0, validation_alias=_named("timeout"), description="Seconds a call.")
    cache_path: Path = Field(
        default=Path("lmsyz_cache.sqlite"), validation_alias=_named("cache_path"), description="The store."
    )
    progress: bool = Field(default=True, validation_alias=_named("progress"), description="Whether bars are shown.")
    context_window: int | None = Field(
        default=None,
        ge=0,
        validation_alias=_named("context_window"),
        description="Tokens that the model reads and writes in one request; 0 for no limit.",
    )
    sandbox_url: str | None = Field(
        default=None, validation_alias=_named("sandbox_url"), description="Set by lmsyz.sandbox.start()."
    )
    local_url: str | None = Field(
        default=None, validation_alias=_named("local_url"), description="Set by lmsyz.local.start()."
    )
    local_model: str | None = Field(
        default=None, validation_alias=_named("local_model"), description="Set by lmsyz.local.start()."
    )
    local_context: int | None = Field(
        default=None, validation_alias=_named("local_context"), description="Set by lmsyz.local.start()."
    )

    @model_validator(mode="before")
    @classmethod
    def _without_empty(cls, given: dict[str, Any]) -> dict[str, Any]:
        # Not env_ignore_empty: with it the key in .env would be used where the environment says that there is none.
        return {name: value for name, value in given.items() if value != ""}

    def key_of(self, backend: str) -> str | None:
        """Return a backend's key as plain text, None where there is none."""
        secret = self.openai_api_key if backend == "openai" else self.anthropic_api_key
        return secret.get_secret_value().strip() or None if secret else None

    def base_url_of(self, backend: str) -> str | None:
        """Return a backend's base URL, None for the provider's own."""
        return (self.openai_base_url if backend == "openai" else self.anthropic_base_url) or None


def load_settings() -> Settings:
    """Read the settings now.

    Raises
    ------
    UsageError
        A variable holds something it cannot hold; the variable is named, its value is not shown. Or ``.env`` is not
        UTF-8.
    """
    try:
        return Settings()
    except ValidationError as error:
        wrong = "; ".join(f"{_variable(e['loc'])}: {e['msg']}" for e in error.errors(include_input=False))
        where = "the environment or .env" if os.path.exists(".env") else "the environment"
        raise UsageError(f"a setting in {where} is wrong: {wrong}") from None
    except UnicodeDecodeError:
        # Windows PowerShell's > writes UTF-16. The bytes are not shown: they may be a key's.
        raise UsageError("the file .env in the working directory is not UTF-8; save it again as UTF-8") from None


def _variable(loc: tuple[int | str, ...]) -> str:
    return str(loc[0]) if loc else "a setting"
