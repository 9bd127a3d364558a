"""The panel's one thread."""

from __future__ import annotations

import threading
import time

from lmsyz.widgets.pump import Pump


def test_it_paints_at_once_and_goes_on_until_closed():
    painted = threading.Semaphore(0)
    pump = Pump(painted.release, every_s=0.001)
    pump.start()
    for _ in range(3):
        assert painted.acquire(timeout=10)
    pump.close()
    assert not pump.is_alive


def test_a_paint_that_fails_does_not_end_it(caplog):
    calls = threading.Semaphore(0)

    def paint() -> None:
        calls.release()
        raise RuntimeError("no screen")

    pump = Pump(paint, every_s=0.001)
    pump.start()
    for _ in range(3):
        assert calls.acquire(timeout=10)
    pump.close()
    assert len([r for r in caplog.records if r.levelname == "WARNING"]) == 1


def test_it_may_be_closed_twice_and_from_its_own_paint():
    closed = threading.Event()

    def paint() -> None:
        pump.close()
        closed.set()

    pump = Pump(paint)
    pump.start()
    assert closed.wait(10)
    pump.close()
    pump.close()
    assert not pump.is_alive


def test_it_does_not_start_again_once_closed_nor_twice():
    pump = Pump(lambda: time.sleep(0))
    pump.start()
    before = threading.active_count()
    pump.start()
    assert threading.active_count() == before
    pump.close()
    pump.start()
    assert not pump.is_alive
