"""Rows, chunks, and the way back from a reply to its rows."""

from __future__ import annotations

import json
import random
from collections.abc import Sequence
from typing import Any
from unicodedata import normalize

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lmsyz.alignment import align, read_results, salvage_results
from lmsyz.errors import MalformedError
from lmsyz.rows import (
    Chunk,
    Rows,
    chunk_positions,
    estimate_tokens,
    make_chunk,
    text_key,
    text_keys,
)


def rows_of(texts: Sequence[str], ids: Sequence[str] | None = None) -> Rows:
    return Rows(texts=texts, keys=[text_key(t) for t in texts], ids=ids)


def chunk_of(n: int, *, ids: bool = True) -> Chunk:
    texts = [f"word{i} opens row number {i} of this chunk, as no other does" for i in range(n)]
    return make_chunk(rows_of(texts, [f"r{i}" for i in range(n)] if ids else None), range(n))


def result(chunk: Chunk, i: int, **fields: Any) -> dict[str, Any]:
    opening = " ".join(json.loads(chunk.user)[i]["input_text"].split()[:8])
    return {"input_id": chunk.wire_ids[i], "input_opening": opening, "n": i, **fields}


# --- keys and chunks --------------------------------------------------------------------------------


def test_a_key_stands_for_text_repetition_and_shape() -> None:
    keys = {
        text_key("a"),
        text_key("b"),
        text_key("a", occurrence=1),
        text_key("a", occurrence=2),
        text_key("a", named_fields=True),
    }
    assert len(keys) == 5
    assert text_key("a", occurrence=1) not in {text_key("a\x001\x000"), text_key("1\x000\x00a")}
    assert text_keys(["a", None, "é"], named_fields=True)[0] == text_key("a", named_fields=True)
    assert text_keys(["a", None, "é"]) == [text_key("a"), b"", text_key("é")]
    assert all(len(k) == 16 for k in keys)
    assert text_key("\ud83d") != text_key("?")


@given(
    lengths=st.lists(st.integers(1, 400), max_size=60),
    size=st.integers(1, 9),
    budget=st.integers(1, 200),
    distinct=st.booleans(),
)
def test_chunks_hold_every_row_once_within_size_and_budget(
    lengths: list[int], size: int, budget: int, distinct: bool
) -> None:
    rows = rows_of([f"{i % 7} " + "x" * n for i, n in enumerate(lengths)])
    chunks = list(
        chunk_positions(rows, range(len(lengths)), size=size, token_budget=budget, distinct_openings=distinct)
    )
    assert sorted(p for chunk in chunks for p in chunk) == list(range(len(lengths)))
    for chunk in chunks:
        cost = sum(estimate_tokens(rows.texts[p] or "") for p in chunk)
        assert 1 <= len(chunk) <= size
        assert cost <= budget or len(chunk) == 1


def test_chunks_come_in_the_seeds_fixed_shuffled_order() -> None:
    rows = rows_of([str(i) for i in range(20)])
    first = [p for chunk in chunk_positions(rows, range(20), size=3, token_budget=999) for p in chunk]
    expected = list(range(20))
    random.Random(42).shuffle(expected)
    assert first == expected != list(range(20))


def test_rows_that_open_alike_never_share_a_chunk_where_echoes_must_tell_them_apart() -> None:
    opening = "the quick brown fox jumps over the lazy "
    rows = rows_of([opening + "dog", opening + "cat", opening + "hen", "another opening altogether"])
    chunks = list(chunk_positions(rows, range(4), size=4, token_budget=999, distinct_openings=True))
    assert len(chunks) == 3
    assert [len(set(c) & {0, 1, 2}) for c in chunks] == [1, 1, 1]


