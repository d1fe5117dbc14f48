"""Cold reads from an OCI registry, docker-registry, against those from a registry of files.

Both are on loopback, the registry of files behind nginx, and are mounted anew with an empty cache.
Without a limit the servers take processor time from the mount: docker-registry 0.5 s per GiB. With
one, of 2.4 Gbit/s, a line is what both wait for. Also what config.json costs in bytes.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator
from functools import partial
from pathlib import Path

from axonfs.oci import reference_of
from axonfs.publish import publish_oci
from bench.experiment import Answer, experiment
from bench.fixtures import GIB, MIB, cold_mount, publish_model, scratch, settle, write_model
from bench.measure import Figures, ratio, rounds_of, seconds, summaries
from bench.origin import serving
from bench.peers import Peer
from bench.readers import dd
from tests.support.dockerregistry import DockerRegistry, docker_registry

SPEC = "bench/oci@1.0.0"
FILE = "model-00000.safetensors"
REPOSITORY, TAG = "bench/oci", "1.0.0"
TARGET = 1.1
CONFIG_TARGET = 0.01
# What `--bandwidth` is given, and what the report says of it.
LIMITS = {"off": "", "300M": " at 300 MB/s"}


@contextlib.contextmanager
def from_oci(server: DockerRegistry, work: Path, limit: str) -> Iterator[Path]:
    with cold_mount(f"oci://{server.host}?alias=here", work, "--bandwidth", limit) as mount:
        yield mount.path / "oci/here" / REPOSITORY / TAG / FILE


@contextlib.contextmanager
def from_files(url: str, work: Path, limit: str) -> Iterator[Path]:
    with cold_mount(url, work, "--bandwidth", limit) as mount:
        yield mount.version(SPEC) / FILE


def cold(peer: Peer, size: int) -> Figures:
    with peer() as file:
        settle(2 * size)
        return {"cold read": seconds(partial(dd, file))}


def config_share(server: DockerRegistry, work: Path, size: int) -> float:
    """The part of the model's bytes that comes when a program reads its config.json."""
    with cold_mount(f"oci://{server.host}?alias=here", work) as mount:
        json.loads((mount.path / "oci/here" / REPOSITORY / TAG / "config.json").read_bytes())
        return float(mount.status()["fetch"]["bytes"]) / size


def main() -> None:
    with (
        experiment("oci", __doc__, quick_rounds=2) as trial,
        scratch() as work,
        docker_registry(work / "docker-registry") as server,
    ):
        size = trial.size(128 * MIB, 2 * GIB)
        trial.figures["bytes"] = size
        model = write_model(work / "model", 1, size)
        publish_oci(model, reference_of(f"oci://{server.host}/{REPOSITORY}:{TAG}"))
        publish_model(model, SPEC, work / "registry")
        with serving(work / "registry", work) as origin:
            ways: dict[str, Peer] = {}
            for limit in LIMITS:
                ways |= {
                    f"docker-registry, {limit}": partial(from_oci, server, work, limit),
                    f"files, {limit}": partial(from_files, origin.url, work, limit),
                }
            found = rounds_of(
                {name: partial(cold, peer, size) for name, peer in ways.items()}, trial.rounds
            )
        trial.figures |= summaries(found)
        for limit, said in LIMITS.items():
            pair = [found[f"{kind}, {limit}"]["cold read"] for kind in ("docker-registry", "files")]
            what, against = f"OCI registry, cold read{said}", "a registry of files behind nginx"
            trial.answer(Answer(what, against, ratio(*pair), "× time", TARGET))
        share = config_share(server, work, size)
        trial.answer(
            Answer("OCI registry, config.json", "the model's bytes", share, "×", CONFIG_TARGET)
        )


if __name__ == "__main__":
    main()
