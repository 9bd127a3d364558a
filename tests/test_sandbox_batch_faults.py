"""Every fault of batches and files as the real SDK clients see it, and what it costs."""

from __future__ import annotations

import json
import time
from collections import Counter
from collections.abc import Iterator
from typing import Any

import anthropic
import openai
import pytest
from sandbox_batches import ENDPOINT, body, create, ended, line, lines_of, output_of, requests, results_of, upload
from sandbox_http import ANTHROPIC, OPENAI, call, messages_body, row_schema, rows

from lmsyz.errors import SandboxError, UsageError
from lmsyz.sandbox import Faults

DIGEST = row_schema({"digest": {"type": "string"}})


@pytest.fixture
def server(sandbox: Any) -> Any:
    """The sandbox, with batches that take a hundred seconds of a clock that only a test moves on."""
    sandbox.set_faults(batch_s=100)
    return sandbox


@pytest.fixture
def gpt(server: Any) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(api_key="k", base_url=server.openai_base_url, max_retries=0) as client:
        yield client


@pytest.fixture
def claude(server: Any) -> Iterator[anthropic.Anthropic]:
    with anthropic.Anthropic(api_key="k", base_url=server.anthropic_base_url, max_retries=0) as client:
        yield client


def asked(n: int, **changes: Any) -> list[str]:
    """Lines of n requests of two rows each, all different."""
    return [line(f"r{i}", body=body(rows(f"first {i}", f"second {i}"), DIGEST, **changes)) for i in range(n)]


def asked_of_anthropic(n: int) -> list[Any]:
    texts = [rows(f"first {i}", f"second {i}") for i in range(n)]
    return [{"custom_id": f"r{i}", "params": messages_body(text, DIGEST)} for i, text in enumerate(texts)]


# --- batches that end otherwise -------------------------------------------------------------------------------------


def test_an_expired_openai_batch_keeps_what_it_had_done(server: Any, gpt: Any) -> None:
    server.set_faults(batch_s=100, batch_expires_at=0.6)
    batch = ended(server, gpt, create(gpt, *asked(20)))
    counts = batch.request_counts
    assert (batch.status, counts.total, counts.completed, counts.failed) == ("expired", 20, 12, 0)
    assert batch.expired_at == batch.expires_at
    done = {x["custom_id"] for x in lines_of(gpt, batch.output_file_id)}
    rest = lines_of(gpt, batch.error_file_id)
    assert done == {f"r{i}" for i in range(12)}
    assert {x["custom_id"] for x in rest} == {f"r{i}" for i in range(12, 20)}
    assert {(x["response"], x["error"]["code"]) for x in rest} == {(None, "batch_expired")}
    stats = server.stats()
    assert (stats["n_batch_rows"], stats["n_batch_rows_paid"]) == (40, 24)


def test_an_expired_anthropic_batch_keeps_what_it_had_done(server: Any, claude: Any) -> None:
    server.set_faults(batch_s=100, batch_expires_at=0.6)
    batch = claude.messages.batches.create(requests=asked_of_anthropic(20))
    batch = ended_of(server, claude, batch)
    assert (batch.request_counts.succeeded, batch.request_counts.expired) == (12, 8)
    assert batch.expires_at == batch.ended_at
    assert Counter(r.type for r in results_of(claude, batch).values()) == {"succeeded": 12, "expired": 8}
    assert server.stats()["n_batch_rows_paid"] == 24


def ended_of(server: Any, client: Any, batch: Any) -> Any:
    server.advance(100)
    return client.messages.batches.retrieve(batch.id)


def test_a_batch_can_fail_after_its_creation_with_any_code(server: Any, gpt: Any) -> None:
    server.set_faults(batch_s=100, batch_failed="invalid_json_line")
    batch = create(gpt, *asked(2))
    assert batch.status == "validating"
    server.set_faults(batch_s=100)
    batch = ended(server, gpt, batch)
    assert (batch.status, batch.errors.data[0].code) == ("failed", "invalid_json_line")
    assert [b["custom_ids"] for b in server.batches()] == [[]]
    assert server.stats()["n_batch_rows"] == 0


