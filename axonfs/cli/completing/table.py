"""Makes table.json of the commands, so that completion need not import them.

Only tools/cli_docs.py uses this module; it writes the table beside docs/cli.md.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import click

from axonfs.cli.completing.complete import TABLE
from axonfs.cli.main import cli
from axonfs.settings.keys import KEYS

PATH = Path(TABLE)
LONGEST = 70
# What completion offers, by the name of an argument and by the metavar of an option.
_ARGUMENTS = {
    "mountpoint": "mountpoint",
    "spec": "spec",
    "specs": "spec",
    "model": "model",
    "key": "key",
    "values": "value",
    "url": "registry",
    "source": "registry",
    "target": "registry",
    "file": "files",
    "member": "members",
    "directory": "dirs",
    "shell": "choice",
}
_METAVARS = {
    "FILE": "files",
    "PICTURE": "files",
    "DIR": "dirs",
    "DIRECTORY": "dirs",
    "URL": "registry",
    "REGISTRY": "registry",
    "GLOB": "members",
    "OPTIONS": "options",
    "SPEC": "spec",
}


def table() -> str:
    """The table, as JSON."""
    program = _node(cli, click.Context(cli, info_name="axonfs"))
    found = {"settings": _settings(program["commands"]["mount"]["options"]), "program": program}
    return json.dumps(found, indent=1, ensure_ascii=False) + "\n"


def _node(command: click.Command, context: click.Context) -> dict[str, Any]:
    node: dict[str, Any] = {
        "help": _short(command.help or ""),
        "options": {},
        "arguments": [],
        "commands": {},
    }
    for parameter in command.params:
        if isinstance(parameter, click.Option) and not parameter.hidden:
            names = [*parameter.opts, *parameter.secondary_opts]
            node["options"] |= {name: _option(parameter) for name in names}
        elif isinstance(parameter, click.Argument):
            node["arguments"].append(_argument(parameter))
    node["options"] |= {name: {"help": "Show the help", "takes": ""} for name in ("-h", "--help")}
    if isinstance(command, click.Group):
        for name in command.list_commands(context):
            inner = command.get_command(context, name)
            assert inner is not None
            inside = click.Context(inner, info_name=name, parent=context)
            node["commands"][name] = _node(inner, inside)
    return node


def _option(option: click.Option) -> dict[str, Any]:
    found: dict[str, Any] = {"help": _short(option.help or ""), "takes": ""}
    if isinstance(option.type, click.Choice):
        return found | {"takes": "choice", "choices": list(option.type.choices)}
    if not option.is_flag:
        found["takes"] = _METAVARS.get(option.metavar or "", "text")
    return found


def _argument(argument: click.Argument) -> dict[str, Any]:
    found: dict[str, Any] = {
        "takes": _ARGUMENTS.get(argument.name or "", "text"),
        "many": argument.nargs < 0,
    }
    if isinstance(argument.type, click.Choice):
        found |= {"takes": "choice", "choices": list(argument.type.choices)}
    return found


def _settings(options: dict[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for name, key in KEYS.items():
        option = options.get(f"--{name.replace('_', '-')}", {})
        choices = option.get("choices") or (["true", "false"] if _is_switch(key.parse) else [])
        found[name] = {"help": _short(key.help), "choices": choices}
    return found


def _is_switch(parse: Any) -> bool:
    return getattr(parse, "__name__", "") == "parse_switch"


def _short(text: str) -> str:
    """The first sentence, without the variable, in one line of moderate length."""
    first = " ".join(text.partition("\n\n")[0].partition("[env:")[0].split())
    sentence = first.partition(". ")[0].rstrip(".")
    return sentence if len(sentence) <= LONGEST else sentence[: LONGEST - 1].rstrip() + "…"
