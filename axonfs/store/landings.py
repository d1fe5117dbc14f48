"""Records chunks that were written, or read and found valid; such changes share commits.

Above presence, below objects. Threading: any thread.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import groupby

from axonfs.ranges import Range
from axonfs.store.index import Change, Table, Transaction
from axonfs.store.presence import Presence
from axonfs.store.records import GROUP


def land(presence: Presence, chunk: int, values: Sequence[int], epoch: int) -> bool:
    """Record chunks from `chunk` on with these sums, written in `epoch`; False if it ended."""
    landing = _Landing(presence, chunk, values, epoch)
    presence.commit(landing)
    return landing.kept


def confirm(presence: Presence, chunk: int, value: int) -> bool:
    """Record that the chunk was read and is valid, in memory only if the index cannot be written.

    False if it is no longer local.
    """
    confirmation = _Confirmation(presence, chunk, value)
    presence.commit(confirmation, confirmation.confirm)
    return confirmation.kept


class _Landing(Change):
    """Chunks whose bytes are in the file and valid."""

    __slots__ = ("_epoch", "_gained", "_presence", "_values", "kept")

    def __init__(self, presence: Presence, chunk: int, values: Sequence[int], epoch: int) -> None:
        super().__init__()
        self._presence = presence
        self._values = dict(enumerate(values, chunk))
        self._epoch = epoch
        self._gained = 0
        self.kept = False

    def apply(self, transaction: Transaction) -> None:
        presence = self._presence
        if self._epoch != presence.epoch:
            return
        self._gained = 0
        for number, chunks in groupby(self._values, lambda chunk: chunk // GROUP):
            key, group = presence.group_in(transaction, number)
            for chunk in chunks:
                if not group.present(chunk % GROUP):
                    self._gained += presence.bounds(chunk).size
                group.settle(chunk % GROUP, self._values[chunk])
            transaction.put(Table.GROUPS, key, group.raw)
        presence.write_record(transaction, self._gained)
        self.kept = True

    def settle(self) -> None:
        if self.kept:
            presence = self._presence
            for chunk in self._values:
                presence.present.set(chunk)
                presence.adopted.clear(chunk)
            # Set `usable` last: a reader that sees the last chunk also sees the object complete.
            presence.gain(self._gained)
            for chunk in self._values:
                presence.usable.set(chunk)
            presence.watcher.landed(Range(min(self._values), max(self._values) + 1))


class _Confirmation(Change):
    """A local chunk that was read and is valid."""

    __slots__ = ("_chunk", "_presence", "_value", "kept")

    def __init__(self, presence: Presence, chunk: int, value: int) -> None:
        super().__init__()
        self._presence = presence
        self._chunk = chunk
        self._value = value
        self.kept = False

    def apply(self, transaction: Transaction) -> None:
        number, slot = divmod(self._chunk, GROUP)
        key, group = self._presence.group_in(transaction, number)
        if group.present(slot):
            group.settle(slot, self._value)
            transaction.put(Table.GROUPS, key, group.raw)
            self.kept = True

    def confirm(self) -> None:
        """Record it in memory only; under the writer lock."""
        self.kept = self._presence.present.test(self._chunk)
        self.settle()

    def settle(self) -> None:
        if self.kept:
            self._presence.adopted.clear(self._chunk)
            self._presence.usable.set(self._chunk)
            self._presence.watcher.landed(Range(self._chunk, self._chunk + 1))
