"""The sandbox's OpenAI files and batches through the real SDK client: as strict as the real ones."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import anthropic
import openai
import pytest
from sandbox_batches import (
    ENDPOINT,
    body,
    create,
    ended,
    line,
    lines_of,
    output_of,
    requests,
    upload,
)
from sandbox_http import OPENAI, call, responses_body, row_schema, rows

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


def test_an_openai_batch_goes_through_its_states_and_ends_with_an_output_file(server: Any, gpt: Any) -> None:
    batch = create(gpt, line("a"), line("b"), metadata={"mine": "yes"})
    assert (batch.status, batch.metadata, batch.output_file_id) == ("validating", {"mine": "yes"}, None)
    assert (batch.expires_at - batch.created_at, batch.request_counts.total) == (86400, 0)
    seen = []
    for seconds in (20, 25, 50, 10):
        server.advance(seconds)
        batch = gpt.batches.retrieve(batch.id)
        seen.append((batch.status, batch.request_counts.total, batch.request_counts.completed))
        assert (batch.in_progress_at is not None, batch.finalizing_at is not None) == (True, seconds in (50, 10))
    assert seen == [("in_progress", 2, 0), ("in_progress", 2, 0), ("finalizing", 2, 2), ("completed", 2, 2)]
    assert (batch.completed_at - batch.created_at, batch.error_file_id, batch.model) == (100, None, "sandbox-rules")
    assert batch.in_progress_at < batch.finalizing_at < batch.completed_at
    lines = lines_of(gpt, batch.output_file_id)
    assert sorted(x["custom_id"] for x in lines) == ["a", "b"]
    replies = [x["response"]["body"] for x in lines]
    assert all(x["error"] is None and x["response"]["status_code"] == 200 for x in lines)
    assert batch.usage.total_tokens == sum(r["usage"]["total_tokens"] for r in replies) > 0
    assert gpt.files.retrieve(batch.output_file_id).purpose == "batch_output"
    assert server.stats()["n_batch_rows_paid"] == 2


def test_a_batch_of_responses_is_answered_by_the_responses_endpoint(server: Any, gpt: Any) -> None:
    asked = responses_body(rows("Good.", "Bad."), DIGEST)
    batch = create(gpt, line("a", url="/v1/responses", body=asked), endpoint="/v1/responses")
    (found,) = output_of(server, gpt, batch)
    live = call(server.url, "POST", "/v1/responses", asked, OPENAI).body
    assert found["response"]["body"]["output"][0]["content"] == live["output"][0]["content"]


@pytest.mark.parametrize(
    ("lines", "problem"),
    [
        (["not json"], ("invalid_json_line", 1, None)),
        (["[1]"], ("invalid_json_line", 1, None)),
        ([line("a"), line("a")], ("duplicate_custom_id", 2, "custom_id")),
        ([line("a"), line("b", url="/v1/responses")], ("url_mismatch", 2, "url")),
        ([line("a", method="GET")], ("invalid_method", 1, "method")),
        ([line("a"), line("b", body=body(model="sandbox-rules-mini"))], ("model_mismatch", 2, "body.model")),
        ([line("a", body=body(model="gpt-none"))], ("model_not_found", 1, "body.model")),
        ([line("a", body="text")], ("missing_required_parameter", 1, "body")),
        (['{"method": "POST"}'], ("missing_required_parameter", 1, "custom_id")),
        (["", " "], ("empty_file", None, None)),
    ],
)
def test_a_bad_input_file_is_a_created_batch_that_fails(
    server: Any, gpt: Any, lines: list[str], problem: tuple[str, int | None, str | None]
) -> None:
    batch = create(gpt, *lines)
    assert (batch.status, batch.errors) == ("validating", None)
    batch = ended(server, gpt, batch)
    error = batch.errors.data[0]
    assert (batch.status, error.code, error.line, error.param) == ("failed", *problem)
    assert error.message
    assert (batch.failed_at is not None, batch.output_file_id, batch.error_file_id) == (True, None, None)
    assert batch.request_counts.total == 0
    stats = server.stats()
    assert (stats["n_batch_rows"], stats["n_batch_rows_paid"]) == (0, 0)


def test_more_requests_than_a_batch_may_have_fail_it(server: Any, gpt: Any) -> None:
    small = line("0", body={"model": "sandbox-rules"})
    file_id = upload(gpt, *(small.replace('"0"', f'"{i}"') for i in range(50_001)))
    about = {"endpoint": ENDPOINT, "completion_window": "24h"}
    batch = ended(server, gpt, gpt.batches.create(input_file_id=file_id, **about))
    assert [e.code for e in batch.errors.data] == ["too_many_tasks"]


def test_a_bad_body_is_an_error_of_its_request_alone(server: Any, gpt: Any) -> None:
    batch = create(gpt, line("good"), line("bad", body=body(temperature=9)), line("form", body=body(stream=True)))
    batch = ended(server, gpt, batch)
    counts = batch.request_counts
    assert (batch.status, counts.total, counts.completed, counts.failed) == ("completed", 3, 1, 2)
    assert [x["custom_id"] for x in lines_of(gpt, batch.output_file_id)] == ["good"]
    errors = {x["custom_id"]: x["response"] for x in lines_of(gpt, batch.error_file_id)}
    assert errors["bad"]["status_code"] == 400
    assert errors["bad"]["body"]["error"]["param"] == "temperature"
    assert errors["form"]["body"]["error"]["param"] == "stream"


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"input_file_id": "file-x"}, "No such File"),
        ({"endpoint": "/v1/embeddings"}, "Invalid value: '/v1/embeddings'"),
        ({"completion_window": "1h"}, "Invalid value: '1h'"),
        ({"metadata": {f"k{i}": "v" for i in range(17)}}, "at most 16"),
        ({"metadata": {"k" * 65: "v"}}, "longer than 64"),
        ({"metadata": {"k": "v" * 513}}, "maximum length 512"),
        ({"output_expires_after": {"anchor": "created_at", "seconds": 1}}, "3600"),
        ({"extra_body": {"surprise": 1}}, "Unknown parameter: 'surprise'"),
    ],
)
def test_what_openai_refuses_before_a_batch_is_made(server: Any, gpt: Any, change: Any, words: str) -> None:
    about = {"input_file_id": upload(gpt, line("a")), "endpoint": ENDPOINT, "completion_window": "24h"}
    with pytest.raises(openai.BadRequestError, match=words):
        gpt.batches.create(**about | change)
    assert server.batches() == []


def test_unknown_ids_and_wrong_keys_are_told_as_the_real_ones_do(server: Any, gpt: Any, claude: Any) -> None:
    for ask in (gpt.batches.retrieve, gpt.batches.cancel, gpt.files.retrieve, gpt.files.content, gpt.files.delete):
        with pytest.raises(openai.NotFoundError, match="batch_none"):
            ask("batch_none")
    for other in (claude.messages.batches.retrieve, claude.messages.batches.cancel, claude.messages.batches.delete):
        with pytest.raises(anthropic.NotFoundError, match="batch_none") as caught:
            other("batch_none")
        assert caught.value.body["request_id"] == caught.value.request_id
    with pytest.raises(openai.NotFoundError):
        gpt.batches.retrieve(claude.messages.batches.create(requests=requests("a")).id)
    with pytest.raises(openai.AuthenticationError):
        gpt.with_options(api_key="sk-invalid").batches.list()
    assert call(server.url, "GET", "/v1/messages/batches", None, {"x-api-key": "k"}).status == 400


def test_an_upload_is_strict_about_its_purpose_and_its_form(server: Any, gpt: Any) -> None:
    with pytest.raises(openai.BadRequestError, match="Supported values are: 'batch'"):
        gpt.files.create(file=("x", b"x"), purpose="vision")
    with pytest.raises(openai.BadRequestError, match="3600"):
        gpt.files.create(file=("x", b"x"), purpose="batch", expires_after={"anchor": "created_at", "seconds": 9})
    headers = OPENAI | {"content-type": "multipart/form-data; boundary=x"}
    assert call(server.url, "POST", "/v1/files", b"no form", headers).status == 400
    assert call(server.url, "POST", "/v1/files", b"", OPENAI).error["param"] == "file"
    file = gpt.files.create(file=("x.jsonl", b"abc"), purpose="batch")
    assert (file.bytes, file.filename, file.status) == (3, "x.jsonl", "processed")
    assert file.expires_at - file.created_at == 30 * 86400
    assert gpt.files.content(file.id).content == b"abc"
    assert server.stats()["n_uploads"] == 1


def test_openai_lists_batches_page_by_page_newest_first(server: Any, gpt: Any) -> None:
    ids = [create(gpt, line("a")).id for _ in range(5)]
    assert [b.id for b in gpt.batches.list(limit=2)] == ids[::-1]
    page = gpt.batches.list(limit=2, after=ids[3])
    assert ([b.id for b in page.data], page.has_more) == ([ids[2], ids[1]], True)
    with pytest.raises(openai.BadRequestError, match="limit"):
        gpt.batches.list(limit=101)
    with pytest.raises(openai.NotFoundError, match="batch_none"):
        gpt.batches.list(after="batch_none")


def test_files_are_listed_and_deleted_and_a_batch_goes_on_without_its_input(server: Any, gpt: Any) -> None:
    batch = create(gpt, line("a"))
    other = upload(gpt, line("b"))
    assert [f.id for f in gpt.files.list()] == [other, batch.input_file_id]
    assert [f.id for f in gpt.files.list(limit=1, order="asc")] == [batch.input_file_id, other]
    assert gpt.files.delete(batch.input_file_id).deleted
    with pytest.raises(openai.NotFoundError):
        gpt.files.content(batch.input_file_id)
    (found,) = output_of(server, gpt, batch)
    assert found["custom_id"] == "a"
    batch = gpt.batches.retrieve(batch.id)
    assert [f.id for f in gpt.files.list(purpose="batch_output")] == [batch.output_file_id]
    with pytest.raises(openai.BadRequestError, match="file purpose"):
        gpt.batches.create(input_file_id=batch.output_file_id, endpoint=ENDPOINT, completion_window="24h")


def test_files_are_gone_when_their_time_is_over(server: Any, gpt: Any) -> None:
    expiry = {"anchor": "created_at", "seconds": 3600}
    kept = gpt.files.create(file=("x", b"x"), purpose="batch", expires_after=expiry).id
    batch = ended(server, gpt, create(gpt, line("a"), output_expires_after=expiry))
    assert gpt.files.content(batch.output_file_id).content
    server.advance(3600)
    for file_id in (kept, batch.output_file_id):
        with pytest.raises(openai.NotFoundError):
            gpt.files.content(file_id)


def test_a_cancelled_openai_batch_keeps_the_part_that_was_run(server: Any, gpt: Any) -> None:
    batch = create(gpt, *(line(f"r{i}") for i in range(10)))
    server.advance(40)
    batch = gpt.batches.cancel(batch.id)
    assert (batch.status, batch.cancelling_at is not None, batch.cancelled_at) == ("cancelling", True, None)
    with pytest.raises(openai.BadRequestError, match="Cannot cancel a batch with status 'cancelling'"):
        gpt.batches.cancel(batch.id)
    batch = ended(server, gpt, batch)
    assert (batch.status, batch.request_counts.total, batch.request_counts.completed) == ("cancelled", 10, 4)
    assert len(lines_of(gpt, batch.output_file_id)) == 4
    assert {x["error"]["code"] for x in lines_of(gpt, batch.error_file_id)} == {"batch_cancelled"}
    with pytest.raises(openai.BadRequestError, match="Cannot cancel a batch with status 'cancelled'"):
        gpt.batches.cancel(batch.id)
    assert server.stats()["n_batch_rows_paid"] == 4
