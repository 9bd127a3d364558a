"""Which way of asking works at an endpoint, found out once and remembered."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import pytest
from scripted_server import task_of

from lmsyz.ladder import Ladder, forget_forms
from lmsyz.providers.base import Form
from lmsyz.task import Task

FORMS = (Form.SCHEMA, Form.TOOL, Form.OBJECT, Form.TEXT)


@pytest.fixture(autouse=True)
def _a_new_kernel() -> Iterator[None]:
    forget_forms()
    yield
    forget_forms()


@pytest.fixture
def task() -> Task:
    return task_of("openai", schema={"tone": ["good", "bad"]})


def test_the_strictest_form_is_tried_first(task: Task) -> None:
    assert Ladder(task, FORMS).form is Form.SCHEMA


def test_a_refused_form_steps_down_at_once_and_the_last_has_nowhere_to_go(task: Task) -> None:
    ladder = Ladder(task, FORMS)
    steps = []
    while ladder.refused(form := ladder.form):
        steps.append((form, ladder.form))
    assert [new for _, new in steps] == list(FORMS[1:])
    assert ladder.form is Form.TEXT


def test_an_ignored_form_steps_down_after_two_replies_that_cannot_be_read(task: Task) -> None:
    ladder = Ladder(task, FORMS)
    ladder.unreadable(Form.SCHEMA)
    assert ladder.form is Form.SCHEMA
    ladder.unreadable(Form.SCHEMA)
    assert ladder.form is Form.TOOL
    ladder.unreadable(Form.TOOL)
    assert ladder.form is Form.TOOL


def test_a_form_that_worked_once_is_not_left_for_a_few_bad_replies(task: Task) -> None:
    ladder = Ladder(task, FORMS)
    ladder.unreadable(Form.SCHEMA)
    ladder.worked(Form.SCHEMA)
    for _ in range(10):
        ladder.unreadable(Form.SCHEMA)
    assert ladder.form is Form.SCHEMA


def test_a_form_that_worked_is_left_when_the_server_refuses_it(task: Task) -> None:
    ladder = Ladder(task, FORMS)
    ladder.worked(Form.SCHEMA)
    assert ladder.refused(Form.SCHEMA)
    assert ladder.form is Form.TOOL


def test_a_late_word_on_a_form_that_is_left_already_changes_nothing(task: Task) -> None:
    ladder = Ladder(task, FORMS)
    ladder.refused(Form.SCHEMA)
    assert ladder.refused(Form.SCHEMA)
    ladder.unreadable(Form.SCHEMA)
    ladder.unreadable(Form.SCHEMA)
    ladder.worked(Form.SCHEMA)
    assert ladder.form is Form.TOOL
    assert Ladder(task, FORMS).form is Form.SCHEMA


def test_many_workers_refused_at_once_step_down_once(task: Task) -> None:
    ladder = Ladder(task, FORMS)
    with ThreadPoolExecutor(8) as pool:
        assert all(pool.map(ladder.refused, [Form.SCHEMA] * 64))
    assert ladder.form is Form.TOOL


def test_what_worked_is_where_the_next_run_begins(task: Task) -> None:
    first = Ladder(task, FORMS)
    first.refused(Form.SCHEMA)
    first.worked(Form.TOOL)
    again = Ladder(task, FORMS)
    assert again.form is Form.TOOL
    again.unreadable(Form.TOOL)
    again.unreadable(Form.TOOL)
    assert again.form is Form.TOOL


def test_a_form_that_only_was_not_refused_is_not_remembered(task: Task) -> None:
    Ladder(task, FORMS).refused(Form.SCHEMA)
    assert Ladder(task, FORMS).form is Form.SCHEMA


@pytest.mark.parametrize(
    "other",
    [
        {"model": "another"},
        {"endpoint": "http://127.0.0.2"},
        {"api": "responses"},
        {"schema": task_of("openai", schema={"n": int}).schema},
    ],
)
def test_another_model_place_or_schema_is_another_question(task: Task, other: dict[str, object]) -> None:
    ladder = Ladder(task, FORMS)
    ladder.refused(Form.SCHEMA)
    ladder.worked(Form.TOOL)
    assert Ladder(replace(task, **other), FORMS).form is Form.SCHEMA


def test_a_remembered_form_that_is_not_offered_any_more_is_passed_over(task: Task) -> None:
    ladder = Ladder(task, FORMS)
    ladder.refused(Form.SCHEMA)
    ladder.worked(Form.TOOL)
    assert Ladder(task, (Form.SCHEMA, Form.TEXT)).form is Form.SCHEMA
