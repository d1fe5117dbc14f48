"""`axonfs search`, `info`, `versions` and `list`: which models exist, and what is local."""

from __future__ import annotations

import time
from typing import Any

import click

from axonfs.cli.client import ask
from axonfs.cli.options import json_option, make_target, source_options
from axonfs.cli.output import echo, echo_json, facts, note, show_note, table
from axonfs.errors import ADD_REGISTRY, UsageError
from axonfs.names import HUBS
from axonfs.units import counted, part_of, share, size


@click.command
@click.argument("query", nargs=-1, required=True)
@click.option(
    "--source",
    "sources",
    multiple=True,
    type=click.Choice(["registry", *HUBS]),
    help="Where to search: the registries (the default), or a hub; may be given more than once.",
)
@source_options
@json_option
def search(
    query: tuple[str, ...],
    sources: tuple[str, ...],
    registries: tuple[str, ...],
    cache: str | None,
    as_json: bool,
) -> None:
    """Find models by words.

    Each word of QUERY must occur in the namespace, name, description, framework or tags; matches in
    the name come first. A hub, or a registry with its own search, has its own rules.
    """
    words = " ".join(query)
    request = {"op": "search", "query": words, "sources": list(sources)}
    result = ask(make_target(registries, cache), request, show_note)
    found = result["models"]
    if not (found or sources or result["registries"]):
        note(
            f"no registry is configured; {ADD_REGISTRY}; --source hf searches the Hugging Face Hub"
        )
    elif not found:
        note("nothing matches")
    if as_json:
        echo_json(found)
    elif found:
        table(
            ("SPEC", "SIZE", "FRAMEWORK", "DESCRIPTION"),
            (
                (item["spec"], _known(item["size"]), item["framework"], _described(item))
                for item in found
            ),
        )


def _described(item: dict[str, Any]) -> str:
    doubt = "(cannot be verified) " if item["unverified"] else ""
    return f"{doubt}{item['description']}"


def _known(count: int | None) -> str:
    """A size, or nothing if the registry does not give it."""
    return size(count) if count else ""


@click.command
@click.argument("spec")
@click.option("--files", is_flag=True, help="Also list the files with size and digest.")
@source_options
@json_option
def info(
    spec: str, files: bool, registries: tuple[str, ...], cache: str | None, as_json: bool
) -> None:
    """Show one version of a model.

    Shows its description, license, size and source, and how much of it is local.
    """
    found = ask(make_target(registries, cache), {"op": "info", "spec": spec}, show_note)["version"]
    if as_json:
        echo_json(found)
        return
    facts(_facts(found))
    if files:
        click.echo()
        table(
            ("PATH", "SIZE", "LOCAL", "DIGEST"),
            (
                (
                    item["path"],
                    size(item["size"]),
                    share(item["local"], item["size"]),
                    _digest(item),
                )
                for item in found["files"]
            ),
            widest=120,
        )


def _digest(item: dict[str, Any]) -> str:
    """The digest that a file's bytes are compared with."""
    if "unverified" in item:
        return "none"
    kind = next(kind for kind in ("sha256", "git", "package") if kind in item)
    return str(item[kind]) if kind == "sha256" else f"{kind}:{item[kind]}"


def _verified(found: dict[str, object]) -> str:
    """Which files cannot be verified; empty in the usual case."""
    if not found["unverified"]:
        return ""
    files = counted(int(str(found["unverified"])), "file")
    what = f"{files} cannot be verified: neither the file nor its package has a sha256"
    if found["unverified_allowed"]:
        return f"{what}; reading them is allowed"
    return f"{what}; reading them fails, see axonfs registry add --allow-unverified"


def _facts(found: dict[str, object]) -> list[tuple[str, str]]:
    total, local = int(str(found["size"])), int(str(found["local"]))
    created = float(str(found["created"]))
    tags, files, facts = found["tags"], found["files"], found["facts"]
    assert isinstance(tags, list)
    assert isinstance(files, list)
    assert isinstance(facts, dict)
    return [
        ("spec", str(found["spec"])),
        ("description", str(found["description"])),
        ("license", str(found["license"])),
        ("framework", str(found["framework"])),
        ("format", str(found["format"])),
        ("runs as", str(found["execution_format"])),
        ("tags", ", ".join(map(str, tags))),
        ("published", time.strftime("%Y-%m-%d %H:%M", time.localtime(created)) if created else ""),
        *((label, str(value)) for label, value in facts.items()),
        ("files", str(len(files))),
        ("left out", _left_out(found["left_out"])),
        ("size", size(total)),
        ("local", f"{size(local)} ({_local(found)})"),
        ("pinned", _pin_word(found)),
        ("yanked", "yes, so only its exact name finds it" if found.get("yanked") else ""),
        ("verified", _verified(found)),
        ("manifest", f"sha256:{found['digest']}"),
        *(("signed", text) for text in _signed(found)),
        ("from", str(found["source"])),
        ("path", str(found["path"] or "")),
    ]


