"""The manifests of packaging/kubernetes: valid by Kubernetes' schemas, and true to the program."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click
import pytest
import yaml

from axonfs.cli.csi import csi
from axonfs.cli.mount import mount
from axonfs.csi.figures import Figures
from axonfs.csi.node import DRIVER
from axonfs.csi.policy import Decision, read_policy
from axonfs.csi.volume import KNOWN, volume_of
from axonfs.settings.keys import KEYS
from axonfs.settings.limits import parse_amount
from axonfs.settings.settings import read_config

kubernetes_validate = pytest.importorskip("kubernetes_validate")

KUBERNETES = Path(__file__).parents[2] / "packaging/kubernetes"
PAGE = Path(__file__).parents[2] / "docs/kubernetes.md"
EXAMPLES = sorted((KUBERNETES / "examples").glob("*.yaml"))
# The oldest and the newest release whose schemas are at hand and that knows every field.
RELEASES = ("1.29", kubernetes_validate.latest_version())
COMMANDS = {"mount": mount, "csi": csi}


@pytest.fixture(scope="module")
def base() -> list[dict[str, Any]]:
    """The objects of the base, as `kubectl apply -k` sends them."""
    made = subprocess.run(
        ["kubectl", "kustomize", KUBERNETES / "base"], capture_output=True, text=True, check=True
    )
    return list(yaml.safe_load_all(made.stdout))


def of_kind(objects: list[dict[str, Any]], kind: str) -> dict[str, dict[str, Any]]:
    return {item["metadata"]["name"]: item for item in objects if item["kind"] == kind}


def pods(objects: list[dict[str, Any]]) -> dict[str, dict[str, Any]]:
    sets = of_kind(objects, "DaemonSet")
    return {name: item["spec"]["template"]["spec"] for name, item in sets.items()}


def container(pod: dict[str, Any], name: str) -> dict[str, Any]:
    (found,) = [one for one in pod["containers"] if one["name"] == name]
    return dict(found)


def arguments(pod: dict[str, Any], name: str) -> dict[str, str]:
    words = container(pod, name)["args"]
    return {option: value for option, _, value in (word.partition("=") for word in words)}


@pytest.mark.parametrize("release", RELEASES)
def test_the_base_is_valid(base: list[dict[str, Any]], release: str) -> None:
    for item in base:
        kubernetes_validate.validate(item, release, strict=True)


@pytest.mark.parametrize("release", RELEASES)
def test_the_examples_are_valid(release: str) -> None:
    """Those of Kubernetes' own kinds; here is no schema of KServe's, nor of charts' values."""
    kinds = []
    for path in EXAMPLES:
        for item in yaml.safe_load_all(path.read_text()):
            if item.get("apiVersion") in ("v1", "apps/v1"):
                kubernetes_validate.validate(item, release, strict=True)
                kinds.append(item["kind"])
    assert len(kinds) >= 5


def volumes(node: Any) -> Iterator[dict[str, Any]]:
    """Every CSI volume of this driver in a document."""
    if isinstance(node, dict):
        if node.get("driver") == DRIVER:
            yield node
        for value in node.values():
            yield from volumes(value)
    elif isinstance(node, list):
        for value in node:
            yield from volumes(value)


def test_the_volumes_of_the_examples_are_valid() -> None:
    found = [
        volume_of(volume["volumeAttributes"])
        for path in EXAMPLES
        for item in yaml.safe_load_all(path.read_text())
        for volume in volumes(item)
    ]
    assert len(found) >= 4
    assert any(volume.complete for volume in found)


def test_the_programs_know_their_options(base: list[dict[str, Any]]) -> None:
    found = pods(base)
    for pod, name in (("axonfs-mount", "mount"), ("axonfs-csi", "plugin")):
        one = container(found[pod], name)
        program, command = one["command"]
        assert program == "axonfs"
        known = {
            text
            for option in COMMANDS[command].params
            if isinstance(option, click.Option)
            for text in option.opts
        }
        assert {*arguments(found[pod], name)} <= known
        variables = {key.variable for key in KEYS.values()}
        assert {item["name"] for item in one["env"]} - {"NODE"} <= variables


