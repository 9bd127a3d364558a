"""What the endpoints on this machine share: being this kernel's default endpoint, and saying in a notebook who answers.

The default endpoint is told by environment variables, so that what a program starts sees it too. Only one holds it: who
takes it puts the others aside, and puts back what was there when it gives it up.
"""

from __future__ import annotations

import html
import os
import sys
from collections.abc import Callable, Mapping

__all__ = ["VARIABLES", "DefaultEndpoint", "show"]

VARIABLES = ("LMSYZ_SANDBOX_URL", "LMSYZ_LOCAL_URL", "LMSYZ_LOCAL_MODEL")


class DefaultEndpoint:
    """One server's claim to be where calls go that name no server.

    Parameters
    ----------
    **variables : str
        What of :data:`VARIABLES` is set while it holds; the others are not set.
    """

    def __init__(self, **variables: str) -> None:
        self._variables = variables
        self._before: Mapping[str, str] | None = None

    def take(self) -> None:
        """Make it the default; taking it twice does no harm."""
        if self._before is None:
            self._before = _now()
            _claims.append(self)
        _set(self._variables)

    def give_back(self) -> None:
        """Restore what was the default before; one that took over since keeps it, and will not restore this one."""
        before, self._before = self._before, None
        if before is None:
            return
        _claims.remove(self)
        before = {} if before == self._variables else before
        for other in _claims:
            if other._before == self._variables:
                other._before = before
        if _now() == self._variables:
            _set(before)


_claims: list[DefaultEndpoint] = []


def show(text: str) -> bool:
    """Display a text in the running notebook; False where no kernel runs."""
    if "IPython" not in sys.modules:
        return False
    import IPython
    import IPython.display

    shell = IPython.get_ipython()
    if shell is None or getattr(shell, "kernel", None) is None:
        return False
    display: Callable[..., object] = IPython.display.display
    display({"text/plain": text, "text/html": f"<div>{html.escape(text)}</div>"}, raw=True)
    return True


def _now() -> dict[str, str]:
    return {name: os.environ[name] for name in VARIABLES if name in os.environ}


def _set(variables: Mapping[str, str]) -> None:
    for name in VARIABLES:
        if name in variables:
            os.environ[name] = variables[name]
        else:
            os.environ.pop(name, None)
