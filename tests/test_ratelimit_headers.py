"""What response headers tell of limits, and how long to wait."""

from __future__ import annotations

import time

import pytest

from lmsyz.ratelimit_headers import Limits, read_limits, retry_after_s


def openai_headers(what: str, limit: str, left: str, reset: str) -> dict[str, str]:
    return {
        f"x-ratelimit-limit-{what}": limit,
        f"x-ratelimit-remaining-{what}": left,
        f"x-ratelimit-reset-{what}": reset,
    }


def anthropic_headers(what: str, limit: str, left: str, reset: str) -> dict[str, str]:
    names = ("limit", "remaining", "reset")
    return {f"anthropic-ratelimit-{what}-{n}": v for n, v in zip(names, (limit, left, reset), strict=True)}


NOON = 1_800_000_000.0
AT_NOON = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(NOON + 30))


@pytest.mark.parametrize(
    "headers",
    [
        openai_headers("requests", "3000", "2999", "20ms") | openai_headers("tokens", "60000", "0", "1m0.5s"),
        anthropic_headers("requests", "3000", "2999", AT_NOON) | anthropic_headers("tokens", "60000", "0", AT_NOON),
        anthropic_headers("requests", "3000", "2999", "") | anthropic_headers("input-tokens", "60000", "0", AT_NOON),
    ],
)
def test_the_limits_of_both_providers_are_read(headers: dict[str, str]) -> None:
    assert read_limits(headers, lambda: NOON) == Limits(
        requests=3000, requests_remaining=2999, tokens=60_000, tokens_remaining=0
    )


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"x-ratelimit-limit-requests": "-1", "x-ratelimit-remaining-requests": "-1"},
        {"x-ratelimit-limit-requests": "0"},
        {"x-ratelimit-limit-requests": "many", "x-ratelimit-remaining-requests": "5"},
        {"x-ratelimit-limit-requests": "nan"},
        {"x-ratelimit-remaining-requests": "5"},
        openai_headers("requests", "14400", "14370", "2m59.56s"),
        openai_headers("requests", "200", "0", "1d"),
        anthropic_headers("tokens", "5", "0", "2030-01-01T00:00:00Z"),
    ],
)
def test_what_is_no_limit_a_minute_is_no_limit(headers: dict[str, str]) -> None:
    assert read_limits(headers, lambda: NOON) == Limits()


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ({"retry-after": "3"}, 3.0),
        ({"retry-after": " 1.5 "}, 1.5),
        ({"retry-after-ms": "250", "retry-after": "1"}, 0.25),
        ({"retry-after-ms": "soon", "retry-after": "1"}, 1.0),
        ({"retry-after": "0"}, 0.0),
        ({"retry-after": "999999999"}, 86_400.0),
        ({"retry-after": time.strftime("%a, %d %b %Y %H:%M:%S GMT", time.gmtime(NOON + 12))}, 12.0),
        ({"retry-after": time.strftime("%a, %d %b %Y %H:%M:%S -0000", time.gmtime(NOON + 12))}, 12.0),
        ({"retry-after": "Wed, 21 Oct 2015 07:28:00 GMT"}, 0.0),
        ({"retry-after": "-5"}, None),
        ({"retry-after": "nan"}, None),
        ({"retry-after": "inf"}, None),
        ({"retry-after": ""}, None),
        ({"retry-after": "Mon, 99 Foo 99999 99:99:99 GMT"}, None),
        ({}, None),
    ],
)
def test_the_wait_that_is_asked_for_comes_in_seconds_milliseconds_or_as_a_date(
    headers: dict[str, str], seconds: float | None
) -> None:
    assert retry_after_s(headers, lambda: NOON) == seconds


def test_moments_are_read_by_the_clock_of_the_server_that_names_them() -> None:
    def http_date(at: float) -> str:
        return time.strftime("%a, %d %b %Y %H:%M:%S GMT", time.gmtime(at))

    for wrong_by_s in (-3600, 3600):
        wait = {"date": http_date(NOON), "retry-after": http_date(NOON + 12)}
        assert retry_after_s(wait, lambda: NOON + wrong_by_s) == 12  # noqa: B023 - called at once
        headers = anthropic_headers("requests", "3000", "2999", AT_NOON) | {"date": http_date(NOON)}
        assert read_limits(headers, lambda: NOON + wrong_by_s).requests == 3000  # noqa: B023 - called at once
