"""Site caches in the commands of `axonfs registry`: options, edits, and lines of a listing."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeVar

import click

from axonfs.cli.output import echo
from axonfs.errors import UsageError
from axonfs.settings.settings import convert
from axonfs.settings.via import FALLBACKS, NEVER, Via

Command = TypeVar("Command", bound=Callable[..., Any])

_VIA = "the command line"


def via_options(function: Command) -> Command:
    """`--via`, `--no-via` and `--fallback`."""
    options = [
        click.option(
            "--via",
            "caches",
            metavar="CACHE_URL",
            multiple=True,
            help="Site cache to ask in place of it; may be given more than once, and replaces the"
            " earlier ones.",
        ),
        click.option("--no-via", is_flag=True, help="Use no site caches any more."),
        click.option(
            "--fallback",
            type=click.Choice(FALLBACKS),
            help="Whether it is asked itself when none of its site caches answers.",
        ),
    ]
    for option in reversed(options):
        function = option(function)
    return function


@dataclass(frozen=True, slots=True)
class GivenCaches:
    """What the command line says of the site caches of one source; () keeps those it has."""

    caches: tuple[str, ...]
    fallback: str | None
    none: bool = False

    def apply(self, document: dict[str, Any], source: str) -> None:
        """Change the setting `via` of a config file."""
        known = dict(convert("via", document.get("via") or {}, "the config file"))
        before = known.pop(source, None)
        caches = self.caches or (before.caches if before else ())
        if not caches and not self.none:
            raise UsageError(f"{source} has no site caches", hint="give --via CACHE_URL")
        if not self.none:
            fallback = self.fallback or (before.fallback if before else None)
            known |= convert("via", {source: Via(caches, fallback).plain()}, _VIA)
        _write(document, known)

    def told(self, source: str) -> str:
        if self.none:
            return f"{source} has no site caches now"
        words = f"{source} is asked through {', '.join(self.caches)}" if self.caches else source
        return words + (f", fallback: {self.fallback}" if self.fallback else "")


def given_caches(
    caches: tuple[str, ...], fallback: str | None, *, no_via: bool
) -> GivenCaches | None:
    """What the options say; None if none is given.

    Raises:
        UsageError: they contradict each other, or a URL is invalid.
    """
    if no_via and (caches or fallback):
        raise UsageError("--no-via does not go with --via or --fallback")
    if not (no_via or caches or fallback):
        return None
    found = convert("via", {"hf": list(caches)}, "--via")["hf"].caches if caches else ()
    return GivenCaches(found, fallback, no_via)


def forget_caches(document: dict[str, Any], source: str) -> None:
    """Remove a source from the setting `via` of a config file."""
    known = dict(convert("via", document.get("via") or {}, "the config file"))
    known.pop(source, None)
    _write(document, known)


def _write(document: dict[str, Any], known: dict[str, Via]) -> None:
    document.pop("via", None)
    if known:
        document["via"] = {source: via.plain() for source, via in known.items()}


def show_caches(source: str, via: Via | None) -> None:
    """One line for each site cache of a source."""
    never = ", never itself" if via and via.fallback == NEVER else ""
    for cache in via.caches if via else ():
        echo(f"via: {source} through {cache}{never}")
