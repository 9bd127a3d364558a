"""What the tests of the sandbox's batches send, and how they read what comes back."""

from __future__ import annotations

import io
import json
from typing import Any

from sandbox_http import CHAT, chat_body

ENDPOINT = CHAT
PARAMS = {"model": "sandbox-rules", "max_tokens": 200, "messages": [{"role": "user", "content": "A good day."}]}


def body(user: str = "A good day.", schema: Any = None, **changes: Any) -> dict[str, Any]:
    return chat_body(user, schema, **changes)


def line(custom_id: str, **changes: Any) -> str:
    """A line of OpenAI's input file."""
    request = {"custom_id": custom_id, "method": "POST", "url": ENDPOINT, "body": body()}
    return json.dumps(request | changes)


def requests(*custom_ids: str) -> list[Any]:
    """Anthropic's list of requests."""
    return [{"custom_id": c, "params": PARAMS} for c in custom_ids]


def upload(client: Any, *lines: str) -> str:
    content = io.BytesIO("\n".join(lines).encode())
    return str(client.files.create(file=("in.jsonl", content), purpose="batch").id)


def create(client: Any, *lines: str, endpoint: str = ENDPOINT, **about: Any) -> Any:
    file_id = upload(client, *lines)
    return client.batches.create(input_file_id=file_id, endpoint=endpoint, completion_window="24h", **about)


def ended(server: Any, client: Any, batch: Any) -> Any:
    """The batch, once its time is over."""
    server.advance(100)
    return client.batches.retrieve(batch.id)


def lines_of(client: Any, file_id: str | None) -> list[dict[str, Any]]:
    """The lines of a result file; none where there is no file."""
    content = client.files.content(file_id).content if file_id else b""
    return [json.loads(x) for x in content.split(b"\n") if x]


def output_of(server: Any, client: Any, batch: Any) -> list[dict[str, Any]]:
    return lines_of(client, ended(server, client, batch).output_file_id)


def results_of(client: Any, batch: Any) -> dict[str, Any]:
    """Anthropic's results by custom_id."""
    return {r.custom_id: r.result for r in client.messages.batches.results(batch.id)}
