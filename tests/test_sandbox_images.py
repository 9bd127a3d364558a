"""The sandbox and images: it takes what the providers take, refuses the rest in their words, and reads headers."""

from __future__ import annotations

import base64
import json
from typing import Any

import pytest
from image_files import gif, jpeg, png, sha
from sandbox_http import ask_chat, ask_messages, ask_responses, chat_rows, row_schema

FIELDS = {
    "image_sha256": {"type": "string"},
    "image_width": {"type": "integer"},
    "image_height": {"type": "integer"},
    "image_bytes": {"type": "integer"},
}


def encoded(raw: bytes) -> str:
    return base64.b64encode(raw).decode()


def data_url(raw: bytes, kind: str = "image/png") -> str:
    return f"data:{kind};base64,{encoded(raw)}"


def chat_image(url: str, **more: Any) -> dict[str, Any]:
    return {"type": "image_url", "image_url": {"url": url} | more}


def response_image(url: str) -> dict[str, Any]:
    return {"type": "input_image", "image_url": url, "detail": "auto"}


def message_image(raw: bytes, kind: str = "image/png") -> dict[str, Any]:
    return {"type": "image", "source": {"type": "base64", "media_type": kind, "data": encoded(raw)}}


def rows_content(images: list[dict[str, Any]], *, text: str = "text", first: int = 1) -> list[dict[str, Any]]:
    """Rows a, b, ... with an image each, numbered from `first`."""
    ids = [chr(ord("a") + i) for i in range(len(images))]
    rows = [{"input_id": row, "input_text": None, "input_image": first + i} for i, row in enumerate(ids)]
    parts = []
    for row, image in zip(ids, images, strict=True):
        parts += [{"type": text, "text": f'The image of the row "{row}":'}, image]
    return [*parts, {"type": text, "text": json.dumps(rows)}]


def test_header_and_digest_of_each_rows_own_image_are_read_on_all_endpoints(sandbox: Any) -> None:
    raws, schema = [png(1, 30, 20), gif(7, 9)], row_schema(FIELDS)
    wanted = [
        {"input_id": i, "image_sha256": sha(r), "image_width": w, "image_height": h, "image_bytes": len(r)}
        for i, r, (w, h) in zip("ab", raws, [(30, 20), (7, 9)], strict=True)
    ]
    chat = ask_chat(sandbox.url, rows_content([chat_image(data_url(r)) for r in raws]), schema)
    assert chat_rows(chat) == wanted
    parts = rows_content([response_image(data_url(r)) for r in raws], text="input_text")
    responses = ask_responses(sandbox.url, [{"role": "user", "content": parts}], schema)
    assert json.loads(responses.body["output"][0]["content"][0]["text"])["all_results"] == wanted
    kinds = ["image/png", "image/gif"]
    images = [message_image(r, k) for r, k in zip(raws, kinds, strict=True)]
    messages = ask_messages(sandbox.url, rows_content(images), schema)
    assert json.loads(messages.body["content"][0]["text"])["all_results"] == wanted


def test_an_image_that_row_and_label_name_differently_belongs_to_no_row(sandbox: Any) -> None:
    images = [chat_image(data_url(png(i))) for i in range(2)]
    schema = row_schema({"image_sha256": {"type": "string"}})
    assert len(chat_rows(ask_chat(sandbox.url, rows_content(images), schema))) == 2
    assert chat_rows(ask_chat(sandbox.url, rows_content(images, first=2), schema)) == []


def test_an_image_at_an_address_is_not_fetched_and_its_address_stands_for_it(sandbox: Any) -> None:
    url = "https://example.invalid/a.png"
    schema = row_schema({"image_sha256": {"type": "string"}})
    (row,) = chat_rows(ask_chat(sandbox.url, rows_content([chat_image(url, detail="low")]), schema))
    assert row["image_sha256"] == sha(url.encode())


def test_images_count_as_tokens(sandbox: Any) -> None:
    def tokens(width: int, height: int) -> int:
        content = rows_content([chat_image(data_url(png(1, width, height)))])
        return int(ask_chat(sandbox.url, content).body["usage"]["prompt_tokens"])

    assert tokens(1500, 10) - tokens(75, 10) == 19