def test_more_batches_at_once_than_fit_fail_and_fit_once_there_is_room(server: Any, gpt: Any) -> None:
    server.set_faults(batch_s=100, token_limit_batches=2)
    ids = [create(gpt, line("a")).id for _ in range(3)]
    server.advance(50)
    batches = [gpt.batches.retrieve(batch_id) for batch_id in ids]
    assert [b.status for b in batches] == ["in_progress", "in_progress", "failed"]
    assert batches[2].errors.data[0].code == "token_limit_exceeded"
    server.advance(50)
    assert ended(server, gpt, create(gpt, line("a"))).status == "completed"


def test_used_up_credit_stops_batches_each_apis_own_way(server: Any, gpt: Any, claude: Any) -> None:
    server.set_faults(batch_s=100, out_of_quota=True)
    batch = ended(server, gpt, create(gpt, line("a")))
    assert (batch.status, batch.errors.data[0].code) == ("failed", "billing_hard_limit_reached")
    with pytest.raises(anthropic.RateLimitError) as caught:
        claude.messages.batches.create(requests=requests("a"))
    assert "enforced_spend_limit_reached" in str(caught.value.body)  # the oldest SDK has no attribute for it
    assert server.stats()["n_rows_paid"] == 0


# --- requests that end otherwise ------------------------------------------------------------------------------------


def test_errors_of_requests_come_in_every_shape_and_cost_nothing(server: Any, gpt: Any) -> None:
    server.set_faults(batch_s=100, batch_errors=0.5)
    batch = ended(server, gpt, create(gpt, *asked(60)))
    done, failed = lines_of(gpt, batch.output_file_id), lines_of(gpt, batch.error_file_id)
    assert 15 < len(failed) < 45
    assert {x["custom_id"] for x in done + failed} == {f"r{i}" for i in range(60)}
    assert (batch.request_counts.completed, batch.request_counts.failed) == (len(done), len(failed))
    shapes = {(x["response"] or {}).get("status_code"): x for x in failed}
    assert shapes.keys() == {None, 400, 500}
    assert shapes[None]["error"]["code"] == "server_error"
    assert shapes[500]["response"]["body"]["error"]["type"] == "server_error"
    assert server.stats()["n_batch_rows_paid"] == 2 * len(done)


def test_anthropics_errors_of_requests_pass_or_last(server: Any, claude: Any) -> None:
    server.set_faults(batch_s=100, batch_errors=0.5)
    batch = ended_of(server, claude, claude.messages.batches.create(requests=asked_of_anthropic(60)))
    failed = [r.error for r in results_of(claude, batch).values() if r.type == "errored"]
    assert len(failed) == batch.request_counts.errored
    assert {e.error.type for e in failed} == {"api_error", "invalid_request_error"}
    assert all(e.request_id for e in failed)


def test_a_request_that_failed_in_one_batch_can_succeed_in_the_next(server: Any, gpt: Any) -> None:
    server.set_faults(batch_s=100, batch_errors=0.5)
    failed = []
    for _ in range(2):
        batch = ended(server, gpt, create(gpt, *asked(20)))
        failed.append({x["custom_id"] for x in lines_of(gpt, batch.error_file_id)})
    assert failed[0] - failed[1]
    server.reset()
    server.set_faults(batch_s=100, batch_errors=0.5)
    batch = ended(server, gpt, create(gpt, *asked(20)))
    assert {x["custom_id"] for x in lines_of(gpt, batch.error_file_id)} == failed[0]


def test_a_batch_without_one_success_names_no_output_file(server: Any, gpt: Any) -> None:
    server.set_faults(batch_s=100, error_file_only=True)
    batch = ended(server, gpt, create(gpt, *asked(4)))
    assert (batch.status, batch.output_file_id, batch.request_counts.failed) == ("completed", None, 4)
    assert len(lines_of(gpt, batch.error_file_id)) == 4
    assert server.stats()["n_batch_rows_paid"] == 0


