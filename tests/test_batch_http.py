"""Files to and from a batch API, in flat memory, and downloads that break: the same for both providers."""

from __future__ import annotations

import gzip
import hashlib
import json
import stat
import tracemalloc
from pathlib import Path
from typing import Any

import pytest
from batch_wire import FileServer, Give, batches_at
from scripted_server import provider_at, task_of

from lmsyz.errors import RateLimitError, RejectedError, RequestError, UnavailableError
from lmsyz.providers import batch_http, batches_of, sending
from lmsyz.providers.base import Call, Form
from lmsyz.providers.batches import ResultFile

LINE = json.dumps({"custom_id": "r-1", "text": "one\u2028two " + "x" * 900}, ensure_ascii=False).encode() + b"\n"
MANY = 40
WHOLE = LINE * MANY
FILE = ResultFile(kind="output", remote="it-1")
BACKENDS = ["openai", "anthropic"]
PATHS = {"openai": "/v1/files/it-1/content", "anthropic": "/v1/messages/batches/it-1/results"}
CREATED = {
    "openai": {"id": "file-1", "object": "file"},
    "anthropic": {"id": "msgbatch_1", "type": "message_batch", "processing_status": "in_progress"},
}
BIG = 50 * 1024 * 1024
ROOM = 6 * 1024 * 1024


@pytest.fixture(params=BACKENDS)
def station(request: pytest.FixtureRequest) -> Any:
    with batches_at(request.param, b"") as (server, batches):
        yield server, batches


@pytest.fixture
def target(tmp_path: Path) -> Path:
    return tmp_path / "results.jsonl"


def part_of(target: Path) -> Path:
    return target.with_name(target.name + ".part")


def download(station: tuple[FileServer, Any], target: Path, *answers: Give, call: Call | None = None) -> None:
    server, batches = station
    server.give(*answers)
    batches.download(FILE, target, call or Call())


def break_off(station: tuple[FileServer, Any], target: Path, at: int = 20_000, **how: Any) -> None:
    with pytest.raises(UnavailableError):
        download(station, target, Give(LINE, repeat=MANY, cut=at, **how))
    assert part_of(target).read_bytes() == WHOLE[:at]
    assert not target.exists()


@pytest.mark.parametrize("backend", BACKENDS)
def test_results_are_asked_for_where_the_client_points_and_kept_as_they_came(backend: str, target: Path) -> None:
    with batches_at(backend, Give(LINE, repeat=MANY)) as (server, batches):
        batches.download(FILE, target, Call(headers={"x-mine": "1"}, query={"api-version": "7"}))
    (asked,) = server.taken
    assert (asked.method, asked.path) == ("GET", PATHS[backend] + "?api-version=7")
    assert asked.headers["authorization"].startswith("Bearer sk-test")
    assert (asked.headers["x-mine"], asked.headers["accept-encoding"]) == ("1", "identity")
    assert target.read_bytes() == WHOLE
    assert not part_of(target).exists()
    assert stat.S_IMODE(target.stat().st_mode) == 0o600


def test_an_empty_file_is_a_file(station: Any, target: Path) -> None:
    download(station, target, Give(b""))
    assert target.read_bytes() == b""


def test_a_file_that_comes_packed_is_unpacked(station: Any, target: Path) -> None:
    download(station, target, Give(gzip.compress(WHOLE), headers={"content-encoding": "gzip"}))
    assert target.read_bytes() == WHOLE


@pytest.mark.parametrize("sized", [True, False])
def test_a_cut_download_is_no_file_and_is_gone_on_from(station: Any, target: Path, sized: bool) -> None:
    break_off(station, target, sized=sized)
    download(station, target, Give(LINE, repeat=MANY, ranged=True))
    assert target.read_bytes() == WHOLE
    assert station[0].taken[0].headers["range"] == f"bytes={20_000 - batch_http.OVERLAP}-"


def test_a_download_may_break_many_times(station: Any, target: Path) -> None:
    for at in (10_000, 20_000, 30_000):
        break_off(station, target, at, ranged=True)
    download(station, target, Give(LINE, repeat=MANY, ranged=True))
    assert target.read_bytes() == WHOLE


def test_a_server_without_ranges_begins_again(station: Any, target: Path) -> None:
    break_off(station, target)
    download(station, target, Give(LINE, repeat=MANY))
    assert target.read_bytes() == WHOLE


