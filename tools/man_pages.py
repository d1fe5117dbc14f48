#!/usr/bin/env python3
"""Writes the man pages from the help texts of the commands and of the settings.

python tools/man_pages.py OUTDIR

OUTDIR gets man1/axonfs.1 and one page for each command or group, man5/axonfs.yaml.5 and
man8/mount.axonfs.8. SOURCE_DATE_EPOCH is their date; without it, it is today.
"""

from __future__ import annotations

import os
import re
import sys
import time
from collections.abc import Iterable, Iterator
from pathlib import Path

import click

from axonfs._version import __version__
from axonfs.cli.main import COMMANDS, cli, leaves
from axonfs.cli.mount_helper import mount_axonfs
from axonfs.settings.keys import KEYS

EXIT_CODES = (
    ("0", "Success."),
    ("1", "Failure; a line on standard error says what failed, where, and what to do."),
    ("2", "Wrong usage."),
    ("130", "Interrupted."),
)
MOUNT_CODES = (
    ("0", "Success."),
    ("1", "Wrong usage."),
    ("8", "Interrupted."),
    ("32", "The mount failed."),
)
FILES = (
    ("~/.config/axonfs/config.yaml", "The settings of a user."),
    ("/etc/axonfs/config.yaml", "The settings of those who have none of their own."),
    ("tokens.yaml", "Beside it, tokens by registry URL; only its owner may read it."),
)
MOUNT_OPTIONS = (
    ("registry=URL", "One more registry; may be given more than once."),
    ("config=FILE", "Another config file, and the tokens.yaml beside it."),
    ("online, only_me, no_passthrough", "The opposite of offline, allow_other and passthrough."),
    ("noexec", "Let no programs run from the mount."),
    ("fsname=NAME", "The source that the mount table shows."),
    ("remount", "Have the running mount take the other options."),
)
_SETTINGS_PROSE = (
    "AxonFS reads its settings from a YAML file: the one that AXONFS_CONFIG names, else that of the"
    " user, else that of the machine. A flag goes before its variable, a variable before the file."
    " `axonfs config set` edits the file, and a running mount applies the change."
)


def write(directory: Path) -> list[Path]:
    """Write all pages below `directory`; their paths."""
    context = click.Context(cli, info_name="axonfs")
    pages = {"man1/axonfs.1": program_page()}
    for name, command in commands():
        inside = click.Context(command, info_name=name, parent=context)
        pages[f"man1/axonfs-{name}.1"] = command_page(command, inside)
    pages["man5/axonfs.yaml.5"] = settings_page()
    pages["man8/mount.axonfs.8"] = helper_page()
    for name, text in pages.items():
        path = directory / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
    return [directory / name for name in pages]


def commands() -> Iterator[tuple[str, click.Command]]:
    """The commands and groups of the program, in the order of its help."""
    for name in COMMANDS:
        command = cli.get_command(click.Context(cli), name)
        assert command is not None
        yield name, command


def program_page() -> str:
    """axonfs(1)."""
    rows = [(f"axonfs-{name}(1)", first_sentence(one.help)) for name, one in commands()]
    variables = [(key.variable, key.help) for key in KEYS.values() if key.variable]
    parts = [
        *head("axonfs", 1, first_sentence(cli.help)),
        *section("synopsis", [f"{bold('axonfs')} {italic('COMMAND')} [{italic('ARGUMENT')} ...]"]),
        *section("description", prose(cli.help)),
        *section("commands", list_of(rows)),
        *section("environment", list_of(variables)),
        *section("files", list_of(FILES)),
        *section("exit status", list_of(EXIT_CODES)),
        *section("see also", ["axonfs.yaml(5), mount.axonfs(8)"]),
    ]
    return page(parts)


def command_page(command: click.Command, context: click.Context) -> str:
    """The page of one command, or of a group with all its commands."""
    inner = list(leaves(command, context))
    parts = head(context.command_path.replace(" ", "-"), 1, first_sentence(command.help))
    lines = [line for one in inner for line in (".br", *synopsis(*one))]
    parts += section("synopsis", lines[1:])
    if isinstance(command, click.Group):
        parts += section("description", prose(command.help))
        for one, inside in inner:
            parts += section(inside.command_path, [*prose(one.help), *options(one, inside)])
    else:
        parts += section("description", prose(command.help))
        if found := options(command, context):
            parts += section("options", found)
    parts += section("see also", ["axonfs(1), axonfs.yaml(5)"])
    return page(parts)


