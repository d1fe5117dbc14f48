"""Whose fault it is when an answer through a site cache is not what was asked for.

A cache that fails is set aside. A fault that is about one object alone, such as 404, has only that
object asked elsewhere; so have 502 and 504, which say that the source does not answer the cache:
it may still have what others ask for. What a cache passes on from its source, a refusal of access
or a limit of requests, counts as the source's. Any thread.
"""

from __future__ import annotations

import logging

from axonfs.errors import (
    AccessDeniedError,
    AxonError,
    CorruptError,
    DeadlineError,
    EtagError,
    NoSpaceError,
    ShortageError,
    VanishedError,
)
from axonfs.http_client.caches import Cache

log = logging.getLogger(__name__)

# After so many caches that do not have the bytes no other one is asked.
ENOUGH = 3
_TOO_MANY = 429
_GATEWAY = frozenset({502, 504})


def of_cache(exc: AxonError) -> bool:
    """Whether the cache is to blame, rather than its source or this process."""
    passed_on = isinstance(exc, AccessDeniedError) or exc.status == _TOO_MANY
    return not (passed_on or isinstance(exc, ShortageError | NoSpaceError))


def of_object(exc: AxonError) -> bool:
    """Whether a fault of a cache says nothing of other objects."""
    return isinstance(exc, VanishedError | EtagError) or exc.status in _GATEWAY


def silent(exc: BaseException | None) -> bool:
    """Whether the fault is that nothing came, or was raised from that."""
    while exc is not None and not isinstance(exc, DeadlineError | TimeoutError):
        exc = exc.__cause__  # each copy that names a place has one more cause
    return exc is not None


def set_aside(cache: Cache, exc: AxonError) -> None:
    """Have a cache asked no more until it is back."""
    level = logging.WARNING if isinstance(exc, CorruptError) else logging.INFO
    if level == logging.WARNING or not cache.set_aside:
        log.log(level, "site cache %s is set aside: %s", cache.name, exc)
    cache.failed(exc)
