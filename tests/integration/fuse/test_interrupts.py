"""Interrupts as a kernel sends them, which a thread plays: each is of the request that it names.

Whether the thread that asked has a signal is not asked here: it is in no namespace of ours.
"""

from __future__ import annotations

from tests.support.kernel import play

PROGRAM = """
from axonfs.fuse.interrupts import Interrupts
from axonfs.fuse.reads import NativeReads

SOCKETS = (socket.AF_UNIX, socket.SOCK_SEQPACKET)

RESENT = 1 << 63
WAITS, DOES_NOT = 1, 2
interrupts = Interrupts(NativeReads(None, None, in_memory=False))  # none runs

class Operations(pyfuse3.Operations):
    async def read(self, handle, offset, size):
        if handle == WAITS:
            return await interrupts.heeded(trio.sleep_forever)
        return await interrupts.heeded(self.at_once)

    async def at_once(self):
        return b"bytes"

def ask(kernel, opcode, unique, body):
    kernel.send(struct.pack("=IIQQIIII", 40 + len(body), opcode, unique, 1, 0, 0, 0, 0) + body)

def answer(kernel):
    message = kernel.recv(1 << 16)
    _, error, unique = struct.unpack("=IiQ", message[:16])
    if error == -errno.EAGAIN:  # libfuse's, of an interrupt that came too late
        return answer(kernel)
    return error, unique, message[16:]

def read(kernel, unique, handle):
    ask(kernel, 15, unique, struct.pack("=QQIIQII", handle, 0, 100, 0, 0, 0, 0))

def interrupt(kernel, unique):
    ask(kernel, 36, unique | 1, struct.pack("=Q", unique))

def play(kernel):
    ask(kernel, 26, 2, struct.pack("=IIII", 7, 31, 1 << 20, (1 << 30) - 1))  # INIT
    assert answer(kernel)[:2] == (0, 2)
    for unique in (4, 6, 8 | RESENT):
        read(kernel, unique, WAITS)
    read(kernel, 10, DOES_NOT)
    assert answer(kernel) == (0, 10, b"bytes")
    interrupt(kernel, 10)
    for unique in (6, 8 | RESENT, 4):
        interrupt(kernel, unique)
        assert answer(kernel) == (-errno.EINTR, unique, b"")
    assert not interrupts._waiting
    print("answered", flush=True)
    os._exit(0)
"""


def test_the_request_that_is_named_is_answered() -> None:
    play(PROGRAM)
