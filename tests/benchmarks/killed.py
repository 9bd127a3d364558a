"""SIGKILL half way, and the same call again: the rows that are asked twice, and the rows that are lost."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Iterator

from tests.benchmarks.beside import _line, _until
from tests.benchmarks.common import Line
from tests.benchmarks.contestants import Contestant, Field
from tests.benchmarks.sending import counts
from tests.benchmarks.stand_in import running

SETTLE_S = 2.0
SIGMA = 0.3  # answers that come all at once would make every kill the worst one


def killed(field: Field, n: int = 3000, workers: int = 20, latency_s: float = 0.1) -> Iterator[Line]:
    """What a kill costs, by the server's own log.

    Each worker has one request under way when the kill comes, and whoever there is asks that again. What is asked again
    beyond those had been answered, was not kept, and is paid for twice.
    """
    for who in field.of("killed"):
        if who.keeps:
            with field.forgiving(who):
                yield killed_once(field, who, n, workers, latency_s)


def killed_once(field: Field, who: Contestant, n: int, workers: int, latency_s: float) -> Line:
    with running(latency_s=latency_s, sigma=SIGMA, log=True) as url, tempfile.TemporaryDirectory() as folder:
        with field.started(who, url, folder, n=n, workers=workers) as child:
            _until(url, child, "rows_answered", n // 2, every_s=0.005)
            child.kill()
            child.wait()
        time.sleep(SETTLE_S)  # what was still to be answered has found nobody
        before = counts(url)
        again = field.run(who, url, folder, n=n, workers=workers)
        after = counts(url)
    in_flight = int(before["rows_asked"] - before["rows_answered"])
    twice, thrown = int(after["rows_asked_twice"]), int(after["rows_answered_twice"])
    lost = n - int(again["n_good"][0])
    value = twice / (workers * who.chunk)
    figures = {"asked_twice": twice, "in_flight": in_flight, "answered_twice": thrown, "lost": lost, "ratio": value}
    detail = (
        f"{twice} : {workers * who.chunk} rows; {thrown} of them had been answered, {in_flight} had not; {lost} lost;"
        f" {n:,} rows, {workers} workers"
    )
    return _line("rows asked twice after SIGKILL : under way", who.name, value, detail, figures)
