"""What the tests of hostile servers share: replies made by hand, and a real call that must end well or say why."""

from __future__ import annotations

import json
from functools import partial
from typing import Any

import pandas as pd
import pytest
from scripted_server import REPLIES, ScriptedServer

from lmsyz.errors import LmsyzError
from lmsyz.live import LiveOptions
from lmsyz.retry import RetryPolicy

KEY = "sk-hostile-0123456789abcdef"
MIB = 1024 * 1024
FRAME = pd.DataFrame({"id": ["r1", "r2"], "text": ["The first text.", "The second text."]})
GOOD = [{"input_id": "r1", "n": 1, "word": "one"}, {"input_id": "r2", "n": 2, "word": "two"}]
SCHEMA = {"n": int, "word": str}
# Two failures and no more: how often and how long is tested on a clock of its own.
FEW = RetryPolicy(max_attempts_unavailable=2, max_attempts_rate_limited=2, base_s=0.001, max_wait_s=0.01)

both = pytest.mark.parametrize("backend", ["openai", "anthropic"])


def reply(backend: str, text: str, **changes: Any) -> bytes:
    """Return a provider's reply with this text, byte for byte, and some of its fields replaced."""
    body = json.loads(json.dumps(REPLIES[backend]))
    if backend == "openai":
        body["choices"][0]["message"]["content"] = text
    else:
        body["content"][0]["text"] = text
    return json.dumps(body | changes).encode()


def answers(rows: object = GOOD) -> str:
    return json.dumps({"all_results": rows})


def ask(server: ScriptedServer, backend: str, **about: Any) -> pd.DataFrame:
    url = server.url + ("/v1" if backend == "openai" else "")
    about = {"schema": SCHEMA, "id_col": "id", "timeout": 60, "api_key": KEY, "model": "m"} | about
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("lmsyz.extract.LiveOptions", partial(LiveOptions, policy=FEW))
        return FRAME.ie.extract("Count.", backend=backend, base_url=url, chunk_size=2, progress=False, **about)


def outcome(server: ScriptedServer, backend: str, **about: Any) -> str:
    """Return one clear error's words, or what flags the rows; anything else fails the test."""
    try:
        out = ask(server, backend, **about)
    except LmsyzError as error:
        said = " ".join([str(error), *getattr(error, "__notes__", [])])
    else:
        assert len(out) == len(FRAME)
        assert out["ie_error"].notna().all()
        said = " ".join(out["ie_error"])
    assert KEY not in said
    assert len(said) < 3000
    return said
