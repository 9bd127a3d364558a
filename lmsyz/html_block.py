"""The outermost element of what is shown in a notebook."""

from __future__ import annotations

__all__ = ["html_block"]


def html_block(inner: str, *, style: str = "") -> str:
    """Return HTML in a block in which dollar signs are dollar signs.

    Jupyter sets what stands between two of them as a formula, unless a class says otherwise; older front ends know the
    second name.

    Parameters
    ----------
    inner : str
        HTML, escaped where it came from elsewhere.
    style : str
        CSS of the block.

    Examples
    --------
    >>> html_block("from $2 to $3")
    '<div class="mathjax_ignore tex2jax_ignore">from $2 to $3</div>'
    """
    about = f' style="{style}"' if style else ""
    return f'<div class="mathjax_ignore tex2jax_ignore"{about}>{inner}</div>'
