"""A whole life with keys that can be recognised, and then every byte it left behind is searched for them."""

from __future__ import annotations

import base64
import json
import logging
import os
import subprocess
import sys
import traceback
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import Any

import anthropic
import nbformat
import openai
import pandas as pd
import pytest
from nbclient import NotebookClient

import lmsyz
from lmsyz.errors import RejectedError
from lmsyz.place import find_place
from lmsyz.settings import load_settings
from lmsyz.widgets.cache_model import CacheModel
from lmsyz.widgets.cache_view import CacheView

pytestmark = pytest.mark.usefixtures("quick_batches")

BACKENDS = ("openai", "anthropic")
PROMPT = "Give the digest of each text."
MODEL = "sandbox-rules"
SCHEMA = {"digest": str, "words": int}
FRAME = pd.DataFrame({"id": [f"r{i}" for i in range(12)], "text": [f"Row {i} is one of several." for i in range(12)]})
KEYS = {
    "openai": {
        "argument": "sk-proj-ArGuMeNt0123456789abcdefghij",
        "environment": "sk-proj-EnViRoNmEnT0123456789abcdef",
        "dotenv": "sk-proj-DoTeNv0123456789abcdefghijkl",
        "client": "sk-proj-ClIeNt0123456789abcdefghijkl",
        "wrong": "sk-proj-invalid-WrOnG0123456789abcdef",
        "plain": "PlainLookingKeyOfAGateway0123456789",
    },
    "anthropic": {
        "argument": "sk-ant-api03-ArGuMeNt0123456789abcdef",
        "environment": "sk-ant-api03-EnViRoNmEnT0123456789ab",
        "dotenv": "sk-ant-api03-DoTeNv0123456789abcdefgh",
        "client": "sk-ant-api03-ClIeNt0123456789abcdefgh",
        "wrong": "sk-ant-api03-invalid-WrOnG0123456789ab",
        "plain": "PlainLookingKeyOfAGateway0123456789",
    },
}
HEADERS = {"X-Gateway-Key": "HeaderSecretOfAGateway0123456789", "X-Sign-In-Token": "HeaderTokenOfAGateway0123456789"}


def url_of(sandbox: Any, backend: str) -> str:
    return sandbox.url + ("/v1" if backend == "openai" else "")


def forms_of(key: str) -> Iterator[bytes]:
    """Yield a key as it is, backwards, and as base64 would have it, wherever in a text it stands."""
    yield key.encode()
    for before in range(3):
        packed = base64.b64encode(b"x" * before + key.encode())
        yield packed[4 if before else 0 : -4]


def assert_nowhere(folder: Path, said: list[str], keys: dict[str, str]) -> None:
    pieces = {str(p): p.read_bytes() for p in folder.rglob("*") if p.is_file() and p.name != ".env"}
    assert {"cache.sqlite", "debug.log"} <= {Path(p).name for p in pieces}
    pieces |= {f"what was said ({i})": text.encode("utf-8", "replace") for i, text in enumerate(said)}
    found = [
        f"{name} key in {where}: {piece[max(0, piece.find(form) - 150) : piece.find(form) + 20]!r}"
        for where, piece in pieces.items()
        for name, key in keys.items()
        for form in forms_of(key)
        if form in piece
    ]
    assert not found, "\n".join(found)


def told(error: BaseException) -> str:
    """Return a traceback with what it is caused by, its notes, and the error's own attributes."""
    return "".join(traceback.format_exception(error)) + repr(error) + repr(vars(error))


def locals_of_ours(error: BaseException) -> str:
    """Return the local variables that a debugger, or a traceback that shows them, would print of our own frames."""
    shown = []
    at: TracebackType | None = error.__traceback__
    while at is not None:
        if at.tb_frame.f_globals.get("__name__", "").startswith("lmsyz"):
            shown += [f"{name}={value!r}" for name, value in at.tb_frame.f_locals.items()]
        at = at.tb_next
    return "\n".join(shown)


@pytest.fixture
def diary(tmp_path: Path) -> Iterator[None]:
    """Write everything that anyone logs, down to DEBUG, to a file."""
    handler = logging.FileHandler(tmp_path / "debug.log")
    loggers = [logging.getLogger(name) for name in ("", "openai", "anthropic", "httpx2", "httpcore2", "lmsyz")]
    before = [logger.level for logger in loggers]
    logging.getLogger().addHandler(handler)
    for logger in loggers:
        logger.setLevel(logging.DEBUG)
    try:
        yield
    finally:
        for logger, level in zip(loggers, before, strict=True):
            logger.setLevel(level)
        logging.getLogger().removeHandler(handler)
        handler.close()


