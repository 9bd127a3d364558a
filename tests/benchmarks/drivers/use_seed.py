"""The seed package, lmsyz-genai-ie-rfs: ``extract_df`` with its cache."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import driving
import pandas as pd
from lmsyz_genai_ie_rfs import extract_df

PROMPT = (
    "Classify the tone of each sentence. Answer in JSON with the key all_results, a list of one object for each"
    " sentence with the keys input_id, tone, words and digest."
)


def prepare(order: SimpleNamespace, texts: list[str]) -> Callable[[], Any]:
    df = pd.DataFrame({"id": range(order.n), "text": texts})

    def run() -> Any:
        return extract_df(
            df,
            prompt=PROMPT,
            model="stand-in",
            backend="openai",
            base_url=order.url + "/v1",
            api_key="k",
            chunk_size=order.chunk,
            max_workers=order.workers,
            cache_path=Path(order.folder, "cache.sqlite"),
        )

    return run


driving.main(prepare)
