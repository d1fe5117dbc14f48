"""Which settings a request works with, and whether something names its cache. Values only."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from axonfs.errors import ClosedFileError
from axonfs.settings.settings import Settings, closed_config, resolve, settings_of


@dataclass(frozen=True, slots=True)
class Target:
    """Whom a request asks.

    `explicit_cache`: a flag, a variable or the config file names the cache. Then no other cache
    is ever used: a command that cleans must not reach a mount with another cache.
    `registries` are those that the command line or the program names.
    """

    settings: Settings
    explicit_cache: bool = False
    registries: tuple[str, ...] = ()

    @classmethod
    def of(cls, found: Mapping[str, tuple[Any, str]], registries: object) -> Target:
        """The target for what `settings.resolve` found.

        Args:
            registries: those that the command line or the program names, if any.
        """
        settings = settings_of(found)
        explicit = found["cache"][1] != "default"
        return cls(settings, explicit, settings.registries if registries else ())


def resolve_with_notes(
    flags: Mapping[str, object],
    note: Callable[[str], None],
    *,
    flagged: str = "the command line",
) -> dict[str, tuple[Any, str]]:
    """Each setting's value and where it comes from.

    A config file that this user may not read is left out, and `note` hears of it; then no registry
    is used but those that a flag or a variable names.
    """
    try:
        found = resolve(flags, flagged=flagged)
    except ClosedFileError as exc:
        note(f"{exc}; its settings are not used")
        return resolve(flags, {}, flagged=flagged)
    if (closed := closed_config()) is not None:
        note(f"{closed}: this user may not read it; its settings are not used")
    return found
