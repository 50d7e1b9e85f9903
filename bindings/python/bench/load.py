"""The load of the benchmark: a process that is a server or a client, on the overlay or on the kernel's loopback.

A client's first byte selects the server's work. The server swallows a stream and returns its length, echoes
messages of 64 bytes, or sends the number of single bytes that the client names. A server prints its address, a
client its figures, as one line of JSON.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import os
import signal
import socket as kernel
import statistics
import sys
import threading
import time
from collections.abc import Callable, Iterator
from types import ModuleType
from typing import Any

BULK, PING, SOURCE, SINK = b"B", b"P", b"S", b"K"
WRITE_SIZE = 128 << 10
READ_SIZE = 256 << 10
PING_SIZE = 64
WARM_UP = 50
CONNECTIONS = 200
# AF_UNIX has room for 278 writes of one byte; more would measure how fast the node reads.
BURST = 100
BURSTS = 300


@contextlib.contextmanager
def network(overlay: str | None) -> Iterator[tuple[ModuleType, str]]:
    """The socket module and the own address on one of the two networks."""
    if overlay is None:
        yield kernel, "::1"
        return
    import peersock

    with peersock.Session(overlay, interfaces="loopback") as session:
        yield peersock.socket, str(session.address)


def serve(socket: ModuleType, address: str, overlay: bool) -> None:
    listener = socket.create_server((address, 0), family=socket.AF_INET6, backlog=CONNECTIONS)
    threading.Thread(target=serve_streams, args=(socket, address, overlay), daemon=True).start()
    port = listener.getsockname()[1]
    print(json.dumps({"address": address, "port": port, "streams": streams_port.get()}), flush=True)
    while True:
        connection, _ = listener.accept()
        threading.Thread(target=answer, args=(connection,), daemon=True).start()


def answer(connection: kernel.socket) -> None:
    with connection, contextlib.suppress(ConnectionError):
        connection.setsockopt(kernel.IPPROTO_TCP, kernel.TCP_NODELAY, 1)
        command = connection.recv(1)
        if command == BULK:
            buffer, total = memoryview(bytearray(READ_SIZE)), 0
            while size := connection.recv_into(buffer):
                total += size
            connection.sendall(total.to_bytes(8, "big"))
        elif command == PING:
            while message := connection.recv(PING_SIZE, kernel.MSG_WAITALL):
                connection.sendall(message)
        elif command == SOURCE:
            while size := int.from_bytes(connection.recv(4, kernel.MSG_WAITALL), "big"):
                connection.sendall(bytes(size))
        elif command == SINK:
            while data := connection.recv(BURST, kernel.MSG_WAITALL):
                connection.sendall(data[:1])


class Port:
    """A port that another thread makes."""

    def __init__(self) -> None:
        self._known = threading.Event()
        self._port = 0

    def set(self, port: int) -> None:
        self._port = port
        self._known.set()

    def get(self) -> int:
        self._known.wait()
        return self._port


streams_port = Port()


def serve_streams(socket: ModuleType, address: str, overlay: bool) -> None:
    async def echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(asyncio.IncompleteReadError, ConnectionError):
            while True:
                writer.write(await reader.readexactly(PING_SIZE))
                await writer.drain()
        writer.close()

    async def main() -> None:
        listener = socket.create_server((address, 0), family=socket.AF_INET6, backlog=CONNECTIONS)
        server = await asyncio.start_server(echo, sock=listener)
        streams_port.set(server.sockets[0].getsockname()[1])
        await server.serve_forever()

    asyncio.run(main())


def bulk(connect: Callable[[], kernel.socket], secs: float) -> dict[str, float]:
    """Goodput as the receiver counted it, until it said so."""
    data = bytes(WRITE_SIZE)
    with connect() as connection:
        connection.sendall(BULK)
        start, sent = time.perf_counter(), 0
        while time.perf_counter() - start < secs:
            connection.sendall(data)
            sent += len(data)
        connection.shutdown(kernel.SHUT_WR)
        received = int.from_bytes(connection.recv(8, kernel.MSG_WAITALL), "big")
        elapsed = time.perf_counter() - start
    if received != sent:
        raise SystemExit(f"sent {sent} bytes, {received} arrived")
    return {"gbps": received * 8 / elapsed / 1e9}


def ping_pong(connect: Callable[[], kernel.socket], secs: float) -> dict[str, float]:
    """Round trips of 64 bytes, one after another."""
    message, times = os.urandom(PING_SIZE), []
    with connect() as connection:
        connection.sendall(PING)
        end = time.perf_counter() + secs
        while (start := time.perf_counter()) < end:
            connection.sendall(message)
            if connection.recv(PING_SIZE, kernel.MSG_WAITALL) != message:
                raise SystemExit("the echo is another message")
            times.append(time.perf_counter() - start)
    times = sorted(times[WARM_UP:])
    return {"p50_us": statistics.median(times) * 1e6, "p99_us": times[len(times) * 99 // 100] * 1e6}


def streams(socket: ModuleType, address: str, port: int, secs: float) -> dict[str, float]:
    """Round trips of 64 bytes by as many asyncio streams at once as there are connections, in all."""

    async def exchange(index: int, start: asyncio.Event, connected: asyncio.Semaphore) -> int:
        sock = socket.socket(socket.AF_INET6, socket.SOCK_STREAM)
        sock.setblocking(False)
        await asyncio.get_running_loop().sock_connect(sock, (address, port))
        reader, writer = await asyncio.open_connection(sock=sock)
        connected.release()
        await start.wait()
        message, count = index.to_bytes(PING_SIZE, "big"), 0
        end = time.perf_counter() + secs
        while time.perf_counter() < end:
            writer.write(message)
            if await reader.readexactly(PING_SIZE) != message:
                raise SystemExit("the echo is another message")
            count += 1
        writer.close()
        return count

    async def main() -> dict[str, float]:
        start, connected = asyncio.Event(), asyncio.Semaphore(0)
        tasks = [asyncio.create_task(exchange(index, start, connected)) for index in range(CONNECTIONS)]
        for _ in tasks:
            await connected.acquire()
        start.set()
        began = time.perf_counter()
        counts = await asyncio.gather(*tasks)
        elapsed = time.perf_counter() - began
        return {"per_s": sum(counts) / elapsed, "least": min(counts), "most": max(counts)}

    return asyncio.run(main())


def calls(connect: Callable[[], kernel.socket]) -> dict[str, float]:
    """Measures the class's cost for each call, against the standard library's class on the same descriptor."""
    figures: dict[str, float] = {}
    for name, one in (("recv", receive_bytes), ("send", send_bytes)):
        with connect() as drop_in, kernel.socket(fileno=os.dup(drop_in.fileno())) as plain:
            drop_in.sendall(SOURCE if name == "recv" else SINK)
            times: dict[Any, list[float]] = {drop_in: [], plain: []}
            for _ in range(BURSTS):
                for sock, spent in times.items():
                    spent.append(one(drop_in, sock))
        figures[f"{name}_us"] = statistics.median(times[drop_in]) / BURST * 1e6
        figures[f"{name}_plain_us"] = statistics.median(times[plain]) / BURST * 1e6
        figures[f"{name}_overhead_us"] = figures[f"{name}_us"] - figures[f"{name}_plain_us"]
    return figures


def passed(socket: ModuleType) -> dict[str, float]:
    """Measures the class's cost on kernel sockets, where each datagram's address is checked."""
    with kernel.socket(kernel.AF_INET6, kernel.SOCK_DGRAM) as receiver:
        receiver.bind(("::1", 0))
        to = receiver.getsockname()
        kind = kernel.AF_INET6, kernel.SOCK_DGRAM
        with socket.socket(*kind) as drop_in, kernel.socket(*kind) as plain:
            times: dict[Any, list[float]] = {drop_in: [], plain: []}
            for _ in range(BURSTS):
                for sock, spent in times.items():
                    spent.append(send_datagrams(sock, to))
    cost = statistics.median(times[drop_in]) - statistics.median(times[plain])
    return {"sendto_kernels_overhead_us": cost / BURST * 1e6}


def send_datagrams(sock: kernel.socket, to: tuple[Any, ...]) -> float:
    sendto = sock.sendto
    start = time.perf_counter()
    for _ in range(BURST):
        sendto(b"x", to)
    return time.perf_counter() - start


def receive_bytes(control: kernel.socket, sock: kernel.socket) -> float:
    control.sendall(BURST.to_bytes(4, "big"))
    while len(control.recv(BURST, kernel.MSG_PEEK)) < BURST:
        pass
    recv = sock.recv
    start = time.perf_counter()
    for _ in range(BURST):
        recv(1)
    return time.perf_counter() - start


def send_bytes(control: kernel.socket, sock: kernel.socket) -> float:
    send = sock.send
    start = time.perf_counter()
    for _ in range(BURST):
        send(b"x")
    elapsed = time.perf_counter() - start
    control.recv(1)
    return elapsed


def client(socket: ModuleType, options: argparse.Namespace) -> dict[str, float]:
    def connect() -> kernel.socket:
        connection: kernel.socket = socket.create_connection((options.address, options.port), timeout=30)
        connection.settimeout(None)
        connection.setsockopt(kernel.IPPROTO_TCP, kernel.TCP_NODELAY, 1)
        return connection

    if options.case == "streams":
        return streams(socket, options.address, options.port, options.secs)
    if options.case == "calls":
        return calls(connect) | passed(socket)
    return {"bulk": bulk, "ping-pong": ping_pong}[options.case](connect, options.secs)


def main() -> None:
    parser = argparse.ArgumentParser(description="Load for the benchmark of the Python package.")
    parser.add_argument("--overlay", metavar="NETWORK", help="the overlay network; without it the kernel loopback")
    roles = parser.add_subparsers(dest="role", required=True)
    roles.add_parser("serve", help="serve every case, until standard input ends")
    one = roles.add_parser("client", help="run one case and print its figures")
    one.add_argument("case", choices=["bulk", "ping-pong", "streams", "calls"])
    one.add_argument("address")
    one.add_argument("port", type=int)
    one.add_argument("--secs", type=float, default=3.0)
    options = parser.parse_args()
    with network(options.overlay) as (socket, address):
        if options.role == "client":
            print(json.dumps(client(socket, options)))
            return
        threading.Thread(target=end_with_parent, daemon=True).start()
        serve(socket, address, options.overlay is not None)


def end_with_parent() -> None:
    sys.stdin.read()
    os.kill(os.getpid(), signal.SIGKILL)


if __name__ == "__main__":
    main()
