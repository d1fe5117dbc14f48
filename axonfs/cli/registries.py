"""The commands of `axonfs registry` that look after a registry: each works on a whole one."""

from __future__ import annotations

import contextlib
import dataclasses
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from axonfs.cli.options import LocalPath, RegistryUrl, json_option, note_if_open, resolved
from axonfs.cli.output import echo, echo_json, facts, note, prompted
from axonfs.cli.progress import ProgressDisplay
from axonfs.cli.signing import signer_of, signing_options
from axonfs.errors import AxonError, NotFoundError, UsageError
from axonfs.names import LATEST, parse_spec, printable
from axonfs.settings.settings import Settings, settings_of
from axonfs.settings.signers import SignatureRules
from axonfs.units import counted, size

if TYPE_CHECKING:
    from axonfs.names import Spec
    from axonfs.publish.registry import Registry
    from axonfs.registries import Checked, Fault, Removal

_from_option = click.option(
    "--from",
    "url",
    metavar="REGISTRY",
    required=True,
    type=RegistryUrl(),
    help="The registry's directory, s3://BUCKET/PREFIX, or the URL of axonfs registry serve.",
)


def _settings(url: str) -> Settings:
    """The settings, with AXONFS_TOKEN as the token of the registry at `url`."""
    return settings_of(resolved({"registries": (url,)}))


def _writable(url: str, settings: Settings) -> Registry:
    from axonfs.publish.registry import Registry
    from axonfs.registries import storage_of

    if settings.token(url):
        note_if_open(url)
    return Registry(storage_of(url, settings))


def _listable(url: str, settings: Settings) -> Registry:
    """A registry whose files can be listed and replaced.

    Raises:
        UsageError: it is reached by HTTP.
    """
    if url.startswith("http"):
        what = "this command does not work over HTTP"
        hint = "run it on the server, with the registry's directory or s3:// URL"
        raise UsageError(what, source=url, hint=hint)
    return _writable(url, settings)


@click.command
@click.argument("url", metavar="REGISTRY", type=RegistryUrl())
@click.option(
    "--repair",
    "origin",
    metavar="REGISTRY",
    type=RegistryUrl(),
    help="Replace what is missing or wrong by what this registry has.",
)
@json_option
@click.pass_context
def check(ctx: click.Context, url: str, origin: str | None, as_json: bool) -> None:
    """Check a registry.

    Reads every manifest, chunk table and object of REGISTRY, compares them with their digests, and
    prints one line for each fault. A version that has to be signed (require_signature) and is not
    is a fault as well. Exit 1 if there were faults that are not repaired. REGISTRY is
    a directory, s3://BUCKET/PREFIX, http://… or https://…; a registry on HTTP cannot be repaired.
    """
    from axonfs import registries

    settings = _settings(url)
    storage = None
    if origin is not None or not url.startswith("http"):
        storage = _listable(url, settings)
    show = _ignore if as_json else _show_fault
    with contextlib.ExitStack() as stack:
        reader, *others = stack.enter_context(
            registries.readers(settings, url, *filter(None, [origin]))
        )
        display = stack.enter_context(ProgressDisplay(sys.stderr))
        done = registries.check(
            reader,
            storage,
            *others,
            rules=_rules(settings),
            found=show,
            progress=lambda count, total: display(_event(reader.name, count, total)),
        )
    _show_checked(done, as_json)
    ctx.exit(int(any(not fault.repaired for fault in done.faults)))


def _rules(settings: Settings) -> SignatureRules:
    from axonfs.http_client.urls import target_of

    rules = SignatureRules.of(settings.require_signature)
    return rules.spelled(lambda url: str(target_of(url, signed=True)))


def _ignore(fault: Fault) -> None:
    pass


def _show_fault(fault: Fault) -> None:
    outcome = ""
    if fault.repaired:
        outcome = " - repaired"
    elif fault.unrepaired:
        outcome = f" - not repaired: {fault.unrepaired}"
    echo(f"{fault.error}{outcome}")


def _show_checked(done: Checked, as_json: bool) -> None:
    if as_json:
        faults = [
            {
                **fault.error.facts(),
                "repaired": fault.repaired,
                "unrepaired": str(fault.unrepaired) if fault.unrepaired else None,
            }
            for fault in done.faults
        ]
        counts = {"versions": done.versions, "objects": done.objects, "bytes": done.bytes}
        echo_json({**counts, "faults": faults})
        return
    what = f"{counted(done.versions, 'version')}, {counted(done.objects, 'object')}"
    echo(f"{what}, {size(done.bytes)}: {counted(len(done.faults), 'fault')}")


@click.command
@click.argument("url", metavar="REGISTRY", type=RegistryUrl())
@json_option
def stats(url: str, as_json: bool) -> None:
    """Show how much is in a registry, and how much of it versions share.

    Reads every manifest of REGISTRY, which is a directory, s3://BUCKET/PREFIX, http://… or
    https://….
    """
    from axonfs import registries

    settings = _settings(url)
    storage = None if url.startswith("http") else _listable(url, settings)
    with registries.readers(settings, url) as (reader,):
        found = registries.stats(reader, storage)
    if as_json:
        unreadable = [str(spec) for spec in found.unreadable]
        echo_json({**dataclasses.asdict(found), "unreadable": unreadable})
        return
    unnamed = ""
    if found.unnamed:
        unnamed = f"{counted(found.unnamed, 'file')}, {size(found.unnamed_bytes or 0)}"
    facts(
        [
            ("models", str(found.models)),
            ("versions", f"{found.versions}" + f", {found.yanked} yanked" * bool(found.yanked)),
            ("files", f"{found.files}, {size(found.bytes)}"),
            ("objects", f"{found.objects}, {size(found.stored)}"),
            ("in no version", unnamed),
            ("unreadable", ", ".join(map(str, found.unreadable))),
        ]
    )


