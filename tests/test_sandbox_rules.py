"""The rules: what each reads off a text, and that where none applies nothing is made up."""

from __future__ import annotations

import hashlib
import json
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from jsonschema import Draft202012Validator

from lmsyz.sandbox.answers import answer, read_rows
from lmsyz.sandbox.rules import NOTHING, compile_rule
from lmsyz.sandbox.strict import openai_fault
from lmsyz.sandbox.text import text_of

BOUGHT = "Acme Corp. said it will acquire Beta Labs for $1.5 billion on March 3, 2024."
DEAL = f"{BOUGHT} Some 1,200 employees may face layoffs."
HAPPY, SAD, FLAT = "We love it, a great success.", "A terrible loss, everyone is unhappy.", "The meeting is on Monday."


def read(text: Any, name: str, schema: dict[str, Any], *, codebook: str = "") -> Any:
    """Return what the rules say for one field, NOTHING where they say nothing."""
    rule = compile_rule({"type": "object", "properties": {name: schema}, "required": [name]}, codebook=codebook)
    found = rule.one(text_of(text))
    return found if found is NOTHING else found[name]


STRING, NUMBER, INTEGER, BOOLEAN = ({"type": t} for t in ("string", "number", "integer", "boolean"))
MAYBE = {"type": ["string", "null"]}


@pytest.mark.parametrize(
    ("text", "name", "schema", "expected"),
    [
        (DEAL, "amount", STRING, "$1.5 billion"),
        (DEAL, "deal_price", NUMBER, 1_500_000_000),
        (DEAL, "price", INTEGER, 1_500_000_000),
        ("It cost 30 euros and 12,5 million pounds.", "amounts", {"type": "array", "items": NUMBER}, [30, 12_500_000]),
        ("Paid -$3.5m.", "amount", NUMBER, -3_500_000),
        (DEAL, "currency", STRING, "USD"),
        ("Sales rose 12.5% after 3 percent.", "growth", NUMBER, 12.5),
        ("Sales rose 12.5%.", "growth", STRING, "12.5%"),
        ("Sales rose 12.5%.", "share", {"type": "number", "minimum": 0, "maximum": 1}, 0.125),
        (DEAL, "date", STRING, "March 3, 2024"),
        (DEAL, "date", {"type": "string", "format": "date"}, "2024-03-03"),
        ("On 3rd of May 2021.", "day", {"type": "string", "format": "date"}, "2021-05-03"),
        (DEAL, "when", {"type": "string", "format": "date-time"}, "2024-03-03T00:00:00Z"),
        ("It began in 1929 and ended in 1939.", "years", {"type": "array", "items": INTEGER}, [1929, 1939]),
        ("It began in 1929.", "year", STRING, "1929"),
        ("Guidance for Q3 2024 holds.", "quarter", STRING, "Q3 2024"),
        ("We met at 14:30 there.", "time", STRING, "14:30"),
        (DEAL, "acquirer", STRING, "Acme Corp"),
        (DEAL, "target", STRING, "Beta Labs"),
        ("Beta Labs was bought by Gamma Group last year.", "acquirer", STRING, "Gamma Group"),
        (DEAL, "companies", {"type": "array", "items": STRING}, ["Acme Corp.", "Beta Labs"]),
        ("Yesterday Apple reported revenue.", "company", STRING, "Apple"),
        ("Said President Abraham Lincoln to us.", "speaker", STRING, "Abraham Lincoln"),
        ("A plant near Stuttgart in Germany.", "country", STRING, "Germany"),
        ("A plant near Stuttgart.", "location", STRING, "Stuttgart"),
        ("He said “no way” twice.", "quote", STRING, "no way"),
        ("First one. Second one.", "evidence", STRING, "First one."),
        ("First one. Second one.", "evidence_quote", STRING, "First one."),
        ("First one. Second one.", "evidenceQuote", STRING, "First one."),
        ("First one. Second one.", "summary", STRING, "First one."),
        ("Dr. Smith paid. Then left.", "headline", STRING, "Dr. Smith paid."),
        ("Dies ist nicht das Haus und der Hund.", "language", STRING, "de"),
        ("Steel prices. Steel mills. Steel.", "keywords", {"type": "array", "items": STRING, "maxItems": 1}, ["steel"]),
        ("Write to a.b@example.org now.", "email", STRING, "a.b@example.org"),
        ("See https://example.org/x, please.", "url", STRING, "https://example.org/x"),
        ("One two three. Four!", "n_words", INTEGER, 4),
        ("One two three. Four!", "word_count", INTEGER, 4),
        ("One two three. Four!", "words", INTEGER, 4),
        ("One two three. Four!", "n_sentences", INTEGER, 2),
        ("café", "n_characters", INTEGER, 4),
        (DEAL, "n_employees", INTEGER, 1200),
        ("They run twelve stores.", "number_of_stores", INTEGER, 12),
        ("1.2 million new users came.", "users", NUMBER, 1_200_000),
        ("Take 7 of them.", "quantity", {"type": "integer", "description": "number of items"}, NOTHING),
        ("Take 7 of them.", "count", INTEGER, 7),
        ("Price: $3; Sky: sunny", "sky_colour", MAYBE, None),
        ("Price: $3; Sky colour: sunny", "sky_colour", MAYBE, "sunny"),
        ("Paid $9. Price: $3", "price", STRING, "$3"),
        ("Ticket ABC-123 is open.", "ticket", {"type": "string", "pattern": "^[A-Z]{3}-[0-9]+$"}, "ABC-123"),
        ("At 10.0.0.7 again.", "host", {"type": "string", "format": "ipv4"}, "10.0.0.7"),
        (DEAL, "x1", {"type": "string", "description": "The price that was paid, as written."}, "$1.5 billion"),
        ("anything", "version", {"const": "v1"}, "v1"),
        ("anything", "version", {"enum": ["v1"]}, "v1"),
    ],
)
def test_a_field_is_read_by_its_name_type_and_format(
    text: str, name: str, schema: dict[str, Any], expected: Any
) -> None:
    assert read(text, name, schema) == expected


