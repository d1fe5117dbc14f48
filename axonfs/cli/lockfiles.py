"""`axonfs lock`: writes lock files. `axonfs pin --lock` reads them with `read_lock`."""

from __future__ import annotations

import os
from pathlib import Path

import click

from axonfs.cli.client import ask
from axonfs.cli.options import LocalPath, make_target, source_options
from axonfs.cli.output import echo, show_note
from axonfs.errors import AxonError, MalformedError, UsageError
from axonfs.formats.lockfile import MAX_LOCK_BYTES, parse_lock
from axonfs.units import counted, size
from axonfs.versions import parse_wanted


@click.command
@click.argument("file", type=LocalPath("the lock file", dir_okay=False, allow_dash=True))
@click.argument("specs", metavar="[SPEC]...", nargs=-1)
@source_options
def lock(
    file: Path, specs: tuple[str, ...], registries: tuple[str, ...], cache: str | None
) -> None:
    """Write a lock file.

    FILE lists every pinned version (or each SPEC) with the digest of its manifest, so that
    `axonfs pin --lock FILE` pins the same bytes on another machine, or fails. `-` is standard
    output.
    """
    request = {"op": "lock", "specs": [str(parse_wanted(spec)) for spec in specs]}
    done = ask(make_target(registries, cache), request, show_note)
    if not done["versions"]:
        raise AxonError("nothing is pinned", hint="pin something first, or name a SPEC")
    if str(file) == "-":
        click.echo(done["lock"], nl=False)
        return
    _replace(file, done["lock"].encode())
    echo(f"{file}: {counted(done['versions'], 'version')}, {size(done['size'])}")


def read_lock(file: Path) -> str:
    """Read a lock file and return its text.

    Raises:
        MalformedError: it is not a valid lock file; the message names the file.
    """
    with file.open("rb") as stream:
        raw = stream.read(MAX_LOCK_BYTES + 1)
    try:
        parse_lock(raw)
        return raw.decode()
    except (MalformedError, UnicodeDecodeError) as exc:
        what = exc.what if isinstance(exc, MalformedError) else "it is not UTF-8"
        raise MalformedError(f"invalid lock file: {what}", source=str(file)) from exc


def _replace(file: Path, raw: bytes) -> None:
    """Write `file` atomically. Only a lock file is overwritten, no other file."""
    if file.exists():
        try:
            read_lock(file)
        except MalformedError as exc:
            raise UsageError(
                f"{file} exists and is not a lock file", hint="choose another name"
            ) from exc
    if not file.parent.is_dir():
        raise UsageError(f"the directory {file.parent} does not exist")
    temporary = file.with_name(f".{file.name}.{os.getpid()}")
    try:
        temporary.write_bytes(raw)
        temporary.replace(file)
    finally:
        temporary.unlink(missing_ok=True)
