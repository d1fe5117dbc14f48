"""httpx without its command line, which imports rich and pygments wherever those are installed.

They would cost each start of a mount a fifth of its time, and 5 MB for as long as it runs.
"""

from __future__ import annotations

import sys

_COMMAND_LINE = "httpx._main"
_absent = _COMMAND_LINE not in sys.modules
if _absent:
    sys.modules[_COMMAND_LINE] = None  # type: ignore[assignment]  # how Python bars an import
import httpx  # noqa: E402

if _absent:
    del sys.modules[_COMMAND_LINE]

__all__ = ["httpx"]
