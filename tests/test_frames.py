"""From a frame to rows, and from answers to a typed frame with the same index."""

from __future__ import annotations

import datetime
import json
from typing import Any

import numpy as np
import pandas as pd
import pytest

from lmsyz.errors import UsageError
from lmsyz.frame_rows import DataFrameIterator, read_rows
from lmsyz.frames import answers_frame, errors_frame
from lmsyz.rows import Rows
from lmsyz.schema import read_schema

INDEXES = {
    "unsorted": pd.Index([5, 1, 3]),
    "strings": pd.Index(["b", "a", "c"], name="firm"),
    "dates": pd.DatetimeIndex(["2024-01-03", "2024-01-01", "2024-01-02"], name="day"),
    "duplicated": pd.Index([7, 7, 7]),
    "multi": pd.MultiIndex.from_tuples([("x", 1), ("x", 2), ("x", 1)], names=["firm", "year"]),
    "missing labels": pd.Index([1.5, np.nan, np.nan]),
    "range": pd.RangeIndex(3),
}
KEYS_OF_TEXTS = [
    "aedc3f80989a6546962705852b2f4a48",
    "ca978112ca1bbdcafac231b39a23dc4d",
    "9743e73f53ac73efb2b066de647f3324",
]
KEYS_OF_NAMED = [
    "b12c303513f3c9603580d5b706396d3e",
    "4711c5dc82480dc5c5bb0c59ad08b4e2",
    "9ccfb31665598d936ad0f6053346a0cd",
]


def frame_of(rows: Rows, index: pd.Index, answers: list[Any], schema: Any = None) -> pd.DataFrame:
    stored = {k: json.dumps(a) for k, a in zip(rows.keys, answers, strict=True) if k and a is not None}
    return answers_frame(index, rows, stored, {}, read_schema(schema))


# --- reading ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("null", [None, np.nan, pd.NA, pd.NaT, "", " \n\t", " "])
def test_a_null_or_blank_text_has_no_key_and_is_not_sent(null: Any) -> None:
    rows = read_rows(pd.DataFrame({"text": ["a", null]}, dtype=object), "text")
    assert rows.texts == ["a", None]
    assert rows.keys[1] == b""


@pytest.mark.parametrize("dtype", [object, "string", "category", "str"])
def test_text_columns_of_every_kind_are_read_alike(dtype: Any) -> None:
    if dtype == "str" and pd.__version__ < "3":
        pytest.skip("pandas 2 has no str dtype of its own")
    rows = read_rows(pd.DataFrame({"text": pd.Series(["a", None, "b"], dtype=dtype)}), "text")
    assert rows.texts == ["a", None, "b"]


@pytest.mark.parametrize("columns", [pd.Index(["a", "b"]), np.array(["a", "b"]), pd.Series(["a"]), {"a"}])
def test_what_is_neither_a_columns_name_nor_a_list_of_names_is_refused(columns: Any) -> None:
    df = pd.DataFrame({"a": ["x"], "b": ["y"]})
    with pytest.raises(UsageError, match=r"text_col= is a column's name or a list of names, as list\(columns\); got a"):
        read_rows(df, columns)
    with pytest.raises(UsageError, match=r"id_col= is a column's name; got a"):
        read_rows(df, "a", columns)


def test_values_that_are_no_text_are_sent_as_text() -> None:
    day = datetime.date(2024, 1, 2)
    values = [1, 2.5, True, day, ["a", 1], {"k": "é"}, "\ud83d", [day], ("a", None), np.array([1, 2])]
    rows = read_rows(pd.DataFrame({"text": pd.Series(values, dtype=object)}), "text")
    assert rows.texts[:7] == ["1", "2.5", "True", "2024-01-02", '["a", 1]', '{"k": "é"}', "�"]
    assert rows.texts[7:] == ['["2024-01-02"]', "('a', None)", "[1, 2]"]


