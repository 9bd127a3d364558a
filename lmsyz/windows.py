"""How much a model reads, from the model list of genai-prices; unknown stays unknown, and nothing is refused for it.

The list is as of the installed genai-prices (0.2.3 is of November 2026), whose maintainers take it from the providers'
model pages. It gives the whole window, reading and writing together.
"""

from __future__ import annotations

from functools import lru_cache

__all__ = ["SMALLEST_WINDOW", "context_window", "reserved_for_output"]

# No model in the list reads less, so that shorter texts need no look-up (the list takes 0.15 s to load).
SMALLEST_WINDOW = 4_000
# These keep their whole output limit free: "Input tokens exceed the configured limit of 272000 tokens" of a window of
# 400,000 (the API's own words; https://github.com/cline/cline/issues/5474, August 2025).
_RESERVE = {"gpt-5": 128_000, "gpt-6": 128_000}


@lru_cache(maxsize=256)
def context_window(endpoint: str, model: str) -> int | None:
    """Return the tokens that a model reads and writes in one request, None where that is not known.

    Parameters
    ----------
    endpoint : str
        Where it is asked, as a task names it; a provider's own list goes before the others'.
    model : str
        The model as asked for.

    Returns
    -------
    int or None

    Examples
    --------
    >>> context_window("sandbox", "gpt-4o"), context_window("sandbox", "sandbox-rules")
    (128000, None)
    """
    from genai_prices.data_snapshot import get_snapshot

    names = dict.fromkeys((model.removeprefix("models/"), _plain(model)))
    urls = (endpoint, None) if endpoint.startswith("https://") else (None,)
    for name, url in ((name, url) for url in urls for name in names):
        try:
            found = get_snapshot().find_provider_model(name, None, None, url)[1]
        except LookupError:
            continue
        if found.context_window:
            return int(found.context_window)
    return None


def reserved_for_output(model: str) -> int:
    """Return the tokens of its window that a model keeps for its answer, whatever limit is asked for; 0 for most."""
    name = _plain(model)
    return next((tokens for prefix, tokens in _RESERVE.items() if name.startswith(prefix)), 0)


def _plain(model: str) -> str:
    return model.lower().rpartition("/")[2].rpartition("anthropic.")[2]
