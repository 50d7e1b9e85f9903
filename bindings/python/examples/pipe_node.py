"""A node that answers PING, and one that asks it: ``python pipe_node.py NETWORK`` prints an address text, ``python
pipe_node.py NETWORK TEXT`` connects to it."""

import asyncio
import sys
from typing import Any

import peersock
from peersock.pipe import P2PNode, Pipe


async def msg_cb(msg: bytes, client_tup: Any, pipe: Pipe) -> None:
    if b"PING" in msg:
        await pipe.send(b"PONG")


async def main() -> None:
    async with peersock.Session(sys.argv[1]) as session, P2PNode(port=0, session=session) as node:
        node.add_msg_cb(msg_cb)
        if len(sys.argv) > 2:
            pipe = await node.connect(sys.argv[2])
            await pipe.send(b"PING")
            print((await pipe.recv(timeout=10) or b"no answer").decode())
            await pipe.close()
        else:
            print(node.addr_bytes.decode(), flush=True)
            await asyncio.Event().wait()


asyncio.run(main())
