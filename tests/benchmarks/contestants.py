"""Who is measured side by side, where each is installed, and how one is run in a process of its own."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

__all__ = ["BARE", "CONTESTANTS", "RUN_S", "Contestant", "Failed", "Field", "field_of"]

DRIVERS = Path(__file__).with_name("drivers")
INSTALL_S = 600
RUN_S = 300


@dataclass(frozen=True, slots=True, kw_only=True)
class Contestant:
    """One way to ask about every text."""

    name: str
    driver: str
    package: str = ""
    extra: str = ""
    chunk: int = 1
    keeps: bool = True  # answers, from one run to the next
    options: Mapping[str, Any] = field(default_factory=dict)
    only: tuple[str, ...] = ()  # scenarios it is there for; all without


BARE = Contestant(name="bare SDK loop", driver="use_bare", keeps=False)
CONTESTANTS = (
    BARE,
    Contestant(name="lmsyz, 5 rows a request", driver="use_lmsyz", chunk=5),
    Contestant(name="lmsyz, 1 row a request", driver="use_lmsyz"),
    Contestant(name="seed, 5 rows a request", driver="use_seed", package="lmsyz-genai-ie-rfs", chunk=5),
    Contestant(name="flexllm", driver="use_flexllm", package="flexllm"),
    Contestant(
        name="flexllm, flush_interval=0",
        driver="use_flexllm",
        package="flexllm",
        options={"flush_interval": 0},
        only=("killed",),
    ),
    Contestant(name="silkloom-core", driver="use_silkloom", package="silkloom-core"),
    Contestant(name="async-batch-llm", driver="use_async_batch_llm", package="async-batch-llm", extra="[openai]"),
    Contestant(
        name="async-batch-llm, SQLite",
        driver="use_async_batch_llm",
        package="async-batch-llm",
        extra="[openai]",
        options={"store": "sqlite"},
        only=("killed",),
    ),
)


class Failed(Exception):
    """A contestant did not get through."""


@dataclass(slots=True)
class Field:
    """Who can take part on this machine, why the others cannot, and who failed on the way."""

    pythons: dict[str, Path]
    versions: dict[str, str]
    missing: dict[str, str]
    failed: list[tuple[str, str]] = field(default_factory=list)

    def of(self, scenario: str) -> list[Contestant]:
        """Return who takes part in a scenario, the bare loop first."""
        return [c for c in CONTESTANTS if c.package in self.pythons and (not c.only or scenario in c.only)]

    @contextmanager
    def forgiving(self, who: Contestant) -> Iterator[None]:
        """Note that a contestant failed, and go on with the others."""
        try:
            yield
        except Failed as error:
            self.failed.append((who.name, str(error)))

    def run(self, who: Contestant, url: str, folder: str | Path, **about: Any) -> dict[str, Any]:
        """Run one to its end and return what it found out."""
        with self.started(who, url, folder, **about) as child:
            try:
                out, _ = child.communicate(timeout=RUN_S)
            except subprocess.TimeoutExpired:
                raise Failed(f"not done after {RUN_S} s") from None
        if child.returncode:
            said = Path(folder, "stderr").read_text().strip().splitlines()
            raise Failed(f"ended with {child.returncode}: {said[-1] if said else ''}")
        found: dict[str, Any] = json.loads(out.splitlines()[-1])
        return found

    @contextmanager
    def started(
        self, who: Contestant, url: str, folder: str | Path, *, n: int, workers: int, runs: int = 1, rate: float = 0.0
    ) -> Iterator[subprocess.Popen[str]]:
        """Start one; it is ended with the block."""
        order = {"url": url, "n": n, "workers": workers, "folder": str(folder), "runs": runs, "rate": rate}
        order |= {"chunk": who.chunk, "options": dict(who.options)}
        command = [str(self.pythons[who.package]), str(DRIVERS / f"{who.driver}.py"), json.dumps(order)]
        with (
            Path(folder, "stderr").open("w") as errors,
            _popen(command, errors, folder, is_ours=not who.package) as child,
        ):
            try:
                yield child
            finally:
                child.kill()


def _popen(command: list[str], errors: IO[str], folder: str | Path, *, is_ours: bool) -> subprocess.Popen[str]:
    # A home of its own: no contestant reads or leaves anything in the user's.
    env = {"PATH": os.environ.get("PATH", ""), "HOME": str(folder)}
    if is_ours:
        env["PYTHONPATH"] = str(DRIVERS.parents[2])
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=errors, text=True, env=env, cwd=folder)


@contextmanager
def field_of(folder: str | None, pip_env: Mapping[str, str]) -> Iterator[Field]:
    """Return this package and the bare loop, and the peers if they are wanted.

    Parameters
    ----------
    folder : str or None
        Where the peers' environments are or will be; ``""`` for a temporary one, None for no peers.
    pip_env : mapping
        The environment that pip runs with, proxies included.
    """
    here = Field(pythons={"": Path(sys.executable)}, versions={}, missing={})
    packages = {c.package: c.extra for c in CONTESTANTS if c.package}
    if folder is None:
        here.missing = dict.fromkeys(packages, "not asked for (--peers)")
        yield here
        return
    with tempfile.TemporaryDirectory() as temporary:
        root = Path(folder or temporary).absolute()
        for package, extra in packages.items():
            python, reason = _installed(root / package, package + extra, pip_env)
            if reason:
                here.missing[package] = reason
            else:
                here.pythons[package] = python
                here.versions[package] = _version(python, package)
        yield here


def _installed(place: Path, requirement: str, env: Mapping[str, str]) -> tuple[Path, str]:
    """Make an environment with one package, unless it is there; return its Python and why there is none."""
    python, done = place / "bin" / "python", place / "installed"
    if done.exists() and done.read_text() == requirement:
        return python, ""
    for command in (
        [sys.executable, "-m", "venv", "--clear", str(place)],
        [str(python), "-m", "pip", "install", "-q", "--disable-pip-version-check", requirement],
    ):
        try:
            subprocess.run(command, env=dict(env), capture_output=True, text=True, check=True, timeout=INSTALL_S)
        except (OSError, subprocess.SubprocessError) as error:
            said = (getattr(error, "stderr", "") or str(error)).strip().splitlines()
            return python, said[-1] if said else type(error).__name__
    done.write_text(requirement)
    return python, ""


def _version(python: Path, package: str) -> str:
    code = f"from importlib.metadata import version; print(version({package!r}))"
    return subprocess.run([str(python), "-c", code], capture_output=True, text=True, check=True).stdout.strip()