def of_a_run(run: Any) -> list[str]:
    return [repr(run), run._repr_html_(), run.manifest_json(), repr(run.engine), repr(run.task), repr(vars(run))]


def live(sandbox: Any, backend: str, **about: Any) -> list[str]:
    about = {
        "schema": SCHEMA,
        "backend": backend,
        "model": MODEL,
        "cache_path": "cache.sqlite",
        "chunk_size": 3,
    } | about
    out = FRAME.ie.extract(PROMPT, fresh=True, id_col="id", **about)
    out.to_csv("out.csv")
    run = lmsyz.last_run()
    return [*of_a_run(run), repr(FRAME.ie.stale(PROMPT, **{k: v for k, v in about.items() if k != "chunk_size"}))]


def views() -> list[str]:
    CacheModel("cache.sqlite").export("exported.csv")
    view = CacheView(Path("cache.sqlite"))
    view.open(view._model.page.rows[0].id)
    panel = lmsyz.panel("cache.sqlite")
    row = view._model.page.rows[0].id
    return [
        view.static_html(),
        view.text(),
        repr(panel),
        panel.text(),
        str(panel._repr_mimebundle_()),
        view._model.python(row),
    ]


@pytest.mark.parametrize("backend", BACKENDS)
def test_no_key_is_in_anything_that_a_live_run_leaves_or_shows(
    sandbox: Any, backend: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, diary: None
) -> None:
    keys, variable = KEYS[backend], f"{backend.upper()}_API_KEY"
    url = url_of(sandbox, backend)
    said = live(sandbox, backend, api_key=keys["argument"], base_url=url)
    sandbox.set_faults(server_error=0.3, malformed=0.1, refused=0.1, retry_after_s=0.01)
    monkeypatch.setenv(variable, keys["environment"])
    said += live(sandbox, backend, base_url=url, max_workers=2)
    sandbox.set_faults()
    monkeypatch.delenv(variable)
    Path(".env").write_text(f"{variable}={keys['dotenv']}\n")
    said += live(sandbox, backend, base_url=url)
    said += [repr(load_settings()), str(load_settings()), load_settings().model_dump_json()]
    made = (openai.OpenAI if backend == "openai" else anthropic.Anthropic)(api_key=keys["client"], base_url=url)
    said += live(sandbox, backend, client=made)
    made.close()
    about = {"backend": backend, "model": MODEL, "api_key": keys["argument"], "base_url": url}
    draft = lmsyz.draft_prompt("Find the price.", df=FRAME, **about)
    said += [repr(draft), draft._repr_html_(), *views()]
    assert_nowhere(tmp_path, said, keys)


@pytest.mark.parametrize("backend", BACKENDS)
def test_no_secret_header_is_in_anything_that_a_run_leaves_or_shows(
    sandbox: Any, backend: str, tmp_path: Path, diary: None
) -> None:
    url, key = url_of(sandbox, backend), KEYS[backend]["plain"]
    sandbox.set_faults(batch_s=0.01)
    about: dict[str, Any] = {"api_key": key, "base_url": url, "extra_headers": HEADERS, "model": MODEL}
    said = live(sandbox, backend, **about)
    job = FRAME.ie.batch(PROMPT, schema=SCHEMA, backend=backend, cache_path="other.sqlite", job_id="j", **about)
    job.wait(timeout=60)
    assert job.results()["ie_error"].isna().all()
    said += [repr(job), repr(job.status()), repr(vars(job)), *views()]
    assert_nowhere(tmp_path, said, HEADERS | {"plain": key})


@pytest.mark.parametrize("backend", BACKENDS)
def test_no_key_is_in_the_traceback_of_a_key_that_was_refused(
    sandbox: Any, backend: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, diary: None
) -> None:
    (tmp_path / "cache.sqlite").touch()
    key = KEYS[backend]["wrong"]
    monkeypatch.setenv(f"{backend.upper()}_API_KEY", key)
    about: dict[str, Any] = {"schema": SCHEMA, "backend": backend, "base_url": url_of(sandbox, backend)}
    said = []
    for ask in (
        lambda: FRAME.ie.extract(PROMPT, cache_path="refused.sqlite", **about),
        lambda: FRAME.ie.batch(PROMPT, job_id="refused", cache_path="refused.sqlite", **about),
        lambda: lmsyz.draft_prompt("Find the price.", backend=backend, base_url=about["base_url"]),
    ):
        with pytest.raises(RejectedError, match="401") as raised:
            ask()
        said += [told(raised.value), locals_of_ours(raised.value)]
    said += of_a_run(lmsyz.last_run())
    assert_nowhere(tmp_path, said, {"wrong": key})


