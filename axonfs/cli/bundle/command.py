"""`axonfs debug bundle`: writes one file for a bug report."""

from __future__ import annotations

import io
import os
import tarfile
import time
from collections.abc import Sequence
from pathlib import Path

import click

from axonfs.cli.bundle.facts import environment
from axonfs.cli.bundle.parts import SECONDS, Made, chosen, made, parts
from axonfs.cli.bundle.redaction import REMOVED, Redactor
from axonfs.cli.bundle.secrets import known_secrets
from axonfs.cli.options import LocalPath, cache_option
from axonfs.cli.output import echo, note
from axonfs.cli.suggestions import Group
from axonfs.client.health import real_path
from axonfs.errors import AxonError
from axonfs.names import printable
from axonfs.units import counted, size

_README = "README.txt"
_HEAD = """\
What `axonfs debug bundle` found on {when}.

Tokens, passwords, what the queries of URLs say, and headers with credentials are left out:
{removed} stands where one was or may have been, {places}. Names of models, files, hosts and
users are in it: look at it before you attach it to a report.

"""


@click.group(cls=Group)
def debug() -> None:
    """Collect what a bug report needs."""


@debug.command
@click.argument("mountpoint", required=False, type=LocalPath("the mountpoint"))
@click.option(
    "-o",
    "--output",
    metavar="FILE",
    type=LocalPath("the file"),
    help="The file to write; it must not exist. By default axonfs-bundle-TIME.tar.gz here.",
)
@cache_option
def bundle(mountpoint: Path | None, output: Path | None, cache: str | None) -> None:
    """Write one file for a bug report: state, log, settings, versions, kernel, stacks.

    It has no tokens, passwords or signed URLs, but names of models, files and hosts: look at it
    before you attach it. It works without a mount, and with one that hangs or has ended; README.txt
    in it says what each file is, and what could not be had. MOUNTPOINT defaults to the mount
    with the configured cache, or else to all mounts of this user.
    """
    place = real_path(mountpoint) if mountpoint else None
    path = output or Path(time.strftime("axonfs-bundle-%Y%m%d-%H%M%S.tar.gz"))
    descriptor = _created(path)
    try:
        note(f"this takes up to {SECONDS:.0f} s …")
        redact = Redactor(known_secrets([os.environ, *_environments(place, cache)]))
        found = [_redacted(one, redact) for one in made(parts(place, cache))]
        _write(path, descriptor, _archive(found, redact.count))
    except BaseException:
        path.unlink(missing_ok=True)
        raise
    for one in found:
        if one.why:
            note(f"{one.part.name}: {one.why}")
    whole = sum(not one.why for one in found)
    echo(f"{path}: {counted(whole, 'file')} of {len(found)}, {size(path.stat().st_size)}")
    note("look at it before you attach it: it names models, files, hosts and users")


def _created(path: Path) -> int:
    """A new file that only this user may read.

    Raises:
        AxonError: it exists, or cannot be made.
    """
    try:
        return os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    except FileExistsError as exc:
        what = "it exists, and is not written over"
        raise AxonError(what, path=str(path), hint="name another with -o FILE") from exc
    except OSError as exc:
        raise _unwritable(path, exc) from exc


def _write(path: Path, descriptor: int, data: bytes) -> None:
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(data)
    except OSError as exc:
        raise _unwritable(path, exc) from exc


def _unwritable(path: Path, exc: OSError) -> AxonError:
    what = f"the bundle cannot be written: {exc.strerror}"
    return AxonError(what, path=str(path), hint="name another place with -o FILE")


def _environments(place: Path | None, cache: str | None) -> list[dict[str, str]]:
    """The variables of the processes of mounts."""
    pids = [pid for holder in chosen(place, cache) for pid in (holder.pid, *holder.workers)]
    return [environment(Path(f"/proc/{pid}")) for pid in pids]


def _redacted(one: Made, redact: Redactor) -> Made:
    return Made(one.part, redact(one.text), printable(redact(one.why), 500))


def _archive(found: Sequence[Made], places: int) -> bytes:
    """The tar file, in memory: a bundle is on the disk whole or not at all."""
    when = time.strftime("%Y-%m-%d %H:%M:%S %z")
    head = _HEAD.format(when=when, places=counted(places, "time"), removed=REMOVED)
    texts = {_README: head + "\n".join(map(_line, found)) + "\n"}
    texts |= {one.part.name: one.text for one in found if one.text}
    content = io.BytesIO()
    with tarfile.open(fileobj=content, mode="w:gz") as archive:
        for name, text in texts.items():
            data = text.encode(errors="replace")
            member = tarfile.TarInfo(f"axonfs-bundle/{name}")
            member.size, member.mode, member.mtime = len(data), 0o600, int(time.time())
            archive.addfile(member, io.BytesIO(data))
    return content.getvalue()


def _line(one: Made) -> str:
    line = f"{one.part.name:<16} {one.part.what}"
    if not one.why:
        return line
    return f"{line}\n{'':<16} {'incomplete' if one.text else 'not there'}: {one.why}"
