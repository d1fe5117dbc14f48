"""`axonfs config list|get|set`: shows and changes the settings. Tokens are never shown."""

from __future__ import annotations

from typing import Any

import click

from axonfs.cli.options import json_option, resolved
from axonfs.cli.output import echo, echo_json, note, table
from axonfs.cli.reload import apply_to_mounts
from axonfs.cli.suggestions import Group
from axonfs.errors import UsageError
from axonfs.settings.applied import plain
from axonfs.settings.editing import edit_config
from axonfs.settings.keys import KEYS
from axonfs.settings.settings import (
    DEFAULT_WORD,
    check_key,
    config_path,
    convert,
    resolve,
)
from axonfs.units import parse_bandwidth, parse_rate


@click.group(cls=Group)
def config() -> None:
    """Show the settings, and change them."""


@config.command("list")
@json_option
def list_settings(as_json: bool) -> None:
    """Show every setting and its origin: a variable, a file, or the default."""
    found = resolved({})
    if as_json:
        echo_json({name: plain(name, value) for name, (value, _) in found.items()})
        return
    table(
        ("KEY", "VALUE", "FROM"),
        [(name, _text(name, value), provenance) for name, (value, provenance) in found.items()],
        widest=120,
    )
    note(f"file: {config_path()}")


@config.command
@click.argument("key")
def get(key: str) -> None:
    """Print the value of one setting."""
    value, _ = resolved({})[check_key(key)]
    echo(_text(key, value))


@config.command("set")
@click.argument("key")
@click.argument("values", metavar="VALUE...", nargs=-1, required=True)
def set_setting(key: str, values: tuple[str, ...]) -> None:
    """Write one setting to the config file; the VALUE `default` removes it from there."""
    if check_key(key) == "tokens":
        # Other processes can read the command line, and it stays in the shell's history.
        raise UsageError(
            "a token does not belong on the command line",
            hint="use axonfs registry add URL --with-token",
        )
    text = " ".join(values)
    if key == "via" and text != DEFAULT_WORD:
        hint = "use axonfs registry add URL|HUB --via CACHE_URL"
        raise UsageError("site caches belong to a registry or a hub", hint=hint)
    value = None if text == DEFAULT_WORD else convert(key, text, "the command line")
    if key == "require_signature" and value:
        _check_signers(value)
    with edit_config() as document:
        document.pop(key, None)
        if text != DEFAULT_WORD:
            document[key] = _stored(key, text, value)
    value, provenance = resolve({})[key]
    echo(f"{key} is {_text(key, value)}")
    if provenance.startswith("AXONFS_"):
        note(f"{provenance} is set and overrides the file")
    apply_to_mounts((key,))


def _check_signers(rules: tuple[str, ...]) -> None:
    """Refuse signers whose signatures cannot be verified: a mount would refuse every version."""
    from axonfs.settings.signers import SignatureRules
    from axonfs.signatures import require

    require()
    from axonfs.signatures.verifying import check_signer

    for signer in SignatureRules.of(rules).signers:
        check_signer(signer)


def _stored(key: str, text: str, value: Any) -> Any:
    """The value for the file: sizes as the user typed them, other values in their own type."""
    if key in ("cache_size", "keep_free", "cache_ttl"):
        return text
    return plain(key, value)


def _text(key: str, value: Any) -> str:
    if value is None:
        return "auto" if key in ("cache_size", "keep_free") else ""
    if isinstance(value, bool):
        return str(value).lower()
    if value == 0 and KEYS[key].parse in (parse_bandwidth, parse_rate):
        return "off"
    shown = plain(key, value)
    if key == "via":
        return " ".join(
            f"{source}={cache}" for source, via in value.items() for cache in via.caches
        )
    if key == "cache_quotas":
        return " ".join(f"{scope}={amount}" for scope, amount in shown.items())
    if isinstance(shown, dict):
        return " ".join(f"{url} ({word})" for url, word in shown.items())
    if isinstance(shown, list):
        return " ".join(shown) or ("none" if key == "sources" else "")
    return f"{shown}"
