"""`axonfs cache rm` and `prune`: drop bytes from the local cache."""

from __future__ import annotations

import click

from axonfs.call import Event
from axonfs.cli.client import ask
from axonfs.cli.options import cache_option, json_option, make_target
from axonfs.cli.output import echo, echo_json, show_note
from axonfs.errors import UsageError
from axonfs.units import counted, parse_age, size
from axonfs.versions import parse_wanted

_dry_run = click.option(
    "--dry-run", is_flag=True, help="Show what would be dropped, and drop nothing."
)
_MANY = 3  # versions that a line names


@click.command
@click.argument("specs", metavar="SPEC...", nargs=-1, required=True)
@_dry_run
@cache_option
@json_option
def rm(specs: tuple[str, ...], dry_run: bool, cache: str | None, as_json: bool) -> None:
    """Drop the bytes of versions that nothing else needs.

    What another local version has too stays, and so do open files; the command says how much. If a
    version is pinned, nothing is dropped: `axonfs uninstall` unpins it and drops its bytes.
    """
    request = {
        "op": "cache_rm_plan" if dry_run else "cache_rm",
        "specs": [str(parse_wanted(spec)) for spec in specs],
    }
    found = ask(make_target((), cache), request, show_note)["specs"]
    if as_json:
        echo_json(found)
        return
    for item in found:
        echo(f"{item['spec']}: {size(item['freed'])} {'would be ' if dry_run else ''}freed")
        for kept in item["kept"]:
            echo(f"  {_stays(kept)}")


def _stays(kept: Event) -> str:
    bytes_, by = size(kept["bytes"]), kept["by"]
    if kept["why"] == "open":
        return f"kept {bytes_} in {counted(kept['files'], 'open file')}"
    more = f" and {len(by) - _MANY} more" if len(by) > _MANY else ""
    where = ", ".join(by[:_MANY]) or "a pinned version"
    return f"kept {bytes_} in {counted(kept['files'], 'file')} of {where}{more}"


@click.command
@click.option(
    "--older-than",
    metavar="AGE",
    help="Also drop what nothing has used for so long, like 30d or 12h.",
)
@click.option("--incomplete", is_flag=True, help="Also drop files of which only a part is local.")
@_dry_run
@cache_option
@json_option
def prune(
    older_than: str | None, incomplete: bool, dry_run: bool, cache: str | None, as_json: bool
) -> None:
    """Drop files that no known version has, and on request more.

    Pinned and open files stay.
    """
    request: Event = {
        "op": "cache_prune_plan" if dry_run else "cache_prune",
        "older_than": None if older_than is None else _age(older_than),
        "incomplete": incomplete,
    }
    found = ask(make_target((), cache), request, show_note)
    if as_json:
        echo_json({key: found[key] for key in ("freed", "objects", "kept", "why")})
        return
    would = "would be " if dry_run else ""
    why = ", ".join(f"{size(count)} {word}" for word, count in sorted(found["why"].items()))
    dropped = f"{counted(found['objects'], 'object')} {would}dropped"
    echo(f"{size(found['freed'])} {would}freed, {dropped}{f' ({why})' if why else ''}")
    if found["kept"]:
        echo(f"{counted(found['kept'], 'object')} kept: they are pinned or open")


def _age(text: str) -> float:
    try:
        return parse_age(text)
    except ValueError as exc:
        raise UsageError(f"--older-than: '{text}' {exc}") from exc
