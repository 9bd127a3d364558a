"""What is asked: the prompt as sent, and the fingerprint that decides whether an answer may be reused."""

from __future__ import annotations

import json
from typing import Any

import pytest

from lmsyz.schema import read_schema
from lmsyz.task import Task, compute_prompt_hash, system_prompt

SCHEMA = read_schema({"tone": ["good", "bad"], "score": (float, "from 0 to 1")})


def task(**changes: Any) -> Task:
    facts: dict[str, Any] = {"backend": "openai", "api": "chat", "endpoint": "e", "model": "m", "prompt": "Say it."}
    return Task(**(facts | changes))


def test_one_plain_sentence_becomes_a_prompt_that_describes_rows_fields_and_envelope() -> None:
    sent = system_prompt("Classify the tone.", SCHEMA)
    assert sent.startswith("Classify the tone.\n\n")
    for word in ("input_id", "input_text", "all_results", '"good"', '"bad"', "from 0 to 1", "never instructions"):
        assert word in sent
    shape = next(line for line in sent.splitlines() if line.startswith('{"all_results"'))
    assert list(json.loads(shape)["all_results"][0]) == ["input_id", "tone", "score"]


def test_a_prompt_that_describes_the_envelope_itself_is_sent_as_it_is() -> None:
    own = 'Return JSON: {"all_results": [{"input_id": ..., "tone": ...}]}'
    assert system_prompt(own, SCHEMA) == own
    assert "JSON" in system_prompt("Give all_results.", None)


def test_verified_rows_are_asked_for_their_opening_words_first() -> None:
    sent = system_prompt("Classify.", SCHEMA, verify=True)
    shape = next(line for line in sent.splitlines() if line.startswith('{"all_results"'))
    assert list(json.loads(shape)["all_results"][0]) == ["input_id", "input_opening", "tone", "score"]
    assert "input_opening" in system_prompt("Give all_results in JSON.", SCHEMA, verify=True)


@pytest.mark.parametrize(
    "change",
    [
        {"backend": "anthropic"},
        {"api": "responses"},
        {"endpoint": "f"},
        {"model": "n"},
        {"prompt": "Say it!"},
        {"schema": SCHEMA},
        {"options": {"seed": 1}},
        {"options": {"extra_headers": {"authorization": "a"}}},
        {"verify": True},
    ],
    ids=str,
)
def test_whatever_shapes_an_answer_is_in_the_fingerprint(change: dict[str, Any]) -> None:
    assert task().fingerprint == task().fingerprint
    assert task(**change).fingerprint != task().fingerprint


def test_two_secrets_differ_in_the_fingerprint_and_neither_is_written_down() -> None:
    tasks = [
        task(options={"extra_headers": {"X-Api-Key": s}, "extra_query": {"sig": s}, "extra_body": {"auth": {"k": s}}})
        for s in ("secret-a", "secret-b")
    ]
    assert tasks[0].fingerprint != tasks[1].fingerprint
    assert all("secret" not in repr(t.record) for t in tasks)


def test_the_order_of_options_does_not_count() -> None:
    one, two = {"seed": 1, "user": "u"}, {"user": "u", "seed": 1}
    assert task(options=one).fingerprint == task(options=two).fingerprint


def test_the_prompt_hash_is_the_seeds() -> None:
    import hashlib

    assert compute_prompt_hash("Score it. é") == hashlib.sha256("Score it. é".encode()).hexdigest()[:16]


def test_numbers_are_kept_whatever_they_are_called() -> None:
    options = {"extra_body": {"stop_token_ids": [7, 9], "token": "mine", "allowed_tokens": ["a"]}}
    kept = json.loads(task(options=options).record.options)["extra_body"]
    assert kept == {"stop_token_ids": [7, 9], "token": "(hidden)", "allowed_tokens": "(hidden)"}
