#!/usr/bin/env python3
"""Writes docs/cli.md from the help texts of the commands, so that the page is always up to date,
and the table of commands that completion in shells reads.

python tools/cli_docs.py            write both
python tools/cli_docs.py --check    exit 1 if one of them is not what would be written
"""

from __future__ import annotations

import sys
from pathlib import Path

import click

from axonfs.cli.completing import table
from axonfs.cli.main import cli, leaves
from axonfs.settings.keys import KEYS

PAGE = Path(__file__).resolve().parent.parent / "docs" / "cli.md"

HEAD = """\
# Commands

<!-- Written by tools/cli_docs.py from the commands' help texts; edit those. -->

`SPEC` is `namespace/name@version`. Without `@version` it means the latest version, and with a
constraint such as `@^1.2` the highest version that it allows ([versions.md](versions.md)).

A command sends its request to the running mount that owns the cache. If no mount runs, it does the
work itself. If no flag, variable or file names a cache, and no mount uses the default one, it uses
the only mount of this user. Beside a mount of root, `status` of another user shows that mount, and
`search`, `info` and `versions` use its registries if the user has none; all other commands use the
user's own cache.

Exit codes: 0 success; 1 failure, and a line on stderr says what failed, where, and what to do;
2 wrong usage; 130 interrupted. Only the result goes to stdout, everything else to stderr; with
`--json` the result is JSON. `AXONFS_DEBUG=1` shows the log and tracebacks.

`axonfs completion bash`, `zsh` or `fish` prints a script by which Tab completes commands, options,
settings, mountpoints, and the models, versions and files that the cache knows. It reads files of
this machine alone, and takes some 50 ms of processor time, 80 where a registry has 20,000 models.
Names with other signs than letters, digits and `_.@/+=:,-` are not offered. The Debian package
installs it, and the man pages; from a checkout:

```sh
tools/completions.py OUT && tools/man_pages.py OUT      # bash, zsh, fish; man1, man5, man8
```
"""

SETTINGS = """\
## Settings

A flag overrides its variable, which overrides the config file (`AXONFS_CONFIG`, else
`~/.config/axonfs/config.yaml`, else `/etc/axonfs/config.yaml`), which overrides the default.
If there is no such file, Axon's (`~/.axon/config.yaml`) is read instead but never written: the
first edit creates a file of AxonFS with the settings from it.
`AXONFS_TOKEN` is the token of the first registry. Other tokens are in `tokens.yaml` beside the
config file, which maps registry URLs to tokens. Only its owner may read it (mode 0600), so that all
users may read the config file. Tokens in the config file work too if others may not read it; an
edit moves them.
`AXONFS_VIA` has site caches, separated by blanks: of the first registry, or `SOURCE=CACHE_URL`,
where SOURCE is a registry's URL or a hub ([registries.md](registries.md#site-caches)).
If a user may not read the config file, a note says so and its settings are not used.

| key | variable | |
|---|---|---|
"""


def every_command() -> list[tuple[click.Command, click.Context]]:
    """All commands of the program."""
    return list(leaves(cli, click.Context(cli, info_name="axonfs")))


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
    for path, text in ((PAGE, page()), (table.PATH, table.table())):
        if sys.argv[1:] == []:
            path.write_text(text, encoding="utf-8")
        elif not path.exists() or path.read_text(encoding="utf-8") != text:
            print(f"{path} is out of date: run tools/cli_docs.py", file=sys.stderr)
            return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