def _signed(found: dict[str, object]) -> list[str]:
    """By whom it is signed, and whether the user trusts each of them."""
    signatures = found["signatures"]
    assert isinstance(signatures, list)
    if not signatures and found["signature_required"]:
        return ["by nobody, so it may not be read (require_signature)"]
    return [_signature(item) for item in signatures]


def _signature(item: dict[str, Any]) -> str:
    if item["trusted"] is None:
        return f"by {item['by']}, not verified" if item["by"] else f"not verified: {item['why']}"
    if item["trusted"]:
        return f"by {item['by']}, trusted"
    return f"not trusted: {item['why']}"


def _left_out(paths: object) -> str:
    """The files that the mount leaves out, since Linux does not allow their paths."""
    assert isinstance(paths, list)
    if not paths:
        return ""
    return f"{counted(len(paths), 'file')} whose path Linux does not allow: {', '.join(paths)}"


@click.command
@click.argument("model", metavar="NAME")
@source_options
@json_option
def versions(model: str, registries: tuple[str, ...], cache: str | None, as_json: bool) -> None:
    """List the versions of a model.

    NAME is namespace/name. The oldest version comes first.
    """
    found = ask(make_target(registries, cache), {"op": "versions", "model": model})
    if as_json:
        echo_json({key: found[key] for key in ("model", "latest", "versions")})
        return
    table(
        ("VERSION", "SIZE", "LOCAL", ""),
        (
            (
                item["version"],
                _known(item["size"]),
                _local(item) if item["local"] else "",
                _aliases(item, found["latest"]),
            )
            for item in found["versions"]
        ),
    )


def _aliases(item: dict[str, Any], latest: str | None) -> str:
    names = ["latest"] if item["version"] == latest else []
    yanked = ["yanked"] if item.get("yanked") else []
    unverified = ["cannot be verified"] if item["unverified"] else []
    return ", ".join([*names, *item["aliases"], *yanked, *unverified])


@click.command("list")
@click.option(
    "--format",
    "-f",
    "form",
    type=click.Choice(["default", "names", "json"]),
    default="default",
    help="default: a table; names: namespace/name, each once; json: as Axon has it, with the keys"
    " Namespace, Name, Version, Path and more.",
)
@source_options
@json_option
def list_command(form: str, registries: tuple[str, ...], cache: str | None, as_json: bool) -> None:
    """List the versions that are local, completely or partly."""
    if as_json and form == "names":
        raise UsageError("--json and --format names exclude each other")
    found = ask(make_target(registries, cache), {"op": "list"})["models"]
    if as_json:
        echo_json(found)
    elif form == "json":
        echo_json([_listed(item) for item in found])
    elif form == "names":
        # As scripts written for Axon expect them: models, each once.
        for name in dict.fromkeys(f"{item['namespace']}/{item['name']}" for item in found):
            echo(name)
    elif found:
        table(
            ("SPEC", "PINNED", "LOCAL", "SIZE", "PATH"),
            (
                (
                    item["spec"],
                    _pin_word(item),
                    _local(item),
                    size(item["size"]),
                    item["path"] or "",
                )
                for item in found
            ),
            widest=200,
        )
    else:
        note("nothing is local yet")


def _local(item: dict[str, Any]) -> str:
    """How much of a version is local; never 100 % if its pin is incomplete."""
    shown = part_of if item["pinned"] == "incomplete" else share
    return shown(item["local"], item["size"] or 0)


def _pin_word(item: dict[str, object]) -> str:
    return {"complete": "yes", "incomplete": "incomplete"}.get(str(item["pinned"]), "")


def _listed(item: dict[str, object]) -> dict[str, object]:
    # Scripts written for Axon read these keys with capitals.
    return {
        "Namespace": item["namespace"],
        "Name": item["name"],
        "Version": item["version"],
        "Path": item["path"],
        "Size": item["size"],
        "Local": item["local"],
        "Pinned": item["pinned"] == "complete",
    }
