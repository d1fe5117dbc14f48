"""Options that several commands share, and the settings they make."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeVar

import click

from axonfs.config import Settings, load, resolve

F = TypeVar("F", bound=Callable[..., Any])

json_option = click.option("--json", "as_json", is_flag=True, help="Print JSON and nothing else.")
cache_option = click.option(
    "--cache", metavar="DIR", help="Directory of the local cache. [env: AXONFS_CACHE_DIR]"
)
registry_option = click.option(
    "--registry",
    "registries",
    metavar="URL",
    multiple=True,
    help="Registry to use instead of the configured ones; may be given more than once."
    " [env: AXONFS_REGISTRY]",
)


@dataclass(frozen=True, slots=True)
class Target:
    """Whom a command asks.

    `explicit_cache`: the cache was named, by a flag, a variable or the file. Then no other cache
    is ever used: a command that cleans must not end up at a mount that somebody else made.
    `registries` are those of the command line.
    """

    settings: Settings
    explicit_cache: bool = False
    registries: tuple[str, ...] = ()


def target(registries: tuple[str, ...] = (), cache: str | None = None) -> Target:
    """The target that `--registry` and `--cache` describe."""
    flags = {"registries": registries, "cache": cache}
    settings = load(flags)
    explicit = resolve(flags)["cache"][1] != "default"
    return Target(settings, explicit, settings.registries if registries else ())


def source_options(function: F) -> F:
    """`--registry` and `--cache`, for every command that reads models."""
    return registry_option(cache_option(function))
