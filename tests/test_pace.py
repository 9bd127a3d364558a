"""How fast requests leave: in virtual time, against providers that enforce a limit in their own way."""

from __future__ import annotations

import heapq
import itertools
import math
import random
from collections import deque
from dataclasses import dataclass, field

import pytest

from lmsyz.pace import Pace
from lmsyz.ratelimit_headers import Limits

# --- a provider and its workers, in virtual time --------------------------------------------------------------------


@dataclass
class Bucket:
    """Lets `rate` requests a second through, and `burst` at once."""

    rate: float
    burst: float
    retry_after: float | None = None
    named: float | None = None
    shows_remaining: bool = False
    closed_until: float = -1.0
    level: float = -1.0
    at: float = 0.0

    def let_through(self, now: float) -> bool:
        full = self.level < 0
        self.level = self.burst if full else min(self.burst, self.level + (now - self.at) * self.rate)
        self.at = now
        if now < self.closed_until or self.level < 1.0:
            return False
        self.level -= 1.0
        return True

    @property
    def limits(self) -> Limits:
        remaining = float(int(self.level)) if self.shows_remaining else None
        return Limits(requests=self.named, requests_remaining=remaining)


@dataclass
class Gateway(Bucket):
    """Refuses a share of all requests, whatever the pace, before the limit sees them; both may change with time."""

    share: float = 0.0
    shares: dict[float, float] = field(default_factory=dict)
    rates: dict[float, float] = field(default_factory=dict)
    rng: random.Random = field(default_factory=lambda: random.Random(1))

    def let_through(self, now: float) -> bool:
        for since in [t for t in self.shares if t <= now]:
            self.share = self.shares.pop(since)
        for since in [t for t in self.rates if t <= now]:
            self.rate = self.burst = self.rates.pop(since)
        return self.rng.random() >= self.share and super().let_through(now)


@dataclass
class Traffic:
    """What came of it."""

    seconds: float = 0.0
    n_refused: int = 0
    most_tries: int = 0
    most_in_flight: int = 0
    sent: list[float] = field(default_factory=list)
    refused: list[float] = field(default_factory=list)


def play(
    provider: Bucket,
    pace: Pace,
    *,
    n: int = 1000,
    workers: int = 100,
    latency_s: float = 0.2,
    refusal_s: float = 0.05,
    seed: int = 0,
) -> Traffic:
    """Let workers send `n` requests at this pace, a probe first, in the order they come, refused ones again."""
    rng = random.Random(seed)
    traffic = Traffic()
    order = itertools.count()
    events: list[tuple[float, int, str, int, float]] = []
    tries = [0] * n
    queue = deque(range(min(workers, n)))
    fresh = iter(range(len(queue), n))
    now, look, in_flight, n_done, is_probing = 0.0, 0.0, 0, 0, True

    def at(moment: float, what: str, job: int = -1, sent_at: float = 0.0) -> None:
        heapq.heappush(events, (moment, next(order), what, job, sent_at))

    while n_done < n:
        while queue and in_flight < (1 if is_probing else workers):
            leaves = pace.next_at(now, 100.0)
            if leaves > now:
                if not now < look <= leaves:
                    look = leaves
                    at(look, "look")
                break
            pace.send(now, 100.0)
            traffic.sent.append(now)
            in_flight += 1
            traffic.most_in_flight = max(traffic.most_in_flight, in_flight)
            at(now + 0.01, "arrives", queue.popleft(), now)
        assert events, "nothing is under way and nobody may leave"
        now, _, what, job, sent_at = heapq.heappop(events)
        if what == "arrives":
            passes = provider.let_through(now)
            takes = (latency_s if passes else refusal_s) * rng.uniform(0.8, 1.2)
            at(now + takes, "answer" if passes else "refusal", job, sent_at)
        elif what == "answer":
            in_flight, n_done, is_probing = in_flight - 1, n_done + 1, False
            pace.learn(now, provider.limits, in_flight)
            pace.admitted(now, sent_at)
            queue.extend(itertools.islice(fresh, 1))
        elif what == "refusal":
            in_flight -= 1
            traffic.refused.append(now)
            tries[job] += 1
            pace.learn(now, provider.limits, in_flight)
            pace.refused(now, sent_at, provider.retry_after)
            asked = provider.retry_after
            wait = rng.uniform(0, min(30.0, 0.5 * 2.0 ** (tries[job] - 1))) if asked is None else asked * 1.05
            at(now + wait, "again", job)
        elif what == "again":
            queue.append(job)
    traffic.seconds, traffic.n_refused, traffic.most_tries = now, pace.n_refused, max(tries)
    return traffic


def fresh_pace(seed: int = 0, **caps: float) -> Pace:
    return Pace(0.0, rng=random.Random(seed), **caps)


