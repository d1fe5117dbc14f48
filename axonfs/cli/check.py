"""`axonfs status --check`: whether a mount is well, as an exit code for a supervisor."""

from __future__ import annotations

from pathlib import Path

from axonfs.cli.mount_state import LiveState
from axonfs.cli.output import echo, echo_json
from axonfs.client.target import Target
from axonfs.errors import AxonError, NotFoundError, UsageError
from axonfs.names import printable
from axonfs.observe.health import Trouble, not_answering, not_mounted, troubles


def check(mountpoint: str | None, target: Target, *, as_json: bool) -> int:
    """Print what is wrong with a mount, gravest first; the exit code of the gravest, 0 if nothing
    is.

    Raises:
        UsageError: there are several mounts.
    """
    found = _troubles(mountpoint, target)
    if as_json:
        echo_json({"healthy": not found, "troubles": [one.plain() for one in found]})
    for one in () if as_json else found:
        echo(printable(str(one), 1000))
    if not (found or as_json):
        echo("ok")
    return found[0].code if found else 0


def _troubles(mountpoint: str | None, target: Target) -> list[Trouble]:
    try:
        live = LiveState(Path(mountpoint) if mountpoint else None, target)
        state = live.read()
        with live.doubted():
            return troubles(state)
    except UsageError:
        raise
    except NotFoundError as exc:
        return [not_mounted(exc.what, exc.hint or "")]
    except AxonError as exc:
        return [not_answering(exc.what, exc.hint or "see axonfs doctor")]
