"""`axonfs manifest lint` and `axonfs manifest schema`, for users who write their own manifests."""

from __future__ import annotations

import sys
from pathlib import Path

import click

from axonfs.cli.options import LocalPath, json_option
from axonfs.cli.output import echo, echo_json, note
from axonfs.cli.suggestions import Group
from axonfs.formats.manifest import MAX_MANIFEST_BYTES
from axonfs.formats.schema import lint_manifest, load_schema


@click.group(cls=Group)
def manifest() -> None:
    """Check manifests."""


@manifest.command
@click.argument("file", type=LocalPath("the manifest", exists=True, allow_dash=True))
@json_option
def lint(file: Path, as_json: bool) -> None:
    """Check a manifest against the whole schema.

    FILE is YAML or JSON; `-` is standard input. Lists every violation with the path of its key;
    exit 1 if there are any. A mount is more lenient: it needs only the names and the files.
    A manifest that `axonfs publish` wrote may lack what only Axon's own clients need.
    """
    found = lint_manifest(_content(file))
    name = "standard input" if str(file) == "-" else str(file)
    if as_json:
        violations = [{"key": item.key, "problem": item.problem} for item in found]
        echo_json({"file": name, "violations": violations})
    else:
        for item in found:
            echo(f"{name}: {item}")
        note(f"violations: {len(found)}") if found else echo(f"{name}: ok")
    if found:
        click.get_current_context().exit(1)


@manifest.command
def schema() -> None:
    """Print the JSON Schema of manifests, for editors."""
    echo_json(load_schema())


def _content(file: Path) -> bytes:
    if str(file) == "-":
        return sys.stdin.buffer.read(MAX_MANIFEST_BYTES + 1)
    with file.open("rb") as stream:
        return stream.read(MAX_MANIFEST_BYTES + 1)
