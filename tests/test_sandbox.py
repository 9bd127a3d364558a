"""The sandbox as a process: started, found, replaced, stopped, kept to this machine, and honest about what it is."""

from __future__ import annotations

import asyncio
import json
import logging
import os
import signal
import socket
import stat
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from sandbox_http import ANTHROPIC, CHAT, MESSAGES, OPENAI, RESPONSES, ask_chat, call, chat_body, messages_body, rows

import lmsyz.sandbox
from lmsyz.errors import MissingExtraError, SandboxError, UsageError
from lmsyz.sandbox import notice, registry
from lmsyz.sandbox.faults import Faults

VARIABLE = "LMSYZ_SANDBOX_URL"


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[Path]:
    """A registry's directory; what it speaks of at the end is stopped."""
    yield tmp_path / "state"
    entry = registry.read(tmp_path / "state")
    if entry is not None:
        lmsyz.sandbox.Sandbox(entry).stop()


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The directory of a sandbox that runs as long as these tests do."""
    folder = tmp_path_factory.mktemp("shared")
    with lmsyz.sandbox.start(state_dir=folder, default=False):
        yield folder


@pytest.fixture
def running(shared: Path) -> lmsyz.sandbox.Sandbox:
    """A handle on it, made as good as new."""
    box = start(shared)
    box.reset()
    return box


def start(folder: Path, **about: Any) -> lmsyz.sandbox.Sandbox:
    return lmsyz.sandbox.start(state_dir=folder, default=False, **about)


def is_gone(pid: int) -> bool:
    """Whether a process ends within ten seconds; one that waits to be reaped has ended."""
    until = time.monotonic() + 10
    while time.monotonic() < until:
        try:
            os.kill(pid, 0)
            if ") Z" in Path(f"/proc/{pid}/stat").read_text():
                return True
        except (ProcessLookupError, FileNotFoundError):
            return True
        time.sleep(0.02)
    return False


def in_another_process(code: str, *args: object) -> str:
    done = subprocess.run([sys.executable, "-c", code, *map(str, args)], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_a_running_sandbox_is_found_and_takes_the_new_faults_and_seed(shared: Path, running: Any) -> None:
    found = start(shared, faults=Faults(server_error=0.5), seed=7)
    assert (found.url, found.pid) == (running.url, running.pid)
    assert running.stats()["faults"] == {"server_error": 0.5}
    assert running.stats()["seed"] == 7


def test_another_kernel_finds_it_and_its_end_does_not_end_it(shared: Path, running: Any) -> None:
    code = "import sys, lmsyz.sandbox; print(lmsyz.sandbox.start(state_dir=sys.argv[1]).pid)"
    assert int(in_another_process(code, shared)) == running.pid
    assert start(shared).pid == running.pid


def test_a_fresh_one_is_another_although_one_runs(shared: Path, running: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LMSYZ_SANDBOX_DIR", str(shared))
    with lmsyz.sandbox.start(fresh=True, default=False) as other:
        assert other.pid != running.pid
        ask_chat(other.url)
        assert (other.stats()["n_requests"], running.stats()["n_requests"]) == (1, 0)
    assert start(shared).pid == running.pid


def test_the_directory_and_the_registry_are_the_owners_alone(shared: Path, running: Any) -> None:
    assert stat.S_IMODE(shared.stat().st_mode) == 0o700
    assert stat.S_IMODE((shared / "sandbox.json").stat().st_mode) == 0o600


def test_the_directory_comes_from_the_environment_where_none_is_given(
    shared: Path, running: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LMSYZ_SANDBOX_DIR", str(shared))
    assert lmsyz.sandbox.start(default=False).pid == running.pid


def test_another_port_than_that_of_the_running_one_is_refused(shared: Path, running: Any) -> None:
    port = int(running.url.rpartition(":")[2])
    assert start(shared, port=port).pid == running.pid
    with pytest.raises(UsageError, match=f"already runs on port {port}"):
        start(shared, port=port - 1)


def test_it_is_the_default_endpoint_until_it_is_stopped(
    shared: Path, running: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv(VARIABLE, raising=False)
    with lmsyz.sandbox.start(state_dir=shared):
        assert os.environ[VARIABLE] == running.url
        with lmsyz.sandbox.start(fresh=True) as other:
            assert os.environ[VARIABLE] == other.url
        assert os.environ[VARIABLE] == running.url
    assert VARIABLE not in os.environ


def test_a_default_that_somebody_else_set_since_is_left_alone(
    shared: Path, running: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv(VARIABLE, raising=False)
    with lmsyz.sandbox.start(state_dir=shared):
        monkeypatch.setenv(VARIABLE, "http://127.0.0.1:9")
    assert os.environ[VARIABLE] == "http://127.0.0.1:9"


def test_a_kernel_that_is_killed_with_its_process_group_leaves_it_running(folder: Path) -> None:
    code = (
        "import sys, time, lmsyz.sandbox;"
        " print(lmsyz.sandbox.start(state_dir=sys.argv[1]).pid, flush=True); time.sleep(60)"
    )
    kernel = subprocess.Popen([sys.executable, "-c", code, folder], stdout=subprocess.PIPE, start_new_session=True)
    assert kernel.stdout is not None
    with kernel.stdout:
        pid = int(kernel.stdout.readline())
    os.killpg(kernel.pid, signal.SIGKILL)
    kernel.wait()
    assert start(folder).pid == pid


def test_a_fresh_one_is_private_and_ends_with_its_parent(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LMSYZ_SANDBOX_DIR", str(folder))
    code = "import lmsyz.sandbox; print(lmsyz.sandbox.start(fresh=True).pid)"
    pid = int(in_another_process(code))
    assert is_gone(pid)
    assert not folder.exists()


def test_stopping_ends_the_process_and_empties_the_registry(folder: Path) -> None:
    box = start(folder)
    box.stop()
    box.stop()
    assert is_gone(box.pid)
    assert registry.read(folder) is None
    with pytest.raises(SandboxError, match="does not answer"):
        box.stats()


def test_a_with_block_stops_what_it_started_and_leaves_what_it_found(folder: Path) -> None:
    with start(folder) as mine:
        with start(folder):
            pass
        assert mine.stats()["n_requests"] == 0
    assert is_gone(mine.pid)


def test_a_registry_that_speaks_of_a_dead_process_is_replaced(folder: Path) -> None:
    box = start(folder)
    os.kill(box.pid, signal.SIGKILL)
    assert is_gone(box.pid)
    assert start(folder).pid != box.pid


@pytest.mark.parametrize("text", ["", "no json", "{}", "[]", '{"pid": 1, "port": "x", "token": "t", "build": "b"}'])
def test_a_registry_that_says_nothing_of_use_is_none(tmp_path: Path, text: str) -> None:
    (tmp_path / "sandbox.json").write_text(text)
    assert registry.read(tmp_path) is None


def test_the_port_can_be_chosen_and_one_that_is_taken_is_an_error(folder: Path, sandbox: Any) -> None:
    with socket.socket() as held:
        held.bind(("127.0.0.1", 0))
        free = held.getsockname()[1]
    assert start(folder, port=free).url == f"http://127.0.0.1:{free}"
    taken = int(sandbox.url.rpartition(":")[2])
    with pytest.raises(SandboxError, match=f"port {taken} cannot be used"):
        lmsyz.sandbox.start(fresh=True, port=taken, default=False)


def test_a_sandbox_of_other_code_is_stopped_and_replaced(folder: Path) -> None:
    old = start(folder)
    entry = json.loads((folder / "sandbox.json").read_text())
    (folder / "sandbox.json").write_text(json.dumps(entry | {"build": "other"}))
    new = start(folder)
    assert new.pid != old.pid
    assert is_gone(old.pid)


def test_a_registry_that_points_at_another_service_is_replaced(folder: Path, sandbox: Any) -> None:
    folder.mkdir()
    port = int(sandbox.url.rpartition(":")[2])
    registry.write(folder, registry.Entry(pid=1, port=port, token="not-its-token", build=registry.build()))
    box = start(folder)
    assert box.url != sandbox.url
    assert sandbox.stats()["faults"] == {}


def test_a_sandbox_that_another_kernel_ended_does_not_become_the_default_again(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("LMSYZ_SANDBOX_URL", raising=False)
    first = lmsyz.sandbox.start(state_dir=folder)
    in_another_process("import sys, lmsyz.sandbox; lmsyz.sandbox.start(state_dir=sys.argv[1]).stop()", folder)
    assert is_gone(first.pid)
    second = lmsyz.sandbox.start(state_dir=folder)
    assert os.environ["LMSYZ_SANDBOX_URL"] == second.url != first.url
    with lmsyz.sandbox.start(fresh=True) as third:
        assert os.environ["LMSYZ_SANDBOX_URL"] == third.url
    assert os.environ["LMSYZ_SANDBOX_URL"] == second.url
    second.stop()
    assert "LMSYZ_SANDBOX_URL" not in os.environ


def test_the_lock_of_a_process_that_was_killed_is_free(folder: Path) -> None:
    folder.mkdir()
    code = (
        "import os, pathlib, sys; from lmsyz.sandbox import registry; held = registry.lock(pathlib.Path(sys.argv[1]));"
        " held.__enter__(); print('held', flush=True); os.kill(os.getpid(), 9)"
    )
    ended = subprocess.run([sys.executable, "-c", code, str(folder)], capture_output=True, text=True, check=False)
    assert (ended.stdout.strip(), ended.returncode != 0) == ("held", True)
    began = time.monotonic()
    with registry.lock(folder):
        assert time.monotonic() - began < 5


def test_a_lock_is_held_however_long_a_start_takes(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder.mkdir()
    monkeypatch.setattr("lmsyz.sandbox.registry.LOCK_PATIENCE_S", 0.2)
    with registry.lock(folder):
        os.utime(folder / "sandbox.lock", (1, 1))
        with pytest.raises(SandboxError, match="another process is starting a sandbox"), registry.lock(folder):
            pytest.fail("two hold it")
    with registry.lock(folder):
        pass


@pytest.mark.parametrize(
    "about", [{"port": 0}, {"port": "80"}, {"seed": "x"}, {"seed": True}, {"faults": {"dropped": 1}}]
)
def test_a_wrong_argument_starts_nothing(folder: Path, about: dict[str, Any]) -> None:
    with pytest.raises(UsageError):
        start(folder, **about)
    assert not folder.exists()


def test_a_directory_that_cannot_be_made_is_an_error_that_names_it(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(SandboxError, match="file"):
        start(tmp_path / "file" / "below")


def test_a_missing_extra_is_an_error_with_the_pip_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("lmsyz.sandbox.client.NEEDED", ("starlette", "no_such_package"))
    with pytest.raises(MissingExtraError, match=r"no_such_package.*pip install 'lmsyz\[sandbox\]'"):
        lmsyz.sandbox.start(fresh=True)


def test_importing_the_near_side_loads_no_server() -> None:
    code = (
        "import sys, lmsyz.sandbox;"
        " print([m for m in ('starlette', 'uvicorn', 'vaderSentiment', 'openai', 'anthropic') if m in sys.modules])"
    )
    assert in_another_process(code).strip() == "[]"


def test_the_server_loads_neither_pandas_nor_an_sdk_nor_our_wire_code(sandbox: Any) -> None:
    ask_chat(sandbox.url, rows("a"))
    if not sys.platform.startswith("linux"):
        pytest.skip("reads /proc")
    maps = Path(f"/proc/{sandbox.pid}/maps").read_text()
    assert "pandas" not in maps
    code = (
        "import sys, types; p = types.ModuleType('lmsyz'); p.__path__ = [sys.argv[1]]; sys.modules['lmsyz'] = p;"
        " import lmsyz.sandbox.__main__; print(sorted(m for m in sys.modules if m.startswith(('lmsyz', 'openai',"
        " 'anthropic', 'pandas'))))"
    )
    loaded = eval(in_another_process(code, Path(lmsyz.__file__).parent))
    others = [m for m in loaded if not m.startswith("lmsyz.sandbox")]
    assert others == ["lmsyz", "lmsyz.errors", "lmsyz.html_block", "lmsyz.standin"]


def test_it_ends_by_itself_when_it_has_been_idle(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("lmsyz.sandbox.process.IDLE_S", 0.2)
    with lmsyz.sandbox.start(fresh=True, default=False) as box:
        assert is_gone(box.pid)


@pytest.mark.parametrize("host", ["evil.example", "evil.example:80", "127.0.0.1.evil.example", ""])
@pytest.mark.parametrize("path", ["/sandbox/stats", "/v1/models", "/elsewhere"])
def test_a_foreign_host_is_refused_everywhere(sandbox: Any, host: str, path: str) -> None:
    answered = call(sandbox.url, "GET", path, None, OPENAI | {"host": host})
    assert answered.status == 403
    assert "this machine" in answered.error["message"]


@pytest.mark.parametrize("host", ["localhost", "LOCALHOST:1", "127.0.0.1:1", "[::1]", "[::1]:1"])
def test_this_machines_own_names_are_taken(sandbox: Any, host: str) -> None:
    assert call(sandbox.url, "GET", "/v1/models", None, OPENAI | {"host": host}).status == 200


def test_it_listens_on_one_loopback_address_only(sandbox: Any) -> None:
    with socket.socket() as other:
        assert other.connect_ex(("127.0.0.2", int(sandbox.url.rpartition(":")[2]))) != 0


@pytest.mark.parametrize("name", ["faults", "requests", "reset", "stop"])
def test_what_changes_or_reveals_something_needs_the_token(sandbox: Any, name: str) -> None:
    for headers in ({}, {"x-sandbox-token": "guessed"}):
        assert call(sandbox.url, "POST", f"/sandbox/{name}", {}, headers).status == 403
    assert sandbox.stats()["n_requests"] == 0


def test_health_and_stats_are_open(sandbox: Any) -> None:
    assert call(sandbox.url, "GET", "/sandbox/health").body["answers"] == "rules, not a language model"
    assert call(sandbox.url, "GET", "/sandbox/stats").status == 200


@pytest.mark.parametrize(
    ("path", "body", "headers"),
    [(CHAT, chat_body(), OPENAI), (MESSAGES, messages_body(), ANTHROPIC), (CHAT, {}, {}), ("/v1/none", {}, OPENAI)],
)
def test_every_answer_is_labelled_as_rules(sandbox: Any, path: str, body: Any, headers: dict[str, str]) -> None:
    answered = call(sandbox.url, "POST", path, body, headers)
    assert answered.headers["x-lmsyz-sandbox"] == "rules, not a language model"
    if answered.status == 200:
        assert answered.body["model"] == "sandbox-rules"
        assert "sandbox" in answered.body["id"]


def test_counts_are_by_endpoint_and_status_and_of_rows(sandbox: Any) -> None:
    ask_chat(sandbox.url, rows("a", "b", "c"))
    ask_chat(sandbox.url, "plain text")
    ask_chat(sandbox.url, model="none")
    call(sandbox.url, "POST", RESPONSES, {}, {})
    stats = sandbox.stats()
    assert stats["n_requests"] == 4
    assert stats["n_by_endpoint"] == {CHAT: {"200": 2, "404": 1}, RESPONSES: {"401": 1}}
    assert stats["n_rows"] == 4
    assert (stats["in_flight"], stats["max_in_flight"]) == (0, 1)


def test_the_last_requests_can_be_read_without_their_keys(sandbox: Any) -> None:
    for n in range(3):
        headers = OPENAI | {"authorization": "Bearer my-secret-key", "user-agent": "me"}
        call(sandbox.url, "POST", CHAT, chat_body(f"number {n}"), headers)
    call(sandbox.url, "POST", MESSAGES, b"{broken", ANTHROPIC | {"x-api-key": "my-secret-key"})
    last = sandbox.requests(2)
    assert [r["status"] for r in last] == [200, 400]
    assert last[0]["body"] == chat_body("number 2")
    assert last[0]["headers"]["user-agent"] == "me"
    assert (last[1]["api"], last[1]["path"], last[1]["body"]) == ("messages", MESSAGES, "{broken")
    assert "my-secret-key" not in str(sandbox.requests())
    assert len(sandbox.requests()) == 4


def test_a_reset_forgets_everything_and_goes_back_to_the_faults_of_the_start() -> None:
    with lmsyz.sandbox.start(fresh=True, default=False, faults=Faults(latency_s=0.001)) as box:
        ask_chat(box.url)
        box.set_faults(server_error=1)
        ask_chat(box.url)
        box.reset()
        stats = box.stats()
        assert (stats["n_requests"], stats["n_by_endpoint"], stats["n_faults"]) == (0, {}, {})
        assert stats["faults"] == {"latency_s": 0.001}
        assert box.requests() == []


def test_what_is_under_way_at_a_reset_is_not_counted_after_it(sandbox: Any) -> None:
    sandbox.set_faults(latency_s=0.8)
    slow = threading.Thread(target=ask_chat, args=(sandbox.url, rows("one", "two")))
    slow.start()
    until = time.monotonic() + 20
    while not sandbox.stats()["n_requests"]:
        assert time.monotonic() < until
        time.sleep(0.01)
    sandbox.reset()
    slow.join()
    ask_chat(sandbox.url, rows("three"))
    assert sandbox.stats()["n_rows"] == 1
    assert sandbox.stats()["n_by_endpoint"] == {CHAT: {"200": 1}}


def test_its_texts_say_what_it_is_and_hold_no_token(sandbox: Any) -> None:
    for text in (repr(sandbox), sandbox._repr_html_()):
        assert "not" in text
        assert "language model" in text
        assert sandbox.url in text
        assert sandbox._entry.token not in text
    assert sandbox._entry.token not in repr(sandbox._entry)


def test_the_urls_are_what_each_sdk_wants(sandbox: Any) -> None:
    assert sandbox.openai_base_url == sandbox.url + "/v1"
    assert sandbox.anthropic_base_url == sandbox.url


def test_it_says_once_that_answers_come_from_rules(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(notice, "_said", set())
    with caplog.at_level(logging.WARNING, "lmsyz.sandbox"):
        notice.say_once("http://127.0.0.1:1")
        notice.say_once("http://127.0.0.1:1")
    assert [r.getMessage() for r in caplog.records] == [
        "lmsyz sandbox: answers come from documented rules (a dictionary method), not from a language model."
        " It listens at http://127.0.0.1:1."
    ]


def test_in_a_notebook_it_says_so_in_the_cell(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    import IPython
    import IPython.display

    class Shell:
        kernel = object()

    shown: list[Any] = []
    monkeypatch.setattr(notice, "_said", set())
    monkeypatch.setattr(IPython, "get_ipython", Shell)
    monkeypatch.setattr(IPython.display, "display", lambda data, raw: shown.append(data))
    notice.say_once("http://127.0.0.1:1")
    notice.say_once("http://127.0.0.1:1")
    assert len(shown) == 1
    assert "not from a language model" in shown[0]["text/plain"]
    assert "not from a language model" in shown[0]["text/html"]
    assert caplog.records == []


@pytest.mark.parametrize(("path", "kind"), [(CHAT, "server_error"), (MESSAGES, "api_error")])
def test_a_bug_of_the_sandbox_is_a_500_in_the_apis_own_shape(
    monkeypatch: pytest.MonkeyPatch, path: str, kind: str
) -> None:
    from lmsyz.sandbox.server import make_app
    from lmsyz.sandbox.state import State

    sent: list[Any] = []
    body = chat_body() if path == CHAT else messages_body()
    told = {"host": "localhost", **OPENAI, **(ANTHROPIC if path == MESSAGES else {})}
    headers = [(k.encode(), v.encode()) for k, v in told.items()]

    async def receive() -> Any:
        return {"type": "http.request", "body": json.dumps(body).encode()}

    async def send(message: Any) -> None:
        sent.append(message)

    def broken(*args: Any) -> None:
        raise ZeroDivisionError

    monkeypatch.setattr("lmsyz.sandbox.server.reply_to", broken)
    scope = {"type": "http", "method": "POST", "path": path, "headers": headers, "query_string": b"", "state": {}}
    with pytest.raises(ZeroDivisionError):
        asyncio.run(make_app(State(0, Faults()), "token", lambda: None)(scope, receive, send))
    assert sent[0]["status"] == 500
    assert json.loads(sent[1]["body"])["error"]["type"] == kind