@pytest.mark.parametrize(
    ("image", "param", "code"),
    [
        (chat_image("data:image/png;base64,@@@"), "image_url.url", "invalid_base64"),
        (chat_image("data:image/png;base64,"), "image_url.url", "invalid_base64"),
        (chat_image("data:image/png,abc"), "image_url.url", "invalid_value"),
        (chat_image(data_url(png(), "text/plain")), "image_url.url", "invalid_value"),
        (chat_image(data_url(png(), "image/bmp")), "image_url.url", "invalid_image_format"),
        (chat_image(data_url(b"BM not one of the four")), "image_url.url", "invalid_image_format"),
        (chat_image("ftp://example.invalid/a.png"), "image_url.url", "invalid_image_url"),
        (chat_image("picture.png"), "image_url.url", "invalid_image_url"),
        (chat_image(data_url(png()), detail="huge"), "image_url.detail", "invalid_value"),
        ({"type": "image_url", "image_url": data_url(png())}, "image_url", "invalid_type"),
        ({"type": "image_url"}, "image_url", "missing_required_parameter"),
    ],
)
def test_chat_refuses_what_is_no_image(sandbox: Any, image: dict[str, Any], param: str, code: str) -> None:
    answered = ask_chat(sandbox.url, [image, {"type": "text", "text": "What is it?"}])
    assert answered.status == 400
    assert answered.error["param"] == f"messages[1].content[0].{param}"
    assert answered.error["code"] == code


@pytest.mark.parametrize(
    ("image", "code"),
    [
        (response_image("data:image/png;base64,@@@"), "invalid_base64"),
        (response_image("file:///etc/passwd"), "invalid_image_url"),
        ({"type": "input_image", "file_id": "file-1", "detail": "auto"}, "missing_required_parameter"),
        (response_image(data_url(png())) | {"size": 1}, "unknown_parameter"),
    ],
)
def test_responses_refuses_what_is_no_image(sandbox: Any, image: dict[str, Any], code: str) -> None:
    answered = ask_responses(sandbox.url, [{"role": "user", "content": [image]}])
    assert answered.status == 400
    assert answered.error["code"] == code


@pytest.mark.parametrize(
    ("image", "said"),
    [
        (message_image(jpeg()), "specified using the image/png media type, but the image appears to be a image/jpeg"),
        (message_image(b"nothing of the kind"), "Could not process image"),
        (message_image(png(), "image/bmp"), "source.media_type: Input should be 'image/jpeg'"),
        (message_image(png(width=8001, height=1)), "exceed max allowed size: 8000 pixels"),
        (message_image(png() + b"\0" * 4_000_000), "image exceeds 5 MB maximum: "),
        ({"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": "@"}}, "Invalid base64"),
        ({"type": "image", "source": {"type": "url", "url": "http://example.invalid/a.png"}}, "Only HTTPS URLs"),
        ({"type": "image", "source": {"type": "path", "path": "a.png"}}, "source.type: Input should be 'base64'"),
        ({"type": "image"}, "messages.0.content.0.source: Field required"),
    ],
)
def test_messages_refuses_what_is_no_image(sandbox: Any, image: dict[str, Any], said: str) -> None:
    answered = ask_messages(sandbox.url, [image, {"type": "text", "text": "What is it?"}])
    assert answered.status == 400
    assert answered.error["type"] == "invalid_request_error"
    assert said in answered.error["message"]


def test_too_many_images_are_refused_and_many_must_be_smaller(sandbox: Any) -> None:
    text = {"type": "text", "text": "What are they?"}
    assert ask_messages(sandbox.url, [*[message_image(png())] * 100, text]).status == 200
    assert "too many images: 101 > 100" in ask_messages(sandbox.url, [message_image(png())] * 101).error["message"]
    wide = message_image(png(width=2001, height=1))
    assert ask_messages(sandbox.url, [*[wide] * 20, text]).status == 200
    assert "many-image requests: 2000" in ask_messages(sandbox.url, [*[wide] * 21, text]).error["message"]
    assert ask_chat(sandbox.url, [chat_image(data_url(png()))] * 501).error["code"] == "too_many_images"
