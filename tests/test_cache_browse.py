"""Looking through a cache file: groups, pages, search, one row opened, deleting and asking again."""

from __future__ import annotations

import json
from pathlib import Path
from unicodedata import normalize

import pytest
from cache_records import exchange, task

from lmsyz import SqliteCache
from lmsyz.cache_rows import RowFilter, inputs_of
from lmsyz.errors import CacheError
from lmsyz.rows import text_key
from lmsyz.store import AnswerRecord

N = 60


def chunk(
    cache: SqliteCache, task_id: int, texts: dict[str, str], tone: str = "good", n_rows: int = 0, **about: object
) -> None:
    message = json.dumps([{"input_id": i, "input_text": t} for i, t in texts.items()], ensure_ascii=False)
    user = json.dumps(message, ensure_ascii=False)
    found = [
        AnswerRecord(key=text_key(t), answer=json.dumps({"tone": f"{tone} {i}"}), row_ids=(i,))
        for i, t in texts.items()
    ]
    answers = found if not n_rows else []
    about = {"n_rows": n_rows or len(texts), "body": f'{{"content":{user}}}', "user": user, **about}
    cache.put_chunk(task_id, exchange(**about), answers)


@pytest.fixture
def cache(tmp_path: Path) -> SqliteCache:
    made = SqliteCache(tmp_path / "c.sqlite")
    first, second = made.task_id(task()), made.task_id(task(model="m-2", prompt="Another"))
    for start in range(0, N, 5):
        chunk(made, first, {f"r{i}": f"text {i} Ünïcode" for i in range(start, start + 5)})
    chunk(made, second, {"r3": "text 3 Ünïcode"}, tone="bad", created=2000.0)
    chunk(made, second, {"x1": "forbidden"}, n_rows=1, outcome="refused")
    return made


def test_pages_follow_each_other_without_gap_or_repetition(cache: SqliteCache) -> None:
    seen, at = [], None
    while True:
        page = cache.find(before_id=at, limit=7)
        seen += [row.id for row in page.rows]
        if page.next_id is None:
            break
        at = page.next_id
    assert seen == sorted(set(seen), reverse=True)
    assert len(seen) == N + 1


def test_a_row_comes_with_the_id_and_text_that_were_sent(cache: SqliteCache) -> None:
    row = cache.find(RowFilter(row_id="r7")).rows[0]
    assert (row.row_id, row.text, json.loads(row.answer)) == ("r7", "text 7 Ünïcode", {"tone": "good r7"})


@pytest.mark.parametrize(
    ("wanted", "n"),
    [
        (RowFilter(model="m-2"), 1),
        (RowFilter(prompt="Another"), 1),
        (RowFilter(prompt="unknown"), 0),
        (RowFilter(row_id="r3"), 2),
        (RowFilter(answer_text="GOOD R1"), 11),
        (RowFilter(answer_text="good_r1"), 0),
        (RowFilter(answer_text='"tone": "bad'), 0),
        (RowFilter(input_text="TEXT 3 ÜN"), 2),
        (RowFilter(input_text="text 3 ün", task_ids=(1,)), 1),
        (RowFilter(task_ids=()), 0),
        (RowFilter(status="failed"), 1),
        (RowFilter(status="refused", row_id="x1"), 1),
        (RowFilter(status="failed", answer_text="no such words"), 0),
        (RowFilter(status="truncated"), 0),
        (RowFilter(status="stale"), 0),
    ],
)
def test_a_filter_lets_through_what_it_says(cache: SqliteCache, wanted: RowFilter, n: int) -> None:
    assert len(list(cache.export_rows(wanted))) == n


def test_a_search_for_an_answer_takes_capitals_and_small_letters_for_the_same_in_any_language(tmp_path: Path) -> None:
    with SqliteCache(tmp_path / "c.sqlite") as cache:
        found = [AnswerRecord(key=text_key("x"), answer='{"who": "ÉCOLE Straße"}', row_ids=("r",))]
        cache.put_chunk(cache.task_id(task()), exchange(n_rows=1), found)
        for words in ("École", normalize("NFD", "École"), "écOLE straße", "STRASSE É", "straße"):
            n = len(list(cache.export_rows(RowFilter(answer_text=words))))
            assert (words, n) == (words, 0 if words == "STRASSE É" else 1)


def test_a_search_for_a_text_finds_accents_in_either_unicode_form(cache: SqliteCache) -> None:
    for form in ("NFC", "NFD"):
        found = cache.export_rows(RowFilter(input_text=normalize(form, "text 7 üNÏ")))
        assert [row.row_id for row in found] == ["r7"]


