"""`axonfs warm`: have the site caches of a registry fetch a model before the hosts ask for it."""

from __future__ import annotations

import sys

import click

from axonfs.call import Event
from axonfs.cli.options import glob_options, json_option, resolved, source_options, via_option
from axonfs.cli.output import echo, echo_json, interrupted, note
from axonfs.cli.progress import ProgressDisplay
from axonfs.client.target import Target
from axonfs.client.transport import ask_here
from axonfs.errors import StoppedError
from axonfs.units import counted, size
from axonfs.versions import parse_wanted


@click.command
@click.argument("specs", metavar="SPEC...", nargs=-1, required=True)
@via_option
@glob_options
@source_options
@json_option
def warm(
    specs: tuple[str, ...],
    via: tuple[str, ...],
    globs: dict[str, list[str]],
    registries: tuple[str, ...],
    cache: str | None,
    as_json: bool,
) -> None:
    """Fill the site caches of a model's source, and not this host.

    Every part of every file is asked once of the cache that hosts ask for it, compared, and
    dropped. The caches are those of --via, else those of the configuration.
    """
    found = resolved({"registries": registries, "cache": cache, "via": via})
    target = Target.of(found, registries)
    wanted = [str(parse_wanted(spec)) for spec in specs]
    result = _with_progress(target, {"op": "warm", "specs": wanted, **globs})
    if as_json:
        echo_json(result["versions"])
        return
    for item in result["versions"]:
        files = counted(item["files"], "file")
        echo(f"{item['spec']} is in its site caches: {files}, {size(item['bytes'])}")
        for name, came in item["caches"].items():
            echo(f"  {name}  {size(came)}")
        for name, fault in item["set_aside"].items():
            note(f"{name} does not answer ({fault}); the others have its part")


def _with_progress(target: Target, request: Event) -> Event:
    with ProgressDisplay(sys.stderr) as progress:
        try:
            return ask_here(target.settings, request, progress)
        except BaseException as exc:
            if interrupted(exc):
                hint = "run the same command again: what the caches have comes at once"
                raise StoppedError("stopped", hint=hint) from exc
            raise
