"""The cache file: what is put comes back, and what changed is told apart."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from cache_records import EXCHANGE, answer, exchange, key, task

from lmsyz.cache import SqliteCache
from lmsyz.errors import CacheError, UsageError
from lmsyz.store import AnswerRecord, Saved, Store


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "answers.sqlite"


@pytest.fixture
def cache(path: Path) -> Iterator[SqliteCache]:
    with SqliteCache(path) as opened:
        yield opened


# --- tasks ------------------------------------------------------------------------------------------


def test_the_same_task_gets_the_same_number_in_every_kernel(cache: SqliteCache) -> None:
    number = cache.task_id(task())
    assert cache.task_id(task()) == number
    assert cache.task_id(task(model="m-2")) != number
    with SqliteCache(cache.path) as other:
        assert other.task_id(task()) == number


def test_a_cache_is_a_store(cache: SqliteCache) -> None:
    store: Store = cache
    assert store.task_id(task()) == 1


def test_similar_tasks_are_those_that_differ_in_the_named_parts_only(cache: SqliteCache) -> None:
    first, model, both = task(), task(model="m-2"), task(model="m-2", schema_hash="x")
    ids = [cache.task_id(t) for t in (first, model, both)]
    assert cache.similar_tasks(first, ignoring=()) == [(ids[0], first)]
    assert cache.similar_tasks(first, ignoring={"model"}) == [(ids[0], first), (ids[1], model)]
    assert [i for i, _ in cache.similar_tasks(first, ignoring={"model", "schema"})] == ids
    assert cache.similar_tasks(task(backend="anthropic"), ignoring={"model"}) == []


def test_an_unknown_part_of_a_task_is_named(cache: SqliteCache) -> None:
    with pytest.raises(UsageError, match="no part 'colour'; it has prompt, backend"):
        cache.similar_tasks(task(), ignoring={"colour"})


def test_answers_to_other_prompts_are_read_only_when_asked_for(cache: SqliteCache) -> None:
    mine, other_prompt = task(), task(prompt_hash="b" * 16, system_hash="t" * 64)
    ids = [cache.task_id(t) for t in (mine, other_prompt)]
    cache.task_id(task(model="m-2"))
    assert cache.reading_tasks(mine) == ids[:1]
    assert cache.reading_tasks(mine, ignore_prompt=True) == ids


def test_tasks_are_listed_with_how_many_answers_they_have_and_when_they_came(cache: SqliteCache) -> None:
    asked, silent = task(), task(model="m-2")
    number, other = cache.task_id(asked), cache.task_id(silent)
    cache.put_chunk(number, exchange(created=10.0), [answer("a"), answer("b")])
    cache.put_chunk(number, exchange(created=20.0), [answer("a", "new")])
    assert cache.tasks() == [(number, asked, 3, 10.0, 20.0), (other, silent, 0, None, None)]


# --- answers ----------------------------------------------------------------------------------------


def test_what_is_put_comes_back_under_its_task_only(cache: SqliteCache) -> None:
    mine, other = cache.task_id(task()), cache.task_id(task(model="m-2"))
    cache.put_chunk(mine, exchange(), [answer("a"), answer("b", "bad")])
    expected = {key("a"): '{"tone": "good"}', key("b"): '{"tone": "bad"}'}
    assert cache.answers([mine]) == cache.answers([mine], {*expected, key("c")}) == expected
    assert cache.answers([mine], [key("b")]) == {key("b"): '{"tone": "bad"}'}
    assert cache.answers([other]) == cache.answers([]) == cache.answers([mine], []) == {}
    assert cache.answers([mine, other], [key("a")]) == {key("a"): '{"tone": "good"}'}


@pytest.mark.parametrize("n_others", [0, 6000], ids=["whole task", "keys among many"])
def test_the_newest_answer_of_a_text_wins_and_the_older_ones_stay(cache: SqliteCache, n_others: int) -> None:
    one, two = cache.task_id(task()), cache.task_id(task(prompt_hash="b" * 16))
    cache.put_chunk(two, exchange(), [answer("a", "first")])
    cache.put_chunk(one, exchange(), [answer("a", "second")])
    cache.put_chunk(two, exchange(), [answer("a", "third")])
    cache.put_chunk(one, exchange(), [answer(f"other {i}") for i in range(n_others)])
    assert cache.answers([one, two], [key("a")]) == {key("a"): '{"tone": "third"}'}
    assert cache.answers([one], [key("a")]) == {key("a"): '{"tone": "second"}'}
    stored = [json.loads(a.answer)["tone"] for a in cache.page_answers() if a.key == key("a")]
    assert stored == ["first", "second", "third"]


def test_the_last_of_two_answers_in_one_chunk_is_the_newest(cache: SqliteCache) -> None:
    number = cache.task_id(task())
    cache.put_chunk(number, exchange(), [answer("a", "early"), answer("a", "late")])
    assert cache.answers([number]) == {key("a"): '{"tone": "late"}'}


@pytest.mark.parametrize("n_asked", [5000, 2300, 700], ids=["all", "many", "few"])
def test_thousands_of_keys_are_all_found(cache: SqliteCache, n_asked: int) -> None:
    number, other = cache.task_id(task()), cache.task_id(task(model="m-2"))
    for start in range(0, 5000, 500):
        texts = range(start, start + 500)
        cache.put_chunk(number, exchange(), [answer(str(i), str(i)) for i in texts])
        cache.put_chunk(other, exchange(), [answer(str(i), "other") for i in texts])
    found = cache.answers([number], [key(str(i)) for i in range(n_asked)])
    assert found == {key(str(i)): json.dumps({"tone": str(i)}) for i in range(n_asked)}


def test_answers_come_back_to_the_letter(cache: SqliteCache) -> None:
    texts = [
        '{"n":123456789012345678901234567890}',
        '{"s":"é\u2028😀"}',
        '{"s":"' + "x" * 300_000 + '"}',
        "\x1e\x00",
    ]
    number = cache.task_id(task())
    cache.put_chunk(number, exchange(), [AnswerRecord(key=key(t), answer=t) for t in texts])
    assert cache.answers([number]) == {key(t): t for t in texts}


def test_an_exchange_without_answers_is_kept(cache: SqliteCache) -> None:
    number = cache.put_chunk(cache.task_id(task()), exchange(outcome="refused", cost=0.5), [])
    assert (cache.request(number).outcome, cache.request(number).cost) == ("refused", 0.5)


def test_chunks_are_written_all_or_nothing(cache: SqliteCache) -> None:
    number = cache.task_id(task())
    broken = AnswerRecord(key=key("b"), answer=None)  # type: ignore[arg-type]
    with pytest.raises(CacheError):
        cache.put_chunks([(number, exchange(), [answer("a")]), (number, exchange(), [broken])])
    assert cache.answers([number]) == {}
    with pytest.raises(CacheError, match="no exchange number 1"):
        cache.request(1)
    cache.put_chunk(number, exchange(), [answer("a")])
    assert cache.request(1) == exchange()


def test_many_chunks_of_different_tasks_keep_their_own_exchanges(cache: SqliteCache) -> None:
    ids = [cache.task_id(task(model=f"m-{i}")) for i in range(3)]
    chunks = [
        (ids[i % 3], exchange(provider_request_id=f"req_{i}"), [answer(f"t{i}"), answer(f"u{i}")]) for i in range(250)
    ]
    numbers = cache.put_chunks(chunks)
    assert len(set(numbers)) == 250
    for i in (0, 99, 100, 249):
        assert cache.request_of(ids[i % 3], key(f"u{i}")) == numbers[i]
        assert cache.request(numbers[i]).provider_request_id == f"req_{i}"
    assert cache.put_chunks([]) == []


# --- exchanges --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "user",
    ["plain", "é, 漢字, 😀 and \u2028\u2029\x7f", 'quotes " and \\ and \n', ""],
    ids=["ascii", "unicode", "escapes", "empty"],
)
@pytest.mark.parametrize("ascii_only", [True, False])
def test_a_body_comes_back_byte_for_byte(cache: SqliteCache, user: str, ascii_only: bool) -> None:
    message = json.dumps(user, ensure_ascii=ascii_only)
    body = f'{{"model":"m","messages":[{{"role":"system","content":"Ж {user!r:.0}"}},{{"content":{message}}}]}}'
    sent = exchange(body=body, user=message, reply="réponse \u2028")
    assert cache.request(cache.put_chunk(cache.task_id(task()), sent, [])) == sent


@pytest.mark.parametrize("user", ["", '"not in it"', '"m"'], ids=["none", "absent", "twice"])
def test_a_body_whose_message_cannot_be_told_apart_is_kept_whole(cache: SqliteCache, user: str) -> None:
    sent = exchange(body='{"model":"m","m":"m"}', user=user)
    assert cache.request(cache.put_chunk(cache.task_id(task()), sent, [])) == replace(sent, user="")


def test_what_bodies_have_in_common_is_stored_once(cache: SqliteCache) -> None:
    number, system = cache.task_id(task()), "s" * 10_000
    for i in range(40):
        body = f'{{"system":"{system}","content":"row {i}"}}'
        cache.put_chunk(number, exchange(body=body, user=f'"row {i}"'), [])
    with SqliteCache(cache.path) as other:
        again = f'{{"system":"{system}","content":"row x"}}'
        other.put_chunk(number, exchange(body=again, user='"row x"'), [])
        assert other.request(41).body == again
    cache.close()
    assert cache.path.stat().st_size < 200_000


def test_bodies_of_different_tasks_are_not_mixed_up(cache: SqliteCache) -> None:
    number = cache.task_id(task())
    sent = [exchange(body=f'{{"model":"m-{i % 3}","content":"row {i}"}}', user=f'"row {i}"') for i in range(12)]
    numbers = cache.put_chunks([(number, s, []) for s in sent[:7]])
    numbers += [cache.put_chunk(number, s, []) for s in sent[7:]]
    assert [cache.request(n) for n in numbers] == sent


def test_a_template_of_a_failed_write_is_not_relied_upon(cache: SqliteCache) -> None:
    number = cache.task_id(task())
    with pytest.raises(CacheError):
        cache.put_chunk(number, exchange(run_id=None), [])
    assert cache.request(cache.put_chunk(number, exchange(), [])).body == EXCHANGE.body


def test_a_row_leads_to_the_exact_exchange_behind_it(cache: SqliteCache) -> None:
    one, two = cache.task_id(task()), cache.task_id(task(model="m-2"))
    first = cache.put_chunk(one, exchange(), [answer("a", "x", "r1", "r2"), answer("b", "x", "r3")])
    second = cache.put_chunk(two, exchange(), [answer("a", "x", "r1")])
    third = cache.put_chunk(one, exchange(), [answer("a", "y", "r1")])
    assert cache.requests_for_row("r1") == [third, second, first]
    assert cache.requests_for_row("r3") == [first]
    assert cache.requests_for_row("r9") == []
    assert (cache.request_of(one, key("a")), cache.request_of(two, key("a"))) == (third, second)
    assert cache.request_of(two, key("b")) is None


# --- why a row is asked again -----------------------------------------------------------------------


def test_the_tasks_that_answered_a_text_are_listed_newest_first(cache: SqliteCache) -> None:
    one, two = cache.task_id(task()), cache.task_id(task(model="m-2"))
    for number in (one, two, one, two):
        cache.put_chunk(number, exchange(), [answer("a")])
    cache.put_chunk(one, exchange(), [answer("b")])
    many = {key(str(i)) for i in range(4000)}
    assert cache.tasks_with({key("a"), key("b"), key("c")} | many) == {key("a"): [two, one], key("b"): [one]}


def test_a_row_known_under_another_text_only_has_changed(cache: SqliteCache) -> None:
    one, two, three = (cache.task_id(task(model=f"m-{i}")) for i in range(3))
    cache.put_chunk(one, exchange(), [answer("old", "x", "r1"), answer("same", "x", "r2")])
    cache.put_chunk(two, exchange(), [answer("new", "x", "r1")])
    asked = {"r1": key("new"), "r2": key("same"), "r3": key("new")} | {f"n{i}": key("x") for i in range(3000)}
    assert cache.ids_with_other_text([one], asked) == {"r1"}
    assert cache.ids_with_other_text([one, two], asked) == set()
    assert cache.ids_with_other_text([three], asked) == cache.ids_with_other_text([], asked) == set()
    assert cache.ids_with_other_text([one], {}) == set()


def test_the_latest_text_of_a_row_is_the_one_that_counts(cache: SqliteCache) -> None:
    number = cache.task_id(task())
    cache.put_chunk(number, exchange(), [answer("old", "x", "r1")])
    cache.put_chunk(number, exchange(), [answer("new", "x", "r1")])
    assert cache.ids_with_other_text([number], {"r1": key("new")}) == set()
    assert cache.ids_with_other_text([number], {"r1": key("old")}) == {"r1"}


# --- what was saved ---------------------------------------------------------------------------------


def test_each_answer_costs_its_share_of_its_exchange(cache: SqliteCache) -> None:
    number = cache.task_id(task())
    cache.put_chunk(number, exchange(cost=0.5, n_rows=5), [answer(t) for t in "abcd"])
    cache.put_chunk(number, exchange(cost=3.0, input_tokens=None), [answer("e")])
    saved = cache.saved([number], [key(t) for t in "abez"])
    assert saved == Saved(n_rows=3, cost=3.25, input_tokens=50.0, output_tokens=30.0)


def test_an_unknown_price_makes_the_sum_unknown_and_is_counted(cache: SqliteCache) -> None:
    number = cache.task_id(task())
    cache.put_chunk(number, exchange(), [answer("a")])
    cache.put_chunk(number, exchange(cost=None), [answer("b"), answer("c")])
    saved = cache.saved([number], {key(t): "" for t in "abc"}.keys())
    assert (saved.n_rows, saved.cost, saved.n_cost_unknown, saved.input_tokens) == (3, None, 2, 200.0)


def test_only_the_newest_answer_counts_as_saved_and_nothing_found_is_free(cache: SqliteCache) -> None:
    number = cache.task_id(task())
    cache.put_chunk(number, exchange(cost=None), [answer("a")])
    cache.put_chunk(number, exchange(cost=0.25), [answer("a")])
    assert cache.saved([number], [key("a")]).cost == 0.25
    assert cache.saved([number], []) == cache.saved([number], [key("z")]) == cache.saved([], [key("a")]) == Saved()


def test_savings_are_summed_over_thousands_of_exchanges(cache: SqliteCache) -> None:
    number = cache.task_id(task())
    cache.put_chunks([(number, exchange(cost=0.5), [answer(f"{i}a"), answer(f"{i}b")]) for i in range(2500)])
    saved = cache.saved([number], [key(f"{i}{half}") for i in range(2500) for half in "ab"])
    assert (saved.n_rows, saved.cost, saved.input_tokens) == (5000, 1250.0, 250_000.0)


# --- runs and pages ---------------------------------------------------------------------------------


def test_a_run_is_written_down_and_updated(cache: SqliteCache) -> None:
    number = cache.task_id(task())
    cache.save_run("run-1", number, 10.0, None, "{}")
    started = cache.run("run-1")
    assert started is not None
    assert started.ended is None
    cache.save_run("run-1", number, 10.0, 12.0, '{"rows": 3}')
    cache.save_run("run-2", number, 20.0, 21.0, "{}")
    assert [r.run_id for r in cache.runs()] == ["run-2", "run-1"]
    ended = cache.run("run-1")
    assert ended is not None
    assert (ended.task_id, ended.ended, json.loads(ended.manifest)) == (number, 12.0, {"rows": 3})
    assert cache.run("run-3") is None


def test_the_answers_of_a_run_are_read_back_in_order(cache: SqliteCache) -> None:
    one, two = cache.task_id(task()), cache.task_id(task(model="m-2"))
    for i in range(0, 2500, 50):
        cache.put_chunk(one, exchange(run_id="mine", created=float(i)), [answer(str(i + j)) for j in range(50)])
        cache.put_chunk(two, exchange(run_id="other"), [answer(str(i))])
        cache.put_chunk(one, exchange(run_id="later"), [answer(str(i), "later")])
    found = list(cache.answers_of_run("mine"))
    assert [a.key for a in found] == [key(str(i)) for i in range(2500)]
    assert {a.task_id for a in found} == {one}
    assert (found[-1].created, found[-1].request_id) == (2450.0, cache.request_of(one, key("2499")))
    assert list(cache.answers_of_run("none")) == []


def test_going_through_a_run_does_not_hold_the_file(cache: SqliteCache) -> None:
    number = cache.task_id(task())
    cache.put_chunk(number, exchange(), [answer("a"), answer("b")])
    going = cache.answers_of_run("run-1")
    assert next(going).key == key("a")
    with SqliteCache(cache.path, busy_timeout_s=0.1) as other:
        other.put_chunk(number, exchange(run_id="other"), [answer("c")])
    assert [a.key for a in going] == [key("b")]


def test_answers_are_paged_by_the_last_number_seen(cache: SqliteCache) -> None:
    one, two = cache.task_id(task()), cache.task_id(task(model="m-2"))
    cache.put_chunk(one, exchange(), [answer(t) for t in "abc"])
    cache.put_chunk(two, exchange(), [answer(t) for t in "de"])
    cache.put_chunk(one, exchange(), [answer("f")])
    page = cache.page_answers(limit=2)
    assert [a.key for a in page] == [key("a"), key("b")]
    page = cache.page_answers(after_id=page[-1].id, limit=2)
    assert [(a.key, a.task_id) for a in page] == [(key("c"), one), (key("d"), two)]
    assert [a.key for a in cache.page_answers(after_id=page[-1].id)] == [key("e"), key("f")]
    assert [a.key for a in cache.page_answers(after_id=3, task_id=one)] == [key("f")]
    assert cache.page_answers(after_id=6) == []


# --- text that has no UTF-8 form --------------------------------------------------------------------


def test_lone_surrogates_are_replaced_and_never_crash(cache: SqliteCache) -> None:
    odd = "a\ud800b"
    strange = task(prompt=odd, model=odd)
    number = cache.task_id(strange)
    sent = exchange(body=f'{{"é":"x","content":"{odd}"}}', user=f'"{odd}"', reply=odd)
    stored = cache.put_chunk(number, sent, [AnswerRecord(key=key("a"), answer=odd, row_ids=(odd,))])
    assert cache.answers([number]) == {key("a"): "a\ufffdb"}
    assert cache.request(stored).body == '{"é":"x","content":"a\ufffdb"}'
    assert [i for i, _ in cache.similar_tasks(strange, ignoring=())] == [number]
    assert cache.requests_for_row(odd) == [stored]
    assert cache.ids_with_other_text([number], {odd: key("b")}) == {odd}
    cache.put(odd, {"x": odd})
    assert cache.get(odd) == {"x": odd}
    assert cache.seed_rows(None, [odd]).keys() == {odd}
    assert cache.adopt(number, [(odd, key("c"), odd)], "run-1") == {odd}
    cache.save_run("run-1", number, 0.0, None, odd)
