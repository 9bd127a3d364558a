"""A real JupyterLab on loopback in a real Chromium: one server, one browser, a notebook and a kernel for each test."""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterable, Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any

NEEDED = ("playwright", "jupyterlab", "nbformat", "ipykernel")
CHROMIUM = os.environ.get("CHROMIUM") or shutil.which("chromium") or shutil.which("chromium-browser")
OURS = ("OPENAI_", "ANTHROPIC_", "LMSYZ_")
WIDE, NARROW = 1400, 600
BLOCKED = "MAP * ~NOTFOUND , EXCLUDE 127.0.0.1 , EXCLUDE localhost"  # whatever asks for another host finds none
FLAGS = (
    "--no-sandbox",  # containers lack the namespaces it needs, and the only pages are ours
    "--disable-gpu",
    "--disable-dev-shm-usage",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--disable-default-apps",
    "--no-first-run",
    "--disable-extensions",
    "--disable-domain-reliability",
    "--disable-features=Translate,OptimizationHints,MediaRouter",
    f"--host-resolver-rules={BLOCKED}",
)
LAB_SETTINGS: dict[str, dict[str, Any]] = {
    "apputils-extension/notification": {"fetchNews": "false", "checkForUpdates": False},
    "notebook-extension/tracker": {"windowingMode": "none"},  # otherwise cells out of sight are not in the page
    "docmanager-extension/plugin": {"autosave": False},
}
HERE = "window.jupyterapp.shell.currentWidget"
IS_READY = f"""() => window.jupyterapp && {HERE} && {HERE}.sessionContext && {HERE}.sessionContext.session
    && {HERE}.sessionContext.session.kernel && {HERE}.sessionContext.session.kernel.status === 'idle'"""


def what_is_missing() -> list[str]:
    """Name what these tests need and this machine has not."""
    missing = [name for name in NEEDED if find_spec(name) is None]
    return missing if CHROMIUM and Path(CHROMIUM).exists() else [*missing, "chromium"]


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _environment(root: Path) -> dict[str, str]:
    """Return an environment in which nothing of the user's own Jupyter is read or written."""
    home = root / ".jupyter-home"
    kept = {k: v for k, v in os.environ.items() if not k.startswith(OURS) and not k.upper().endswith("_PROXY")}
    places = {
        "HOME": home,
        "JUPYTER_CONFIG_DIR": home / "config",
        "JUPYTER_DATA_DIR": home / "data",
        "JUPYTER_RUNTIME_DIR": home / "run",
        "JUPYTER_PATH": home / "path",
        "IPYTHONDIR": home / "ipython",
        "JUPYTERLAB_SETTINGS_DIR": home / "settings",
        "JUPYTERLAB_WORKSPACES_DIR": home / "workspaces",
    }
    for place in places.values():
        place.mkdir(parents=True, exist_ok=True)
    return kept | {name: str(place) for name, place in places.items()} | {"JUPYTER_PLATFORM_DIRS": "0"}


def _write_settings(env: dict[str, str]) -> None:
    for name, values in LAB_SETTINGS.items():
        file = Path(env["JUPYTERLAB_SETTINGS_DIR"], "@jupyterlab", f"{name}.jupyterlab-settings")
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(json.dumps(values))
    # A kernelspec of the virtual environment would win over one in the data directory, but not over this one.
    spec = Path(env["JUPYTER_PATH"], "kernels", "python3", "kernel.json")
    spec.parent.mkdir(parents=True, exist_ok=True)
    argv = [sys.executable, "-m", "ipykernel_launcher", "-f", "{connection_file}"]
    spec.write_text(json.dumps({"argv": argv, "display_name": "Python 3", "language": "python"}))


