"""Files and rows of the seed package: they open, they are used once, and both packages share a file."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from pathlib import Path

import pytest
from cache_records import SEED_FIRST, SEED_PUT, SEED_TABLE, answer, exchange, key, raw, seed_file, task

from lmsyz.cache import SqliteCache


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "answers.sqlite"


@pytest.fixture
def cache(path: Path) -> Iterator[SqliteCache]:
    with SqliteCache(path) as opened:
        yield opened


def test_a_seed_file_opens_and_its_rows_are_there(path: Path) -> None:
    seed_file(path, ("1", '{"input_id":"1","x":1}', "p" * 16), ("2", '{"input_id":"2"}', None))
    with SqliteCache(str(path)) as cache:
        assert cache.get("1") == cache.get("1", "p" * 16) == {"input_id": "1", "x": 1}
        assert cache.get("1", "q" * 16) is None
        assert cache.get("2", "p" * 16) is None
        assert cache.all_ids() == {"1", "2"}
        assert cache.all_ids("p" * 16) == {"1"}
        assert cache.seed_rows("p" * 16, ["1", "2", "3"]) == {"1": '{"input_id":"1","x":1}'}
        assert cache.seed_rows(None, {"1", "2"}).keys() == {"1", "2"}


def test_a_seed_file_from_before_prompt_hashes_opens(path: Path) -> None:
    raw(path, SEED_FIRST, "INSERT INTO results VALUES ('1', '{\"x\":1}')")
    with SqliteCache(path) as cache:
        assert cache.get("1") == {"x": 1}
        assert cache.get("1", "p" * 16) is None
        assert cache.seed_rows("p" * 16, ["1"]) == {}
        assert cache.seed_rows(None, ["1"]) == {"1": '{"x":1}'}


def test_the_seed_package_can_still_use_a_file_of_ours(cache: SqliteCache) -> None:
    cache.put("1", {"x": 1}, "p" * 16)
    db = sqlite3.connect(cache.path)
    db.execute(SEED_TABLE)
    with pytest.raises(sqlite3.OperationalError, match="duplicate column"):  # which the seed package expects
        db.execute("ALTER TABLE results ADD COLUMN prompt_hash TEXT")
    assert db.execute("SELECT json_result FROM results WHERE row_id = '1'").fetchone() == ('{"x": 1}',)
    db.execute(SEED_PUT, ("2", '{"x":2}', None))
    db.commit()
    db.close()
    assert cache.get("2") == {"x": 2}


def test_get_gives_what_put_was_given_until_it_is_put_again(cache: SqliteCache) -> None:
    assert cache.get("1") is None
    cache.put("1", {"x": [1, None, "é"]}, "p" * 16)
    assert cache.get("1", "p" * 16) == {"x": [1, None, "é"]}
    cache.put("1", {"x": 2}, "q" * 16)
    assert (cache.get("1"), cache.get("1", "p" * 16)) == ({"x": 2}, None)


def test_get_finds_the_answers_of_runs_by_row_and_prompt(cache: SqliteCache) -> None:
    number, other = cache.task_id(task()), cache.task_id(task(prompt_hash="b" * 16))
    cache.put_chunk(number, exchange(), [answer("a", "good", "r1", "r2")])
    cache.put_chunk(other, exchange(), [answer("a", "bad", "r1")])
    assert cache.get("r1") == {"input_id": "r1", "tone": "bad"}
    assert cache.get("r1", "a" * 16) == {"input_id": "r1", "tone": "good"}
    assert cache.get("r2", "b" * 16) is None
    assert cache.all_ids() == {"r1", "r2"}
    assert cache.all_ids("b" * 16) == {"r1"}


def test_the_newer_of_a_put_and_an_answer_wins_whoever_wrote_it(cache: SqliteCache) -> None:
    number = cache.task_id(task())
    cache.put("r1", {"from": "put"}, "a" * 16)
    cache.put_chunk(number, exchange(), [answer("a", "good", "r1")])
    assert cache.get("r1") == {"input_id": "r1", "tone": "good"}
    db = sqlite3.connect(cache.path)
    db.execute(SEED_PUT, ("r1", '{"from":"seed"}', "a" * 16))
    db.commit()
    db.close()
    assert cache.get("r1") == cache.get("r1", "a" * 16) == {"from": "seed"}
    cache.put_chunk(number, exchange(), [answer("a", "newest", "r1")])
    assert cache.get("r1") == {"input_id": "r1", "tone": "newest"}


def test_an_adopted_row_belongs_to_one_task(path: Path) -> None:
    seed_file(path, *((str(i), f'{{"x":{i}}}', "a" * 16) for i in range(3)))
    with SqliteCache(path) as cache:
        one, two = cache.task_id(task()), cache.task_id(task(model="m-2"))
        assert cache.adopt(one, [("0", key("zero"), '{"x":0}'), ("9", key("nine"), "{}")], "run-1") == {"0"}
        assert cache.answers([one]) == {key("zero"): '{"x":0}'}
        assert cache.seed_rows("a" * 16, ["0", "1", "2"]).keys() == {"1", "2"}
        assert cache.adopt(two, [("0", key("zero"), '{"x":0}'), ("1", key("one"), '{"x":1}')], "run-2") == {"1"}
        assert cache.answers([two]) == {key("one"): '{"x":1}'}
        assert cache.adopt(two, [("0", key("zero"), '{"x":0}')], "run-3") == set()
        origin = cache.request(cache.requests_for_row("0")[0])
        assert (origin.outcome, origin.cost, origin.input_tokens, origin.run_id) == (
            "seed",
            None,
            None,
            "run-1",
        )
        assert cache.get("0") == {"input_id": "0", "x": 0}
        assert cache.saved([one], [key("zero")]).n_cost_unknown == 1


def test_a_seed_row_written_again_is_free_again(path: Path) -> None:
    seed_file(path, ("1", '{"x":1}', "a" * 16))
    with SqliteCache(path) as cache:
        number = cache.task_id(task())
        cache.adopt(number, [("1", key("one"), '{"x":1}')], "run-1")
        cache.put("1", {"x": 2}, "a" * 16)
        assert cache.seed_rows("a" * 16, ["1"]) == {"1": '{"x": 2}'}


def test_seed_rows_are_found_among_thousands(path: Path) -> None:
    seed_file(path, *((str(i), "{}", None) for i in range(6000)))
    with SqliteCache(path) as cache:
        assert len(cache.seed_rows(None, [str(i) for i in range(1000, 9000)])) == 5000
        rows = [(str(i), key(str(i)), "{}") for i in range(6000)]
        assert len(cache.adopt(cache.task_id(task()), rows, "run-1")) == 6000
        assert cache.seed_rows(None, [str(i) for i in range(6000)]) == {}