@pytest.mark.parametrize(
    ("text", "values", "expected"),
    [
        (HAPPY, ["positive", "neutral", "negative"], "positive"),
        (SAD, ["positive", "neutral", "negative"], "negative"),
        (FLAT, ["positive", "neutral", "negative"], "neutral"),
        (HAPPY, ["bad", "good"], "good"),
        (FLAT, ["bad", "good"], NOTHING),
        (FLAT, ["bad", "good", None], None),
        (HAPPY, ["very negative", "negative", "neutral", "positive", "very positive"], "very positive"),
        ("It is fine, I suppose, nice.", ["Negative", "Positive"], "Positive"),
        ("A great success and a terrible loss.", ["positive", "negative", "mixed"], "mixed"),
        ("We will tighten and raise rates.", ["hawkish", "dovish", "neutral"], "hawkish"),
        ("Cut rates, ease, support growth.", ["hawkish", "dovish", "neutral"], "dovish"),
        (FLAT, ["hawkish", "dovish", "neutral"], "neutral"),
        (HAPPY, ["hawkish", "dovish"], NOTHING),
    ],
)
def test_words_for_tone_are_chosen_by_vader_or_by_policy_cues(text: str, values: list[Any], expected: Any) -> None:
    assert read(text, "tone", {"enum": values}) == expected


@pytest.mark.parametrize(
    ("name", "schema", "expected"),
    [
        ("sentiment", STRING, "positive"),
        ("sentiment", INTEGER, 1),
        ("score", {"type": "integer", "minimum": 1, "maximum": 5}, 5),
        ("stars", {"enum": [1, 2, 3, 4, 5]}, 5),
        ("is_positive", BOOLEAN, True),
        ("is_negative", BOOLEAN, False),
    ],
)
def test_tone_is_put_on_the_scale_that_the_schema_names(name: str, schema: dict[str, Any], expected: Any) -> None:
    assert read("We love it, love it, a great great success, wonderful!", name, schema) == expected


