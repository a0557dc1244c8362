"""The price of slow clients for the others, and for the end of the server: ``make measure-slow_clients``.

The rules that hold here:

* The server is ``reenact.runtime.http.server`` on a loopback port, with a scripted model; the clients are in its
  process, and so what they do counts too.
* A slow client sends half a head, or half a body, or reads nothing of a stream that never ends.
* The others' time to the first token is measured in rounds, in turn without slow clients and beside them.
"""

import sys
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from typing import Final

import trio

from reenact.runtime.http.server import GRACE_SECONDS
from tests.helpers.serving import Server, post, scripted, serving

N_OF_EACH: Final = 50
N_REQUESTS: Final = 100
N_ROUNDS: Final = 5
ENDLESS: Final = {"model": "m", "prompt": "endless", "raw": True, "options": {"num_predict": -1}}
SHORT: Final = {"model": "m", "prompt": "short", "raw": True}


async def first_tokens(server: Server) -> list[float]:
    """Return the milliseconds to the first token of requests, one after the other."""
    found = []
    for _ in range(N_REQUESTS):
        begun = trio.current_time()
        stream = await post(server.port, "/api/generate", SHORT)
        assert (await stream.receive_some()).startswith(b"HTTP/1.1 200")
        found.append((trio.current_time() - begun) * 1000)
        await stream.aclose()
    return found


async def half_heads(server: Server) -> list[trio.SocketStream]:
    """Return connections with half a head each."""
    streams = [await trio.open_tcp_stream("127.0.0.1", server.port) for _ in range(N_OF_EACH)]
    for stream in streams:
        await stream.send_all(b"POST /api/generate HTTP/1.1\r\nHost: local")
    return streams


async def half_bodies(server: Server) -> list[trio.SocketStream]:
    """Return connections with half a body each."""
    streams = [await trio.open_tcp_stream("127.0.0.1", server.port) for _ in range(N_OF_EACH)]
    for stream in streams:
        await stream.send_all(b"POST /api/generate HTTP/1.1\r\nHost: localhost\r\nContent-Length: 99\r\n\r\n{")
    return streams


async def readers_of_nothing(server: Server) -> list[trio.SocketStream]:
    """Return connections with a stream each, of which nothing is read."""
    return [await post(server.port, "/api/generate", ENDLESS) for _ in range(N_OF_EACH)]


async def measure(folder: Path) -> None:
    """Print the times to the first token, and the time that the server takes to end."""
    model = scripted(
        "m",
        folder,
        {"short": ["a"], "endless": ["x" * 20_000] * 400},
        settings={"n_slots": 64, "max_reader_lag": 4, "max_pause": 1.0},
    )
    async with serving(model) as server:
        alone: list[float] = []
        beside: list[float] = []
        streams: list[trio.SocketStream] = []
        await first_tokens(server)
        for _ in range(N_ROUNDS):
            alone += await first_tokens(server)
            for open_some in (half_heads, half_bodies, readers_of_nothing):
                streams += await open_some(server)
            await trio.sleep(2.5)
            beside += await first_tokens(server)
            while streams:
                await streams.pop().aclose()
            await trio.sleep(1.0)
        ratio = median(beside) / median(alone)
        print(
            f"first token: {median(alone):.2f} ms alone, {median(beside):.2f} ms beside {3 * N_OF_EACH} slow clients,"
        )
        print(f"             {ratio:.3f} of it")
        for open_some in (half_heads, half_bodies, readers_of_nothing):
            streams += await open_some(server)
        await trio.sleep(1.0)
        begun = trio.current_time()
        server.ask_to_end()
        await server.ended.wait()
        print(f"the end: {trio.current_time() - begun:.2f} s, with a grace time of {GRACE_SECONDS:g} s")
        for stream in streams:
            await stream.aclose()


def main() -> int:
    """Measure on a server with logs."""
    with TemporaryDirectory() as folder:
        trio.run(measure, Path(folder))
    return 0


if __name__ == "__main__":
    sys.exit(main())
