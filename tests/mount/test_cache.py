"""`axonfs cache rm` and `prune` beside a mount, whose open files stay."""

from __future__ import annotations

import json
from typing import Any

import pytest

from tests.mount.conftest import FILES, NAME, Mount, MountFactory, run_axonfs, settled, source_bytes
from tests.support.registry import SPEC, RegistryServer

pytestmark = pytest.mark.mount


def asked(mount: Mount, *line: str) -> Any:
    return json.loads(run_axonfs("cache", *line, "--cache", mount.cache, "--json").stdout)


def test_what_is_open_in_the_mount_stays(
    start_mount: MountFactory, registry: RegistryServer
) -> None:
    """`cache rm` and `prune` drop no file that is open in the mount; `du` shows what went, and a
    program that reads it has it fetched again."""
    mount = start_mount(registry.url, options=("--prefetch", "off"))
    directory = mount.path / "nlp/tiny/1.0.0"
    for name in FILES:
        (directory / name).read_bytes()
    with (directory / NAME).open("rb") as opened:
        before = opened.read(100)
        (item,) = asked(mount, "rm", SPEC)
        rest = sum(size for name, size in FILES.items() if name != NAME)
        assert item["freed"] >= rest
        assert [kept["why"] for kept in item["kept"]] == ["open"]
        settled(lambda: (directory / "sub/part.bin").stat().st_blocks <= 8)
        assert (directory / NAME).stat().st_blocks * 512 >= FILES[NAME]
        (version,) = asked(mount, "ls")
        assert version["open"]
        assert asked(mount, "prune", "--older-than", "0s")["kept"] == 1
        assert before + opened.read() == source_bytes(mount.cache.parent, 0, NAME)
    settled(lambda: asked(mount, "prune", "--older-than", "0s")["kept"] == 0)
    settled(lambda: (directory / NAME).stat().st_blocks <= 8)
    assert asked(mount, "ls") == []
    assert (directory / NAME).read_bytes() == source_bytes(mount.cache.parent, 0, NAME)
