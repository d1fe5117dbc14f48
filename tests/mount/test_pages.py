"""The pages of docs/ that show a terminal, from an empty home directory."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.mount.conftest import run_axonfs
from tests.support.axon import AxonRegistry
from tests.support.core import Core
from tests.support.transcript import Step, Terminal, steps

pytestmark = pytest.mark.mount
DOCS = Path(__file__).resolve().parents[2] / "docs"
PAGES = ("axon.md", "versions.md")
WEIGHTS = bytes(range(256)) * (25 << 12)


@pytest.fixture
def registry(tmp_path: Path) -> Iterator[AxonRegistry]:
    """What the pages call http://models.example.org."""
    made = AxonRegistry(tmp_path / "axon")
    config, labels = b'{"layers": 50}\n', b"cat\ndog\n"
    files = {"model.onnx": WEIGHTS, "config.json": config}
    made.add("vision/resnet50@1.0.0", files)
    made.add("vision/resnet50@1.1.0", {**files, "labels.txt": labels})
    made.add("vision/resnet50@2.0.0-rc.1", {**files, "model.onnx": WEIGHTS[::-1]})
    made.add(
        "nlp/deepset/roberta-base-squad2@1.10",
        {"model.onnx": WEIGHTS[: 3 << 20]},
        description="Extractive question answering",
    )
    with made:
        yield made


@pytest.fixture
def terminal(registry: AxonRegistry, tmp_path: Path) -> Iterator[Terminal]:
    home = tmp_path / "home"
    home.mkdir()
    with Core() as core:
        environment = {
            "HOME": str(home),
            "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
            "LC_ALL": "C.UTF-8",
            "TZ": "UTC",
            "AXONFS_CACHE_DIR": str(home / ".cache/axonfs"),
            "MLOS_CORE_ENDPOINT": core.url,
        }
        names = {
            "http://models.example.org": registry.url,
            "http://localhost:8080": core.url,
            "/home/you": str(home),
        }
        yield Terminal(home, environment, names)
    if os.path.ismount(home / "models"):
        run_axonfs("umount", home / "models", "--force", check=False)


@pytest.mark.parametrize("name", PAGES)
def test_a_page_says_what_its_commands_say(name: str, terminal: Terminal) -> None:
    """Every command of the page, in order, in one home directory."""
    shown = list(steps((DOCS / name).read_text(encoding="utf-8")))
    assert len(shown) > 5
    for step in shown:
        code, printed = terminal.run(step)
        assert step.matches(printed), f"$ {step.command}\n{printed}"
        assert (code != 0) == step.fails, f"$ {step.command}\n{printed}"


def test_a_page_that_lags_is_noticed() -> None:
    """The comparison itself: `…`, blanks, and nothing else is let through."""
    (step,) = steps("```console\n$ ls\na  b …\n…\nend\n```\n")
    assert step == Step("ls", "a  b …\n…\nend\n")
    assert step.matches("a     b 1 2\nx\ny\nend\n")
    assert step.matches("a  b 1\nend\n")
    for printed in ("a b 1\nend\n", "a  b 1\n", "a  b 1\nend\nmore\n", "x\na  b 1\nend\n"):
        assert not step.matches(printed)
