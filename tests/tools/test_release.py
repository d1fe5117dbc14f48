"""What a release is made of fits together; tools/release itself builds for minutes, by hand."""

from __future__ import annotations

import re
import subprocess
import tomllib
from pathlib import Path
from typing import Any

import pytest
import yaml

from axonfs.connection import libfuse
from tools.wheels import LIBFUSES

ROOT = Path(__file__).parents[2]
DEBIAN = ROOT / "packaging/debian"
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
SCRIPTS = [*DEBIAN.glob("axonfs.p*"), ROOT / "tools/release"]
WORKFLOWS = sorted((ROOT / ".github/workflows").glob("*.yml"))
# Those of the Debian package: packaging/debian/control names them.
EXTRAS = ("metrics", "otlp", "s3", "sign", "srv", "top")


def locked(path: Path) -> dict[str, str]:
    """The versions that a lock file has, by name."""
    return dict(re.findall(r"^([\w.-]+)==(\S+)", path.read_text(), re.M))


def test_the_package_brings_every_library_of_its_extras() -> None:
    wanted = [*PROJECT["dependencies"]]
    for extra in EXTRAS:
        wanted += PROJECT["optional-dependencies"][extra]
    names = {re.split(r"[^\w.-]", each)[0] for each in wanted}
    assert names <= locked(DEBIAN / "requirements.lock").keys()
    described = " ".join((DEBIAN / "control").read_text().split())
    assert f"extras {', '.join(EXTRAS[:-1])} and {EXTRAS[-1]}" in described


def test_the_package_and_the_wheel_have_the_same_author() -> None:
    """Debian wants an address; the project has none, and `.invalid` is never anybody's."""
    (author,) = PROJECT["authors"]
    assert (
        f"\nMaintainer: {author['name']} <no-mail@axonfs.invalid>\n"
        in (DEBIAN / "control").read_text()
    )


def test_the_pyfuse3_of_a_release_is_the_one_that_is_tested() -> None:
    released = locked(ROOT / "tools/pyfuse3.lock")
    assert released == {"pyfuse3": locked(ROOT / "tools/requirements.lock")["pyfuse3"]}


def test_a_release_is_compiled_for_each_libfuse_that_is_looked_for() -> None:
    assert {each.soname for each in LIBFUSES} == set(libfuse.SONAMES)


def test_the_package_takes_the_pythons_that_it_has_libraries_for() -> None:
    pythons = re.findall(r"3\.\d+", (DEBIAN / "rules").read_text())
    bounds = re.findall(r"python3 \([<>=]+ (3\.\d+)\)", (DEBIAN / "control").read_text())
    (line,) = re.findall(r"^PYTHONS=\((.*)\)", (ROOT / "tools/release").read_text(), re.M)
    assert pythons == line.split()
    assert bounds == [pythons[0], f"3.{int(pythons[-1].split('.')[1]) + 1}"]
    assert {f"Programming Language :: Python :: {each}" for each in pythons} <= set(
        PROJECT["classifiers"]
    )


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: path.name)
def test_a_shell_script_parses(script: Path) -> None:
    shell = "bash" if "bash" in script.read_text().splitlines()[0] else "sh"
    subprocess.run([shell, "-n", script], check=True)


@pytest.mark.parametrize(
    ("mounted", "calls"),
    [
        ("users", ""),
        ("list", "stop axonfs.service axonfs-registry.service start axonfs.service"),
        ("", "stop axonfs.service axonfs-registry.service clean"),
    ],
)
def test_a_refused_removal_leaves_the_machine_s_mount(
    mounted: str, calls: str, tmp_path: Path
) -> None:
    """Its services are stopped only where no user has a mount; they go on where root has one of its
    own."""
    called = tmp_path / "called"
    programs = {
        "mounts": f'[ "$1" != "{mounted}" ] || echo "/home/ada/models (mounted by ada)"',
        "deb-systemd-invoke": f'printf "%s " "$@" >>{called}',
        "systemctl": f"""
            if [ "$1" = start ]; then printf "%s " "$@" >>{called}
            else [ "$*" = "-q is-active axonfs.service" ]; fi""",
        "py3clean": f"printf clean >>{called}",
    }
    for name, text in programs.items():
        (tmp_path / name).write_text(f"#!/bin/sh\n{text}\n")
        (tmp_path / name).chmod(0o755)
    script = (DEBIAN / "axonfs.prerm").read_text()
    script = script.replace("/usr/lib/axonfs/bin/mounts", "mounts")
    script = script.replace("/run/systemd/system", str(tmp_path))
    environment = {"PATH": f"{tmp_path}:/usr/bin:/bin"}
    done = subprocess.run(
        ["sh", "-c", script, "prerm", "remove"],
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == (1 if mounted else 0)
    assert ("/home/ada/models" in done.stderr) == bool(mounted)
    assert (called.read_text().strip() if called.exists() else "") == calls


@pytest.mark.parametrize("workflow", WORKFLOWS, ids=lambda path: path.name)
def test_a_workflow_checks_out_and_calls_the_scripts_of_tools(workflow: Path) -> None:
    parsed: dict[str, Any] = yaml.safe_load(workflow.read_text())
    assert parsed["permissions"] == {"contents": "read"}
    commands = [
        step["run"] for job in parsed["jobs"].values() for step in job["steps"] if "run" in step
    ]
    scripts = [words[0] for words in map(str.split, commands) if words[0].startswith("tools/")]
    assert scripts
    for script in scripts:
        assert (ROOT / script).stat().st_mode & 0o111
