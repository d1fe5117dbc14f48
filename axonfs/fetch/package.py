"""Versions whose bytes are one tar.gz: a single pass over it fills the objects of all its files.

Beside transfer.py, which brings objects one by one; a job for a file of such a version joins the
pass that is under way, or starts one. A file is served once it is complete and has the sha256
that the manifest gives it. One without a sha256 waits for that of the package, or for the
package's end where that has none either.
That a package is needed is kept in the index: what a pass left of a file is judged by it, in the
next process too.

For the trio thread. A pass reads and unpacks in one worker thread, which reports files through
`run_sync_soon`.
"""

from __future__ import annotations

import logging
import time
from collections import deque
from collections.abc import Callable

import trio

from axonfs.catalog.flights import Flights
from axonfs.catalog.tree import Version
from axonfs.errors import AxonError, ChangedError, MalformedError, NoSpaceError, VanishedError
from axonfs.fetch.network import Network
from axonfs.fetch.package_body import PackageBody
from axonfs.fetch.unpacking import Unpacking, refuse
from axonfs.formats.document import Document
from axonfs.formats.manifest import FileEntry
from axonfs.http_client import Cache, SiteCaches, shown
from axonfs.steps import Cause, Step
from axonfs.store import Store

log = logging.getLogger(__name__)

# Seconds until a package that was refused is asked for again: `verify --repair` goes from file to
# file, and each would fetch the whole package.
REFUSED_TTL = 10.0
# How often a package that came in several answers and is wrong is fetched again: the answers may
# have been parts of different packages.
MAX_RESTARTS = 2


class Packages:
    """The packages that versions were found to need.

    Args:
        unpacked: called in the trio thread with each file whose object is complete and right.
    """

    def __init__(
        self,
        network: Network,
        store: Store,
        flights: Flights,
        unpacked: Callable[[FileEntry], object],
    ) -> None:
        self._network = network
        self._store = store
        self._flights = flights
        self._unpacked = unpacked
        self._needed: dict[str, bool] = {}
        self._refused: dict[tuple[str, str], tuple[float, AxonError]] = {}
        self._running: dict[trio.Event, frozenset[str]] = {}  # until when, which contents

    def needed(self, version: Version, entry: FileEntry) -> bool:
        """Whether the object of `entry` is known to be nowhere but in the package of `version`."""
        part = version.part(entry) if entry.chunks is None else None
        return part is not None and self._is_needed(_identity(part))

    def _is_needed(self, digest: str) -> bool:
        if digest not in self._needed:
            self._needed[digest] = self._store.document(_note(digest)) is not None
        return self._needed[digest]

    def need(self, version: Version, entry: FileEntry) -> bool:
        """Take it that `entry` is nowhere but in the package of `version`; False if it has none."""
        part = version.part(entry) if entry.chunks is None else None
        if part is not None:
            self._needed[_identity(part)] = True
        return part is not None

    async def unpack(self, version: Version, patience: float | None = None) -> None:
        """Return when every file of `version` that its package has was unpacked and checked.

        Args:
            version: has one package; `Version.part` makes it of a version with several.
            patience: seconds to wait, where that is less than the usual; asks once then.

        Raises:
            AxonError: the package cannot be had, or is not what the manifest says. Files that
                were checked by their own sha256 before that stay.
        """
        if version.manifest.package is None:
            raise VanishedError("its manifest gives neither a sha256 nor a package that has it")
        key = "package", _identity(version)
        await self._flights.join(key, lambda: self._unpack(version, patience))

    async def _unpack(self, version: Version, patience: float | None) -> None:
        key = _identity(version), version.base
        until, error = self._refused.get(key, (0.0, None))
        if error is not None and trio.current_time() < until:
            raise error.located()
        noted = Document(b"", None, time.time(), "")
        await trio.to_thread.run_sync(self._store.put_document, _note(key[0]), noted)
        try:
            await self._pass(version, patience)
        except AxonError as exc:
            if not exc.transient and not isinstance(exc, NoSpaceError):
                self._refused[key] = trio.current_time() + REFUSED_TTL, exc
            raise

    async def _pass(self, version: Version, patience: float | None) -> None:
        """One pass, after those over packages that hold a file of this one as well: one of them may
        be wrong, and would write into what the other has proven."""
        contents = frozenset(entry.digest for entry in version.manifest.files)
        while before := [end for end, theirs in self._running.items() if theirs & contents]:
            with Step(Cause.PACKAGE, "waiting for the pass over a package with the same files"):
                await before[0].wait()
        ended = trio.Event()
        self._running[ended] = contents
        try:
            await _Pass(self._network, self._store, self._unpacked, version, patience).run()
        finally:
            del self._running[ended]
            ended.set()


