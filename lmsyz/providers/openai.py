"""OpenAI's wire: Chat Completions, the Responses API by option, and whatever speaks the first of them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from lmsyz.images import ImagePart
from lmsyz.providers.base import Call, Form, JsonObject, Raw, Reply, body_options
from lmsyz.providers.faults import Fault, error_object, loads_reply
from lmsyz.providers.local_server import LOCAL_ENDPOINT, with_count
from lmsyz.providers.models import OUTPUT_LIMITS, Quirks, check_options
from lmsyz.providers.openai_faults import error_of, status_in_body
from lmsyz.providers.openai_replies import parse_chat, parse_responses
from lmsyz.providers.sending import post_once
from lmsyz.schema_render import render
from lmsyz.task import Task

__all__ = ["OpenAIProvider"]

NAME = "openai"
SCHEMA_NAME = "rows"


class OpenAIProvider:
    """OpenAI and compatible endpoints through the official SDK's plain ``post``.

    Parameters
    ----------
    client : openai.OpenAI or None
        A client whose own retries are off; None for a provider that only builds and reads.
    api : str
        ``"chat"`` or ``"responses"``.
    quirks : Quirks
        What is peculiar to the model.
    owns_client : bool
        Whether :meth:`close` closes the client.
    """

    name = NAME

    def __init__(
        self, client: Any = None, *, api: str = "chat", quirks: Quirks | None = None, owns_client: bool = False
    ) -> None:
        self.client = client
        self.owns_client = owns_client
        self.api = api
        self.quirks = quirks or Quirks()

    def forms(self, task: Task) -> tuple[Form, ...]:
        """Return the ways to ask for structured output, best first."""
        if not task.schema or not self.quirks.schema:
            return (Form.OBJECT, Form.TEXT)
        if self.api == "responses" or not self.quirks.forced_tool:
            return (Form.SCHEMA, Form.OBJECT, Form.TEXT)
        return (Form.SCHEMA, Form.TOOL, Form.OBJECT, Form.TEXT)

    def build(self, task: Task, user: str, form: Form, images: Sequence[ImagePart] = ()) -> JsonObject:
        """Return the request body for one user message."""
        options = body_options(task.options)
        check_options(task.model, options, self.quirks)
        if self.api == "responses":
            return _build_responses(task, self.content(user, images), form, options)
        return _build_chat(task, self.content(user, images), form, options, self.quirks)

    def content(self, user: str, images: Sequence[ImagePart]) -> str | list[JsonObject]:
        """Return the content of the user message: each image after its label, then the text."""
        if not images:
            return user
        text = "input_text" if self.api == "responses" else "text"
        parts: list[JsonObject] = []
        for image in images:
            url = image.url or f"data:{image.media_type};base64,{image.data}"
            parts.append({"type": text, "text": image.label})
            if self.api == "responses":
                parts.append({"type": "input_image", "image_url": url, "detail": "auto"})
            else:
                parts.append({"type": "image_url", "image_url": {"url": url}})
        return [*parts, {"type": text, "text": user}]

    def parse(self, text: str) -> Reply:
        """Read a reply body."""
        payload = loads_reply(NAME, text)
        if payload.get("error"):
            # OpenRouter and the Responses API report a failure with status 200.
            error = error_object(payload)
            raise error_of(Fault(provider=NAME, status=status_in_body(error), error=error))
        return parse_responses(payload, text) if self.api == "responses" else parse_chat(payload, text)

    def send(self, body: JsonObject, call: Call) -> Raw:
        """Send one body once."""
        path = "/responses" if self.api == "responses" else "/chat/completions"
        return post_once(self.client, path, provider=NAME, body=body, call=call, error_of=error_of)

    def close(self) -> None:
        """Close the connections of a client of ours; a user's own stays open."""
        if self.owns_client:
            self.client.close()


def _build_chat(
    task: Task, user: str | list[JsonObject], form: Form, options: JsonObject, quirks: Quirks
) -> JsonObject:
    body: JsonObject = {
        "model": task.model,
        "messages": [{"role": "system", "content": task.system}, {"role": "user", "content": user}],
    }
    if form is Form.SCHEMA:
        schema = {"name": SCHEMA_NAME, "strict": True, "schema": _envelope(task, user)}
        body["response_format"] = {"type": "json_schema", "json_schema": schema}
    elif form is Form.TOOL:
        function = {"name": SCHEMA_NAME, "strict": True, "parameters": _envelope(task, user)}
        body["tools"] = [{"type": "function", "function": function}]
        body["tool_choice"] = {"type": "function", "function": {"name": SCHEMA_NAME}}
    elif form is Form.OBJECT:
        body["response_format"] = {"type": "json_object"}
    if "max_tokens" in options:
        options[quirks.max_tokens_name] = options.pop("max_tokens")
    return body | options


def _build_responses(task: Task, user: str | list[JsonObject], form: Form, options: JsonObject) -> JsonObject:
    # store defaults to true there, for 30 days and more; texts are not ours to leave behind.
    body: JsonObject = {"model": task.model, "instructions": task.system, "input": user, "store": False}
    if not isinstance(user, str):
        body["input"] = [{"role": "user", "content": user}]
    text: JsonObject = {}
    if form is Form.SCHEMA:
        text["format"] = {"type": "json_schema", "name": SCHEMA_NAME, "strict": True, "schema": _envelope(task, user)}
    elif form is Form.OBJECT:
        text["format"] = {"type": "json_object"}
        # The word must stand in the input itself, not only in the instructions.
        body["input"] = [{"role": "system", "content": "Answer in JSON."}, {"role": "user", "content": user}]
    # What the chat API calls otherwise goes by the name it has here.
    for name in OUTPUT_LIMITS:
        if name in options:
            options["max_output_tokens"] = options.pop(name)
    if "verbosity" in options:
        text["verbosity"] = options.pop("verbosity")
    if "reasoning_effort" in options:
        options["reasoning"] = {"effort": options.pop("reasoning_effort")} | (options.get("reasoning") or {})
    text |= options.pop("text", None) or {}
    if text:
        body["text"] = text
    return body | options


def _envelope(task: Task, user: str | list[JsonObject]) -> JsonObject:
    envelope = render(task.schema, "openai", verify=task.verify)
    return with_count(envelope, user) if task.endpoint == LOCAL_ENDPOINT else envelope
