"""How the panel looks: every piece of its HTML is made here, and everything that is not made here is escaped.

Answers, texts and error messages come from models and strangers. A value becomes HTML only by way of :func:`esc`;
what a builder returns is an :class:`Html`, and only an ``Html`` is put into another one as it stands.
"""

from __future__ import annotations

import html
from collections.abc import Iterable, Sequence

from lmsyz.html_block import html_block

__all__ = [
    "Html",
    "esc",
    "facts",
    "folded",
    "heading",
    "joined",
    "note",
    "one_line",
    "page",
    "stacked_bar",
    "table",
    "text_table",
]

INK = "var(--jp-ui-font-color1, var(--lmsyz-ink, CanvasText))"
PALE_INK = "var(--jp-ui-font-color2, var(--lmsyz-ink, CanvasText))"
LINE = "var(--jp-border-color2, var(--lmsyz-line, GrayText))"
GROUND = "var(--jp-layout-color2, transparent)"
CELL = f"padding:2px 12px 2px 0;vertical-align:top;overflow-wrap:anywhere;border-bottom:1px solid {LINE}"
WHOLE = "overflow-wrap:normal;white-space:nowrap"
# A theme's own colours where it has them; the fallbacks are told apart in light and dark alike. Never colour alone:
# each part of a bar is named and counted beside it.
COLOURS = {
    "ok": "var(--jp-success-color1, #388e3c)",
    "cached": "var(--jp-info-color1, #0288a7)",
    "active": "var(--jp-brand-color1, #1976d2)",
    "wait": "var(--jp-border-color1, #9e9e9e)",
    "warn": "var(--jp-warn-color1, #ef6c00)",
    "bad": "var(--jp-error-color1, #d32f2f)",
}


class Html(str):
    """Text that is safe HTML already, since a builder of this module made it."""

    __slots__ = ()


def esc(value: object) -> str:
    """Return a value as text that is safe in HTML, also inside an attribute.

    Examples
    --------
    >>> esc('<b title="x">')
    '&lt;b title=&quot;x&quot;&gt;'
    """
    return html.escape(str(value), quote=True)


def facts(pairs: Iterable[tuple[str, object]]) -> Html:
    """Return names and values as a table of two columns.

    Parameters
    ----------
    pairs : iterable of (str, object)
        Names and values; what is not ``Html`` is escaped.

    Returns
    -------
    Html
    """
    rows = "".join(
        f'<tr><th scope="row" style="text-align:left;font-weight:600;white-space:nowrap;{CELL}">{_safe(name)}</th>'
        f'<td style="text-align:left;{CELL}">{_safe(value)}</td></tr>'
        for name, value in pairs
    )
    return Html(f'<table style="{_TABLE}"><tbody>{rows}</tbody></table>')


def table(head: Sequence[str], rows: Iterable[Sequence[object]], *, caption: str = "") -> Html:
    """Return rows as a table; whole and decimal numbers stand right, with separators between thousands.

    Parameters
    ----------
    head : sequence of str
        Column names.
    rows : iterable of sequences
        Cells; what is not ``Html`` is escaped.
    caption : str, optional
        What the table shows.

    Returns
    -------
    Html
    """
    above = f'<caption style="text-align:left;color:{PALE_INK}">{_safe(caption)}</caption>' if caption else ""
    names = "".join(
        f'<th scope="col" style="text-align:left;font-weight:600;{CELL};{WHOLE}">{_safe(h)}</th>' for h in head
    )
    body = "".join(f"<tr>{''.join(map(_cell, row))}</tr>" for row in rows)
    return Html(f'<table style="{_TABLE}">{above}<thead><tr>{names}</tr></thead><tbody>{body}</tbody></table>')


