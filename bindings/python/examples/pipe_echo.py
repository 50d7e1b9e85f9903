"""One echo server for TCP and UDP, and clients that await its answers: ``python pipe_echo.py``."""

import asyncio
from typing import Any

from peersock.interfaces import Interface
from peersock.pipe import TCP, UDP, Daemon, Pipe, pipe_open


class EchoServer(Daemon):
    async def msg_cb(self, msg: bytes, client_tup: Any, pipe: Pipe) -> None:
        await pipe.send(msg, client_tup)


async def main() -> None:
    nic = await Interface("lo")
    # Port 0 is any free one, at the addresses of IPv4 and IPv6 alike.
    async with await EchoServer().listen_all([nic], [0], [TCP, UDP]) as server:
        for listening in server.servers:
            async with await pipe_open(listening.proto, listening.local_tup, nic) as client:
                for _ in range(3):
                    # A datagram may be lost.
                    await client.send(b"hello")
                    answer = await client.recv(timeout=3)
                    if answer is not None:
                        break
                print("TCP" if listening.proto == TCP else "UDP", listening.local_tup[0], answer)


asyncio.run(main())
