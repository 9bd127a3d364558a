"""A provider that sends too much, too slowly, packed, or somewhere else: calls end, and nothing goes astray."""

from __future__ import annotations

import gzip
import tracemalloc
import zlib

import pytest
from hostile import KEY, MIB, both, outcome
from scripted_server import Step, body_of, provider_at, scripted

import lmsyz
from lmsyz.errors import ProviderError
from lmsyz.providers import sending
from lmsyz.providers.base import Call

# --- size and time --------------------------------------------------------------------------------------------------


def packed(n_bytes: int) -> bytes:
    packer = zlib.compressobj(9, wbits=31)
    return b"".join([*(packer.compress(b"0" * MIB) for _ in range(n_bytes // MIB)), packer.flush()])


def bombs() -> dict[str, tuple[str, bytes]]:
    once = packed(96 * MIB)
    return {
        "gzip": ("gzip", once),
        "deflate": ("deflate", zlib.compress(b"0" * 64 * MIB)),
        "gzip twice": ("gzip, gzip", gzip.compress(once)),
    }


@both
@pytest.mark.parametrize("status", [200, 500])
@pytest.mark.parametrize("kind", ["gzip", "deflate", "gzip twice"])
def test_a_small_packed_body_never_fills_the_memory(
    kind: str, status: int, backend: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sending, "LARGEST_REPLY", 2 * MIB)
    encoding, body = bombs()[kind]
    with (
        scripted(Step(status=status, body=body, headers={"content-encoding": encoding})) as server,
        provider_at(server, backend) as provider,
    ):
        tracemalloc.start()
        try:
            with pytest.raises(ProviderError):
                provider.send(body_of(backend), Call(deadline_s=60))
            peak = tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()
    assert peak < 16 * MIB


@both
def test_a_packed_body_that_is_none_is_an_error(backend: str) -> None:
    with scripted(Step(body=b"no gzip", headers={"content-encoding": "gzip"})) as server:
        assert "connection" in outcome(server, backend)


@both
@pytest.mark.parametrize("status", [200, 400, 500])
@pytest.mark.parametrize("trickle_s", [0.0, 0.05], ids=["fast", "slow"])
def test_a_body_without_end_ends_the_call(
    trickle_s: float, status: int, backend: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sending, "LARGEST_REPLY", MIB)
    body = b"{" if trickle_s else b" " * 65536
    with (
        scripted(Step(status=status, body=body, endless=True, trickle_s=trickle_s)) as server,
        provider_at(server, backend) as provider,
        pytest.raises(ProviderError),
    ):
        provider.send(body_of(backend), Call(deadline_s=0.5, is_asked_for=True))


# --- doors ----------------------------------------------------------------------------------------------------------


@both
@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
def test_no_redirect_takes_key_or_text_to_another_server(status: int, backend: str) -> None:
    with scripted({}) as elsewhere:
        target = f"{elsewhere.url}/v1/elsewhere?secret=1"
        with scripted(Step(status=status, body=b"", headers={"location": target})) as server:
            said = outcome(server, backend, extra_headers={"api-key": KEY})
        assert elsewhere.asked == []
    assert f"answered {status}" in said
    assert f"{elsewhere.url}/v1/elsewhere" in said
    assert "secret" not in said


@both
def test_an_error_that_repeats_the_key_is_told_without_it(backend: str) -> None:
    for body in (
        {"error": {"message": f"no such key {KEY}", "code": KEY, "type": KEY, "param": KEY}},
        f"<html><title>{KEY}</title></html>".encode(),
        f"{KEY} " * 100_000,
        [KEY, {"error": [KEY]}],
        {"error": {"message": {"headers": {"authorization": f"Bearer {KEY}"}}}},
    ):
        for status in (200, 401):
            with scripted(Step(status=status, body=body, headers={"x-request-id": KEY})) as server:
                said = outcome(server, backend)
            assert said
            assert KEY not in repr(lmsyz.last_run())
