"""`axonfs pin`, `unpin`, `install`, `uninstall`, `update` and `verify`: keep versions complete."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import click

from axonfs.call import Event
from axonfs.cli.client import ask
from axonfs.cli.lockfiles import read_lock
from axonfs.cli.options import (
    LocalPath,
    cache_option,
    glob_options,
    json_option,
    make_target,
    source_options,
)
from axonfs.cli.output import clock, echo, echo_json, interrupted, note, show_note
from axonfs.cli.progress import ProgressDisplay
from axonfs.client.target import Target
from axonfs.errors import NotFoundError, StoppedError, UsageError
from axonfs.names import parse_spec, printable
from axonfs.units import counted, part_of, size
from axonfs.versions import parse_wanted

_SAME = "the same command"


@click.command
@click.argument("specs", metavar="[SPEC]...", nargs=-1)
@click.option(
    "--check",
    is_flag=True,
    help="Fetch nothing: check from the cache alone that the pins (every pin if no SPEC is given)"
    " are complete; else say what is missing and exit 1. Chunks that were not checked since the"
    " machine was booted are checked now. Without SPEC, a pin that was interrupted or failed is"
    " listed, but does not change the exit code.",
)
@click.option(
    "--lock",
    "lock_file",
    metavar="FILE",
    type=LocalPath("the lock file", exists=True, dir_okay=False),
    help="Pin the versions in this file from `axonfs lock`; fail if a manifest differs.",
)
@glob_options
@source_options
@json_option
def pin(
    specs: tuple[str, ...],
    check: bool,
    lock_file: Path | None,
    globs: dict[str, list[str]],
    registries: tuple[str, ...],
    cache: str | None,
    as_json: bool,
) -> None:
    """Fetch complete versions and keep them in the cache.

    SPEC is required, except with --check and --lock.
    Pinned versions are never evicted and need no registry. A pin that was interrupted or failed
    stays as an incomplete one if any of its bytes were fetched: these are kept, `axonfs pin`
    resumes it, and `axonfs unpin` cancels it. Pinning more files of a pinned version adds them. At
    the end a pin writes a receipt to the cache: every chunk is local and was verified.
    """
    target = make_target(registries, cache)
    if lock_file is not None:
        if specs or check or globs:
            raise UsageError("--lock excludes SPEC, --check, --include and --exclude")
        request: Event = {"op": "pin_lock", "lock": read_lock(lock_file)}
        result = _with_progress(target, request, _SAME)
        _show_pins(result, target.settings.mountpoint, as_json)
    elif check:
        _check(target, specs, globs, as_json)
    else:
        _pin(target, specs, globs, as_json)


@click.command
@click.argument("specs", metavar="SPEC...", nargs=-1, required=True)
@glob_options
@source_options
@json_option
def install(
    specs: tuple[str, ...],
    globs: dict[str, list[str]],
    registries: tuple[str, ...],
    cache: str | None,
    as_json: bool,
) -> None:
    """Another name for `axonfs pin`."""
    _pin(make_target(registries, cache), specs, globs, as_json)


def _pin(
    target: Target,
    specs: tuple[str, ...],
    globs: dict[str, list[str]],
    as_json: bool,
) -> None:
    request = {"op": "pin", "specs": _checked(specs), **globs}
    if not specs:
        raise UsageError("pin needs a SPEC, or --lock FILE, or --check to check every pin")
    again = _SAME if len(specs) > 1 or globs else ""
    _show_pins(_with_progress(target, request, again), target.settings.mountpoint, as_json)


def _show_pins(result: Event, mountpoint: Path, as_json: bool) -> None:
    if as_json:
        echo_json(result["pins"])
        return
    for item in result["pins"]:
        local = item["total"] - item["fetched"] - item["copied"]
        copied = f" {size(item['copied'])} copied on this machine," if item["copied"] else ""
        echo(
            f"{item['spec']} is pinned: {counted(item['files'], 'file')}, {size(item['total'])}"
            f" ({size(item['fetched'])} fetched,{copied} {size(local)} was local)"
        )
        echo(f"  {_receipt(item['receipt'])}")
        echo(f"  {_path(item, mountpoint)}")


def _path(item: dict[str, Any], mountpoint: Path) -> str:
    """The path of the version in the mount."""
    if item["path"]:
        return f"at {item['path']}"
    return f"axonfs mount shows it at {mountpoint.joinpath(*parse_spec(item['spec']).segments)}"


def _receipt(receipt: dict[str, Any]) -> str:
    """The receipt that `pin` wrote after it had checked every chunk."""
    content = (
        f"{counted(receipt['chunks'], 'chunk')} of {counted(receipt['objects'], 'object')},"
        f" {size(receipt['bytes'])}, manifest sha256:{receipt['manifest'][:12]}"
    )
    word = "verified" if receipt["complete"] else "incomplete"
    if unverified := receipt.get("unverified", 0):
        word = f"{_unverified(unverified)}; {'local' if receipt['complete'] else word}"
    return f"{word} {clock(receipt['time'])}: {content}"


def _unverified(files: int) -> str:
    return f"{counted(files, 'file')} cannot be verified"


def _check(
    target: Target,
    specs: tuple[str, ...],
    globs: dict[str, list[str]],
    as_json: bool,
) -> None:
    request = {"op": "pin_check", "specs": _checked(specs), **globs}
    checked = _with_progress(target, request, "axonfs pin --check")["pins"]
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
            f"{spec} is complete: {counted(item['files'], 'file')},"
            f" {counted(item['chunks'], 'chunk')}, {size(item['total'])},"
            f" pinned {clock(item['receipt']['time'])}"
            f"{', ' + _unverified(item['unverified']) if item['unverified'] else ''}"
        ]
    if not (named or item["ended"]):
        again = "pinning the same files again" if item["partial"] else f"axonfs pin {spec}"
        return [_unfinished(spec, part_of(item["local"], item["wanted"]), again)]
    missing = item["missing"]
    return [f"{' '.join(filter(None, (spec, lack['path'])))}: {lack['why']}" for lack in missing]


@click.command
@click.argument("specs", metavar="SPEC...", nargs=-1, required=True)
@cache_option
def unpin(specs: tuple[str, ...], cache: str | None) -> None:
    """Allow pinned versions to be evicted again.

    Their bytes stay until the cache needs the space. Directories from `axonfs path` are removed.
    """
    _unpin(make_target((), cache), specs, drop=False)


@click.command
@click.argument("specs", metavar="SPEC...", nargs=-1, required=True)
@click.option("--all-versions", is_flag=True, help="Every local version of these models.")
@cache_option
def uninstall(specs: tuple[str, ...], all_versions: bool, cache: str | None) -> None:
    """Unpin versions and drop their bytes.

    Files that another pinned version shares stay, and so do open files.
    """
    if not all_versions and (bare := [spec for spec in specs if "@" not in spec]):
        raise UsageError(
            f"{printable(bare[0])} names no version", hint="add @VERSION, or --all-versions"
        )
    target = make_target((), cache)
    _unpin(target, _all_versions(target, specs) if all_versions else specs, drop=True)


def _all_versions(target: Target, specs: tuple[str, ...]) -> tuple[str, ...]:
    models = {parse_spec(spec).model for spec in specs}
    local = ask(target, {"op": "list"})["models"]
    found = tuple(item["spec"] for item in local if f"{item['namespace']}/{item['name']}" in models)
    if not found:
        raise NotFoundError("no version of it is local", spec=specs[0], hint="see axonfs list")
    return found


def _unpin(target: Target, specs: tuple[str, ...], *, drop: bool) -> None:
    request = {"op": "unpin", "specs": _checked(specs), "drop": drop}
    for item in ask(target, request, show_note)["specs"]:
        freed = f", {size(item['freed'])} freed" if drop else ""
        echo(f"{item['spec']} is {'unpinned' if item['was_pinned'] else 'not pinned'}{freed}")


@click.command
@click.argument("spec", required=False)
@source_options
@json_option
def update(spec: str | None, registries: tuple[str, ...], cache: str | None, as_json: bool) -> None:
    """Pin the newest version of every pinned model.

    With SPEC, only of this model; a constraint (`@^1.2`) selects the newest version that it allows.
    Asks the registries again. The version that was pinned before stays until you uninstall it.
    """
    request: Event = {"op": "update", "spec": _checked((spec,))[0] if spec else None}
    changes = _with_progress(make_target(registries, cache), request, "axonfs update")["changes"]
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
        note(f"{model}@{old} stays pinned; to drop it: axonfs uninstall {model}@{old}")


@click.command
@click.argument("specs", metavar="[SPEC]...", nargs=-1)
@click.option("--repair", is_flag=True, help="Fetch bad chunks again.")
@source_options
@json_option
def verify(
    specs: tuple[str, ...],
    repair: bool,
    registries: tuple[str, ...],
    cache: str | None,
    as_json: bool,
) -> None:
    """Verify the local bytes of versions.

    Reads them from the disk and compares them with their digests; without SPEC, those of every
    version. Bad chunks are dropped, so that no reader gets them. Exit 1 if there were bad chunks
    that are not repaired.
    """
    request: Event = {"op": "verify", "specs": _checked(specs), "repair": repair}
    result = _with_progress(make_target(registries, cache), request, "axonfs verify")
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
    if not item["chunks"]:  # quarantined, or there was no digest to verify it with
        return "repaired" if item["repaired"] else str(item["error"])
    bad = counted(item["chunks"], "bad chunk")
    return f"{bad}, {'repaired' if item['repaired'] else f'dropped{_why(item)}'}"


def _why(item: dict[str, Any]) -> str:
    return f" ({item['error']})" if item.get("error") else ""


def _with_progress(target: Target, request: Event, again: str) -> Event:
    """The result of long work, with progress; after Ctrl-C, say what is done and how to resume.

    Args:
        again: what resumes the work; if empty, `axonfs pin` of the version that is fetched.
    """
    with ProgressDisplay(sys.stderr) as progress:
        try:
            return ask(target, request, progress)
        except BaseException as exc:
            if interrupted(exc):
                raise _stopped(progress.last, again) from exc
            if (last := progress.last) and last["done"] and "fetched" in last:
                spec, local = last["spec"], part_of(last["done"], last["total"])
                note(_unfinished(spec, local, again or f"axonfs pin {spec}"))
            raise


def _unfinished(spec: str, local: str, again: str) -> str:
    """The message about a pin that did not finish."""
    return (
        f"{spec} is incomplete: its pin did not finish, {local} is local;"
        f" {again} resumes it, axonfs unpin {spec} cancels it"
    )


def _stopped(last: Event | None, again: str) -> StoppedError:
    if last is None:
        return StoppedError("interrupted before the work began")
    done = f"{size(last['done'])} of {size(last['total'])}"
    if "fetched" not in last:
        return StoppedError(f"interrupted after {done} were checked", hint=f"{again} starts over")
    spec = last["spec"]
    hint = f"{again or f'axonfs pin {spec}'} resumes it"
    return StoppedError(f"interrupted: {done} of {spec} stay local", hint=hint)


def _checked(specs: tuple[str, ...]) -> list[str]:
    """The specs in full; an invalid one is reported before any request is sent."""
    return [str(parse_wanted(spec)) for spec in specs]