def test_a_shorter_file_in_place_of_a_longer_part_is_cut_to_its_size(station: Any, target: Path) -> None:
    break_off(station, target)
    download(station, target, Give(LINE * 2))
    assert target.read_bytes() == LINE * 2


@pytest.mark.parametrize("sizes", [(20_000, MANY), (20_000, 10), (30_000, 20)])
def test_the_part_of_another_file_is_thrown_away(station: Any, target: Path, sizes: tuple[int, int]) -> None:
    n_here, n_there = sizes
    other = LINE.replace(b"r-1", b"r-2")
    break_off(station, target, n_here)
    download(station, target, Give(other, repeat=n_there, ranged=True))
    assert target.read_bytes() == other * n_there
    assert len(station[0].taken) == 2


def test_a_part_longer_than_the_file_is_thrown_away(station: Any, target: Path) -> None:
    longer = len(LINE) * 20
    break_off(station, target, longer)
    download(station, target, Give(LINE, repeat=18, ranged=True))
    assert target.read_bytes() == LINE * 18
    assert station[0].taken[0].headers["range"] == f"bytes={longer - batch_http.OVERLAP}-"


@pytest.mark.parametrize("said", ["bytes 3-9/10", "bytes */10", "lines 1-2/3", ""])
def test_a_range_that_was_not_asked_for_is_not_taken(station: Any, target: Path, said: str) -> None:
    break_off(station, target)
    wrong = Give(LINE, repeat=MANY, ranged=True, headers={"content-range": said})
    download(station, target, wrong, Give(LINE, repeat=MANY))
    assert target.read_bytes() == WHOLE


def test_without_a_length_a_last_line_that_is_no_json_is_a_cut(station: Any, target: Path) -> None:
    with pytest.raises(UnavailableError, match="broke off after 5 bytes"):
        download(station, target, Give(b'{"a":', sized=False))


@pytest.mark.parametrize("content", [WHOLE, WHOLE[:-1], WHOLE + b"\n", b"", b'"' + b"y" * 200_000 + b'"'])
def test_without_a_length_a_last_line_of_json_is_an_end(station: Any, target: Path, content: bytes) -> None:
    download(station, target, Give(content, sized=False))
    assert target.read_bytes() == content


def test_what_a_server_gives_twice_is_all_it_has(station: Any, target: Path) -> None:
    broken = Give(WHOLE + b'{"custom_id":', sized=False)
    with pytest.raises(UnavailableError):
        download(station, target, broken)
    download(station, target, broken)
    assert target.read_bytes() == broken.piece


def test_a_broken_line_within_the_told_length_is_for_the_reader(station: Any, target: Path) -> None:
    download(station, target, Give(WHOLE + b'{"custom_id":'))
    assert target.read_bytes().endswith(b'{"custom_id":')


