"""What the tests of the cache file put into it, and how they reach it from outside."""

from __future__ import annotations

import hashlib
import json
import os
import sqlite3
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

from lmsyz.store import AnswerRecord, RequestRecord, TaskRecord

# What the seed package has run on every file it opened, before and after it had a prompt hash.
SEED_FIRST = "CREATE TABLE results (row_id TEXT PRIMARY KEY, json_result TEXT NOT NULL)"
SEED_COLUMNS = "row_id TEXT PRIMARY KEY, json_result TEXT NOT NULL, prompt_hash TEXT"
SEED_TABLE = f"CREATE TABLE IF NOT EXISTS results ({SEED_COLUMNS})"
SEED_PUT = "INSERT OR REPLACE INTO results (row_id, json_result, prompt_hash) VALUES (?, ?, ?)"
BLANK = TaskRecord(
    fingerprint="",
    backend="openai",
    api="chat",
    endpoint="sandbox",
    model="m-1",
    prompt="Classify the tone.",
    system="Classify the tone.\n\nAnswer in JSON.",
    schema="",
    options="{}",
    prompt_hash="a" * 16,
    system_hash="s" * 64,
    schema_hash="c" * 64,
    options_hash="o" * 64,
)
EXCHANGE = RequestRecord(
    body='{"model":"m-1","messages":[{"role":"user","content":"[1,2]"}],"seed":1}',
    user='"[1,2]"',
    reply='{"choices":[]}',
    form="json_schema",
    outcome="ok",
    model="m-1-2026",
    provider_request_id="req_1",
    input_tokens=100,
    output_tokens=20,
    cached_tokens=0,
    cache_write_tokens=None,
    reasoning_tokens=None,
    cost=0.01,
    latency_s=1.5,
    attempts=1,
    n_rows=2,
    run_id="run-1",
    created=1000.0,
)


def task(**changes: str) -> TaskRecord:
    named = replace(BLANK, **changes)
    return replace(named, fingerprint=hashlib.sha256(repr(named).encode("utf-8", "replace")).hexdigest())


def exchange(**changes: object) -> RequestRecord:
    return replace(EXCHANGE, **changes)  # type: ignore[arg-type]


def key(text: str) -> bytes:
    return hashlib.sha256(text.encode()).digest()[:16]


def answer(text: str, tone: str = "good", *row_ids: str) -> AnswerRecord:
    return AnswerRecord(key=key(text), answer=json.dumps({"tone": tone}), row_ids=row_ids)


def python(code: str, *args: object) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", code, *map(str, args)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
    )


def run_python(code: str, *args: object) -> str:
    out, err = (process := python(code, *args)).communicate(timeout=60)
    assert process.returncode == 0, err
    return out


def raw(path: Path, *statements: str) -> None:
    db = sqlite3.connect(path)
    for statement in statements:
        db.execute(statement)
    db.commit()
    db.close()


def pragma(path: Path, name: str) -> object:
    db = sqlite3.connect(path)
    try:
        return db.execute(f"PRAGMA {name}").fetchone()[0]
    finally:
        db.close()


def seed_file(path: Path, *rows: tuple[str, str, str | None]) -> None:
    db = sqlite3.connect(path)
    db.execute(SEED_TABLE)
    db.executemany(SEED_PUT, rows)
    db.commit()
    db.close()
