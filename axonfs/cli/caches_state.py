"""The site caches in `axonfs status`: one line for each."""

from __future__ import annotations

from typing import Any

from axonfs.cli.output import clock, echo
from axonfs.names import printable
from axonfs.units import counted, size


def show_caches(item: dict[str, Any]) -> None:
    """The lines of a registry's or a hub's caches.

    Args:
        item: the registry or the hub in the mount's status.
    """
    if item.get("fallback") == "never":
        echo("  only its site caches are asked")
    for cache in item.get("caches") or []:
        where = f" at {cache['address']}" if cache["address"] else ""
        requests = counted(cache["requests"], "request")
        did = f"{size(cache['bytes'])} in {requests}, {cache['share']:.0%}"
        echo(f"  site cache {cache['url']}{where}: {did}{_trouble(cache)}")


def _trouble(cache: dict[str, Any]) -> str:
    if cache["fault"] is None:
        return ""
    why = printable(cache["fault"], 500)
    if cache["since"] is None:
        return f"; it is not known where it is: {why}"
    return f"; set aside since {clock(cache['since'])}: {why}"
