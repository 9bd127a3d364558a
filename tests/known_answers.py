"""Rows of which the sandbox's right answers are known, and whether each came home with its own."""

from __future__ import annotations

import hashlib

import pandas as pd

from lmsyz.batch_job import BatchJob

FIRMS = ("Acme Corp", "Beta Inc", "Gamma Ltd", "Delta Corp", "Epsilon Inc", "Zeta Ltd")


def digest(text: str) -> str:
    """What the sandbox answers where a field of that name is asked for."""
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def firms(n: int) -> pd.DataFrame:
    """Rows that each begin with a firm, which is what is asked for."""
    return pd.DataFrame({"text": [f"{FIRMS[i % 6]} paid {i} dollars." for i in range(n)]})


def wait(job: BatchJob) -> pd.DataFrame:
    """See a job to its end and return its results."""
    status = job.wait(interval=0.05, timeout=120)
    assert status.is_done, status
    assert status.n_pending == 0
    return job.results()


def check_right(df: pd.DataFrame, out: pd.DataFrame) -> pd.Series:
    """Every row is there, and has the firm of its own text or a reason; return who has one."""
    assert out.index.equals(df.index)
    good = out["ie_error"].isna()
    assert all(text.startswith(firm) for text, firm in zip(df.loc[good, "text"], out.loc[good, "company"], strict=True))
    assert out.loc[~good, "company"].isna().all()
    return good
