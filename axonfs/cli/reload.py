"""What a change of the settings means for the mounts that run: they are asked to apply it.

After an edit each mount of this user looks at its settings again, and the command says for each
whether the change applies, and if not, why and what to do. Blocking.
"""

from __future__ import annotations

import os
import time
from collections.abc import Collection, Iterator
from contextlib import suppress
from pathlib import Path

from axonfs.call import Event, call
from axonfs.cli.output import note
from axonfs.daemon.holders import Running, running, silence
from axonfs.errors import AxonError
from axonfs.settings.applied import FROZEN
from axonfs.settings.settings import config_path, own_config, resolve

# A worker that starts takes a second, on a busy machine a few.
PATIENCE = 60.0
NOW = "now"


def apply_to_mounts(names: Collection[str]) -> None:
    """Have the mounts of this user apply their settings, of which `names` were edited; say how.

    Meant are those with this config file, and the one that commands use.
    """
    cache, config = resolve({})["cache"][0], own_config()
    for holder in running():
        mine = holder.owner == os.geteuid()
        if mine and (holder.config == config or holder.cache == cache):
            for remark in _apply_to(holder, names):
                note(remark)


def _apply_to(holder: Running, names: Collection[str]) -> Iterator[str]:
    place = holder.mountpoint
    try:
        answer = ask_mount(holder, {"op": "reload"})
    except AxonError as exc:
        yield f"the mount at {place} keeps its settings: {exc}"
        return
    outcomes = dict.fromkeys(outcome(name, answer, place) for name in names)
    if NOW in outcomes and (complaint := _complaint(holder, answer["worker"])):
        yield f"the mount at {place} keeps its settings: {complaint}"
        return
    for text in outcomes:
        yield f"applies now to the mount at {place}" if text == NOW else text


def ask_mount(holder: Running, request: Event) -> Event:
    """The result of a request to one mount; it is sent again while the worker is being replaced.

    Raises:
        AxonError: it fails, or the mount does not answer.
    """
    from axonfs.client.transport import settle

    deadline = time.monotonic() + PATIENCE
    while time.monotonic() < deadline:
        try:
            for event in call(holder.cache, request):
                if (result := settle(event, lambda event: None)) is not None:
                    return result
        except (ConnectionResetError, BrokenPipeError):
            pass  # the worker ended before it took the request
        except OSError as exc:
            what, hint = silence(holder.pid)
            raise AxonError(what, hint=hint) from exc
        time.sleep(0.05)
    raise AxonError("its worker is being replaced", hint=f"axonfs restart {holder.mountpoint}")


def outcome(name: str, answer: Event, place: Path) -> str:
    """Whether the setting `name` applies to the mount at `place`, which answered a reload: NOW, or
    a sentence."""
    provenance = str(answer["origins"].get(name))
    if name in FROZEN:
        return f"the mount at {place} keeps its own {name} until it is mounted anew"
    if provenance == "flag":
        flag = "--registry" if name == "registries" else f"--{name.replace('_', '-')}"
        return f"the mount at {place} was started with {flag}, so it keeps its own"
    if provenance.startswith("AXONFS_"):
        return f"the mount at {place} was started with {provenance} set, so it keeps its own"
    if Path(answer["file"]) != config_path():
        return f"the mount at {place} has another config file, {answer['file']}"
    if name not in answer["changed"]:
        return f"the mount at {place} has it already"
    if not answer["applied"]:
        return f"applies after: axonfs restart {place}"
    if answer["waits_for"]:
        what = f"when it has answered other commands ({', '.join(answer['waits_for'])})"
        return f"applies to the mount at {place} {what}; at once after: axonfs restart {place}"
    return NOW


def _complaint(holder: Running, worker: int) -> str | None:
    """Why the settings do not apply although another worker was to start with them."""
    deadline = time.monotonic() + PATIENCE
    while time.monotonic() < deadline:
        with suppress(AxonError):  # the worker that is asked may be about to end
            if ask_mount(holder, {"op": "ping"}).get("worker") != worker:
                fault = ask_mount(holder, {"op": "status"})["status"].get("settings_fault")
                return None if fault is None else str(fault)
        time.sleep(0.05)  # nothing says that it has ended
    return "; ".join(silence(holder.pid))
