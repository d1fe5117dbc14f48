"""Has running mounts apply an edited setting.

After an edit each mount of this user reloads its settings. The command then says for each mount
whether the change applies, and if not, why and what to do. Blocking.
"""

from __future__ import annotations

import os
import time
from collections.abc import Collection, Iterator, Mapping
from contextlib import suppress
from pathlib import Path

from axonfs.call import Event, call
from axonfs.cli.output import note
from axonfs.daemon.holders import Running, running, silence
from axonfs.errors import AxonError
from axonfs.names import word
from axonfs.settings.applied import FROZEN, REMOUNT
from axonfs.settings.settings import config_path, own_config, resolve

# Seconds to wait for a new worker. It starts within one second, or a few on a busy machine.
PATIENCE = 60.0
NOW = "now"
_FLAGS = {"registries": "--registry", "cache_quotas": "--cache-quota"}


def apply_to_mounts(names: Collection[str]) -> None:
    """Have this user's mounts reload their settings, and report what became of the edited `names`.

    This concerns the mounts with this config file, and the mount whose cache commands use.
    """
    cache, config = resolve({})["cache"][0], own_config()
    for holder in running():
        mine = holder.owner == os.geteuid()
        if mine and (holder.config == config or holder.cache == cache):
            for remark in _apply_to(holder, names):
                note(remark)


def _apply_to(holder: Running, names: Collection[str]) -> Iterator[str]:
    mountpoint = holder.mountpoint
    try:
        answer = ask_mount(holder, {"op": "reload"})
    except AxonError as exc:
        yield f"the mount at {mountpoint} keeps its settings: {exc}"
        return
    outcomes = dict.fromkeys(outcome(name, answer, mountpoint) for name in names)
    replaced = NOW in outcomes and not answer.get("live")
    if replaced and (complaint := _complaint(holder, answer["worker"])):
        yield f"the mount at {mountpoint} keeps its settings: {complaint}"
        return
    for text in outcomes:
        yield f"applies now to the mount at {mountpoint}" if text == NOW else text


def remount(holder: Running, options: Mapping[str, object]) -> Iterator[str]:
    """Have a mount take other settings, in the form of flags; yield what the user has to know.

    Raises:
        AxonError: the mount keeps its settings, or one of them.
    """
    answer, place = ask_mount(holder, {"op": "reload", "options": dict(options)}), holder.mountpoint
    if not answer["applied"]:
        yield f"applies after: axonfs restart {word(place)}"
    elif answer["waits_for"] and not answer.get("live"):
        yield f"applies when the mount has answered {', '.join(answer['waits_for'])}"
    elif not answer["changed"] or answer.get("live"):
        return
    elif complaint := _complaint(holder, answer["worker"]):
        raise AxonError(f"it keeps its settings: {complaint}", path=str(place))


def ask_mount(holder: Running, request: Event) -> Event:
    """The result of a request to one mount, which is retried while the worker is being replaced.

    Raises:
        AxonError: the request failed, or the mount does not answer.
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
    hint = f"axonfs restart {word(holder.mountpoint)}"
    raise AxonError("its worker is being replaced", hint=hint)


def outcome(name: str, answer: Event, mountpoint: Path) -> str:
    """NOW if the setting `name` applies to the mount at once, else a sentence that says why not.

    Args:
        answer: the mount's answer to `reload`.
    """
    provenance = str(answer["origins"].get(name))
    if name in FROZEN:
        return f"the mount at {mountpoint} keeps its {name} until it is mounted again"
    if provenance == "flag":
        flag = _FLAGS.get(name, f"--{name.replace('_', '-')}")
        return f"the mount at {mountpoint} was started with {flag}, so it keeps that value"
    if provenance == REMOUNT:
        return f"the mount at {mountpoint} was remounted with {name}, so it keeps that value"
    if provenance.startswith("AXONFS_"):
        variable = f"{provenance} set"
        return f"the mount at {mountpoint} was started with {variable}, so it keeps that value"
    if Path(answer["file"]) != config_path():
        return f"the mount at {mountpoint} uses another config file, {answer['file']}"
    if name not in answer["changed"]:
        return f"the mount at {mountpoint} already has this value"
    if answer.get("live"):
        return NOW
    if not answer["applied"]:
        return f"applies after: axonfs restart {word(mountpoint)}"
    if answer["waits_for"]:
        what = f"when it has answered other commands ({', '.join(answer['waits_for'])})"
        at_once = f"to apply it at once: axonfs restart {word(mountpoint)}"
        return f"applies to the mount at {mountpoint} {what}; {at_once}"
    return NOW


def _complaint(holder: Running, worker: int) -> str | None:
    """Why the new worker does not use the new settings; None if it does."""
    deadline = time.monotonic() + PATIENCE
    while time.monotonic() < deadline:
        with suppress(AxonError):  # the old worker may be about to end
            if ask_mount(holder, {"op": "ping"}).get("worker") != worker:
                fault = ask_mount(holder, {"op": "status"})["status"].get("settings_fault")
                return None if fault is None else str(fault)
        time.sleep(0.05)  # the end of the old worker cannot be awaited
    return "; ".join(silence(holder.pid))
