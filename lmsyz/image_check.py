"""Looking at a column of images before anything is sent: what each is, whether it can be sent, and its digest.

A file is read once, in pieces, and nothing of it is kept but its digest, its size and what its first bytes tell. The
type is told by these and not by the file's name, since the providers look at them too.
"""

from __future__ import annotations

import os
import struct
from collections.abc import Iterator, Sequence
from hashlib import sha256
from pathlib import Path
from urllib.parse import urlsplit

from lmsyz.errors import UsageError
from lmsyz.images import DIGEST, WEB, Image, ImageLimits, decoded_data_url

__all__ = ["media_type_of", "pixels_of", "read_images"]

PIECE = 1 << 20
HEAD = 1 << 18  # a photograph's preview and colour profile may stand before its size
OFFENDERS_SHOWN = 5
LONGEST_SHOWN = 200
KINDS = "a path, an http(s) or data URL, or bytes; None where a row has no image"
SIZES_FOLLOW = frozenset({*range(0xC0, 0xD0)} - {0xC4, 0xC8, 0xCC})  # JPEG's frame markers


class _Unfit(ValueError):
    """A value that is no image which could be sent; says why."""


def read_images(
    values: Sequence[object], *, column: object, limits: ImageLimits, ids: Sequence[str] | None = None
) -> list[Image | None]:
    """Look at the images of a column.

    Parameters
    ----------
    values : sequence
        A path, a web address, a data URL or bytes each, None for no image.
    column : label
        For the message.
    limits : ImageLimits
        What the provider takes.
    ids : sequence of str, optional
        Row ids, for the message.

    Raises
    ------
    UsageError
        Some cannot be sent; the first few are named, each with its reason.
    """
    known: dict[object, Image | _Unfit] = {}
    images: list[Image | None] = []
    unfit: list[str] = []
    for i, value in enumerate(values):
        found = None if value is None else _look(value, limits, known)
        images.append(None if isinstance(found, _Unfit) else found)
        if isinstance(found, _Unfit):
            unfit.append(f"row {ids[i] if ids is not None else i}: {found}")
    if unfit:
        raise UsageError(
            f"image_col={column!r} has {len(unfit):,} of {len(values):,} images that cannot be sent:"
            f" {'; '.join(unfit[:OFFENDERS_SHOWN])}{' ...' if len(unfit) > OFFENDERS_SHOWN else ''}. Nothing was sent."
            f" Each value is {KINDS}"
        )
    return images


def media_type_of(head: bytes) -> str:
    r"""Return what the first bytes of an image say it is; empty for what is none of the four.

    Examples
    --------
    >>> media_type_of(b"GIF89a..."), media_type_of(b"%PDF-1.7")
    ('image/gif', '')
    """
    if head.startswith(b"\x89PNG\r\n\x1a\n"):
        return "image/png"
    if head.startswith(b"\xff\xd8\xff"):
        return "image/jpeg"
    if head.startswith((b"GIF87a", b"GIF89a")):
        return "image/gif"
    return "image/webp" if head[:4] == b"RIFF" and head[8:12] == b"WEBP" else ""


def pixels_of(head: bytes) -> tuple[int, int]:
    """Return width and height as the first bytes of an image tell them; zeros where they do not."""
    kind = media_type_of(head)
    try:
        if kind == "image/png":
            width, height = struct.unpack(">II", head[16:24])
        elif kind == "image/gif":
            width, height = struct.unpack("<HH", head[6:10])
        elif kind == "image/webp":
            width, height = _webp_pixels(head)
        else:
            width, height = _jpeg_pixels(head) if kind else (0, 0)
    except (struct.error, IndexError):
        return 0, 0
    return width, height


def _look(value: object, limits: ImageLimits, known: dict[object, Image | _Unfit]) -> Image | _Unfit:
    """Look at one value, at a file or text that comes again only once."""
    if not isinstance(value, (str, os.PathLike)):
        return _looked_at(value, limits)
    if value not in known:
        known[value] = _looked_at(value, limits)
    return known[value]


def _looked_at(value: object, limits: ImageLimits) -> Image | _Unfit:
    try:
        image = _image(value)
        _check_sizes(image, limits)
    except _Unfit as unfit:
        return unfit
    return image


