"""Asks the server for squares: ``python pipe_client.py NETWORK ADDRESS``."""

import asyncio
import sys

import peersock
from peersock.pipe import UDP, pipe_open, send_recv_loop


async def main() -> None:
    async with peersock.Session(sys.argv[1]) as session:
        await session.wait_peer_async(sys.argv[2], 30)
        async with await pipe_open(UDP, (sys.argv[2], 7000)) as pipe:
            await pipe.send(b"good day")
            for number in (3, 12):
                print(number, (await send_recv_loop(None, pipe, b"%d" % number) or b"no answer").decode())


asyncio.run(main())