def stacked_bar(parts: Sequence[tuple[str, int, str]], total: int, *, label: str) -> Html:
    """Return counts as one bar with a legend that names and counts each part.

    Parameters
    ----------
    parts : sequence of (name, count, colour role)
        Roles are ``ok``, ``cached``, ``active``, ``wait``, ``warn`` and ``bad``; parts of zero are left out.
    total : int
        What the whole bar stands for.
    label : str
        What a screen reader says before the counts.

    Returns
    -------
    Html
    """
    shown = [(name, n, COLOURS.get(role, COLOURS["wait"])) for name, n, role in parts if n > 0]
    whole = max(total, sum(n for _, n, _ in shown), 1)
    spoken = f"{label}: " + (", ".join(f"{n:,} {name}" for name, n, _ in shown) or "nothing yet")
    bar = "".join(f'<div style="width:{100 * n / whole:.3f}%;background:{c}"></div>' for _, n, c in shown)
    legend = "".join(_legend(name, n, whole, colour) for name, n, colour in shown)
    frame = f"display:flex;height:14px;border-radius:3px;overflow:hidden;background:{GROUND};border:1px solid {LINE}"
    return Html(
        f'<div role="img" aria-label="{esc(spoken)}" style="{frame}">{bar}</div>'
        f'<div style="display:flex;flex-wrap:wrap;gap:2px 16px;margin:4px 0">{legend}</div>'
    )


def folded(words: object, body: Html) -> Html:
    """Return a body that is folded away under some words until they are clicked."""
    return Html(f"<details><summary>{_safe(words)}</summary>{_safe(body)}</details>")


def joined(*blocks: object) -> Html:
    """Return blocks one after the other; what is not ``Html`` is escaped."""
    return Html("".join(map(_safe, blocks)))


def heading(words: object) -> Html:
    """Return a small heading."""
    return Html(f'<div style="font-weight:600;margin:8px 0 2px">{_safe(words)}</div>')


def note(words: object, *, role: str = "") -> Html:
    """Return a paragraph; a ``role`` of :func:`stacked_bar` gives it a coloured edge."""
    edge = f"border-left:3px solid {COLOURS[role]};padding-left:8px;" if role in COLOURS else ""
    return Html(f'<div style="{edge}margin:4px 0;overflow-wrap:anywhere">{_safe(words)}</div>')


def page(title: str, *blocks: Html) -> Html:
    """Return blocks under a title as one piece that needs no style sheet, no script and no network.

    Parameters
    ----------
    title : str
        Escaped.
    *blocks : Html
        Made by this module; anything else is escaped.

    Returns
    -------
    Html
    """
    look = (
        f"color:{INK};font-size:13px;line-height:1.5;max-width:100%;overflow-x:auto;font-variant-numeric:tabular-nums"
    )
    head = f'<div style="font-weight:600;margin-bottom:4px">{_safe(title)}</div>'
    return Html(html_block(f"{head}{joined(*blocks)}", style=look))


def text_table(head: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    """Return rows as plain text in columns, for terminals.

    Examples
    --------
    >>> print(text_table(["state", "rows"], [["ok", 1200]]))
    state   rows
    ok     1,200
    """
    grid = [[(_number(cell) or one_line(cell), _number(cell) is not None) for cell in row] for row in rows]
    widths = [max([len(name), *(len(row[i][0]) for row in grid)]) for i, name in enumerate(head)]
    right = [bool(grid) and all(row[i][1] for row in grid) for i in range(len(head))]
    lines = [list(head), *([text for text, _ in row] for row in grid)]
    return "\n".join(
        "  ".join(c.rjust(w) if r else c.ljust(w) for c, w, r in zip(line, widths, right, strict=True)).rstrip()
        for line in lines
    )


_TABLE = "border-collapse:collapse;font-size:13px;color:inherit;background:transparent;margin:2px 0"


def _safe(value: object) -> str:
    return str(value) if isinstance(value, Html) else esc(value)


def _number(value: object) -> str | None:
    """Return a number as it is shown; None for what is no number."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    return f"{value:,}"


def one_line(value: object, unseen: str = "�") -> str:
    """Return somebody's text on one line: no control character of it may reach the terminal."""
    return "".join(c if c.isprintable() else unseen for c in " ".join(str(value).split()))


def _cell(value: object) -> str:
    number = _number(value)
    if number is not None:
        return f'<td style="text-align:right;{CELL};{WHOLE}">{number}</td>'
    return f'<td style="text-align:left;min-width:5em;{CELL}">{_safe(value)}</td>'


def _legend(name: str, n: int, whole: int, colour: str) -> str:
    mark = f'<span style="display:inline-block;width:10px;height:10px;border-radius:2px;background:{colour}"></span>'
    return f'<span style="white-space:nowrap">{mark} {esc(name)} <b>{n:,}</b> ({_share(n, whole)})</span>'


def _share(n: int, whole: int) -> str:
    percent = f"{100 * n / whole:.0f}"
    return "&lt;1%" if n and percent == "0" else f"{percent}%"
