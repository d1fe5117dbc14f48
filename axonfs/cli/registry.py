"""`axonfs registry …`: lists, adds and removes registries."""

from __future__ import annotations

import sys
from typing import Any

import click

from axonfs.cli.copying import copy
from axonfs.cli.options import json_option, note_if_open, openly, resolved
from axonfs.cli.output import echo, echo_json, note, prompted, table
from axonfs.cli.registries import COMMANDS
from axonfs.cli.reload import apply_to_mounts
from axonfs.cli.serve import serve
from axonfs.cli.suggestions import Group
from axonfs.cli.tokens import token
from axonfs.cli.via import GivenCaches, forget_caches, given_caches, show_caches, via_options
from axonfs.errors import UsageError
from axonfs.names import HUBS, printable
from axonfs.settings.editing import edit_config
from axonfs.settings.parsers import parse_registry_url, parse_registry_urls, parse_token
from axonfs.settings.settings import convert, resolve


@click.group(cls=Group)
def registry() -> None:
    """Configure registries, serve one, or look after one."""


for _command in (*COMMANDS, copy, serve, token):
    registry.add_command(_command)


@registry.command("list")
@json_option
def list_registries(as_json: bool) -> None:
    """List the registries in their order; the first one is the default.

    Hubs that have site caches follow.
    """
    found = resolved({})
    (urls, provenance), (tokens, _) = found["registries"], found["tokens"]
    allowed, via = found["allow_unverified"][0], found["via"][0]
    hubs = [name for name in found["sources"][0] if name in via]
    if as_json:
        echo_json(
            [
                {
                    "url": url,
                    "token": url in tokens,
                    "allow_unverified": url in allowed,
                    "via": list(via[url].caches) if url in via else [],
                    "fallback": via[url].fallback if url in via else None,
                }
                for url in (*urls, *hubs)
            ]
        )
    elif urls or hubs:
        table(
            ("URL", "TOKEN", "UNVERIFIED", "FROM"),
            [
                (
                    url,
                    "set" if url in tokens else "",
                    "allowed" if url in allowed else "",
                    provenance if url in urls else found["sources"][1],
                )
                for url in (*urls, *hubs)
            ],
            widest=200,
        )
        for url in (*urls, *hubs):
            show_caches(url, via.get(url))
    else:
        note("no registry is configured; axonfs registry add URL adds one")


_token_option = click.option(
    "--with-token",
    is_flag=True,
    help="Read the registry's token from standard input, or prompt for it on a terminal.",
)
_unverified_option = click.option(
    "--allow-unverified/--no-allow-unverified",
    "unverified",
    default=None,
    help="Whether programs may read files for which the registry gives no sha256, so that they"
    " cannot be verified. By default reading them fails.",
)


@registry.command
@click.argument("url", metavar="URL|HUB")
@_token_option
@_unverified_option
@via_options
def add(url: str, with_token: bool, unverified: bool | None, **caches: Any) -> None:
    """Add a registry after the others, or set what is known of one.

    URL is http://… or https://…, s3://BUCKET/PREFIX for one in an object store, oci://HOST/PREFIX
    for an OCI registry, or the path of a registry directory. HUB is hf or modelscope, whose site
    caches can be set.
    """
    given = given_caches(**caches)
    if url in HUBS:
        _edit_hub(url, given, with_token or unverified is not None)
    else:
        _edit(url, with_token, unverified, given, first=False)


def _edit_hub(name: str, given: GivenCaches | None, others: bool) -> None:
    if given is None or others:
        raise UsageError(f"{name} is a hub, of which only the site caches can be set")
    with edit_config() as document:
        given.apply(document, name)
    echo(given.told(name))
    apply_to_mounts(["via"])


@registry.group("set", cls=Group)
def set_group() -> None:
    """Set the default registry."""


@set_group.command("default")
@click.argument("url")
@_token_option
@_unverified_option
def set_default(url: str, with_token: bool, unverified: bool | None) -> None:
    """Make a registry the first one; it is added if it is new."""
    _edit(url, with_token, unverified, None, first=True)


def _edit(
    url: str,
    with_token: bool,
    unverified: bool | None,
    caches: GivenCaches | None,
    *,
    first: bool,
) -> None:
    (url,) = convert("registries", [url], "the command line")
    # Read the token before the file is locked: the user may need time to type it.
    token = _read_token(url) if with_token else None
    with edit_config() as document:
        known = _known(document)
        others = [other for other in known if other != url or not first]
        document["registries"] = [url, *others] if first else list(dict.fromkeys([*others, url]))
        moved = document["registries"] != known
        if token:
            document["tokens"] = {**(document.get("tokens") or {}), url: token}
        if unverified is not None:
            _set_unverified(document, url, unverified)
        if caches:
            caches.apply(document, url)
    place = "the default registry" if first else "a registry"
    echo(f"{url} is {place} now")
    if caches:
        echo(caches.told(url))
    if token:
        note_if_open(url)
    _note_open_caches(url)
    _warn_if_hidden()
    edited = {"tokens": token is not None, "allow_unverified": unverified is not None}
    edited["via"] = caches is not None
    names = [name for name, given in edited.items() if given]
    apply_to_mounts(["registries", *names] if moved or not names else names)


def _set_unverified(document: dict[str, Any], url: str, allowed: bool) -> None:
    before = parse_registry_urls(document.pop("allow_unverified", None) or [])
    urls = [other for other in before if other != url] + [url] * allowed
    if urls:
        document["allow_unverified"] = urls


def _known(document: dict[str, Any]) -> list[str]:
    return list(convert("registries", document.get("registries") or [], "the config file"))


def _read_token(url: str) -> str:
    text = (
        prompted(lambda: click.prompt("token", hide_input=True, err=True))
        if sys.stdin.isatty()
        else sys.stdin.readline()
    )
    try:
        found = parse_token(text)
    except ValueError as exc:
        raise UsageError(f"the token from standard input {exc}") from exc
    if url.startswith("oci:") and ":" not in found.strip(":"):
        raise UsageError("the log-in of an OCI registry needs a user", hint="write USER:PASSWORD")
    return found


def _note_open_caches(url: str) -> None:
    """Tell that others can read the token of a registry on its way to a site cache, if they can."""
    found = resolve({})
    via = found["via"][0].get(url)
    if via and url in found["tokens"][0] and (what := openly(url, via.caches)):
        note(f"{what}, where others can read it; use https, or a network that you trust")


def _warn_if_hidden() -> None:
    provenance = resolve({})["registries"][1]
    if provenance.startswith("AXONFS_"):
        note(f"{provenance} is set, so the configured registries are not used now")


@registry.command
@click.argument("url")
def remove(url: str) -> None:
    """Remove a registry, its token, its site caches and its permission for unverified files."""
    try:
        wanted = parse_registry_url(url)
    except ValueError:
        wanted = url
    with edit_config() as document:
        known = _known(document)
        if wanted not in known:
            raise UsageError(f"{printable(url)} is not configured", hint="see axonfs registry list")
        document["registries"] = [other for other in known if other != wanted]
        tokens = {
            key: token
            for key, token in (document.get("tokens") or {}).items()
            if key.rstrip("/") != wanted
        }
        document.pop("tokens", None)
        if tokens:
            document["tokens"] = tokens
        _set_unverified(document, wanted, allowed=False)
        forget_caches(document, wanted)
    echo(f"{wanted} is removed")
    apply_to_mounts(("registries",))
