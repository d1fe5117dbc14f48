"""The checks of `axonfs doctor` that compare a mount's settings with the configured ones.

Flags and environment variables of the mount override the config file, so those settings may differ.
Any other difference means that the mount did not reload its settings, or cannot apply them.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import Any

from axonfs.cli.doctor_checks import OK, WARN, Check
from axonfs.cli.reload import ask_mount
from axonfs.daemon.holders import Running, running
from axonfs.errors import AxonError
from axonfs.names import word
from axonfs.settings.applied import FROZEN, plain
from axonfs.settings.settings import Settings, resolve

# Each mount has its own value.
_OWN = {"cache", "mountpoint"}


def settings_checks(settings: Settings) -> Iterator[Check]:
    """Check that each mount of this user has the configured settings."""
    configured = {name: plain(name, value) for name, (value, _) in resolve({}).items()}
    for holder in running():
        if holder.owner == os.geteuid():
            yield _compared(holder, configured)


def _compared(holder: Running, configured: dict[str, Any]) -> Check:
    name, restart = f"settings of {holder.mountpoint}", f"axonfs restart {word(holder.mountpoint)}"
    try:
        state = ask_mount(holder, {"op": "status"})["status"]
    except AxonError as exc:
        return Check(name, WARN, exc.what, exc.hint or "")
    if fault := state.get("settings_fault"):
        return Check(
            name, WARN, f"it uses its previous settings: {fault}", f"fix that, then {restart}"
        )
    if fault := (state.get("metrics") or {}).get("fault"):
        return Check(name, WARN, str(fault), "axonfs config set metrics ADDRESS")
    theirs = state.get("settings") or {}
    differing = [
        (key, item)
        for key, item in theirs.items()
        if key not in _OWN and key in configured and item["value"] != configured[key]
    ]
    if not differing:
        return Check(name, OK, "as configured")
    text = "; ".join(_difference(key, item, configured[key]) for key, item in differing)
    if all(_is_override(key, item) for key, item in differing):
        return Check(name, OK, text)
    return Check(name, WARN, text, restart)


def _is_override(key: str, item: dict[str, Any]) -> bool:
    return key in FROZEN or item["from"] == "flag" or str(item["from"]).startswith("AXONFS_")


def _difference(key: str, item: dict[str, Any], configured: Any) -> str:
    provenance = (
        "from when it was mounted" if key in FROZEN else f"from {_provenance(item['from'])}"
    )
    return f"{key} is {_text(item['value'])} ({provenance}), but configured as {_text(configured)}"


def _provenance(where: str) -> str:
    return "its command line" if where == "flag" else where


def _text(value: Any) -> str:
    if isinstance(value, list | dict):
        return " ".join(map(str, value)) or "none"
    return "not set" if value is None else str(value)
