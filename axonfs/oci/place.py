"""The URL of an OCI registry: `oci://host/repository-prefix?option=value&…`.

The options say how to reach the registry and what its directory is called; they are no part of its
name. URLs of what it has are `oci://host/v2/…`, with the path that the registry itself uses. Pure.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from ipaddress import ip_address
from urllib.parse import urlsplit

from axonfs.errors import UsageError
from axonfs.names import Spec, oci_digest
from axonfs.settings.parsers import as_written
from axonfs.settings.store_urls import oci_alias, oci_host, oci_options, oci_repository

_TAG = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]{0,127}")
_BUILD = re.compile(r"v?[0-9]+\.[0-9]+\.[0-9]+(?:-[0-9A-Za-z.-]+)?_[0-9A-Za-z.-]+")
_FORM = "write oci://host/repository:tag"


@dataclass(frozen=True, slots=True)
class Place:
    """A registry, and how to reach it.

    Args:
        prefix: of the names of its repositories; empty, or ends with a slash.
        alias: the name of its directory below oci/.
        mirrors: `host/prefix` of registries to ask first.
    """

    host: str
    prefix: str
    alias: str
    mirrors: tuple[str, ...] = ()
    plain_http: bool = False

    @property
    def url(self) -> str:
        """The URL without options."""
        return f"oci://{self.host}/{self.prefix}".rstrip("/")

    def reference(self, spec: Spec) -> Reference:
        """The tag of a registry's version: `prefix/namespace/name:version`, with `_` for `+`.

        Raises:
            UsageError: OCI does not allow such a name.
        """
        repository, tag = f"{self.prefix}{spec.model}", spec.version.replace("+", "_")
        hint = "publish the model under another name"
        try:
            oci_repository(repository)
        except ValueError as exc:
            what = "OCI allows no capitals in a name, and . _ - only between letters and digits"
            raise UsageError(what, spec=str(spec), hint=hint) from exc
        if not _TAG.fullmatch(tag) or oci_digest(tag):
            what = "OCI allows tags of up to 128 characters, and none that looks like a digest"
            raise UsageError(what, spec=str(spec), hint=hint)
        return Reference(self, repository, tag)


@dataclass(frozen=True, slots=True)
class Reference:
    """One tag of a repository."""

    place: Place
    repository: str
    tag: str

    def __str__(self) -> str:
        return f"oci://{self.place.host}/{self.repository}:{self.tag}"


def place_of(url: str) -> Place:
    """
    Raises:
        ValueError: it is not the URL of an OCI registry.
    """
    parts = urlsplit(url)
    options = oci_options(parts.query)
    host, prefix = oci_host(parts.netloc), oci_repository(parts.path.strip("/"))
    named = dict(options)
    return Place(
        host,
        f"{prefix}/" if prefix else "",
        oci_alias(url),
        tuple(text for name, text in options if name == "mirror"),
        named["plain_http"] == "yes" if "plain_http" in named else is_local(host),
    )


def reference_of(url: str) -> Reference:
    """
    Raises:
        UsageError: it is not `oci://host/repository:tag`.
    """
    bare, _, query = url.partition("?")
    name, colon, tag = bare.rpartition(":")
    try:
        if not colon or "/" in tag or not _TAG.fullmatch(tag):
            raise ValueError("names no tag")
        place = place_of(f"{name}?{query}" if query else name)
    except ValueError as exc:
        raise UsageError(f"{as_written(url)} {exc}", hint=_FORM) from exc
    if not place.prefix:
        raise UsageError(f"{as_written(url)} names no repository", hint=_FORM)
    return Reference(place, place.prefix.rstrip("/"), tag)


def version_of(tag: str) -> str:
    """The version that a tag stands for: `1.0.0+build` for `1.0.0_build`, as Helm has it."""
    return tag.replace("_", "+") if _BUILD.fullmatch(tag) else tag


def is_local(host: str) -> bool:
    """Whether `host`, which may have a port, is this machine. Then http is used, as docker does."""
    name = urlsplit(f"//{host}").hostname or ""
    try:
        return ip_address(name).is_loopback
    except ValueError:
        return name == "localhost"


def is_tag(text: str) -> bool:
    return bool(_TAG.fullmatch(text))


def repository_of(url: str) -> str:
    """The repository in the URL of a document or a blob; empty if it is of none."""
    path = urlsplit(url).path.removeprefix("/v2/")
    match = re.fullmatch(r"(.+)/(?:manifests|blobs|tags|referrers)/[^/]*", path)
    return match.group(1) if match else ""
