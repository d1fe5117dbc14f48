"""docs/semantics.md, loads: which opens have the weights fetched ahead, on a real mount."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from axonfs.names import parse_spec
from axonfs.publish import publish
from tests.mount.conftest import FILES, Mount, MountFactory, object_requests, run_axonfs
from tests.support.registry import CONFIG, RegistryServer, make_model

pytestmark = pytest.mark.mount

VERSION = "nlp/tiny/1.0.0"
OTHERS = ("nlp/tiny/1.1.0", "nlp/org/deep/0.1.0")
LOADED = FILES["model.safetensors"] + FILES["vocab.txt"] + len(CONFIG)


def loads(mount: Mount) -> dict[str, dict[str, Any]]:
    """The loads that `status` shows, by spec."""
    return {load["spec"]: load for load in mount.status()["prefetch"]["loads"]}


def until(done: Callable[[], bool], seconds: float = 20) -> None:
    """Return once `done`: a load's progress has no event."""
    deadline = time.monotonic() + seconds
    while not done():
        assert time.monotonic() < deadline
        time.sleep(0.05)


def loaded(mount: Mount, spec: str = "nlp/tiny@1.0.0") -> bool:
    return loads(mount).get(spec, {}).get("state") == "done"


def local(path: Path) -> int:
    return int(os.getxattr(path, "user.axonfs.cached").partition(b"/")[0])


def test_a_load(mount: Mount) -> None:
    """Opening `config.json`, `params.json`, `model_index.json` or an index of weights starts, a
    second later and behind all readers, a prefetch of the files that a load of this directory
    reads."""
    config = mount.path / VERSION / "config.json"
    subprocess.run(["file", config], check=True, stdout=subprocess.DEVNULL)
    # From now on the kernel has its bytes: a loader's reads are not seen, its open is.
    os.close(os.open(config, os.O_RDONLY))
    until(lambda: loaded(mount))
    assert local(mount.path / VERSION / "model.safetensors") == FILES["model.safetensors"]
    assert local(mount.path / VERSION / "vocab.txt") == FILES["vocab.txt"]
    assert local(mount.path / VERSION / "sub/part.bin") == 0
    load = loads(mount)["nlp/tiny@1.0.0"]
    assert (load["trigger"], load["local"], load["size"]) == ("config.json", LOADED, LOADED)
    shown = run_axonfs("status", mount.path).stdout
    assert "nlp/tiny@1.0.0" in shown.partition("prefetch\n")[2]


def test_glances(mount: Mount, registry: RegistryServer) -> None:
    """There is no prefetch after `ls -R`, `find`, `du`, `file` and `grep -r`, nor after an open
    with `O_NONBLOCK` or `O_NOATIME`."""
    for command in (["ls", "-lR"], ["find"], ["du", "-a"]):
        subprocess.run([*command, mount.path], check=True, stdout=subprocess.DEVNULL)
    assert object_requests(registry) == []
    config = mount.path / VERSION / "config.json"
    for flag in (os.O_NONBLOCK, os.O_NOATIME):
        fd = os.open(config, os.O_RDONLY | flag)
        assert os.read(fd, 1000) == CONFIG
        os.close(fd)
    for line in (f"file {config}", f"grep -r --include=config.json Llama {mount.path}"):
        subprocess.run(line.split(), check=True, stdout=subprocess.DEVNULL)
    # What these had begun would be there before what is opened after them.
    (mount.path / OTHERS[0] / "config.json").read_bytes()
    until(lambda: loaded(mount, "nlp/tiny@1.1.0"))
    assert list(loads(mount)) == ["nlp/tiny@1.1.0"]
    assert local(mount.path / VERSION / "model.safetensors") == 0


def test_a_walk(mount: Mount) -> None:
    """There is no prefetch if those files of three versions are opened within a second of each
    other."""
    configs = [mount.path / version / "config.json" for version in (VERSION, *OTHERS)]
    subprocess.run(["cat", *configs], check=True, stdout=subprocess.DEVNULL)

    def loaded_after_the_walk() -> bool:
        configs[0].read_bytes()  # during the walk it is a part of it
        return loaded(mount)

    until(loaded_after_the_walk)
    assert list(loads(mount)) == ["nlp/tiny@1.0.0"]


