"""Sizes, counts and times as people and documents write them.

Pure.
"""

from __future__ import annotations

import re
from contextlib import suppress
from datetime import UTC, datetime

# Below it, connections that are held back stand still for so long that servers close them.
LEAST_BANDWIDTH = 64 << 10
LAST_SECOND = 253402300799  # of years with four digits

_AGES = {"s": 1, "m": 60, "h": 3600, "d": 86400, "w": 604800}
_AGE = re.compile(r"(\d{1,6}(?:\.\d{1,6})?)\s*([smhdw])", re.IGNORECASE | re.ASCII)
_SIZE = re.compile(r"(\d+(?:\.\d+)?)\s*([KMGTP]?)(i?B?)", re.IGNORECASE | re.ASCII)


def parse_size(value: object) -> int | None:
    """Parse a size in bytes: `200G`, `512MiB`, `1.5TB` or a number; None for `auto` and None.

    As in GNU tools, `G` and `GiB` are powers of 1024 and `GB` of 1000.

    Raises:
        ValueError: it is not a size; the message completes a sentence that begins with the value.
    """
    if value is None or (isinstance(value, str) and value.strip().lower() == "auto"):
        return None
    match = _SIZE.fullmatch("" if isinstance(value, bool) else str(value).strip())
    if match is None:
        raise ValueError("is not a size; write it like 200G, 512MiB or auto")
    number, unit, suffix = match.groups()
    base = 1000 if unit and suffix.lower() == "b" else 1024
    count = int(float(number) * base ** " KMGTP".index(unit.upper() or " "))
    if not 0 < count < 1 << 62:
        raise ValueError("is not a size that a cache can have")
    return count


def exact_size(count: int) -> str:
    """A size as `parse_size` reads it: `200G`, or a number that no unit divides."""
    units = [unit for unit in "PTGMK" if count and count % (1 << 10 * (" KMGTP".index(unit))) == 0]
    return f"{count >> 10 * ' KMGTP'.index(units[0])}{units[0]}" if units else str(count)


def parse_age(value: object) -> float:
    """Parse a duration in seconds: `30d`, `12h`, `2w`, `90s`.

    Raises:
        ValueError: as `parse_size`.
    """
    match = _AGE.fullmatch("" if isinstance(value, bool) else str(value).strip())
    if match is None:
        raise ValueError("is not a duration; write it like 30d, 12h or 45m")
    return float(match[1]) * _AGES[match[2].lower()]


def age(seconds: float) -> str:
    """A duration as `parse_age` reads it, in the largest unit that divides it."""
    unit = next(
        unit for unit, each in reversed(_AGES.items()) if seconds % each == 0 or unit == "s"
    )
    return f"{seconds / _AGES[unit]:g}{unit}"


def parse_rate(value: object) -> int:
    """Parse a rate in bytes per second, such as `32M`; `off` is 0.

    Raises:
        ValueError: as `parse_size`.
    """
    if value is False or str(value).strip().lower() in ("0", "off"):  # YAML reads off as false
        return 0
    with suppress(ValueError):
        rate = parse_size(value)
        if rate is not None and rate >= 1024:
            return rate
    raise ValueError("is not a rate; write off, or bytes per second like 32M")


def parse_bandwidth(value: object) -> int:
    """Parse a limit on bytes per second: a rate of at least LEAST_BANDWIDTH, or `off`.

    Raises:
        ValueError: as `parse_size`.
    """
    rate = parse_rate(value)
    if 0 < rate < LEAST_BANDWIDTH:
        what = f"is less than {LEAST_BANDWIDTH >> 10}K bytes per second, the lowest limit"
        raise ValueError(f"{what}; off is no limit")
    return rate


def size(count: float) -> str:
    """Format bytes for people: `0 B`, `999 B`, `1.5 MiB`, `13 GiB`."""
    for unit in ("B", "KiB", "MiB", "GiB", "TiB"):
        if count < 1000 or unit == "TiB":
            break
        count /= 1024
    return f"{count:.0f} {unit}" if unit == "B" or count >= 9.95 else f"{count:.1f} {unit}"


def counted(count: int, noun: str) -> str:
    """`1 file`, `2 files`."""
    return f"{count} {noun}" if count == 1 else f"{count} {noun}s"


def share(part: int, whole: int) -> str:
    """Format a percentage: `37 %`. It is `100 %` only if `part` is all of `whole`."""
    if part >= whole:
        return "100 %"
    return f"{min(part * 100 // whole, 99)} %"


def part_of(part: int, whole: int) -> str:
    """Like `share`, for incomplete versions: never `100 %`, even if all bytes are local."""
    return share(min(part, whole - 1), whole) if whole else "0 %"


def duration(seconds: float) -> str:
    """Format a duration for people: `7 s`, `3 min`, `2 h 5 min`, `4 d`; at least `1 s`."""
    whole = max(round(seconds), 1)
    if whole < 120:
        return f"{whole} s"
    minutes = round(whole / 60)
    if minutes < 120:
        return f"{minutes} min"
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes} min" if hours < 48 else f"{hours // 24} d"


def unix_time(node: object) -> float:
    """RFC 3339 to unix seconds, which may be written again; 0.0 for anything else.

    Go's zero time, year 1, counts as unknown as well. A time without a zone is taken for UTC, so
    that it is the same on every machine.
    """
    try:
        moment = datetime.fromisoformat(node) if isinstance(node, str) else None
    except ValueError:
        moment = None
    if moment is None:
        return 0.0
    zoned = moment if moment.tzinfo else moment.replace(tzinfo=UTC)
    return min(max(zoned.timestamp(), 0.0), LAST_SECOND)