def test_a_tone_score_is_vaders_compound() -> None:
    from vaderSentiment.vaderSentiment import SentimentIntensityAnalyzer

    assert read(HAPPY, "score", NUMBER) == SentimentIntensityAnalyzer().polarity_scores(HAPPY)["compound"]


TOPICS = ["economy", "war", "public_health", "other"]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("The economy grew.", "economy"),
        ("The war and the economy, the war above all.", "war"),
        ("Public health is a concern.", "public_health"),
        ("A dog barks.", "other"),
    ],
)
def test_an_enum_value_is_chosen_by_its_own_words(text: str, expected: str) -> None:
    assert read(text, "topic", {"enum": TOPICS}) == expected


def test_an_enum_value_is_chosen_by_the_words_of_its_description_or_of_the_codebook() -> None:
    described = {"enum": TOPICS, "description": "economy: jobs, taxes; war: army, battle"}
    assert read("The army marched.", "topic", described) == "war"
    assert (
        read("The army marched.", "topic", {"enum": TOPICS}, codebook="- war: army, battle\n- economy: jobs") == "war"
    )
    of_consts = {"anyOf": [{"const": "a1", "description": "army, battle"}, {"const": "b2", "description": "jobs"}]}
    assert read("More jobs for all.", "code", of_consts) == "b2"


def test_an_enum_without_a_match_and_without_a_word_for_that_is_never_its_first_value() -> None:
    assert read("A dog barks.", "topic", {"enum": ["economy", "war"]}) is NOTHING
    assert read("A dog barks.", "topic", {"enum": ["economy", "war", None]}) is None


@pytest.mark.parametrize(
    ("text", "name", "about", "expected"),
    [
        ("They plan layoffs.", "mentions_layoffs", "", True),
        ("They hire.", "mentions_layoffs", "", False),
        ("There are no layoffs.", "mentions_layoffs", "", False),
        ("A dividend was cut.", "flag", "Whether the text mentions a dividend.", True),
        ("It cost $3.", "has_amount", "", True),
        ("It cost nothing.", "has_amount", "", False),
        ("It cost $3.", "flag", "", NOTHING),
    ],
)
def test_a_boolean_is_whether_its_words_occur_unnegated(text: str, name: str, about: str, expected: Any) -> None:
    assert read(text, name, BOOLEAN | {"description": about}) is expected


def test_yes_and_no_are_a_boolean_in_words() -> None:
    assert read("They plan layoffs.", "layoffs", {"enum": ["yes", "no"]}) == "yes"
    assert read("They hire.", "layoffs", {"enum": ["yes", "no", "unclear"]}) == "no"
    assert read("They hire.", "flag", {"enum": ["yes", "no", "unclear"]}) == "unclear"


def test_a_digest_is_of_the_text_exactly_as_received() -> None:
    text = " Zürich \U0001f600 \u2028 "
    assert read(text, "digest", STRING) == hashlib.sha256(text.encode()).hexdigest()[:16]
    fields = {"title": "Zürich", "n": 3}
    expected = hashlib.sha256(json.dumps(fields, ensure_ascii=False).encode()).hexdigest()[:16]
    assert read(fields, "sha256", STRING) == expected


def test_the_opening_is_the_first_eight_words() -> None:
    assert read("a b\tc  d e f g h i j", "input_opening", STRING) == "a b c d e f g h"


def test_named_fields_are_copied_by_name_and_read_together() -> None:
    fields = {"Company": "Delta", "text": "Paid $4.", "urgent": True, "tone": "positive"}
    assert read(fields, "company", STRING) == "Delta"
    assert read(fields, "amount", STRING) == "$4"
    assert read(fields, "urgent", BOOLEAN) is True
    assert read(fields, "tone", {"enum": ["negative", "positive"]}) == "positive"


