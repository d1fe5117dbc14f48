"""packaging/container: its files agree with the program, with each other and with the page."""

from __future__ import annotations

import re
import shlex
from pathlib import Path
from typing import Any

import click
import pytest
import yaml

from axonfs.cli.main import cli
from axonfs.settings.keys import KEYS

ROOT = Path(__file__).parents[2]
CONTAINER = ROOT / "packaging/container"
PAGE = (ROOT / "docs/containers.md").read_text()
STAGES = re.split(r"^FROM .*$", (CONTAINER / "Containerfile").read_text(), flags=re.MULTILINE)
VARIABLES = {key.variable for key in KEYS.values()} | {"AXONFS_TOKEN", "AXONFS_CONFIG"}


def parses(words: list[str]) -> bool:
    """Whether `words` are a command line of axonfs."""
    assert words[0] == "axonfs"
    name, command, rest = cli.resolve_command(click.Context(cli), words[1:])
    assert command is not None
    command.make_context(name, rest, resilient_parsing=False)
    return True


def test_the_image_has_no_compiler_and_another_user() -> None:
    _, build, final = STAGES
    assert "gcc" in build
    assert not re.search(r"\bgcc\b|-dev\b|\bpip\b|build-essential", final)
    assert re.search(r"^USER axonfs$", final, re.MULTILINE)
    assert "--uid 10001" in final
    for line in re.findall(r"^COPY (?!--from)(.+) \S+$", build, re.MULTILINE):
        ignored = (ROOT / ".dockerignore").read_text().splitlines()
        for name in line.split():
            assert (ROOT / name).exists()
            assert f"!{name}" in ignored


def test_what_the_image_runs_is_a_command() -> None:
    final = STAGES[-1]
    entry = yaml.safe_load(re.findall(r"^ENTRYPOINT (.*)$", final, re.MULTILINE)[0])
    (run,) = re.findall(r"^CMD (.*)$", final, re.MULTILINE)
    (check,) = re.findall(r"^HEALTHCHECK .* CMD (.*)$", final, re.MULTILINE)
    assert parses([*entry, *yaml.safe_load(run)])
    assert parses(yaml.safe_load(check))
    assert set(re.findall(r"\bAXONFS_\w+", final)) <= VARIABLES


def test_compose() -> None:
    document: Any = yaml.safe_load((CONTAINER / "compose.yaml").read_text())
    mount, reader = document["services"]["axonfs"], document["services"]["vllm"]
    assert (CONTAINER / mount["build"]["context"]).resolve() == ROOT
    assert (ROOT / mount["build"]["dockerfile"]).exists()
    assert mount["environment"].keys() <= VARIABLES
    assert (mount["devices"], mount["cap_add"]) == (["/dev/fuse"], ["SYS_ADMIN"])
    assert mount["volumes"][0]["bind"]["propagation"] == "rshared"
    assert reader["volumes"][0]["bind"]["propagation"] == "rslave"
    assert reader["depends_on"]["axonfs"]["condition"] == "service_healthy"
    assert parses(mount["healthcheck"]["test"][1:])
    assert reader["shm_size"] == "8gb"
    assert "start_interval" not in mount["healthcheck"]  # docker-compose 1.29 refuses the file


@pytest.mark.parametrize("name", ["axonfs.container", "vllm.container"])
def test_quadlets(name: str) -> None:
    text = (CONTAINER / name).read_text()
    values: dict[str, list[str]] = {}
    for key, value in re.findall(r"^(\w+)=(.*)$", text, re.MULTILINE):
        values.setdefault(key, []).append(value)
    volumes = values["Volume"]
    if name == "vllm.container":
        assert volumes == ["/srv/axonfs:/srv/axonfs:ro,rslave"]
        assert values["Requires"] == ["axonfs.service"]
        assert values["ShmSize"] == ["8g"]
        return
    assert volumes[0] == "/srv/axonfs:/srv/axonfs:rshared"
    assert (values["AddDevice"], values["AddCapability"]) == (["/dev/fuse"], ["SYS_ADMIN"])
    (waits,) = re.findall(r"--stop-timeout=(\d+)", values["PodmanArgs"][0])
    assert int(waits) < int(values["TimeoutStopSec"][0])  # else systemd kills before podman does
    given = {word.partition("=")[0] for word in shlex.split(values["Environment"][0])}
    assert given <= VARIABLES
    assert parses(shlex.split(values["HealthCmd"][0]))


def test_each_reader_of_the_page_has_enough_shared_memory() -> None:
    """vLLM ends with an error if its processes have the 64 MB of a container's /dev/shm."""
    readers = re.findall(r"^podman run --rm (?:[^\n]*\\\n)*[^\n]*--model.*$", PAGE, re.MULTILINE)
    assert len(readers) == 2
    assert all("--shm-size 8g" in reader for reader in readers)


def test_the_page_says_what_the_files_do() -> None:
    for text in ("--device /dev/fuse", "SYS_ADMIN", "rshared", "rslave", "10001", "apparmor"):
        assert text in PAGE
    assert set(re.findall(r"\bAXONFS_[A-Z_]+", PAGE)) <= VARIABLES
    for command in re.findall(r"`(axonfs (?:status|search|pin|path)[^`]*)`", PAGE):
        cli.resolve_command(click.Context(cli), shlex.split(command)[1:])
