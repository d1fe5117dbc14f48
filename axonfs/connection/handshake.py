"""FUSE_INIT: parses the kernel's offer, and amends libfuse's answer to it.

Pure. libfuse 3.14 knows neither passthrough nor resend and exposes few of the limits, so its reply
is amended before the kernel gets it. A flag is set only if the kernel offered it.

Source: struct fuse_in_header, fuse_init_in, fuse_out_header and fuse_init_out of linux/fuse.h,
protocol 7.36 and later; native byte order.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass

_IN_HEADER = struct.Struct("=IIQQIIIHH")
_INIT_IN = struct.Struct("=IIIII")  # major, minor, max_readahead, flags, flags2
_OUT_HEADER = struct.Struct("=IiQ")
_OUT_SIZE = 64  # struct fuse_init_out since 7.23
_READAHEAD, _FLAGS, _BACKGROUND, _CONGESTION = 8, 12, 16, 18
_PAGES, _FLAGS2, _DEPTH = 28, 32, 36

OPCODE = 26
# The buffer for reads of the device: the kernel refuses one that its largest request may not fit.
READ_BYTES = (1 << 20) + 4096
MAX_PAGES = 1 << 22
PARALLEL_DIROPS = 1 << 18
NO_OPENDIR_SUPPORT = 1 << 24
INIT_EXT = 1 << 30
PASSTHROUGH = 1 << 37
RESEND = 1 << 39

# Requests that the kernel may have in flight in the background: all of its readahead. One that
# waits for a silent source occupies a slot until the deadline, and without a free slot no file of
# the mount is read ahead, not even a local one. Each holds up to 1 MiB of the page cache meanwhile.
BACKGROUND = 1024
# A request of 1 MiB, which is one chunk of the default size; the kernel may allow less. Larger
# requests take more processor time, since their bytes no longer fit in the processor's cache.
PAGES = 256
# The most that the kernel may read ahead. It is 128 KiB until root sets more for the connection; a
# lower limit here would undo what root has set before the handshake.
READAHEAD = 1 << 20


@dataclass(frozen=True, slots=True)
class Offer:
    """The kernel's INIT request. The upper 32 bits of `flags` are its flags2."""

    unique: int
    major: int
    minor: int
    flags: int

    def has(self, flag: int) -> bool:
        return self.flags & flag == flag


@dataclass(frozen=True, slots=True)
class Terms:
    """What kernel and libfuse agreed on."""

    minor: int
    passthrough: bool
    resend: bool
    max_background: int
    max_pages: int


def parse_offer(message: bytes) -> Offer:
    """The INIT request in `message`, the first one of every connection.

    Raises:
        ValueError: it is malformed, or of a protocol that is too old to be amended.
    """
    if len(message) < _IN_HEADER.size + _INIT_IN.size - 4:
        raise ValueError(f"an INIT message of {len(message)} bytes")
    length, opcode, unique, *_ = _IN_HEADER.unpack_from(message)
    if opcode != OPCODE or length != len(message):
        raise ValueError(f"opcode {opcode} of {length} bytes in a message of {len(message)}")
    fields = message[_IN_HEADER.size :].ljust(_INIT_IN.size, b"\0")
    major, minor, _, flags, flags2 = _INIT_IN.unpack_from(fields)
    if major != 7 or minor < 28:
        raise ValueError(f"protocol {major}.{minor}")
    extended = flags2 << 32 if flags & INIT_EXT else 0
    return Offer(unique, major, minor, flags | extended)


def amend(reply: bytes, offer: Offer, *, passthrough: bool) -> tuple[bytes, Terms]:
    """libfuse's INIT reply, with the flags and limits that libfuse does not set.

    Args:
        passthrough: whether opens can be answered with a backing file.

    Raises:
        ValueError: it does not reply to `offer`, or it is an error.
    """
    length, error, unique = _OUT_HEADER.unpack_from(reply.ljust(_OUT_HEADER.size, b"\0"))
    fits = length == len(reply) <= _OUT_HEADER.size + _OUT_SIZE
    if not fits or error or unique != offer.unique:
        raise ValueError(f"libfuse answers INIT with error {-error}, {len(reply)} bytes")
    out = bytearray(reply[_OUT_HEADER.size :].ljust(_OUT_SIZE, b"\0"))
    terms = _terms(offer, passthrough)
    flags = _flags_of(out) | _wanted(offer, terms)
    struct.pack_into("=I", out, _FLAGS, flags & 0xFFFFFFFF)
    struct.pack_into("=I", out, _FLAGS2, flags >> 32)
    struct.pack_into("=I", out, _READAHEAD, READAHEAD)
    struct.pack_into("=HH", out, _BACKGROUND, BACKGROUND, BACKGROUND * 3 // 4)
    if terms.max_pages:
        struct.pack_into("=H", out, _PAGES, terms.max_pages)
    if terms.passthrough:
        # The backing file's own file system is the one layer below ours.
        struct.pack_into("=I", out, _DEPTH, 1)
    return _OUT_HEADER.pack(_OUT_HEADER.size + len(out), 0, offer.unique) + bytes(out), terms


def _terms(offer: Offer, passthrough: bool) -> Terms:
    return Terms(
        minor=offer.minor,
        passthrough=passthrough and offer.has(INIT_EXT | PASSTHROUGH),
        resend=offer.has(INIT_EXT | RESEND),
        max_background=BACKGROUND,
        max_pages=PAGES if offer.has(MAX_PAGES) else 0,
    )


def _wanted(offer: Offer, terms: Terms) -> int:
    # Without it a lookup that waits for a source blocks all others in the same directory.
    flags = offer.flags & PARALLEL_DIROPS
    flags |= MAX_PAGES if terms.max_pages else 0
    flags |= PASSTHROUGH if terms.passthrough else 0
    flags |= RESEND if terms.resend else 0
    return flags | (offer.flags & INIT_EXT)


def _flags_of(out: bytearray) -> int:
    flags: int = struct.unpack_from("=I", out, _FLAGS)[0]
    flags2: int = struct.unpack_from("=I", out, _FLAGS2)[0]
    return flags | (flags2 << 32 if flags & INIT_EXT else 0)


def opcode_of(request: bytes) -> tuple[int, int]:
    """(opcode, unique) of any request."""
    _, opcode, unique, *_ = _IN_HEADER.unpack_from(request)
    return opcode, unique


def refusal(unique: int, code: int) -> bytes:
    """The reply that fails the request `unique` with the errno `code`."""
    return _OUT_HEADER.pack(_OUT_HEADER.size, -code, unique)


def resend_notification() -> bytes:
    """Asks the kernel to resend every unanswered request (FUSE_NOTIFY_RESEND)."""
    return _OUT_HEADER.pack(_OUT_HEADER.size, 7, 0)


def forget_names_notification() -> bytes:
    """Has the kernel look up every name again (FUSE_NOTIFY_INC_EPOCH, Linux 6.16)."""
    return _OUT_HEADER.pack(_OUT_HEADER.size, 8, 0)
