"""async-batch-llm: ``process_prompts`` with a checkpoint store, resumed where it was."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import async_batch_llm as abl
import driving


def prepare(order: SimpleNamespace, texts: list[str]) -> Callable[[], list[Any]]:
    prompts = [(str(i), text) for i, text in enumerate(texts)]
    stores = {
        "jsonl": lambda identity: abl.JsonlArtifactStore(Path(order.folder, "run.jsonl"), identity=identity),
        "sqlite": lambda identity: abl.SqliteArtifactStore(Path(order.folder, "run.sqlite"), identity=identity),
    }

    async def ask() -> list[Any]:
        strategy = abl.llm(
            "openai-compatible:stand-in",
            base_url=order.url + "/v1",
            api_key="k",
            system_instruction=driving.SYSTEM,
            json_mode=True,
            temperature=0,
            response_parser=lambda response: json.loads(response.text),
        )
        identity = abl.ArtifactIdentity(provider="stand-in", model="stand-in", prompt_version="1", parser_version="1")
        # Its default holds everybody off for 300 s after a 429.
        cooldown = abl.RateLimitConfig(cooldown_seconds=1.0, slow_start_items=0)
        rate = order.rate * 60 or None
        batch = await abl.process_prompts(
            strategy,
            prompts,
            config=abl.ProcessorConfig(concurrency=order.workers, rate_limit=cooldown, max_requests_per_minute=rate),
            artifact_store=stores[order.options.get("store", "jsonl")](identity),
            resume=abl.ResumePolicy.REUSE_SUCCESSES,
            preserve_order=True,
        )
        return [result.output for result in batch.results]

    return lambda: asyncio.run(ask())


driving.main(prepare)
