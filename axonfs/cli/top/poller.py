"""Asks a mount for its state, in a thread of its own: a mount that hangs must not stop the view.

Threads: `run` is the thread; everything else may be read from any.
"""

from __future__ import annotations

import threading
import time
from dataclasses import dataclass
from typing import Any

from axonfs.cli.mount_state import LiveState, State
from axonfs.errors import AxonError, refused

PATIENCE = 2.0  # seconds without an answer that are nothing to mention
INFO_PAUSE = 5.0


@dataclass(frozen=True, slots=True)
class Answer:
    """The last state, when it was asked for, and why there is no newer one."""

    state: State | None = None
    time: float = 0.0
    fault: str = ""


class Poller(threading.Thread):
    """Asks every `interval` seconds, but not while `paused`."""

    def __init__(self, source: LiveState, interval: float) -> None:
        super().__init__(daemon=True, name="poller")
        self.source = source
        self.answer = Answer()
        self.paused = False
        self._interval = interval
        self._asked = time.time()
        self._waits = False
        self._ended = threading.Event()

    def run(self) -> None:
        while not self._ended.is_set():
            if not self.paused:
                self._ask()
            self._ended.wait(self._interval)

    def _ask(self) -> None:
        self._asked, self._waits = time.time(), True
        try:
            state = self.source.read()
        except (AxonError, OSError) as exc:  # OSError: no process or descriptor is left here
            error = refused(exc) if isinstance(exc, OSError) else exc
            why = error.what + (f"; {error.hint}" if error.hint else "")
            self.answer = Answer(self.answer.state, self.answer.time, why)
        else:
            self.answer = Answer(state, time.time())
        self._waits = False

    def stop(self) -> None:
        """Have the thread end soon; one that waits for a mount ends with the process."""
        self._ended.set()

    def trouble(self) -> str:
        """Why the figures are old; empty if they are not."""
        answer, now = self.answer, time.time()
        silent = now - self._asked if self._waits else 0.0
        why = answer.fault or ("it does not answer" if silent > PATIENCE else "")
        if not why:
            return ""
        if answer.state is None:
            return f"no figures yet: {why}"
        when = time.strftime("%H:%M:%S", time.localtime(answer.time))
        return f"figures of {when}, {now - answer.time:.0f} s ago: {why}"


class Details(threading.Thread):
    """Asks a mount for what it knows of one version, again and again until it is stopped."""

    def __init__(self, source: LiveState, spec: str) -> None:
        super().__init__(daemon=True, name="details")
        self.spec = spec
        self.info: dict[str, Any] | None = None
        self.why = ""
        self._source = source
        self._ended = threading.Event()

    def run(self) -> None:
        while not self._ended.is_set():
            try:
                found = self._source.ask({"op": "info", "spec": self.spec})
            except (AxonError, OSError) as exc:
                self.why = str(refused(exc) if isinstance(exc, OSError) else exc)
            else:
                self.info = dict(found["version"])
            self._ended.wait(INFO_PAUSE)

    def stop(self) -> None:
        """Have the thread end soon."""
        self._ended.set()
