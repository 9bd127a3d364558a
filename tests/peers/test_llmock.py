"""The live path against llmock, which breaks on demand and judges how its client took it."""

from __future__ import annotations

from typing import Any

import pandas as pd
import pytest

import lmsyz

pytestmark = pytest.mark.peer

BACKENDS = ["openai", "anthropic"]
MODELS = {"openai": "gpt-4o-mini", "anthropic": "claude-sonnet-4-6"}


def ask(peer: Any, backend: str, n: int = 1, **options: Any) -> pd.DataFrame:
    df = pd.DataFrame({"text": [f"Sentence {i}." for i in range(n)]})
    options = {"api_key": "no-key", "max_workers": 1, "progress": False} | options
    return df.ie.extract(
        "Name the firm.",
        schema={"firm": str},
        backend=backend,
        model=MODELS[backend],
        base_url=peer.base_url(backend),
        **options,
    )


def verdict(peer: Any) -> Any:
    from llmock.verdict import judge

    return judge(peer.state.journal.records())


@pytest.mark.parametrize("backend", BACKENDS)
def test_it_waits_as_long_as_a_429_asks(peer: Any, backend: str) -> None:
    from llmock.scenarios import Fail

    peer.state.scenarios.add(Fail(429, retry_after=1.0, times=2))
    ask(peer, backend)
    assert lmsyz.last_run().counts.n_retries == 2
    verdict(peer).assert_ok()


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("status", [500, 503, 529])
def test_it_tries_again_after_a_fault_that_passes(peer: Any, backend: str, status: int) -> None:
    from llmock.scenarios import Fail

    peer.state.scenarios.add(Fail(status, times=1))
    ask(peer, backend)
    assert lmsyz.last_run().counts.n_retries == 1
    verdict(peer).assert_ok(strict=False)


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_bad_key_ends_the_run_and_is_never_tried_again(peer: Any, backend: str) -> None:
    from llmock.scenarios import Fail

    peer.state.scenarios.add(Fail(401, times=None))
    with pytest.raises(lmsyz.LmsyzError, match="key"):
        ask(peer, backend, n=50)
    found = verdict(peer)
    found.assert_ok()
    assert found.attempts <= 3, "of ten: what was on its way when the first answer came"


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_window_that_is_too_small_is_the_rows_fault_and_not_tried_again(peer: Any, backend: str) -> None:
    from llmock.scenarios import Fail

    said = {"code": "context_length_exceeded", "message": "This model's maximum context length was exceeded."}
    peer.state.scenarios.add(Fail(400, times=None, **said))
    out = ask(peer, backend)
    assert out["ie_error"].str.contains("context length").all()
    verdict(peer).assert_ok()


@pytest.mark.parametrize("text", ["I would rather not.", '{"all_results": [{"input', "```json\n{}\n```", "[]"])
@pytest.mark.parametrize("backend", BACKENDS)
def test_a_reply_that_is_no_answer_is_flagged(peer: Any, backend: str, text: str) -> None:
    from llmock.scenarios import Reply

    peer.state.scenarios.add(Reply(text=text, times=None))
    out = ask(peer, backend)
    assert out["firm"].isna().all()
    assert out["ie_error"].notna().all()
