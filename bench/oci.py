"""Cold reads from an OCI registry, docker-registry, against those from a registry of files.

Both are on loopback, the registry of files behind nginx, and are mounted anew with an empty cache.
Without a limit the servers take processor time from the mount: docker-registry 0.5 s per GiB. With
one, of 2.4 Gbit/s, a line is what both wait for. Also the processor time of the mount alone, and
what config.json costs in bytes.
"""

from __future__ import annotations

import json
from functools import partial
from pathlib import Path

from axonfs.oci import reference_of
from axonfs.publish import publish_oci
from bench.experiment import Answer, experiment
from bench.fixtures import GIB, MIB, cold_mount, publish_model, scratch, settle, write_model
from bench.measure import Figures, ratio, rounds_of, seconds, summaries
from bench.origin import serving
from bench.readers import dd
from tests.support.dockerregistry import DockerRegistry, docker_registry

SPEC = "bench/oci@1.0.0"
FILE = "model-00000.safetensors"
REPOSITORY, TAG = "bench/oci", "1.0.0"
TARGET = 1.1
CONFIG_TARGET = 0.01
# What `--bandwidth` is given, and what the report says of it.
LIMITS = {"off": "", "300M": " at 300 MB/s"}


def cold(url: str, version: str, work: Path, limit: str, size: int) -> Figures:
    """A cold read of the file below `version` of a mount: its seconds, and the mount's processor
    time."""
    with cold_mount(url, work, "--bandwidth", limit) as mount:
        file = mount.path / version / FILE
        settle(2 * size)
        before = mount.usage()
        took = seconds(partial(dd, file))
        return {"cold read": took, "cpu_per_gib": (mount.usage().cpu - before.cpu) * GIB / size}


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
            places = {
                "docker-registry": (
                    f"oci://{server.host}?alias=here",
                    f"oci/here/{REPOSITORY}/{TAG}",
                ),
                "files": (origin.url, SPEC.replace("@", "/")),
            }
            ways = {
                f"{name}, {limit}": partial(cold, url, version, work, limit, size)
                for limit in LIMITS
                for name, (url, version) in places.items()
            }
            found = rounds_of(ways, trial.rounds)
        trial.figures |= summaries(found)
        for limit, said in LIMITS.items():
            pair = [found[f"{kind}, {limit}"]["cold read"] for kind in ("docker-registry", "files")]
            what, against = f"OCI registry, cold read{said}", "a registry of files behind nginx"
            trial.answer(Answer(what, against, ratio(*pair), "× time", TARGET))
        spent = [found[f"{kind}, off"]["cpu_per_gib"] for kind in ("docker-registry", "files")]
        what = "OCI registry, the mount's processor time"
        trial.answer(Answer(what, "a registry of files", ratio(*spent), "×", TARGET))
        share = config_share(server, work, size)
        trial.answer(
            Answer("OCI registry, config.json", "the model's bytes", share, "×", CONFIG_TARGET)
        )


if __name__ == "__main__":
    main()
