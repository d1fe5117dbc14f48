"""The threads begin and end: while reads are parked, in the middle of a read, with requests queued,
and when something is short. Run as: PATH-OF-EXTENSION ROUNDS SEED DIRECTORY.
"""

from __future__ import annotations

import ctypes
import errno
import os
import random
import resource
import select
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial

from tests.native.kernel import (
    GETATTR,
    Connection,
    descriptors,
    end_with,
    header,
    load,
    threads,
)

_SIZE, _CHUNK, _COUNT = 100_000, 4096, 25
_LOCAL, _ABSENT = 2, 4
_NO_FAULTS = (0,) * 7


class Cycles:
    def __init__(self, path: str, directory: str, seed: int) -> None:
        self.core = load(path)
        self.controls = ctypes.CDLL(path)
        self.rng = random.Random(seed)
        self.bytes = self.rng.randbytes(_SIZE)
        self.path = f"{directory}/backing"
        with open(self.path, "wb") as file:
            file.write(self.bytes)
        self.local = self.absent = 0

    @contextmanager
    def started(self, readers: int = 3, answerers: int = 2) -> Iterator[Connection]:
        """A connection that the threads read; the test stops them."""
        connection = Connection()
        self.core.start(connection.device, readers, answerers)
        self.serve()
        try:
            yield connection
        finally:
            connection.close()

    def serve(self) -> None:
        with open(self.path, "rb") as file:
            self.local, self.absent = (
                self.core.add(file.fileno(), _SIZE, _CHUNK, False) for _ in range(2)
            )
        assert self.core.attach(_LOCAL, self.local)
        assert self.core.attach(_ABSENT, self.absent)
        assert self.core.landed(self.local, 0, _COUNT)

    def reads_well(self, connection: Connection) -> None:
        number = connection.read(_LOCAL, 100, 5000)
        answer, _ = connection.answer()
        assert (answer.number, answer.error) == (number, 0)
        assert answer.data == self.bytes[100:5100]

    def meddle(self, stopping: threading.Event, seed: int) -> None:
        """What Python's threads do while one of them stops the core's."""
        rng, core = random.Random(seed), self.core
        while not stopping.is_set():
            first = rng.randrange(_COUNT)
            run = first, rng.randrange(first, _COUNT) + 1
            call = rng.randrange(11)
            if call == 0:
                core.landed(self.absent, *run)
            elif call == 1:
                core.cleared(self.absent, *run)
            elif call == 2:
                core.declined(self.absent, *run)
            elif call == 3:
                core.failed(self.absent, *run, errno.EIO)
            elif call == 4:
                core.news()
            elif call == 5:
                core.parked()
            elif call == 6:
                core.pop()
            elif call == 7:
                core.at_disk()
            elif call == 8:
                core.listen(rng.random() < 0.5)
            elif call == 9:
                core.finished()
            else:
                core.interrupt(2 * rng.randrange(200), errno.EINTR)

    def stopped_while_all_goes_on(self) -> None:
        """Reads are parked, answered and handed over when the threads end."""
        self.controls.faults(300, 2000, 50, 50, 200, 0, 0)
        with self.started(self.rng.randrange(1, 5), self.rng.randrange(1, 5)) as connection:
            stopping = threading.Event()
            meddlers = [
                threading.Thread(target=self.meddle, args=(stopping, self.rng.random()))
                for _ in range(3)
            ]
            for meddler in meddlers:
                meddler.start()
            for _ in range(150):
                handle = self.rng.choice((_LOCAL, _ABSENT, _ABSENT))
                connection.read(handle, self.rng.randrange(_SIZE), self.rng.randrange(1, 9000))
            time.sleep(self.rng.random() * 0.01)
            assert self.core.stop()
            assert self.core.pop() == b""
            assert self.core.parked() == []
            stopping.set()
            for meddler in meddlers:
                meddler.join()
            self.controls.faults(*_NO_FAULTS)
            while True:  # none is answered twice
                try:
                    connection.answer(0)
                except (TimeoutError, BlockingIOError):
                    break
        with self.started() as connection:
            self.reads_well(connection)
            assert self.core.stop()

    def begins_and_ends_at_odd_times(self) -> None:
        core = self.core
        assert core.stop()
        most = (1 << 31) - 1
        for counts in ((0, 1), (1, 0), (64, 1), (-1, 2), (most, most)):
            assert raises(OSError, partial(core.start, 0, *counts))
        assert raises(OSError, lambda: core.start(-1, 1, 1))
        with self.started() as connection:
            assert raises(OSError, lambda: core.start(connection.device, 1, 1))
            self.reads_well(connection)
            assert core.stop()
            assert core.stop()

    def no_thread_is_left(self) -> None:
        """Then no request is lost: Python reads the device, as before."""
        connection = Connection()
        for _ in range(20):
            connection.send(header(GETATTR, connection.number(), 16) + bytes(16))
        self.controls.limit_threads(3)
        assert raises(OSError, lambda: self.core.start(connection.device, 3, 2))
        self.controls.limit_threads(1000)
        for _ in range(20):
            connection.take_back()
        connection.close()

    def no_descriptor_is_left(self) -> None:
        connection = Connection()
        connection.send(header(GETATTR, connection.number(), 16) + bytes(16))
        soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        highest = max(map(int, os.listdir("/proc/self/fd")))
        for room in range(4):
            resource.setrlimit(resource.RLIMIT_NOFILE, (highest + room, hard))
            try:
                self.core.start(connection.device, 1, 1)
            except OSError:
                connection.take_back()
                connection.send(header(GETATTR, connection.number(), 16) + bytes(16))
            else:
                assert self.core.stop()
                connection.asked.clear()
                connection.send(header(GETATTR, connection.number(), 16) + bytes(16))
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
        connection.close()

    def a_thread_waits_for_the_disk(self) -> None:
        """It outlives the stop, and writes its answer to no file that got the device's number."""
        with self.started() as connection:
            self.controls.hold(1)
            connection.read(_LOCAL, 0, 10)
            wait(lambda: self.controls.count_held() == 1)
            assert not self.core.stop()
            assert raises(OSError, lambda: self.core.start(connection.device, 1, 1))
            with open(self.path + ".other", "w+b") as other:
                device = os.dup(connection.device)
                os.dup2(other.fileno(), connection.device)
                self.controls.hold(0)
                wait(lambda: self.controls.count_held() == 0)
                assert self.core.stop()
                os.dup2(device, connection.device)
                os.close(device)
                assert os.fstat(other.fileno()).st_size == 0

    def the_disk_is_slow(self) -> None:
        """A read that waits for it is told, with the time when it came."""
        with self.started() as connection:
            self.controls.faults(1000, 200_000, 0, 0, 1000, 0, 0)
            before = time.monotonic_ns()
            number = connection.read(_LOCAL, 100, 5000)
            while not (told := self.core.at_disk()):
                time.sleep(0.001)
            self.controls.faults(*_NO_FAULTS)
            *found, since = told[0]
            assert found == [number, 1, 1, 100, 0, _LOCAL, 5000]
            assert before <= since <= time.monotonic_ns()
            assert connection.answer()[0].number == number
            wait(lambda: self.core.at_disk() == [])
            assert self.core.stop()

    def memory_is_short(self) -> None:
        """No request is lost; a stop does not wait for memory."""
        with self.started() as connection:
            self.controls.faults(0, 0, 0, 0, 0, 0, 1000)
            number = connection.send(header(GETATTR, connection.number(), 16) + bytes(16))
            time.sleep(0.05)
            assert self.core.pop() == b""
            self.controls.faults(*_NO_FAULTS)
            wait(lambda: bool(self.popped(connection)))
            assert number not in connection.asked
            self.controls.faults(0, 0, 0, 0, 0, 0, 1000)
            for handle in (_ABSENT, _LOCAL):
                connection.read(handle, 0, 10)
            assert connection.answer()[0].error in (0, errno.ENOMEM)
            connection.send(header(GETATTR, connection.number(), 16) + bytes(16))
            time.sleep(0.05)
            assert self.core.stop()
            self.controls.faults(*_NO_FAULTS)

    def popped(self, connection: Connection) -> bytes:
        message: bytes = self.core.pop()
        if message:
            connection.popped(message)
        return message

    def the_device_does_not_block(self) -> None:
        with self.started() as connection:
            os.set_blocking(connection.device, False)
            for _ in range(5):
                time.sleep(0.002)
                self.reads_well(connection)
            assert self.core.stop()

    def the_process_forks(self) -> None:
        with self.started() as connection:
            for _ in range(3):
                if not (child := os.fork()):
                    os._exit(0)
                assert os.waitpid(child, 0)[1] == 0
                self.reads_well(connection)
            assert self.core.stop()

    def run(self, rounds: int) -> None:
        self.stopped_while_all_goes_on()
        before = descriptors(), threads()
        for _ in range(rounds):
            self.stopped_while_all_goes_on()
            self.no_thread_is_left()
        self.begins_and_ends_at_odd_times()
        self.no_descriptor_is_left()
        self.the_disk_is_slow()
        self.memory_is_short()
        self.the_device_does_not_block()
        self.the_process_forks()
        self.a_thread_waits_for_the_disk()
        Libfuse(self).run()
        assert (descriptors(), threads()) == before, "descriptors or threads are left"


