"""`axonfs registry token …`: the tokens of the built-in server."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import click

from axonfs.cli.options import LocalPath, json_option
from axonfs.cli.output import echo, echo_json, note, table
from axonfs.cli.suggestions import Group
from axonfs.errors import UsageError
from axonfs.names import HUB_NAMESPACES, printable

F = TypeVar("F", bound=Callable[..., Any])

_file = LocalPath("the tokens file", dir_okay=False)


@click.group(cls=Group)
def token() -> None:
    """Create, list and revoke the tokens of axonfs registry serve --tokens FILE.

    The file has a digest of each token, and what it may do. A running server notices changes.
    """


def _right(name: str, what: str) -> Callable[[F], F]:
    return click.option(
        f"--{name}", name, metavar="NAMESPACE", multiple=True, help=f"Namespace {what}; * for all."
    )


@token.command
@click.argument("file", metavar="FILE", type=_file)
@click.argument("name")
@_right("read", "that it may read")
@_right("publish", "that it may publish into, and yank in")
@_right("remove", "whose versions it may remove")
@json_option
def create(
    file: Path,
    name: str,
    read: tuple[str, ...],
    publish: tuple[str, ...],
    remove: tuple[str, ...],
    as_json: bool,
) -> None:
    """Create a token and print it.

    Only its digest is stored in FILE, so it cannot be shown again. NAME is what the server's log
    has. Each right may be given more than once. To publish or to remove includes to read.
    """
    from axonfs.serve import Grant, create_token

    if not (read or publish or remove):
        raise UsageError("the token has no right", hint="add --read, --publish or --remove")
    for namespace in (*publish, *remove):
        if namespace in HUB_NAMESPACES:
            raise UsageError(f"{printable(namespace)} is a hub's namespace, and in no registry")
    grant = Grant(name, frozenset(read), frozenset(publish), frozenset(remove))
    secret = create_token(file, grant)
    if as_json:
        echo_json({"name": name, "token": secret})
        return
    echo(secret)
    note("this is shown once; axonfs registry add URL --with-token reads it")


@token.command("list")
@click.argument("file", metavar="FILE", type=_file)
@json_option
def list_tokens(file: Path, as_json: bool) -> None:
    """List the tokens in FILE and what they may do."""
    from axonfs.serve import RIGHTS, read_tokens

    grants = sorted(read_tokens(file).values(), key=lambda grant: grant.name)
    rows = [
        {
            "name": grant.name,
            **{right: sorted(getattr(grant, right)) for right in RIGHTS},
            "created": grant.created,
        }
        for grant in grants
    ]
    if as_json:
        echo_json(rows)
    elif rows:
        shown = [[_shown(value) for value in row.values()] for row in rows]
        table([name.upper() for name in rows[0]], shown, widest=200)
    else:
        note(f"{file} has no tokens")


def _shown(value: object) -> str:
    return " ".join(value) if isinstance(value, list) else str(value)


@token.command
@click.argument("file", metavar="FILE", type=_file)
@click.argument("name")
def revoke(file: Path, name: str) -> None:
    """Remove the token NAME from FILE; it is refused from then on."""
    from axonfs.serve import revoke_token

    revoke_token(file, name)
    echo(f"{name} is revoked")
