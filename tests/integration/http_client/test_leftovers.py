"""Bytes behind an answer are no part of the next one, by either client and with or without TLS."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import trio

from axonfs.http_client import Bodies, Documents, Limits, Location, Routes, Trust
from tests.support.rawserver import Asked, RawServer
from tests.support.wiring import Authority

FAST = Limits(connect=2, first_byte=2, stall=2, deadline=3, attempts=1)
SIZE = 200_000  # more than one buffer, so that the last piece is read past it
NAMES = ("a", "b", "c")
Read = Callable[[str, Trust], list[bytes]]
Frame = Callable[[bytes], bytes]


def sized(body: bytes) -> bytes:
    return b"Content-Length: %d\r\n\r\n%b" % (len(body), body)


def chunked(body: bytes, trailer: bytes = b"") -> bytes:
    coded = b"%x\r\n%b\r\n0\r\n%b\r\n" % (len(body), body, trailer)
    return b"Transfer-Encoding: chunked\r\n\r\n" + coded


def trailed(body: bytes) -> bytes:
    return chunked(body, b"X-Checksum: 1\r\n")


def answer(asked: Asked, body: bytes, frame: Frame) -> bytes:
    if asked.stop <= SIZE:
        head = b"HTTP/1.1 206 Partial Content\r\n"
        head += b"Content-Range: bytes 0-%d/%d\r\n" % (len(body) - 1, SIZE)
    else:
        head = b"HTTP/1.1 200 OK\r\n"
    return head + frame(body)


def own(target: str) -> bytes:
    return (target * SIZE)[:SIZE].encode()


def by_documents(url: str, trust: Trust) -> list[bytes]:
    async def get() -> list[bytes]:
        async with Documents(FAST, trust, routes=Routes({})) as documents:
            got = [await documents.get(url + name, limit=SIZE) for name in NAMES]
            return [fetched.body for fetched in got if fetched]

    return trio.run(get)


def by_bodies(url: str, trust: Trust) -> list[bytes]:
    found = []
    with Bodies(FAST, trust, routes=Routes({})) as bodies:
        for name in NAMES:
            taken = bytearray()

            def take(_: int, view: memoryview, into: bytearray = taken) -> None:
                into.extend(view)

            bodies.read(Location(url + name), 0, SIZE, SIZE, take, unit=SIZE)
            found.append(bytes(taken))
    return found


@pytest.mark.parametrize("surplus", ["another answer", "half a head", "nothing"])
@pytest.mark.parametrize("frame", [sized, chunked, trailed])
@pytest.mark.parametrize("secure", [False, True], ids=["plain", "tls"])
@pytest.mark.parametrize("read", [by_documents, by_bodies])
def test_what_follows_an_answer_is_not_the_next_one_s(
    read: Read, secure: bool, frame: Frame, surplus: str, authority: Authority
) -> None:
    def serve(asked: Asked) -> bytes:
        forged = answer(asked, b"F" * 10, frame)
        behind = {"another answer": forged, "half a head": forged[:20], "nothing": b""}[surplus]
        return answer(asked, own(asked.target), frame) + behind

    with RawServer(serve, authority=authority if secure else None) as server:
        found = read(server.url, Trust(authority.bundle))
        assert found == [own(f"/{name}") for name in NAMES]
