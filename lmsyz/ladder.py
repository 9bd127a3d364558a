"""Which way of asking for structured output works at an endpoint, found out once and remembered.

Servers refuse a form, or answer 200 and ignore it. A refused form steps down at once; a form under which two replies
in a row cannot be read, before any could, steps down too. What worked is remembered for the kernel's life, by
endpoint, API, model and schema (a schema too large for one provider's grammar says nothing about another schema).
"""

from __future__ import annotations

import threading
from collections.abc import Sequence

from lmsyz.providers.base import Form
from lmsyz.task import Task

__all__ = ["Ladder", "forget_forms"]

DOUBTS_BEFORE_STEP = 2

_remembered: dict[tuple[str, ...], Form] = {}


class Ladder:
    """The forms of one run, best first; thread-safe.

    Parameters
    ----------
    task : Task
        What is asked, and where.
    forms : sequence of Form
        What the provider can try, best first.
    """

    def __init__(self, task: Task, forms: Sequence[Form]) -> None:
        self._forms = tuple(forms)
        record = task.record
        self._place = (task.backend, task.endpoint, task.api, task.model, record.schema_hash)
        known = _remembered.get(self._place)
        self._at = self._forms.index(known) if known in self._forms else 0
        self._sure = known is not None
        self._doubts = 0
        self._lock = threading.Lock()

    @property
    def form(self) -> Form:
        """The form to use now."""
        return self._forms[self._at]

    def refused(self, form: Form) -> bool:
        """Note that the server refused a form; return whether there is another one to try."""
        with self._lock:
            return self._step_from(form) or self.form is not form

    def unreadable(self, form: Form) -> None:
        """Note a reply that could not be read; enough of them before any good one mean that the form is ignored."""
        with self._lock:
            if self._sure or form is not self.form:
                return
            self._doubts += 1
            if self._doubts >= DOUBTS_BEFORE_STEP:
                self._step_from(form)

    def worked(self, form: Form) -> None:
        """Note that a reply could be read, and remember the form."""
        if self._sure or form is not self.form:
            return
        with self._lock:
            self._sure = True
            _remembered[self._place] = form

    def _step_from(self, form: Form) -> bool:
        if form is not self.form or self._at + 1 >= len(self._forms):
            return False
        self._at += 1
        self._doubts = 0
        self._sure = False
        return True


def forget_forms() -> None:
    """Forget what worked where, as a new kernel would."""
    _remembered.clear()
