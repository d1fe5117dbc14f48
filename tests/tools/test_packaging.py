"""The systemd units: what they start exists, with the options they give it."""

from __future__ import annotations

import configparser
import os
import re
import shlex
import shutil
import subprocess
from pathlib import Path

import click
import pytest

from axonfs import distro
from axonfs.cli.main import cli
from axonfs.cli.serve import serve

PACKAGING = Path(__file__).parents[2] / "packaging"
UNITS = sorted(PACKAGING.glob("*.service"))
CACHE = PACKAGING / "caches/axonfs-cache@.service"


def unit(path: Path) -> configparser.ConfigParser:
    parser = configparser.ConfigParser(strict=False, interpolation=None)
    parser.optionxform = str  # type: ignore[assignment,method-assign]
    parser.read(path)
    return parser


@pytest.mark.parametrize("path", UNITS, ids=lambda path: path.name)
def test_the_command_of_a_unit_parses(path: Path) -> None:
    program, *arguments = shlex.split(unit(path)["Service"]["ExecStart"])
    assert Path(program).name == "axonfs"
    assert isinstance(cli, click.Group)
    if arguments[0] == "registry":
        check_served(arguments)
        return
    name, command, rest = cli.resolve_command(click.Context(cli), arguments)
    assert name == "mount"
    assert command is not None
    context = command.make_context(name, rest)
    assert context.params["foreground"] is True


def check_served(arguments: list[str]) -> None:
    """The directory is the unit's own, and each other file is in the directory of its secrets."""
    assert arguments[:3] == ["registry", "serve", "/var/lib/axonfs-registry"]
    given = dict(zip(arguments[3::2], arguments[4::2], strict=True))
    options = {name for parameter in serve.params for name in parameter.opts}
    assert given.keys() <= options
    files = [given[name] for name in ("--cert", "--key", "--tokens")]
    assert {str(Path(file).parent) for file in files} == {"/etc/axonfs-registry"}


@pytest.mark.parametrize("path", [*UNITS, CACHE], ids=lambda path: path.name)
def test_systemd_accepts_a_unit(path: Path, tmp_path: Path) -> None:
    analyze = shutil.which("systemd-analyze")
    if analyze is None:
        pytest.skip("systemd-analyze is not installed")
    # The programs need not be installed here; everything else counts.
    text = path.read_text().replace(unit(path)["Service"]["ExecStart"], "/bin/true")
    copy = tmp_path / path.name
    copy.write_text(text)
    mode = "--user" if "user" in path.name else "--system"
    done = subprocess.run(
        [analyze, mode, "verify", copy],
        env={**os.environ, "XDG_RUNTIME_DIR": str(tmp_path)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert path.name not in done.stderr


def test_the_unit_of_a_cache_fills_in_what_the_configuration_names() -> None:
    names = set(re.findall(r"\$([A-Z_]+)", unit(CACHE)["Service"]["Environment"]))
    template = (CACHE.parent / "nginx.conf.template").read_text()
    assert names == set(re.findall(r"\$\{([A-Z_]+)\}", template))
    example = (CACHE.parent / "example.env").read_text()
    assert names <= set(re.findall(r"^([A-Z_]+)=", example, re.MULTILINE))


def test_the_docs_name_the_packages_that_the_tools_install() -> None:
    root = Path(__file__).parents[2]
    library = (root / "tools/lib.sh").read_text()
    function = library.partition("missing_packages() {")[2].partition("for part in")[0]
    installed = set(re.findall(r"\b(?:fuse3|lib\w+-dev|pkg-config|gcc|python3-\w+)\b", function))
    assert {"libfuse3-dev", "libc6-dev", "python3-venv"} <= installed
    lines = (root / "docs/install.md").read_text().splitlines()
    (line,) = (line for line in lines if "`apt " in line and "libfuse3-dev" in line)
    assert set(line.split("`")[1].split()[2:]) == installed


def test_the_docs_have_the_commands_that_hints_name() -> None:
    text = (Path(__file__).parents[2] / "docs/install.md").read_text()
    for command in set(distro.INSTALL_FUSE.values()):
        assert f"| `{command}` |" in text
