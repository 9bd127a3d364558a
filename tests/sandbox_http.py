"""Plain HTTP to a sandbox, and the requests that its tests send; no SDK, so that nothing is hidden."""

from __future__ import annotations

import http.client
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

CHAT, RESPONSES, MESSAGES = "/v1/chat/completions", "/v1/responses", "/v1/messages"
OPENAI = {"authorization": "Bearer any"}
ANTHROPIC = {"x-api-key": "any", "anthropic-version": "2023-06-01"}
FIELDS = {"tone": {"enum": ["positive", "neutral", "negative"], "type": "string"}, "digest": {"type": "string"}}


@dataclass(frozen=True)
class Answered:
    """What came back: status, headers with lower-case names, and the body, read as JSON where it is."""

    status: int
    headers: dict[str, str]
    body: Any

    @property
    def error(self) -> dict[str, Any]:
        return dict(self.body["error"])


def call(url: str, method: str, path: str, body: Any = None, headers: Mapping[str, str] | None = None) -> Answered:
    connection = http.client.HTTPConnection(urlsplit(url).netloc, timeout=20)
    raw = body if isinstance(body, bytes) else None if body is None else json.dumps(body).encode()
    try:
        connection.request(method, path, raw, dict(headers or {}))
        response = connection.getresponse()
        text = response.read()
    finally:
        connection.close()
    found = {k.lower(): v for k, v in response.getheaders()}
    is_json = found.get("content-type") == "application/json"
    return Answered(response.status, found, json.loads(text) if is_json else text.decode())


def row_schema(fields: Mapping[str, Any] = FIELDS) -> dict[str, Any]:
    """A strict envelope schema for rows with these fields, all required."""
    item = {"input_id": {"type": "string"}, **fields}
    return {
        "type": "object",
        "properties": {
            "all_results": {
                "type": "array",
                "items": {"type": "object", "properties": item, "required": list(item), "additionalProperties": False},
            }
        },
        "required": ["all_results"],
        "additionalProperties": False,
    }


def rows(*texts: Any) -> str:
    return json.dumps([{"input_id": f"r{i}", "input_text": t} for i, t in enumerate(texts)], ensure_ascii=False)


def chat_body(user: str = "hello", schema: Any = None, **more: Any) -> dict[str, Any]:
    body: dict[str, Any] = {
        "model": "sandbox-rules",
        "messages": [{"role": "system", "content": "Judge. Answer in JSON."}, {"role": "user", "content": user}],
    }
    if schema is not None:
        wanted = {"name": "rows", "strict": True, "schema": schema}
        body["response_format"] = {"type": "json_schema", "json_schema": wanted}
    return body | more


def responses_body(user: Any = "hello", schema: Any = None, **more: Any) -> dict[str, Any]:
    body: dict[str, Any] = {"model": "sandbox-rules", "instructions": "Judge.", "input": user, "store": False}
    if schema is not None:
        body["text"] = {"format": {"type": "json_schema", "name": "rows", "strict": True, "schema": schema}}
    return body | more


def messages_body(user: str = "hello", schema: Any = None, **more: Any) -> dict[str, Any]:
    body: dict[str, Any] = {
        "model": "sandbox-rules",
        "max_tokens": 4000,
        "system": "Judge.",
        "messages": [{"role": "user", "content": user}],
    }
    if schema is not None:
        body["output_config"] = {"format": {"type": "json_schema", "schema": schema}}
    return body | more


def ask_chat(url: str, *args: Any, **more: Any) -> Answered:
    return call(url, "POST", CHAT, chat_body(*args, **more), OPENAI)


def ask_responses(url: str, *args: Any, **more: Any) -> Answered:
    return call(url, "POST", RESPONSES, responses_body(*args, **more), OPENAI)


def ask_messages(url: str, *args: Any, **more: Any) -> Answered:
    return call(url, "POST", MESSAGES, messages_body(*args, **more), ANTHROPIC)


def chat_rows(answered: Answered) -> list[dict[str, Any]]:
    """The rows of a chat completion."""
    assert answered.status == 200, answered.body
    return list(json.loads(answered.body["choices"][0]["message"]["content"])["all_results"])