def test_results_come_in_another_order_and_some_twice_or_under_foreign_ids(server: Any, gpt: Any, claude: Any) -> None:
    ids = [x["custom_id"] for x in output_of(server, gpt, create(gpt, *asked(30)))]
    assert ids != sorted(ids, key=lambda x: int(x[1:]))
    server.set_faults(batch_s=100, batch_duplicated=0.3, batch_foreign=0.3)
    batch = create(gpt, *asked(30))
    other = claude.messages.batches.create(requests=asked_of_anthropic(30))
    found = Counter(x["custom_id"] for x in output_of(server, gpt, batch))
    assert {n for custom_id, n in found.items() if custom_id.startswith("r")} == {1, 2}
    assert any(custom_id.startswith("foreign-") for custom_id in found)
    assert len([custom_id for custom_id in found if custom_id.startswith("r")]) == 30
    told = Counter(r.custom_id for r in claude.messages.batches.results(other.id))
    assert max(told.values()) == 2
    assert any(custom_id.startswith("foreign-") for custom_id in told)
    assert gpt.batches.retrieve(batch.id).request_counts.completed == 30
    assert server.stats()["n_batch_rows_paid"] == 3 * 60
    assert {"batch_duplicated", "batch_foreign"} <= server.stats()["n_faults"].keys()


@pytest.mark.parametrize("kind", ["malformed", "truncated", "missing", "duplicated", "swapped", "foreign", "refused"])
def test_faults_of_replies_and_rows_fall_in_batches_as_they_do_live(server: Any, gpt: Any, kind: str) -> None:
    server.set_faults(batch_s=100, **{kind: 1.0})
    (found,) = output_of(server, gpt, create(gpt, *asked(1)))
    choice = found["response"]["body"]["choices"][0]
    live = call(server.url, "POST", ENDPOINT, json.loads(asked(1)[0])["body"], OPENAI).body["choices"][0]
    assert choice["finish_reason"] == live["finish_reason"]
    assert (choice["message"]["refusal"] is None) == (live["message"]["refusal"] is None)
    assert server.stats()["n_faults"][kind] >= 2
    assert server.stats()["n_rows_paid"] == 4


def test_forms_and_sizes_that_are_not_taken_are_errors_of_their_requests(server: Any, gpt: Any) -> None:
    server.set_faults(batch_s=100, refused_forms=("json_schema",))
    batch = ended(server, gpt, create(gpt, *asked(1)))
    (found,) = lines_of(gpt, batch.error_file_id)
    assert found["response"]["body"]["error"]["param"] == "response_format"
    server.set_faults(batch_s=100, context_tokens=10)
    batch = ended(server, gpt, create(gpt, *asked(1)))
    (found,) = lines_of(gpt, batch.error_file_id)
    assert found["response"]["body"]["error"]["code"] == "context_length_exceeded"


# --- answers and bytes that are lost --------------------------------------------------------------------------------


def test_a_create_can_be_heard_by_the_server_alone(server: Any, gpt: Any, claude: Any) -> None:
    server.set_faults(batch_s=100, create_timeout=1.0)
    file_id = upload(gpt, line("a"))
    caught: list[Exception] = []
    for _ in range(6):
        for send in (
            lambda: gpt.batches.create(input_file_id=file_id, endpoint=ENDPOINT, completion_window="24h"),
            lambda: claude.messages.batches.create(requests=requests("a")),
        ):
            with pytest.raises((openai.APIError, anthropic.APIError)) as error:
                send()
            caught.append(error.value)
    assert {getattr(e, "status_code", None) for e in caught} == {None, 504}
    assert len(list(gpt.batches.list())) == len(list(claude.messages.batches.list())) == 6
    assert server.stats()["n_batches_created"] == 12


