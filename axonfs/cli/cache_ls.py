"""`axonfs cache ls` and `list`: the versions and the objects in the local cache."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import Any

import click

from axonfs.call import Event
from axonfs.cli.client import ask
from axonfs.cli.options import cache_option, json_option, make_target
from axonfs.cli.output import echo_json, note, table
from axonfs.client.target import Target
from axonfs.units import counted, share, size

# What comes first: what was used last, what takes most, the first name.
_SORTS: Mapping[str, Callable[[Event], Any]] = {
    "used": lambda item: (-float(item["accessed" if "accessed" in item else "used"]), _name(item)),
    "size": lambda item: (-item["local"], _name(item)),
    "name": lambda item: _name(item),
}


def _name(item: Event) -> str:
    return str(item.get("spec", item.get("file")))


@click.command
@click.option("--objects", is_flag=True, help="List the objects (contents of files) instead.")
@click.option(
    "--sort",
    type=click.Choice(tuple(_SORTS)),
    default="used",
    help="What comes first: what was used last (the default), what takes most, the first name.",
)
@cache_option
@json_option
def ls(objects: bool, sort: str, cache: str | None, as_json: bool) -> None:
    """List the local versions: what each takes, and when it was used last.

    OWN is what no other local version has, which `axonfs cache rm` frees. A version that is pinned
    or open is never evicted.
    """
    target = make_target((), cache)
    if objects:
        _list_objects(target, sort, as_json)
        return
    found = ask(target, {"op": "cache_versions"})
    versions = sorted(found["versions"], key=_SORTS[sort])
    if as_json:
        echo_json(versions)
        return
    if versions:
        head = ("VERSION", "LOCAL", "SIZE", "OWN", "USED", "KEPT")
        table(head, map(_version_row, versions), widest=100)
    loose = found["loose"]
    if loose["bytes"]:
        what = f"{counted(loose['objects'], 'object')}, {size(loose['bytes'])}"
        note(f"{what}, belong to no known version; axonfs cache prune drops them")
    elif not versions:
        note("the cache is empty")


def _version_row(item: Event) -> tuple[str, ...]:
    words = (f"{item['pinned']} pin" if item["pinned"] else "", "open" if item["open"] else "")
    return (
        item["spec"],
        share(item["local"], item["size"]),
        size(item["size"]),
        size(item["own"]),
        _day(item["used"]),
        ", ".join(filter(None, words)),
    )


def _day(seconds: float) -> str:
    return time.strftime("%Y-%m-%d %H:%M", time.localtime(seconds)) if seconds else "never"


@click.command("list")
@cache_option
@json_option
def list_objects(cache: str | None, as_json: bool) -> None:
    """Another name for `axonfs cache ls --objects`."""
    _list_objects(make_target((), cache), "used", as_json)


def _list_objects(target: Target, sort: str, as_json: bool) -> None:
    found = sorted(ask(target, {"op": "cache_list"})["objects"], key=_SORTS[sort])
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
                    _day(item["accessed"]),
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
