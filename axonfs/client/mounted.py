"""Where the models of a target are mounted, if they are: for programs that read them there.

Blocking; any thread. Touches no mount itself: one that does not answer would keep the caller.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from axonfs.client.other_users import others
from axonfs.client.transport import Sink, Transport
from axonfs.connection.mountinfo import Mount, mounts
from axonfs.errors import AxonError
from axonfs.names import parse_spec
from axonfs.versions import parse_wanted


class Mounted:
    """The mountpoint of a target; looked for again when mounts come or go."""

    def __init__(self, transport: Transport) -> None:
        self._transport = transport
        self._mounts: Sequence[Mount] = ()
        self._mountpoint: Path | None = None

    def mountpoint(self) -> Path | None:
        """Where this user's mount is; else, if nothing names a cache, another user's that answers.

        Raises:
            AxonError: this user's mount does not answer.
        """
        now = mounts()
        if not now:
            return None
        # A mount that has just begun may not answer yet, so only what was found is kept.
        if self._mountpoint is None or now != self._mounts:
            self._mountpoint, self._mounts = self._find(), now
        return self._mountpoint

    def forget(self) -> None:
        """Look for the mountpoint again: the mount that was found is dead."""
        self._mountpoint = None

    def _find(self) -> Path | None:
        answer = self._transport.ask_worker({"op": "status"})
        if answer and (mountpoint := answer["status"].get("mountpoint")):
            return Path(mountpoint)
        if self._transport.target.explicit_cache:
            return None
        return next((other.place for other in others() if other.alive), None)

    def directory(self, spec: str, sink: Sink) -> tuple[str, Path]:
        """The version that `spec` names, and its directory.

        Raises:
            AxonError: nothing is mounted, or there is no such version.
        """
        wanted = str(parse_wanted(spec))
        mountpoint = self.mountpoint()
        if mountpoint is None:
            raise AxonError("nothing is mounted", spec=wanted, hint="run axonfs mount first")
        found = self._transport.ask({"op": "info", "spec": wanted}, sink)["version"]
        return found["spec"], mountpoint.joinpath(*parse_spec(found["spec"]).segments)