@click.command("remove-version")
@click.argument("spec")
@_from_option
@click.option("--dry-run", is_flag=True, help="Show what would be removed, and remove nothing.")
@click.option("--yes", "-y", is_flag=True, help="Remove it without asking.")
def remove_version(spec: str, url: str, dry_run: bool, yes: bool) -> None:
    """Remove a version from a registry.

    SPEC must name the version. Its files stay in the registry until axonfs registry gc. Mounts
    that know the version keep it. Without a terminal it requires --yes.
    """
    from axonfs import registries
    from axonfs.publish.faults import disk_faults

    registry, version = _writable(url, _settings(url)), _exact(spec)
    with disk_faults(registry.storage.name, "run the command"):
        try:
            plan = registries.removal(registry, version)
        except NotFoundError:
            if not dry_run:
                registries.remove(registry, version)
            raise
        if dry_run:
            echo(f"would be removed: {_told(plan)}")
            return
        if not yes:
            _confirm(plan)
        registries.remove(registry, version)
    echo(f"removed: {_told(plan)}")
    if plan.freed:
        note(f"axonfs registry gc frees {size(plan.freed)} once it is a day old")


def _exact(text: str) -> Spec:
    spec = parse_spec(text)
    if "@" not in text or spec.version == LATEST:
        raise UsageError(f"{printable(text)} names no version", hint="add @VERSION")
    return spec


def _told(plan: Removal) -> str:
    return (
        f"{plan.spec}, {counted(plan.files, 'file')} of {size(plan.bytes)};"
        f" no other version has {size(plan.freed)} of it"
    )


def _confirm(plan: Removal) -> None:
    """
    Raises:
        UsageError: standard input is not a terminal.
        AxonError, click.Abort: the user declined.
    """
    what = f"would be removed: {_told(plan)}"
    if not sys.stdin.isatty():
        raise UsageError(what, hint="add --yes to remove it")
    note(what)
    if not prompted(lambda: click.confirm("remove it?", err=True)):
        raise AxonError("nothing was removed")


@click.command
@click.argument("spec")
@_from_option
@click.option("--undo", is_flag=True, help="Have the version chosen again.")
def yank(spec: str, url: str, undo: bool) -> None:
    """Yank a version, so that only its exact name finds it.

    The version stays readable, so what names it (a lock file, a pin, a path) goes on working. It is
    no longer `latest`, no constraint chooses it, and no search or listing of the registry shows it.
    """
    from axonfs.publish.faults import disk_faults

    registry, version = _writable(url, _settings(url)), _exact(spec)
    with disk_faults(registry.storage.name, "run the command"):
        new = registry.yank(version, undo=undo)
    what = "no longer yanked" if undo else "yanked"
    echo(f"{version} {'is' if new else 'was already'} {what}")


@click.command
@click.argument("spec")
@click.option(
    "--to",
    "url",
    metavar="REGISTRY",
    required=True,
    type=RegistryUrl(),
    help="The registry's directory, s3://BUCKET/PREFIX, or the URL of axonfs registry serve.",
)
@signing_options
@click.option(
    "--signature",
    metavar="FILE",
    type=LocalPath("the signature", exists=True, dir_okay=False),
    help="Add the signature that model_signing has made of the version's directory in a mount.",
)
def sign(spec: str, url: str, signature: Path | None, **signing: Any) -> None:
    """Sign a version in a registry.

    This signs the digests that the registry has, which `axonfs registry check` compares with the
    files. A new signature replaces the one by the same key; those by others stay.
    """
    from axonfs.publish import signatures
    from axonfs.publish.faults import disk_faults

    registry, version = _writable(url, _settings(url)), _exact(spec)
    signer = signer_of(**signing)
    if (signer is None) == (signature is None):
        raise UsageError("give --sign-key, --sign-keyless or --signature")
    with disk_faults(registry.storage.name, "run the command"):
        manifest = registry.published(version)
        registry.storage.prepare()
        if signer:
            signatures.sign(registry, manifest, signer)
        elif signature:
            signatures.attach(registry, manifest, signature)
    echo(f"{version} is signed: manifest sha256:{manifest.digest}")


@click.command
@click.argument("url", metavar="REGISTRY", type=RegistryUrl())
@click.option("--dry-run", is_flag=True, help="Show what would be removed, and remove nothing.")
@json_option
def gc(url: str, dry_run: bool, as_json: bool) -> None:
    """Remove the files of a registry that no version has any more.

    These are objects and chunk tables that no manifest names, and that were written more than a day
    ago. It may run while others publish. REGISTRY is a directory or s3://BUCKET/PREFIX.
    """
    from axonfs import registries
    from axonfs.publish.faults import disk_faults

    registry = _listable(url, _settings(url))
    with disk_faults(registry.storage.name, "run the command"):
        found = registries.gc(registry, dry_run=dry_run)
    if as_json:
        echo_json({**dataclasses.asdict(found), "dry_run": dry_run})
        return
    would = "would be " if dry_run else ""
    objects, tables = counted(found.objects, "object"), counted(found.tables, "chunk table")
    if found.signatures:
        objects = f"{counted(found.signatures, 'signature file')}, {objects}"
    echo(f"{size(found.bytes)} {would}freed, {objects} and {tables} {would}removed")
    if found.young:
        note(f"{counted(found.young, 'file')} kept: written less than a day ago")


def _event(name: str, done: int, total: int) -> dict[str, Any]:
    return {"event": "progress", "spec": name, "done": done, "total": total}


COMMANDS = (check, stats, remove_version, sign, yank, gc)
