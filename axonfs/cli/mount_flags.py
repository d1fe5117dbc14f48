"""The flags of `axonfs mount`, which its worker takes too, and the settings that they stand for."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from typing import Any, TypeAlias, TypeVar

import click

from axonfs.cli.options import cache_option, registry_option, via_option
from axonfs.errors import UsageError
from axonfs.settings.parsers import LOG_FORMATS, LOG_LEVELS, PREFETCH
from axonfs.settings.via import FALLBACKS

Command = TypeVar("Command", bound=Callable[..., Any])
Flags: TypeAlias = Mapping[str, Any]


def mount_options(function: Command) -> Command:
    """The options that `mount` and its worker have."""
    options = [
        registry_option,
        cache_option,
        via_option,
        click.option(
            "--fallback",
            type=click.Choice(FALLBACKS),
            help="Whether a source is asked when none of its site caches answers."
            " [env: AXONFS_FALLBACK]",
        ),
        click.option(
            "--cache-size",
            metavar="SIZE",
            help="Size limit of the cache, like 200G; without it and --keep-free the cache leaves"
            " 10 % of the disk free."
            " [env: AXONFS_CACHE_SIZE]",
        ),
        click.option(
            "--keep-free",
            metavar="SIZE|PERCENT",
            help="What the cache leaves free of its disk, like 50G or 10%; off is nothing."
            " [env: AXONFS_KEEP_FREE]",
        ),
        click.option(
            "--cache-ttl",
            metavar="AGE",
            help="How long the cache keeps what nothing uses, like 30d; off, the default, is for"
            " ever. [env: AXONFS_CACHE_TTL]",
        ),
        click.option(
            "--cache-quota",
            "cache_quotas",
            metavar="NAMESPACE=SIZE|PERCENT",
            multiple=True,
            help="What the models of a namespace may take of the cache, like nlp=100G or hf=50%;"
            " may be given more than once. [env: AXONFS_CACHE_QUOTAS]",
        ),
        click.option(
            "--offline/--online",
            default=None,
            help="Send no requests: serve only what is in the cache. [env: AXONFS_OFFLINE]",
        ),
        click.option(
            "--bandwidth",
            metavar="RATE",
            help="Bytes per second to receive from all sources together at the most, like 500M;"
            " what a reader waits for goes first. 64K is the lowest limit; off, the default, is"
            " none. [env: AXONFS_BANDWIDTH]",
        ),
        click.option(
            "--prefetch",
            type=click.Choice(PREFETCH),
            help="What to fetch ahead when a program begins to load a model: auto (the default),"
            " the files that it will read; all, the whole version; off, nothing."
            " [env: AXONFS_PREFETCH]",
        ),
        click.option(
            "--allow-other/--only-me",
            default=None,
            help="Whether other users may read the mount. [env: AXONFS_ALLOW_OTHER]",
        ),
        click.option(
            "--uid",
            metavar="NUMBER",
            help="Owner of the files; another user than yourself needs --allow-other."
            " [env: AXONFS_UID]",
        ),
        click.option("--gid", metavar="NUMBER", help="Group of the files. [env: AXONFS_GID]"),
        click.option(
            "--mode",
            metavar="OCTAL",
            help="Mode of the files, like 0440; directories get x wherever files have r."
            " [env: AXONFS_MODE]",
        ),
        click.option(
            "--passthrough/--no-passthrough",
            default=None,
            help="Whether the kernel may read complete files itself. This needs root and"
            " Linux 6.9. [env: AXONFS_PASSTHROUGH]",
        ),
        click.option(
            "--log-format",
            type=click.Choice(LOG_FORMATS),
            help="Log lines for people (text, the default) or one JSON object per line."
            " [env: AXONFS_LOG_FORMAT]",
        ),
        click.option(
            "--log-level",
            type=click.Choice(LOG_LEVELS),
            help="Lowest level of messages in the log; info by default. [env: AXONFS_LOG_LEVEL]",
        ),
        click.option(
            "--trace",
            metavar="FILE",
            help="Record opens, reads, requests and waits in FILE, for axonfs trace show."
            " [env: AXONFS_TRACE]",
        ),
        click.option(
            "--metrics",
            metavar="[ADDRESS:]PORT",
            help="Serve metrics for Prometheus, /healthz and /readyz there. ADDRESS is 127.0.0.1 by"
            " default; unix:PATH is a Unix socket. [env: AXONFS_METRICS]",
        ),
        click.option(
            "-o",
            "--option",
            "options",
            metavar="OPTIONS",
            multiple=True,
            help="Mount options as in /etc/fstab, like streams=8,noexec: every setting, and what"
            " docs/mounting.md lists. Other flags go before them.",
        ),
    ]
    for option in reversed(options):
        function = option(function)
    return function


def with_options(flags: Flags, *, strict: bool = True) -> dict[str, Any]:
    """The flags of a mount with those that its -o has; AXONFS_CONFIG becomes their config file.

    Args:
        strict: whether to refuse unknown options. A mount that runs must not end because of them.
    """
    from axonfs.settings.mount_options import parse_options, refuse_unknown

    given = {name: value for name, value in flags.items() if value not in (None, ())}
    options = parse_options(given.pop("options", ()), "-o")
    if strict:
        refuse_unknown(options, "-o")
    if options.remount:
        raise UsageError("axonfs mount cannot remount", hint="use mount -o remount,…")
    if options.config is not None:
        os.environ["AXONFS_CONFIG"] = str(options.config)
    return {**options.flags, "fsname": options.fsname, "noexec": options.noexec, **given}
