"""`axonfs cache list|stats|clean`: the bytes themselves."""

from __future__ import annotations

import time

import click

from axonfs.cli.client import ask
from axonfs.cli.options import cache_option, json_option, target
from axonfs.cli.output import echo, echo_json, facts, note, table
from axonfs.units import counted, share, size


@click.group
def cache() -> None:
    """Look at the local cache, and clean it."""


@cache.command("list")
@cache_option
@json_option
def cache_list(cache: str | None, as_json: bool) -> None:
    """List the objects (contents of files), the most recently used first."""
    found = ask(target((), cache), {"op": "cache_list"})["objects"]
    if as_json:
        echo_json(found)
    elif found:
        table(
            ("OBJECT", "LOCAL", "SIZE", "KEPT", "USED", "FILE"),
            (
                (
                    item["digest"][:12],
                    share(item["local"], item["size"]),
                    size(item["size"]),
                    _kept(item),
                    time.strftime("%Y-%m-%d %H:%M", time.localtime(item["accessed"])),
                    item["file"],
                )
                for item in found
            ),
            widest=100,
        )
    else:
        note("the cache is empty")


def _kept(item: dict[str, object]) -> str:
    if item["quarantined"]:
        return "bad"
    words = ("pinned" if item["pinned"] else "", "open" if item["held"] else "")
    return " ".join(word for word in words if word)


@cache.command("stats")
@cache_option
@json_option
def cache_stats(cache: str | None, as_json: bool) -> None:
    """Show how much the cache holds, how much it may hold, and what is pinned."""
    found = ask(target((), cache), {"op": "cache_stats"})["stats"]
    if as_json:
        echo_json(found)
        return
    limit = found["limit"]
    facts(
        [
            ("directory", found["directory"]),
            ("used", f"{size(found['used'])} of {size(limit)}"),
            ("disk free", size(found["disk_free"])),
            ("objects", f"{found['objects']} ({found['complete']} complete)"),
            ("pinned", f"{size(found['pinned'])} in {counted(found['pins'], 'version')}"),
            ("quarantined", str(found["quarantined"]) if found["quarantined"] else ""),
        ]
    )


@cache.command("clean")
@click.option("--all", "everything", is_flag=True, help="Drop pinned versions too.")
@cache_option
@json_option
def cache_clean(everything: bool, cache: str | None, as_json: bool) -> None:
    """Drop everything that is neither pinned nor open."""
    found = ask(target((), cache), {"op": "cache_clean", "all": everything})
    if as_json:
        echo_json({key: found[key] for key in ("freed", "objects", "kept", "unpinned")})
        return
    echo(f"{size(found['freed'])} freed, {counted(found['objects'], 'object')} dropped")
    if found["unpinned"]:
        echo(f"no longer pinned: {', '.join(found['unpinned'])}")
    if found["kept"]:
        echo(f"{counted(found['kept'], 'object')} kept: they are pinned or open")
