"""What an exchange cost, from genai-prices' tables; unknown stays unknown."""

from __future__ import annotations

from urllib.parse import urlsplit

from lmsyz.providers.base import Usage

__all__ = ["Pricer"]

PROVIDER_OF_HOST = {
    "api.openai.com": "openai",
    "api.anthropic.com": "anthropic",
    "openrouter.ai": "openrouter",
    "generativelanguage.googleapis.com": "google",
}


class Pricer:
    """Prices the exchanges of one run.

    Parameters
    ----------
    backend, endpoint, model : str
        The wire, where it goes and the model as asked; only an endpoint whose price list is known has prices.
    """

    def __init__(self, backend: str, endpoint: str, model: str) -> None:
        host = urlsplit(endpoint).hostname or ""
        self._provider = PROVIDER_OF_HOST.get(host)
        self._asked = model
        self._unknown: set[str] = set()

    def cost(self, usage: Usage, model: str = "") -> float | None:
        """Return the cost in US dollars, None where price or tokens are unknown.

        Parameters
        ----------
        usage : Usage
            The tokens of one exchange.
        model : str
            The model as returned; the one asked for where empty.
        """
        name = model or self._asked
        if (
            self._provider is None
            or usage.input_tokens is None
            or usage.output_tokens is None
            or name in self._unknown
        ):
            return None
        from genai_prices import Usage as PricedUsage
        from genai_prices import calc_price

        tokens = PricedUsage(
            input_tokens=usage.input_tokens,
            output_tokens=usage.output_tokens,
            cache_read_tokens=usage.cached_tokens,
            cache_write_tokens=usage.cache_write_tokens,
        )
        try:
            return float(calc_price(tokens, model_ref=name, provider_id=self._provider).total_price)
        except LookupError:
            self._unknown.add(name)
            return None