class Lab:
    """A JupyterLab server with a directory of its own."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.url = f"http://127.0.0.1:{_free_port()}"
        self._log = root / "server.log"
        env = _environment(root)
        _write_settings(env)
        with self._log.open("wb") as log:
            self._process = subprocess.Popen(
                self._command(), env=env, cwd=root, stdout=log, stderr=log, start_new_session=True
            )

    def _command(self) -> list[str]:
        command = [sys.executable, "-m", "jupyterlab", "--no-browser", "--ip=127.0.0.1"]
        command += [f"--port={self.url.rpartition(':')[2]}", "--ServerApp.port_retries=0"]
        command += ["--IdentityProvider.token=", "--ServerApp.password=", "--ServerApp.disable_check_xsrf=True"]
        command += [f"--ServerApp.root_dir={self.root}", "--ServerApp.terminals_enabled=False"]
        command += ["--LabApp.expose_app_in_browser=True"]
        return command + (["--allow-root"] if os.geteuid() == 0 else [])

    def wait_until_up(self, patience_s: float = 90) -> None:
        deadline = time.monotonic() + patience_s
        while True:
            try:
                self._ask("GET", "status")
                return
            except OSError as error:
                if self._process.poll() is not None or time.monotonic() > deadline:
                    raise RuntimeError(f"JupyterLab did not start:\n{self._log.read_text()[-3000:]}") from error
            time.sleep(0.1)

    def _ask(self, method: str, path: str) -> Any:
        request = urllib.request.Request(f"{self.url}/api/{path}", method=method)
        with urllib.request.build_opener(urllib.request.ProxyHandler({})).open(request, timeout=20) as answer:
            return json.loads(answer.read() or b"null")

    def end_kernels(self) -> None:
        """End every kernel: they are in sessions of their own, so that ending the server would leave them behind."""
        for session in self._ask("GET", "sessions"):
            self._ask("DELETE", f"sessions/{session['id']}")
        for kernel in self._ask("GET", "kernels"):
            self._ask("DELETE", f"kernels/{kernel['id']}")

    def write(self, name: str, cells: Iterable[str]) -> Path:
        """Write a notebook of code cells."""
        import nbformat.v4 as v4

        about = {"kernelspec": {"name": "python3", "display_name": "Python 3", "language": "python"}}
        notebook = v4.new_notebook(metadata=about, cells=[v4.new_code_cell(cell) for cell in cells])
        path = self.root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(notebook), encoding="utf-8")
        return path

    def close(self) -> None:
        with contextlib.suppress(OSError):
            self.end_kernels()
        self._process.terminate()
        try:
            self._process.wait(15)
        except subprocess.TimeoutExpired:
            os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait()


@contextlib.contextmanager
def running_lab(root: Path) -> Iterator[Lab]:
    lab = Lab(root)
    try:
        lab.wait_until_up()
        yield lab
    finally:
        lab.close()


@contextlib.contextmanager
def running_browser() -> Iterator[Any]:
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=list(FLAGS), headless=True)
        try:
            yield browser
        finally:
            browser.close()


class Notebook:
    """One notebook open in Lab. Cells are named by their position."""

    def __init__(self, lab: Lab, browser: Any, path: Path, *, width: int = WIDE, height: int = 1000) -> None:
        self.lab, self.path = lab, path
        self.strangers: list[str] = []
        self.page = browser.new_context(viewport={"width": width, "height": height}).new_page()
        self.page.set_default_timeout(60_000)
        self.page.on("request", self._look_at)
        self.open()

    def _look_at(self, request: Any) -> None:
        if not request.url.startswith((self.lab.url, "data:", "blob:", "about:")):
            self.strangers.append(request.url)

    def open(self) -> None:
        """Open the file as it lies on disk, with a new kernel where none runs."""
        self.page.goto(f"{self.lab.url}/lab/tree/{self.path.relative_to(self.lab.root).as_posix()}?reset")
        self.page.wait_for_selector(".jp-Notebook .jp-CodeCell")
        self.page.wait_for_function(IS_READY)

    def reopen(self) -> None:
        """Save, end the kernel, and open the file again; nothing is run."""
        self.save()
        self.page.goto("about:blank")
        self.lab.end_kernels()
        self.open()

    def do(self, command: str) -> None:
        """Run one of Lab's commands without waiting for its end."""
        self.page.evaluate("name => { window.jupyterapp.commands.execute(name); }", command)

    def save(self) -> None:
        self.page.evaluate("async () => { await window.jupyterapp.commands.execute('docmanager:save'); }")

    def interrupt(self) -> None:
        self.do("notebook:interrupt-kernel")

    def use_theme(self, name: str) -> None:
        """Change to ``"JupyterLab Light"`` or ``"JupyterLab Dark"``."""
        change = "async theme => { await window.jupyterapp.commands.execute('apputils:change-theme', {theme}); }"
        self.page.evaluate(change, name)
        is_light = "true" if name.endswith("Light") else "false"
        self.page.wait_for_selector(f'body[data-jp-theme-light="{is_light}"]', state="attached")
        self.page.wait_for_timeout(300)

    def hide_sidebar(self) -> None:
        """Fold Lab's list of files away, so that a narrow page is the notebook's."""
        self.page.evaluate("() => window.jupyterapp.shell.collapseLeft()")

    def cell(self, i: int) -> Any:
        return self.page.locator(".jp-Notebook .jp-CodeCell").nth(i)

    def out(self, i: int) -> Any:
        return self.cell(i).locator(".jp-Cell-outputWrapper")

    def text(self, i: int) -> str:
        return str(self.out(i).inner_text())

    def prompt(self, i: int) -> str:
        return str(self.cell(i).locator(".jp-InputPrompt").text_content())

    def start(self, i: int) -> str:
        """Start a cell, and return the prompt that it had."""
        before = self.prompt(i)
        self.page.evaluate(f"i => {{ {HERE}.content.activeCellIndex = i; }}", i)
        self.do("notebook:run-cell")
        return before

    def wait_done(self, i: int, before: str = "[ ]:", patience_s: float = 60) -> str:
        """Wait until a started cell has another number than before, and return its output's text."""
        self.wait(lambda: self.prompt(i) != before and re.search(r"\d", self.prompt(i)), patience_s, f"cell {i}")
        self.page.wait_for_timeout(100)  # its last output may be on its way still
        return self.text(i)

    def run(self, *cells: int, patience_s: float = 60) -> str:
        """Run cells one after the other; return the text of the last one's output."""
        text = ""
        for i in cells:
            text = self.wait_done(i, self.start(i), patience_s)
        return text

    def wait(self, is_so: Any, patience_s: float = 60, what: str = "it") -> Any:
        """Wait until something holds, and return it; the page lives on meanwhile."""
        deadline = time.monotonic() + patience_s
        while not (found := is_so()):
            if time.monotonic() > deadline:
                cells = "\n".join(self.page.locator(".jp-Cell-outputWrapper").all_inner_texts())
                raise AssertionError(f"waited {patience_s:g} s for {what}; the notebook shows:\n{cells[-3000:]}")
            self.page.wait_for_timeout(50)
        return found

    def wait_text(self, i: int, pattern: str, patience_s: float = 60) -> re.Match[str]:
        """Wait until a cell's output matches a pattern."""
        found: re.Match[str] = self.wait(lambda: re.search(pattern, self.text(i)), patience_s, pattern)
        return found

    def button(self, i: int, name: str) -> Any:
        """Return the visible button of a cell's output whose text or title begins so."""
        begins = re.compile(rf"^\s*{re.escape(name)}", re.IGNORECASE)
        found = self.out(i).get_by_role("button", name=begins)
        return found.or_(self.out(i).locator(f'button[title^="{name}" i]')).locator("visible=true").first

    def click(self, i: int, name: str) -> None:
        self.button(i, name).click()

    def is_pwned(self) -> bool:
        """Whether a hostile text has run as a script; links and pictures get a moment to do so."""
        self.page.wait_for_timeout(300)
        return bool(self.page.evaluate("() => window.__pwned !== undefined"))

    def shot(self, i: int, file: Path) -> None:
        """Take a picture of a cell's output."""
        file.parent.mkdir(parents=True, exist_ok=True)
        self.out(i).scroll_into_view_if_needed()
        self.out(i).screenshot(path=str(file))

    def shots(self, i: int, folder: Path, name: str) -> None:
        """Take pictures of a cell's output in both themes, wide and narrow."""
        size = self.page.viewport_size
        for width in (size["width"], NARROW):
            self.page.set_viewport_size({"width": width, "height": size["height"]})
            if width == NARROW:
                self.hide_sidebar()
            for theme in ("Light", "Dark"):
                self.use_theme(f"JupyterLab {theme}")
                self.shot(i, folder / f"{name}-{theme.lower()}-{width}.png")

    def close(self) -> None:
        self.page.context.close()
