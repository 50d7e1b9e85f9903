"""Takes connections of this machine to a member of the overlay: ``python pipe_relay.py NETWORK ADDRESS [PORT]``."""

import asyncio
import sys
from typing import Any

import peersock
from peersock.pipe import TCP, Pipe, pipe_open


async def splice(msg: None, client_tup: Any, client: Pipe) -> None:
    other = await pipe_open(TCP, (sys.argv[2], 7000))
    client.add_pipe(other)
    other.add_pipe(client)
    # The end of one is the end of the other.
    client.add_end_cb(lambda *_: other.close())
    other.add_end_cb(lambda *_: client.close())


async def main() -> None:
    async with peersock.Session(sys.argv[1]) as session:
        await session.wait_peer_async(sys.argv[2], 30)
        port = int(sys.argv[3]) if len(sys.argv) > 3 else 0
        async with await pipe_open(TCP, route=("127.0.0.1", port), up_cb=splice) as server:
            print(server.local_tup[1], flush=True)
            await asyncio.Event().wait()


asyncio.run(main())
