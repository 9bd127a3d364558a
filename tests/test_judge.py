"""What becomes of a job: asked again and how, given up, or the end of the run."""

from __future__ import annotations

import pytest

from lmsyz.engine import Settled
from lmsyz.errors import (
    BlockedError,
    RateLimitError,
    RejectedError,
    RequestError,
    TooLongError,
    UnavailableError,
    UnsupportedFormError,
)
from lmsyz.judge import ASKS_PER_ROW, Judge, Verdict

GOOD = Settled(good={0: "{}"}, bad={}, outcome="ok")


def settled(bad: dict[int, str], *good: int, readable: bool = True, swapped: frozenset[int] = frozenset()) -> Settled:
    return Settled(good=dict.fromkeys(good, "{}"), bad=bad, outcome="partial", readable=readable, swapped=swapped)


def judge(chunk_size: int = 8, n_workers: int = 4, *, seen_good: bool = True) -> Judge:
    made = Judge(chunk_size=chunk_size, n_workers=n_workers)
    if seen_good:
        made.reply((0,), GOOD)
    return made


def test_a_good_reply_asks_for_nothing() -> None:
    assert judge().reply((0,), GOOD) == Verdict()


def test_only_the_bad_rows_of_a_partly_good_reply_are_asked_again_together() -> None:
    verdict = judge().reply((1, 2, 3, 4), settled({2: "missing: x", 4: "invalid: y"}, 1, 3))
    assert verdict == Verdict(again=[(2, 4)])
    assert verdict.n_again == 2


def test_a_chunk_that_was_bad_as_a_whole_is_halved() -> None:
    verdict = judge().reply((1, 2, 3), settled({1: "truncated: x", 2: "truncated: x", 3: "truncated: x"}))
    assert verdict == Verdict(again=[(1, 2), (3,)])


def test_a_swapped_row_is_asked_again_alone() -> None:
    bad = {1: "invalid: swapped", 2: "invalid: swapped", 3: "missing: x"}
    verdict = judge().reply((1, 2, 3, 4), settled(bad, 4, swapped=frozenset({1, 2})))
    assert verdict.again == [(1,), (2,), (3,)]


def test_a_row_that_stays_bad_is_given_up_with_its_last_reason() -> None:
    one = judge(chunk_size=1)
    for _ in range(ASKS_PER_ROW - 1):
        assert one.reply((5,), settled({5: "missing: x"})).again == [(5,)]
    assert one.reply((5,), settled({5: "invalid: y"})) == Verdict(failed=[((5,), "invalid: y")])


def test_a_larger_chunk_leaves_room_for_the_halvings_to_one_row() -> None:
    made, positions, n_asks = judge(chunk_size=8), tuple(range(8)), 0
    while True:
        n_asks += 1
        verdict = made.reply(positions, settled(dict.fromkeys(positions, "truncated: x")))
        if not verdict.again:
            break
        positions = verdict.again[0]
    assert positions == (0,)
    assert n_asks == ASKS_PER_ROW + 3


def test_a_refused_chunk_is_split_and_a_refused_row_is_final() -> None:
    made = judge()
    assert made.reply((1, 2), settled({1: "refused: x", 2: "refused: x"})).again == [(1,), (2,)]
    assert made.reply((1,), settled({1: "refused: x"})).failed == [((1,), "refused: x")]


@pytest.mark.parametrize("error", [RejectedError("bad key"), UnsupportedFormError("no form"), ZeroDivisionError("bug")])
def test_what_no_request_can_escape_ends_the_run(error: Exception) -> None:
    verdict = judge().error((1, 2), error)
    assert verdict == Verdict(failed=[((1, 2), f"failed: {error}")], fatal=error)


@pytest.mark.parametrize("error", [UnavailableError("down"), RateLimitError("slow")])
def test_a_failure_that_passes_ends_the_run_only_before_the_first_success_or_when_all_workers_fail(
    error: Exception,
) -> None:
    assert judge(seen_good=False).error((1,), error).fatal is error
    made = judge(n_workers=2)
    assert [made.error((i,), error).fatal for i in range(3)] == [None, None, error]
    made = judge(n_workers=2)
    for i in range(6):
        assert made.error((i,), error) == Verdict(failed=[((i,), f"failed: {error}")])
        made.reply((9,), GOOD)


def test_a_provider_that_asks_to_wait_for_hours_ends_the_run() -> None:
    minutes, hours = RateLimitError("slow", retry_after=300.0), RateLimitError("slow", retry_after=7200.0)
    assert judge().error((1,), minutes).fatal is None
    assert judge().error((1,), hours).fatal is hours


@pytest.mark.parametrize("error", [TooLongError("long"), BlockedError("policy"), RequestError("odd")])
def test_a_refused_request_is_split_down_to_the_row_that_spoils_it(error: Exception) -> None:
    made = judge()
    assert made.error((1, 2, 3), error) == Verdict(again=[(1, 2), (3,)])
    word = "refused" if isinstance(error, BlockedError) else "failed"
    assert made.error((1,), error) == Verdict(failed=[((1,), f"{word}: {error}")])


def test_requests_that_are_all_refused_end_the_run_after_a_handful() -> None:
    made, error = judge(seen_good=False), RequestError("odd")
    assert made.error((1, 2), error).fatal is None
    assert made.error((1,), error).fatal is None
    assert made.error((2,), error).fatal is error
    made = judge(seen_good=False)
    assert [made.error((i,), TooLongError("long")).fatal for i in range(9)] == [None] * 9


def test_a_run_in_which_nothing_fits_ends_before_every_row_is_asked_many_times() -> None:
    made = judge(seen_good=False)
    bad = [made.reply((i, i + 1), settled(dict.fromkeys((i, i + 1), "invalid: x"))).fatal for i in range(0, 40, 2)]
    assert bad[:19] == [None] * 19
    assert "not one of the first 40 rows has a usable answer (invalid: x)" in str(bad[19])
    made = judge(seen_good=False)
    refused = Settled(good={}, bad={0: "refused: x"}, outcome="refused")
    assert [made.reply((i,), refused).fatal for i in range(99)] == [None] * 99
    made = judge()
    for i in range(99):
        assert made.reply((i,), settled({i: "invalid: x"})).fatal is None


def test_replies_that_can_never_be_read_end_the_run_after_a_handful() -> None:
    made, bad = judge(seen_good=False), settled({1: "invalid: no JSON"}, readable=False)
    fatal = [made.reply((1,), bad).fatal for _ in range(8)]
    assert fatal[:7] == [None] * 7
    assert "first 8 replies could not be read (invalid: no JSON)" in str(fatal[7])
    made = judge()
    assert [made.reply((i,), settled({i: "invalid: no JSON"}, readable=False)).fatal for i in range(20)] == [None] * 20
