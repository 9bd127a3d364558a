"""OpenAI's Batch API: the lines that are written and read, each call as it goes over the wire, and what errors mean."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from batch_wire import FileServer, Give, batches_at
from scripted_server import CHAT_REPLY, body_of, provider_at

from lmsyz.errors import (
    MalformedError,
    ProviderError,
    RateLimitError,
    RejectedError,
    RequestError,
    TooLongError,
    UnavailableError,
    UsageError,
)
from lmsyz.providers import batches_of, wire
from lmsyz.providers.base import Call, Raw, dump_body
from lmsyz.providers.batches import BatchState, RemoteBatch, ResultFile

PROVIDER = wire("openai", api="chat", model="gpt-6-luna")
LINES = batches_of(PROVIDER)
CALL = Call(headers={"x-mine": "1"})


def batch(**fields: Any) -> dict[str, Any]:
    return {
        "id": "batch_1",
        "object": "batch",
        "endpoint": "/v1/chat/completions",
        "input_file_id": "file-1",
        "completion_window": "24h",
        "status": "validating",
        "created_at": 1_790_000_000,
        "expires_at": 1_790_086_400,
        "request_counts": {"total": 0, "completed": 0, "failed": 0},
        "errors": None,
        "output_file_id": None,
        "error_file_id": None,
        "metadata": {"lmsyz_intent": "abc"},
    } | fields


@pytest.fixture(scope="module")
def station() -> Iterator[tuple[FileServer, Any]]:
    with batches_at("openai", {}) as found:
        yield found


@pytest.fixture
def requests(tmp_path: Path) -> Path:
    path = tmp_path / "batch_1.jsonl"
    before, between, after = LINES.envelope
    lines = [LINES.request_line(f"r-{i}", body_of("openai", f"row {i}\u2028ü")) for i in range(3)]
    path.write_bytes(before + between.join(lines) + after)
    return path


def retrieved(station: tuple[FileServer, Any], **fields: Any) -> RemoteBatch:
    server, batches = station
    server.give(Give(batch(**fields)))
    return batches.retrieve("batch_1", Call())


def refused(station: tuple[FileServer, Any], *answers: Give, do: str = "create", about: tuple[Any, ...] = ()) -> Any:
    server, batches = station
    server.give(*answers)
    arguments = about or (Path("unused"), "file-1", {})
    with pytest.raises(ProviderError) as caught:
        getattr(batches, do)(*arguments, Call())
    return caught.value


def error(status: int, message: str = "what happened", **fields: Any) -> Give:
    return Give({"error": {"message": message, **fields}}, status=status)


# --- request lines ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("api", "url"), [("chat", "/v1/chat/completions"), ("responses", "/v1/responses")])
def test_a_line_holds_the_live_body_byte_for_byte(api: str, url: str) -> None:
    body = {"model": "m", "messages": [{"role": "user", "content": 'ü "\u2028"\n'}], "temperature": 0}
    line = batches_of(wire("openai", api=api, model="m")).request_line("r-1", body)
    assert json.loads(line) == {"custom_id": "r-1", "method": "POST", "url": url, "body": body}
    assert b',"body":' + dump_body(body).encode() + b"}" == line[line.index(b',"body":') :]
    assert b"\n" not in line


def test_a_live_body_goes_over_the_wire_as_it_stands_in_the_line(station: tuple[FileServer, Any]) -> None:
    body = body_of("openai", "ü \u2028 row")
    server, _ = station
    server.give(Give(CHAT_REPLY))
    with provider_at(server.url + "/v1", "openai") as provider:
        provider.send(body, Call())
    assert server.taken[0].raw in LINES.request_line("r-1", body)


def test_the_limits_are_openais() -> None:
    assert (LINES.limits.n_requests, LINES.limits.n_bytes) == (50_000, 200_000_000)
    assert LINES.keeps_metadata


# --- result lines -----------------------------------------------------------------------------------------------------


def result(response: object = None, error: object = None) -> Any:
    line = {"id": "batch_req_1", "custom_id": "r-1", "response": response, "error": error}
    found = LINES.read_result(json.dumps(line, ensure_ascii=False).encode())
    assert found.custom_id == "r-1"
    return found


def answered(body: object, status: object = 200) -> dict[str, Any]:
    return {"status_code": status, "request_id": "req_1", "body": body}


def test_a_reply_is_handed_on_for_the_live_parser() -> None:
    found = result(answered(CHAT_REPLY))
    assert (found.kind, found.reason, found.is_permanent, found.request_id) == ("reply", "", False, "req_1")
    assert PROVIDER.parse(found.reply) == PROVIDER.parse(json.dumps(CHAT_REPLY))


@pytest.mark.parametrize(
    "response", [answered(json.dumps(CHAT_REPLY)), {"body": CHAT_REPLY}, answered(CHAT_REPLY, "200")]
)
def test_a_reply_in_a_servers_own_dress_is_a_reply(response: dict[str, Any]) -> None:
    found = result(response)
    assert json.loads(found.reply) == CHAT_REPLY


def test_a_reply_with_line_separators_and_half_characters_is_whole() -> None:
    line = json.dumps({"custom_id": "r-1", "response": {"status_code": 200, "body": {"a": "\u2028\u0085", "b": 1}}})
    plain = LINES.read_result(json.dumps(json.loads(line), ensure_ascii=False).encode()).reply
    assert plain == '{"a":"\u2028\u0085","b":1}'
    half = LINES.read_result(b'{"custom_id":"r-1","response":{"body":{"a":"\\ud83d"}}}').reply
    assert half is not None
    assert half.encode() == b'{"a":"\\ud83d"}'


@pytest.mark.parametrize(
    ("body", "status", "is_permanent", "reason"),
    [
        ({"error": {"message": "bad", "code": "invalid_value", "param": "messages"}}, 400, True, "failed: .* 400: bad"),
        ({"error": {"message": "too long", "code": "context_length_exceeded"}}, 400, True, "failed: .*too long"),
        ({"error": {"message": "no", "code": "content_filter"}}, 400, True, "refused: .*no"),
        ({"error": {"message": "no such model", "code": "model_not_found"}}, 404, True, "failed: .*check model="),
        ({"error": {"message": "slow", "code": "rate_limit_exceeded"}}, 429, False, "failed: .*slow"),
        ({"error": {"message": "pay", "code": "insufficient_quota"}}, 429, True, "failed: .*no credit"),
        ({"error": {"message": "key sk-proj-abcdefghijk"}}, 401, False, r"failed: .*key \(key\)"),
        ({"error": {"message": "oops"}}, 500, False, "failed: .*oops"),
        ('{"error": {"message": "quoted"}}', 500, False, "failed: .*quoted"),
        ("upstream went away", 502, False, "failed: .*upstream went away"),
        (None, 503, False, "failed: openai answered 503"),
    ],
)
def test_a_request_that_failed_says_why_and_whether_for_good(
    body: object, status: int, is_permanent: bool, reason: str
) -> None:
    found = result(answered(body, status))
    assert (found.reply, found.kind, found.is_permanent, found.request_id) == (None, "error", is_permanent, "req_1")
    assert re.match(reason, found.reason)


@pytest.mark.parametrize(
    ("given", "kind", "is_permanent", "reason"),
    [
        ({"code": "batch_expired", "message": "too late"}, "expired", False, "failed: batch_expired: too late"),
        ({"code": "batch_cancelled", "message": "gone"}, "cancelled", False, "cancelled: batch_cancelled: gone"),
        ({"code": "server_error", "message": "oops"}, "error", False, "failed: server_error: oops"),
        ({"code": "invalid_request", "message": "bad"}, "error", True, "failed: invalid_request: bad"),
        ({"message": "just words"}, "error", False, "failed: just words"),
        ("a word", "error", False, "failed: a word"),
        (None, "error", False, "failed: the result holds neither a reply nor an error"),
    ],
)
def test_a_request_that_was_never_answered_says_why(given: object, kind: str, is_permanent: bool, reason: str) -> None:
    found = result(None, given)
    assert (found.reply, found.kind, found.is_permanent, found.reason) == (None, kind, is_permanent, reason)


@pytest.mark.parametrize("body", ["no json", [1], None, 7])
def test_a_success_without_a_body_is_a_failure(body: object) -> None:
    assert result(answered(body)).reason == "failed: the result holds neither a reply nor an error"


@pytest.mark.parametrize(
    "line", [b"", b"{", b"[]", b'{"id":"x"}', b'{"custom_id":7}', b'{"custom_id":""}', b"\xff", b"[" * 5000]
)
def test_a_line_that_is_no_result_is_said_to_be_none(line: bytes) -> None:
    with pytest.raises(MalformedError, match="not a line of batch results"):
        LINES.read_result(line)


# --- calls ------------------------------------------------------------------------------------------------------------


def test_an_upload_is_a_form_with_the_files_own_bytes(station: tuple[FileServer, Any], requests: Path) -> None:
    server, batches = station
    server.give(Give({"id": "file-1", "object": "file"}))
    assert batches.upload(requests, CALL) == "file-1"
    (asked,) = server.taken
    assert (asked.method, asked.path, asked.headers["x-mine"]) == ("POST", "/v1/files", "1")
    boundary = asked.headers["content-type"].partition("boundary=")[2].encode()
    parts = [p.partition(b"\r\n\r\n") for p in asked.raw.split(b"--" + boundary)[1:-1]]
    assert [(b'name="purpose"' in p[0], b'name="file"; filename="batch_1.jsonl"' in p[0]) for p in parts] == [
        (True, False),
        (False, True),
    ]
    assert [p[2] for p in parts] == [b"batch\r\n", requests.read_bytes() + b"\r\n"]


def test_a_batch_is_created_with_our_metadata(station: tuple[FileServer, Any]) -> None:
    server, batches = station
    server.give(Give(batch()))
    found = batches.create(Path("unused"), "file-1", {"lmsyz_intent": "abc"}, CALL)
    assert server.taken[0].path == "/v1/batches"
    assert server.taken[0].body == {
        "input_file_id": "file-1",
        "endpoint": "/v1/chat/completions",
        "completion_window": "24h",
        "metadata": {"lmsyz_intent": "abc"},
    }
    assert found == RemoteBatch(
        id="batch_1",
        state=BatchState.VALIDATING,
        n_total=0,
        n_ok=0,
        n_failed=0,
        created=1_790_000_000.0,
        expires=1_790_086_400.0,
        metadata={"lmsyz_intent": "abc"},
    )


@pytest.mark.parametrize(
    "answer",
    [
        error(500, "1 validation error in schema"),
        error(502),
        error(503),
        error(529),
        error(408),
        error(409),
        Give(drop=True),
        Give(batch(), cut=20),
        Give(b"<html>proxy</html>"),
        Give([]),
        Give({"error": {"message": "late", "code": 400}}),
    ],
)
def test_a_create_of_which_nobody_knows_is_unavailable_and_tried_once(
    station: tuple[FileServer, Any], answer: Give
) -> None:
    assert type(refused(station, answer)) is UnavailableError
    assert len(station[0].taken) == 1


def test_a_create_without_an_answer_in_time_is_unavailable(station: tuple[FileServer, Any]) -> None:
    server, batches = station
    server.give(Give(batch(), stall=True))
    with pytest.raises(UnavailableError):
        batches.create(Path("unused"), "file-1", {}, Call(deadline_s=0.2, is_asked_for=True))
    assert len(server.taken) == 1


@pytest.mark.parametrize(
    ("answer", "kind"),
    [
        (error(400, param="endpoint"), RejectedError),
        (error(400), RequestError),
        (error(401), RejectedError),
        (error(402), RejectedError),
        (error(403), RejectedError),
        (error(404), RequestError),
        (error(413), TooLongError),
        (error(429, code="rate_limit_exceeded"), RateLimitError),
        (error(429, code="insufficient_quota"), RejectedError),
        (error(400, code="token_limit_exceeded"), RateLimitError),
    ],
)
def test_a_create_that_was_refused_is_known_to_be_none(
    station: tuple[FileServer, Any], answer: Give, kind: type[ProviderError]
) -> None:
    caught = refused(station, answer)
    assert type(caught) is kind
    assert caught.status == answer.status


def test_an_input_file_that_is_gone_is_named(station: tuple[FileServer, Any]) -> None:
    caught = refused(station, error(404))
    assert caught.status == 404
    assert "the input file file-1 is not there" in str(caught)


@pytest.mark.parametrize(
    ("do", "about"),
    [
        ("retrieve", ("batch_1",)),
        ("cancel", ("batch_1",)),
        ("download", (ResultFile(kind="output", remote="batch_1"), Path("x"))),
    ],
)
def test_what_is_not_there_is_told_by_its_status(
    station: tuple[FileServer, Any], do: str, about: tuple[Any, ...]
) -> None:
    caught = refused(station, error(404, "no such thing", type="invalid_request_error"), do=do, about=about)
    assert (type(caught), caught.status) == (RequestError, 404)
    assert "batch_1 is not there" in str(caught)


@pytest.mark.parametrize("state", list(BatchState))
def test_every_state_is_read(station: tuple[FileServer, Any], state: BatchState) -> None:
    found = retrieved(station, status=str(state), output_file_id="file-o", error_file_id="file-e")
    assert found.state is state
    both = (ResultFile(kind="output", remote="file-o"), ResultFile(kind="error", remote="file-e"))
    assert found.result_files == (both if state.is_terminal else ())
    assert state.is_terminal == (state in ("completed", "failed", "expired", "cancelled"))


@pytest.mark.parametrize(
    ("word", "state"),
    [("canceled", BatchState.CANCELLED), ("Completed", BatchState.COMPLETED), ("queued", BatchState.IN_PROGRESS)],
)
def test_other_servers_words_are_understood(station: tuple[FileServer, Any], word: str, state: BatchState) -> None:
    assert retrieved(station, status=word).state is state


@pytest.mark.parametrize(
    ("output", "errors", "kinds"),
    [
        (None, "file-e", ["error"]),
        ("file-o", "", ["output"]),
        ("", None, []),
        ("file-o", "file-e", ["output", "error"]),
    ],
)
def test_any_of_the_two_files_may_be_missing(
    station: tuple[FileServer, Any], output: object, errors: object, kinds: list[str]
) -> None:
    found = retrieved(station, status="completed", output_file_id=output, error_file_id=errors)
    assert [f.kind for f in found.result_files] == kinds


def test_a_refused_file_names_its_lines(station: tuple[FileServer, Any]) -> None:
    data = [{"code": "invalid_json_line", "line": 3, "message": "no json", "param": None}, {"code": None}]
    found = retrieved(station, status="failed", errors={"object": "list", "data": data}, failed_at=1_790_000_100)
    assert [(p.code, p.message, p.line) for p in found.problems] == [
        ("invalid_json_line", "no json", 3),
        ("", "", None),
    ]
    assert (found.ended, found.is_over_token_limit) == (1_790_000_100.0, False)


def test_too_many_waiting_tokens_are_no_failure_for_good(station: tuple[FileServer, Any]) -> None:
    errors = {"data": [{"code": "token_limit_exceeded", "message": "Enqueued token limit reached"}]}
    assert retrieved(station, status="failed", errors=errors).is_over_token_limit
    assert not retrieved(station, status="in_progress", errors=errors).is_over_token_limit


def test_a_batch_told_with_the_least_is_a_batch(station: tuple[FileServer, Any]) -> None:
    server, batches = station
    server.give(Give({"id": "batch_1", "status": None, "metadata": None, "created_at": "2026-09-21T14:13:20Z"}))
    found = batches.retrieve("batch_1", Call())
    assert found == RemoteBatch(id="batch_1", state=BatchState.IN_PROGRESS, created=1_790_000_000.0)


def test_an_id_stays_within_its_place_in_the_path(station: tuple[FileServer, Any]) -> None:
    server, batches = station
    server.give(Give(batch()))
    batches.retrieve("../files?x", Call())
    assert server.taken[0].path == "/v1/batches/..%2Ffiles%3Fx"
    for remote in ("", ".."):
        with pytest.raises(UsageError, match="no id"):
            batches.retrieve(remote, Call())


def test_the_listing_goes_page_by_page_until_it_is_older(station: tuple[FileServer, Any]) -> None:
    server, batches = station
    pages = [
        {"data": [batch(id="b5", created_at=50), batch(id="b4", created_at=40)], "has_more": True},
        {"data": [batch(id="b3", created_at=30), batch(id="b1", created_at=10)], "has_more": True},
        {"data": [batch(id="b0", created_at=5)], "has_more": False},
    ]
    server.give(*map(Give, pages))
    assert [b.id for b in batches.recent(20.0, CALL)] == ["b5", "b4", "b3"]
    assert [t.path for t in server.taken] == ["/v1/batches?limit=100", "/v1/batches?limit=100&after=b4"]


@pytest.mark.parametrize("more", [{"data": [batch()], "has_more": True}, {"data": [], "has_more": True}, {}])
def test_a_listing_without_end_ends(station: tuple[FileServer, Any], more: dict[str, Any]) -> None:
    server, batches = station
    server.give(Give(more))
    assert {b.id for b in batches.recent(0.0, Call())} <= {"batch_1"}
    assert len(server.taken) <= 2


def test_a_batch_is_cancelled_by_its_id(station: tuple[FileServer, Any]) -> None:
    server, batches = station
    server.give(Give(batch(status="cancelling")))
    assert batches.cancel("batch_1", CALL).state is BatchState.CANCELLING
    assert [(t.method, t.path) for t in server.taken] == [("POST", "/v1/batches/batch_1/cancel")]


@pytest.mark.parametrize("status", [400, 409])
def test_cancelling_what_has_ended_gives_it_as_it_is(station: tuple[FileServer, Any], status: int) -> None:
    server, batches = station
    server.give(error(status, "cannot cancel a completed batch"), Give(batch(status="completed")))
    assert batches.cancel("batch_1", Call()).state is BatchState.COMPLETED


@pytest.mark.parametrize("status", [400, 409])
def test_a_cancel_that_fails_while_it_runs_is_an_error(station: tuple[FileServer, Any], status: int) -> None:
    caught = refused(station, error(status), Give(batch(status="in_progress")), do="cancel", about=("batch_1",))
    assert caught.status == status


def test_an_upload_is_taken_back_or_left(station: tuple[FileServer, Any]) -> None:
    server, batches = station
    server.give(Give({"id": "file-1", "deleted": True}), error(500))
    batches.delete_upload("file-1", Call())
    batches.delete_upload("file-1", Call())
    assert [(t.method, t.path) for t in server.taken] == [("DELETE", "/v1/files/file-1")] * 2


def test_no_error_shows_the_key(station: tuple[FileServer, Any]) -> None:
    caught = refused(station, error(401, "Incorrect key: sk-test-0123456789abcdef"))
    assert "sk-test" not in str(caught)


def test_a_provider_without_a_client_only_reads_and_writes() -> None:
    with pytest.raises(UsageError, match="connect"):
        LINES.retrieve("batch_1", Call())


def test_a_provider_of_someone_elses_has_no_batches() -> None:
    class Other:
        name = "other"

        def send(self, body: dict[str, Any], call: Call) -> Raw:
            raise NotImplementedError

    with pytest.raises(UsageError, match="Other has no batch API"):
        batches_of(Other())  # type: ignore[arg-type]
