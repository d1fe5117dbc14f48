#!/usr/bin/env python3
"""Writes docs/cli.md from the commands themselves, so that the page cannot lag behind.

python tools/cli_docs.py            write the page
python tools/cli_docs.py --check    exit 1 if the page is not what would be written
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import click

from axonfs.cli.main import cli
from axonfs.settings.settings import KEYS

PAGE = Path(__file__).resolve().parent.parent / "docs" / "cli.md"

HEAD = """\
# Commands

<!-- Written by tools/cli_docs.py from the commands' own help; edit that. -->

`SPEC` is `namespace/name@version`; without `@version` it is the latest one, and a constraint such
as `@^1.2` means the highest version that it allows ([versions.md](versions.md)).

A command asks the running mount that owns the cache, and does the work itself where none runs. If
no flag, variable or file names a cache and no mount uses the default one, the only mount of this
user is asked. Beside a mount of root's, `status` of another user shows that one, and `search`,
`info` and `versions` ask its registries if the user has none; all else is about the user's cache.

Exit codes: 0 done; 1 what was asked for failed, and a line on stderr says what, where, and what to
do; 2 wrong usage; 130 interrupted. `--json` goes to stdout alone, everything else that is not the
result to stderr. `AXONFS_DEBUG=1` shows the log and tracebacks.
"""

SETTINGS = """\
## Settings

A flag goes before its variable, which goes before the config file (`AXONFS_CONFIG`, else
`~/.config/axonfs/config.yaml`, else `/etc/axonfs/config.yaml`), which goes before the default.
Where there is no such file, that of Axon (`~/.axon/config.yaml`) is read in its place and never
written: the first edit makes a file of AxonFS that begins with what it said.
`AXONFS_TOKEN` is the token of the first registry. Other tokens are in `tokens.yaml` beside the
config file, registry URL to token, which only its owner may read (mode 0600), so that everyone may
read the config file. Tokens in the config file work too, while others may not read it; an edit
moves them.
A config file that a user may not read is told of and left out.

| key | variable | |
|---|---|---|
"""


def commands(
    command: click.Command, context: click.Context
) -> Iterator[tuple[click.Command, click.Context]]:
    """Each command that does something, with its context, in the order of the help."""
    if not isinstance(command, click.Group):
        yield command, context
        return
    for name in command.list_commands(context):
        inner = command.get_command(context, name)
        assert inner is not None
        yield from commands(inner, click.Context(inner, info_name=name, parent=context))


def every_command() -> list[tuple[click.Command, click.Context]]:
    """All commands of the program."""
    return list(commands(cli, click.Context(cli, info_name="axonfs")))


def section(command: click.Command, context: click.Context) -> str:
    """One command's part of the page."""
    usage = " ".join([context.command_path, *command.collect_usage_pieces(context)])
    parts = [f"## {context.command_path}", f"```\n{usage}\n```", _prose(command.help or "")]
    records = [
        record
        for option in command.params
        if isinstance(option, click.Option) and (record := option.get_help_record(context))
    ]
    rows = "\n".join(f"| `{_cell(names)}` | {_cell(text)} |" for names, text in records)
    if rows:
        parts.append(f"| option | |\n|---|---|\n{rows}")
    return "\n\n".join(parts)


def _prose(text: str) -> str:
    return "\n\n".join(" ".join(part.split()) for part in text.split("\n\n"))


def _cell(text: str) -> str:
    return " ".join(text.split()).replace("|", "\\|")


def page() -> str:
    """The whole page."""
    settings = "".join(
        f"| `{name}` | {f'`{key.variable}`' if key.variable else ''} | {key.help} |\n"
        for name, key in KEYS.items()
    )
    sections = [section(command, context) for command, context in every_command()]
    return "\n".join([HEAD, *(f"{text}\n" for text in sections), SETTINGS + settings])


def main() -> int:
    if sys.argv[1:] not in ([], ["--check"]):
        print(__doc__, file=sys.stderr)
        return 2
    current = PAGE.read_text(encoding="utf-8") if PAGE.exists() else ""
    if sys.argv[1:] == ["--check"]:
        if current != page():
            print(f"{PAGE} is out of date: run tools/cli_docs.py", file=sys.stderr)
            return 1
        return 0
    PAGE.write_text(page(), encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
