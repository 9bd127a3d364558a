"""Who tries again, how often and after how long."""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import anthropic
import openai
import pytest
import tenacity
from scripted_server import CHAT_REPLY, Step, scripted

from lmsyz import retry_api_call
from lmsyz.errors import ProviderError, RateLimitError, RejectedError, RequestError, UnavailableError
from lmsyz.retry import RetryEvent, RetryPolicy, Stopped, call_with_retry
from lmsyz.transient import codes_of, is_out_of_credit, is_transient_status


class Play:
    """A call that fails as a script says and then answers, on a clock that only its waits move."""

    def __init__(self, *failures: Exception, takes_s: float = 0.0) -> None:
        self.failures = list(failures)
        self.takes_s = takes_s
        self.now = 0.0
        self.n_calls = 0
        self.waits: list[float] = []
        self.events: list[RetryEvent] = []
        self.stop = threading.Event()

    def call(self) -> str:
        self.n_calls += 1
        self.now += self.takes_s
        if self.failures:
            raise self.failures.pop(0)
        return "answer"

    def sleep(self, seconds: float) -> None:
        self.waits.append(seconds)
        self.now += seconds

    def run(self, seed: int = 0, **policy: Any) -> str:
        return call_with_retry(
            self.call,
            policy=RetryPolicy(**policy),
            stop=self.stop,
            on_retry=self.events.append,
            rng=random.Random(seed),
            sleep=self.sleep,
            clock=lambda: self.now,
        )


def busy(retry_after: float | None = None) -> RateLimitError:
    return RateLimitError("slow down", status=429, retry_after=retry_after)


def down(retry_after: float | None = None) -> UnavailableError:
    return UnavailableError("try later", status=503, retry_after=retry_after)


# --- the engine's -------------------------------------------------------------------------------------------------


def test_what_passes_is_tried_again_and_told() -> None:
    play = Play(down(), busy(), down())
    assert play.run() == "answer"
    assert play.n_calls == 4
    assert [(e.attempt, e.kind) for e in play.events] == [(1, "unavailable"), (2, "rate_limited"), (3, "unavailable")]
    assert [e.wait_s for e in play.events] == play.waits


@pytest.mark.parametrize("error", [RejectedError("no"), RequestError("no"), ValueError("no"), KeyboardInterrupt()])
def test_what_does_not_pass_comes_through_at_once(error: Any) -> None:
    for play in (Play(error), Play(down(), error)):
        with pytest.raises(type(error)):
            play.run()
        assert not play.failures
        assert play.n_calls <= 2


def test_each_kind_of_failure_has_its_own_budget() -> None:
    mixed = [down(), busy()] * 5
    assert Play(*mixed).run(max_attempts_unavailable=6, max_attempts_rate_limited=6) == "answer"
    play = Play(*[busy() for _ in range(3)], *[down() for _ in range(9)])
    with pytest.raises(UnavailableError):
        play.run(max_attempts_unavailable=4, max_attempts_rate_limited=4)
    assert play.n_calls == 3 + 4


@pytest.mark.parametrize(("failure", "attempts"), [(busy, 20), (down, 6)])
def test_the_usual_budgets_end(failure: Callable[[], ProviderError], attempts: int) -> None:
    play = Play(*[failure() for _ in range(99)])
    with pytest.raises(ProviderError) as caught:
        play.run()
    assert play.n_calls == attempts
    assert len(play.waits) == attempts - 1
    assert f"gave up after {attempts} attempts" in caught.value.__notes__[0]


def test_the_last_failure_is_raised_itself_not_tenacitys() -> None:
    last = down()
    with pytest.raises(UnavailableError) as caught:
        Play(down(), last).run(max_attempts_unavailable=2)
    assert caught.value is last
    assert not isinstance(caught.value.__cause__ or caught.value.__context__, tenacity.RetryError)


