"""The commands of `axonfs registry` that look after a registry: each works on a whole one."""

from __future__ import annotations

import contextlib
import sys
from typing import TYPE_CHECKING, Any

import click

from axonfs.cli.options import RegistryUrl, json_option, resolved
from axonfs.cli.output import echo, echo_json
from axonfs.cli.progress import ProgressDisplay
from axonfs.settings.settings import Settings, settings_of
from axonfs.units import counted, size

if TYPE_CHECKING:
    from axonfs.publish.registry import Registry
    from axonfs.registries import Checked, Fault


def _settings() -> Settings:
    return settings_of(resolved({}))


def _writable(url: str, settings: Settings) -> Registry:
    from axonfs.publish.registry import Registry
    from axonfs.registries import storage_of

    return Registry(storage_of(url, settings))


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
    prints one line for each fault. Exit 1 if there were faults that are not repaired. REGISTRY is
    a directory, s3://BUCKET/PREFIX, http://… or https://…; a registry on HTTP cannot be repaired.
    """
    from axonfs import registries

    settings = _settings()
    storage = None
    if origin is not None or not url.startswith("http"):
        storage = _writable(url, settings)
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
            found=show,
            progress=lambda count, total: display(_event(reader.name, count, total)),
        )
    _show_checked(done, as_json)
    ctx.exit(int(any(not fault.repaired for fault in done.faults)))


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


def _event(name: str, done: int, total: int) -> dict[str, Any]:
    return {"event": "progress", "spec": name, "done": done, "total": total}
