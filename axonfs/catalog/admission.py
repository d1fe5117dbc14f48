"""Which versions may be read: those that somebody signed whom `require_signature` names.

Sits below tree. A signature that was accepted is kept in the store, so the next worker and a host
without a network accept the version as well. Trio thread only; signatures are verified in threads.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from contextlib import suppress
from functools import partial

import trio

from axonfs.catalog.flights import Flights
from axonfs.catalog.outages import Outages
from axonfs.catalog.resolved import Version
from axonfs.errors import AxonError, DeadlineError, MalformedError
from axonfs.formats.document import Document
from axonfs.formats.layout import signatures_key
from axonfs.http_client.urls import target_of
from axonfs.settings.signers import SignatureRules, Signers
from axonfs.signatures import limit_of
from axonfs.signatures.verdict import Verdict, described, judge, refused
from axonfs.sources import Source
from axonfs.store import Store

# Verdicts that are kept in memory.
KEPT = 4096
# Seconds for which a Sigstore may not answer.
PATIENCE = 60.0
# Seconds for which a command waits for signatures that it only shows or keeps.
SOON = 5.0
THREADS = 2


class Admission:
    """Admits versions by their signatures.

    Args:
        registries: whose URLs the rules may name.
    """

    def __init__(
        self,
        rules: SignatureRules,
        registries: Sequence[Source],
        store: Store,
        flights: Flights,
        outages: Outages,
        *,
        offline: bool,
    ) -> None:
        self._rules = rules.spelled(lambda url: str(target_of(url, signed=True)))
        self._registries = [source.url for source in registries]
        self._store = store
        self._flights = flights
        self._outages = outages
        self._offline = offline
        self._verdicts: dict[object, Verdict] = {}
        self._threads = trio.CapacityLimiter(THREADS)

    def required(self, version: Version) -> list[Signers]:
        """The groups of signers; one of each has to have signed the version."""
        return self._rules.required(version.spec, version.base, self._registries)

    async def admit(self, version: Version) -> None:
        """Return if the version may be read.

        Raises:
            UntrustedError: nobody whom the rules name has signed it.
            AxonError: its source does not answer whether somebody has.
        """
        if not self._rules or not (groups := self.required(version)):
            return
        key = (version.spec, version.manifest.digest, version.base)
        verdict = self._verdicts.get(key)
        if verdict is None or not verdict.holds:
            verdict = await self._flights.join(
                ("signatures", *key), partial(self._judged, version, groups)
            )
            self._keep(key, verdict)
        if verdict.refusal:
            raise verdict.refusal.located(spec=str(version.spec), source=version.base)

    async def refusal(self, version: Version) -> AxonError | None:
        """Why the version may not be read; None if it may."""
        try:
            await self.admit(version)
        except AxonError as exc:
            return exc
        return None

    async def describe(self, version: Version) -> list[dict[str, object]]:
        """The signatures of a version, for people; see `described`."""
        body = await self._fetched_soon(version) or await self._kept(version)
        groups = self.required(version)
        work = partial(described, body, version.manifest, groups, offline=self._offline)
        with trio.move_on_after(PATIENCE):
            return await trio.to_thread.run_sync(
                work, abandon_on_cancel=True, limiter=self._threads
            )
        return []

    async def keep(self, version: Version) -> None:
        """Have the store keep the signatures of a version, for a time without its source.

        They are not verified: a rule may come later.
        """
        if await self._kept(version) is None and (body := await self._fetched_soon(version)):
            await self._store_signatures(version, body)

    def _keep(self, key: object, verdict: Verdict) -> None:
        self._verdicts.pop(key, None)
        self._verdicts[key] = verdict
        if len(self._verdicts) > KEPT:
            del self._verdicts[next(iter(self._verdicts))]

    async def _judged(self, version: Version, groups: list[Signers]) -> Verdict:
        kept = await self._kept(version)
        verdict = await self._verdict(version, groups, kept)
        if verdict.refusal is None:
            return verdict
        try:
            body = await self._fetched(version)
        except MalformedError as exc:
            return refused(f"it has to be signed, and its signatures are refused: {exc.what}", exc)
        except AxonError:
            if kept is None:
                raise
            return verdict
        if body is None or body == kept:
            return verdict
        verdict = await self._verdict(version, groups, body)
        if verdict.refusal is None:
            await self._store_signatures(version, body)
        return verdict

    async def _verdict(
        self, version: Version, groups: list[Signers], body: bytes | None
    ) -> Verdict:
        if body is None and self._offline:
            return refused("it has to be signed, and the cache has no signature of it")
        work = partial(judge, body, version.manifest, groups, offline=self._offline)
        with trio.move_on_after(PATIENCE):
            return await trio.to_thread.run_sync(
                work, abandon_on_cancel=True, limiter=self._threads
            )
        raise DeadlineError(f"its signature could not be verified within {PATIENCE:g} s")

    async def _fetched(self, version: Version) -> bytes | None:
        """The signatures that the source has; None if it has none, or is not asked."""
        source = version.source
        if source is None or self._offline:
            return None
        limit = limit_of(version.manifest)
        ask = partial(source.signatures, version.base, version.spec, limit)
        return await self._outages.send(source, ask)

    async def _fetched_soon(self, version: Version) -> bytes | None:
        """As `_fetched`, where nothing depends on it: None if the source does not answer soon."""
        with trio.move_on_after(SOON), suppress(AxonError):
            return await self._fetched(version)
        return None

    async def _kept(self, version: Version) -> bytes | None:
        found = await trio.to_thread.run_sync(self._store.document, _name(version))
        return found.body if found else None

    async def _store_signatures(self, version: Version, body: bytes) -> None:
        name = _name(version)
        kept = Document(body, None, time.time(), name)
        await trio.to_thread.run_sync(self._store.put_document, name, kept)


def _name(version: Version) -> str:
    """What the store keeps the signatures of a version as: their URL in the registry."""
    return version.base.rstrip("/") + "/" + signatures_key(version.spec)
