"""silkloom-core: ``df.llm.extract`` with its SQLite file."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import driving
import pandas as pd
import silkloom_core


def prepare(order: SimpleNamespace, texts: list[str]) -> Callable[[], Any]:
    df = pd.DataFrame({"text": texts})

    def run() -> Any:
        silkloom_core.configure(api_key="k", base_url=order.url + "/v1", cache_path=Path(order.folder, "cache.sqlite"))
        return df.llm.extract(
            "{{ text }}",
            system_prompt=driving.SYSTEM,
            model="stand-in",
            max_workers=order.workers,
            json_mode=True,
            max_retries=5,
            temperature=0,
            join=False,
            verbose=False,
        )

    return run


driving.main(prepare)