def test_both_pods_meet(base: list[dict[str, Any]]) -> None:
    """The guard's socket, the cache and the mountpoint are the same for both; the names of the
    driver, its directory and what the registrar tells the kubelet belong together."""
    found = pods(base)
    mounting, plugin = found["axonfs-mount"], found["axonfs-csi"]
    theirs, ours = arguments(mounting, "mount"), arguments(plugin, "plugin")
    assert theirs["--guard"] == ours["--guard"]
    places = [
        {item["name"]: item.get("value") for item in container(pod, name)["env"]}
        for pod, name in ((mounting, "mount"), (plugin, "plugin"))
    ]
    for variable in ("AXONFS_CACHE_DIR", "AXONFS_MOUNTPOINT"):
        assert places[0][variable] == places[1][variable]
        assert str(places[0][variable]).startswith("/var/lib/axonfs/")
    assert list(of_kind(base, "CSIDriver")) == [DRIVER]
    hosts = {item["name"]: item.get("hostPath", {}).get("path") for item in plugin["volumes"]}
    assert hosts["plugin"] == f"/var/lib/kubelet/plugins/{DRIVER}"
    registered = arguments(plugin, "registrar")["--kubelet-registration-path"]
    assert registered == f"{hosts['plugin']}/csi.sock"


def test_mounts_reach_the_node(base: list[dict[str, Any]]) -> None:
    """What each container mounts has to propagate, which needs a privileged one."""
    found = pods(base)
    wanted = [
        ("axonfs-mount", "mount", "state"),
        ("axonfs-csi", "plugin", "state"),  # it unmounts what is left there in the end
        ("axonfs-csi", "plugin", "kubelet"),
    ]
    for pod, name, volume in wanted:
        one = container(found[pod], name)
        assert one["securityContext"] == {"privileged": True, "runAsUser": 0}
        (place,) = [item for item in one["volumeMounts"] if item["name"] == volume]
        assert place["mountPropagation"] == "Bidirectional"


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```$", PAGE.read_text(), re.M | re.S)


def test_the_overlay_of_the_page(tmp_path: Path) -> None:
    """What docs/kubernetes.md has users write: a volume, an overlay with its settings, a policy."""
    volume, overlay, config, policy = blocks("yaml")
    (attributes,) = [item["volumeAttributes"] for item in volumes(yaml.safe_load(volume))]
    assert volume_of(attributes).version == "^1"
    (tmp_path / "axonfs/packaging").mkdir(parents=True)
    (tmp_path / "axonfs/packaging/kubernetes").symlink_to(KUBERNETES)
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine/kustomization.yaml").write_text(overlay)
    (tmp_path / "mine/config.yaml").write_text(config)
    made = subprocess.run(
        ["kubectl", "kustomize", tmp_path / "mine"], capture_output=True, text=True, check=True
    )
    objects = list(yaml.safe_load_all(made.stdout))
    for item in objects:
        kubernetes_validate.validate(item, RELEASES[-1], strict=True)
    for name, of in (("axonfs-mount", "mount"), ("axonfs-csi", "plugin")):
        assert container(pods(objects)[name], of)["image"] == "registry.example.org/axonfs:0.1.0"
    (settings,) = [item["data"] for item in objects if "config.yaml" in item.get("data", {})]
    assert settings["config.yaml"] == config
    assert set(read_config(tmp_path / "mine/config.yaml")) == {"registries", "keep_free"}
    (tmp_path / "policy.yaml").write_text(policy)
    rules = read_policy(tmp_path / "policy.yaml")
    assert rules.decide("team-b", "hf/meta-llama/Llama-3") is Decision.TOKEN
    assert rules.decide("team-b", "nlp/tiny") is Decision.REFUSED


def test_the_page_names_every_metric_and_attribute() -> None:
    page = PAGE.read_text()
    made = Figures().families(volumes=0, pins=0, guarded=False, ready=False)
    for name in [*(one.name for one in made), *KNOWN]:
        assert name in page


def test_the_files_of_the_base_are_valid() -> None:
    """The cache leaves more of the disk free than the kubelet wants (imagefs.available<15%)."""
    settings = read_config(KUBERNETES / "base/config.yaml")
    assert set(settings) == {"registries", "keep_free"}
    assert parse_amount(settings["keep_free"]).of(100) > 15
    policy = read_policy(KUBERNETES / "base/policy.yaml")
    assert policy.decide("any", None) is Decision.ALLOWED
