"""`axonfs pin`, `unpin`, `install`, `uninstall`, `update`, `verify`: having a model, for sure."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import click

from axonfs.call import Event
from axonfs.cli.client import ask
from axonfs.cli.lockfiles import read_lock
from axonfs.cli.options import LocalPath, cache_option, json_option, source_options, target
from axonfs.cli.output import clock, echo, echo_json, interrupted, note, show_note
from axonfs.cli.progress import Progress
from axonfs.client.target import Target
from axonfs.errors import NotFoundError, StoppedError, UsageError
from axonfs.names import parse_spec, printable
from axonfs.units import counted, part_of, size
from axonfs.versions import parse_wanted

_SAME = "the same command"
_include = click.option(
    "--include",
    metavar="GLOB",
    multiple=True,
    help="Only files whose path matches; may be given more than once. `*` also matches `/`.",
)
_exclude = click.option(
    "--exclude",
    metavar="GLOB",
    multiple=True,
    help="Leave out files whose path matches; may be given more than once.",
)


@click.command
@click.argument("specs", metavar="[SPEC]...", nargs=-1)
@click.option(
    "--check",
    is_flag=True,
    help="Fetch nothing: prove from the cache alone that the pins (all of them if no SPEC is given)"
    " are whole; exit 1 and say what is missing if not. What was not checked since the machine was"
    " started is checked now. Without SPEC, a pin that was interrupted or failed is named, and does"
    " not count.",
)
@click.option(
    "--lock",
    "lock_file",
    metavar="FILE",
    type=LocalPath("the lock file", exists=True, dir_okay=False),
    help="Pin what this file of `axonfs lock` names, and fail if a manifest is another one.",
)
@_include
@_exclude
@source_options
@json_option
def pin(
    specs: tuple[str, ...],
    check: bool,
    lock_file: Path | None,
    include: tuple[str, ...],
    exclude: tuple[str, ...],
    registries: tuple[str, ...],
    cache: str | None,
    as_json: bool,
) -> None:
    """Fetch versions whole and keep them.

    SPEC is needed, except for --check and --lock.
    What is pinned is never evicted and needs no registry. A pin that was interrupted or failed
    stays as one that is not whole, if anything of it came: that is kept, `axonfs pin` goes on where
    it stopped, and `axonfs unpin` gives it up. Pinning further files of a pinned version adds them.
    A pin ends with a receipt, kept in the cache: every chunk is there and was checked.
    """
    place = target(registries, cache)
    if lock_file is not None:
        if specs or check or include or exclude:
            raise UsageError("--lock goes with no SPEC, --check, --include or --exclude")
        request: Event = {"op": "pin_lock", "lock": read_lock(lock_file)}
        result = _with_progress(place, request, _SAME)
        _show_pins(result, place.settings.mountpoint, as_json)
    elif check:
        _check(place, specs, include, exclude, as_json)
    else:
        _pin(place, specs, include, exclude, as_json)


@click.command
@click.argument("specs", metavar="SPEC...", nargs=-1, required=True)
@_include
@_exclude
@source_options
@json_option
def install(
    specs: tuple[str, ...],
    include: tuple[str, ...],
    exclude: tuple[str, ...],
    registries: tuple[str, ...],
    cache: str | None,
    as_json: bool,
) -> None:
    """Another name for `axonfs pin`."""
    _pin(target(registries, cache), specs, include, exclude, as_json)


def _pin(
    place: Target,
    specs: tuple[str, ...],
    include: tuple[str, ...],
    exclude: tuple[str, ...],
    as_json: bool,
) -> None:
    request = {"op": "pin", **_chosen(specs, include, exclude)}
    if not specs:
        raise UsageError("pin needs a SPEC", hint="or --check to check every pin, or --lock FILE")
    again = _SAME if len(specs) > 1 or include or exclude else ""
    _show_pins(_with_progress(place, request, again), place.settings.mountpoint, as_json)


def _show_pins(result: Event, mountpoint: Path, as_json: bool) -> None:
    if as_json:
        echo_json(result["pins"])
        return
    for item in result["pins"]:
        known = item["total"] - item["fetched"] - item["copied"]
        copied = f" {size(item['copied'])} from Hugging Face's cache," if item["copied"] else ""
        echo(
            f"{item['spec']} is pinned: {counted(item['files'], 'file')}, {size(item['total'])}"
            f" ({size(item['fetched'])} fetched,{copied} {size(known)} was local)"
        )
        echo(f"  {_receipt(item['receipt'])}")
        echo(f"  {_place(item, mountpoint)}")


def _place(item: dict[str, Any], mountpoint: Path) -> str:
    """Where a program finds it."""
    if item["path"]:
        return f"at {item['path']}"
    return f"axonfs mount shows it at {mountpoint.joinpath(*parse_spec(item['spec']).segments)}"


def _receipt(receipt: dict[str, Any]) -> str:
    """What `pin` wrote down when it had looked at every chunk."""
    proven = (
        f"{counted(receipt['chunks'], 'chunk')} of {counted(receipt['objects'], 'object')},"
        f" {size(receipt['bytes'])}, manifest sha256:{receipt['manifest'][:12]}"
    )
    word = "proven" if receipt["complete"] else "not whole"
    if unverified := receipt.get("unverified", 0):
        word = f"{_unverified(unverified)}; {'local' if receipt['complete'] else word}"
    return f"{word} {clock(receipt['time'])}: {proven}"


def _unverified(files: int) -> str:
    return f"{counted(files, 'file')} cannot be verified"


def _check(
    place: Target,
    specs: tuple[str, ...],
    include: tuple[str, ...],
    exclude: tuple[str, ...],
    as_json: bool,
) -> None:
    request = {"op": "pin_check", **_chosen(specs, include, exclude)}
    checked = _with_progress(place, request, "axonfs pin --check")["pins"]
    if as_json:
        echo_json(checked)
    for item in () if as_json else checked:
        for line in _checked_lines(item, named=bool(specs)):
            echo(line)
    if not as_json and not checked:
        note("nothing is pinned")
    if not all(item["whole"] or not (specs or item["ended"]) for item in checked):
        click.get_current_context().exit(1)


def _checked_lines(item: dict[str, Any], *, named: bool) -> list[str]:
    spec = item["spec"]
    if item["whole"]:
        return [
            f"{spec} is whole: {counted(item['files'], 'file')},"
            f" {counted(item['chunks'], 'chunk')}, {size(item['total'])},"
            f" pinned {clock(item['receipt']['time'])}"
            f"{', ' + _unverified(item['unverified']) if item['unverified'] else ''}"
        ]
    if not (named or item["ended"]):
        again = "pinning the same files" if item["partial"] else f"axonfs pin {spec}"
        return [_unfinished(spec, part_of(item["local"], item["wanted"]), again)]
    missing = item["missing"]
    return [f"{' '.join(filter(None, (spec, lack['path'])))}: {lack['why']}" for lack in missing]


@click.command
@click.argument("specs", metavar="SPEC...", nargs=-1, required=True)
@cache_option
def unpin(specs: tuple[str, ...], cache: str | None) -> None:
    """Let pinned versions be evicted again.

    Their bytes stay until the cache needs the room.
    """
    _unpin(target((), cache), specs, drop=False)


@click.command
@click.argument("specs", metavar="SPEC...", nargs=-1, required=True)
@click.option("--all-versions", is_flag=True, help="Every local version of the models named.")
@cache_option
def uninstall(specs: tuple[str, ...], all_versions: bool, cache: str | None) -> None:
    """Unpin versions and drop their bytes.

    Files that another pinned version has too stay, and so do files that are open.
    """
    if not all_versions and (bare := [spec for spec in specs if "@" not in spec]):
        raise UsageError(
            f"{printable(bare[0])} names no version", hint="add @VERSION, or --all-versions"
        )
    place = target((), cache)
    _unpin(place, _all_versions(place, specs) if all_versions else specs, drop=True)


def _all_versions(place: Target, specs: tuple[str, ...]) -> tuple[str, ...]:
    models = {parse_spec(spec).model for spec in specs}
    local = ask(place, {"op": "list"})["models"]
    found = tuple(item["spec"] for item in local if f"{item['namespace']}/{item['name']}" in models)
    if not found:
        raise NotFoundError("no version of it is local", spec=specs[0], hint="see axonfs list")
    return found


def _unpin(place: Target, specs: tuple[str, ...], *, drop: bool) -> None:
    request = {"op": "unpin", "specs": _checked(specs), "drop": drop}
    for item in ask(place, request, show_note)["specs"]:
        freed = f", {size(item['freed'])} freed" if drop else ""
        echo(f"{item['spec']} is {'unpinned' if item['was_pinned'] else 'not pinned'}{freed}")


@click.command
@click.argument("spec", required=False)
@source_options
@json_option
def update(spec: str | None, registries: tuple[str, ...], cache: str | None, as_json: bool) -> None:
    """Pin the newest versions of what is pinned.

    With SPEC, of this model alone, and with a constraint (`@^1.2`) the newest that it allows. The
    registries are asked again. The version that was pinned before stays until it is uninstalled.
    """
    request: Event = {"op": "update", "spec": _checked((spec,))[0] if spec else None}
    changes = _with_progress(target(registries, cache), request, "axonfs update")["changes"]
    if as_json:
        echo_json(changes)
        return
    for item in changes:
        _show_change(item)
    if not changes:
        note("nothing is pinned")


def _show_change(item: dict[str, Any]) -> None:
    model, old, new = item["model"], item["old"], item["new"]
    if old == new:
        echo(f"{model} is at its newest version, {new}")
        return
    words = [f"{item[word]} {word}" for word in ("added", "changed", "removed") if item[word]]
    files = f"files: {', '.join(words)}" if words else "the same files"
    echo(f"{model}: {old or 'nothing'} → {new} ({files}; {size(item['fetched'])} fetched)")
    if old:
        note(f"{model}@{old} stays until axonfs uninstall {model}@{old}")


@click.command
@click.argument("specs", metavar="[SPEC]...", nargs=-1)
@click.option("--repair", is_flag=True, help="Fetch again what turns out to be bad.")
@source_options
@json_option
def verify(
    specs: tuple[str, ...],
    repair: bool,
    registries: tuple[str, ...],
    cache: str | None,
    as_json: bool,
) -> None:
    """Check the bytes that are local.

    They are read from the disk and compared with their digests; all of them if no SPEC is given.
    Bad bytes are dropped, so no reader gets them. Exit 1 if some were bad and are not repaired.
    """
    request: Event = {"op": "verify", "specs": _checked(specs), "repair": repair}
    result = _with_progress(target(registries, cache), request, "axonfs verify")
    if as_json:
        echo_json({key: result[key] for key in ("files", "bytes", "bad", "unverified")})
    for item in () if as_json else result["bad"]:
        echo(f"{item['spec']} {item['path']}: {_fate(item)}")
    if not as_json:
        files = counted(result["files"], "file")
        unverified = f", {_unverified(result['unverified'])}" if result["unverified"] else ""
        echo(f"{files}, {size(result['bytes'])} checked, {len(result['bad'])} bad{unverified}")
    if not all(item["repaired"] for item in result["bad"]):
        click.get_current_context().exit(1)


def _fate(item: dict[str, Any]) -> str:
    if not item["chunks"]:  # quarantined, or nothing could judge it
        return "repaired" if item["repaired"] else str(item["error"])
    bad = counted(item["chunks"], "bad chunk")
    return f"{bad}, {'repaired' if item['repaired'] else f'dropped{_why(item)}'}"


def _why(item: dict[str, Any]) -> str:
    return f" ({item['error']})" if item.get("error") else ""


def _with_progress(place: Target, request: Event, again: str = "") -> Event:
    """The result of long work; where Ctrl-C ends it, what there is then, and how to go on.

    Args:
        again: what goes on; if empty, `axonfs pin` of the version that is fetched.
    """
    with Progress(sys.stderr) as progress:
        try:
            return ask(place, request, progress)
        except BaseException as exc:
            if interrupted(exc):
                raise _stopped(progress.last, again) from exc
            if (last := progress.last) and last["done"] and "fetched" in last:
                spec, local = last["spec"], part_of(last["done"], last["total"])
                note(_unfinished(spec, local, again or f"axonfs pin {spec}"))
            raise


def _unfinished(spec: str, local: str, again: str) -> str:
    """What a pin is that did not end."""
    return (
        f"{spec} is not whole: its pin did not end, {local} is local;"
        f" {again} goes on, axonfs unpin {spec} gives it up"
    )


def _stopped(last: Event | None, again: str) -> StoppedError:
    if last is None:
        return StoppedError("interrupted before anything was done")
    done = f"{size(last['done'])} of {size(last['total'])}"
    if "fetched" not in last:
        return StoppedError(f"interrupted when {done} were checked", hint=f"{again} begins again")
    spec = last["spec"]
    hint = f"{again or f'axonfs pin {spec}'} goes on"
    return StoppedError(f"interrupted: {done} of {spec} stay local", hint=hint)


def _chosen(
    specs: tuple[str, ...], include: tuple[str, ...], exclude: tuple[str, ...]
) -> dict[str, Any]:
    return {"specs": _checked(specs), "include": list(include), "exclude": list(exclude)}


def _checked(specs: tuple[str, ...]) -> list[str]:
    """The specs in full; one that cannot be a spec is wrong usage before anything is asked."""
    return [str(parse_wanted(spec)) for spec in specs]