def test_bounds_are_kept_or_nothing_is_said() -> None:
    assert read(DEAL, "n_employees", {"type": "integer", "maximum": 1000}) is NOTHING
    assert read(DEAL, "summary", {"type": ["string", "null"], "maxLength": 5}) is None
    assert read("Take 7 of 8.", "count", {"type": "integer", "multipleOf": 2}) is NOTHING
    assert read("", "companies", {"type": "array", "items": STRING}) == []
    assert read("", "companies", {"type": "array", "items": STRING, "minItems": 1}) is NOTHING


def test_what_no_rule_reads_is_null_or_left_out_or_the_whole_is_not_answered() -> None:
    assert read(DEAL, "zodiac", MAYBE) is None
    assert read(DEAL, "zodiac", STRING) is NOTHING
    optional = compile_rule(
        {"type": "object", "properties": {"zodiac": STRING, "amount": STRING}, "required": ["amount"]}
    )
    assert optional.one(text_of(DEAL)) == {"amount": "$1.5 billion"}


def test_a_list_of_objects_has_one_for_each_sentence_in_which_something_is_found() -> None:
    item = {"type": "object", "properties": {"company": MAYBE, "price": MAYBE}, "required": ["company", "price"]}
    text = "Acme Corp. paid $3. Nothing here. Beta Inc sold for 5 euros."
    assert read(text, "deals", {"type": "array", "items": item}) == [
        {"company": "Acme Corp.", "price": "$3"},
        {"company": "Beta Inc", "price": "5 euros"},
    ]


def test_references_allof_and_recursion_are_followed() -> None:
    schema = {
        "$defs": {"money": STRING | {"description": "price"}, "node": {"type": "object", "properties": {}}},
        "type": "object",
        "properties": {
            "a": {"$ref": "#/$defs/money"},
            "b": {"allOf": [{"type": "object", "properties": {"year": INTEGER}, "required": ["year"]}]},
            "again": {"anyOf": [{"$ref": "#"}, {"type": "null"}]},
        },
        "required": ["a", "b"],
    }
    found = compile_rule(schema).one(text_of(DEAL))
    assert found["a"] == "$1.5 billion"
    assert found["b"] == {"year": 2024}
    Draft202012Validator(schema).validate(found)


def test_the_same_text_always_gets_the_same_answer() -> None:
    schema = {"type": "object", "properties": {"tone": STRING, "keywords": {"type": "array", "items": STRING}}}
    assert compile_rule(schema).one(text_of(DEAL)) == compile_rule(schema).one(text_of(str(DEAL)))


ROWS = json.dumps([{"input_id": "r1", "input_text": HAPPY}, {"input_id": 2, "input_text": SAD}])


def test_the_prompts_example_line_names_the_fields_where_no_schema_does() -> None:
    line = {"input_id": "<copied>", "mood": "<one of 'good', 'bad'>", "n_words": "<integer>", "deal": {"price": ""}}
    system = "Judge.\n" + json.dumps({"all_results": [line]})
    found = answer(read_rows(ROWS), ROWS, system, None, wants_json=True)
    assert found.rows == [
        {"input_id": "r1", "mood": "good", "n_words": 6, "deal": None},
        {"input_id": 2, "mood": "bad", "n_words": 6, "deal": None},
    ]


def test_an_example_line_that_is_no_json_still_names_the_fields() -> None:
    found = answer(
        read_rows(ROWS), ROWS, '{"all_results": [{"input_id": ..., "tone": ...}, ...]}', None, wants_json=True
    )
    assert found.rows[1] == {"input_id": 2, "tone": "negative"}


