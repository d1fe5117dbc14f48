"""The event loop waits for no disk: what may block runs in threads, whatever is asked."""

from __future__ import annotations

import threading
import traceback
from collections.abc import AsyncIterator, Callable
from contextlib import aclosing, asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import trio

from axonfs.engine import Engine, open_engine
from axonfs.service import Service
from axonfs.settings.settings import Settings
from axonfs.store.index import Index
from axonfs.vfs import Vfs
from tests.support.registry import SPEC, RegistryServer, published

CHUNK = 1 << 16
SIZES = {"model.safetensors": 40 * CHUNK + 123, "part/two.safetensors": 9 * CHUNK, "a.txt": 5}
LARGE = 1 << 18  # bytes that take longer to read and compare than the event loop should wait


class Watched:
    """What the thread of the event loop did that may block: where it was done."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.found: list[str] = []
        self._patch = monkeypatch
        self._loop = threading.get_ident()

    def method(self, kind: type, name: str, bad: Callable[[Any], bool] = lambda _: True) -> None:
        """Note each call of a method in this thread whose result is `bad`."""
        real = getattr(kind, name)

        def watched(*args: Any, **options: Any) -> Any:
            result = real(*args, **options)
            if bad(result):
                self.note(name)
            return result

        self._patch.setattr(kind, name, watched)

    def note(self, what: str) -> None:
        if threading.get_ident() == self._loop:
            frames = [f for f in traceback.extract_stack() if "/axonfs/" in f.filename]
            where = " < ".join(f"{Path(f.filename).stem}:{f.lineno}" for f in reversed(frames))
            self.found.append(f"{what}: {where}")


class WatchedLock:
    """The ledger's lock, which is held while files are opened and objects dropped."""

    def __init__(self, watched: Watched) -> None:
        self._lock = threading.Lock()
        self._watched = watched

    def __enter__(self) -> None:
        self._watched.note("the ledger's lock")
        self._lock.acquire()

    def __exit__(self, *_: object) -> None:
        self._lock.release()


@pytest.fixture
def watched(monkeypatch: pytest.MonkeyPatch) -> Watched:
    found = Watched(monkeypatch)
    found.method(Index, "commit")
    found.method(Index, "write")
    found.method(Index, "sync")
    found.method(Index, "view")
    found.method(Index, "get", lambda value: value is not None and len(value) > LARGE)
    return found


@asynccontextmanager
async def engine(tmp_path: Path, watched: Watched) -> AsyncIterator[Engine]:
    registry = published(tmp_path, SIZES, chunk_size=CHUNK)
    published(tmp_path, SIZES, spec="nlp/tiny@1.1.0", seed=1, chunk_size=CHUNK)
    with RegistryServer(registry) as server:
        settings = Settings((server.url,), tmp_path / "cache", cache_size=1 << 30)
        async with open_engine(settings) as opened:
            opened.store._ledger.lock = WatchedLock(watched)  # type: ignore[assignment]
            watched.found.clear()  # nothing waits for an engine that is only starting
            yield opened


async def test_commands(tmp_path: Path, watched: Watched) -> None:
    asked: list[dict[str, Any]] = [
        {"op": "search", "query": "tiny"},
        {"op": "info", "spec": SPEC},
        {"op": "versions", "model": "nlp/tiny"},
        {"op": "pin", "specs": [SPEC]},
        {"op": "pin", "specs": [SPEC]},
        {"op": "pin_check"},
        {"op": "verify"},
        {"op": "list"},
        {"op": "update"},
        {"op": "cache_list"},
        {"op": "cache_stats"},
        {"op": "status"},
        {"op": "unpin", "specs": [SPEC], "drop": True},
        {"op": "cache_clean", "all": True},
    ]
    async with engine(tmp_path, watched) as opened:
        service = Service(opened)
        for request in asked:
            async with aclosing(service.handle(request)) as events:
                answers = [event async for event in events]
            assert answers[-1]["event"] == "result", (request, answers[-1])
        assert watched.found == []


async def test_readers(tmp_path: Path, watched: Watched) -> None:
    async with engine(tmp_path, watched) as opened:
        vfs = Vfs(opened.tree, opened.fetcher, dict, prefetcher=opened.prefetcher)

        async def at(*names: str) -> int:
            inode = 1
            for name in names:
                inode = (await vfs.lookup(inode, name)).inode
            return inode

        for version in ("1.0.0", "1.1.0"):
            await vfs.readdir(await at("nlp", "tiny", version), 0)
            for path in SIZES:
                inode = await at("nlp", "tiny", version, *path.split("/"))
                await vfs.getattr(inode)
                for _ in range(2):
                    handle = await vfs.open(inode)
                    vfs.files.opened(handle.number, inode, 0)
                    vfs.foresee(handle)
                    for offset in range(0, SIZES[path], 3 * CHUNK):
                        await vfs.files.read(handle.number, offset, CHUNK)
                    vfs.files.release(handle.number)
        await trio.sleep(0.1)
        opened.evictor.landed()
        assert watched.found == []