def test_of_thousands_of_rows_that_open_alike_each_is_looked_at_a_few_hundred_times(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    looks = 0

    class Opening(str):
        def __hash__(self) -> int:
            nonlocal looks
            looks += 1
            return super().__hash__()

    monkeypatch.setattr("lmsyz.rows._opening", lambda text: Opening("the same"))
    rows = rows_of([f"Row {i}" for i in range(3_000)])
    chunks = list(chunk_positions(rows, range(3_000), size=20, token_budget=10**6, distinct_openings=True))
    assert sorted(chunks) == [(i,) for i in range(3_000)]
    assert looks < 3_000 * 300


def test_a_chunk_names_rows_by_the_users_ids_or_by_opaque_tags() -> None:
    with_ids, without = chunk_of(3), chunk_of(3, ids=False)
    assert with_ids.wire_ids == ("r0", "r1", "r2")
    assert [row["input_id"] for row in json.loads(without.user)] == list(without.wire_ids)
    assert len(set(without.wire_ids)) == 3
    assert not set(without.wire_ids) & {"0", "1", "2"}


def test_tags_of_equal_texts_in_one_chunk_differ() -> None:
    rows = Rows(texts=["a", "a"], keys=[text_key("a")] * 2)
    assert len(set(make_chunk(rows, [0, 1]).wire_ids)) == 2


def test_named_fields_are_sent_as_an_object() -> None:
    rows = Rows(texts=['{"title":"x","body":null}'], keys=[b"k" * 16], ids=["1"], named_fields=True)
    sent = json.loads(make_chunk(rows, [0]).user)
    assert sent == [{"input_id": "1", "input_text": {"title": "x", "body": None}}]


# --- a reply against its rows -----------------------------------------------------------------------


def test_answers_go_to_their_rows_whatever_their_order() -> None:
    chunk = chunk_of(3)
    found = align([result(chunk, i) for i in (2, 0, 1)], chunk)
    assert found.answers == {0: {"n": 0}, 1: {"n": 1}, 2: {"n": 2}}
    assert not (found.missing)
    assert not (found.duplicated)
    assert not (found.swapped)
    assert not (found.foreign)


def test_missing_duplicated_and_foreign_answers_are_told_apart_and_not_assigned() -> None:
    chunk = chunk_of(4)
    reply = [result(chunk, 0), result(chunk, 1), result(chunk, 1, n=9), {"input_id": "r7", "n": 7}, "text", None]
    found = align(reply, chunk)
    assert found.answers == {0: {"n": 0}}
    assert (found.missing, found.duplicated) == ((2, 3), (1,))
    assert found.foreign == ("r7", "str", "NoneType")


def test_an_id_that_came_back_as_a_number_is_still_the_rows_own() -> None:
    chunk = make_chunk(rows_of(["a", "b"], ["7", "8"]), [0, 1])
    found = align([{"input_id": 7, "n": 1}, {"input_id": True, "n": 2}], chunk)
    assert found.answers == {0: {"n": 1}}
    assert found.missing == (1,)
    halves = make_chunk(rows_of(["a", "b"], ["0.5", "1.5"]), [0, 1])
    assert align([{"input_id": 1.5, "n": 2}], halves).answers == {1: {"n": 2}}


def test_an_id_that_came_back_in_the_other_unicode_form_is_the_rows_own_where_no_other_is_like_it() -> None:
    apart, joined = "Mu\u0308ller.pdf", "M\u00fcller.pdf"
    asked = make_chunk(rows_of(["a", "b"], [apart, "Muller.pdf"]), range(2))
    assert align([{"input_id": joined, "n": 1}], asked).answers == {0: {"n": 1}}
    assert align([{"input_id": joined, "n": 1}, {"input_id": apart, "n": 2}], asked).duplicated == (0,)
    both = make_chunk(rows_of(["a", "b"], [apart, joined]), range(2))
    assert align([{"input_id": joined, "n": 2}, {"input_id": apart, "n": 1}], both).answers == {
        0: {"n": 1},
        1: {"n": 2},
    }
    assert align([{"input_id": joined, "n": 2}], both).answers == {1: {"n": 2}}
    angstrom = make_chunk(rows_of(["a", "b"], ["A\u030a", "\u00c5"]), range(2))
    assert align([{"input_id": "\u212b", "n": 1}], angstrom).foreign == ("\u212b",)


def test_one_answer_without_an_id_belongs_to_the_one_row_asked_and_to_no_other() -> None:
    assert align([{"n": 1}], chunk_of(1)).answers == {0: {"n": 1}}
    assert align([{"n": 1}, {"n": 2}], chunk_of(1)).answers == {}
    assert align([{"n": 1}], chunk_of(2)).answers == {}
    assert align([{"input_id": "other", "n": 1}], chunk_of(1)).answers == {}


def test_swapped_answers_are_caught_by_their_opening_words() -> None:
    chunk = chunk_of(4)
    reply = [result(chunk, i) for i in range(4)]
    reply[1]["input_id"], reply[2]["input_id"] = "r2", "r1"
    assert align(reply, chunk).swapped == ()
    found = align(reply, chunk, verify=True)
    assert found.swapped == (1, 2)
    assert found.answers == {0: {"n": 0}, 3: {"n": 3}}


def test_an_echo_with_a_slip_of_the_pen_still_fits_and_a_missing_one_does_not() -> None:
    chunk = chunk_of(3)
    reply = [result(chunk, i) for i in range(3)]
    reply[0]["input_opening"] = reply[0]["input_opening"].upper().replace("ROW", "RWO") + " this"
    reply[1]["input_opening"] = ""
    del reply[2]["input_opening"]
    found = align(reply, chunk, verify=True)
    assert found.answers == {0: {"n": 0}}
    assert found.swapped == (1, 2)


def test_an_echo_that_fits_another_row_as_well_or_is_a_few_letters_is_no_proof() -> None:
    alike = make_chunk(rows_of(["The same opening", "The same opening", "Something else"], ["a", "b", "c"]), range(3))
    reply = [{"input_id": i, "input_opening": "The same opening"} for i in "ab"]
    assert align(reply, alike, verify=True).swapped == (0, 1)
    close = make_chunk(rows_of([f"Results of the year {i} in full" for i in (2023, 2024)], ["a", "b"]), range(2))
    reply = [{"input_id": "a", "input_opening": "Results of the year 2029 in full"}]
    assert align(reply, close, verify=True).swapped == (0,)
    chunk = chunk_of(2)
    for echo in ("w", "word0", "something else altogether, of the same length"):
        reply = [{"input_id": "r0", "input_opening": echo}]
        assert align(reply, chunk, verify=True).answers == {}, echo


def test_an_echo_fits_in_either_unicode_form() -> None:
    texts = [normalize("NFD", text) for text in ("회사는 배당을 늘렸다", "Đặng Thị Bích")]
    chunk = make_chunk(rows_of(texts, ["a", "b"]), range(2))
    reply = [{"input_id": i, "input_opening": normalize("NFC", text)} for i, text in zip("ab", texts, strict=True)]
    assert align(reply, chunk, verify=True).swapped == ()
    reply[0]["input_id"], reply[1]["input_id"] = "b", "a"
    assert align(reply, chunk, verify=True).swapped == (0, 1)


@pytest.mark.parametrize("n_letters", [8, 12, 16, 30, 60, 120])
def test_an_echo_fits_where_a_script_has_no_spaces_between_words(n_letters: int) -> None:
    texts = [
        "公司董事会今日宣布派发末期股息每股两角并同时回购不超过百分之五的流通股份以回报长期支持公司的全体股东。" * 5,
        "受原材料价格上涨影响该集团上半年净利润同比下降三成管理层预计下半年的经营环境仍将面临较大的不确定性。" * 5,
        "当社は本日開催の取締役会において新工場の建設を決議しましたのでここにお知らせいたします投資額は百億円です。"
        * 5,
    ]
    chunk = make_chunk(rows_of(texts, ["a", "b", "c"]), range(3))
    reply = [{"input_id": i, "input_opening": text[:n_letters]} for i, text in zip("abc", texts, strict=True)]
    assert align(reply, chunk, verify=True).swapped == ()
    reply[0]["input_id"], reply[1]["input_id"] = "b", "a"
    assert align(reply, chunk, verify=True).swapped == (0, 1)


def test_a_row_alone_needs_no_echo() -> None:
    chunk = chunk_of(1)
    assert align([{"input_id": "r0", "n": 0}], chunk, verify=True).answers == {0: {"n": 0}}


@given(data=st.data())
def test_no_answer_is_ever_assigned_to_another_row(data: st.DataObject) -> None:
    n = data.draw(st.integers(1, 6))
    chunk = chunk_of(n, ids=data.draw(st.booleans()))
    truth = {wire_id: i for i, wire_id in enumerate(chunk.wire_ids)}
    ids = st.sampled_from([*chunk.wire_ids, "foreign", 0, 1.5, None, True])
    reply = [{"input_id": i, "of": i} for i in data.draw(st.lists(ids, max_size=10))]
    found = align(reply, chunk)
    for position, answer in found.answers.items():
        assert answer["of"] is None or truth[str(answer["of"])] == position
    placed = [*found.answers, *found.missing, *found.duplicated]
    assert sorted(placed) == list(range(n))


# --- reading a reply --------------------------------------------------------------------------------

ROW = '{"input_id": "1", "n": 3}'


@pytest.mark.parametrize(
    "text",
    [
        f'{{"all_results": [{ROW}]}}',
        f'{{"results": [{ROW}]}}',
        f'{{"all results": {ROW}}}',
        f"[{ROW}]",
        ROW,
        f'```json\n{{"all_results": [{ROW}]}}\n```',
        f"```json\n[{ROW}]\n```",
        f'<think>{{"all_results": []}} no, wait</think>{{"all_results": [{ROW}]}}',
        f'Here you are: {{"all_results": [{ROW}]}} Anything else?',
        f'```json\n{{"all_results": [{ROW}], "of": "<think>"}}\n```',
    ],
)
def test_the_results_are_found_in_what_models_write_around_them(text: str) -> None:
    assert read_results(text) == [{"input_id": "1", "n": 3}]


@pytest.mark.parametrize(
    "text",
    [
        "",
        "I cannot help with that.",
        '{"all_results": [{"input_id": "1", "n": 12',
        '{"all_results": [{"input_id": "1", "n": 3},]}',
        "{'all_results': []}",
        '{"all_results": [{"input_id": "1", "n": NaN}]}',
        '{"tone": "good"}',
        "[" * 100_000,
        '"all_results"',
        f'<think>It may be {{"all_results": [{ROW}]}}, or not',
        f'\n<think>{{"all_results": [{ROW}]}}',
    ],
)
def test_what_is_not_the_json_that_was_asked_for_is_malformed_and_never_repaired(text: str) -> None:
    with pytest.raises(MalformedError):
        read_results(text)


def test_replies_that_are_broken_alike_have_one_cause_wherever_they_broke() -> None:
    causes = set()
    for n in (3, 333_333):
        with pytest.raises(MalformedError) as raised:
            read_results(f'{{"all_results": [{{"input_id": "1", "n": {n}}},]}}')
        causes.add(str(raised.value).partition(" (got ")[0])
    assert len(causes) == 1


def test_a_broken_reply_is_quoted_only_by_its_beginning() -> None:
    with pytest.raises(MalformedError) as raised:
        read_results("I am sorry. " * 1000)
    assert "I am sorry. I am sorry." in str(raised.value)
    assert len(str(raised.value)) < 200


def test_the_results_before_a_cut_are_kept_and_the_cut_one_is_not() -> None:
    whole = '{"all_results": [{"input_id": "1", "results": [1, {"a": 2}]}, {"input_id": "2", "n": 1234}]}'
    first = {"input_id": "1", "results": [1, {"a": 2}]}
    for end in range(len(whole)):
        salvaged = salvage_results(whole[:end])
        assert salvaged in ([], [first], [first, {"input_id": "2", "n": 1234}])
        assert (len(salvaged) == 2) == (end > whole.index("1234}") + 4)
        assert (len(salvaged) >= 1) == (end >= whole.index(', {"input_id": "2"'))
    assert salvage_results("no json") == []
    pretty = json.dumps(json.loads(whole), indent=4).replace("\n", "\r\n").replace("    ", "\t")
    assert salvage_results(pretty[: pretty.index("1234")]) == [first]
    assert salvage_results(f'{{"all_results": [{ROW}, ' + '{"a":' * 100_000) == [{"input_id": "1", "n": 3}]


def test_of_a_draft_and_a_cut_reply_the_draft_is_no_answer() -> None:
    draft, other = 'Draft: {"all_results": [' + ROW + "]}", '{"input_id": "1", "n": 4}'
    assert salvage_results(f'{draft} No. {{"all_results": [{other}, {{"inp') == [{"input_id": "1", "n": 4}]
    assert salvage_results(f'{draft} No. {{"all_results": [{{"inp') == []
    assert salvage_results(f"{draft} These are the") == [{"input_id": "1", "n": 3}]


def test_what_a_model_thought_is_no_answer() -> None:
    draft = '<think>{"all_results":[{"input_id":"a","n":1}]} no'
    assert salvage_results(draft) == []
    assert salvage_results(draft + '</think>{"all_res') == []
    assert salvage_results(draft + '</think>{"all_results":[{"input_id":"a","n":2},') == [{"input_id": "a", "n": 2}]
