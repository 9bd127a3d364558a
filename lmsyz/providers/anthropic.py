"""Anthropic's wire: the Messages API."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from lmsyz.images import ImagePart
from lmsyz.providers.anthropic_faults import error_of, status_of_type
from lmsyz.providers.base import (
    Call,
    Form,
    JsonObject,
    Raw,
    Reply,
    Stop,
    Usage,
    as_dict,
    as_int,
    body_options,
    dicts_in,
)
from lmsyz.providers.faults import Fault, error_object, hide_keys, loads_reply, no_reply
from lmsyz.providers.models import Quirks, check_options
from lmsyz.providers.sending import post_once
from lmsyz.schema_render import render
from lmsyz.task import Task

__all__ = ["AnthropicProvider"]

NAME = "anthropic"
TOOL_NAME = "rows"
STOPS = {
    "end_turn": Stop.COMPLETE,
    "stop_sequence": Stop.COMPLETE,
    "tool_use": Stop.COMPLETE,
    "max_tokens": Stop.TRUNCATED,
    "model_context_window_exceeded": Stop.TRUNCATED,
    "refusal": Stop.REFUSED,
}


class AnthropicProvider:
    """Anthropic through the official SDK's plain ``post``.

    Parameters
    ----------
    client : anthropic.Anthropic or None
        A client whose own retries are off; None for a provider that only builds and reads.
    quirks : Quirks
        What is peculiar to the model.
    owns_client : bool
        Whether :meth:`close` closes the client.
    """

    name = NAME

    def __init__(self, client: Any = None, *, quirks: Quirks | None = None, owns_client: bool = False) -> None:
        self.client = client
        self.owns_client = owns_client
        self.quirks = quirks or Quirks()

    def forms(self, task: Task) -> tuple[Form, ...]:
        """Return the ways to ask for structured output, best first."""
        if not task.schema:
            return (Form.TEXT,)
        forms = [Form.SCHEMA] if self.quirks.schema else []
        if self.quirks.forced_tool:
            forms.append(Form.TOOL)
        return (*forms, Form.TEXT)

    def build(self, task: Task, user: str, form: Form, images: Sequence[ImagePart] = ()) -> JsonObject:
        """Return the request body for one user message."""
        options = body_options(task.options)
        check_options(task.model, options, self.quirks)
        system: JsonObject = {"type": "text", "text": task.system}
        if self.quirks.prompt_cache:
            # On the system block alone: marked at the top, the cache would be written anew for every chunk.
            system["cache_control"] = {"type": "ephemeral"}
        body: JsonObject = {
            "model": task.model,
            "max_tokens": options.pop("max_tokens", self.quirks.usual_max_tokens),
            "system": [system],
            "messages": [{"role": "user", "content": self.content(user, images)}],
        }
        if form is Form.SCHEMA:
            wanted = {"type": "json_schema", "schema": self._envelope(task)}
            body["output_config"] = {"format": wanted} | (options.pop("output_config", None) or {})
        elif form is Form.TOOL:
            tool = {"name": TOOL_NAME, "description": "Give the results for all rows."}
            body["tools"] = [tool | {"input_schema": self._envelope(task)}]
            body["tool_choice"] = {"type": "tool", "name": TOOL_NAME, "disable_parallel_tool_use": True}
        return body | options

    def content(self, user: str, images: Sequence[ImagePart]) -> str | list[JsonObject]:
        """Return the content of the user message: each image after its label, then the text."""
        if not images:
            return user
        parts: list[JsonObject] = []
        for image in images:
            inline = {"type": "base64", "media_type": image.media_type, "data": image.data}
            parts.append({"type": "text", "text": image.label})
            parts.append({"type": "image", "source": {"type": "url", "url": image.url} if image.url else inline})
        return [*parts, {"type": "text", "text": user}]

    def parse(self, text: str) -> Reply:
        """Read a reply body."""
        payload = loads_reply(NAME, text)
        if payload.get("error"):
            error = error_object(payload)
            raise error_of(Fault(provider=NAME, status=status_of_type(error), error=error))
        reason = payload.get("stop_reason")
        if not isinstance(payload.get("content"), list) and not reason:
            raise no_reply(NAME, text)
        details = as_dict(payload.get("stop_details"))
        # pause_turn and reasons still to come leave a reply that is held against its rows like any other.
        stop = STOPS.get(str(reason), Stop.COMPLETE)
        return Reply(
            text=_text_of(dicts_in(payload.get("content")), is_cut=stop is Stop.TRUNCATED),
            stop=stop,
            detail=hide_keys(str(details.get("explanation") or details.get("category") or "")),
            model=str(payload.get("model") or ""),
            usage=_usage(as_dict(payload.get("usage"))),
        )

    def send(self, body: JsonObject, call: Call) -> Raw:
        """Send one body once."""
        return post_once(self.client, "/v1/messages", provider=NAME, body=body, call=call, error_of=error_of)

    def close(self) -> None:
        """Close the connections of a client of ours; a user's own stays open."""
        if self.owns_client:
            self.client.close()

    def _envelope(self, task: Task) -> JsonObject:
        return render(task.schema, "anthropic", verify=task.verify)


def _text_of(blocks: list[JsonObject], *, is_cut: bool) -> str:
    """Return a tool's input as JSON text, or else the text blocks; thinking blocks come before either."""
    for block in blocks:
        if block.get("type") == "tool_use" and block.get("name") == TOOL_NAME:
            text = json.dumps(block.get("input"), ensure_ascii=False)
            # An input that was cut comes closed as if it were whole: its last row may have half of what it says.
            return text.rstrip("]}") if is_cut else text
    return "".join(str(b.get("text") or "") for b in blocks if b.get("type") == "text")


def _usage(usage: JsonObject) -> Usage:
    plain = as_int(usage.get("input_tokens"))
    read = as_int(usage.get("cache_read_input_tokens"))
    written = as_int(usage.get("cache_creation_input_tokens"))
    return Usage(
        # Anthropic counts cached input apart; OpenAI, and we, count it in.
        input_tokens=None if plain is None else plain + (read or 0) + (written or 0),
        output_tokens=as_int(usage.get("output_tokens")),
        cached_tokens=read,
        cache_write_tokens=written,
        cache_write_1h_tokens=as_int(as_dict(usage.get("cache_creation")).get("ephemeral_1h_input_tokens")),
        reasoning_tokens=as_int(as_dict(usage.get("output_tokens_details")).get("thinking_tokens")),
        service_tier=str(usage.get("service_tier") or ""),
    )
