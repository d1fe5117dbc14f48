"""`axonfs manifest lint`: for whoever writes manifests."""

from __future__ import annotations

from typing import BinaryIO

import click

from axonfs.cli.options import json_option
from axonfs.cli.output import echo, echo_json, note
from axonfs.lint import lint_manifest
from axonfs.manifest import MAX_MANIFEST_BYTES


@click.group
def manifest() -> None:
    """Work on manifests."""


@manifest.command
@click.argument("file", type=click.File("rb"))
@json_option
def lint(file: BinaryIO, as_json: bool) -> None:
    """Check a manifest against the whole schema.

    FILE is YAML or JSON, `-` standard input. Everything that breaks a rule is listed with the path
    of its key; exit 1 if anything does. A mount is more lenient: it takes what has the files.
    """
    found = lint_manifest(file.read(MAX_MANIFEST_BYTES + 1))
    name = "standard input" if file.name == "<stdin>" else file.name
    if as_json:
        violations = [{"key": item.key, "problem": item.problem} for item in found]
        echo_json({"file": name, "violations": violations})
    else:
        for item in found:
            echo(f"{name}: {item}")
        note(f"violations: {len(found)}") if found else echo(f"{name}: ok")
    if found:
        click.get_current_context().exit(1)
