"""`axonfs path`: prints the directory of a version or a file in it, on the disk or in the mount."""

from __future__ import annotations

import os
import sys

import click

from axonfs.cli.client import ask, transport
from axonfs.cli.options import json_option, make_target, source_options
from axonfs.cli.output import echo_json, echo_path, show_note
from axonfs.cli.progress import ProgressDisplay
from axonfs.client.mounted import Mounted
from axonfs.client.target import Target
from axonfs.client.transport import in_turn
from axonfs.errors import MalformedError, NotFoundError
from axonfs.names import check_path
from axonfs.versions import parse_wanted


@click.command
@click.argument("spec")
@click.argument("member", metavar="[FILE]", required=False)
@click.option(
    "--mounted",
    is_flag=True,
    help="Print the version's directory in the running mount instead, whether pinned or not."
    " Exit 1 if nothing is mounted.",
)
@source_options
@json_option
def path(
    spec: str,
    member: str | None,
    mounted: bool,
    registries: tuple[str, ...],
    cache: str | None,
    as_json: bool,
) -> None:
    """Print where a pinned version is on the disk, or a FILE in it.

    For scripts: `vllm serve "$(axonfs path nlp/llama-2-7b@1.0.0)"`. The directory has hard links to
    the files in the cache, so programs read them straight from the disk, with or without a mount.
    They are read-only; for files of your own use `axonfs export`.
    Without a version SPEC means the latest one that is pinned. First the pin is checked, as by
    `axonfs pin --check`; exit 1 if it is incomplete. The directory exists until the version is
    unpinned. Only the owner of the cache can enter it.
    """
    target = make_target(registries, cache)
    if mounted:
        directory = Mounted(transport(target)).directory(spec, show_note)
        found = {"spec": directory[0], "path": str(directory[1])}
    else:
        found = _pinned(target, spec)
    if member is not None:
        found["path"] = _file(target, found, member, mounted=mounted)
    if as_json:
        echo_json(found)
    else:
        echo_path(found["path"])


def _file(target: Target, found: dict[str, str], file: str, *, mounted: bool) -> str:
    """The path of a file of the version, which has to be there."""
    place = os.path.join(found["path"], file)
    if mounted:  # which may not answer, so it is not touched
        version = ask(target, {"op": "info", "spec": found["spec"]}, show_note)["version"]
        there = file in [item["path"] for item in version["files"]]
    else:
        try:
            check_path(file)
        except MalformedError:
            there = False
        else:
            there = os.path.isfile(place)
    if not there:
        what = "has no such file" if mounted else "no such file is pinned"
        hint = f"axonfs info {found['spec']} lists the files"
        raise NotFoundError(what, spec=found["spec"], path=file, hint=hint)
    return place


def _pinned(target: Target, spec: str) -> dict[str, str]:
    request = {"op": "path", "spec": str(parse_wanted(spec))}
    with ProgressDisplay(sys.stderr) as progress:
        found = in_turn(lambda: ask(target, request, progress))
    return {"spec": found["spec"], "path": found["path"]}
