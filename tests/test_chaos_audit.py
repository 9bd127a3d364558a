"""What the audit of the soak must not let pass: each kind of loss, made by hand, is found and named."""

from __future__ import annotations

import hashlib
import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="the soak needs fork and signals")
pytest.importorskip("resource")

from cache_records import answer, exchange, task  # noqa: E402
from chaos.audit import Figures, Round, audit  # noqa: E402
from chaos.kernel import CACHE, digest_of, price_of, prompt_of  # noqa: E402
from chaos.nursery import Kernel  # noqa: E402
from chaos.server import BatchSeen, Seen  # noqa: E402

from lmsyz.cache import SqliteCache  # noqa: E402

TASK, TEXT, BILL = "r0/live-openai", "Row 0 is the only one.", (100, 20)


def seen(**changes: Any) -> Seen:
    """One request about the one row, answered well."""
    about = {"call": "k-0", "task": TASK, "rows": (("1", TEXT),), "body": b"{}", "came": 1.0, "left": 2.0}
    about |= {"status": 200, "request_id": "req_1", "tokens": BILL, "clean": frozenset({TEXT})}
    return Seen(**about | changes)  # type: ignore[arg-type]


def kernel(name: str = "k", **changes: Any) -> Kernel:
    made = Kernel(name=name, orders={"jumps": [], "steps": []} | changes)
    made.died_at = 9.0
    return made


def call(name: str, *, stored: tuple[str, ...] = (), at: float = 0.5) -> dict[str, Any]:
    return {"at": at, "what": "call", "call": name, "do": "extract", "task": TASK, "stored": list(stored)}


def rows(name: str, digest: str | None, reason: str | None = None) -> dict[str, Any]:
    return {"at": 8.0, "what": "done", "call": name, "rows": [[TEXT, digest, reason]]}


END = {"at": 9.0, "what": "end"}


def told(folder: Path, *, stores: tuple[str, ...] = ("req_1",), **changes: Any) -> Round:
    """A round in which one kernel asked one row, had its answer and kept it."""
    with SqliteCache(folder / CACHE) as cache:
        number = cache.task_id(task(prompt=prompt_of(TASK)))
        for name in stores:
            cost = price_of(BILL, is_batch=False)
            cache.put_chunk(number, exchange(provider_request_id=name, cost=cost), [answer(TEXT)])
    good = Round(
        name="r0",
        folder=folder,
        chunk_size=1,
        n_workers=1,
        kernels=[kernel()],
        journals={"k": [call("k-0"), rows("k-0", digest_of(TEXT)), END]},
        seen=[seen()],
        batches=[],
        n_batches=0,
        were_gone=False,
    )
    return replace(good, **changes)


def found(a_round: Round) -> list[str]:
    figures = Figures()
    audit(a_round, figures)
    return figures.violations


def test_a_round_in_which_nothing_went_wrong_is_let_pass(tmp_path: Path) -> None:
    assert found(told(tmp_path)) == []


def key(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:32].upper()


WRONG: dict[str, tuple[dict[str, Any], str]] = {
    "a wrong answer": ({"journals": {"k": [call("k-0"), rows("k-0", "0" * 16), END]}}, "wrong: k-0"),
    "an answer beside a reason": (
        {"journals": {"k": [call("k-0"), rows("k-0", digest_of(TEXT), "failed: it did"), END]}},
        "wrong: k-0",
    ),
    "a reply that is not in the store": ({"stores": ()}, "lost: k lost 1 replies"),
    "a reply that is stored twice": ({"stores": ("req_1", "req_1")}, "twice: exchange req_1"),
    "an exchange that never was": ({"stores": ("req_1", "req_9")}, "'req_9', which the server never answered"),
    "tokens that the server did not count": ({"seen": [seen(tokens=(100, 21))]}, "the server (100, 21)"),
    "a stored row asked again": (
        {"journals": {"k": [call("k-0", stored=(key(TEXT),)), END]}},
        "which was stored when it began",
    ),
    "a row asked again by a kernel that had its answer": (
        {
            "stores": ("req_1", "req_2"),
            "seen": [seen(), seen(request_id="req_2", came=3.0, left=4.0)],
        },
        "the same kernel had its answer",
    ),
    "a row asked again after a kernel that ended with its answer": (
        {
            "stores": ("req_1", "req_2"),
            "kernels": [kernel(), kernel("l")],
            "journals": {"k": [call("k-0"), END], "l": [call("l-0", at=20.0), END]},
            "seen": [seen(), seen(call="l-0", request_id="req_2", came=21.0, left=22.0)],
        },
        "whose kernel had ended",
    ),
    "a request tried for ever": (
        {"seen": [*(seen(status=500, tokens=None, came=0.1 * i, left=0.1) for i in range(7)), seen()]},
        "tried one request 7 times",
    ),
    "a kernel that ended by itself": ({"journals": {"k": [call("k-0")]}}, "k ended before its end"),
    "an error that is not ours": (
        {
            "journals": {
                "k": [
                    call("k-0"),
                    {"at": 1.0, "what": "error", "call": "k-0", "kind": "KeyError", "is_ours": False}
                    | {"words": "x", "trace": "in f"},
                    END,
                ]
            }
        },
        "k-0 crashed: KeyError: x\nin f",
    ),
}


@pytest.mark.parametrize("what", WRONG)
def test_what_went_wrong_in_a_round_is_found(what: str, tmp_path: Path) -> None:
    changes, words = WRONG[what]
    assert any(words in violation for violation in found(told(tmp_path, **changes)))


def batched(**changes: Any) -> BatchSeen:
    about = {"task": TASK, "texts": (TEXT,), "batch": "batch_1", "custom_id": "c1", "created": 1.0}
    return BatchSeen(**about | {"is_paid": True, "tokens": BILL} | changes)  # type: ignore[arg-type]


def keep_batch(folder: Path, *names: str) -> None:
    with SqliteCache(folder / CACHE) as cache:
        number = cache.task_id(task(prompt=prompt_of(TASK)))
        for name in names:
            kept = exchange(provider_request_id=name, cost=price_of(BILL, is_batch=True), run_id="batch-job-1")
            cache.put_chunk(number, kept, [answer(TEXT)])


def check_batches(folder: Path, *batches: BatchSeen) -> list[str]:
    quiet = {"seen": [], "journals": {"k": [END]}, "stores": ()}
    return found(told(folder, batches=list(batches), **quiet))


def test_a_batch_whose_replies_are_all_home_is_let_pass(tmp_path: Path) -> None:
    keep_batch(tmp_path, "c1")
    assert check_batches(tmp_path, batched()) == []


def test_a_batch_request_that_was_accepted_twice_is_found(tmp_path: Path) -> None:
    keep_batch(tmp_path, "c1")
    assert any("accepted 2 times" in v for v in check_batches(tmp_path, batched(), batched(batch="batch_2")))


def test_a_row_that_was_sent_again_after_its_answer_is_found(tmp_path: Path) -> None:
    keep_batch(tmp_path, "c1", "c2")
    again = batched(batch="batch_2", custom_id="c2")
    assert any("answered before in batch_1" in v for v in check_batches(tmp_path, batched(), again))


def test_a_batch_reply_that_nobody_brought_home_is_found(tmp_path: Path) -> None:
    assert any("c1 is not in the store" in v for v in check_batches(tmp_path, batched()))