def _image(value: object) -> Image:
    if isinstance(value, (bytes, bytearray, memoryview)):
        raw = bytes(value)
        return _described([raw], raw, "the bytes")
    if isinstance(value, str) and value[:5].lower() == "data:":
        try:
            raw = decoded_data_url(value)
        except ValueError as error:
            raise _Unfit(f"the data URL cannot be read ({error})") from error
        return _described([raw], value, "the data URL")
    if isinstance(value, str) and value.lower().startswith(WEB):
        return _web_image(value)
    if isinstance(value, str) and value.strip() and not (value.partition("://")[1]):
        return _file_image(Path(value))
    if isinstance(value, os.PathLike):
        return _file_image(Path(os.fsdecode(value)))
    if isinstance(value, str):
        shown = f"{value[:60]!r} is no address that a provider fetches" if value.strip() else "an empty text"
        raise _Unfit(f"{shown}")
    raise _Unfit(f"a value of type {type(value).__name__} is no image")


def _web_image(url: str) -> Image:
    try:
        host = urlsplit(url).hostname
    except ValueError:
        host = None
    if not host or not url.isprintable() or " " in url:
        raise _Unfit(f"{url[:60]!r} is no web address")
    scheme, rest = url.split(":", 1)
    return Image(name=f"{scheme.lower()}:{rest}")


def _file_image(path: Path) -> Image:
    path = _at_home(path)
    shown = repr(_shortened(str(path)))
    try:
        if path.exists() and not path.is_file():
            raise _Unfit(f"{shown} is {'a folder' if path.is_dir() else 'no file'}")
        return _described(_pieces(path), path, shown)
    except FileNotFoundError as error:
        raise _Unfit(f"there is no file {shown}") from error
    except (OSError, ValueError) as error:
        if isinstance(error, _Unfit):
            raise
        raise _Unfit(f"{shown} cannot be read ({getattr(error, 'strerror', None) or error})") from error


def _at_home(path: Path) -> Path:
    """Return what a path means now: it must not change with the working directory of a run in the background."""
    try:
        return path.expanduser().absolute()
    except RuntimeError:  # nobody is called so: the tilde is the name's own
        return path.absolute()


def _shortened(path: str) -> str:
    # An image's base64 without "data:" before it is taken for a path.
    return path if len(path) <= LONGEST_SHOWN else f"{path[:LONGEST_SHOWN]}…"


def _pieces(path: Path) -> Iterator[bytes]:
    with path.open("rb") as file:
        while piece := file.read(PIECE):
            yield piece


def _described(pieces: Sequence[bytes] | Iterator[bytes], source: Path | bytes | str, shown: str) -> Image:
    digest, head, n_bytes = sha256(), b"", 0
    for piece in pieces:
        digest.update(piece)
        n_bytes += len(piece)
        head = head or piece[:HEAD]
        if head and not media_type_of(head):  # of a large file that is none the rest need not be read
            raise _Unfit(f"{shown} is neither PNG, JPEG, GIF nor WEBP by its first bytes")
    if not n_bytes:
        raise _Unfit(f"{shown} has no bytes" if isinstance(source, Path) else f"{shown}: there are none")
    media_type = media_type_of(head)
    width, height = pixels_of(head)
    name = DIGEST + digest.hexdigest()
    return Image(name=name, media_type=media_type, n_bytes=n_bytes, width=width, height=height, source=source)


def _check_sizes(image: Image, limits: ImageLimits) -> None:
    if image.is_url:
        if limits.https_only and not image.name.startswith("https://"):
            raise _Unfit(f"{image.name[:60]!r}: this provider fetches https:// addresses alone")
        return
    if image.n_wire > limits.n_bytes_each:
        most = limits.n_bytes_each * 3 // 4
        raise _Unfit(f"an image of {image.n_bytes:,} bytes; this provider takes {most:,}. Scale it down")
    pixels = max(image.width, image.height)
    if limits.pixels_each and pixels > limits.pixels_each:
        raise _Unfit(f"an image of {pixels:,} pixels; this provider takes {limits.pixels_each:,}. Scale it down")


def _webp_pixels(head: bytes) -> tuple[int, int]:
    form = head[12:16]
    if form == b"VP8X":
        return 1 + int.from_bytes(head[24:27], "little"), 1 + int.from_bytes(head[27:30], "little")
    if form == b"VP8L":
        (bits,) = struct.unpack("<I", head[21:25])
        return 1 + (bits & 0x3FFF), 1 + (bits >> 14 & 0x3FFF)
    width, height = struct.unpack("<HH", head[26:30])
    return width & 0x3FFF, height & 0x3FFF


def _jpeg_pixels(head: bytes) -> tuple[int, int]:
    at = 2
    while at + 9 <= len(head) and head[at] == 0xFF:
        marker = head[at + 1]
        if marker in SIZES_FOLLOW:
            height, width = struct.unpack(">HH", head[at + 5 : at + 9])
            return width, height
        alone = marker == 0xFF or marker == 0x01 or 0xD0 <= marker <= 0xD8
        at += 1 if marker == 0xFF else 2 if alone else 2 + int.from_bytes(head[at + 2 : at + 4], "big")
    return 0, 0
