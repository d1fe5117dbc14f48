"""Command lines in this process, as a user types them, and requests to a service."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import aclosing
from dataclasses import dataclass
from typing import Any, TypeAlias

from axonfs.service import Service


@dataclass(frozen=True)
class Done:
    """What a command line did."""

    code: int
    out: str
    err: str


Run: TypeAlias = Callable[..., Done]


async def ask(answering: Service, op: str, **request: Any) -> dict[str, Any]:
    """The last event of a request."""
    return (await everything(answering, op, **request))[-1]


async def everything(answering: Service, op: str, **request: Any) -> list[dict[str, Any]]:
    """All events of a request."""
    async with aclosing(answering.handle({"op": op, **request})) as events:
        return [event async for event in events]