def test_an_upload_can_be_heard_by_the_server_alone(server: Any, gpt: Any) -> None:
    server.set_faults(upload_dropped=1.0)
    with pytest.raises(openai.APIConnectionError):
        upload(gpt, line("a"))
    assert len(list(gpt.files.list())) == server.stats()["n_uploads"] == 1


def test_a_new_batch_is_not_found_at_first(server: Any, gpt: Any, claude: Any) -> None:
    server.set_faults(batch_s=100, not_found_after_create=2)
    ids = create(gpt, line("a")).id, claude.messages.batches.create(requests=requests("a")).id
    for _ in range(2):
        with pytest.raises(openai.NotFoundError):
            gpt.batches.retrieve(ids[0])
        with pytest.raises(anthropic.NotFoundError):
            claude.messages.batches.retrieve(ids[1])
    assert (gpt.batches.retrieve(ids[0]).id, claude.messages.batches.retrieve(ids[1]).id) == ids


def test_a_download_can_break_off_and_be_gone_on_with(server: Any, gpt: Any, claude: Any) -> None:
    batch = ended(server, gpt, create(gpt, *asked(20)))
    other = claude.messages.batches.create(requests=asked_of_anthropic(20))
    whole = gpt.files.content(batch.output_file_id).content
    server.set_faults(broken_download=1.0)
    with pytest.raises(openai.APIConnectionError):
        gpt.files.content(batch.output_file_id)
    server.advance(100)
    with pytest.raises(Exception, match="peer closed connection"):  # the transport's own: the SDK does not map it
        results_of(claude, other)
    server.set_faults()
    path = f"/v1/files/{batch.output_file_id}/content"
    part = call(server.url, "GET", path, None, OPENAI | {"range": "bytes=100-"})
    assert (part.status, part.body.encode()) == (206, whole[100:])
    assert part.headers["content-range"] == f"bytes 100-{len(whole) - 1}/{len(whole)}"
    assert call(server.url, "GET", path, None, OPENAI | {"range": f"bytes={len(whole)}-"}).status == 416
    assert server.stats()["n_downloads"] == 5


def test_a_download_can_be_slow_and_holds_up_nobody_else(server: Any, gpt: Any) -> None:
    batch = ended(server, gpt, create(gpt, *asked(4)))
    server.set_faults(slow_download_bytes_s=20_000)
    started = time.monotonic()
    with gpt.files.with_streaming_response.content(batch.output_file_id) as response:
        pieces = response.iter_bytes(256)
        n_bytes = len(next(pieces))
        assert gpt.batches.retrieve(batch.id).status == "completed"
        n_bytes += sum(map(len, pieces))
    assert n_bytes == gpt.files.retrieve(batch.output_file_id).bytes
    assert time.monotonic() - started > n_bytes / 20_000  # never less, however fast the machine is


def test_results_past_their_retention_are_gone(server: Any, gpt: Any, claude: Any) -> None:
    batch = ended(server, gpt, create(gpt, line("a")))
    other = ended_of(server, claude, claude.messages.batches.create(requests=requests("a")))
    server.set_faults(results_gone=True)
    with pytest.raises(openai.NotFoundError):
        gpt.files.content(batch.output_file_id)
    assert gpt.files.content(batch.input_file_id).content
    archived = claude.messages.batches.retrieve(other.id)
    assert (archived.results_url, archived.archived_at is not None) == (None, True)


@pytest.mark.parametrize(("kind", "status"), [("rate_limited", 429), ("overloaded", 503), ("server_error", 500)])
def test_faults_of_requests_fall_on_every_endpoint_and_nothing_is_done(
    server: Any, gpt: Any, claude: Any, kind: str, status: int
) -> None:
    file_id = upload(gpt, line("a"))
    server.set_faults(**{kind: 1.0}, retry_after_s=2)
    for ask in (
        lambda: upload(gpt, *asked(2000)),
        lambda: gpt.batches.create(input_file_id=file_id, endpoint=ENDPOINT, completion_window="24h"),
        lambda: gpt.batches.list(),
        lambda: gpt.files.content(file_id),
    ):
        with pytest.raises(openai.APIStatusError) as caught:
            ask()
        assert caught.value.status_code == status
        assert (caught.value.response.headers.get("retry-after") == "2") == (kind == "rate_limited")
    with pytest.raises(anthropic.APIStatusError):
        claude.messages.batches.create(requests=requests("a"))
    stats = server.stats()
    assert (stats["n_uploads"], stats["n_batches"], stats["n_faults"]) == (1, 0, {kind: 5})