def test_equal_texts_share_a_key_unless_each_is_asked_on_its_own() -> None:
    df = pd.DataFrame({"text": ["a", "b", "a", None, "a", " "]})
    for column in ("text", ["text"]):
        together, apart = read_rows(df, column).keys, read_rows(df, column, dedupe=False).keys
        assert together[0] == together[2] == together[4] != together[1]
        assert len({*apart[:3], apart[4]}) == 4
        assert apart[:2] == together[:2], "so that what is stored of them is found either way"
        assert apart[3] == apart[5] == together[3] == b""


def test_a_text_has_the_key_under_which_the_answers_of_earlier_versions_are_stored() -> None:
    df = pd.DataFrame({"text": ["Größe", "a", "a"], "n": [1, 2, 2]})
    assert [k.hex() for k in read_rows(df, "text", dedupe=False).keys] == KEYS_OF_TEXTS
    assert [k.hex() for k in read_rows(df, ["text", "n"], dedupe=False).keys] == KEYS_OF_NAMED


def test_several_columns_are_sent_as_named_fields() -> None:
    df = pd.DataFrame({"title": ["t", None, None], "body": ["b", "b2", " "], 3: [1, 2, None]}, dtype=object)
    rows = read_rows(df, ["title", "body", 3])
    assert rows.named_fields
    assert [t and json.loads(t) for t in rows.texts] == [
        {"title": "t", "body": "b", "3": "1"},
        {"title": None, "body": "b2", "3": "2"},
        None,
    ]
    assert read_rows(df, ["body"]).keys[0] != read_rows(df, "body").keys[0]


@pytest.mark.parametrize(
    ("column", "words"),
    [
        ("headline", "has no column 'headline'; it has 'id', 'text'. Say which one with text_col="),
        (["text", "nope"], "has no column 'nope'"),
        ([], "names no column"),
        ([1, "1"], "names a column twice after str"),
    ],
)
def test_a_missing_text_column_is_named_with_those_there_are(column: Any, words: str) -> None:
    with pytest.raises(UsageError, match=words):
        read_rows(pd.DataFrame({"id": [1], "text": ["a"]}), column)


def test_of_a_frame_without_columns_it_is_said_that_there_are_none() -> None:
    with pytest.raises(UsageError, match="has no column 'text'; it has none"):
        read_rows(pd.DataFrame(index=[0, 1]), "text")


def test_a_text_column_that_is_there_twice_is_refused() -> None:
    df = pd.DataFrame([["a", "b"]], columns=["text", "text"])
    with pytest.raises(UsageError, match="2 columns called 'text'"):
        read_rows(df, "text")


@pytest.mark.parametrize(
    ("ids", "words"),
    [
        ([1, None, 3], "null in 1 of 3 rows .first at positions 1."),
        (["a", " ", "b"], "blank in 1 rows .first at positions 1."),
        (["\ud800", "\ud801"], "1 ids more than once"),
        ([1, "1", 2], "1 ids more than once after str.. .first: '1'."),
        ([*"abcdefg", *"abcdefg"], "7 ids more than once .*first: 'a', 'b', 'c', 'd', 'e'\\)"),
    ],
)
def test_bad_ids_are_refused_by_name(ids: list[Any], words: str) -> None:
    df = pd.DataFrame({"id": pd.Series(ids, dtype=object), "text": "x"})
    with pytest.raises(UsageError, match=words):
        read_rows(df, "text", "id")


def test_ids_are_kept_as_text() -> None:
    assert read_rows(pd.DataFrame({"id": [3, 1], "text": ["a", "b"]}), "text", "id").ids == ["3", "1"]


# --- answers ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("index", INDEXES.values(), ids=INDEXES.keys())
def test_the_answers_have_the_index_order_and_length_of_the_frame(index: pd.Index) -> None:
    df = pd.DataFrame({"text": ["c", "a", "c"]}, index=index)
    out = frame_of(read_rows(df, "text"), index, [{"n": 3}, {"n": 1}, {"n": 3}], {"n": int})
    pd.testing.assert_index_equal(out.index, index, exact=True)
    assert out["n"].tolist() == [3, 1, 3]
    assert list(out.columns) == ["n", "ie_error"]
    assert len(df.join(out)) >= 3


