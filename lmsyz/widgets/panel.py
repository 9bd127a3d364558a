"""The panel: a run, the batch jobs and the cache in tabs; each is built when it is first looked at."""

from __future__ import annotations

import logging
import os
import threading
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import ipywidgets

from lmsyz.errors import UsageError
from lmsyz.run import last_run
from lmsyz.settings import load_settings
from lmsyz.widgets import look
from lmsyz.widgets.look import Html
from lmsyz.widgets.run_view import RunView
from lmsyz.widgets.screen import Live, bundle, has_front_end, static_bundle
from lmsyz.widgets.view import View, set_html

if TYPE_CHECKING:
    import pandas as pd

    from lmsyz.run import Run

__all__ = ["Panel", "foreground", "frame_panel", "panel", "run_panel", "show_live"]

log = logging.getLogger(__name__)

Maker = Callable[[], View]
INTERRUPTED = "The cell was interrupted; this is what had come home by then. All of it is stored."
RUN, JOBS, CACHE, FRAME = "Run", "Batch jobs", "Cache", "This frame"


def panel(
    cache_path: str | os.PathLike[str] | None = None, *, batch_root_dir: str | os.PathLike[str] = "batch_jobs"
) -> Panel:
    """Return the panel: the latest run where there is one, the batch jobs and the cache.

    Parameters
    ----------
    cache_path : str or Path, optional
        The store; the one of the settings unless given.
    batch_root_dir : str or Path, optional
        Where batch jobs lie.

    Returns
    -------
    Panel
        Live as the last line of a notebook's cell; ``print(panel.text())`` anywhere else.

    Examples
    --------
    >>> import lmsyz
    >>> lmsyz.panel()  # doctest: +SKIP
    """
    run = last_run()
    first: dict[str, Maker] = {} if run is None else {RUN: lambda: RunView(run)}
    return Panel({**first, **_stores(_cache_path(cache_path), Path(batch_root_dir))})


def run_panel(run: Run) -> Panel:
    """Return the panel with a run in front; see :meth:`lmsyz.run.Run.panel`."""
    return Panel({RUN: lambda: RunView(run), **_stores(run.cache_path, Path("batch_jobs"))})


def frame_panel(
    df: pd.DataFrame,
    prompt: str | None,
    options: Mapping[str, Any],
    request_options: Mapping[str, Any],
) -> Panel:
    """Return the panel of a frame; see :meth:`df.ie.panel`."""
    path = _cache_path(options.get("cache_path"))
    if prompt is None:
        return panel(path)
    from lmsyz.staleness import row_actions, tasks_read
    from lmsyz.widgets.frame_view import FrameView

    task, actions = row_actions(df, prompt, **options, request_options=request_options)
    ids = tasks_read(path, task, ignore_prompt=bool(options.get("ignore_prompt_hash")))
    return Panel({FRAME: lambda: FrameView(df.index, actions), **_stores(path, Path("batch_jobs"), task_ids=ids)})


def show_live(run: Run) -> bool:
    """Show a run under way in the cell that runs now; False where there is no screen for it."""
    if not has_front_end():
        return False
    view = RunView(run)
    Live(view, is_over=lambda: view.is_over).show()
    return True


def foreground(run: Run) -> Foreground | None:
    """Return what shows a run to the cell that waits for it; None where there is no screen for it."""
    return Foreground(run) if has_front_end() else None


class Foreground:
    """Shows a run without buttons; the thread that waits paints, and all is frozen at the end.

    Parameters
    ----------
    run : Run
        Which one.
    """

    def __init__(self, run: Run) -> None:
        self._view = RunView(run, buttons=False)
        self._live = Live(self._view, has_pump=False)

    def __enter__(self) -> Self:
        self._guarded(self._live.show)
        return self

    def __exit__(self, kind: type[BaseException] | None, *exc: object) -> None:
        if kind is KeyboardInterrupt:
            self._view.end_with(INTERRUPTED)
        self._guarded(self._live.close)

    def paint(self, n: int, postfix: Mapping[str, object]) -> None:
        """Bring the view up to date; it reads the run itself."""
        self._guarded(self._live.paint)

    def show(self, n: int, postfix: Mapping[str, object]) -> None:
        """As :meth:`paint`."""
        self.paint(n, postfix)

    def _guarded(self, paint: Callable[[], None]) -> None:
        try:
            paint()
        except Exception:
            log.warning("the run view cannot be painted and is left out", exc_info=True)


