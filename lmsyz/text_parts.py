"""Where a long text is cut: at paragraphs, else lines, else sentences, else spaces, else between characters. Pure."""

from __future__ import annotations

import re
import unicodedata
from hashlib import sha256

__all__ = ["cut_text"]

BYTES_PER_TOKEN = 4  # as rows.estimate_tokens counts
PARAGRAPH = re.compile(r"(?:\r?\n[^\S\r\n]*){2,}")
LINE = re.compile(r"\r?\n")
SENTENCE = re.compile(r"[.!?…][\"'”’)\]]*\s+|[。！？．][」』”’）]*\s*")
SPACE = re.compile(r"\s+")
CONTEXT = 16  # characters on either side of a boundary that decide whether it is taken
ZERO_WIDTH_JOINER = "\u200d"
LONGEST_CLUSTER = 64


def cut_text(text: str, max_tokens: int) -> list[str]:
    r"""Cut a text into parts of at most so many estimated tokens, each but the last more than half of that.

    Among the boundaries of the best kind in a part's second half, the one is taken whose surroundings have the lowest
    hash. So the cuts hang on the text around them and not on its beginning: after a word is added on the first page
    the later cuts soon fall where they fell before, and parts that are the same are not asked again.

    Parameters
    ----------
    text : str
        Any text without lone surrogates.
    max_tokens : int
        Estimated tokens of a part, at most; 2 or more.

    Returns
    -------
    list of str
        In order. Nothing is left out but parts that are blank.

    Examples
    --------
    >>> cut_text("First page.\n\nSecond page.\n\nThird page.", 6)
    ['First page.\n\n', 'Second page.\n\n', 'Third page.']
    """
    most = BYTES_PER_TOKEN * (max_tokens - 1)
    parts = []
    start = 0
    while (end := _reach(text, start, most)) < len(text):
        at = _boundary(text, start + (end - start) // 2, end)
        parts.append(text[start:at])
        start = at
    parts.append(text[start:])
    return [part for part in parts if part and not part.isspace()]


def _reach(text: str, start: int, most: int) -> int:
    """Return how far a part may go that takes at most so many bytes of UTF-8."""
    piece = text[start : start + most]
    if piece.isascii():
        return start + len(piece)
    return start + max(len(piece.encode()[:most].decode("utf-8", "ignore")), 1)


def _boundary(text: str, low: int, high: int) -> int:
    for kind in (PARAGRAPH, LINE, SENTENCE, SPACE):
        ends = [found.end() for found in kind.finditer(text, low, high)]
        if ends:
            return min(ends, key=lambda at: _draw(text, at))
    for at in range(high, max(low, high - LONGEST_CLUSTER), -1):
        if not _joins(text, at):
            return at
    return high


def _draw(text: str, at: int) -> bytes:
    return sha256(text[max(at - CONTEXT, 0) : at + CONTEXT].encode()).digest()


def _joins(text: str, at: int) -> bool:
    """Whether what stands before and after a place is seen as one character."""
    before, after = text[at - 1], text[at]
    if ZERO_WIDTH_JOINER in (before, after) or unicodedata.category(after) in ("Mn", "Me", "Mc"):
        return True
    if "\U0001f3fb" <= after <= "\U0001f3ff" or "\U000e0020" <= after <= "\U000e007f":  # skin tones and tags
        return True
    if not (_is_flag(before) and _is_flag(after)):
        return False
    n = 0
    while n < at and _is_flag(text[at - 1 - n]):
        n += 1
    return n % 2 == 1  # a flag is a pair


def _is_flag(character: str) -> bool:
    return "\U0001f1e6" <= character <= "\U0001f1ff"
