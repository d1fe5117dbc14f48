"""`axonfs doctor`: checks this machine and the configuration, and says how to fix problems."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import click

from axonfs.cli.doctor_caches import site_cache_checks
from axonfs.cli.doctor_checks import (
    FAIL,
    Check,
    cache_checks,
    machine_checks,
    mount_checks,
)
from axonfs.cli.doctor_settings import settings_checks
from axonfs.cli.doctor_signatures import signature_checks
from axonfs.cli.doctor_sources import registry_checks
from axonfs.cli.options import json_option, make_target, source_options
from axonfs.cli.output import echo_json
from axonfs.names import printable
from axonfs.settings.settings import Settings

_COLOURS = {"ok": "green", "warn": "yellow", "fail": "red"}


@click.command
@source_options
@json_option
def doctor(registries: tuple[str, ...], cache: str | None, as_json: bool) -> None:
    """Check the machine and the configuration.

    Checks the device, the helper programs, the cache, the registries and hubs with their tokens,
    their site caches, the mounts with their settings, and the signers whom require_signature names.
    Exit 1 if a check fails.
    """
    settings = make_target(registries, cache).settings
    checks = []
    for check in _all_checks(settings):
        checks.append(check)
        if not as_json:
            _show(check)
    if as_json:
        echo_json(
            [
                {"name": item.name, "state": item.state, "text": item.text, "hint": item.hint}
                for item in checks
            ]
        )
    if any(check.state == FAIL for check in checks):
        click.get_current_context().exit(1)


def _all_checks(settings: Settings) -> Iterator[Check]:
    parts: list[Callable[[Settings], Iterator[Check]]] = [
        machine_checks,
        cache_checks,
        registry_checks,
        site_cache_checks,
        mount_checks,
        settings_checks,
        signature_checks,
    ]
    for part in parts:
        yield from part(settings)


def _show(check: Check) -> None:
    word = click.style(f"{check.state:<4}", fg=_COLOURS[check.state])
    click.echo(f"{word}  {printable(check.name, 500)}: {printable(check.text, 500)}")
    if check.hint:
        click.echo(f"      → {printable(check.hint, 500)}")