def test_a_dropped_poll_is_a_connection_error(server: Any, gpt: Any, claude: Any) -> None:
    batch = create(gpt, line("a"))
    server.set_faults(dropped=1.0)
    with pytest.raises(openai.APIConnectionError):
        gpt.batches.retrieve(batch.id)
    with pytest.raises(anthropic.APIConnectionError):
        claude.messages.batches.list()


# --- what a test can know -------------------------------------------------------------------------------------------


def test_the_oracle_tells_who_sent_and_paid_for_what_how_often(server: Any, gpt: Any, claude: Any) -> None:
    server.set_faults(batch_s=100, batch_expires_at=0.5)
    create(gpt, *asked(4))
    create(gpt, "not json")
    claude.messages.batches.create(requests=asked_of_anthropic(2))
    call(server.url, "POST", "/v1/messages", messages_body(rows("first 0"), DIGEST), ANTHROPIC)
    told = {(r["row_id"], r["digest"]): r for r in server.batch_rows()}
    assert {(r["n_taken"], r["n_paid"]) for r in told.values()} == {(1, 0), (2, 0)}
    server.advance(100)
    told = {(r["row_id"], r["digest"]): (r["n_taken"], r["n_paid"], r["custom_ids"]) for r in server.batch_rows()}
    assert len(told) == 8
    assert sorted(told.values()) == sorted(
        2 * [(2, 2, ["r0", "r0"]), (2, 1, ["r1", "r1"]), (1, 0, ["r2"]), (1, 0, ["r3"])]
    )
    stats = server.stats()
    assert (stats["n_rows"], stats["n_batch_rows_paid"], stats["n_rows_paid"]) == (1, 6, 7)
    assert stats["batch_rows_paid"] == {"first 0": 2, "second 0": 2, "first 1": 1, "second 1": 1}
    batches = server.batches()
    assert [(b["api"], b["state"], b["n_rows_paid"]) for b in batches] == [
        ("messages", "expired", 2),
        ("chat", "failed", 0),
        ("chat", "expired", 4),
    ]
    assert batches[2]["custom_ids"] == ["r0", "r1", "r2", "r3"]
    assert batches[2]["counts"] == {"succeeded": 2, "expired": 2}


def test_lone_surrogates_and_odd_ids_come_back_as_they_were_sent(server: Any, gpt: Any) -> None:
    text, custom_id = "a \ud83d b", "id \u2028 \ud83d"
    batch = create(gpt, line(custom_id, body=body(rows(text), DIGEST)))
    (found,) = output_of(server, gpt, batch)
    assert found["custom_id"] == custom_id
    assert server.stats()["batch_rows_paid"] == {text: 1}


@pytest.mark.parametrize(
    "wrong",
    [
        {"batch_s": -1},
        {"batch_s": 90_000},
        {"batch_expires_at": 1.5},
        {"batch_failed": 3},
        {"token_limit_batches": 1.5},
        {"not_found_after_create": -1},
        {"not_found_after_create": True},
        {"error_file_only": 1},
        {"create_timeout": 2},
        {"slow_download_bytes_s": 0},
    ],
)
def test_a_fault_out_of_range_is_refused_by_name(wrong: dict[str, Any]) -> None:
    with pytest.raises(UsageError, match=next(iter(wrong))):
        Faults(**wrong)


@pytest.mark.parametrize("seconds", [-1, float("inf"), float("nan")])
def test_the_clock_goes_forward_only(server: Any, seconds: float) -> None:
    with pytest.raises(SandboxError, match="seconds"):
        server.advance(seconds)
