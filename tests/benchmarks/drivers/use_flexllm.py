"""flexllm: ``chat_batch`` with its checkpoint file, as its README has it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import driving
from flexllm import LLMClient


def prepare(order: SimpleNamespace, texts: list[str]) -> Callable[[], list[Any]]:
    messages = [[{"role": "system", "content": driving.SYSTEM}, {"role": "user", "content": text}] for text in texts]

    async def ask() -> list[Any]:
        async with LLMClient(
            provider="openai",
            model="stand-in",
            base_url=order.url + "/v1",
            api_key="k",
            concurrency_limit=order.workers,
            max_qps=order.rate or None,
            retry_times=5,
        ) as client:
            results = await client.chat_batch(
                messages,
                output_jsonl=str(Path(order.folder, "checkpoint.jsonl")),
                flush_interval=order.options.get("flush_interval", 1.0),
                show_progress=False,
                response_format={"type": "json_object"},
                temperature=0,
            )
        return driving.dicts(result.content for result in results)

    return lambda: asyncio.run(ask())


driving.main(prepare)
