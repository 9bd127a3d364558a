"""Small images of each kind, made here byte by byte, and their digests."""

from __future__ import annotations

import hashlib
import struct
import zlib
from pathlib import Path


def png(n: int = 0, width: int = 2, height: int = 3) -> bytes:
    """A PNG of one colour that no other number has."""

    def block(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    line = b"\0" + bytes([n % 256, n // 256 % 256, 7]) * width
    head = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    data = zlib.compress(line * height)
    return b"\x89PNG\r\n\x1a\n" + block(b"IHDR", head) + block(b"IDAT", data) + block(b"IEND", b"")


def gif(width: int = 5, height: int = 4) -> bytes:
    return b"GIF89a" + struct.pack("<HH", width, height) + b"\0\0\0;"


def jpeg(width: int = 640, height: int = 480) -> bytes:
    """A JPEG's markers up to its size, with a preview's block before it; no decoder would show it."""
    preview = b"\xff\xe0" + struct.pack(">H", 16) + b"JFIF\0" + b"\0" * 9
    size = b"\xff\xc0" + struct.pack(">HBHHB", 17, 8, height, width, 3) + b"\0" * 9
    return b"\xff\xd8" + preview + size + b"\xff\xd9"


def webp(width: int = 30, height: int = 20) -> bytes:
    body = b"WEBPVP8X" + struct.pack("<I", 10) + b"\0" * 4
    body += (width - 1).to_bytes(3, "little") + (height - 1).to_bytes(3, "little")
    return b"RIFF" + struct.pack("<I", len(body)) + body


def sha(raw: bytes) -> str:
    return hashlib.sha256(raw).hexdigest()


def saved(folder: Path, n: int) -> list[Path]:
    """Files of `n` different PNGs."""
    paths = [folder / f"picture {i}.png" for i in range(n)]
    for i, path in enumerate(paths):
        path.write_bytes(png(i))
    return paths