def test_columns_are_typed_by_the_schema_with_and_without_rows() -> None:
    schema = {
        "tone": ["good", "bad"],
        "n": int,
        "x": float,
        "ok": bool,
        "s": str,
        "tags": [str],
        "who": {"name": str},
        "level": [1, 2, 3],
    }
    answer = {
        "tone": "bad",
        "n": 2**60 + 1,
        "x": 1.0,
        "ok": True,
        "s": "é",
        "tags": ["a"],
        "who": {"name": "b"},
        "level": 2,
    }
    wanted = ["category", "Int64", "Float64", "boolean", "string", "object", "object", "category", "string"]
    df = pd.DataFrame({"text": ["a", "b"]})
    for part, answers in ((df, [answer, None]), (df.iloc[:0], [])):
        out = frame_of(read_rows(part, "text"), part.index, answers, schema)
        assert [str(d) for d in out.dtypes] == wanted
        assert list(out["tone"].cat.categories) == ["good", "bad"]
    out = frame_of(read_rows(df, "text"), df.index, [answer, None], schema)
    assert out.loc[0, "n"] == 2**60 + 1
    assert out.loc[1, ["n", "x", "ok", "s"]].isna().all()
    assert pd.isna(out.loc[1, "tone"])
    assert out["tags"].tolist() == [["a"], None]


def test_without_a_schema_types_are_drawn_from_the_answers() -> None:
    df = pd.DataFrame({"text": list("abc")})
    answers = [{"i": 1, "f": 1, "b": True, "s": "x", "m": 1}, {"i": None, "f": 2.5, "m": "y"}, {"big": 2**70}]
    out = frame_of(read_rows(df, "text"), df.index, answers)
    dtypes = {name: str(dtype) for name, dtype in out.dtypes.items()}
    assert dtypes == {
        "i": "Int64",
        "f": "Float64",
        "b": "boolean",
        "s": "string",
        "m": "object",
        "big": "object",
        "ie_error": "string",
    }
    assert out.loc[2, "big"] == 2**70


def test_an_integer_beyond_64_bits_is_kept_rather_than_rounded() -> None:
    df = pd.DataFrame({"text": ["a"]})
    out = frame_of(read_rows(df, "text"), df.index, [{"n": 2**70}], {"n": int})
    assert out["n"].tolist() == [2**70]


def test_a_models_own_ie_error_field_does_not_hide_ours() -> None:
    df = pd.DataFrame({"text": ["a"]})
    out = frame_of(read_rows(df, "text"), df.index, [{"ie_error": "mine"}])
    assert out.columns.tolist() == ["ie_error_", "ie_error"]
    assert out["ie_error"].isna().all()


def test_a_field_named_like_the_stand_in_for_ie_error_loses_nothing() -> None:
    df = pd.DataFrame({"text": ["a"]})
    out = frame_of(read_rows(df, "text"), df.index, [{"ie_error": "mine", "ie_error_": "theirs"}])
    assert out.iloc[0, :2].to_dict() == {"ie_error__": "mine", "ie_error_": "theirs"}
    assert out.columns[-1] == "ie_error"


@pytest.mark.parametrize("n", [2**53 + 1, 10**400])
def test_without_a_schema_a_large_integer_beside_a_float_is_not_rounded(n: int) -> None:
    df = pd.DataFrame({"text": ["a", "b"]})
    out = frame_of(read_rows(df, "text"), df.index, [{"n": n}, {"n": 1.5}])
    assert out["n"].tolist() == [n, 1.5]


def test_ie_error_is_na_for_good_rows_and_says_why_for_the_others() -> None:
    df = pd.DataFrame({"text": ["a", None, "b", "c"]})
    rows = read_rows(df, "text")
    out = answers_frame(df.index, rows, {rows.keys[0]: "{}"}, {rows.keys[2]: "refused: x"}, None)
    assert out["ie_error"].isna().tolist() == [True, False, False, False]
    assert out["ie_error"].tolist()[1:] == ["invalid: empty text", "refused: x", "pending: no answer yet"]


