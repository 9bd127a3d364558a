"""Images in a request: what each API takes, how it refuses the rest, and what the first bytes of an image tell.

Nothing is looked at but the header: the sandbox answers by rules and sees no picture. An image at a web address is
never fetched; it is taken as it is, and the address stands for it. One with ``404`` in its path gets the 400 of an
image that is not there.

A row of a request in rows form has an image where it names one by number (``"input_image": 2`` is the second image of
the message) and the text before that image names the row's ``input_id``; if these two disagree, the row has none.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import json
import struct
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

from lmsyz.sandbox import anthropic_common, openai_common
from lmsyz.sandbox.text import Picture
from lmsyz.sandbox.wire import JsonObject

__all__ = ["Seen", "anthropic_pictures", "openai_pictures", "picture_of_row", "tokens_of_pictures"]

FIELD = "input_image"
FORMATS = ("image/png", "image/jpeg", "image/gif", "image/webp")
OPENAI_MOST, OPENAI_BYTES = 500, 50_000_000
ANTHROPIC_MOST, ANTHROPIC_EACH, MANY = 100, 5 * 1024 * 1024, 20
LARGEST_SIDE, LARGEST_SIDE_OF_MANY = 8000, 2000
PIXELS_A_TOKEN, MOST_TOKENS = 750, 1600


@dataclass(frozen=True, slots=True, kw_only=True)
class Seen:
    """One image of a message: the text just before it, and what its header tells."""

    label: str
    picture: Picture


def picture_of_row(row: JsonObject, row_id: Any, seen: Sequence[Seen]) -> Picture | None:
    """Return the image of a row, None where it names none, or where image and row name each other differently."""
    number = row.get(FIELD)
    if isinstance(number, bool) or not isinstance(number, int) or not 0 < number <= len(seen):
        return None
    one = seen[number - 1]
    return one.picture if json.dumps(row_id, ensure_ascii=False) in one.label else None


def tokens_of_pictures(seen: Sequence[Seen]) -> int:
    """Return the size of images in tokens: a token for 750 pixels, 1,600 at most, and for one that was not fetched."""
    sizes = (one.picture.width * one.picture.height for one in seen)
    return sum(min(-(-size // PIXELS_A_TOKEN), MOST_TOKENS) if size else MOST_TOKENS for size in sizes)


# --- OpenAI -----------------------------------------------------------------------------------------------------------


def openai_pictures(messages: Sequence[JsonObject], name: str) -> tuple[Seen, ...]:
    """Check the images of all messages, and return those of the last user message.

    Parameters
    ----------
    messages : sequence of dict
        The messages, whose shape has been checked.
    name : str
        ``"messages"`` or ``"input"``, for error messages.
    """
    urls = [_openai_url(part) for m in messages for part in _parts(m) if part["type"] in ("image_url", "input_image")]
    if len(urls) > OPENAI_MOST:
        said = f"Too many images in request. Expected at most {OPENAI_MOST} images, but got {len(urls)}."
        raise openai_common.error(400, said, param=name, code="too_many_images")
    if sum(len(url or "") for url in urls) > OPENAI_BYTES:
        said = f"Total image size is too large: {sum(len(u or '') for u in urls)} bytes exceed {OPENAI_BYTES}."
        raise openai_common.error(400, said, param=name, code="image_too_large")
    seen: tuple[Seen, ...] = ()
    for i, message in enumerate(messages):
        found = _seen(_parts(message), ("image_url", "input_image"), _openai_picture, f"{name}[{i}].content[{{}}]")
        if message["role"] == "user":
            seen = found
    return seen


def _openai_url(part: JsonObject) -> str | None:
    url = part.get("image_url")
    return url["url"] if isinstance(url, dict) else url


def _openai_picture(part: JsonObject, where: str) -> Picture:
    url, param = _openai_url(part), f"{where}.image_url" + (".url" if part["type"] == "image_url" else "")
    if url is None:
        said = f"Missing required parameter: '{param}'. The sandbox keeps no files that are images."
        raise openai_common.error(400, said, param=param, code="missing_required_parameter")
    if not url.startswith("data:"):
        if not _is_web(url, ("http", "https")):
            said = f"Invalid '{param}'. Expected a valid URL, but got a value with an unsupported scheme."
            raise openai_common.error(400, said, param=param, code="invalid_image_url")
        if _is_dead(url):
            said = f"Error while downloading {url}. Upstream status code: 404."
            raise openai_common.error(400, said, param="url", code="invalid_value")
        return _unseen(url)
    head, comma, data = url.partition(",")
    media_type = head.removeprefix("data:").removesuffix(";base64")
    if not comma or not head.endswith(";base64") or not media_type.startswith("image/"):
        said = (
            f"Invalid '{param}'. Expected a base64-encoded data URL with an image MIME type (e.g."
            " 'data:image/png;base64,aW1nIGJ5dGVzIGhlcmU='), but got unsupported MIME type or encoding."
        )
        raise openai_common.error(400, said, param=param, code="invalid_value")
    raw = _decoded(data)
    if raw is None:
        raise openai_common.error(400, "Invalid base64 image_url.", param=param, code="invalid_base64")
    if not _format_of(raw) or media_type not in FORMATS:
        said = (
            "You uploaded an unsupported image. Please make sure your image has of one the following formats: ['png',"
            " 'jpeg', 'gif', 'webp']."
        )
        raise openai_common.error(400, said, param=param, code="invalid_image_format")
    return _pictured(raw)


# --- Anthropic --------------------------------------------------------------------------------------------------------


def anthropic_pictures(messages: Sequence[JsonObject]) -> tuple[Seen, ...]:
    """Check the images of all messages, and return those of the last user message."""
    n = sum(part["type"] == "image" for m in messages for part in _parts(m))
    if n > ANTHROPIC_MOST:
        raise anthropic_common.error(400, f"messages: too many images: {n} > {ANTHROPIC_MOST} maximum")
    largest = LARGEST_SIDE_OF_MANY if n > MANY else LARGEST_SIDE

    def read(part: JsonObject, where: str) -> Picture:
        return _anthropic_picture(part["source"], f"{where}.image.source", largest)

    seen: tuple[Seen, ...] = ()
    for i, message in enumerate(messages):
        found = _seen(_parts(message), ("image",), read, f"messages.{i}.content.{{}}")
        if message["role"] == "user":
            seen = found
    return seen


def _anthropic_picture(source: JsonObject, where: str, largest: int) -> Picture:
    if source["type"] == "url":
        if not _is_web(source["url"], ("https",)):
            raise anthropic_common.error(400, f"{where}.url.url: Only HTTPS URLs are supported.")
        if _is_dead(source["url"]):
            raise anthropic_common.error(400, "Unable to download the file. Please verify the URL and try again.")
        return _unseen(source["url"])
    where, data = f"{where}.base64", source["data"]
    if len(data) > ANTHROPIC_EACH:
        said = f"{where}: image exceeds 5 MB maximum: {len(data)} bytes > {ANTHROPIC_EACH} bytes"
        raise anthropic_common.error(400, said)
    raw = _decoded(data)
    if raw is None:
        raise anthropic_common.error(400, f"{where}.data: Invalid base64 data")
    found = _format_of(raw)
    if not found:
        raise anthropic_common.error(400, "Could not process image")
    if found != source["media_type"]:
        said = (
            f"{where}.data: The image was specified using the {source['media_type']} media type, but the image appears"
            f" to be a {found} image"
        )
        raise anthropic_common.error(400, said)
    picture = _pictured(raw)
    if max(picture.width, picture.height) > largest:
        many = " for many-image requests" if largest == LARGEST_SIDE_OF_MANY else ""
        said = f"{where}.data: At least one of the image dimensions exceed max allowed size{many}: {largest} pixels"
        raise anthropic_common.error(400, said)
    return picture


# --- both -------------------------------------------------------------------------------------------------------------


def _parts(message: JsonObject) -> list[JsonObject]:
    content = message.get("content")
    return content if isinstance(content, list) else []


def _seen(
    parts: Sequence[JsonObject], kinds: Sequence[str], read: Callable[[JsonObject, str], Picture], where: str
) -> tuple[Seen, ...]:
    found, label = [], ""
    for j, part in enumerate(parts):
        if part["type"] in kinds:
            found.append(Seen(label=label, picture=read(part, where.format(j))))
        label = part.get("text") or ""
    return tuple(found)


def _is_web(url: str, schemes: Sequence[str]) -> bool:
    try:
        split = urlsplit(url)
    except ValueError:
        return False
    return split.scheme in schemes and bool(split.hostname)


def _is_dead(url: str) -> bool:
    return "404" in urlsplit(url).path


def _decoded(data: str) -> bytes | None:
    try:
        return base64.b64decode(data, validate=True) or None
    except (binascii.Error, ValueError):
        return None


def _unseen(url: str) -> Picture:
    return Picture(sha256=hashlib.sha256(url.encode("utf-8", "surrogatepass")).hexdigest())


def _pictured(raw: bytes) -> Picture:
    width, height = _size_of(raw)
    return Picture(
        sha256=hashlib.sha256(raw).hexdigest(), media_type=_format_of(raw), width=width, height=height, n_bytes=len(raw)
    )


def _format_of(raw: bytes) -> str:
    if raw[:4] == b"RIFF":
        return "image/webp" if raw[8:12] == b"WEBP" else ""
    starts = {b"\x89PNG\r\n\x1a\n": 0, b"\xff\xd8\xff": 1, b"GIF8": 2}
    return next((FORMATS[i] for start, i in starts.items() if raw.startswith(start)), "")


def _size_of(raw: bytes) -> tuple[int, int]:
    """Return width and height of a PNG or GIF; zeros for the others, and where the header is cut."""
    form, at = (">II", 16) if raw.startswith(b"\x89PNG") else ("<HH", 6)
    if not raw.startswith((b"\x89PNG", b"GIF8")) or len(raw) < at + struct.calcsize(form):
        return 0, 0
    width, height = struct.unpack_from(form, raw, at)
    return width, height