def test_shards(start_mount: MountFactory, tmp_path: Path) -> None:
    """While a program streams a shard of a model the rest of it and the next one are fetched,
    behind all readers, and more of them while they are less than 256 MiB together."""
    shards = {f"weights-0000{number}-of-00003.bin": 4 << 20 for number in (1, 2, 3)}
    registry, model = publish_shards(tmp_path, shards), tmp_path / "sharded"
    first, second, third = shards
    with RegistryServer(registry) as server:
        mount = start_mount(server.url)
        version = mount.path / "nlp/sharded/1.0.0"
        with (version / second).open("rb") as header:
            header.read(1 << 17)
        assert (version / first).read_bytes() == (model / first).read_bytes()
        until(lambda: local(version / second) == shards[second])
        until(lambda: local(version / third) == shards[third])
        assert loads(mount)["nlp/sharded@1.0.0"]["trigger"] == first


def publish_shards(tmp_path: Path, sizes: dict[str, int]) -> Path:
    """A registry with one model of shards."""
    model = make_model(tmp_path / "sharded", sizes)
    publish(model, parse_spec("nlp/sharded@1.0.0"), tmp_path / "shards", chunk_size=64 << 10)
    return tmp_path / "shards"


def test_a_second_file(start_mount: MountFactory, tmp_path: Path) -> None:
    """If a program opens weights within ten seconds after another file of the version, such as
    `config.json` or another shard, some 256 MiB of them and of the next shards are fetched at once,
    behind all readers."""
    shards = {f"weights-0000{number}-of-00003.gguf": 4 << 20 for number in (1, 2, 3)}
    with RegistryServer(publish_shards(tmp_path, shards)) as server:
        mount = start_mount(server.url)
        version = mount.path / "nlp/sharded/1.0.0"
        first, second, _ = (version / name for name in shards)
        with first.open("rb", buffering=0) as head:
            head.read(100)
        assert loads(mount) == {}
        with second.open("rb", buffering=0) as head:
            head.read(100)
        until(lambda: all(local(version / name) == size for name, size in shards.items()))
        assert loads(mount)["nlp/sharded@1.0.0"]["trigger"] == first.name


def test_two_places(start_mount: MountFactory, tmp_path: Path) -> None:
    """While programs stream weights at two places of a file, its missing parts are fetched, behind
    all readers: some 256 MiB at a time, and the next when half of these are there and the programs
    go on."""
    size = 96 << 20
    with RegistryServer(publish_shards(tmp_path, {"weights.gguf": size})) as server:
        mount = start_mount(server.url)
        weights = mount.path / "nlp/sharded/1.0.0/weights.gguf"
        with weights.open("rb", buffering=0) as file:
            for place in (64 << 20, 32 << 20):
                for offset in range(place, place + (4 << 20), 1 << 20):
                    os.pread(file.fileno(), 1 << 20, offset)
        until(lambda: local(weights) == size)


def test_modes(start_mount: MountFactory, registry: RegistryServer, tmp_path: Path) -> None:
    """With `--prefetch off` there is no prefetch, with `--prefetch all` the whole version is
    fetched."""
    off, everything = (
        start_mount(registry.url, options=("--prefetch", mode), cache=tmp_path / mode)
        for mode in ("off", "all")
    )
    for mount in (off, everything):
        (mount.path / VERSION / "config.json").read_bytes()
    until(lambda: loaded(everything))
    assert everything.fetched() == sum(FILES.values()) + len(CONFIG)
    assert off.status()["prefetch"] == {"mode": "off", "loads": [], "ended": {}}
    assert off.fetched() == len(CONFIG)


CRAWLER = """
import pathlib, sys, time
versions = [pathlib.Path(path) for path in sys.argv[1:]]
print("walking", flush=True)
while True:
    for version in versions:
        (version / "config.json").read_bytes()
        time.sleep(0.2)
"""


def test_a_walk_that_goes_on(start_mount: MountFactory, tmp_path: Path) -> None:
    """A walk that never ends does not prevent the prefetch for another program's load."""
    for number in range(8):
        model = make_model(tmp_path / f"walked{number}", {"model.safetensors": 1000}, seed=number)
        publish(model, parse_spec(f"nlp/walked@1.0.{number}"), tmp_path / "walked")
    loaded_one = make_model(tmp_path / "one", {"model.safetensors": 1 << 20})
    publish(loaded_one, parse_spec("nlp/one@1.0.0"), tmp_path / "walked")
    with RegistryServer(tmp_path / "walked") as server:
        mount = start_mount(server.url)
        walked = [mount.path / f"nlp/walked/1.0.{number}" for number in range(8)]
        with subprocess.Popen(
            [sys.executable, "-c", CRAWLER, *walked], stdout=subprocess.PIPE
        ) as crawler:
            assert crawler.stdout is not None
            crawler.stdout.readline()
            (mount.path / "nlp/one/1.0.0/config.json").read_bytes()
            until(lambda: loaded(mount, "nlp/one@1.0.0"))
            crawler.kill()
        assert list(loads(mount)) == ["nlp/one@1.0.0"]
