"""Whom a job asks next: the site caches of its slice in their order, then the source itself.

Between {trials, package} and {hedges, runner}. A job is told here which version's source it asks,
and through which cache. Where a cache fails, the job goes on with the next one at once.

Trio thread only; only `one_is_back` has a checkpoint.
"""

from __future__ import annotations

import math
from contextlib import suppress

import trio

from axonfs.catalog.tree import Version
from axonfs.errors import AxonError, CorruptError, UnrangedError
from axonfs.fetch.download import Download, Job
from axonfs.fetch.lane import Lane
from axonfs.fetch.network import Network
from axonfs.fetch.package import Packages
from axonfs.fetch.trials import Had, Trials
from axonfs.http_client import Cache, Location, SiteCaches, blame, slice_chunks, slice_key
from axonfs.http_client.blame import ENOUGH
from axonfs.ranges import Range, aligned, split
from axonfs.steps import Cause, Step

# One ranged GET, without site caches. Larger spares round trips, smaller lets demand in sooner and
# spreads streams.
JOB_BYTES = 16 << 20


class Ways:
    """Knows whom each job asks.

    Args:
        trials: ask the caches that are set aside whether they are back.
    """

    def __init__(self, network: Network, packages: Packages, trials: Trials) -> None:
        self._network = network
        self._packages = packages
        self._trials = trials

    def choose(self, job: Job) -> None:
        """Decide whom the next attempt at a job asks."""
        job.version = self._version(job)
        job.site = job.cache = None
        site = self._network.site_of(job.version)
        if site is None or not self._asks(job):
            return
        with suppress(AxonError):  # nothing can be asked, and the attempt says so
            if site.covers(_located(job.download, job.version).url):
                job.site, job.cache = site, self._cache(job, job.version, site)

    def lane(self, job: Job) -> Lane:
        """Where a job waits: with the origin that it was told to ask first, if any."""
        assert job.version is not None  # it was chosen for
        if not self._asks(job):
            return self._network.lane(None)
        if job.cache:
            assert job.site is not None
            return self._network.cache_lane(job.site, job.cache)
        return self.lane_for(job.download, job.version)

    def lane_for(self, download: Download, version: Version) -> Lane:
        """The lane of the source of a version."""
        try:
            return self._network.lane_at(self.location(download, version))
        except AxonError:
            return self._network.lane(None)  # nothing can be asked there; the attempt says so

    def _version(self, job: Job) -> Version:
        """The version whose source is asked next: in turn, but rather one that does not stall."""
        versions = job.download.versions
        turn = job.attempts % len(versions)
        ordered = versions[turn:] + versions[:turn]
        well = (one for one in ordered if self.lane_for(job.download, one).willing)
        return ordered[0] if len(ordered) == 1 else next(well, ordered[0])

    def _asks(self, job: Job) -> bool:
        """Whether a job sends a request of its own."""
        assert job.version is not None
        return not (job.download.may_have_blob or self.packed(job, job.version))

    def packed(self, job: Job, version: Version) -> bool:
        """Whether the bytes of a job are nowhere but in a package."""
        entry = job.download.entry
        return entry.named or self._packages.needed(version, entry)

    def requests(self, download: Download, run: Range) -> list[Range]:
        """A run of chunks as requests bring it: by slices where something on the way may keep
        them, a site cache or a proxy."""
        versions, unit = download.versions, download.object.chunk_size
        if download.answers.one:
            return [run]
        if any(map(self._network.site_of, versions)) or self._proxied(download):
            return list(aligned(run, slice_chunks(unit)))
        speed = self.lane_for(download, versions[0]).speed if versions else 1
        return split(run, max(JOB_BYTES * speed // max(unit, 1), 1))

    def _proxied(self, download: Download) -> bool:
        with suppress(AxonError):  # nothing can be asked, and the attempt says so
            located = (_located(download, version) for version in download.versions)
            return any(map(self._network.bodies.proxied, located))
        return False

    def _cache(self, job: Job, version: Version, site: SiteCaches) -> Cache | None:
        """The first cache of the job's slice that did not fail; begins trials of those that did."""
        download = job.download
        if download.answers.one and site.fallback:
            return None  # which of the caches had wrong bytes is not known
        if job.vain >= ENOUGH:
            return None
        for cache in self._order(job, site):
            if cache in job.tried:
                continue
            if not cache.set_aside:
                return cache
            self._trials.begin(cache, download, job.next, _through(job, version, cache))
        return None

    def _order(self, job: Job, site: SiteCaches) -> list[Cache]:
        """The caches of a job's slice; those of the first one for what comes in one answer."""
        download, number = job.download, 0
        if not (download.answers.one or download.unranged):
            number = job.next // slice_chunks(download.object.chunk_size)
        order = site.order(slice_key(download.object.digest, number))
        turn = download.answers.restarts % max(len(order), 1)  # the others had wrong bytes
        return order[turn:] + order[:turn]

    def location(self, download: Download, version: Version, job: Job | None = None) -> Location:
        """What is asked for a version's bytes, in the way that was chosen for `job`.

        Raises:
            AxonError: nothing can be asked; the source says why, or no cache is left.
        """
        if job is not None and job.cache is not None:
            return _through(job, version, job.cache)
        location, site = _located(download, version), self._network.site_of(version)
        if site is None or site.fallback:
            proxied = self._network.bodies.proxied(location)
            return location.named(_sha256(download)) if proxied else location
        if not site.covers(location.url):
            raise site.elsewhere(location.url)
        passed = job.passed if job is not None else None
        none_failed = not any(cache.set_aside for cache in site)
        if job and passed and blame.of_object(passed) and (job.vain >= ENOUGH or none_failed):
            raise passed.located()  # others would say so, too
        said = {passed.source or site.source: passed.what} if passed else None
        raise site.none_left(location.url, said) from passed

    def waits_for_caches(self, job: Job) -> bool:
        """Whether a job found no cache, and may not ask the source."""
        never = job.site is not None and not job.site.fallback
        return never and job.cache is None and job.vain < ENOUGH

    async def one_is_back(self, job: Job, patience: float | None) -> bool:
        """Wait while caches are tried, for `patience` seconds; whether the job may ask one now."""
        assert job.site is not None
        text = f"waiting while the site caches of {job.site.source} are tried"
        with (
            trio.move_on_after(math.inf if patience is None else patience),
            Step(Cause.CACHES, text),
        ):
            return await self._trials.one_is_back(set(job.site) - job.tried)
        return False

    def pass_over(self, job: Job, exc: AxonError, *, hasty: bool) -> bool:
        """Have a job ask another cache, or the source, where the one that it asked is to blame for
        `exc`, which is then `job.passed`.

        One that waits for its source is asked twice: the next one would wait for it as well, and
        double what the source has to send.

        Args:
            hasty: whether the attempt had less patience than a cold cache may need.

        Returns:
            Whether the cache was set aside.
        """
        cache, site = job.cache, job.site
        if cache is None or site is None or not blame.of_cache(exc):
            return False
        job.passed, silent = exc, blame.silent(exc)
        if silent and self._trials.waits(cache) and cache not in job.waited:
            job.waited.add(cache)
            return False
        job.tried.add(cache)
        if isinstance(exc, UnrangedError) and not site.fallback:
            self._take_whole(job, site)
        elif blame.of_object(exc) or (hasty and silent):
            job.vain += 1
        else:
            blame.set_aside(cache, exc)
        if isinstance(exc, CorruptError) and job.version and job.remaining():
            through = _through(job, job.version, cache)
            self._trials.spoilt(cache, job.download, job.next, through)
        return cache.set_aside

    def _take_whole(self, job: Job, site: SiteCaches) -> None:
        """Take the whole object of a cache where no other is left: the source knows no ranges."""
        if all(cache in job.tried or cache.set_aside for cache in site):
            job.takes_whole = True
            job.begin_anew()

    def went_well(self, job: Job) -> None:
        """Note that an attempt ended well."""
        if job.cache is not None and job.version is not None:
            start = job.chunks.start * job.download.object.chunk_size
            had = Had(_through(job, job.version, job.cache), start, job.download.entry.size)
            self._trials.note(job.cache, had)
            if job.cache.set_aside:
                job.cache.answered()


def _located(download: Download, version: Version) -> Location:
    assert version.source is not None  # Download.enter keeps only versions that have one
    return version.source.locate(version.base, version.holding(download.entry))


def _through(job: Job, version: Version, cache: Cache) -> Location:
    download = job.download
    whole = job.takes_whole or download.unranged or download.answers.one
    return _located(download, version).through(cache, _sha256(download), ranged=not whole)


def _sha256(download: Download) -> str | None:
    return download.entry.proof.get("sha256")
