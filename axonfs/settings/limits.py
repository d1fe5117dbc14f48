"""The settings that limit the cache: what it may take as a whole, by namespace, and for how long.

    cache_size    200G           what all objects may take together
    keep_free     50G or 10%     what stays free of the cache's disk
    cache_quotas  nlp: 100G      what the objects of a namespace may take together
                  hf/*: 50%      the same as a part of what the cache may take
    cache_ttl     30d            for how long an object stays that nothing uses

Beside parsers.py, whose rule for messages applies. Pure.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from fnmatch import fnmatchcase

from axonfs.settings.parsers import InvalidItemError
from axonfs.units import exact_size, parse_age, parse_size

# Of the disk, where neither cache_size nor keep_free says what the cache may take.
DEFAULT_FREE = 10
LEAST_TTL = 60.0
_PERCENT = re.compile(r"(\d{1,3}(?:\.\d{1,6})?)\s*%", re.ASCII)
_SEGMENT = re.compile(r"[\w.+%*?\[\]!-]{1,255}", re.ASCII)


@dataclass(frozen=True, slots=True)
class Amount:
    """Bytes, or a percentage of something."""

    size: int = 0
    percent: float = 0.0

    def of(self, whole: int) -> int:
        """How many bytes that is, of `whole`."""
        return int(whole * self.percent / 100) if self.percent else self.size

    def __str__(self) -> str:
        return f"{self.percent:g}%" if self.percent else exact_size(self.size)


@dataclass(frozen=True, slots=True)
class CacheLimits:
    """All of these settings; None and 0 are no limit. `quotas` are by scope: see `in_scope`."""

    size: int | None = None
    keep_free: Amount | None = None
    ttl: float = 0.0
    quotas: Mapping[str, Amount] = field(default_factory=dict)

    @property
    def free(self) -> Amount | None:
        """What stays free of the disk."""
        if self.keep_free is None and self.size is None:
            return Amount(percent=DEFAULT_FREE)
        return self.keep_free


def parse_amount(value: object) -> Amount:
    """A size in bytes, or a percentage of up to 100."""
    text = "" if isinstance(value, bool) else str(value).strip()
    if match := _PERCENT.fullmatch(text):
        if 0 < float(match[1]) <= 100:
            return Amount(percent=float(match[1]))
    elif text.lower() != "auto":
        try:
            if (size := parse_size(value)) is not None:
                return Amount(size)
        except ValueError:
            pass
    raise ValueError("is neither a size like 50G nor a percentage like 10%")


def parse_keep_free(value: object) -> Amount | None:
    """What stays free of the disk; `off` is nothing, and None leaves it to `cache_size`."""
    if value is None or str(value).strip().lower() == "auto":
        return None
    if value is False or str(value).strip().lower() in ("0", "off"):  # YAML reads off as false
        return Amount()
    return parse_amount(value)


def parse_ttl(value: object) -> float:
    """Seconds; 0 for `off`."""
    if value is False or str(value).strip().lower() in ("0", "off"):
        return 0.0
    age = parse_age(value)
    if age < LEAST_TTL:
        raise ValueError("is less than a minute; off is for ever")
    return age


def parse_quotas(value: object) -> Mapping[str, Amount]:
    """`{scope: amount}`, or words `SCOPE=AMOUNT`."""
    if value is None or value in ("none", ["none"], ("none",)):
        return {}
    if isinstance(value, Mapping):
        return dict(_quota(scope, amount) for scope, amount in value.items())
    words = value.split() if isinstance(value, str) else value
    if not isinstance(words, list | tuple):
        raise ValueError("is not a mapping of namespaces to sizes")
    return dict(_quota(*_split(word)) for word in words)


def _split(word: object) -> tuple[str, str]:
    scope, equals, amount = str(word).rpartition("=")
    if not equals:
        raise InvalidItemError(word, "is not NAMESPACE=SIZE, like nlp=100G or hf=50%")
    return scope, amount


def _quota(scope: object, amount: object) -> tuple[str, Amount]:
    text = str(scope).strip().rstrip("/")
    if not all(map(_SEGMENT.fullmatch, text.split("/"))):
        raise InvalidItemError(scope, "is not a namespace, like nlp or hf/*")
    try:
        return text, parse_amount(amount)
    except ValueError as exc:
        raise InvalidItemError(amount, str(exc)) from exc


def in_scope(scope: str, model: str) -> bool:
    """Whether a quota for `scope` counts `model`: each segment of the scope matches that of the
    model, so `nlp` and `nlp/*` are all models of nlp."""
    globs, segments = scope.split("/"), model.split("/")
    return len(globs) <= len(segments) and all(
        fnmatchcase(segment, glob) for glob, segment in zip(globs, segments, strict=False)
    )
