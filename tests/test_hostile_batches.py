"""Any batch and any result file from a server that claims to be a provider: flagged rows, or one clear error."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from batch_wire import FileServer, Give
from hypothesis import given, settings
from hypothesis import strategies as st
from scripted_server import REPLIES

import lmsyz
from lmsyz.batch_job import BatchJob
from lmsyz.errors import LmsyzError, MalformedError, UnavailableError
from lmsyz.providers import batches_of, wire

pytestmark = pytest.mark.usefixtures("quick_batches")

BACKENDS = ("openai", "anthropic")
both = pytest.mark.parametrize("backend", BACKENDS)
KEY = "sk-hostile-0123456789abcdef"
DIGITS = "9" * 5000
FRAME = pd.DataFrame({"id": ["r1", "r2"], "text": ["The first text.", "The second text."]})


def created(backend: str, **changes: Any) -> dict[str, Any]:
    made = {"id": "b-1", "status": "validating", "processing_status": "in_progress", "created_at": 1_790_000_000}
    return made | changes


def ended(backend: str, **changes: Any) -> dict[str, Any]:
    counts = {"request_counts": {"total": 2, "completed": 2, "succeeded": 2}}
    done = {"status": "completed", "processing_status": "ended", "output_file_id": "file-2"}
    return created(backend) | counts | done | changes


def plain(body: object) -> bytes:
    """Return JSON in ASCII, where half a pair is an escape."""
    return json.dumps(body).encode()


def submitted(server: FileServer, backend: str) -> BatchJob:
    """Submit two requests, one a row."""
    server.give(*([Give({"id": "file-1"})] if backend == "openai" else []), Give(created(backend)))
    url = server.url + ("/v1" if backend == "openai" else "")
    about: dict[str, Any] = {"schema": {"n": int}, "id_col": "id", "api_key": KEY, "model": "m", "chunk_size": 1}
    job: BatchJob = FRAME.ie.batch("Count.", backend=backend, base_url=url, job_id="j", **about)
    return job


def sent_ids(job: BatchJob) -> dict[str, str]:
    """Return the name that each row's request has on the wire."""
    texts = [path.read_text() for path in Path("batch_jobs", "j").rglob("*.rows")]
    lines = [json.loads(line) for text in texts for line in text.splitlines()]
    return {line["rows"][0][0]: line["id"] for line in lines}


def home(server: FileServer, backend: str, job: BatchJob, content: bytes, **changes: Any) -> pd.DataFrame:
    """Bring a batch home that ends with this result file, and see that all who show it can."""
    server.give(Give(plain(ended(backend, **changes))), Give(content))
    job.refresh()
    out = job.results()
    assert out["ie_error"].isna().sum() + out["ie_error"].notna().sum() == len(FRAME)
    status = job.status()
    for shown in (repr(status), status._repr_html_(), lmsyz.batch_jobs().to_string(), out.to_csv(), out.to_string()):
        assert KEY not in shown
        shown.encode()
    pd.testing.assert_frame_equal(BatchJob.load("j").results(), out)
    return out


def line(backend: str, custom_id: str, text: str, **changes: Any) -> bytes:
    body = json.loads(json.dumps(REPLIES[backend])) | changes
    if backend == "openai":
        body["choices"][0]["message"]["content"] = text
        given: dict[str, Any] = {"response": {"status_code": 200, "body": body}}
    else:
        body["content"][0]["text"] = text
        given = {"result": {"type": "succeeded", "message": body}}
    return json.dumps({"custom_id": custom_id} | given).encode()


def answer(row: str, n: object = 1) -> str:
    return json.dumps({"all_results": [{"input_id": row, "n": n}]})


@pytest.fixture
def server() -> Any:
    server = FileServer(Give({}))
    yield server
    server.close()


FILES: dict[str, Callable[[str, str], bytes]] = {
    "nothing": lambda backend, name: b"",
    "no text": lambda backend, name: b"\xff\xfe\x00\n" * 100,
    "deep": lambda backend, name: b"[" * 100_000 + b"\n" + b'{"custom_id":' * 100_000,
    "huge numbers": lambda backend, name: f'{{"custom_id":"{name}","response":{DIGITS}}}\n'.encode(),
    "odd statuses": lambda backend, name: b"\n".join(
        json.dumps({"custom_id": name, "response": {"status_code": code, "body": {"error": {"code": code}}}}).encode()
        for code in ("²", DIGITS, -1, 1e400, None, [], "200", 404.5, "0500")
    ),
    "odd errors": lambda backend, name: b"\n".join(
        json.dumps({"custom_id": name, "error": error, "result": {"type": "errored", "error": error}}).encode()
        for error in (KEY, {"code": KEY, "message": KEY}, {"type": "\ud800", "message": "\ud800"}, [[]], {"error": {}})
    ),
    "half a pair": lambda backend, name: line(backend, name, '{"all_results":[{"input_id":"\\ud800","n":"\\ud800"}]}'),
    "another row's answer": lambda backend, name: line(backend, name, answer("r2")),
    "refused in half a pair": lambda backend, name: line(backend, name, "", stop_reason="refusal", id="\ud800").replace(
        b'"stop"', b'"content_filter\\ud800"'
    ),
}


