"""What a batch job knows about itself, on disk before anything that costs money.

``job.json`` holds the task, and for each part (one file of requests, one batch at the provider) how far it has come.
It is replaced as a whole, flushed to the disk, at every step; a kill leaves the old or the new one.

A part's states::

    built ──> uploaded ──> creating ──> submitted ──> fetched ──> settled
                 ^            │  ^          │
                 │            │  │          └──> held (too many tokens waiting at the provider: created again later)
                 └────────────┘  └── unsure (it may have been created; nobody can tell yet)

``creating`` is written before the request that costs money leaves. A part found in it has a batch or has not: the
provider is asked, by our intent id where it keeps one, and nothing is created before that is known.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field, fields
from enum import StrEnum
from pathlib import Path
from typing import Any

from lmsyz.errors import BatchError, UsageError
from lmsyz.store import TaskRecord

__all__ = [
    "REQUESTS_A_PART",
    "Ledger",
    "Part",
    "PartState",
    "check_job_id",
    "ledgers_in",
    "write_private",
]

REQUESTS_A_PART = 5000  # the seed package's number; the providers take 50,000 and more
FORMAT = 1
LEDGER = "job.json"
JOB_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")


class PartState(StrEnum):
    """How far a part has come."""

    BUILT = "built"
    UPLOADED = "uploaded"
    CREATING = "creating"
    UNSURE = "unsure"
    SUBMITTED = "submitted"
    HELD = "held"
    FETCHED = "fetched"
    SETTLED = "settled"

    @property
    def is_open(self) -> bool:
        """Whether rows of it are still on their way."""
        return self is not PartState.SETTLED


@dataclass(slots=True, kw_only=True)
class Part:
    """One file of requests and the batch that it became.

    Parameters
    ----------
    n : int
        Its number in the job, from 1.
    state : PartState
        How far it has come.
    n_requests, n_rows, n_bytes : int
        What is in it; rows are distinct texts.
    form : str
        How structured output is asked for.
    upload_id, intent, remote : str
        The provider's id of the file, ours of the wish to create, and the provider's of the batch.
    intent_at : float
        When we last wished to create it, Unix time.
    remote_state : str
        As the provider told last.
    n_ok, n_failed : int or None
        Requests, as the provider counts them while it works.
    submitted, expires, ended : float or None
        Unix times.
    candidates : list of str
        Batches at the provider that may be this one, where that is not known.
    problems : list of str
        What the provider said against it.
    n_good, n_bad : int
        Rows with and without an answer, once it is settled.
    cost : float or None
        US dollars; None where a price is not known.
    input_tokens, output_tokens : int or None
        As counted by the provider.
    reasons : dict
        Why rows have no answer, the commonest with how many.
    """

    n: int
    state: PartState = PartState.BUILT
    n_requests: int
    n_rows: int
    n_bytes: int
    form: str
    upload_id: str = ""
    intent: str = ""
    intent_at: float = 0.0
    remote: str = ""
    remote_state: str = ""
    n_ok: int | None = None
    n_failed: int | None = None
    submitted: float | None = None
    expires: float | None = None
    ended: float | None = None
    candidates: list[str] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)
    n_good: int = 0
    n_bad: int = 0
    cost: float | None = 0.0
    reasons: dict[str, int] = field(default_factory=dict)
    input_tokens: int | None = 0
    output_tokens: int | None = 0


@dataclass(slots=True, kw_only=True)
class Ledger:
    """A job on disk.

    Parameters
    ----------
    folder : Path
        Where it lies.
    job_id : str
        Its name.
    record : TaskRecord
        What is asked; header values that may be secret are not in it.
    schema_model : str
        Name of the pydantic class that answers are held against, empty where there is none.
    base_url : str
        Where it was sent, without user or query; empty for the provider's own or the sandbox.
    cache_path : str
        The store that answers go to.
    chunk_size, token_budget : int
        How requests are packed.
    quirks : dict
        What the user said of the model.
    verify : bool
        Whether the model repeats each row's opening words.
    own_client : bool
        Whether it was sent by a client of the user's own.
    created : float
        Unix time.
    ignore_prompt : bool
        Whether answers to another prompt do as well.
    fresh_after : int
        Where everything was asked again: the newest answer in the store before that, which is none of this job's, nor
        are those before it; 0 otherwise.
    requests_a_part : int
        Requests in one batch at most.
    n_rows : int
        Rows of the frame that it was last called with.
    n_too_long : int
        How many of them are not sent, since they are over what the model reads.
    in_parts : str
        How many of them are asked in how many parts, as words; empty where none is.
    parts : list of Part
        Oldest first.
    """

    folder: Path
    job_id: str
    record: TaskRecord
    schema_model: str
    base_url: str
    cache_path: str
    chunk_size: int
    token_budget: int
    quirks: dict[str, Any]
    verify: bool
    own_client: bool
    created: float
    ignore_prompt: bool = False
    fresh_after: int = 0
    requests_a_part: int = REQUESTS_A_PART
    n_rows: int = 0
    n_too_long: int = 0
    in_parts: str = ""
    parts: list[Part] = field(default_factory=list)

    def save(self) -> None:
        """Put the ledger on disk, whole or not at all."""
        kept = {f.name: getattr(self, f.name) for f in fields(self) if f.name not in ("folder", "record", "parts")}
        kept |= {"lmsyz_batch": FORMAT, "task": asdict(self.record), "parts": [asdict(p) for p in self.parts]}
        write_private(self.folder / LEDGER, json.dumps(kept, ensure_ascii=False, indent=1).encode())

    @classmethod
    def load(cls, folder: Path) -> Ledger:
        """Read a job's ledger.

        Raises
        ------
        BatchError
            There is none, it is damaged, or a newer or another program wrote it.
        """
        path = folder / LEDGER
        try:
            kept = json.loads(path.read_bytes())
        except FileNotFoundError:
            raise BatchError(
                f"there is no batch job in {str(folder)!r}; lmsyz.batch_jobs() lists those there are"
            ) from None
        except (OSError, ValueError) as error:
            raise BatchError(
                f"the ledger {str(path)!r} cannot be read ({error}). Nothing was sent. Batches already created are safe"
                " at the provider; move the folder away and ask its dashboard for them"
            ) from error
        if not isinstance(kept, dict) or "lmsyz_batch" not in kept:
            raise BatchError(f"{str(path)!r} is not a ledger of lmsyz and was left as it is; give another job_id")
        if kept["lmsyz_batch"] > FORMAT:
            raise BatchError(f"{str(path)!r} was written by a newer lmsyz; update it with: pip install -U lmsyz")
        return cls._made(folder, kept, path)

    @classmethod
    def _made(cls, folder: Path, kept: dict[str, Any], path: Path) -> Ledger:
        try:
            parts = [Part(**p | {"state": PartState(p["state"])}) for p in kept.pop("parts")]
            record = TaskRecord(**kept.pop("task"))
            del kept["lmsyz_batch"]
            return cls(folder=folder, record=record, parts=parts, **kept)
        except (KeyError, TypeError, ValueError) as error:
            raise BatchError(f"the ledger {str(path)!r} is damaged ({error}); it was left as it is") from error

    def path(self, *names: str) -> Path:
        """Return a path in the job's folder."""
        return self.folder.joinpath(*names)