def settings_page() -> str:
    """axonfs.yaml(5)."""
    rows = [
        (name, key.help + (f" Variable: {key.variable}." if key.variable else ""))
        for name, key in KEYS.items()
    ]
    parts = [
        *head("axonfs.yaml", 5, "the settings of AxonFS"),
        *section("description", prose(_SETTINGS_PROSE)),
        *section("settings", list_of(rows)),
        *section("files", list_of(FILES)),
        *section("see also", ["axonfs(1), axonfs-config(1)"]),
    ]
    return page(parts)


def helper_page() -> str:
    """mount.axonfs(8)."""
    context = click.Context(mount_axonfs, info_name="mount.axonfs")
    rows = [(name, key.help) for name, key in KEYS.items() if name not in ("tokens", "mountpoint")]
    example = "https://models.example.org /models fuse.axonfs allow_other,_netdev,nofail 0 0"
    parts = [
        *head("mount.axonfs", 8, "mount AxonFS, for mount(8) and fstab(5)"),
        *section("synopsis", synopsis(mount_axonfs, context)),
        *section("description", prose(mount_axonfs.help)),
        *section("options", options(mount_axonfs, context)),
        *section("mount options", list_of([*MOUNT_OPTIONS, *rows])),
        *section("examples", ["A line of /etc/fstab:", ".PP", ".EX", escaped(example), ".EE"]),
        *section("exit status", list_of(MOUNT_CODES)),
        *section("see also", ["axonfs(1), axonfs.yaml(5), fstab(5), mount(8)"]),
    ]
    return page(parts)


def head(name: str, number: int, summary: str) -> list[str]:
    now = time.gmtime(int(os.environ.get("SOURCE_DATE_EPOCH", time.time())))
    date = time.strftime("%Y-%m-%d", now)
    title = f'.TH "{escaped(name.upper())}" {number} "{date}" "AxonFS {__version__}" "AxonFS"'
    return [title, *section("name", [f"{escaped(name)} \\- {escaped(summary)}"])]


def section(title: str, lines: list[str]) -> list[str]:
    return [
        f'.SH "{escaped(title if " " in title and "axonfs" in title else title.upper())}"',
        *lines,
    ]


def synopsis(command: click.Command, context: click.Context) -> list[str]:
    pieces = " ".join(command.collect_usage_pieces(context))
    return [f"{bold(context.command_path)} {escaped(pieces)}"]


def options(command: click.Command, context: click.Context) -> list[str]:
    """The options of a command."""
    records = [
        record
        for option in command.params
        if isinstance(option, click.Option) and (record := option.get_help_record(context))
    ]
    return list_of(records)


def list_of(rows: Iterable[tuple[str, str]]) -> list[str]:
    """A list of terms and what they are."""
    lines = []
    for term, text in rows:
        lines += [".TP", bold(term), inline(" ".join(text.split()))]
    return lines


def prose(text: str | None) -> list[str]:
    """The paragraphs of a help text."""
    parts = [" ".join(part.split()) for part in (text or "").split("\n\n")]
    lines: list[str] = []
    for part in parts:
        lines += [".PP", inline(part)] if lines else [inline(part)]
    return lines


def first_sentence(text: str | None) -> str:
    """The first sentence, as the line of a name section has it."""
    first = " ".join((text or "").partition("\n\n")[0].split())
    return re.split(r"[.:](?:\s|$)", first)[0]


def inline(text: str) -> str:
    """A line of text, in which `words` in backticks are bold."""
    words = re.split(r"`([^`]*)`", text)
    return "".join(bold(word) if index % 2 else escaped(word) for index, word in enumerate(words))


def bold(text: str) -> str:
    return f"\\fB{escaped(text)}\\fR"


def italic(text: str) -> str:
    return f"\\fI{escaped(text)}\\fR"


def escaped(text: str) -> str:
    """Text in which nothing is a request or an escape of roff."""
    text = text.replace("\\", "\\e").replace("-", "\\-").replace('"', "\\(dq")
    text = text.replace("'", "\\(aq").replace("^", "\\(ha").replace("~", "\\(ti")
    return f"\\&{text}" if text.startswith(".") else text


def page(lines: list[str]) -> str:
    return "\n".join(lines) + "\n"


def main() -> int:
    if len(sys.argv) != 2 or sys.argv[1].startswith("-"):
        print(__doc__, file=sys.stderr)
        return 2
    write(Path(sys.argv[1]))
    return 0


if __name__ == "__main__":
    sys.exit(main())
