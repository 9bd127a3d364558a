"""Finding what is stored already, and turning a reply into answers."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from cache_records import exchange, seed_file
from pydantic import BaseModel, field_validator

from lmsyz.cache import SqliteCache
from lmsyz.engine import plan, settle
from lmsyz.providers.base import Reply, Stop
from lmsyz.rows import Rows, make_chunk, text_key
from lmsyz.schema import read_schema
from lmsyz.store import AnswerRecord
from lmsyz.task import Task, compute_prompt_hash

PROMPT = "Classify the tone."


@pytest.fixture
def cache(tmp_path: Path) -> Iterator[SqliteCache]:
    with SqliteCache(tmp_path / "answers.sqlite") as opened:
        yield opened


def task(**changes: Any) -> Task:
    facts: dict[str, Any] = {
        "backend": "openai",
        "api": "chat",
        "endpoint": "sandbox",
        "model": "m-1",
        "prompt": PROMPT,
        "schema": read_schema({"n": int}),
    }
    return Task(**(facts | changes))


def rows_of(*texts: str | None, ids: list[str] | None = None) -> Rows:
    return Rows(texts=texts, keys=[text_key(t) if t else b"" for t in texts], ids=ids)


def store(cache: SqliteCache, asked: Task, *texts: str) -> None:
    answers = [AnswerRecord(key=text_key(t), answer=f'{{"n":{len(t)}}}', row_ids=(t,)) for t in texts]
    cache.put_chunk(cache.task_id(asked.record), exchange(), answers)


def settled(results: list[Any] | str, *, stop: Stop = Stop.COMPLETE, detail: str = "", **about: Any) -> Any:
    chunk = make_chunk(rows_of("a", "b", "c", ids=["1", "2", "3"]), [0, 1, 2])
    text = results if isinstance(results, str) else json.dumps({"all_results": results})
    return settle(task(**about), chunk, Reply(text=text, stop=stop, detail=detail))


# --- plan -------------------------------------------------------------------------------------------


def test_what_is_stored_is_not_asked_and_what_is_empty_is_not_either(cache: SqliteCache) -> None:
    store(cache, task(), "a", "ccc")
    found = plan(cache, task(), rows_of("a", "bb", None, "ccc"))
    assert (found.ask, found.n_cached, found.n_empty) == ([1], 2, 1)
    assert found.answers == {text_key("a"): '{"n":1}', text_key("ccc"): '{"n":3}'}


def test_equal_texts_are_asked_once_and_remembered_as_twins(cache: SqliteCache) -> None:
    found = plan(cache, task(), rows_of("a", "b", "a", "a", "b", "c"))
    assert found.ask == [0, 1, 5]
    assert found.twins == {text_key("a"): [0, 2, 3], text_key("b"): [1, 4]}


@pytest.mark.parametrize(
    "change",
    [
        {"backend": "anthropic"},
        {"api": "responses"},
        {"endpoint": "https://api.openai.com/v1"},
        {"model": "m-2"},
        {"prompt": "Classify the tone!"},
        {"schema": read_schema({"n": float})},
        {"schema": None},
        {"options": {"temperature": 0}},
        {"options": {"extra_headers": {"x-api-key": "other"}}},
        {"verify": True},
    ],
    ids=str,
)
def test_whatever_shapes_an_answer_is_asked_again_when_it_changes_and_going_back_is_free(
    cache: SqliteCache, change: dict[str, Any]
) -> None:
    store(cache, task(), "a")
    assert plan(cache, task(**change), rows_of("a")).ask == [0]
    store(cache, task(**change), "a")
    assert plan(cache, task(**change), rows_of("a")).ask == []
    assert plan(cache, task(), rows_of("a")).ask == []


def test_fresh_asks_again_and_ignoring_the_prompt_reuses_another_prompts_answers(cache: SqliteCache) -> None:
    store(cache, task(), "a")
    assert plan(cache, task(), rows_of("a"), fresh=True).ask == [0]
    other = task(prompt="Another prompt.")
    assert plan(cache, other, rows_of("a")).ask == [0]
    assert plan(cache, other, rows_of("a"), ignore_prompt=True).ask == []
    assert plan(cache, task(prompt="Another.", model="m-2"), rows_of("a"), ignore_prompt=True).ask == [0]


def test_another_prompts_answers_fill_in_and_never_stand_before_the_own(cache: SqliteCache) -> None:
    store(cache, task(), "a")
    other = task(prompt="Another prompt.")
    answers = [AnswerRecord(key=text_key(t), answer='{"n":99}') for t in ("a", "b")]
    cache.put_chunk(cache.task_id(other.record), exchange(cost=None), answers)
    found = plan(cache, task(), rows_of("a", "b"), ignore_prompt=True)
    assert found.answers == {text_key("a"): '{"n":1}', text_key("b"): '{"n":99}'}
    assert (found.saved.n_rows, found.saved.cost) == (2, None)


def test_seed_rows_of_the_prompt_are_taken_over_once_and_only_where_they_fit_the_schema(tmp_path: Path) -> None:
    path, prompt_hash = tmp_path / "seed.sqlite", compute_prompt_hash(PROMPT)
    seed_file(
        path,
        ("1", '{"input_id": "1", "n": 5}', prompt_hash),
        ("2", '{"input_id": "2", "n": "five"}', prompt_hash),
        ("3", '{"input_id": "3", "n": 7}', "another" * 2),
        ("4", "not json", prompt_hash),
    )
    rows = rows_of("a", "b", "c", "d", ids=["1", "2", "3", "4"])
    with SqliteCache(path) as cache:
        found = plan(cache, task(), rows, run_id="run-1")
        assert (found.ask, found.n_seed, found.answers) == ([1, 2, 3], 1, {text_key("a"): '{"n":5}'})
        again = plan(cache, task(), rows, run_id="run-2")
        assert (again.ask, again.n_seed, again.n_cached) == ([1, 2, 3], 0, 1)
        edited = rows_of("edited", "b", "c", "d", ids=["1", "2", "3", "4"])
        assert plan(cache, task(), edited).ask == [0, 1, 2, 3]


def test_a_seed_row_that_another_kernel_took_over_meanwhile_is_asked(tmp_path: Path) -> None:
    path, prompt_hash = tmp_path / "seed.sqlite", compute_prompt_hash(PROMPT)
    seed_file(path, ("1", '{"n": 5}', prompt_hash))

    class Raced(SqliteCache):
        def adopt(self, task_id: int, rows: Any, run_id: str) -> set[str]:
            with SqliteCache(path) as other:
                other.adopt(other.task_id(task(model="m-2").record), rows, "theirs")
            return super().adopt(task_id, rows, run_id)

    with Raced(path) as cache:
        found = plan(cache, task(), rows_of("a", ids=["1"]), run_id="ours")
    assert (found.ask, found.answers, found.n_seed) == ([0], {}, 0)


# --- settle -----------------------------------------------------------------------------------------


def test_a_good_reply_is_good_for_every_row() -> None:
    found = settled([{"input_id": str(i), "n": i * 1.0} for i in (3, 1, 2)])
    assert found.good == {0: '{"n":1}', 1: '{"n":2}', 2: '{"n":3}'}
    assert (found.bad, found.outcome, found.readable) == ({}, "ok", True)


def test_a_partly_good_reply_keeps_its_good_rows_and_says_what_ails_the_others() -> None:
    found = settled([{"input_id": "1", "n": 1}, {"input_id": "2", "n": "two"}, {"input_id": "9", "n": 9}])
    assert found.good == {0: '{"n":1}'}
    assert found.bad.keys() == {1, 2}
    assert found.bad[1].startswith("invalid: field 'n'")
    assert found.bad[1].endswith("(got 'two')")
    assert found.bad[2].startswith("missing:")
    assert (found.outcome, found.n_foreign) == ("partial", 1)


def test_a_duplicated_answer_is_not_used() -> None:
    found = settled([{"input_id": "1", "n": 1}, {"input_id": "1", "n": 2}])
    assert found.good == {}
    assert found.bad[0] == "invalid: more than one answer in the reply"
    assert found.outcome == "empty"


def test_a_cut_reply_keeps_what_was_whole_and_says_truncated_for_the_rest() -> None:
    found = settled('{"all_results": [{"input_id": "1", "n": 1}, {"input_id": "2", "n": 2', stop=Stop.TRUNCATED)
    assert found.good == {0: '{"n":1}'}
    assert {found.bad[1], found.bad[2]} == {"truncated: the reply stopped at its token limit"}
    assert (found.outcome, found.readable) == ("truncated", True)
    assert settled("", stop=Stop.TRUNCATED).bad.keys() == {0, 1, 2}


@pytest.mark.parametrize("number", ["1e999", "-1e999", '[{"n": 1e999}]'])
def test_a_number_beyond_all_floats_spoils_its_own_row_and_is_never_stored_as_infinity(number: str) -> None:
    reply = f'{{"all_results": [{{"input_id": "1", "x": {number}}}, {{"input_id": "2", "x": "Infinity", "n": 1e308}}]}}'
    found = settled(reply, schema=None)
    assert found.good == {1: '{"x":"Infinity","n":1e+308}'}
    assert found.bad[0] == "invalid: the answer holds a number that is not finite"


class Scores(BaseModel):
    scores: list[float]
    said: str

    @field_validator("scores")
    @classmethod
    def without_zeros(cls, scores: list[float]) -> list[float]:
        return [score or float("nan") for score in scores]


def test_a_models_own_code_that_makes_a_number_none_fails_its_row_and_nothing_is_stored_as_nan() -> None:
    results = [{"input_id": "1", "scores": [0.0], "said": "a"}, {"input_id": "2", "scores": [1.0], "said": "NaN"}]
    found = settled(results, schema=read_schema(Scores))
    assert found.good == {1: '{"scores":[1.0],"said":"NaN"}'}
    assert found.bad[0] == "invalid: the answer holds a number that is not finite"


@pytest.mark.parametrize(
    ("stop", "reason"),
    [(Stop.REFUSED, "refused: the model refused (I would rather not)"), (Stop.FILTERED, "refused: content filter")],
)
def test_a_refusal_and_a_content_filter_are_told_apart(stop: Stop, reason: str) -> None:
    detail = "I would rather not" if stop is Stop.REFUSED else ""
    found = settled("", stop=stop, detail=detail)
    assert set(found.bad.values()) == {reason}
    assert found.outcome == str(stop)


def test_a_reply_that_is_no_json_is_unreadable() -> None:
    found = settled("I think the first is good.")
    assert found.good == {}
    assert not found.readable
    assert set(found.bad) == {0, 1, 2}
    assert found.bad[0].startswith("invalid: the reply holds no JSON")


def test_swapped_rows_are_named_so_that_they_are_asked_alone() -> None:
    results = [{"input_id": i, "input_opening": t, "n": 1} for i, t in (("1", "b"), ("2", "a"), ("3", "c"))]
    found = settled(results, verify=True)
    assert found.good == {2: '{"n":1}'}
    assert found.swapped == {0, 1}
    assert settled(results).swapped == frozenset()
