"""The report of a run: the same facts as text and as HTML."""

from __future__ import annotations

import html
from typing import TYPE_CHECKING

from lmsyz.html_block import html_block
from lmsyz.long_rows import parts_words
from lmsyz.report import Counts

if TYPE_CHECKING:
    from lmsyz.run import Run

__all__ = ["dollars", "number", "reasons_words", "run_html", "run_line", "run_text"]

Reasons = list[tuple[str, tuple[int, tuple[str, ...]]]]


def run_text(run: Run) -> str:
    """Return the report as lines of text."""
    lines = [f"<lmsyz run {run.run_id}: {run_line(run.counts)}>"]
    lines += [f"  {name}: {value}" for name, value in _facts(run)]
    lines += [f"  {n:,} x {reason}{_eg(n, examples)}" for reason, (n, examples) in _top_reasons(run.counts)]
    return "\n".join(lines)


def run_html(run: Run) -> str:
    """Return the report as a small table; everything in it is escaped, since some of it came from a model."""
    rows = "".join(
        f'<tr><th style="text-align:left">{html.escape(name)}</th>'
        f'<td style="text-align:left">{html.escape(value)}</td></tr>'
        for name, value in _facts(run)
    )
    errors = "".join(
        f"<li>{html.escape(f'{n:,} × {reason}{_eg(n, examples)}')}</li>"
        for reason, (n, examples) in _top_reasons(run.counts)
    )
    title = html.escape(f"lmsyz run {run.run_id}: {run_line(run.counts)}")
    return html_block(f"<b>{title}</b><table>{rows}</table>{f'<ul>{errors}</ul>' if errors else ''}")


def run_line(counts: Counts) -> str:
    """Return in one line how many rows are where."""
    parts = [
        f"{counts.n_rows:,} rows",
        f"{counts.n_cached:,} cached",
        f"{counts.n_ok:,} answered",
        f"{sum(counts.n_failed.values()):,} without answer",
    ]
    if counts.n_waiting:
        parts.append(f"{counts.n_waiting:,} waiting")
    return f"{', '.join(parts)} ({counts.how})"


def reasons_words(counts: Counts) -> str:
    """Return the most frequent reasons of rows without an answer, with examples."""
    return "; ".join(f"{n:,} {reason}{_eg(n, examples)}" for reason, (n, examples) in _top_reasons(counts, 3))


def dollars(value: float | None) -> str:
    """Return a cost as words; an unknown one is never shown as 0."""
    return "<NA> (price unknown)" if value is None else f"${value:,.4f}"


def number(value: int | None) -> str:
    """Return a number as words."""
    return "<NA>" if value is None else f"{value:,}"


def _facts(run: Run) -> list[tuple[str, str]]:
    c = run.counts
    asked = f"{run.task.model} at {run.task.endpoint} ({run.task.backend})"
    returned = ", ".join(m for m in c.models if m) or "no reply"
    sent = f"{c.n_requests:,} sent, {c.n_retries:,} retries, {c.n_reasked:,} rows asked again"
    if c.n_foreign:
        sent += f", {c.n_foreign:,} answers under ids that nobody asked about not used"
    facts = [
        ("model", f"{asked}; returned: {returned}"),
        ("requests", sent),
        ("tokens", f"{number(c.input_tokens)} in, {number(c.output_tokens)} out"),
        ("cost", dollars(c.cost)),
        ("saved by the cache", f"{run.saved.n_rows:,} rows, {dollars(run.saved.cost)}"),
        ("time", f"{c.wall_s:.1f} s"),
        ("stored in", str(run.cache_path)),
    ]
    if run.rows.long and (in_parts := parts_words(run.rows)):
        facts.append(("long texts", in_parts))
    if run.task.endpoint == "sandbox":
        note = "answers come from the sandbox's rules, not from a language model"
        if c.n_failed.get("missing"):
            note += "; a row is left out where no rule finds a field that may not be null: allow `| None`"
        facts.insert(1, ("note", note))
    if run.n_seed:
        seed = f"{run.n_seed:,} taken over from a cache that recorded no text and no model"
        facts.append(("seed rows", seed))
    return facts


def _top_reasons(counts: Counts, most: int = 8) -> Reasons:
    return sorted(counts.reasons.items(), key=lambda item: -item[1][0])[:most]


def _eg(n: int, examples: tuple[str, ...]) -> str:
    shown = ", ".join(examples[:5])
    if n == 1 and examples:
        return f" (row {shown})"
    return f" (rows {shown}{', ...' if n > len(examples[:5]) else ''})" if examples else ""