@pytest.mark.parametrize("backend", BACKENDS)
def test_no_key_is_in_anything_that_a_batch_leaves_or_shows(
    sandbox: Any, backend: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, diary: None
) -> None:
    key = KEYS[backend]["environment"]
    monkeypatch.setenv(f"{backend.upper()}_API_KEY", key)
    sandbox.set_faults(batch_s=0.01)
    about: dict[str, Any] = {"schema": SCHEMA, "backend": backend, "base_url": url_of(sandbox, backend), "model": MODEL}
    job = FRAME.ie.batch(PROMPT, job_id="j", cache_path="cache.sqlite", **about)
    job.wait(timeout=60)
    said = [repr(job), job._repr_html_(), repr(job.status()), repr(vars(job)), str(lmsyz.batch_jobs()), *views()]
    job.results().to_csv("out.csv")
    assert_nowhere(tmp_path, said, {"environment": key})


def test_no_key_is_in_what_the_command_line_writes_or_says(sandbox: Any, tmp_path: Path) -> None:
    (tmp_path / "debug.log").touch()
    FRAME.to_csv("in.csv", index=False)
    said = []
    for name, code in (("environment", 0), ("wrong", 1)):
        key = KEYS["openai"][name]
        command = [
            sys.executable,
            "-c",
            "from lmsyz.cli import main; main()",
            "extract",
            "in.csv",
            "--prompt",
            f"{PROMPT} {name}",
        ]
        command += ["--out", f"{name}.csv", "--cache", "cache.sqlite", "--base-url", url_of(sandbox, "openai")]
        command += ["--model", MODEL]
        done = subprocess.run(
            command, env=os.environ | {"OPENAI_API_KEY": key}, capture_output=True, text=True, timeout=120
        )
        assert done.returncode == code, done.stderr
        said += [done.stdout, done.stderr]
    assert_nowhere(tmp_path, said, KEYS["openai"])


def test_no_key_is_in_a_notebook_that_was_run_with_one(
    sandbox: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "debug.log").touch()
    monkeypatch.setenv("OPENAI_API_KEY", KEYS["openai"]["environment"])
    monkeypatch.setenv("LMSYZ_PROGRESS", "true")
    url = url_of(sandbox, "openai")
    cells = [
        "import os, pandas as pd, lmsyz\ndf = pd.DataFrame({'text': [f'Row {i} of some.' for i in range(9)]})",
        f"about = dict(schema={{'digest': str}}, base_url={url!r}, model={MODEL!r}, cache_path='cache.sqlite')",
        f"out = df.ie.extract({PROMPT!r}, **about)\nout",
        "lmsyz.last_run()",
        "lmsyz.panel('cache.sqlite')",
        "lmsyz.Settings()",
        "os.environ['OPENAI_API_KEY'] = os.environ['OPENAI_API_KEY'].replace('proj', 'proj-invalid')",
        "%xmode Verbose",
        f"df.ie.extract({PROMPT!r}, fresh=True, **about)",
    ]
    book = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(cell) for cell in cells])
    NotebookClient(book, timeout=120, kernel_name="python3", allow_errors=True).execute()
    nbformat.write(book, tmp_path / "run.ipynb")
    assert "RejectedError" in json.dumps(book.cells[-1].outputs)
    keys = {"environment": KEYS["openai"]["environment"], "wrong": "sk-proj-invalid-EnViRoNmEnT0123456789abcdef"}
    assert_nowhere(tmp_path, [], keys)


def test_a_key_lives_only_where_no_repr_shows_it(monkeypatch: pytest.MonkeyPatch) -> None:
    key = KEYS["openai"]["environment"]
    monkeypatch.setenv("OPENAI_API_KEY", key)
    settings = load_settings()
    about = dict.fromkeys(["backend", "model", "api", "api_key", "base_url", "client", "quirks"])
    place = find_place(settings, **about)
    assert place.has_key
    for shown in (repr(settings), repr(vars(settings)), repr(place), str(place), f"{place}"):
        assert key not in shown
