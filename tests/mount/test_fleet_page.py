"""docs/fleet.md: its hosts are network namespaces, which the page's ssh and scp reach."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest

from tests.support.hosts import hosts
from tests.support.transcript import Step, Terminal, steps

pytestmark = pytest.mark.mount
ROOT = Path(__file__).resolve().parents[2]
HOSTS = ("registry", "gpu-1", "gpu-2", "gpu-3")


@pytest.mark.skipif(os.geteuid() != 0, reason="network namespaces need root")
def test_the_page_of_a_fleet(tmp_path: Path) -> None:
    """Every command of the page, in order, on the machine that the engineer sits at."""
    home = tmp_path / "home"
    home.mkdir()
    (home / "axonfs").symlink_to(ROOT)
    with hosts(tmp_path / "site", HOSTS) as commands:
        own = {
            "HOME": str(home),
            "PATH": f"{commands}:{Path(sys.executable).parent}:{os.environ['PATH']}:/usr/sbin",
            "LC_ALL": "C.UTF-8",
            "TZ": "UTC",
            "AXONFS_CACHE_SIZE": os.environ["AXONFS_CACHE_SIZE"],
        }
        terminal = Terminal(home, own, {})
        shown = list(steps((ROOT / "docs/fleet.md").read_text(encoding="utf-8")))
        assert len(shown) > 10
        for step in shown:
            assert isinstance(step, Step)
            code, printed = terminal.run(step)
            assert step.matches(printed), f"$ {step.command}\n{printed}"
            assert (code != 0) == step.fails, f"$ {step.command}\n{printed}"