def ideal_s(provider: Bucket, n: int, latency_s: float = 0.2) -> float:
    return (n - provider.burst) / provider.rate + 2 * latency_s


@pytest.fixture(params=range(4))
def seed(request: pytest.FixtureRequest) -> int:
    return int(request.param)


# --- found by refusals ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("retry_after", [None, 1.0])
def test_fifty_a_second_and_a_hundred_workers_take_little_more_than_the_ideal(
    seed: int, retry_after: float | None
) -> None:
    provider = Bucket(50, 50, retry_after)
    traffic = play(provider, fresh_pace(seed), seed=seed)
    assert traffic.seconds <= 1.1 * ideal_s(provider, 1000)
    assert traffic.n_refused <= 80  # fifty of them are the first burst of a hundred


def test_a_limit_that_is_named_costs_no_more_than_the_first_burst(seed: int) -> None:
    provider = Bucket(50, 50, 1.0, named=3000)
    traffic = play(provider, fresh_pace(seed), seed=seed)
    assert traffic.seconds <= 1.06 * ideal_s(provider, 1000)
    assert traffic.n_refused <= 55


def test_a_limit_that_is_named_with_what_is_left_of_it_costs_no_refusal(seed: int) -> None:
    for burst, n in ((50, 1000), (1, 1000), (3000, 6000)):
        provider = Bucket(50, burst, 1.0, named=3000, shows_remaining=True)
        traffic = play(provider, fresh_pace(seed), n=n, seed=seed)
        assert traffic.seconds <= 1.06 * ideal_s(provider, n)
        assert traffic.n_refused == 0


def test_a_named_limit_that_is_too_high_is_not_believed_for_long(seed: int) -> None:
    provider = Bucket(50, 50, 1.0, named=14_400 * 60)
    traffic = play(provider, fresh_pace(seed), seed=seed)
    assert traffic.seconds <= 1.1 * ideal_s(provider, 1000)
    assert traffic.n_refused <= 120


@pytest.mark.parametrize(
    ("rate", "burst", "n", "workers", "latency_s"),
    [
        (5, 5, 300, 100, 0.2),
        (1, 1, 100, 64, 0.2),
        (0.2, 3, 60, 64, 0.2),
        (20, 20, 1000, 64, 2.0),
        (500, 500, 5000, 100, 0.1),
    ],
)
def test_a_storm_of_refusals_without_a_header_settles(
    seed: int, rate: float, burst: float, n: int, workers: int, latency_s: float
) -> None:
    provider = Bucket(rate, burst)
    traffic = play(provider, fresh_pace(seed), n=n, workers=workers, latency_s=latency_s, seed=seed)
    assert traffic.seconds <= 1.2 * ideal_s(provider, n, latency_s)
    assert traffic.n_refused <= 1.25 * workers + 0.1 * n
    assert traffic.most_tries <= 6


def test_a_tight_limit_after_a_hopeless_burst_is_found_by_searching_upwards(seed: int) -> None:
    provider = Bucket(50, 1)
    traffic = play(provider, fresh_pace(seed), seed=seed)
    assert traffic.seconds <= 1.3 * ideal_s(provider, 1000)


def test_without_a_limit_nothing_holds_back() -> None:
    traffic = play(Bucket(1e6, 1e6), fresh_pace())
    assert traffic.n_refused == 0
    assert traffic.seconds <= 0.2 * (1 + 1000 / 100) * 1.2
    assert traffic.most_in_flight == 100


def test_a_provider_that_is_closed_for_a_minute_is_asked_ever_less_and_then_at_full_speed(seed: int) -> None:
    provider = Bucket(50, 50, closed_until=60.0)
    traffic = play(provider, fresh_pace(seed), seed=seed)
    assert traffic.n_refused <= 130
    assert traffic.seconds <= 60 + 31 + 1.2 * ideal_s(provider, 1000)


def test_a_limit_that_rises_is_noticed() -> None:
    provider = Bucket(10, 10)
    pace = fresh_pace()
    play(provider, pace, n=200)
    slow = pace.rate_per_s
    assert slow is not None
    assert 8 <= slow <= 12
    generous = Bucket(1e6, 1e6)
    now = 1000.0
    for _ in range(600):
        now = pace.next_at(now, 1.0)
        pace.send(now, 1.0)
        assert generous.let_through(now)
        pace.admitted(now, now)
    assert (pace.rate_per_s or math.inf) > 3 * slow


def test_everyone_pauses_for_a_long_wait_that_one_is_asked_for() -> None:
    pace = fresh_pace()
    pace.send(0.0, 1.0)
    pace.send(0.0, 1.0)
    pace.refused(0.1, 0.0, 20.0)
    assert 20.1 <= pace.next_at(0.2, 1.0) <= 21.2