@pytest.mark.parametrize("index", INDEXES.values(), ids=INDEXES.keys())
def test_the_errors_frame_lists_the_rows_without_an_answer_at_their_own_index(index: pd.Index) -> None:
    df = pd.DataFrame({"id": ["x", "y", "z"], "text": ["a", "b", None]}, index=index)
    rows = read_rows(df, "text", "id")
    out = errors_frame(index, rows, {rows.keys[0]: "{}"}, {rows.keys[1]: "refused: it would not"})
    pd.testing.assert_index_equal(out.index, index[[1, 2]])
    assert out["position"].tolist() == [1, 2]
    assert out["row_id"].tolist() == ["y", "z"]
    assert out["kind"].tolist() == ["refused", "invalid"]
    none = errors_frame(index, rows, dict.fromkeys(rows.keys, "{}"), {})
    assert none.empty
    assert none.columns.tolist() == out.columns.tolist()


def test_thousands_of_answers_come_back_in_their_own_rows() -> None:
    df = pd.DataFrame({"text": [str(i) for i in range(5001)]})
    out = frame_of(read_rows(df, "text"), df.index, [{"n": i} if i % 3 else None for i in range(5001)], {"n": int})
    assert [None if pd.isna(v) else int(v) for v in out["n"]] == [i if i % 3 else None for i in range(5001)]


# --- the seed's iterator ----------------------------------------------------------------------------


def test_the_seeds_iterator_gives_chunks_of_dicts() -> None:
    df = pd.DataFrame({"id": [1, 2, 3], "text": ["a", "b", "c"]})
    chunks = DataFrameIterator(df, "id", "text", chunk_size=2)
    assert list(chunks) == [
        [{"input_id": "1", "input_text": "a"}, {"input_id": "2", "input_text": "b"}],
        [{"input_id": "3", "input_text": "c"}],
    ]
    assert len(chunks) == 2
    assert list(DataFrameIterator(df.iloc[:0], "id", "text")) == []
    six = pd.DataFrame({"id": range(6), "text": "a"})
    assert [len(chunk) for chunk in DataFrameIterator(six, "id", "text")] == [5, 1]


def test_the_seeds_iterator_takes_other_names_and_texts_that_are_none() -> None:
    df = pd.DataFrame({"id": [1, 2], "text": [10, 2.5]})
    chunks = DataFrameIterator(df, "id", "text", 2, "row", "body")
    assert list(chunks) == [[{"row": "1", "body": "10.0"}, {"row": "2", "body": "2.5"}]]
    assert len(chunks) == 1


@pytest.mark.parametrize(
    ("about", "words"),
    [
        ({"chunk_size": 0}, "chunk_size must be"),
        ({"chunk_size": True}, "chunk_size must be"),
        ({"text_col": "no"}, "has no column 'no'.*text_col="),
        ({"id_col": "no"}, "has no column 'no'.*id_col="),
        ({"id_col": "twice"}, "1 ids more than once"),
    ],
    ids=str,
)
def test_the_seeds_iterator_refuses_what_extract_refuses(about: dict[str, Any], words: str) -> None:
    df = pd.DataFrame({"id": [1, 2], "text": ["a", "b"], "twice": [1, 1]})
    with pytest.raises(UsageError, match=words):
        DataFrameIterator(df, **({"id_col": "id", "text_col": "text"} | about))


def test_an_array_is_the_text_that_its_list_is_and_whole() -> None:
    words = [f"word {i}" for i in range(1500)]
    values = [words, np.array(words), np.array(words, dtype=object), np.array(5), [np.array(words)]]
    rows = read_rows(pd.DataFrame({"text": pd.Series(values, dtype=object)}), "text")
    assert rows.texts == [json.dumps(words)] * 3 + ["5", json.dumps([words])]
