"""Tracks which sources answer, and what is uncertain while one does not.

Sits below tree. That a model does not exist is certain only if every source that could have it
answered; while one of them does not, its fault is raised instead. Trio thread only.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, TypeVar

from axonfs.errors import (
    ADD_REGISTRY,
    AccessDeniedError,
    AxonError,
    DeadlineError,
    MalformedError,
    NoRegistryError,
    NotFoundError,
    OfflineError,
    ShortageError,
    UnavailableError,
    VanishedError,
)
from axonfs.formats.listing import Listing
from axonfs.names import OCI, hub_of
from axonfs.sources import Hub, Source

log = logging.getLogger(__name__)

# Errors that mean that the source does not answer.
OUTAGE = (UnavailableError, DeadlineError)
# Errors about one document, from a source that does answer.
ANSWERS = (NotFoundError, AccessDeniedError, MalformedError, VanishedError)

T = TypeVar("T")


@dataclass(slots=True)
class SourceState:
    """The state of a source; times in unix seconds, 0 for never.

    `failure` is why it does not answer, `unlisted` why its index is not known, `since` when that
    began or ended, and `answered` the time of its last answer.
    """

    failure: AxonError | None = None
    unlisted: AxonError | None = None
    since: float = 0.0
    answered: float = 0.0
    indexed: bool = True
    listing: bool = False  # the request for its index is in flight

    @property
    def fault(self) -> AxonError | None:
        """Why the content of the source is not known; None if it is known."""
        return self.failure or self.unlisted

    def report(self, denial: AxonError | None) -> dict[str, Any]:
        """The state for `status`: `state` is "not asked", "ok" or "failing"."""
        asked, fault = "ok" if self.answered else "not asked", self.fault or denial
        return {
            "state": "failing" if fault else asked,
            "error": str(fault) if fault else None,
            "since": self.since,
            "answered": self.answered,
            "indexed": self.indexed,
        }


class Outages:
    """The states of registries and hubs, and the error for a name that is not found.

    Args:
        recovered: called when a source answers again.
    """

    def __init__(
        self,
        registries: Sequence[Source],
        hubs: Mapping[str, Hub],
        recovered: Callable[[], None],
        *,
        offline: bool,
    ) -> None:
        self._registries = registries
        self._hubs = hubs
        self._offline = offline
        # Keyed by the source itself: a registry and a hub may have the same URL.
        self._states = {source: SourceState() for source in (*registries, *hubs.values())}
        self._recovered = recovered

    def of(self, source: Source) -> SourceState:
        """The state of one source."""
        return self._states[source]

    @property
    def indexed(self) -> bool:
        """Whether every registry has an index, so that an unlisted name does not exist."""
        return all(self.of(source).indexed for source in self._registries)

    def report(self) -> dict[str, list[dict[str, Any]]]:
        """The states for `status`."""
        return {
            "registries": [
                {"url": source.url, **self._report_of(source)}
                for source in (*self._registries, *self._oci().values())
            ],
            "hubs": [
                {"name": name, "url": hub.url, **self._report_of(hub)}
                for name, hub in self._hubs.items()
                if name not in self._oci()
            ],
        }

    def _oci(self) -> dict[str, Hub]:
        """Those hubs that are OCI registries, which users configure like other registries."""
        return {name: hub for name, hub in self._hubs.items() if hub.namespace == OCI}

    def _report_of(self, source: Source) -> dict[str, Any]:
        return self.of(source).report(source.denial)

    @property
    def errors(self) -> list[str]:
        """The faults of the registries, as messages."""
        return [str(fault) for fault in self._faults()]

    async def ask(self, source: Source, call: Callable[..., Awaitable[T]]) -> T:
        """The result of `call`, a request to `source`; offline, its last stored answer.

        Raises:
            AxonError: what the call raises.
        """
        return await (call(offline=True) if self._offline else self.send(source, call))

    async def ask_or_kept(
        self, source: Source, call: Callable[..., Awaitable[T | None]]
    ) -> T | None:
        """The result of `call`; while `source` does not answer, its last stored answer."""
        try:
            return await self.ask(source, call)
        except OUTAGE:
            earlier = await kept(call(offline=True))
            if earlier is None:
                raise
            return earlier

    async def kept_listings(self) -> list[Listing]:
        """The stored listings of the registries, in their order; sends nothing."""
        found = [await kept(source.listings(offline=True)) for source in self._registries]
        return [item for listings in found for item in listings or ()]

    async def send(self, source: Source, call: Callable[[], Awaitable[T]]) -> T:
        """The result of `call`, which sends requests; records whether `source` answered.

        Raises:
            AxonError: as `ask`.
        """
        try:
            value = await call()
        except OUTAGE as exc:
            if not isinstance(exc, ShortageError):  # the machine's fault, not the source's
                self._note(source, exc)
            raise
        except ANSWERS:
            self._note(source, None)
            raise
        self._note(source, None)
        return value

    @contextmanager
    def listing(self, source: Source) -> Iterator[None]:
        """Count the index of `source` as pending while the block runs."""
        state = self.of(source)
        state.listing = True
        try:
            yield
        finally:
            state.listing = False

    def listed(self, source: Source, *, indexed: bool) -> None:
        """Record that `source` has said what it lists, and whether it has an index."""
        self.of(source).indexed = indexed
        self._note_index(source, None)

    def not_listed(self, source: Source, error: AxonError) -> None:
        """Record why the index of `source` is not known."""
        if not isinstance(error, ShortageError):
            self._note_index(source, error)

    def _note_index(self, source: Source, error: AxonError | None) -> None:
        state = self.of(source)
        before, state.unlisted = state.fault, error
        _log_change(source, state, before)

    def _note(self, source: Source, failure: AxonError | None) -> None:
        state = self.of(source)
        before, state.failure = state.fault, failure
        if not failure:
            state.answered = time.time()
        _log_change(source, state, before)
        if before and not failure:
            self._recovered()

    def fault(self) -> AxonError | None:
        """The fault of the first registry that has one."""
        return next(self._faults(), None)

    def _faults(self) -> Iterator[AxonError]:
        for source in self._registries:
            if fault := self.of(source).fault or source.denial:
                yield fault

    def listing_pending(self) -> bool:
        """Whether the index of a registry is still being fetched."""
        return any(self.of(source).listing for source in self._registries)

    def doubt(self, model: str) -> AxonError | None:
        """Why a model that was not found may exist nevertheless; None if it does not exist."""
        hub = self._hubs.get(hub_of(model))
        if self._offline and (hub or self._registries):
            return OfflineError("not in the cache, and offline", spec=model)
        fault = self.of(hub).fault if hub else self.fault()
        return fault and fault.located(spec=model)

    def not_found(self, model: str) -> AxonError:
        """The error for a model without any known version."""
        return self.doubt(model) or self.no_registry(model) or self._no_model(model)

    def no_registry(self, model: str) -> AxonError | None:
        """The error if no source is configured that could have `model`, else None."""
        hub = hub_of(model)
        if hub in self._hubs:
            return None
        known = [name for name in self._hubs if name.startswith(f"{OCI}/")]
        if known and model.startswith(f"{OCI}/"):
            hint = f"there is {', '.join(known)}"
            return NotFoundError(f"no registry is {hub}", spec=model, hint=hint)
        if self._registries:
            return None
        hint = ADD_REGISTRY
        if "hf" in self._hubs and "/" in model:
            hint += f"; on the Hugging Face Hub it is hf/{model}"
        return NoRegistryError("no registry is configured", spec=model, hint=hint)

    def _no_model(self, model: str) -> AxonError:
        hint = "try axonfs search" if self.indexed else "try axonfs search, or name its @VERSION"
        return NotFoundError("no such model", spec=model, hint=hint)


async def kept(stored: Awaitable[T | None]) -> T | None:
    """A source's stored answer; None if it is malformed, so that other sources still work."""
    try:
        return await stored
    except AxonError:
        return None


def _log_change(source: Source, state: SourceState, before: AxonError | None) -> None:
    """Log a change of the state once."""
    if state.fault and before is None:
        log.warning("%s", state.fault)
        state.since = time.time()
    elif state.fault is None and before is not None:
        log.info("%s answers again", source.url)
        state.since = time.time()
