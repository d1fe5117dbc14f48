"""Options that several commands share, and the settings that follow from them."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import urlsplit

import click

from axonfs.cli.output import note
from axonfs.client.target import Target, resolve_with_notes
from axonfs.errors import UsageError
from axonfs.names import printable
from axonfs.settings.parsers import local_path
from axonfs.settings.settings import convert, settings_of
from axonfs.settings.store_urls import oci_options
from axonfs.settings.via import SRV

F = TypeVar("F", bound=Callable[..., Any])
LOCAL_HOSTS = ("localhost", "127.0.0.1", "::1")

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
via_option = click.option(
    "--via",
    metavar="[SOURCE=]CACHE_URL",
    multiple=True,
    help="Site cache to ask in place of the first registry, or of SOURCE, which is a registry's URL"
    " or a hub; may be given more than once. [env: AXONFS_VIA]",
)


class LocalPath(click.Path):
    """A path on this machine; URLs other than file:// are refused.

    `what` names the path in the error, and `hint` says what to do instead of giving a URL. Without
    `checks` (those of click.Path) the path is not accessed, since a mountpoint may not answer.
    """

    def __init__(self, what: str, hint: str | None = None, **checks: bool) -> None:
        super().__init__(path_type=Path, **checks)
        self._what = what
        self._hint = hint
        self._checked = bool(checks)

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        if value == "-" and self.allow_dash:
            return Path(value)
        try:
            path = local_path(value)
        except ValueError as exc:
            what = f"{self._what}: '{printable(str(value))}' {exc}"
            raise UsageError(what, hint=self._hint) from exc
        return super().convert(path, param, ctx) if self._checked else path


class RegistryStorage(click.ParamType[Any]):
    """A registry that can be written: a directory of this machine, an s3 URL, or that of a server
    that takes uploads."""

    name = "registry"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        from axonfs.registries import storage_of
        from axonfs.storage import Directory

        if str(value).startswith("oci://"):
            what = f"'{printable(str(value))}' is an OCI registry, which has tools of its own"
            raise UsageError(what, hint="give a directory, an s3:// URL or an https:// URL")
        if not str(value).startswith(("s3://", "http://", "https://")):
            return Directory(_REGISTRY_DIRECTORY.convert(value, param, ctx))
        (url,) = convert("registries", [value], "--to")
        settings = settings_of(resolved({"registries": (url,)}))
        if settings.token(url):
            note_if_open(url)
        return storage_of(url, settings)


class PublishTarget(RegistryStorage):
    """Where a model is published: a registry that can be written, or an oci URL."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        if str(value).startswith("oci://"):
            return str(value)
        return super().convert(value, param, ctx)


class RegistryUrl(click.ParamType[str]):
    """The URL of any registry; a path of this machine becomes a file URL."""

    name = "registry"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> str:
        if "://" not in value:
            value = str(_ANY_DIRECTORY.convert(value, param, ctx).absolute())
        (url,) = convert("registries", [value], "the command line")
        return str(url)


_ANY_DIRECTORY = LocalPath("the registry's directory", file_okay=False)
_REGISTRY_DIRECTORY = LocalPath(
    "the registry's directory",
    "give a path, s3://BUCKET/PREFIX, or the https:// URL of axonfs registry serve",
    file_okay=False,
)


def make_target(registries: tuple[str, ...] = (), cache: str | None = None) -> Target:
    """The target that `--registry` and `--cache` describe."""
    found = resolved({"registries": registries, "cache": cache})
    return Target.of(found, registries)


def resolved(flags: Mapping[str, object]) -> dict[str, tuple[Any, str]]:
    """Each setting's value and where it comes from; see `axonfs.client.target`."""
    return resolve_with_notes(flags, note)


def sent_openly(url: str) -> bool:
    """Whether others on the network can read a token that is sent to this URL."""
    parts = urlsplit(url)
    plain = parts.scheme == "http"
    if parts.scheme == "oci":
        plain = ("plain_http", "yes") in oci_options(parts.query)
    return plain and parts.hostname not in LOCAL_HOSTS


def note_if_open(url: str) -> None:
    """Tell that others can read the token of the registry at `url`, if they can."""
    if sent_openly(url):
        note(f"the token of {url} is sent over plain HTTP, where others can read it; use https")


def openly(url: str, caches: Iterable[str]) -> str | None:
    """How others can read a token that is sent to a source at `url` through site caches."""
    bare = [cache.removeprefix(SRV) for cache in caches]
    if not (exposed := [cache for cache in bare if sent_openly(cache)]):
        return None
    return f"the token of {url} is sent to {', '.join(exposed)} over plain HTTP"


def source_options(function: F) -> F:
    """`--registry` and `--cache`, for every command that reads models."""
    return registry_option(cache_option(function))


def glob_options(function: Callable[..., None]) -> Callable[..., None]:
    """`--include` and `--exclude` as one argument `globs`, for every command that takes a part of a
    version: keys of its request, or nothing."""

    @functools.wraps(function)
    def with_globs(include: tuple[str, ...], exclude: tuple[str, ...], **others: Any) -> None:
        given = {"include": [*include], "exclude": [*exclude]}
        function(globs=given if include or exclude else {}, **others)

    return _include(_exclude(with_globs))


_include = click.option(
    "--include",
    metavar="GLOB",
    multiple=True,
    help="Only files whose path matches; may be given more than once. `*` also matches `/`.",
)
_exclude = click.option(
    "--exclude",
    metavar="GLOB",
    multiple=True,
    help="Leave out files whose path matches; may be given more than once.",
)
