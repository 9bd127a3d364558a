"""The panel's HTML: escaped, counted, readable without colour."""

from __future__ import annotations

from typing import Any

import pandas as pd
import pytest

import lmsyz
from lmsyz.draft import Draft
from lmsyz.widgets import look

HOSTILE = "<img src=x onerror=\"alert('x')\">"


def test_a_value_is_safe_inside_text_and_inside_an_attribute():
    assert look.esc('<a href="x">\'') == "&lt;a href=&quot;x&quot;&gt;&#x27;"


@pytest.mark.parametrize(
    "made",
    [
        look.facts([(HOSTILE, HOSTILE)]),
        look.table([HOSTILE], [[HOSTILE]], caption=HOSTILE),
        look.stacked_bar([(HOSTILE, 3, HOSTILE)], 4, label=HOSTILE),
        look.heading(HOSTILE),
        look.note(HOSTILE, role=HOSTILE),
        look.page(HOSTILE, HOSTILE),  # type: ignore[arg-type]
    ],
)
def test_every_builder_escapes_what_it_is_given(made):
    assert isinstance(made, look.Html)
    assert "<img" not in made
    assert "&lt;img" in made


def test_what_a_builder_made_is_put_into_another_as_it_stands():
    assert "<table" in look.page("title", look.facts([("a", look.note("b"))]))
    assert "&lt;div" not in look.facts([("a", look.note("b"))])


def test_dollar_signs_are_not_set_as_formulas_in_anything_that_a_notebook_shows(sandbox_default: Any) -> None:
    df = pd.DataFrame({"text": ["It fell from $5 to $6."]})
    df.ie.extract("Name what costs $5.", schema={"thing": str | None})
    job = df.ie.batch("Name what costs $6.", schema={"thing": str | None})
    shown = [
        look.page("from $5 to $6"),
        lmsyz.last_run()._repr_html_(),
        job._repr_html_(),
        job.status()._repr_html_(),
        Draft("Name what costs $5 or $6.", None, "m", 0.01)._repr_html_(),
        sandbox_default._repr_html_(),
        lmsyz.panel("lmsyz_cache.sqlite")._repr_mimebundle_()["text/html"],
    ]
    for html in shown:
        assert html.startswith('<div class="mathjax_ignore tex2jax_ignore"'), html


def test_a_page_has_its_own_look():
    assert 'tex2jax_ignore" style="' in look.page("title")


def test_numbers_stand_right_with_separators_and_flags_do_not():
    made = look.table(["n"], [[1234567], [True]])
    assert "text-align:right" in made
    assert "1,234,567" in made
    assert made.count("text-align:right") == 1


def test_a_bar_is_named_and_counted_beside_its_colours():
    bar = look.stacked_bar(
        [("cached", 1500, "cached"), ("failed", 500, "bad"), ("refused", 0, "warn")], 4000, label="Rows"
    )
    assert 'aria-label="Rows: 1,500 cached, 500 failed"' in bar
    assert "width:37.500%" in bar
    assert "refused" not in bar


def test_a_bar_never_grows_beyond_its_frame():
    assert "width:100.000%" in look.stacked_bar([("ok", 9, "ok")], 3, label="Rows")
    assert "nothing yet" in look.stacked_bar([], 0, label="Rows")


def test_a_text_table_lines_up_and_keeps_a_cell_on_one_line():
    made = look.text_table(["state", "rows"], [["ok", 1200], ["a\nb", 3]])
    assert made.splitlines() == ["state   rows", "ok     1,200", "a b        3"]
    assert look.text_table(["state"], []) == "state"


def test_a_text_table_lets_no_control_character_reach_the_terminal() -> None:
    made = look.text_table(["prompt"], [["a\x1b[31m\x07 ä\u202e"]])
    assert made.splitlines() == ["prompt", "a�[31m� ä�"]


def test_blocks_joined_are_html_only_where_a_builder_made_them() -> None:
    shown = look.joined(look.note("fine"), "<script>", look.Html("<b>made</b>"))
    assert isinstance(shown, look.Html)
    assert "&lt;script&gt;<b>made</b>" in shown
    assert "<script>" not in shown


def test_a_share_that_is_not_nothing_is_not_called_nothing() -> None:
    bar = look.stacked_bar([("ok", 999, "ok"), ("refused", 1, "bad"), ("failed", 0, "bad")], 1000, label="Rows")
    assert "<b>1</b> (&lt;1%)" in bar
    assert "<b>999</b> (100%)" in bar
    assert "&lt;1%" in look.stacked_bar([("refused", 10, "bad"), ("ok", 1990, "ok")], 2000, label="Rows")