def _identity(version: Version) -> str:
    """What identifies the package of a version: its sha256, else its registry and the spec."""
    package = version.manifest.package
    if package and package.digest:
        return package.digest
    return f"{version.base} {version.spec}"


def _note(identity: str) -> str:
    """The key of the document that notes in the index that this package was needed."""
    return f"package:{identity}"


class _Pass:
    """One pass over a package: mirrors in turn, until one has it."""

    def __init__(
        self,
        network: Network,
        store: Store,
        unpacked: Callable[[FileEntry], object],
        version: Version,
        patience: float | None,
    ) -> None:
        assert version.manifest.package is not None
        assert version.source is not None  # a download keeps only versions that have one
        self._allowed = version.source.allows_unverified(version.base)
        self._network = network
        self._store = store
        self._file_unpacked = unpacked
        self._patience = patience
        self._version = version
        self._manifest = version.manifest
        self._package = version.manifest.package
        self._mirrors = deque(version.source.locate_package(version.base, self._package))
        self._site = network.site_of(version)
        self._avoided = frozenset[Cache]()  # caches that may have wrong bytes of it
        self._restarts = 0
        self._soon = trio.lowlevel.current_trio_token().run_sync_soon

    async def run(self) -> None:
        """Unpack it.

        Raises:
            AxonError: the last mirror's; transient if there was no progress until the deadline.
        """
        if not self._mirrors:
            raise VanishedError("its package has no URL that can be asked")
        while True:
            body = self._body()
            try:
                return await body.run(self._unpack)
            except AxonError as exc:
                if exc.transient or isinstance(exc, NoSpaceError):
                    raise
                if self._pieced(exc, body):
                    log.info("%s; taking it anew from one answer", exc)
                    continue
                self._mirrors.popleft()
                if not self._mirrors:
                    await self._refuse(exc)
                    raise
                log.warning("%s; trying the next mirror of the package", exc)

    def _body(self) -> PackageBody:
        return PackageBody(
            self._network,
            self._mirrors,
            self._package,
            self._patience,
            version=self._version,
            site=self._site,
            avoided=self._avoided,
        )

    def _pieced(self, exc: AxonError, body: PackageBody) -> bool:
        """Whether the package may be wrong because its bytes are of several answers, or of a site
        cache."""
        self._restarts += 1
        if not isinstance(exc, MalformedError) or self._restarts > MAX_RESTARTS:
            return False
        if body.caches and self._site:
            names = ", ".join(sorted(cache.name for cache in body.caches))
            log.warning("%s; it came through site caches: %s", exc, names)
            self._avoided |= body.caches
            if not self._site.fallback:
                self._avoided = self._all_but_one(self._site, body.caches)
        return body.answers > 1 or bool(body.caches)

    def _all_but_one(self, site: SiteCaches, asked: set[Cache]) -> frozenset[Cache]:
        """All caches but the one that is to send the whole package: not one of those that were
        asked, as long as there is another one."""
        order = site.order(self._package.digest or self._mirrors[0].url)
        well = [cache for cache in order if not cache.set_aside] or order
        fresh = [cache for cache in well if cache not in asked]
        return frozenset(site).difference((fresh or well)[:1])

    async def _refuse(self, exc: AxonError) -> None:
        if isinstance(exc, MalformedError):
            store, manifest = self._store, self._manifest
            await trio.to_thread.run_sync(refuse, manifest, store, f"{exc.what}, from {exc.source}")

    def _unpack(self, body: PackageBody) -> None:
        manifest, store, allowed = self._manifest, self._store, self._allowed
        try:
            Unpacking(manifest, store, body.readinto, self._unpacked, unverified=allowed).run()
        except (ChangedError, MalformedError) as exc:
            # The cause names the package and no file. A new error gives readers EIO for both.
            what = f"the package is not what the manifest declares: {exc.what}"
            source = exc.source or shown(self._mirrors[0].url)
            raise MalformedError(what, source=source) from exc

    def _unpacked(self, entry: FileEntry) -> None:
        self._soon(self._file_unpacked, entry)
