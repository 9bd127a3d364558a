"""What an exchange cost, from the price lists of genai-prices; unknown stays unknown."""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING

from lmsyz.providers.base import Usage

if TYPE_CHECKING:
    from genai_prices import Usage as Tokens

__all__ = ["BATCH_TIER", "Pricer"]

# Tiers at the listed price; "auto" is only ever asked for, and "on_demand" is Groq's word where none is (LangChain's
# integration test of ChatGroq, https://github.com/langchain-ai/langchain/pull/31801). The tiers that have a list of
# their own are named to it.
USUAL_TIERS = ("", "default", "standard", "auto", "on_demand")
OTHER_TIERS = ("flex", "priority", "fast")
BATCH_TIER = "batch"


class Pricer:
    """Prices the exchanges of one run.

    Parameters
    ----------
    backend, endpoint, model : str
        The wire, where it goes and the model as asked. The endpoint decides whose list counts; where none is known for
        it (a server of one's own, the sandbox, a region with prices of its own), there is no price.
    """

    def __init__(self, backend: str, endpoint: str, model: str) -> None:
        self._endpoint = endpoint
        self._asked = model

    def cost(self, usage: Usage, model: str = "") -> float | None:
        """Return the cost in US dollars, None where price or tokens are unknown.

        Parameters
        ----------
        usage : Usage
            The tokens of one exchange.
        model : str
            The model as returned; the one asked for where empty.

        Returns
        -------
        float or None
        """
        return _cost(self._endpoint, model or self._asked, usage)


def _context(tier: str) -> dict[str, str] | None:
    if tier == BATCH_TIER:
        return {"processing": "batch"}
    return {"service_tier": tier} if tier in OTHER_TIERS else None


def _cost(endpoint: str, model: str, usage: Usage) -> float | None:
    tier = usage.service_tier
    is_priced = endpoint.startswith("https://") and tier in (*USUAL_TIERS, *OTHER_TIERS, BATCH_TIER)
    if not is_priced or usage.input_tokens is None or usage.output_tokens is None:
        return None
    from genai_prices import Usage as Tokens

    tokens = Tokens(
        input_tokens=usage.input_tokens,
        output_tokens=usage.output_tokens,
        cache_read_tokens=usage.cached_tokens,
        cache_write_tokens=usage.cache_write_tokens,
        cache_write_1h_tokens=usage.cache_write_1h_tokens,
    )
    name = model.removeprefix("models/")
    try:
        price = _listed(tokens, endpoint, name, tier)
        return None if tier == BATCH_TIER and price and not _has_batch_prices(endpoint, name) else price
    except (LookupError, ValueError):
        # No list for this endpoint or model; or tokens that cannot be, such as more cached than there were.
        return None


# Once a model: a price takes a tenth of a millisecond, and each of a batch's exchanges has one.
@cache
def _has_batch_prices(endpoint: str, name: str) -> bool:
    """Whether a list tells what batches cost; where it does not, what comes is the price of a live call."""
    from genai_prices import Usage as Tokens

    some = Tokens(input_tokens=1000, output_tokens=1000)
    return _listed(some, endpoint, name, BATCH_TIER) != _listed(some, endpoint, name, "")


def _listed(tokens: Tokens, endpoint: str, name: str, tier: str) -> float:
    from genai_prices import calc_price

    price = calc_price(tokens, model_ref=name, provider_api_url=endpoint, price_context=_context(tier))
    return float(price.total_price)
