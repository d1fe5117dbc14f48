"""`axonfs registry copy`."""

from __future__ import annotations

import dataclasses
import sys
from typing import TYPE_CHECKING, Any

import click

from axonfs.cli.options import RegistryUrl, json_option, note_if_open, resolved
from axonfs.cli.output import echo, echo_json, report
from axonfs.cli.progress import ProgressDisplay
from axonfs.errors import AxonError, StoppedError
from axonfs.settings.settings import settings_of
from axonfs.units import counted, size
from axonfs.versions import parse_wanted

if TYPE_CHECKING:
    from axonfs.names import Spec
    from axonfs.registries import Copied


@click.command
@click.argument("source", metavar="FROM", type=RegistryUrl())
@click.argument("target", metavar="TO", type=RegistryUrl())
@click.argument("specs", metavar="[SPEC]...", nargs=-1)
@json_option
@click.pass_context
def copy(
    ctx: click.Context, source: str, target: str, specs: tuple[str, ...], as_json: bool
) -> None:
    """Copy versions from one registry into another.

    Without SPEC, all versions. FROM is a directory, s3://BUCKET/PREFIX, http://…, https://… or
    oci://HOST/PREFIX; TO is a directory, which is created if it is missing, s3://BUCKET/PREFIX, a
    server that takes uploads, or oci://HOST/PREFIX. Only what TO lacks travels, and is verified on
    its way. Manifests keep their digests, so lock files stay valid. A version that is yanked in
    FROM is yanked in TO. In an OCI registry NS/NAME@VERSION is the tag VERSION of PREFIX/NS/NAME.
    To resume an interrupted copy, run it again. Exit 1 if a version could not be copied.
    """
    from axonfs import registries
    from axonfs.http_client import shown
    from axonfs.publish.faults import disk_faults

    settings = settings_of(resolved({"registries": (_with_token(source, target),)}))
    wanted = [parse_wanted(spec) for spec in specs]
    if settings.token(target):
        note_if_open(target)
    done: list[Copied] = []
    failures: list[AxonError] = []
    try:
        with (
            disk_faults(shown(target), "run the command"),
            registries.sides(settings, source, target) as (reader, registry),
            ProgressDisplay(sys.stderr) as display,
        ):
            registries.copy(
                reader,
                registry,
                registries.wanted_specs(reader, wanted),
                copied=done.append,
                failed=failures.append,
                progress=lambda spec, count, total: display(_event(spec, count, total)),
            )
    except KeyboardInterrupt as exc:
        hint = "run the same command again to resume"
        raise StoppedError(f"interrupted after {_copied(done)}", hint=hint) from exc
    except AxonError:
        for failure in failures:
            report(str(failure))
        raise
    if as_json:
        _echo_copied(done, failures)
    else:
        echo(_copied(done))
        for failure in failures:
            report(str(failure))
    ctx.exit(int(bool(failures)))


def _with_token(source: str, target: str) -> str:
    """The registry that AXONFS_TOKEN is of."""
    if target.startswith("http") or not source.startswith(("http", "oci")):
        return target
    return source


def _copied(done: list[Copied]) -> str:
    new = sum(one.new for one in done)
    objects, count = sum(one.objects for one in done), sum(one.bytes for one in done)
    there = f", {len(done) - new} already there" * (new < len(done))
    return (
        f"{counted(new, 'version')} copied{there}; {counted(objects, 'object')}, {size(count)} new"
    )


def _echo_copied(done: list[Copied], failures: list[AxonError]) -> None:
    versions = [{**dataclasses.asdict(one), "spec": str(one.spec)} for one in done]
    echo_json({"versions": versions, "failed": [failure.facts() for failure in failures]})


def _event(spec: Spec, done: int, total: int) -> dict[str, Any]:
    return {"event": "progress", "spec": str(spec), "done": done, "total": total}