def test_a_search_without_time_stops_and_goes_on_where_it_was(tmp_path: Path) -> None:
    with SqliteCache(tmp_path / "c.sqlite") as cache:
        number = cache.task_id(task())
        for start in range(0, 500, 50):
            chunk(cache, number, {f"r{i}": f"text {i}" for i in range(start, start + 50)})
        wanted = RowFilter(input_text="text 0")
        page = cache.find(wanted, budget_s=0)
        assert (page.rows, page.n_searched) == ([], 200)
        assert page.next_id == 301
        assert [row.row_id for row in cache.export_rows(wanted)] == ["r0"]


def test_groups_count_rows_tokens_and_cost_of_each_task(cache: SqliteCache) -> None:
    by_model = {g.task.model: g for g in cache.groups()}
    one, two = by_model["m-1"], by_model["m-2"]
    assert (one.n_rows, one.n_requests, one.input_tokens, one.output_tokens) == (N, 12, 1200, 240)
    assert one.cost == pytest.approx(0.12)
    assert (two.n_rows, two.n_requests, two.last) == (1, 2, 2000.0)


def test_an_unknown_price_makes_the_cost_of_a_group_unknown(cache: SqliteCache) -> None:
    chunk(cache, 1, {"y": "why"}, cost=None)
    assert {g.task_id: g.cost is None for g in cache.groups()} == {1: True, 2: False}


def test_an_opened_row_shows_its_exchange_and_other_answers_to_its_text(cache: SqliteCache) -> None:
    row = cache.find(RowFilter(row_id="r3", model="m-1")).rows[-1]
    detail = cache.show(row.id)
    assert detail.request is not None
    assert "text 3" in detail.request.body
    assert detail.task.model == "m-1"
    assert [(other.model, other.text) for other in detail.others] == [("m-2", "text 3 Ünïcode")]


def test_opening_what_is_not_there_says_so(cache: SqliteCache) -> None:
    with pytest.raises(CacheError, match="no answer number 9999"):
        cache.show(9999)


def test_deleted_answers_are_gone_and_their_numbers_are_never_given_again(cache: SqliteCache) -> None:
    newest = cache.find(limit=1).rows[0]
    assert cache.delete([newest.id, 9999]) == 1
    assert newest.id not in {row.id for row in cache.export_rows()}
    assert cache.answers([2]) == {}
    chunk(cache, 2, {"z": "zed"})
    assert cache.find(limit=1).rows[0].id > newest.id


def test_a_deleted_row_is_no_longer_among_all_ids_unless_another_task_has_it(cache: SqliteCache) -> None:
    cache.delete([row.id for row in cache.find(RowFilter(row_id="r3", task_ids=(1,))).rows if row.task_id == 1])
    cache.delete([row.id for row in cache.find(RowFilter(row_id="r4")).rows])
    assert "r3" in cache.all_ids()
    assert "r4" not in cache.all_ids()


def test_a_stale_answer_is_not_found_by_a_run_and_stays_readable(cache: SqliteCache) -> None:
    key = text_key("text 7 Ünïcode")
    chunk(cache, 1, {"r7": "text 7 Ünïcode"}, tone="newer")
    newest = cache.find(RowFilter(row_id="r7"), limit=1).rows[0]
    assert cache.ask_again([newest.id]) == 2
    assert cache.answers([1], [key]) == {}
    assert cache.tasks_with([key]) == {}
    stale = cache.find(RowFilter(status="stale", row_id="r7")).rows
    assert [json.loads(row.answer)["tone"] for row in stale] == ["newer r7", "good r7"]
    assert cache.show(stale[0].id).row.text == "text 7 Ünïcode"
    chunk(cache, 1, {"r7": "text 7 Ünïcode"}, tone="third")
    assert "third" in cache.answers([1], [key])[key]
    assert cache.delete([row.id for row in stale]) == 2


def test_inputs_are_told_apart_when_one_text_is_asked_twice() -> None:
    message = json.dumps([{"input_id": "a", "input_text": "t"}, {"input_id": "b", "input_text": {"x": "y"}}])
    keys = [text_key("t", occurrence=1), text_key('{"x":"y"}', named_fields=True)]
    found = inputs_of(json.dumps(message), keys)
    assert [found[key].row_id for key in keys] == ["a", "b"]


@pytest.mark.parametrize("user", ["", "nonsense", "[1]", '"[1, {}]"', '"{"', "[" * 100_000])
def test_a_user_message_that_is_not_ours_has_no_inputs(user: str) -> None:
    assert inputs_of(user, [b"k"]) == {}
