"""The bare loop: the SDK's own call in a thread pool, the answers parsed, nothing kept; or its import alone."""

from __future__ import annotations

import json
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from types import SimpleNamespace
from typing import Any

import driving
import openai


def prepare(order: SimpleNamespace, texts: list[str]) -> Callable[[], list[Any]]:
    def ask(client: Any, text: str) -> Any:
        answer = client.chat.completions.create(
            model="stand-in",
            messages=[{"role": "system", "content": driving.SYSTEM}, {"role": "user", "content": text}],
            response_format={"type": "json_object"},
            temperature=0,
        )
        return json.loads(answer.choices[0].message.content)

    def run() -> list[Any]:
        with (
            openai.OpenAI(api_key="k", base_url=order.url + "/v1") as client,
            ThreadPoolExecutor(order.workers) as pool,
        ):
            return list(pool.map(lambda text: ask(client, text), texts))

    return run


driving.main(prepare)