def test_a_hundred_refusals_of_one_burst_cut_once() -> None:
    pace = fresh_pace()
    for _ in range(100):
        pace.send(1.0, 1.0)
    for i in range(50):
        pace.refused(1.1 + i / 1000, 1.0, None)
    assert pace.rate_per_s == pytest.approx(50.0)


def test_what_is_refused_although_nothing_else_was_sent_doubles_the_pause() -> None:
    pace = fresh_pace()
    now, pauses = 0.0, []
    for _ in range(8):
        pace.send(now, 1.0)
        pace.refused(now + 0.1, now, None)
        after = pace.next_at(now + 0.1, 1.0)
        pauses.append(after - now - 0.1)
        now = after
    assert pauses == pytest.approx([0.5, 1, 2, 4, 8, 16, 30, 30], rel=0.06)


# --- refusals that come whatever the pace -----------------------------------------------------------------------------


class Unpaced(Pace):
    """Sends whenever a worker is free."""

    def next_at(self, now: float, tokens: float) -> float:
        return now


def share_of_unpaced(share: float, retry_after: float | None, *, n: int, workers: int) -> float:
    """Return how fast requests get through, as a share of what they would without a pace; the mean of some runs."""

    def seconds(pace: Pace, seed: int) -> float:
        gateway = Gateway(1e6, 1e6, retry_after, share=share, rng=random.Random(seed))
        return play(gateway, pace, n=n, workers=workers, seed=seed).seconds

    return sum(seconds(Unpaced(0.0), seed) / seconds(fresh_pace(seed), seed) for seed in range(6)) / 6


@pytest.mark.parametrize("retry_after", [None, 1.0])
@pytest.mark.parametrize("workers", [20, 100])
@pytest.mark.parametrize("share", [0.05, 0.25, 0.5])
def test_refusals_that_do_not_depend_on_the_pace_leave_it_at_half_of_what_it_could_be_at_least(
    share: float, workers: int, retry_after: float | None
) -> None:
    assert share_of_unpaced(share, retry_after, n=2500, workers=workers) >= 0.5


def test_five_hundred_requests_through_a_gateway_that_refuses_a_quarter_take_seconds(seed: int) -> None:
    gateway = Gateway(1e6, 1e6, share=0.25, rng=random.Random(seed))
    assert play(gateway, fresh_pace(seed), n=500, seed=seed).seconds <= 30.0


@pytest.mark.parametrize("retry_after", [None, 1.0])
@pytest.mark.parametrize("workers", [20, 100])
def test_a_limit_behind_refusals_of_another_kind_is_still_used_and_still_kept(
    workers: int, retry_after: float | None, seed: int
) -> None:
    gateway = Gateway(50, 50, retry_after, share=0.1, rng=random.Random(seed))
    traffic = play(gateway, fresh_pace(seed), n=2000, workers=workers, seed=seed)
    assert 2000 / traffic.seconds >= 0.7 * 50
    assert traffic.n_refused <= 0.35 * len(traffic.sent)


def test_refusals_that_begin_in_the_middle_of_a_run_and_end_leave_no_trace(seed: int) -> None:
    gateway = Gateway(50, 50, 1.0, shares={20.0: 0.25, 40.0: 0.0}, rng=random.Random(seed))
    traffic = play(gateway, fresh_pace(seed), n=4000, seed=seed)
    assert traffic.seconds <= 1.25 * ideal_s(gateway, 4000)
    late = [t for t in traffic.refused if t > traffic.seconds - 15.0]
    assert len(late) <= 0.05 * 15 * 50


def test_a_gateway_that_refuses_nine_in_ten_is_not_sent_more_for_it() -> None:
    for seed in range(8):
        gateway = Gateway(1e6, 1e6, share=0.9, rng=random.Random(seed))
        traffic = play(gateway, fresh_pace(seed), n=100, seed=seed)
        assert sum(t < 60.0 for t in traffic.sent) <= 250


def test_a_limit_that_falls_to_a_fifth_is_not_taken_for_something_else() -> None:
    for seed in range(12):
        gateway = Gateway(50, 50, rates={20.0: 10.0, 60.0: 50.0}, rng=random.Random(seed))
        traffic = play(gateway, fresh_pace(seed), n=2000, seed=seed)
        assert sum(20.0 < t < 60.0 for t in traffic.refused) <= 60
        assert sum(20.0 < t < 60.0 for t in traffic.sent) >= 0.85 * 40 * 10


