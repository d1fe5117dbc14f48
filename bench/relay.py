"""A TCP relay that adds delay, for kernels without netem.

    python -m bench.relay HOST PORT TARGET_PORT RTT_MS

Listens on HOST:PORT, forwards to 127.0.0.1:TARGET_PORT, and prints "ready". In both directions
bytes arrive half a round trip after they were sent. A new connection carries nothing during its
first round trip, like a handshake. The relay carries several Gbit/s. It does not model loss or the
slow start of TCP, so short connections are faster here than on a real line. One trio thread.
"""

from __future__ import annotations

import sys
from functools import partial

import trio

PIECE = 1 << 16
# Bytes per connection and direction: a sender's window on a fast line with a long round trip.
WINDOW = 8 << 20


async def pump(
    source: trio.SocketStream, sink: trio.SocketStream, delay: float, opened: float
) -> None:
    """Relay one direction to its end, each piece `delay` seconds after max(now, `opened`)."""
    send, receive = trio.open_memory_channel[tuple[float, bytes | bytearray]](WINDOW // PIECE)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(_give, receive, sink)
        async with send:
            while data := await source.receive_some(PIECE):
                await send.send((max(trio.current_time(), opened) + delay, data))


async def _give(
    receive: trio.MemoryReceiveChannel[tuple[float, bytes | bytearray]], sink: trio.SocketStream
) -> None:
    async for due, data in receive:
        await trio.sleep_until(due)
        await sink.send_all(data)
    await sink.send_eof()


async def relay(client: trio.SocketStream, *, port: int, rtt: float) -> None:
    """Relay both directions of one connection."""
    opened = trio.current_time() + rtt
    try:
        async with (
            await trio.open_tcp_stream("127.0.0.1", port) as server,
            trio.open_nursery() as nursery,
        ):
            nursery.start_soon(pump, client, server, rtt / 2, opened)
            await pump(server, client, rtt / 2, 0)
            nursery.cancel_scope.cancel()
    except* (trio.BrokenResourceError, trio.ClosedResourceError, OSError):
        pass  # either side may close the connection at any time


async def serve(host: str, port: int, target: int, rtt: float) -> None:
    listeners = await trio.open_tcp_listeners(port, host=host)
    print("ready", flush=True)
    await trio.serve_listeners(partial(relay, port=target, rtt=rtt), listeners)


def main() -> None:
    host, port, target, milliseconds = sys.argv[1:]
    trio.run(serve, host, int(port), int(target), float(milliseconds) / 1000)


if __name__ == "__main__":
    main()
