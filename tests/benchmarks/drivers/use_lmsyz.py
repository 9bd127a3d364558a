"""lmsyz: ``df.ie.extract`` with its store, one row a request or several."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import driving
import pandas as pd

import lmsyz  # noqa: F401 - registers df.ie

SCHEMA = {"tone": ["positive", "neutral", "negative"], "words": int, "digest": str}


def prepare(order: SimpleNamespace, texts: list[str]) -> Callable[[], Any]:
    # lmsyz loads the SDK when it first needs it; the others have done so before their clocks start.
    import openai  # noqa: F401

    df = pd.DataFrame({"text": texts})

    def run() -> Any:
        return df.ie.extract(
            "Classify the tone of each sentence.",
            schema=SCHEMA,
            model="stand-in",
            backend="openai",
            base_url=order.url + "/v1",
            api_key="k",
            chunk_size=order.chunk,
            max_workers=order.workers,
            cache_path=Path(order.folder, "cache.sqlite"),
            progress=False,
        )

    return run


driving.main(prepare)