class Panel:
    """Views in tabs; only the one that is looked at is kept up to date.

    Parameters
    ----------
    makers : mapping
        What makes each tab's view, by the tab's name; called when the tab is first shown.
    """

    def __init__(self, makers: Mapping[str, Maker]) -> None:
        self._tabs = [_Tab(name, make) for name, make in makers.items()]
        self._live: Live | None = None
        self.widget = ipywidgets.Tab(children=[tab.box for tab in self._tabs])
        for i, tab in enumerate(self._tabs):
            self.widget.set_title(i, tab.name)
        self.widget.selected_index = 0
        self.widget.observe(lambda _: self.refresh(), names="selected_index")

    def view(self, name: str) -> View:
        """Return a tab's view, which has the tab's actions as plain methods.

        Parameters
        ----------
        name : {"Run", "Batch jobs", "Cache", "This frame"}
            The tab.

        Raises
        ------
        UsageError
            There is no such tab.
        """
        for tab in self._tabs:
            if tab.name == name:
                return tab.built()
        raise UsageError(f"this panel has no tab {name!r}; it has {', '.join(tab.name for tab in self._tabs)}")

    def selection(self) -> pd.DataFrame:
        """Return the rows of the cache that its tab's filters let through."""
        view: Any = self.view(CACHE)
        frame: pd.DataFrame = view.selection()
        return frame

    def rows(self) -> pd.DataFrame:
        """Return what would become of each row of the frame, for a panel made by ``df.ie.panel(prompt)``."""
        view: Any = self.view(FRAME)
        frame: pd.DataFrame = view.rows()
        return frame

    def refresh(self) -> None:
        """Bring the tab that is looked at up to date."""
        shown = self.widget.selected_index
        self._tabs[shown if shown is not None else 0].refresh()

    def static_html(self) -> Html:
        """Return the tabs that were looked at, or all where none was, as HTML that needs no kernel."""
        return look.joined(*(tab.static_html() for tab in self._read()))

    def text(self) -> str:
        """Return the tabs that were looked at, or all where none was, as text for a terminal."""
        return "\n\n".join(f"{tab.name}\n{tab.text()}" for tab in self._read())

    def close(self) -> None:
        """End all threads of the panel, and leave its last state in the notebook."""
        if self._live is not None:
            self._live.close()
        for tab in self._tabs:
            tab.close()

    def _read(self) -> Sequence[_Tab]:
        return [tab for tab in self._tabs if tab.is_open] or self._tabs

    def _ipython_display_(self) -> None:
        if not has_front_end():
            raise NotImplementedError  # IPython then goes on to the other forms
        self.refresh()
        if self._live is not None:
            self._live.close()
        self._live = Live(self, is_over=self._end_of(self._run_view()))
        self._live.show()

    def _run_view(self) -> RunView | None:
        """Return the view of a run where that is all that was looked at."""
        opened = [tab.built() for tab in self._tabs if tab.is_fine]
        return opened[0] if len(opened) == 1 and isinstance(opened[0], RunView) else None

    def _end_of(self, view: RunView | None) -> Callable[[], bool]:
        """Return what says that the panel is over: with a run seen under way, unless other tabs are in use by then."""
        if view is None or not view.run.is_live:
            return lambda: False
        return lambda: view.is_over and self._run_view() is view

    def _repr_mimebundle_(self, include: object = None, exclude: object = None) -> dict[str, Any]:
        return bundle(self) if has_front_end() else static_bundle(self)

    def _repr_html_(self) -> str:
        return str(self.static_html())

    def __repr__(self) -> str:
        return self.text()


class _Tab:
    """One tab: nothing until it is shown, then its view, or what kept it from being built."""

    def __init__(self, name: str, make: Maker) -> None:
        self.name = name
        self.box = ipywidgets.VBox([])
        self._make = make
        self._view: View | None = None
        self._error: Html | None = None
        self._lock = threading.Lock()

    @property
    def is_open(self) -> bool:
        return self._view is not None or self._error is not None

    @property
    def is_fine(self) -> bool:
        return self._view is not None

    def built(self) -> View:
        with self._lock:
            if self._view is None:
                self._view = self._make()
                self.box.children = (self._view.widget,)
            return self._view

    def refresh(self) -> None:
        if self._error is not None:
            return
        try:
            self.built().refresh()
        except Exception as error:
            log.debug("the tab %s cannot be shown", self.name, exc_info=True)
            self._fail(error)

    def _fail(self, error: Exception) -> None:
        words = f"{type(error).__name__}: {error}"
        self._error = look.page(self.name, look.note(f"This tab cannot be shown. {words}", role="bad"))
        shown = ipywidgets.HTML()
        set_html(shown, self._error)
        self.box.children = (shown,)

    def static_html(self) -> Html:
        if self._error is not None:
            return self._error
        try:
            return self.built().static_html()
        except Exception as error:
            log.debug("the tab %s cannot be shown", self.name, exc_info=True)
            return look.note(f"{self.name}: {type(error).__name__}: {error}", role="bad")

    def text(self) -> str:
        try:
            return self.built().text()
        except Exception as error:
            log.debug("the tab %s cannot be shown", self.name, exc_info=True)
            return f"cannot be shown. {type(error).__name__}: {error}"

    def close(self) -> None:
        if self._view is None:
            return
        try:
            self._view.close()
        except Exception:
            log.warning("the tab %s cannot be closed", self.name, exc_info=True)


def _stores(cache_path: Path, batch_root: Path, *, task_ids: Sequence[int] | None = None) -> dict[str, Maker]:
    def jobs() -> View:
        from lmsyz.widgets.jobs_view import JobsView

        return JobsView(batch_root)

    def cache() -> View:
        from lmsyz.widgets.cache_view import CacheView

        return CacheView(cache_path, task_ids=task_ids)

    return {JOBS: jobs, CACHE: cache}


def _cache_path(path: str | os.PathLike[str] | None) -> Path:
    return Path(load_settings().cache_path if path is None else path).expanduser()
