"""`axonfs export`: copies a version into a plain directory."""

from __future__ import annotations

import sys
from collections.abc import Callable
from contextlib import closing
from io import RawIOBase
from pathlib import Path
from typing import Any

import click

from axonfs.call import Event
from axonfs.cli.client import ask
from axonfs.cli.options import LocalPath, glob_options, json_option, make_target, source_options
from axonfs.cli.output import echo, echo_json, interrupted
from axonfs.cli.progress import ProgressDisplay
from axonfs.client.destination import Destination
from axonfs.client.export import Export, Way
from axonfs.client.target import Target
from axonfs.client.transport import in_turn
from axonfs.errors import StoppedError, UsageError
from axonfs.units import counted, size
from axonfs.versions import parse_wanted

# Figures of the result, and the words for them.
_WORDS = {"copied": "copied", "cloned": "cloned", "linked": "linked", "kept": "already there"}


@click.command("export")
@click.argument("spec")
@click.argument(
    "directory", metavar="DIR", type=LocalPath("the directory of the export", file_okay=False)
)
@click.option(
    "--link",
    is_flag=True,
    help="Make hard links to the cache's read-only files instead of copies; the version has to be"
    " pinned. Whoever makes such a file writable and changes it damages the cache.",
)
@click.option("--force", is_flag=True, help="Replace files in DIR that no export wrote.")
@glob_options
@source_options
@json_option
def export(
    spec: str,
    directory: Path,
    link: bool,
    force: bool,
    globs: dict[str, list[str]],
    registries: tuple[str, ...],
    cache: str | None,
    as_json: bool,
) -> None:
    """Copy a version into the plain directory DIR.

    Missing bytes are fetched, and every file is compared with its digest before it appears under
    its name. Where the disk can (btrfs, XFS), files share the blocks of those in the cache and take
    no space. Run it again to go on after an interruption, or with another version to update DIR:
    only what is missing or differs is copied. Other files in DIR stay. Works with and without a
    mount, and offline if the version is complete in the cache.
    """
    target, chosen = make_target(registries, cache), str(parse_wanted(spec))
    request = {"op": "export_plan", "spec": chosen}
    with ProgressDisplay(sys.stderr) as progress:
        plan = ask(target, {**request, **globs}, progress)
        linked = _linked(target, plan["spec"], progress) if link else None
        try:
            found = _export(target, plan, directory, Way(linked, force), progress)
        except BaseException as exc:
            if interrupted(exc):
                raise _stopped(progress.last, plan["spec"]) from exc
            raise
    if as_json:
        echo_json(found)
        return
    ways = ", ".join(f"{size(found[name])} {word}" for name, word in _WORDS.items() if found[name])
    what = f"{counted(found['files'], 'file')}, {size(found['size'])}"
    echo(f"{found['spec']} is in {found['path']}: {what}{f' ({ways})' if ways else ''}")
    if count := found["unverified"]:
        echo(f"  {counted(count, 'file')} cannot be verified")


def _export(
    target: Target,
    plan: Event,
    directory: Path,
    way: Way,
    progress: Callable[[Event], object],
) -> dict[str, Any]:
    from axonfs.client.api import Client

    cache = target.settings.cache.resolve()
    place = directory.absolute()
    if cache in (place.resolve(), *place.resolve().parents):
        raise UsageError("is inside the cache", path=str(place), hint="choose another directory")
    explicit = target.settings.cache if target.explicit_cache else None
    client = Client(registries=target.registries, cache=explicit)

    def opened(path: str) -> RawIOBase:
        return client.open(plan["spec"], path, buffering=0)

    with client, closing(Destination(place)) as there:
        return Export(plan, there, way, opened, progress).run()


def _linked(target: Target, spec: str, progress: ProgressDisplay) -> Path:
    """The directory of a pinned version, which is checked first."""
    found = in_turn(lambda: ask(target, {"op": "path", "spec": spec}, progress))
    return Path(found["path"])


def _stopped(last: Event | None, spec: str) -> StoppedError:
    done = f"{size(last['done'])} of {size(last['total'])}" if last else "no file"
    what = f"interrupted: {done} of {spec} is there"
    return StoppedError(what, hint="the same command goes on")