@both
@pytest.mark.parametrize("made", FILES.values(), ids=FILES)
def test_a_result_file_that_cannot_be_used_flags_its_rows(
    made: Callable[[str, str], bytes], backend: str, server: FileServer
) -> None:
    job = submitted(server, backend)
    out = home(server, backend, job, made(backend, sent_ids(job)["r1"]) + b"\n")
    assert out["ie_error"].notna().all()


@both
def test_a_page_in_place_of_a_result_file_is_fetched_again(backend: str, server: FileServer) -> None:
    job = submitted(server, backend)
    ids = sent_ids(job)
    with pytest.raises(UnavailableError, match="a web page came in place of the output file") as caught:
        home(server, backend, job, b"<!doctype html><script>alert(1)</script>")
    assert "<script>" not in str(caught.value)
    assert job.results()["ie_error"].str.startswith("pending").all()
    out = home(server, backend, job, b"\n".join(line(backend, ids[row], answer(row)) for row in ("r1", "r2")))
    assert out["n"].tolist() == [1, 1]


@both
def test_good_lines_among_bad_ones_find_their_rows(backend: str, server: FileServer) -> None:
    job = submitted(server, backend)
    ids = sent_ids(job)
    lines = [
        b"{" * 5000,
        line(backend, "r1", answer("r1", 7)),
        line(backend, ids["r1"], answer("r1", 1)),
        line(backend, ids["r1"], answer("r1", 8)),
        b"\x00\xff",
        line(backend, ids["r2"], answer("r2", 2), usage=dict.fromkeys(["prompt_tokens", "input_tokens"], 10**30)),
    ]
    out = home(server, backend, job, b"\n".join(lines))
    assert out["n"].tolist() == [1, 2]


ODD_BATCHES: dict[str, dict[str, Any]] = {
    "huge times": {"created_at": 10**400, "expires_at": 1e300, "ended_at": float("inf"), "completed_at": float("nan")},
    "far times": {"created_at": "0001-01-01T00:00:00+14:00", "expires_at": "9999-12-31T23:59:59-14:00"},
    "negative times": {"created_at": -1e18, "expires_at": -5, "completed_at": -1},
    "odd counts": {"request_counts": {"total": 10**30, "completed": -5, "failed": "x", "succeeded": 10**30}},
    "odd parts": {"errors": {"data": [{"code": "\ud800", "message": f"{KEY} <b>\ud800", "line": 10**30}, 5]}},
    "odd metadata": {"metadata": {"\ud800": "\ud800", "lmsyz_intent": []}},
}


@both
@pytest.mark.parametrize("changes", ODD_BATCHES.values(), ids=ODD_BATCHES)
def test_odd_facts_about_a_batch_cost_no_answer(changes: dict[str, Any], backend: str, server: FileServer) -> None:
    job = submitted(server, backend)
    content = b"\n".join(line(backend, name, answer(row)) for row, name in sent_ids(job).items())
    assert home(server, backend, job, content, **changes)["n"].tolist() == [1, 1]


@both
@pytest.mark.parametrize("odd", ["../../../x", "a\ud800", "a\0b", "x" * 5000, "", None, 5, {}, "a b", "\n"], ids=repr)
def test_an_id_that_can_be_no_part_of_an_address_is_refused(odd: object, backend: str, server: FileServer) -> None:
    job = submitted(server, backend)
    server.give(Give(plain(ended(backend, id=odd))))
    with pytest.raises(UnavailableError, match=r"no (openai|anthropic) reply"):
        job.refresh()


@pytest.mark.parametrize("odd", ["a\ud800", "a\0b", "x" * 5000, None, 5, {}, "a b", "\n"], ids=repr)
def test_a_result_file_without_a_possible_id_leaves_its_rows_flagged(odd: object, server: FileServer) -> None:
    job = submitted(server, "openai")
    out = home(server, "openai", job, b"", output_file_id=odd)
    assert out["ie_error"].str.startswith(("failed", "missing")).all()


@both
def test_results_are_never_fetched_by_way_of_another_server(backend: str, server: FileServer) -> None:
    elsewhere = FileServer(Give(b"{}"))
    try:
        job = submitted(server, backend)
        moved = Give(b"", status=302, headers={"location": f"{elsewhere.url}/file"})
        server.give(Give(ended(backend)), moved)
        with pytest.raises(LmsyzError, match=r"answered 302.*points to"):
            job.refresh()
        assert elsewhere.taken == []
    finally:
        elsewhere.close()


NAMES = st.sampled_from(
    ["custom_id", "response", "status_code", "body", "error", "code", "message", "type", "result", "request_id"]
)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=10) | NAMES | st.just("\ud800"),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(NAMES | st.text(max_size=3), inner, max_size=5),
    max_leaves=15,
)


@both
@settings(max_examples=200)
@given(given_line=JSON.map(lambda value: json.dumps(value).encode()) | st.binary(max_size=100))
def test_any_line_at_all_is_a_result_or_none(backend: str, given_line: bytes) -> None:
    lines = batches_of(wire(backend, api="chat", model="m"))
    try:
        found = lines.read_result(given_line)
    except MalformedError:
        return
    assert found.custom_id
    (found.reason + (found.reply or "")).encode()
