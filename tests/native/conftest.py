"""Only the long profile tries the tests themselves, with faults put into the core."""

from __future__ import annotations

from tests.support.profile import LONG

collect_ignore = [] if LONG else ["test_mutants.py"]
