"""Tests that ``sock_*`` and readiness, which uvloop leaves to Python's socket objects, work on overlay sockets."""

from __future__ import annotations

import asyncio
import socket
import sys

import uvloop
from common import SIZES, data, listener, ready


async def receive(sock: socket.socket, size: int) -> bytes:
    loop, received = asyncio.get_running_loop(), b""
    while len(received) < size:
        piece = await loop.sock_recv(sock, 65_536)
        assert piece, "it ends too early"
        received += piece
    return received


async def serve() -> None:
    loop = asyncio.get_running_loop()

    async def answer(sock: socket.socket) -> None:
        with sock:
            for seed, size in enumerate(SIZES):
                assert await receive(sock, size) == data(seed, size)
                await loop.sock_sendall(sock, data(seed, size)[::-1])

    tasks = set()
    with listener() as server:
        server.setblocking(False)
        ready(server)
        while True:
            sock, _ = await loop.sock_accept(server)
            tasks.add(asyncio.create_task(answer(sock)))


async def client(host: str, port: int) -> None:
    loop = asyncio.get_running_loop()

    async def exchange() -> None:
        with socket.socket(socket.AF_INET6, socket.SOCK_STREAM) as sock:
            sock.setblocking(False)
            await loop.sock_connect(sock, (host, port))
            for seed, size in enumerate(SIZES):
                await loop.sock_sendall(sock, data(seed, size))
                assert await receive(sock, size) == data(seed, size)[::-1]

    await asyncio.gather(*(exchange() for _ in range(10)))


if __name__ == "__main__":
    if sys.argv[1] == "serve":
        uvloop.run(serve())
    else:
        uvloop.run(client(sys.argv[2], int(sys.argv[3])))
        print("ok")
