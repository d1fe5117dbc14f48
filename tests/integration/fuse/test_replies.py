"""Large replies are written while other threads of the interpreter run.

The kernel is played by a thread of the same process, which takes a reply off a socket that holds
a part of it: were the interpreter's lock kept meanwhile, neither side could go on.
"""

from __future__ import annotations

from tests.support.kernel import play

SIZE = 4 << 20
PROGRAM = f"""
SOCKETS = ()

SIZE = {SIZE}
KEPT = bytes(range(256)) * (SIZE // 256)

class Operations(pyfuse3.Operations):
    async def read(self, handle, offset, size):
        return KEPT

def ask(kernel, opcode, unique, body):
    size = 40 + len(body)
    kernel.sendall(struct.pack("=IIQQIIII", size, opcode, unique, 1, 0, 0, 1, 0) + body)

def answer(kernel):
    header = kernel.recv(16, socket.MSG_WAITALL)
    size, error, unique = struct.unpack("=IiQ", header)
    return error, unique, kernel.recv(size - 16, socket.MSG_WAITALL)

def play(kernel):
    ask(kernel, 26, 2, struct.pack("=IIII", 7, 31, 1 << 20, (1 << 30) - 1))  # INIT
    assert answer(kernel)[:2] == (0, 2)
    ask(kernel, 15, 4, struct.pack("=QQIIQII", 1, 0, SIZE, 0, 0, 0, 0))  # READ
    error, unique, data = answer(kernel)
    assert (error, unique, data == KEPT) == (0, 4, True)
    print("answered", flush=True)
    os._exit(0)
"""


def test_a_large_reply_is_written_while_other_threads_run() -> None:
    play(PROGRAM)
