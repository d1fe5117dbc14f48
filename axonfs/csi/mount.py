"""The node's mount, as the plugin asks it: by the control socket in its cache, never by its files.

A mount whose worker is being replaced does not answer for a moment; one that has none would keep a
process that touches its files. Blocking; any thread.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from axonfs.call import Event, call, error_of
from axonfs.client.transport import Sink, ignore
from axonfs.connection.binding import mount_of
from axonfs.connection.mountinfo import top_at
from axonfs.csi.refusal import unavailable
from axonfs.errors import NotFoundError
from axonfs.mounttable import FILESYSTEM
from axonfs.names import parse_spec

_HINT = "is its pod running?"


@dataclass(frozen=True, slots=True)
class NodeMount:
    """The mount at `mountpoint`, with its cache."""

    mountpoint: Path
    cache: Path

    def connection(self) -> int:
        """The number of its FUSE connection.

        Raises:
            RefusedError: nothing is mounted.
        """
        top = top_at(self.mountpoint)
        if top is None or top.filesystem != FILESYSTEM:
            raise unavailable(f"nothing is mounted at {self.mountpoint}; {_HINT}")
        return top.device

    def ask(self, request: Event, sink: Sink = ignore) -> Event:
        """The mount's answer.

        Raises:
            AxonError: it refuses.
            RefusedError: it does not answer.
        """
        try:
            for event in call(self.cache, request):
                if event.get("event") == "error":
                    raise error_of(event)
                if event.get("event") == "result":
                    return event
                sink(event)
        except OSError as exc:
            why = exc.strerror or str(exc)
            raise unavailable(f"the mount of this node does not answer ({why}); {_HINT}") from exc
        raise unavailable(f"the mount of this node went away before it answered; {_HINT}")

    def version(self, spec: str) -> dict[str, Any]:
        """The version that `spec` names, and what of it is local.

        Raises:
            AxonError: there is no such version, or it may not be read.
        """
        found: dict[str, Any] = self.ask({"op": "version", "spec": spec})["version"]
        return found

    def versions(self, model: str) -> list[dict[str, Any]]:
        """The versions of a model, with their sizes.

        Raises:
            NotFoundError: there is no such model.
        """
        found: list[dict[str, Any]] = self.ask({"op": "versions", "model": model})["versions"]
        return found

    def status(self) -> dict[str, Any]:
        """What `axonfs status` shows."""
        found: dict[str, Any] = self.ask({"op": "status"})["status"]
        return found

    def open(self, root: str) -> int:
        """A descriptor of the directory `root`, as mountinfo names it.

        The mount has to answer: so the caller has just asked it.

        Raises:
            NotFoundError: the mount has no such directory.
            RefusedError: the mount ended meanwhile.
        """
        place = self.mountpoint / root.lstrip("/")
        try:
            directory = os.open(place, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        except FileNotFoundError as exc:
            raise NotFoundError("is not in the mount", path=str(place)) from exc
        except OSError as exc:
            raise unavailable(f"{place}: {exc.strerror}; {_HINT}") from exc
        if mount_of(directory).filesystem != FILESYSTEM:  # else the pod had what is below the mount
            os.close(directory)
            raise unavailable(f"the mount at {self.mountpoint} has just ended; {_HINT}")
        return directory


def root_of(spec: str) -> str:
    """The directory of a version in the mount, as mountinfo names it."""
    return "/" + "/".join(parse_spec(spec).segments)