def test_the_wait_is_full_jitter_under_a_bound_that_doubles() -> None:
    waits = [w for seed in range(200) for w in _waits_of(seed)]
    by_try = [waits[i::8] for i in range(8)]
    for i, drawn in enumerate(by_try):
        bound = min(5.0, 0.5 * 2**i)
        assert max(drawn) <= bound
        assert min(drawn) < 0.1 * bound
        assert 0.4 * bound < sum(drawn) / len(drawn) < 0.6 * bound


def _waits_of(seed: int) -> list[float]:
    play = Play(*[busy() for _ in range(8)])
    play.run(seed, base_s=0.5, max_wait_s=5.0)
    return play.waits


def test_a_seed_makes_the_waits_repeatable() -> None:
    assert _waits_of(1) == _waits_of(1) != _waits_of(2)


def test_the_wait_that_a_provider_asks_for_is_kept_and_spread_a_little() -> None:
    waits = []
    for seed in range(50):
        play = Play(busy(retry_after=4.0), down(retry_after=0.0))
        play.run(seed)
        waits.append(play.waits)
    asked, none = zip(*waits, strict=True)
    assert min(asked) >= 4.0
    assert max(asked) <= 4.5
    assert len(set(asked)) == 50
    assert max(none) <= 0.05


def test_a_wait_longer_than_the_budget_is_not_begun() -> None:
    play = Play(busy(retry_after=3600.0))
    with pytest.raises(RateLimitError, match=r"asks to wait 3600 s, longer than the 600 s.*run the same call again"):
        play.run()
    assert play.waits == []


def test_time_ends_the_trying_too() -> None:
    play = Play(*[busy(retry_after=50.0) for _ in range(99)], takes_s=10.0)
    with pytest.raises(RateLimitError):
        play.run(max_time_s=200.0)
    assert play.n_calls == 4
    assert play.now <= 10.0 + 200.0


def test_what_a_request_waited_before_it_first_failed_does_not_count() -> None:
    play = Play(busy(retry_after=1.0), takes_s=1000.0)
    assert play.run(max_time_s=10.0) == "answer"


# --- stopping -----------------------------------------------------------------------------------------------------


def test_nothing_is_sent_once_the_run_is_stopped() -> None:
    play = Play()
    play.stop.set()
    with pytest.raises(Stopped):
        play.run()
    assert play.n_calls == 0


def test_a_stop_during_the_call_ends_it_before_the_next() -> None:
    play = Play(down())
    answer = play.call

    def call_and_stop() -> str:
        play.stop.set()
        return answer()

    play.call = call_and_stop  # type: ignore[method-assign]
    with pytest.raises(Stopped):
        play.run()
    assert play.n_calls == 1


def test_a_stop_ends_a_long_wait_at_once() -> None:
    stop = threading.Event()
    waiting = threading.Event()
    play = Play(busy(retry_after=500.0))
    with ThreadPoolExecutor(1) as pool:
        future = pool.submit(
            call_with_retry, play.call, policy=RetryPolicy(), stop=stop, on_retry=lambda _: waiting.set()
        )
        assert waiting.wait(10)
        stop.set()
        assert isinstance(future.exception(timeout=10), Stopped)
    assert play.n_calls == 1


# --- the decorator ------------------------------------------------------------------------------------------------


