"""Answers on the overlay: every message by callback, what begins with a digit by subscription."""

import asyncio
import math
import sys
from typing import Any

import peersock
from peersock.pipe import UDP, Pipe, overlay_route, pipe_open


def heard(msg: bytes, client_tup: Any, pipe: Pipe) -> None:
    # A plain function does as well.
    print("heard", msg.decode(), flush=True)


async def main() -> None:
    async with peersock.Session(sys.argv[1]) as session:
        route = await overlay_route(session).bind(7000)
        async with await pipe_open(UDP, route=route, msg_cb=heard) as server:
            numbers = server.subscribe(rb"^\d+$")
            print(session.address, flush=True)
            while True:
                client_tup, msg = await server.recv(numbers, math.inf, full=True) or (("", 0), b"")
                await server.send(b"%d" % (int(msg) ** 2), client_tup)


asyncio.run(main())
