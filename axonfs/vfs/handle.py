"""One open file of a mount, below files.py, which has all of them."""

from __future__ import annotations

from dataclasses import dataclass

from axonfs.errors import CorruptError
from axonfs.fetch import Feed
from axonfs.vfs.journal import KnownHandle
from axonfs.vfs.places import File, Text
from axonfs.vfs.streams import Log, Stream


@dataclass(slots=True)
class Handle:
    """An open file: the feed of its object, or what is generated for it.

    `frozen` means that the backing file is complete and stays so: the kernel may read it itself.
    `backing` is its descriptor until the open is answered.
    """

    number: int
    place: File | Text | Log
    feed: Feed | None
    text: bytes = b""
    stream: Stream | None = None
    resumed: bool = False  # its reader may have the beginning of another worker's `text`
    frozen: bool = False
    fresh: bool = False  # the kernel has to drop its cached pages of the file
    uncompared: int | None = None  # the feed's restarts when unverified bytes were read
    backing: int | None = None
    reads: int = 0  # those that were answered, and their bytes; not those of native threads
    bytes_read: int = 0

    @property
    def live(self) -> bool:
        """Whether each open has new content, which the kernel must not cache."""
        return self.stream is not None or (isinstance(self.place, Text) and self.place.live)

    @property
    def keeps_pages(self) -> bool:
        """Whether the kernel may keep its cached pages of the file."""
        return not (self.live or self.fresh)

    def read_text(self, offset: int, size: int) -> bytes:
        """Bytes of a generated file. What two workers made of a live one must not be joined, so a
        reader that had begun is told that it ends here."""
        self.resumed = self.resumed and offset > 0
        return b"" if self.resumed and self.live else self.text[offset : offset + size]

    def served(self) -> None:
        """Check, before bytes go to the reader, that the bytes it got earlier were right.

        Raises:
            CorruptError: the reader got bytes that proved to be wrong.
        """
        if self.feed is None or (self.feed.compared and self.uncompared is None):
            return
        restarts = self.feed.restarts
        if self.uncompared not in (None, restarts):
            what = "its source sent different bytes, and this reader got wrong ones"
            raise CorruptError(what, hint="open the file again; the local bytes are verified now")
        self.uncompared = None if self.feed.compared else restarts


def resumed(place: Text, number: int, known: KnownHandle) -> Handle:
    """An earlier worker's handle of a generated file."""
    return Handle(number, place, None, place.render(), resumed=True)


def continued(place: Log, number: int, known: KnownHandle) -> Handle:
    """An earlier worker's handle of the access log."""
    return Handle(number, place, None, stream=place.begin(True))


def restored(place: File, feed: Feed, number: int, known: KnownHandle) -> Handle:
    """An earlier worker's handle of an object."""
    feed.opened(place.version)
    frozen = known.backing_id > 0 and feed.object.freeze()
    return Handle(number, place, feed, frozen=frozen)
