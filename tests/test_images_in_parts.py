"""A text that is asked in parts goes with its row's image in each of them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from image_files import png, saved, sha


@pytest.mark.parametrize("backend", ["openai", "anthropic"])
def test_each_part_of_a_long_text_goes_with_the_rows_image(sandbox_default: Any, tmp_path: Path, backend: str) -> None:
    paths = saved(tmp_path, 2)
    long = " ".join(f"Sentence {i} of the long text says nothing." for i in range(60))
    df = pd.DataFrame({"text": [long, "A short one."], "image": paths})
    about: dict[str, Any] = {
        "schema": {"image_sha256": str},
        "image_col": "image",
        "backend": backend,
        "long_texts": "split",
        "max_text_tokens": 200,
    }
    out = df.ie.extract("Give the digest.", **about)
    assert out["ie_error"].isna().all(), out["ie_error"].tolist()
    assert out["image_sha256"].tolist() == [sha(path.read_bytes()) for path in paths]
    n = sandbox_default.stats()["n_rows"]
    assert n > 2
    pd.testing.assert_frame_equal(df.ie.extract("Give the digest.", **about), out)
    assert sandbox_default.stats()["n_rows"] == n
    paths[0].write_bytes(png(9))
    again = df.ie.extract("Give the digest.", **about)
    assert again["image_sha256"][0] == sha(png(9))
    assert sandbox_default.stats()["n_rows"] == 2 * n - 1
