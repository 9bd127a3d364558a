"""What an exchange cost, and that what is not known is not made up."""

from __future__ import annotations

import pytest

from lmsyz.pricing import Pricer
from lmsyz.providers.base import Usage
from lmsyz.providers.models import DEFAULT_MODELS

OPENAI, ANTHROPIC = "https://api.openai.com/v1", "https://api.anthropic.com"
ENDPOINTS = {"openai": OPENAI, "anthropic": ANTHROPIC}
TOKENS = Usage(input_tokens=10_000, output_tokens=1_000)


def cost(endpoint: str, model: str, usage: Usage = TOKENS, returned: str = "") -> float | None:
    return Pricer("openai", endpoint, model).cost(usage, returned)


@pytest.mark.parametrize("backend", ["openai", "anthropic"])
def test_the_default_models_cost_what_their_price_list_says(backend: str) -> None:
    # 0.10 and 0.50 dollars a million tokens in and out, November 2026.
    assert cost(ENDPOINTS[backend], DEFAULT_MODELS[backend]) == pytest.approx(0.0015)


@pytest.mark.parametrize(
    ("endpoint", "returned"),
    [
        (OPENAI, "gpt-6-luna-2026-08-01"),
        (ANTHROPIC, "claude-haiku-5-5-20261001"),
        ("https://openrouter.ai/api/v1", "openai/gpt-6-luna"),
        ("https://mine.openai.azure.com/openai", "gpt-6-luna-2026-08-01"),
    ],
)
def test_the_model_as_returned_is_what_is_priced(endpoint: str, returned: str) -> None:
    assert cost(endpoint, "an-alias", returned=returned) == pytest.approx(0.0015)
    assert cost(endpoint, "an-alias") is None


def test_a_model_behind_googles_own_prefix_is_found() -> None:
    google = "https://generativelanguage.googleapis.com/v1beta/openai"
    assert cost(google, "models/gemini-2.5-flash") == cost(google, "gemini-2.5-flash") is not None


@pytest.mark.parametrize("endpoint", [OPENAI, ANTHROPIC])
def test_cached_input_is_part_of_the_input_and_costs_less(endpoint: str) -> None:
    model = DEFAULT_MODELS["openai" if endpoint == OPENAI else "anthropic"]
    usage = Usage(input_tokens=1_000, output_tokens=0, cached_tokens=400, cache_write_tokens=500)
    # 100 plain at 0.10, 400 read at 0.01, 500 written at 0.125 dollars a million.
    assert cost(endpoint, model, usage) == pytest.approx((100 * 0.10 + 400 * 0.01 + 500 * 0.125) / 1e6)


def test_a_prompt_cache_that_is_kept_for_an_hour_costs_twice_the_input() -> None:
    usage = Usage(input_tokens=1_000, output_tokens=0, cache_write_tokens=1_000, cache_write_1h_tokens=400)
    assert cost(ANTHROPIC, DEFAULT_MODELS["anthropic"], usage) == pytest.approx((600 * 0.125 + 400 * 0.20) / 1e6)


def test_groqs_usual_tier_has_the_listed_price() -> None:
    usage = Usage(input_tokens=10_000, output_tokens=1_000, service_tier="on_demand")
    groq = "https://api.groq.com/openai/v1"
    assert cost(groq, "llama-3.3-70b-versatile", usage) == cost(groq, "llama-3.3-70b-versatile") is not None


def test_a_batch_costs_what_its_list_says_and_is_never_priced_as_live_calls_are() -> None:
    usage = Usage(input_tokens=10_000, output_tokens=1_000, service_tier="batch")
    assert cost(OPENAI, "gpt-6-luna", usage) == pytest.approx(0.0015 / 2)
    assert cost("https://api.groq.com/openai/v1", "llama-3.3-70b-versatile", usage) is None
    assert cost("https://openrouter.ai/api/v1", "deepseek/deepseek-r1:free", usage) == 0


@pytest.mark.parametrize(("tier", "factor"), [("default", 1.0), ("standard", 1.0), ("flex", 0.5), ("priority", 2.0)])
def test_the_service_tier_has_its_price(tier: str, factor: float) -> None:
    usage = Usage(input_tokens=10_000, output_tokens=1_000, service_tier=tier)
    assert cost(OPENAI, "gpt-6-luna", usage) == pytest.approx(0.0015 * factor)


@pytest.mark.parametrize(
    ("endpoint", "model"),
    [
        (OPENAI, "gpt-none"),
        ("sandbox", "sandbox-rules"),
        ("http://127.0.0.1:8080/v1", "gpt-6-luna"),
        ("https://eu.api.openai.com/v1", "gpt-6-luna"),
        ("https://llm.example.org/v1", "gpt-6-luna"),
    ],
)
def test_an_unknown_model_or_place_has_no_price_rather_than_none_to_pay(endpoint: str, model: str) -> None:
    assert cost(endpoint, model) is None


@pytest.mark.parametrize(
    "usage",
    [
        Usage(),
        Usage(input_tokens=10),
        Usage(output_tokens=10),
        Usage(input_tokens=10, output_tokens=1, cached_tokens=50),
        Usage(input_tokens=10, output_tokens=1, service_tier="scale"),
    ],
)
def test_tokens_that_are_unknown_or_cannot_be_have_no_price(usage: Usage) -> None:
    assert cost(OPENAI, "gpt-6-luna", usage) is None
