"""How `status` and `doctor` say what the C extensions do, and why Python does it without them.

Pure.
"""

from __future__ import annotations

from collections.abc import Mapping

NATIVE, RECORDS = "_native", "_records"
_WORK = {NATIVE: "reads", RECORDS: "TLS"}


def by_whom(why_not: Mapping[str, str | None]) -> str:
    """As `reads by _native; TLS by Python: the extension is not built (…)`.

    Args:
        why_not: by extension, why it is not used; None if it is.
    """
    return "; ".join(
        f"{work} by Python: {why}" if (why := why_not[name]) else f"{work} by {name}"
        for name, work in _WORK.items()
        if name in why_not
    )


def why_not_of(state: Mapping[str, Mapping[str, str | None]] | None) -> dict[str, str | None]:
    """The argument of `by_whom` from the `extensions` in the state of a mount."""
    return {name: found.get("why_not") for name, found in (state or {}).items()}
