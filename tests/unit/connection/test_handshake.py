"""FUSE_INIT as Linux 6.18 and libfuse 3.14 said it, and what is added to it."""

from __future__ import annotations

import contextlib
import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from axonfs.connection.handshake import (
    BACKGROUND,
    INIT_EXT,
    MAX_PAGES,
    PARALLEL_DIROPS,
    PASSTHROUGH,
    RESEND,
    Offer,
    amend,
    parse_offer,
    resend_notification,
)

KERNEL = bytes.fromhex(
    "680000001a00000002000000000000000000000000000000000000000000000000000000"
    "00000000070000002d00000000000200fbffff73fd050000"
).ljust(104, b"\0")
LIBFUSE = bytes.fromhex(
    "50000000000000000200000000000000070000001f0000000000020039b04040"
    "00000000000010000100000000010000"
).ljust(80, b"\0")
ASYNC_READ = 1
IO_URING = 1 << 41


def flags_of(reply: bytes) -> int:
    flags, flags2 = (struct.unpack_from("=I", reply, 16 + at)[0] for at in (12, 32))
    return int(flags | flags2 << 32)


def test_kernel_offer() -> None:
    offer = parse_offer(KERNEL)
    assert (offer.unique, offer.major, offer.minor) == (2, 7, 45)
    assert offer.has(PASSTHROUGH)
    assert offer.has(RESEND)
    assert offer.has(MAX_PAGES | INIT_EXT)
    assert not offer.has(IO_URING)


def test_amended_reply() -> None:
    reply, terms = amend(LIBFUSE, parse_offer(KERNEL), passthrough=True)
    assert struct.unpack_from("=IiQ", reply) == (80, 0, 2)
    added = PARALLEL_DIROPS | MAX_PAGES | INIT_EXT | PASSTHROUGH | RESEND
    assert flags_of(reply) == flags_of(LIBFUSE) | added
    background, congestion = struct.unpack_from("=HH", reply, 16 + 16)
    assert 0 < congestion < background == BACKGROUND
    assert struct.unpack_from("=H", reply, 16 + 28) == (256,)
    assert struct.unpack_from("=I", reply, 16 + 36) == (1,)  # max_stack_depth
    assert struct.unpack_from("=I", reply, 16 + 8) == (1 << 20,)  # max_readahead
    # What libfuse said of its own stays: version, max_write.
    assert reply[16:24] == LIBFUSE[16:24]
    assert reply[16 + 20 : 16 + 24] == LIBFUSE[16 + 20 : 16 + 24]
    assert (terms.passthrough, terms.resend, terms.max_pages) == (True, True, 256)


def test_without_passthrough() -> None:
    reply, terms = amend(LIBFUSE, parse_offer(KERNEL), passthrough=False)
    assert not flags_of(reply) & PASSTHROUGH
    assert struct.unpack_from("=I", reply, 16 + 36) == (0,)
    assert not terms.passthrough
    assert terms.resend


def old_kernel(flags: int) -> bytes:
    """Linux 5.4 has no flags2: the message ends with the flags."""
    body = struct.pack("=IIII", 7, 31, 128 << 10, flags)
    return struct.pack("=IIQQIIIHH", 40 + len(body), 26, 9, 0, 0, 0, 0, 0, 0) + body


@given(st.integers(0, (1 << 32) - 1), st.integers(0, (1 << 32) - 1), st.booleans())
def test_nothing_is_asked_for_that_was_not_offered(
    flags: int, flags2: int, passthrough: bool
) -> None:
    message = bytearray(KERNEL)
    struct.pack_into("=II", message, 40 + 12, flags, flags2)
    offer = parse_offer(bytes(message))
    reply, terms = amend(LIBFUSE, offer, passthrough=passthrough)
    assert not (flags_of(reply) & ~flags_of(LIBFUSE)) & ~offer.flags
    assert terms.passthrough <= passthrough
    assert terms.resend == offer.has(INIT_EXT | RESEND)


def test_kernel_without_extended_flags() -> None:
    offer = parse_offer(old_kernel(ASYNC_READ | MAX_PAGES))
    assert offer.flags == ASYNC_READ | MAX_PAGES
    _, terms = amend(_reply_to(9), offer, passthrough=True)
    assert not terms.passthrough
    assert not terms.resend


def _reply_to(unique: int) -> bytes:
    return LIBFUSE[:8] + struct.pack("=Q", unique) + LIBFUSE[16:]


@pytest.mark.parametrize(
    ("message", "why"),
    [
        (b"", "of 0 bytes"),
        (KERNEL[:50], "of 50 bytes"),
        (KERNEL[:80], "104 bytes in a message of 80"),
        (KERNEL[:4] + b"\1" + KERNEL[5:], "opcode 1 "),
        (KERNEL[:40] + struct.pack("=II", 7, 27) + KERNEL[48:], "protocol 7.27"),
        (KERNEL[:40] + struct.pack("=II", 8, 0) + KERNEL[48:], "protocol 8.0"),
    ],
)
def test_no_offer(message: bytes, why: str) -> None:
    with pytest.raises(ValueError, match=why):
        parse_offer(message)


@given(st.binary(max_size=200))
def test_any_bytes_are_an_offer_or_refused(message: bytes) -> None:
    with contextlib.suppress(ValueError):
        assert isinstance(parse_offer(message), Offer)


@pytest.mark.parametrize(
    "reply",
    [
        b"",
        LIBFUSE[:-1],
        struct.pack("=IiQ", 81, 0, 2) + bytes(65),  # more than the kernel takes
        _reply_to(3),
        struct.pack("=IiQ", 16, -71, 2),
    ],
)
def test_no_reply_to_the_offer(reply: bytes) -> None:
    with pytest.raises(ValueError, match="libfuse answers INIT"):
        amend(reply, parse_offer(KERNEL), passthrough=True)


def test_resend_notification() -> None:
    assert resend_notification() == struct.pack("=IiQ", 16, 7, 0)