def check_job_id(job_id: str) -> str:
    """Return a job id that can be a folder's name.

    Raises
    ------
    UsageError
        It has path separators, odd characters or is too long.
    """
    if not isinstance(job_id, str) or not JOB_ID.fullmatch(job_id) or ".." in job_id:
        raise UsageError(
            f"job_id={job_id!r:.120} cannot be a folder's name: use up to 100 letters, digits, '.', '_' and '-', as in"
            " job_id='tone-2026-11'"
        )
    return job_id


def ledgers_in(root: Path) -> Iterator[Ledger | BatchError]:
    """Go through the jobs under a folder; a damaged one comes as the error that it is."""
    for path in sorted(root.glob(f"*/{LEDGER}")):
        try:
            yield Ledger.load(path.parent)
        except BatchError as error:
            yield error


def write_private(path: Path, content: bytes, *, flush: bool = True) -> None:
    """Replace a file as a whole, readable by its owner alone, and see that it is on disk."""
    new = path.with_name(path.name + ".new")
    with open(os.open(new, os.O_CREAT | os.O_TRUNC | os.O_WRONLY, 0o600), "wb") as file:
        file.write(content)
        if flush:
            file.flush()
            os.fsync(file.fileno())
    new.replace(path)
    if flush:
        flush_folder(path.parent)


def flush_folder(folder: Path) -> None:
    """See that a rename in a folder is on disk; where folders cannot be opened (Windows) it is so by itself."""
    try:
        handle = os.open(folder, os.O_RDONLY)
    except OSError:
        return
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def known_remotes(root: Path) -> Mapping[str, str]:
    """Return which batches at the provider belong to which job under a folder."""
    found: dict[str, str] = {}
    for ledger in ledgers_in(root):
        if isinstance(ledger, Ledger):
            found.update({p.remote: ledger.job_id for p in ledger.parts if p.remote})
    return found