@pytest.fixture
def no_waiting(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    waits: list[float] = []
    monkeypatch.setattr(time, "sleep", waits.append)
    return waits


def decorated(play: Play, **arguments: Any) -> str:
    return retry_api_call(**arguments)(play.call)() if arguments else retry_api_call(play.call)()


def test_a_users_own_call_is_tried_five_times(no_waiting: list[float]) -> None:
    assert decorated(Play(*[down() for _ in range(4)])) == "answer"
    play = Play(*[busy() for _ in range(9)])
    with pytest.raises(RateLimitError):
        decorated(play)
    assert play.n_calls == 5


def test_the_decorator_takes_arguments_and_keeps_the_signature(no_waiting: list[float]) -> None:
    play = Play(busy(retry_after=7.0), busy())
    assert decorated(play, max_attempts=3, base_s=1.0, max_wait_s=2.0) == "answer"
    assert no_waiting[0] >= 7.0
    assert no_waiting[1] <= 2.0

    @retry_api_call
    def ask(text: str, *, loud: bool = False) -> str:
        """Ask once."""
        return text.upper() if loud else text

    assert ask("a", loud=True) == "A"
    assert (ask.__name__, ask.__doc__) == ("ask", "Ask once.")


@pytest.mark.parametrize("error", [RejectedError("no"), ValueError("no"), busy(retry_after=601.0)])
def test_the_decorator_does_not_try_again_what_will_not_pass(error: Exception, no_waiting: list[float]) -> None:
    play = Play(error)
    with pytest.raises(type(error)):
        decorated(play)
    assert play.n_calls == 1
    assert no_waiting == []


def sdk_error(sdk: Any, step: Step) -> Exception:
    with scripted(step) as server:
        kind = sdk.OpenAI if sdk is openai else sdk.Anthropic
        with kind(api_key="k", base_url=server.url, max_retries=0) as client:
            call = client.chat.completions.create if sdk is openai else client.messages.create
            arguments = {"model": "m", "messages": []} | ({} if sdk is openai else {"max_tokens": 1})
            with pytest.raises(Exception, match=r".") as caught:
                call(**arguments)
    return caught.value


@pytest.mark.parametrize("sdk", [openai, anthropic])
@pytest.mark.parametrize(
    ("step", "again"),
    [
        (Step(status=429, body={"error": {"type": "rate_limit_error"}}), True),
        (Step(status=500, body=b"<html>"), True),
        (Step(status=529, body={}), True),
        (Step(status=408, body={}), True),
        (Step(drop=True), True),
        (Step(status=400, body={"error": {"message": "bad"}}), False),
        (Step(status=401, body={}), False),
        (Step(status=429, body={"error": {"code": "insufficient_quota"}}), False),
        (Step(status=429, body={"error": {"details": {"error_code": "enforced_spend_limit_reached"}}}), False),
        (Step(status=429, body={}, headers={"retry-after": "3600"}), False),
    ],
)
def test_an_sdks_own_error_is_judged_by_what_it_says(
    sdk: Any, step: Step, again: bool, no_waiting: list[float]
) -> None:
    play = Play(sdk_error(sdk, step))
    if again:
        assert decorated(play) == "answer"
    else:
        with pytest.raises((openai.OpenAIError, anthropic.AnthropicError)):
            decorated(play)
    assert play.n_calls == 1 + again


def test_a_real_client_behind_the_decorator_gets_its_answer(no_waiting: list[float]) -> None:
    with (
        scripted(
            Step(status=503, body={}), Step(status=429, body={}, headers={"retry-after": "3"}), CHAT_REPLY
        ) as server,
        openai.OpenAI(api_key="k", base_url=server.url, max_retries=0) as client,
    ):

        @retry_api_call
        def ask() -> Any:
            return client.chat.completions.create(model="m", messages=[])

        assert ask().model == "gpt-6-luna-2026-08-01"
    assert len(server.asked) == 3
    assert no_waiting[1] >= 3.0


# --- what passes --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("status", "passes"),
    [(408, True), (409, True), (425, True), (429, True), (499, True), (500, True), (529, True)]
    + [(s, False) for s in (400, 401, 402, 403, 404, 413, 422)],
)
def test_a_status_says_whether_waiting_helps(status: int, passes: bool) -> None:
    assert is_transient_status(status) is passes


def test_every_code_in_an_error_object_is_found() -> None:
    error = {"code": "a", "type": "b", "error_code": "c", "details": {"error_code": "d"}, "param": "e"}
    assert codes_of(error) == {"a", "b", "c", "d"}
    assert codes_of({"code": 429, "details": "text"}) == set()
    assert is_out_of_credit({"x", "insufficient_quota"})
    assert not is_out_of_credit({"ramp_limit_exceeded", "rate_limit_exceeded"})