def test_without_schema_and_example_the_fields_are_sentiment_and_summary() -> None:
    found = answer(read_rows(ROWS), ROWS, "Say something.", None, wants_json=True)
    assert found.rows[0] == {"input_id": "r1", "sentiment": "positive", "summary": HAPPY}


def test_a_row_with_a_field_that_must_be_and_cannot_is_left_out() -> None:
    item = {
        "type": "object",
        "properties": {"input_id": STRING, "amount": STRING},
        "required": ["input_id", "amount"],
        "additionalProperties": False,
    }
    schema = {"type": "object", "properties": {"all_results": {"type": "array", "items": item}}}
    user = json.dumps([{"input_id": "a", "input_text": "Paid $3."}, {"input_id": "b", "input_text": "Nothing."}])
    found = answer(read_rows(user), user, "", schema, wants_json=True)
    assert (found.rows, found.n_unanswered) == ([{"input_id": "a", "amount": "$3"}], 1)


def test_what_a_schema_asks_for_beside_the_rows_is_answered_from_the_whole_message() -> None:
    item = {"type": "object", "properties": {"input_id": STRING, "tone": STRING}, "required": ["input_id", "tone"]}
    schema = {
        "type": "object",
        "properties": {"language": STRING, "all_results": {"type": "array", "items": item}},
        "required": ["language", "all_results"],
    }
    found = answer(read_rows(ROWS), ROWS, "", schema, wants_json=True)
    assert found.beside == {"language": "en"}
    assert len(found.rows) == 2


def test_what_only_looks_like_rows_is_answered_as_a_whole() -> None:
    for user in ("[1, 2]", '[{"input_id": "a"}]', 'about "input_id" [ and more', "plain"):
        assert read_rows(user) == []
    schema = {"type": "object", "properties": {"language": STRING}, "required": ["language"]}
    assert answer([], "This is the text of it.", "", schema, wants_json=True).whole == {"language": "en"}


SCALARS = st.sampled_from(
    [
        STRING,
        NUMBER,
        INTEGER,
        BOOLEAN,
        {"type": "string", "format": "date"},
        {"type": "number", "minimum": 0, "maximum": 10},
        {"type": "integer", "exclusiveMinimum": 3, "multipleOf": 2},
        {"type": "string", "pattern": "^[A-Z][a-z]+$"},
        {"enum": ["positive", "neutral", "negative"]},
        {"enum": ["economy", "war", "other"]},
        {"type": "integer", "enum": [1, 2, 3]},
        {"const": "fixed"},
    ]
)
WORDS = "amount price date year score tone company quote summary count n_words is_risky mentions_war zodiac x items"
NAMES = st.sampled_from(WORDS.split())


def objects(children: st.SearchStrategy[dict[str, Any]]) -> st.SearchStrategy[dict[str, Any]]:
    return st.dictionaries(NAMES, children, min_size=1, max_size=4).map(
        lambda p: {"type": "object", "properties": p, "required": list(p), "additionalProperties": False}
    )


SCHEMAS = st.recursive(
    SCALARS,
    lambda inner: (
        st.builds(lambda s: {"anyOf": [s, {"type": "null"}]}, inner)
        | st.builds(
            lambda s, low: {"type": "array", "items": s, "minItems": low, "maxItems": 3}, inner, st.integers(0, 1)
        )
        | objects(inner)
    ),
    max_leaves=8,
)


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    schema=objects(SCHEMAS),
    text=st.sampled_from([DEAL, HAPPY, SAD, FLAT, "", "12 wars cost 5% in 1914: $2."]) | st.text(),
)
def test_any_small_strict_schema_gets_a_valid_answer_or_none(schema: dict[str, Any], text: str) -> None:
    assert openai_fault(schema) is None
    validator = Draft202012Validator(schema)
    raw = compile_rule(schema).one(text_of(text))
    assert raw is NOTHING or validator.is_valid(raw)
    found = answer([], text, "", schema, wants_json=True)
    assert found.n_unanswered or validator.is_valid(found.whole)