class _Buffer(ctypes.Structure):
    """struct fuse_buf, with room for what later versions have."""

    _fields_ = (
        ("size", ctypes.c_size_t),
        ("flags", ctypes.c_int),
        ("memory", ctypes.c_void_p),
        ("fd", ctypes.c_int),
        ("place", ctypes.c_int64),
        ("more", ctypes.c_int64 * 4),
    )


class _Arguments(ctypes.Structure):
    """struct fuse_args."""

    _fields_ = (("count", ctypes.c_int), ("each", ctypes.c_void_p), ("allocated", ctypes.c_int))


class Libfuse:
    """A session of libfuse; its descriptor and its requests come from the core, as in pyfuse3."""

    def __init__(self, cycles: Cycles) -> None:
        self.cycles = cycles
        self.core = cycles.core
        self.libfuse = ctypes.CDLL("libfuse3.so.3")
        self.libfuse.fuse_session_new.restype = ctypes.c_void_p
        names = (ctypes.c_char_p * 2)(b"test", None)
        arguments = _Arguments(1, ctypes.cast(names, ctypes.c_void_p), 0)
        operations = ctypes.create_string_buffer(1024)
        session = self.libfuse.fuse_session_new(
            ctypes.byref(arguments), operations, ctypes.c_size_t(256), None
        )
        assert session
        self.session = ctypes.c_void_p(session)
        self.connection = Connection()
        device = os.dup(self.connection.device)
        os.set_blocking(device, True)
        assert self.libfuse.fuse_session_mount(self.session, f"/dev/fd/{device}".encode()) == 0
        self.device = device
        self.descriptor = cycles.controls.fuse_session_fd(self.session)
        self.buffer = _Buffer()

    def readable(self, seconds: float) -> bool:
        return bool(select.select([self.descriptor], [], [], seconds)[0])

    def receive(self) -> bytes | int:
        """The next request, or the result of the call if there is none."""
        core = self.cycles.controls
        size = int(core.fuse_session_receive_buf(self.session, ctypes.byref(self.buffer)))
        return ctypes.string_at(self.buffer.memory, size) if size > 0 else size

    def ask(self) -> bytes:
        message = header(GETATTR, self.connection.number(), 16) + bytes(16)
        self.connection.send(message)
        return message

    def run(self) -> None:
        message = self.ask()
        assert self.readable(5)
        assert self.receive() == message
        self.cycles.controls.limit_threads(1)
        assert raises(OSError, lambda: self.core.start(self.device, 1, 1))
        self.cycles.controls.limit_threads(1000)
        message = self.ask()
        assert self.readable(5), "after a failed start nobody waits for the device"
        assert self.receive() == message
        self.native()
        self.libfuse.fuse_session_unmount(self.session)
        self.libfuse.fuse_session_destroy(self.session)
        ctypes.CDLL(None).free(ctypes.c_void_p(self.buffer.memory))
        os.close(self.descriptor)
        self.connection.close()

    def native(self) -> None:
        self.core.start(self.device, 2, 2)
        assert not self.readable(0.05)
        assert self.receive() == -errno.EINTR
        messages = {self.ask() for _ in range(10)}
        while messages:
            assert self.readable(5)
            message = self.receive()
            assert isinstance(message, bytes)
            messages.remove(message)
        assert not self.readable(0.05)
        self.connection.hang_up()
        assert self.readable(5)
        assert self.receive() == 0
        assert self.libfuse.fuse_session_exited(self.session)
        assert self.core.stop()


def raises(kind: type[BaseException], call: Callable[[], object]) -> bool:
    try:
        call()
    except kind:
        return True
    return False


def wait(until: Callable[[], bool]) -> None:
    end = time.monotonic() + 30
    while not until():
        assert time.monotonic() < end, "it does not happen"
        time.sleep(0.001)


def main() -> None:
    path, rounds, seed, directory = sys.argv[1:]
    sys.setswitchinterval(0.0005)
    Cycles(path, directory, int(seed)).run(int(rounds))


if __name__ == "__main__":
    end_with(main)
