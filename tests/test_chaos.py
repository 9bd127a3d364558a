"""A short piece of the soak, ten thousand restarts of the batch engine, and what the audit must not let pass."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

pytest.importorskip("resource")

from chaos.restarts import restart_often
from chaos.soak import restarts_told, soak

from lmsyz import batch

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork and signals")

SEED = 5


def test_a_short_soak_loses_nothing_and_pays_for_nothing_twice(tmp_path: Path) -> None:
    told = soak(SEED, tmp_path, n_rounds=2, n_rows=20, n_waves=2, may_mount=False)
    assert told.is_good, told.summary()
    assert told.figures.n_replies > 20
    assert 0 < told.figures.tokens_store <= told.figures.tokens_server


def test_ten_thousand_restarts_of_the_batch_engine_lose_no_row_and_create_no_batch_twice(tmp_path: Path) -> None:
    told = restarts_told(10_000, SEED, tmp_path)
    assert told.is_good, [*told.lost, *told.wrong, *told.twice, *told.stuck][:10]
    assert told.n_created_unheard > 10
    assert told.n_clock_jumps > 100


def test_restarts_find_out_where_batches_of_a_wrong_clock_are_not_looked_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(batch, "CLOCK_SKEW_S", 600.0)
    assert restart_often(700, SEED, tmp_path).twice
