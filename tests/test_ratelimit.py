"""Whose turn it is among many workers."""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager

import pytest

from lmsyz.errors import RateLimitError, UnavailableError
from lmsyz.ratelimit import Limiter
from lmsyz.retry import RetryPolicy, Stopped, call_with_retry

SOON = 10.0  # seconds after which a thread that should be done is stuck

# --- turns ------------------------------------------------------------------------------------------------------------


class Clock:
    """Stands still until it is moved."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


class Bench:
    """A limiter, and workers that wait for their turn in threads."""

    def __init__(self, pool: ThreadPoolExecutor, workers: int = 8, **arguments: float) -> None:
        self.stop = threading.Event()
        self.clock = Clock()
        self.limiter = Limiter(max_concurrency=workers, stop=self.stop, clock=self.clock, **arguments)
        self._pool = pool

    def waits(self, tokens: int = 1) -> Future[bool]:
        return self._pool.submit(self.limiter.acquire, tokens)

    def ends(self, outcome: str = "ok", **facts: object) -> None:
        self.limiter.release(headers=None, outcome=outcome, sent_at=self.limiter.now(), **facts)  # type: ignore[arg-type]

    def moves(self, seconds: float) -> None:
        self.clock.now += seconds
        self.limiter.wake()


@pytest.fixture
def bench_of(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., Bench]]:
    # A worker whose turn it is must be told; looking again by itself would only hide that it was not.
    monkeypatch.setattr("lmsyz.ratelimit.LONGEST_LOOK_S", 3600.0)
    made: list[Bench] = []
    with ThreadPoolExecutor(16) as pool:

        def make(workers: int = 8, **arguments: float) -> Bench:
            made.append(Bench(pool, workers, **arguments))
            return made[-1]

        yield make
        for bench in made:
            bench.stop.set()
            bench.limiter.wake()


def n_gone(turns: list[Future[bool]], n: int) -> int:
    """Wait until `n` are gone, and return how many are a little later."""
    until = time.monotonic() + SOON
    while sum(t.done() for t in turns) < n and time.monotonic() < until:
        time.sleep(0.001)
    time.sleep(0.02)
    return sum(t.done() for t in turns)


def test_one_probe_goes_alone_and_after_it_all_at_once(bench_of: Callable[..., Bench]) -> None:
    bench = bench_of(8)
    turns = [bench.waits() for _ in range(12)]
    assert n_gone(turns, 1) == 1
    bench.ends()
    bench.limiter.open()
    assert n_gone(turns, 9) == 9
    assert bench.limiter.state.in_flight == 8
    for _ in range(3):
        bench.ends()
    assert n_gone(turns, 12) == 12


def test_where_a_probe_fails_the_next_in_the_queue_is_the_probe(bench_of: Callable[..., Bench]) -> None:
    bench = bench_of(8)
    turns = [bench.waits() for _ in range(4)]
    for n in range(1, 4):
        assert n_gone(turns, n) == n
        assert bench.limiter.state.probing
        bench.ends("unavailable" if n == 1 else "other")
    assert n_gone(turns, 4) == 4


def test_workers_leave_in_the_order_they_came(bench_of: Callable[..., Bench]) -> None:
    bench = bench_of(1)
    bench.limiter.open()
    assert bench.waits().result(SOON)
    order: list[int] = []
    with ThreadPoolExecutor(6) as pool:

        def wait_and_go(i: int) -> None:
            bench.limiter.acquire(1)
            order.append(i)
            bench.ends()

        for i in range(6):
            pool.submit(wait_and_go, i)
            while len(bench.limiter._queue) <= i:
                time.sleep(0.001)
        bench.ends()
    assert order == list(range(6))


def test_the_users_cap_holds_from_the_first_second(bench_of: Callable[..., Bench]) -> None:
    bench = bench_of(8, requests_per_minute=60)
    bench.limiter.open()
    turns = [bench.waits() for _ in range(4)]
    assert n_gone(turns, 1) == 1
    bench.moves(0.9)
    assert n_gone(turns, 1) == 1
    bench.moves(0.2)
    assert n_gone(turns, 2) == 2
    bench.moves(1.0)
    assert n_gone(turns, 3) == 3


def test_a_request_over_the_whole_token_cap_is_not_waited_for_for_ever(bench_of: Callable[..., Bench]) -> None:
    bench = bench_of(8, tokens_per_minute=600)
    bench.limiter.open()
    turns = [bench.waits(10_000), bench.waits(10_000)]
    assert n_gone(turns, 1) == 1
    bench.moves(61)
    assert n_gone(turns, 2) == 2


def test_a_refusal_slows_everyone_and_a_long_wait_stops_everyone(bench_of: Callable[..., Bench]) -> None:
    bench = bench_of(8)
    bench.limiter.open()
    assert n_gone([bench.waits() for _ in range(4)], 4) == 4
    bench.clock.now += 0.1
    bench.limiter.release(headers=None, outcome="rate_limited", retry_after=30.0, sent_at=100.0)
    turns = [bench.waits() for _ in range(3)]
    bench.moves(29)
    assert n_gone(turns, 0) == 0
    bench.moves(3)
    assert n_gone(turns, 1) >= 1
    assert bench.limiter.state.n_rate_limited == 1


def test_a_long_wait_asked_for_by_a_server_in_trouble_stops_everyone_too(bench_of: Callable[..., Bench]) -> None:
    bench = bench_of(8)
    bench.limiter.open()
    assert bench.waits().result(SOON)
    bench.ends("unavailable", retry_after=30.0)
    turn = bench.waits()
    assert n_gone([turn], 0) == 0
    bench.moves(32)
    assert turn.result(SOON)


def test_headers_set_the_pace_from_the_first_answer_on(bench_of: Callable[..., Bench]) -> None:
    bench = bench_of(8)
    assert bench.waits().result(SOON)
    headers = {"x-ratelimit-limit-requests": "600", "x-ratelimit-remaining-requests": "2"}
    bench.limiter.release(headers=headers, outcome="ok", sent_at=bench.limiter.now())
    bench.limiter.open()
    turns = [bench.waits() for _ in range(6)]
    assert n_gone(turns, 2) == 2
    assert bench.limiter.state.rate_per_s == pytest.approx(9.8)


def test_a_storm_of_failures_cuts_the_concurrency_and_answers_give_it_back() -> None:
    limiter = Limiter(max_concurrency=64, stop=threading.Event())
    limiter.open()

    def end(outcome: str) -> None:
        assert limiter.acquire(1)
        limiter.release(headers=None, outcome=outcome)

    for _ in range(200):
        end("unavailable")
    assert limiter.state.limit == 1
    for _ in range(64):
        end("ok")
    assert limiter.state.limit == 64


def test_a_pause_holds_everyone_until_it_is_over(bench_of: Callable[..., Bench]) -> None:
    bench = bench_of(8)
    bench.limiter.open()
    bench.limiter.pause()
    turns = [bench.waits() for _ in range(4)]
    assert n_gone(turns, 0) == 0
    assert bench.limiter.state.paused
    bench.limiter.resume()
    assert n_gone(turns, 4) == 4


@pytest.mark.parametrize("held_by", ["probe", "pause", "concurrency", "cap"])
def test_a_stop_wakes_everyone_and_nobody_leaves(bench_of: Callable[..., Bench], held_by: str) -> None:
    bench = bench_of(1, **({"requests_per_minute": 1.0} if held_by == "cap" else {}))
    if held_by != "probe":
        bench.limiter.open()
    if held_by == "pause":
        bench.limiter.pause()
    else:
        assert bench.waits().result(SOON)
        if held_by == "cap":
            bench.ends()
    turns = [bench.waits() for _ in range(5)]
    assert n_gone(turns, 0) == 0
    bench.stop.set()
    bench.limiter.wake()
    assert [t.result(SOON) for t in turns] == [False] * 5
    assert bench.limiter.acquire(1) is False


def test_a_stop_that_nobody_announced_is_seen_all_the_same() -> None:
    stop = threading.Event()
    limiter = Limiter(max_concurrency=8, stop=stop)
    limiter.pause()
    with ThreadPoolExecutor(3) as pool:
        turns = [pool.submit(limiter.acquire, 1) for _ in range(3)]
        stop.set()
        assert [t.result(SOON) for t in turns] == [False] * 3


# --- real threads -----------------------------------------------------------------------------------------------------


class Provider:
    """Lets so many requests a second through, in real time."""

    def __init__(self, rate: float, *, fails: float = 0.0) -> None:
        self.rate, self.level, self.at = rate, rate, time.monotonic()
        self.fails = fails
        self.lock = threading.Lock()
        self.rng = random.Random(1)
        self.in_flight = self.most_in_flight = self.n_asked = self.n_refused = 0

    @contextmanager
    def _counted(self) -> Iterator[None]:
        with self.lock:
            self.n_asked += 1
            self.in_flight += 1
            self.most_in_flight = max(self.most_in_flight, self.in_flight)
        try:
            yield
        finally:
            with self.lock:
                self.in_flight -= 1

    def ask(self) -> None:
        with self._counted():
            with self.lock:
                now = time.monotonic()
                self.level, self.at = min(self.rate, self.level + (now - self.at) * self.rate), now
                passes, fails = self.level >= 1.0, self.rng.random() < self.fails
                self.level -= passes
                self.n_refused += not passes
            if not passes:
                raise RateLimitError("slow down", status=429)
            time.sleep(0.02)
            if fails:
                raise UnavailableError("oops", status=500)


def run(provider: Provider, limiter: Limiter, stop: threading.Event, n: int, workers: int) -> list[bool]:
    def once() -> None:
        if not limiter.acquire(10):
            raise Stopped
        sent_at, outcome = limiter.now(), "ok"
        try:
            provider.ask()
        except RateLimitError:
            outcome = "rate_limited"
            raise
        except UnavailableError:
            outcome = "unavailable"
            raise
        finally:
            limiter.release(headers=None, outcome=outcome, sent_at=sent_at)
        limiter.open()

    def work(_: int) -> bool:
        try:
            call_with_retry(once, policy=RetryPolicy(base_s=0.1), stop=stop)
        except Stopped:
            return False
        return True

    with ThreadPoolExecutor(workers) as pool:
        return list(pool.map(work, range(n)))


def test_fifty_real_workers_all_get_through_a_limit() -> None:
    stop = threading.Event()
    provider, limiter = Provider(300, fails=0.05), Limiter(max_concurrency=50, stop=stop)
    assert all(run(provider, limiter, stop, 600, 50))
    assert provider.most_in_flight <= 50
    assert provider.n_refused <= 250
    assert limiter.state.in_flight == 0
    assert limiter.state.n_rate_limited == provider.n_refused


def test_real_workers_that_are_stopped_send_nothing_more() -> None:
    stop = threading.Event()
    provider, limiter = Provider(1e9), Limiter(max_concurrency=20, requests_per_minute=3000, stop=stop)
    asked: list[int] = []

    def end_it() -> None:
        stop.set()
        limiter.wake()
        time.sleep(0.2)
        asked.append(provider.n_asked)

    timer = threading.Timer(0.3, end_it)
    timer.start()
    answers = run(provider, limiter, stop, 5000, 20)
    timer.join()
    assert answers.count(True) >= 1
    assert asked == [provider.n_asked]
    assert limiter.state.in_flight == 0
