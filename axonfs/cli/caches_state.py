"""The site caches in `axonfs status`: one line for each."""

from __future__ import annotations

from typing import Any

from axonfs.cli.output import clock, echo
from axonfs.names import printable
from axonfs.units import counted, size

# Beyond so many, only those that are set aside have a line each.
MOST_LINES = 16


def show_caches(item: dict[str, Any]) -> None:
    """The lines of a registry's or a hub's caches.

    Args:
        item: the registry or the hub in the mount's status.
    """
    caches = item.get("caches") or []
    if item.get("fallback") == "never":
        echo("  only its site caches are asked")
    if len(caches) > MOST_LINES:
        echo(_summary(caches))
        caches = [cache for cache in caches if cache["fault"] is not None]
    for cache in caches:
        where = f" at {cache['address']}" if cache["address"] else ""
        did = f"{_work([cache])}, {cache['share'] * 100:.0f} %"
        echo(f"  site cache {cache['url']}{where}: {did}{_trouble(cache)}")


def _summary(caches: list[dict[str, Any]]) -> str:
    aside = sum(cache["fault"] is not None for cache in caches)
    least, most = (pick(cache["share"] * 100 for cache in caches) for pick in (min, max))
    shares = f"{least:.1f} to {most:.1f} % each"
    return f"  {len(caches)} site caches: {_work(caches)}, {shares}; {aside} set aside"


def _work(caches: list[dict[str, Any]]) -> str:
    requests = sum(cache["requests"] for cache in caches)
    received = sum(cache["bytes"] for cache in caches)
    return f"{size(received)} in {counted(requests, 'request')}"


def _trouble(cache: dict[str, Any]) -> str:
    if cache["fault"] is None:
        return ""
    why = printable(cache["fault"], 500)
    if cache["since"] is None:
        return f"; it is not known where it is: {why}"
    return f"; set aside since {clock(cache['since'])}: {why}"
