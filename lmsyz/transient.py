"""What passes by waiting and what does not, by HTTP status and by the codes in an API's error object. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

__all__ = ["codes_of", "is_out_of_credit", "is_transient_status"]

# A 429 with one of these never passes by waiting. OpenAI's first four are the seed's list; the last two are the
# error_code of anthropic 2.12's EnforcedSpendLimitReachedError and ContractSpendLimitReachedError.
_PERMANENT_CODES = frozenset(
    {
        "insufficient_quota",
        "billing_hard_limit_reached",
        "billing_not_active",
        "credits_exhausted",
        "credit_balance_exhausted",
        "enforced_spend_limit_reached",
        "contract_spend_limit_reached",
    }
)
# As both SDKs have it, and three that say the same: too early, flex capacity (Groq), closed by a proxy.
_TRANSIENT_STATUSES = frozenset({408, 409, 425, 429, 498, 499})


def is_transient_status(status: int) -> bool:
    """Tell whether an HTTP status, without a word on credit beside it, is one that passes."""
    return status in _TRANSIENT_STATUSES or status >= 500


def is_out_of_credit(codes: Iterable[str]) -> bool:
    """Tell whether an API's codes say that money or quota is used up, whatever the status says."""
    return not _PERMANENT_CODES.isdisjoint(codes)


def codes_of(error: Mapping[str, object]) -> set[str]:
    """Return every machine-readable reason in an API's error object, OpenAI's or Anthropic's."""
    details = error.get("details")
    found = [error.get("code"), error.get("type"), error.get("error_code")]
    found.append(details.get("error_code") if isinstance(details, Mapping) else None)
    return {code for code in found if isinstance(code, str)}
