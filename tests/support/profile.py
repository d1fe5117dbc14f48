"""How much the tests that hurt do, and where they write down what they did.

The short profile is that of every run; `tools/chaos` sets the environment for the long one. What
chance decides is drawn from `SEED`, so that a run can be had again.
"""

from __future__ import annotations

import json
import os
from pathlib import Path

LONG = os.environ.get("AXONFS_CHAOS") == "long"
SEED = int(os.environ.get("AXONFS_CHAOS_SEED", "1"))
_ROUNDS = os.environ.get("AXONFS_CHAOS_ROUNDS")
_FIGURES = os.environ.get("AXONFS_CHAOS_FIGURES")


def scaled(short: int, long: int) -> int:
    """So many in the profile of this run."""
    return long if LONG else short


def kills(share: float, short: int) -> int:
    """A share of the long profile's rounds of kills, 200 unless `--rounds` says otherwise."""
    return max(short, round(share * int(_ROUNDS or 200))) if LONG else short


def report(test: str, **figures: float) -> None:
    """Write figures of a test that has passed where `tools/chaos` collects them."""
    if _FIGURES:
        with Path(_FIGURES).open("a") as file:
            file.write(json.dumps({"test": test, **figures}) + "\n")
