"""`axonfs register` with a mount: the path that the core is told is one that it can read."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.mount.conftest import MountFactory, run_axonfs
from tests.support.axon import AxonRegistry
from tests.support.core import Core

pytestmark = pytest.mark.mount


def test_a_model_is_registered_by_its_path_in_the_mount(
    start_mount: MountFactory, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    registry = AxonRegistry(tmp_path / "axon")
    registry.add("vision/resnet50@1.0.0", {"model.onnx": b"onnx"})
    registry.add("vision/resnet50@1.2.0", {"model.onnx": b"onnx, newer"})
    with registry, Core() as core:
        mount = start_mount(registry.url)
        monkeypatch.setenv("MLOS_CORE_ENDPOINT", core.url)
        done = run_axonfs("register", "vision/resnet50@~1.0", "--cache", mount.cache)
        ((_, _, model),) = core.posted
        directory = mount.path / "vision/resnet50/1.0.0"
        assert model == {
            "model_id": "vision/resnet50@1.0.0",
            "name": "resnet50",
            "framework": "pytorch",
            "execution_format": "onnx",
            "path": str(directory),
            "description": "Image classification with residual connections",
            "manifest_path": str(directory / "manifest.yaml"),
        }
        assert Path(model["path"], "model.onnx").read_bytes() == b"onnx"
        assert "apiVersion: v1" in Path(model["manifest_path"]).read_text()
        assert done.stdout == f"vision/resnet50@1.0.0 is registered with MLOS Core: {directory}\n"
        told = run_axonfs("register", "vision/resnet50", "--cache", mount.cache, "--json")
        assert json.loads(told.stdout) == core.posted[-1][2]
        assert json.loads(told.stdout)["model_id"] == "vision/resnet50@1.2.0"
        assert (mount.path / "vision/resnet50/latest").readlink() == Path("1.2.0")
        assert sorted(item.name for item in (mount.path / "vision/resnet50").iterdir()) == [
            "1.0.0",
            "1.2.0",
            "latest",
        ]