def test_a_gateway_that_closes_for_a_minute_is_not_asked_on_and_on(seed: int) -> None:
    gateway = Gateway(1e6, 1e6, 1.0, shares={0.0: 0.25, 10.0: 1.0, 70.0: 0.25}, rng=random.Random(seed))
    traffic = play(gateway, fresh_pace(seed), n=4000, seed=seed)
    assert sum(t < 10.0 for t in traffic.sent) >= 500
    assert sum(10.0 < t < 12.0 for t in traffic.sent) <= 160
    assert sum(20.0 < t < 70.0 for t in traffic.sent) <= 30
    assert traffic.seconds <= 200


# --- the user's caps --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("cap", [1, 7, 60, 600, 6000])
def test_no_minute_holds_more_requests_than_the_user_allows(cap: int) -> None:
    pace = fresh_pace(requests_per_minute=cap)
    now, sent = 0.0, []
    for _ in range(3 * cap):
        now = pace.next_at(now, 1.0)
        pace.send(now, 1.0)
        sent.append(now)
        if len(sent) == cap // 2:
            now += 30.0  # a rest does not save up for a burst
    assert all(later - first >= 60.0 - 1e-6 for first, later in zip(sent, sent[cap:], strict=False))
    assert sent[-1] <= 30.0 + 60.0 * 3 * 1.01


def test_sixty_a_minute_are_one_in_the_first_second() -> None:
    traffic = play(Bucket(1e6, 1e6), fresh_pace(requests_per_minute=60), n=20)
    assert sum(t < 0.99 for t in traffic.sent) == 1
    assert traffic.sent[-1] == pytest.approx(19.0, abs=0.1)


def test_tokens_are_capped_over_time_whatever_their_size() -> None:
    pace = fresh_pace(tokens_per_minute=6000)
    now, sent = 0.0, 0.0
    for size in [100, 2000, 50, 3000, 900] * 10:
        now = pace.next_at(now, size)
        pace.send(now, size)
        sent += size
    assert sent / now * 60 == pytest.approx(6000, rel=0.06)


def test_a_request_larger_than_a_minutes_tokens_leaves_and_costs_a_minute() -> None:
    pace = fresh_pace(tokens_per_minute=1000)
    assert pace.next_at(0.0, 50_000) == 0.0
    pace.send(0.0, 50_000)
    assert pace.next_at(0.0, 50_000) == pytest.approx(60.0, abs=1)
    named = fresh_pace()
    named.learn(0.0, Limits(tokens=1000, tokens_remaining=0), 0)
    assert named.next_at(0.0, 50_000) <= 70.0


def test_tokens_that_were_thought_too_few_are_paid_for_later_and_too_many_given_back() -> None:
    pace = fresh_pace(tokens_per_minute=6000)
    pace.send(0.0, 100)
    pace.used(0.0, 1000)
    assert pace.next_at(0.0, 100) == pytest.approx(11.0)
    pace.used(0.0, -1000)
    assert pace.next_at(0.0, 100) == pytest.approx(1.0)


# --- told by headers --------------------------------------------------------------------------------------------------


def test_what_is_left_may_go_at_once_and_then_the_named_pace_holds() -> None:
    pace = fresh_pace()
    pace.learn(0.0, Limits(requests=600, requests_remaining=30), 0)
    now, sent = 0.0, []
    for _ in range(60):
        now = pace.next_at(now, 1.0)
        pace.send(now, 1.0)
        sent.append(now)
    assert sum(t == 0.0 for t in sent) == 30
    assert sent[-1] == pytest.approx(30 / 9.8, rel=0.01)


def test_answers_that_say_nothing_is_left_do_not_starve_the_run() -> None:
    pace = fresh_pace()
    now = 0.0
    for _ in range(100):
        pace.learn(now, Limits(requests=600, requests_remaining=0, tokens=60_000, tokens_remaining=0), 5)
        now = pace.next_at(now, 50.0)
        pace.send(now, 50.0)
        pace.learn(now + 0.05, Limits(requests=600, requests_remaining=0, tokens=60_000, tokens_remaining=0), 5)
    assert now <= 100 / 9.8 * 1.1


def test_what_others_use_up_is_taken_from_what_is_left() -> None:
    pace = fresh_pace()
    pace.learn(0.0, Limits(requests=6000, requests_remaining=5000), 0)
    pace.learn(0.0, Limits(requests=6000, requests_remaining=10), 0)
    for _ in range(11):
        assert pace.next_at(0.0, 1.0) == 0.0
        pace.send(0.0, 1.0)
    assert pace.next_at(0.0, 1.0) > 0.0


def test_named_tokens_set_the_pace_too() -> None:
    pace = fresh_pace()
    pace.send(0.0, 1000)
    pace.learn(0.0, Limits(tokens=60_000, tokens_remaining=1000), 0)
    for _ in range(2):
        assert pace.next_at(0.0, 1000) == 0.0
        pace.send(0.0, 1000)
    assert pace.next_at(0.0, 1000) == pytest.approx(1000 / 980, rel=0.01)