def test_a_download_that_goes_quiet_ends(station: Any, target: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(batch_http, "QUIET_S", 0.1)
    with pytest.raises(UnavailableError, match="no answer within"):
        download(station, target, Give(LINE, stall=True))


def test_a_download_that_trickles_ends(station: Any, target: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sending, "SLOWEST_BYTES_PER_S", 1_000_000)
    with pytest.raises(UnavailableError, match="too slow"):
        download(station, target, Give(LINE, trickle=True), call=Call(deadline_s=0.2, is_asked_for=True))


def test_a_full_disk_is_no_fault_of_the_provider(station: Any, target: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def no_space(_: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(batch_http.os, "fsync", no_space)
    with pytest.raises(OSError, match="No space left"):
        download(station, target, Give(LINE))


def test_a_file_that_is_not_there_is_told_by_its_status(station: Any, target: Path) -> None:
    with pytest.raises(RequestError, match=r"it-1 is not there: .*past its retention") as caught:
        download(station, target, Give({"error": {"message": "no such thing"}}, status=404))
    assert caught.value.status == 404
    assert not part_of(target).exists()


def test_a_refused_download_keeps_the_part(station: Any, target: Path) -> None:
    break_off(station, target)
    with pytest.raises(RateLimitError):
        download(station, target, Give({}, status=429))
    assert part_of(target).read_bytes() == WHOLE[:20_000]


def test_a_big_download_takes_no_memory(station: Any, target: Path) -> None:
    piece = (b"x" * 1023 + b"\n") * 64
    tracemalloc.start()
    try:
        download(station, target, Give(piece, repeat=BIG // len(piece)))
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert target.stat().st_size == BIG
    assert peak < ROOM


# --- files that are sent ----------------------------------------------------------------------------------------------


def send(backend: str, batches: Any, path: Path, call: Call | None = None) -> Any:
    if backend == "openai":
        return batches.upload(path, call or Call())
    return batches.create(path, "", {}, call or Call())


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_big_file_is_sent_with_its_length_and_takes_no_memory(backend: str, tmp_path: Path) -> None:
    path, digest = tmp_path / "requests", hashlib.sha256()
    with path.open("wb") as file:
        for i in range(BIG // 1024):
            digest.update(line := b"%-1023d\n" % i)
            file.write(line)
    with batches_at(backend, CREATED[backend]) as (server, batches):
        tracemalloc.start()
        try:
            send(backend, batches, path)
            peak = tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()
    assert peak < ROOM
    if backend == "anthropic":
        assert server.taken[0].digest == digest.hexdigest()
    assert BIG <= server.taken[0].size < BIG + 1000


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_line_too_slow_for_a_file_is_given_up(backend: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "requests"
    path.write_bytes(LINE)
    monkeypatch.setattr(batch_http, "file_deadline", lambda *_: -1.0)
    with batches_at(backend, CREATED[backend]) as (_, batches), pytest.raises(UnavailableError, match="too slow"):
        send(backend, batches, path)


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_redirected_file_is_refused_and_not_sent_half(backend: str, tmp_path: Path) -> None:
    path = tmp_path / "requests"
    path.write_bytes(LINE)
    with batches_at(backend, Give({}, status=307, headers={"location": "/elsewhere"})) as (server, batches):
        with pytest.raises(RequestError, match="answered 307"):
            send(backend, batches, path)
        assert len(server.taken) == 1


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_missing_input_file_is_told_before_anything_is_sent(backend: str, tmp_path: Path) -> None:
    with batches_at(backend, CREATED[backend]) as (server, batches):
        with pytest.raises(FileNotFoundError):
            send(backend, batches, tmp_path / "none")
        assert not server.taken


@pytest.mark.parametrize("backend", BACKENDS)
def test_an_endpoint_without_a_batch_api_is_named_as_such(backend: str, tmp_path: Path) -> None:
    path = tmp_path / "requests"
    path.write_bytes(LINE)
    for status in (404, 405, 501):
        with batches_at(backend, Give({"detail": "Not Found"}, status=status)) as (_, batches):
            with pytest.raises(RejectedError, match="has this endpoint a batch API"):
                send(backend, batches, path)
            with pytest.raises(RejectedError, match="has this endpoint a batch API"):
                list(batches.recent(0.0, Call()))


# --- the whole way, through the sandbox -------------------------------------------------------------------------------


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_batch_goes_there_and_comes_back(backend: str, sandbox: Any, tmp_path: Path) -> None:
    sandbox.set_faults(batch_s=100)
    url = sandbox.openai_base_url if backend == "openai" else sandbox.anthropic_base_url
    with provider_at(url, backend, model="sandbox-rules") as provider:
        batches = batches_of(provider)
        before, between, after = batches.envelope
        task = task_of(backend, schema={"tone": ["good", "bad"]}, model="sandbox-rules")
        user = '[{"input_id": "r1", "input_text": "A good day."}]'
        bodies = {f"c-{i}": provider.build(task, user, Form.SCHEMA) for i in range(3)}
        path = tmp_path / "requests"
        path.write_bytes(before + between.join(batches.request_line(c, b) for c, b in bodies.items()) + after)

        remote = batches.create(path, batches.upload(path, Call()), {"mine": "yes"}, Call())
        assert not remote.state.is_terminal
        assert [b.id for b in batches.recent(0.0, Call())] == [remote.id]
        assert remote.metadata == ({"mine": "yes"} if batches.keeps_metadata else {})
        sandbox.advance(200)
        remote = batches.retrieve(remote.id, Call())
        assert (remote.state, remote.n_total, remote.n_ok, remote.n_failed) == ("completed", 3, 3, 0)
        (file,) = remote.result_files
        batches.download(file, tmp_path / "results", Call())
        results = [batches.read_result(line) for line in (tmp_path / "results").read_bytes().split(b"\n") if line]
        assert {r.custom_id for r in results} == set(bodies)
        assert all('"tone"' in provider.parse(r.reply or "").text for r in results)
        assert batches.cancel(remote.id, Call()).state == "completed"
