"""A prefetcher over real sources and a real store."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import trio
import trio.testing

from axonfs.ahead.prefetcher import Prefetcher
from axonfs.formats.manifest import Manifest
from axonfs.names import parse_spec
from axonfs.settings.limits import CacheLimits
from axonfs.upkeep.evictor import Evictor
from tests.support.faulty_origin import FaultyOrigin
from tests.support.fetching import Rig, rig, settled
from tests.support.registry import SPEC

ENOUGH = 1 << 30


@dataclass
class Foreseeing:
    """A prefetcher over a rig."""

    parts: Rig
    prefetcher: Prefetcher
    manifest: Manifest

    async def open(self, path: str = "config.json") -> None:
        """Open a file as a loader does."""
        self.prefetcher.opened(await self.parts.tree.version(parse_spec(SPEC)), path)
        await trio.testing.wait_all_tasks_blocked()  # by then it has been judged

    @property
    def load(self) -> dict[str, Any]:
        """What `status` says of the load; nothing before it began."""
        loads = self.prefetcher.statistics()["loads"]
        return dict(loads[0]) if loads else {}

    async def ended(self) -> str:
        """The state in which the load ended."""
        await settled(lambda: bool(self.load))
        await settled(lambda: not any(load.active for load in self.prefetcher._loads.values()))
        figures = self.parts.fetcher.statistics
        await settled(lambda: not (figures()["in_flight"] or figures()["queued"]))
        return str(self.load["state"])

    def local(self, path: str) -> int:
        """Local bytes of a file."""
        entry = self.manifest.file(path)
        assert entry is not None
        info = self.parts.store.peek(entry.digest)
        return info.present_bytes if info else 0

    def asked(self, origin: FaultyOrigin) -> list[str]:
        """The files that requests were about, in order, repeats left out."""
        paths = {entry.digest: entry.path for entry in self.manifest.files}
        digests = [seen.path.rpartition("/")[2] for seen in origin.requests]
        return list(dict.fromkeys(paths[digest] for digest in digests if digest in paths))


@asynccontextmanager
async def foreseeing(
    tmp_path: Path,
    origin: FaultyOrigin,
    *,
    mode: str = "auto",
    limit: int = ENOUGH,
    streams: int = 1,
    offline: bool = False,
) -> AsyncIterator[Foreseeing]:
    async with rig(tmp_path / "cache", origin.url, streams=streams, offline=offline) as parts:
        evictor = Evictor(parts.store, tmp_path / "cache", CacheLimits(limit))
        prefetcher = Prefetcher(parts.fetcher, evictor, parts.nursery, mode=mode, width=2)
        version = await parts.tree.version(parse_spec(SPEC))
        yield Foreseeing(parts, prefetcher, version.manifest)
