"""Anthropic's Message Batches: the lines that are written and read, each call on the wire, and what errors mean."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from batch_wire import FileServer, Give, batches_at
from scripted_server import MESSAGES_REPLY, body_of

from lmsyz.errors import (
    MalformedError,
    ProviderError,
    RateLimitError,
    RejectedError,
    RequestError,
    TooLongError,
    UnavailableError,
)
from lmsyz.providers import batches_of, wire
from lmsyz.providers.base import Call, dump_body
from lmsyz.providers.batches import BatchState, RemoteBatch, ResultFile

PROVIDER = wire("anthropic", api="messages", model="claude-haiku-5-5")
LINES = batches_of(PROVIDER)
CALL = Call(headers={"anthropic-version": "2023-06-01"})
FILE = ResultFile(kind="output", remote="msgbatch_1")
PATH = "/v1/messages/batches"
CREATED = "2026-09-21T14:13:20.000000Z"
NONE_YET = {"processing": 3, "succeeded": 0, "errored": 0, "canceled": 0, "expired": 0}


def batch(**fields: Any) -> dict[str, Any]:
    return {
        "id": "msgbatch_1",
        "type": "message_batch",
        "processing_status": "in_progress",
        "request_counts": NONE_YET,
        "created_at": CREATED,
        "expires_at": "2026-09-22T14:13:20+00:00",
        "ended_at": None,
        "cancel_initiated_at": None,
        "archived_at": None,
        "results_url": None,
    } | fields


@pytest.fixture(scope="module")
def station() -> Iterator[tuple[FileServer, Any]]:
    with batches_at("anthropic", {}) as found:
        yield found


@pytest.fixture
def requests(tmp_path: Path) -> Path:
    path = tmp_path / "requests_1.json"
    before, between, after = LINES.envelope
    lines = [LINES.request_line(f"r-{i}", body_of("anthropic", f"row {i}\u2028ü")) for i in range(3)]
    path.write_bytes(before + between.join(lines) + after)
    return path


def retrieved(station: tuple[FileServer, Any], **fields: Any) -> RemoteBatch:
    server, batches = station
    server.give(Give(batch(**fields)))
    return batches.retrieve("msgbatch_1", Call())


def counts(**counts: int) -> dict[str, int]:
    return NONE_YET | {"processing": 0} | counts


def error(status: int, kind: str = "invalid_request_error", message: str = "what happened") -> Give:
    return Give({"type": "error", "error": {"type": kind, "message": message}}, status=status)


def refused(station: tuple[FileServer, Any], path: Path, *answers: Give) -> ProviderError:
    server, batches = station
    server.give(*answers)
    with pytest.raises(ProviderError) as caught:
        batches.create(path, "", {}, Call())
    return caught.value


# --- lines ------------------------------------------------------------------------------------------------------------


def test_a_line_holds_the_live_body_byte_for_byte() -> None:
    body = {"model": "m", "max_tokens": 5, "messages": [{"role": "user", "content": 'ü "\u2028"\n'}]}
    line = LINES.request_line("r-1", body)
    assert json.loads(line) == {"custom_id": "r-1", "params": body}
    assert line == b'{"custom_id":"r-1","params":' + dump_body(body).encode() + b"}"


def test_the_limits_are_anthropics() -> None:
    assert (LINES.limits.n_requests, LINES.limits.n_bytes) == (100_000, 256_000_000)
    assert not LINES.keeps_metadata


def result(given: object) -> Any:
    found = LINES.read_result(json.dumps({"custom_id": "r-1", "result": given}, ensure_ascii=False).encode())
    assert found.custom_id == "r-1"
    return found


def test_a_reply_is_handed_on_for_the_live_parser() -> None:
    found = result({"type": "succeeded", "message": MESSAGES_REPLY})
    assert (found.kind, found.reason, found.is_permanent) == ("reply", "", False)
    assert PROVIDER.parse(found.reply) == PROVIDER.parse(json.dumps(MESSAGES_REPLY))


def errored(kind: str, message: str = "what happened") -> dict[str, Any]:
    return {"type": "error", "request_id": "req_1", "error": {"type": kind, "message": message}}


@pytest.mark.parametrize(
    ("given", "is_permanent", "reason"),
    [
        (errored("invalid_request_error", "bad"), True, "failed: anthropic answered 400: bad"),
        (errored("invalid_request_error", "prompt is too long"), True, "failed: .*too long"),
        (errored("invalid_request_error", "Output blocked by content filtering policy"), True, "refused: .*blocked"),
        (errored("not_found_error", "model: none"), True, "failed: .*check model="),
        (errored("overloaded_error"), False, "failed: .* 529"),
        (errored("rate_limit_error"), False, "failed: .* 429"),
        (errored("api_error"), False, "failed: .* 500"),
        (errored("authentication_error"), False, "failed: .* 401"),
        (errored("new_error", "news"), False, "failed: anthropic: news"),
        ({"type": "invalid_request_error", "message": "flat"}, True, "failed: anthropic answered 400: flat"),
        ({}, False, "failed: anthropic"),
    ],
)
def test_a_request_that_failed_says_why_and_whether_for_good(
    given: dict[str, Any], is_permanent: bool, reason: str
) -> None:
    found = result({"type": "errored", "error": given})
    assert (found.reply, found.kind, found.is_permanent) == (None, "error", is_permanent)
    assert re.match(reason, found.reason)
    assert found.request_id == given.get("request_id", "")


@pytest.mark.parametrize(
    ("given", "kind", "reason"),
    [
        ({"type": "expired"}, "expired", "failed: batch_expired: "),
        ({"type": "canceled"}, "cancelled", "cancelled: "),
        ({"type": "paused", "message": MESSAGES_REPLY}, "error", "failed: the result is of an unknown type, 'paused'"),
        ({"type": "succeeded", "message": None}, "error", "failed: the result holds no message"),
        (None, "error", "failed: the result is of an unknown type"),
    ],
)
def test_a_request_without_a_reply_says_why(given: object, kind: str, reason: str) -> None:
    found = result(given)
    assert (found.reply, found.kind, found.is_permanent) == (None, kind, False)
    assert found.reason.startswith(reason)


@pytest.mark.parametrize("line", [b"", b"{", b"null", b'{"result":{}}', b'{"custom_id":null}', b"\xff"])
def test_a_line_that_is_no_result_is_said_to_be_none(line: bytes) -> None:
    with pytest.raises(MalformedError, match="not a line of batch results"):
        LINES.read_result(line)


# --- calls ------------------------------------------------------------------------------------------------------------


def test_a_create_sends_the_file_as_it_is(station: tuple[FileServer, Any], requests: Path) -> None:
    server, batches = station
    server.give(Give(batch()))
    assert batches.upload(requests, CALL) == ""
    found = batches.create(requests, "", {"lmsyz_intent": "abc"}, CALL)
    (asked,) = server.taken
    assert (asked.method, asked.path) == ("POST", PATH)
    assert asked.raw == requests.read_bytes()
    assert [r["custom_id"] for r in asked.body["requests"]] == ["r-0", "r-1", "r-2"]
    assert asked.headers["content-type"] == "application/json"
    assert asked.headers["anthropic-version"] == "2023-06-01"
    assert found == RemoteBatch(
        id="msgbatch_1",
        state=BatchState.IN_PROGRESS,
        n_total=3,
        created=1_790_000_000.0,
        expires=1_790_086_400.0,
    )


@pytest.mark.parametrize(
    "answer",
    [
        error(500, "api_error", "tools. grammar"),
        error(502),
        error(529, "overloaded_error"),
        error(409),
        Give(drop=True),
        Give(batch(), cut=20),
        Give(b"<html>proxy</html>"),
        Give({"type": "error", "error": {"type": "invalid_request_error", "message": "in a 200"}}),
    ],
)
def test_a_create_of_which_nobody_knows_is_unavailable_and_tried_once(
    station: tuple[FileServer, Any], requests: Path, answer: Give
) -> None:
    assert type(refused(station, requests, answer)) is UnavailableError
    assert len(station[0].taken) == 1


@pytest.mark.parametrize(
    ("answer", "kind"),
    [
        (error(400), RequestError),
        (error(400, message="Your credit balance is too low"), RejectedError),
        (error(401, "authentication_error"), RejectedError),
        (error(403, "permission_error"), RejectedError),
        (error(404, "not_found_error"), RejectedError),
        (error(413, "request_too_large"), TooLongError),
        (error(429, "rate_limit_error"), RateLimitError),
    ],
)
def test_a_create_that_was_refused_is_known_to_be_none(
    station: tuple[FileServer, Any], requests: Path, answer: Give, kind: type[ProviderError]
) -> None:
    caught = refused(station, requests, answer)
    assert (type(caught), caught.status) == (kind, answer.status)


@pytest.mark.parametrize("do", ["retrieve", "cancel"])
def test_a_batch_that_is_not_there_is_told_by_its_status(station: tuple[FileServer, Any], do: str) -> None:
    server, batches = station
    server.give(error(404, "not_found_error"))
    with pytest.raises(RequestError, match="msgbatch_1 is not there") as caught:
        getattr(batches, do)("msgbatch_1", Call())
    assert caught.value.status == 404


@pytest.mark.parametrize(
    ("fields", "state"),
    [
        ({}, BatchState.IN_PROGRESS),
        ({"processing_status": "thinking"}, BatchState.IN_PROGRESS),
        ({"processing_status": "canceling"}, BatchState.CANCELLING),
        ({"processing_status": "ended", "request_counts": counts(succeeded=3)}, BatchState.COMPLETED),
        ({"processing_status": "ended", "request_counts": counts(errored=3)}, BatchState.COMPLETED),
        ({"processing_status": "ended", "request_counts": counts(succeeded=2, expired=1)}, BatchState.EXPIRED),
        ({"processing_status": "ended", "request_counts": counts(succeeded=2, canceled=1)}, BatchState.CANCELLED),
        # cancelled too late to stop any of it
        (
            {"processing_status": "ended", "request_counts": counts(succeeded=3), "cancel_initiated_at": CREATED},
            BatchState.COMPLETED,
        ),
        ({"processing_status": "ended", "request_counts": None, "cancel_initiated_at": CREATED}, BatchState.CANCELLED),
        ({"processing_status": "ended", "request_counts": None}, BatchState.COMPLETED),
    ],
)
def test_a_state_is_told_in_the_common_words(
    station: tuple[FileServer, Any], fields: dict[str, Any], state: BatchState
) -> None:
    found = retrieved(station, **fields)
    assert found.state is state
    assert found.result_files == ((FILE,) if state.is_terminal else ())


def test_counts_are_told_once_they_mean_something(station: tuple[FileServer, Any]) -> None:
    found = retrieved(station)
    assert (found.n_total, found.n_ok, found.n_failed) == (3, None, None)
    ended = counts(succeeded=4, errored=1, canceled=2, expired=3)
    found = retrieved(station, processing_status="ended", request_counts=ended, ended_at="2026-09-21T15:00:00.5Z")
    assert (found.n_total, found.n_ok, found.n_failed) == (10, 4, 6)
    assert found.ended == 1_790_002_800.5


def test_results_past_their_retention_are_said_to_be_gone(station: tuple[FileServer, Any]) -> None:
    found = retrieved(station, processing_status="ended", request_counts=counts(succeeded=3), archived_at=CREATED)
    assert found.result_files == ()
    assert [p.code for p in found.problems] == ["archived"]


def test_results_are_never_fetched_from_another_host(station: tuple[FileServer, Any], tmp_path: Path) -> None:
    server, batches = station
    fields = {"processing_status": "ended", "results_url": "https://elsewhere.invalid/steal"}
    server.give(Give(batch(**fields)), Give(b'{"custom_id":"r-1"}\n'))
    found = batches.retrieve("msgbatch_1", Call())
    batches.download(found.result_files[0], tmp_path / "results", Call())
    assert [t.path for t in server.taken] == [f"{PATH}/msgbatch_1", f"{PATH}/msgbatch_1/results"]


def test_the_listing_goes_page_by_page_until_it_is_older(station: tuple[FileServer, Any]) -> None:
    server, batches = station
    days = {f"b{n}": f"2026-09-2{n}T00:00:00Z" for n in (5, 4, 3, 1)}
    entries = [batch(id=name, created_at=day) for name, day in days.items()]
    server.give(*(Give({"data": entries[i : i + 2], "has_more": True, "last_id": "x"}) for i in (0, 2)))
    since = 1_790_035_200.0  # 22 September 2026
    assert [b.id for b in batches.recent(since, CALL)] == ["b5", "b4", "b3"]
    assert [t.path for t in server.taken] == [f"{PATH}?limit=100", f"{PATH}?limit=100&after_id=b4"]


def test_a_batch_is_cancelled_by_its_id(station: tuple[FileServer, Any]) -> None:
    server, batches = station
    server.give(Give(batch(processing_status="canceling")))
    assert batches.cancel("msgbatch_1", CALL).state is BatchState.CANCELLING
    assert [(t.method, t.path) for t in server.taken] == [("POST", f"{PATH}/msgbatch_1/cancel")]


def test_cancelling_what_has_ended_gives_it_as_it_is(station: tuple[FileServer, Any]) -> None:
    server, batches = station
    server.give(error(400, message="already ended"), Give(batch(processing_status="ended")))
    assert batches.cancel("msgbatch_1", Call()).state.is_terminal


def test_there_is_no_upload_to_take_back(station: tuple[FileServer, Any]) -> None:
    server, batches = station
    server.give(Give({}))
    batches.delete_upload("", Call())
    assert not server.taken
