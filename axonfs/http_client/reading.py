"""The bytes of one read, from one answer or several.

Between bodies.py, which sends requests, and reply.py, which reads one answer. A server may send
more or less than the requested range, one part of a multipart body, or the whole object in a
content coding. This module returns the requested bytes, in order.

Blocking, for worker threads; one thread at a time.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import h11

from axonfs.errors import AxonError, UnavailableError
from axonfs.http_client.answers import Answer, body_range, codings, is_coded
from axonfs.http_client.coding import CodingError, CutError, Read, decoded
from axonfs.http_client.faults import deadline_passed, fault, network_fault, not_http, not_sent
from axonfs.http_client.fields import fields, media_type
from axonfs.http_client.limits import Limits
from axonfs.http_client.pool import Pool
from axonfs.http_client.reply import Reply
from axonfs.http_client.urls import Url, shown
from axonfs.http_client.wire import TICK, SlowError, StallError, Wire
from axonfs.ranges import Range
from axonfs.units import size

# Seconds after which a piece ends, by default. The larger pieces are, the less Python costs: the
# threads that receive took 0.25 s of processor time per GiB for it in pieces of 1 MiB, 0.13 in 8.
MOMENT = TICK
# Seconds without a byte that are worth a word.
SILENT = 1.0
# Seconds: a share that took longer was waited for.
LIMITED = 0.001
# The most answers of one read, from a server that sends less than the requested range: so many, or
# one for so many bytes of the range.
MAX_ANSWERS, ANSWER_BYTES = 64, 256 << 10
_SKIP_BYTES = 64 << 10
_PART_HEAD_LINES, _LINE_BYTES = 32, 8 << 10


@dataclass(frozen=True, slots=True)
class Exchange:
    """An answer whose body is not yet read from the wire."""

    wire: Wire
    reply: Reply
    answer: Answer
    url: Url

    def end(self, pool: Pool) -> None:
        """Put the wire back into the pool if its answer was read to the end, else close it."""
        if self.reply.reusable and not self.wire.spent():
            pool.put(self.url.origin, self.wire)
        else:
            self.wire.hang_up()


class Body:
    """The object's bytes in one answer, from `at` on.

    Args:
        asked: the requested range of an object of `size` bytes, whose ETag was `etag`.

    Raises:
        AxonError: the answer does not fit the request.
    """

    def __init__(self, exchange: Exchange, asked: Range, size: int, etag: str | None) -> None:
        answer, self.exchange = exchange.answer, exchange
        kind, parameters = media_type(answer.headers.get("content-type"))
        self._multipart = answer.status == 206 and kind == "multipart/byteranges"
        if self._multipart and "content-range" not in answer.headers:
            headers = {**answer.headers, **_part_head(exchange.reply, parameters.get("boundary"))}
            headers.pop("content-length", None)  # it counts all parts
            answer = Answer(answer.url, answer.status, headers)
        self.held = body_range(answer, asked, size, etag)
        self.at = self.held.start
        self._read: Read | None = None
        if is_coded(answer, size):
            self._read = decoded(exchange.reply.read, codings(answer))
        exchange.wire.expect(self.held.size)

    @property
    def whole(self) -> bool:
        """Whether the server ignored the range and sent the whole object."""
        return self.exchange.answer.status == 200

    @property
    def coded(self) -> bool:
        """Whether it is decoded, so that bytes may be left that no receive brings."""
        return self._read is not None

    def readinto(self, view: memoryview) -> int:
        """Read into `view`, which must not be longer than the rest of this answer.

        Returns:
            How many bytes: at least one, and all of them if they arrive without a pause.

        Raises:
            UnavailableError: the answer ends here.
        """
        count = self._some(view)
        if not count:
            raise self._fault(f"the body ended early, at byte {self.at:,}")
        self.at += count
        return count

    def skip(self, start: int) -> None:
        """Read and drop the bytes before `start`."""
        if self.at >= start:
            return
        scratch = memoryview(bytearray(min(_SKIP_BYTES, start - self.at)))
        while self.at < start:
            self.readinto(scratch[: start - self.at])
            self.exchange.wire.progressed()

    def finish(self) -> None:
        """Check that the body ends here; the end of a body without a length must be read.

        Raises:
            UnavailableError: more bytes follow.
        """
        if self.at < self.held.stop or self._multipart:
            return
        if self._some(memoryview(bytearray(1))):
            raise self._fault("the body is longer than its length")

    def _some(self, view: memoryview) -> int:
        if self._read is None:
            return self.exchange.reply.readinto(view)
        plain = self._read(len(view))
        view[: len(plain)] = plain
        return len(plain)

    def _fault(self, what: str) -> AxonError:
        return fault(UnavailableError, what, shown(self.exchange.answer.url), transient=True)


class Reading:
    """Reads the bytes of one answer after another.

    `with` ends the last answer, or closes its connection after an error.

    Args:
        body: the first answer.
        more: sends a request for the object's bytes from a position on.
        asked: how many bytes were requested.
        share: says how many of the next bytes may be received now, and may block until then.
    """

    def __init__(
        self,
        body: Body,
        more: Callable[[int], Body],
        pool: Pool,
        limits: Limits,
        asked: int,
        share: Callable[[int], int] | None = None,
    ) -> None:
        self._body = body
        self._more = more
        self._pool = pool
        self._limits = limits
        self._share = share
        self._asked = asked
        self._granted = 0  # bytes of the last share that were not received yet
        self._limited = False  # the last share was waited for, so that the next one will be
        self._answers = 1
        self._most = max(MAX_ANSWERS, asked // ANSWER_BYTES)
        self._ended = False
        self._fault: AxonError | None = None  # which the next `fill` raises
        self._start = self._at = body.at

    def __enter__(self) -> Reading:
        return self

    def __exit__(self, kind: object, *_: object) -> None:
        if kind is None:
            self.end()
        else:
            self.hang_up()

    @property
    def answer(self) -> Answer:
        """Status and headers of the current answer."""
        return self._body.exchange.answer

    @property
    def whole(self) -> bool:
        """Whether the server ignored the range and sends the whole object."""
        return self._body.whole

    def fill(
        self, view: memoryview, start: int, unit: int | None = None, moment: float = MOMENT
    ) -> int:
        """Receive the object's bytes from `start` on into `view`; the deadline starts anew.

        Args:
            unit: if given, it returns as soon as a multiple of `unit` behind `start` was reached
                and `moment` seconds passed, or nothing more comes within them; and at a fault,
                which the next call raises.

        Returns:
            How many bytes: all of the view without `unit`.
        """
        if self._fault is not None:
            raise self._fault
        self._body.exchange.wire.progressed()  # the caller's time is not the server's
        at, stop, ends = start, start + len(view), time.monotonic() + moment
        while at < stop:
            reached = unit and at // unit > start // unit
            if reached and not self._comes(at, ends - time.monotonic()):
                break
            # A receive may take a tick, so that of a shorter moment is of one unit.
            end = min(at - at % unit + unit, stop) if unit and moment < TICK else stop
            try:
                at += self._some(view[at - start : end - start], at)
                self._at = at
            except AxonError as exc:
                if not unit:
                    raise
                self._fault = exc
                break
        return at - start

    def said(self) -> str:
        """What came until now, as a clause; any thread may ask."""
        came = f"receiving from {self._body.exchange.url.origin.authority}"
        of = "the whole file, for want of ranges," if self.whole else size(self._asked)
        came += f": {size(self._at - self._start)} of {of} came"
        silence = self._body.exchange.wire.silence
        return f"{came}, and nothing for {silence:.0f} s" if silence >= SILENT else came

    @property
    def broken(self) -> bool:
        """Whether a fault ended it, which the next `fill` raises."""
        return self._fault is not None

    def _comes(self, at: int, seconds: float) -> bool:
        """Whether more of the answer comes within `seconds`. Without a byte, a receive waits far
        longer than that, and so does a share of a low limit."""
        if seconds <= 0 or at >= self._body.held.stop or (self._limited and not self._granted):
            return False
        return self._body.coded or self._body.exchange.wire.comes(seconds)

    def _some(self, view: memoryview, at: int) -> int:
        if at >= self._body.held.stop:
            self._ask_for_more(at)
        with mapped(self._body.exchange.answer.url, self._limits):
            self._body.skip(at)
            count = self._allowed(min(len(view), self._body.held.stop - at))
            received = self._body.readinto(view[:count])
        self._granted = max(self._granted - received, 0)
        return received

    def _allowed(self, count: int) -> int:
        """How many of the next `count` bytes may be received now."""
        if self._share is None:
            return count
        if not self._granted:
            asked = time.monotonic()
            self._granted = self._share(count)
            waited = time.monotonic() - asked
            self._limited = waited > LIMITED
            self._body.exchange.wire.waited(waited)
        return min(count, self._granted)

    def end(self) -> None:
        """End the current answer; keep its connection if the answer was read to the end.

        Raises:
            AxonError: surplus bytes follow, or the end of the answer does not come.
        """
        exchange = self._body.exchange
        try:
            with mapped(exchange.answer.url, self._limits):
                self._body.finish()
        except BaseException:
            exchange.wire.hang_up()
            raise
        self._ended = True
        exchange.end(self._pool)

    def hang_up(self) -> None:
        """Close the connection, unless `end` has put it back into the pool."""
        if not self._ended:
            self._body.exchange.wire.hang_up()

    def _ask_for_more(self, start: int) -> None:
        self.end()
        self._answers += 1
        if self._answers > self._most:
            url = shown(self._body.exchange.answer.url)
            what = f"it sent less than the requested range {self._most} times in one read"
            raise fault(UnavailableError, what, url, transient=True)
        self._body, self._ended = self._more(start), False


def _part_head(reply: Reply, boundary: str | None) -> dict[str, str]:
    """Read up to the bytes of the first part of a multipart body; return the part's fields."""
    delimiter = b"--" + (boundary or "").encode()
    lines = [_line(reply)]
    while lines[-1].rstrip() != delimiter:
        if len(lines) > _PART_HEAD_LINES:
            return {}
        lines.append(_line(reply))
    found: list[tuple[bytes, bytes]] = []
    while (line := _line(reply).strip()) and len(found) <= _PART_HEAD_LINES:
        name, _, value = line.partition(b":")
        found.append((name.strip(), value))
    return {name: text for name, text in fields(found).items() if name == "content-range"}


def _line(reply: Reply) -> bytes:
    line = bytearray()
    while not line.endswith(b"\n") and len(line) < _LINE_BYTES and (byte := reply.read(1)):
        line += byte
    return bytes(line)


@contextlib.contextmanager
def mapped(url: str, limits: Limits) -> Iterator[None]:
    """Turn exceptions of sockets, TLS and h11 into AxonErrors."""
    try:
        yield
    except (OSError, h11.ProtocolError, CodingError) as exc:
        raise _meaning(exc, shown(url), limits) from exc


def _meaning(exc: Exception, source: str, limits: Limits) -> AxonError:
    match exc:
        case SlowError():
            return deadline_passed(limits.deadline, source)
        case StallError():  # an OSError, too, but its own text is clearer
            return fault(UnavailableError, str(exc), source, transient=True)
        case h11.LocalProtocolError():
            return not_sent(source)
        case h11.ProtocolError():
            return not_http(exc, source)
        case CodingError():
            return fault(UnavailableError, str(exc), source, transient=isinstance(exc, CutError))
    return network_fault(exc, source)
