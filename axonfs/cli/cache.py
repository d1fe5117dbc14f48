"""`axonfs cache` with `stats` and `clean`: what the local cache has, and what of it goes."""

from __future__ import annotations

import sys

import click

from axonfs.call import Event
from axonfs.cli.cache_ls import list_objects, ls
from axonfs.cli.cache_rm import prune, rm
from axonfs.cli.client import ask
from axonfs.cli.options import cache_option, json_option, make_target
from axonfs.cli.output import echo, echo_json, facts, note, prompted
from axonfs.cli.suggestions import Group
from axonfs.errors import AxonError, UsageError
from axonfs.names import printable
from axonfs.units import counted, size


@click.group(cls=Group)
def cache() -> None:
    """Show the local cache, and clean it."""


for command in (ls, list_objects, rm, prune):
    cache.add_command(command)


@cache.command("stats")
@cache_option
@json_option
def cache_stats(cache: str | None, as_json: bool) -> None:
    """Show how much the cache holds, how much it may hold, and what is pinned."""
    found = ask(make_target((), cache), {"op": "cache_stats"})["stats"]
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
            ("pinned", _pinned(found)),
            ("quarantined", str(found["quarantined"]) if found["quarantined"] else ""),
        ]
    )


def _pinned(found: Event) -> str:
    lacking = f", {found['incomplete']} incomplete" if found["incomplete"] else ""
    return f"{size(found['pinned'])} in {counted(found['pins'], 'version')}{lacking}"


@cache.command("clean")
@click.option("--all", "everything", is_flag=True, help="Drop pinned versions too.")
@click.option("--dry-run", is_flag=True, help="Show what would be dropped, and drop nothing.")
@click.option("--yes", "-y", is_flag=True, help="Drop pinned versions without asking.")
@cache_option
@json_option
def cache_clean(
    everything: bool, dry_run: bool, yes: bool, cache: str | None, as_json: bool
) -> None:
    """Drop everything that is neither pinned nor open.

    --all asks before it drops pinned versions; without a terminal it requires --yes.
    """
    target = make_target((), cache)
    if dry_run:
        _show_clean(ask(target, {"op": "cache_clean_plan", "all": everything}), as_json, dry=True)
        return
    if everything and not yes:
        _ask_first(ask(target, {"op": "cache_clean_plan", "all": True}))
    _show_clean(ask(target, {"op": "cache_clean", "all": everything}), as_json)


def _ask_first(plan: Event) -> None:
    """Ask the user to confirm that pinned versions are dropped.

    Raises:
        UsageError: standard input is not a terminal.
        AxonError, click.Abort: the user declined.
    """
    pins = plan["unpinned"]
    if not pins:
        return
    count = counted(len(pins), "pinned version")
    what = f"{count} would be dropped: {printable(', '.join(pins), 1000)}"
    if not sys.stdin.isatty():
        raise UsageError(what, hint="add --yes to drop them, or --dry-run to see what that frees")
    note(what)
    if not prompted(lambda: click.confirm(f"drop them, {size(plan['freed'])} in all?", err=True)):
        raise AxonError("nothing was dropped")


def _show_clean(found: Event, as_json: bool, *, dry: bool = False) -> None:
    if as_json:
        echo_json({key: found[key] for key in ("freed", "objects", "kept", "unpinned")})
        return
    would = "would be " if dry else ""
    dropped = counted(found["objects"], "object")
    echo(f"{size(found['freed'])} {would}freed, {dropped} {would}dropped")
    if found["unpinned"]:
        echo(
            f"{'would no longer be' if dry else 'no longer'} pinned: {', '.join(found['unpinned'])}"
        )
    if found["kept"]:
        echo(f"{counted(found['kept'], 'object')} kept: they are pinned or open")
