"""What each task and thread waits for now, so that a wait can be explained while it lasts.

A part that is about to wait says so in a block: `with Step(Cause.CONNECTING, "connecting to …")`.
Blocks nest, also across `trio.to_thread.run_sync` and back: a task has one outermost step, and each
step knows those that are open within it. A task that another one starts has steps of its own. Who
waits for another task says so by `on`. So `trail` leads from a request of the kernel to the receive
that it waits for. A step costs about a microsecond; nothing is asked or formatted until one looks.

Any thread may enter a step; only the trio thread looks.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from contextvars import ContextVar
from enum import StrEnum
from typing import Self

import trio

# Steps of one trail; tasks that wait for each other in a circle would make it endless.
LONGEST = 40

Text = str | Callable[[], str]


class Cause(StrEnum):
    """What a program waits for."""

    QUEUED = "queued"  # a stream of the source
    CONNECTING = "connecting"  # a name, a connection, a TLS handshake
    FIRST_BYTE = "first_byte"  # an answer
    RECEIVING = "receiving"  # the rest of it
    RETRYING = "retrying"  # the next attempt
    PAUSED = "paused"  # the end of a pause that the source asked for
    BANDWIDTH = "bandwidth"  # the mount's own limit
    PACKAGE = "package"  # a pass over a package
    DOCUMENT = "document"  # a manifest, a list, a chunk table, a token
    CHECKING = "checking"  # a digest
    DISK = "disk"  # the cache's disk
    CACHES = "caches"  # a site cache, where the source may not be asked
    OTHER = "other"


class Step:
    """Something that a task or thread does and that may take long; a context manager.

    Args:
        text: what is done now, as in "connecting to h:80", or what makes that text.
        about: what it is done for, as in "for the document …", or what makes that text.
        hint: what the user can do, if that is more than the cause says.
        source, cache: the URL that is asked, and the site cache that stands in for it.
        on: the outermost step of the task that this one waits for, if that is known.
        within: the step that this one belongs to, if it is another task's.
    """

    __slots__ = (
        "_before",
        "_outer",
        "about",
        "cache",
        "hint",
        "inner",
        "now",
        "on",
        "source",
        "task",
    )

    def __init__(
        self,
        cause: Cause,
        text: Text,
        *,
        about: Text = "",
        hint: str | None = None,
        source: str | None = None,
        cache: str | None = None,
        on: Callable[[], Step | None] | None = None,
        within: Step | None = None,
    ) -> None:
        self.now = cause, text, time.monotonic()
        self.about = about
        self.hint = hint
        self.source = source
        self.cache = cache
        self.on = on
        self.inner: list[Step] = []
        self.task: object = None
        self._outer = within
        self._before: Step | None = None

    def __enter__(self) -> Self:
        self.now = *self.now[:2], time.monotonic()
        self._before = _here.get()
        task = this_task()
        if self._outer is None:
            self._outer = self._before
            if task is not None and self._before is not None and self._before.task is not task:
                self._outer = None  # of the task that started this one
        self.task = task or (self._outer and self._outer.task)
        if self._outer is not None:
            self._outer.inner.append(self)
        elif task is not None:
            _outermost[task] = self
        _here.set(self)
        return self

    def __exit__(self, *_: object) -> None:
        _here.set(self._before)
        if self._outer is not None:
            self._outer.inner.remove(self)
        elif self.task is not None:
            _outermost.pop(self.task, None)

    def turn(self, cause: Cause, text: Text) -> None:
        """Something else is done from now on, for the same purpose."""
        self.now = cause, text, time.monotonic()

    @property
    def cause(self) -> Cause:
        return self.now[0]

    @property
    def text(self) -> str:
        """What is done now."""
        return _said(self.now[1])

    @property
    def purpose(self) -> str:
        """What it is done for; empty if that is plain."""
        return _said(self.about)

    @property
    def since(self) -> float:
        """When it began, by `time.monotonic`."""
        return self.now[2]


_here: ContextVar[Step | None] = ContextVar("step", default=None)
_outermost: dict[object, Step] = {}  # by task


def this_task() -> trio.lowlevel.Task | None:
    """The task that runs now; None in other threads."""
    return trio.lowlevel.current_task() if trio.lowlevel.in_trio_task() else None


def here() -> Step | None:
    """The innermost step of this task or thread, for tasks that it starts and waits for."""
    return _here.get()


def outermost(task: object) -> Step | None:
    """The outermost step of a task."""
    return _outermost.get(task)


def trail(step: Step | None) -> list[Step]:
    """`step` and what it waits for, ever further in; of several steps the one that began first."""
    found: list[Step] = []
    while step is not None and len(found) < LONGEST:
        found.append(step)
        inner = step.inner.copy()  # threads enter and leave steps meanwhile
        step = inner[0] if inner else step.on() if step.on else None
    return found


def _said(text: Text) -> str:
    return text if isinstance(text, str) else text()
