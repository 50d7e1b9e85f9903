"""The other process of the tests: ``python -m tests.peer NETWORK SEED``, then one function a line of input."""

from __future__ import annotations

import asyncio
import select
import ssl
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import peersock
from peersock import pipe, socket

from . import delivery

CERTIFICATE = Path(__file__).parent / "certificate.pem"


def say(*words: object) -> None:
    """One line to who has started us."""
    print(*words, flush=True)


def _listen(family: int) -> socket.socket:
    server = socket.create_server(("", 0), family=family)
    say(server.getsockname()[1])
    return server


def echo(family: str) -> None:
    """Sends back what one connection sends, until its end."""
    server = _listen(int(family))
    connection, _ = server.accept()
    while data := connection.recv(1 << 16):
        connection.sendall(data)
    connection.close()
    server.close()


def echo_many(count: str) -> None:
    """As `echo`, for several connections at once."""
    server = _listen(socket.AF_INET6)

    def serve(connection: Any) -> None:
        with connection:
            while data := connection.recv(1 << 16):
                connection.sendall(data)

    for _ in range(int(count)):
        threading.Thread(target=serve, args=(server.accept()[0],), daemon=True).start()
    server.close()


def silent() -> None:
    """Accepts one connection and does nothing with it until it ends."""
    server = _listen(socket.AF_INET6)
    connection, _ = server.accept()
    connection.recv(1)
    connection.close()
    server.close()


def meet(address: str) -> None:
    """Says that there is a session with a member once there is one."""
    say("met" if sessions[0].wait_peer(address, 60) else "nobody")


def greeting() -> None:
    """Accepts one connection, sends a byte, and is silent until it ends."""
    server = _listen(socket.AF_INET6)
    connection, _ = server.accept()
    connection.sendall(b"x")
    connection.recv(1)
    connection.close()
    server.close()


def failing() -> None:
    """Accepts one connection and reads from it until that fails; says the number of the error."""
    server = _listen(socket.AF_INET6)
    connection, _ = server.accept()
    try:
        while connection.recv(1 << 16):
            pass
    except OSError as error:
        say("failed", error.errno)
    else:
        say("ended")
    connection.close()
    server.close()


def deaf() -> None:
    """Accepts one connection and reads nothing of it."""
    server = _listen(socket.AF_INET6)
    connection, _ = server.accept()
    ended = select.poll()
    ended.register(connection, select.POLLRDHUP)
    ended.poll()
    connection.close()
    server.close()


def throw_away() -> None:
    """Accepts one connection and reads nothing of it; closes it when a second one is there."""
    server = _listen(socket.AF_INET6)
    connection, _ = server.accept()
    second, _ = server.accept()
    connection.close()
    second.recv(1)
    second.close()
    server.close()


def receive(scenario: str, size: str) -> None:
    """Does what a scenario of the table of deliveries says; says then how much it has read."""
    server = delivery.listening("")
    say(server.getsockname()[1])
    try:
        say("read", delivery.receive(server, scenario, int(size)))
    except Exception as error:
        # Otherwise the test would wait for ever.
        say("failed", repr(error))
        raise


def datagrams(family: str, count: str) -> None:
    """Sends back `count` datagrams."""
    sock = socket.socket(int(family), socket.SOCK_DGRAM)
    sock.bind(("", 0))
    say(sock.getsockname()[1])
    for _ in range(int(count)):
        data, sender = sock.recvfrom(1 << 16)
        sock.sendto(data, sender)
    sock.close()


def tls() -> None:
    """As `echo`, with TLS."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(CERTIFICATE)
    with peersock.patched():
        server = _listen(socket.AF_INET6)
        wrapped = context.wrap_socket(server, server_side=True)
        connection, address = wrapped.accept()
        assert connection.getpeername() == address
        while data := connection.recv(1 << 16):
            connection.sendall(data)
        connection.close()
        wrapped.close()


def connect(address: str, port: str) -> None:
    """Connects, and sends one line."""
    with socket.create_connection((address, int(port)), timeout=20) as connection:
        connection.sendall(b"from there\n")
        say("done", connection.recv(100).decode().strip())


def crowd(address: str, port: str, count: str) -> None:
    """Connects `count` times. Prints the numbers of answered and of reset connections."""
    answered: list[socket.socket] = []
    reset = 0
    try:
        for _ in range(int(count)):
            try:
                # It may be reset before this process has seen that it stands.
                connection = socket.create_connection((address, int(port)), timeout=20)
                connection.sendall(b"x")
                assert connection.recv(1) == b"x"
                answered.append(connection)
            except (ConnectionResetError, BrokenPipeError):
                reset += 1
        say(len(answered), reset)
    except Exception as error:
        # The process that asked waits for a line.
        say("failed", repr(error))
        raise
    for connection in answered:
        connection.close()


def pipe_echo(proto: str, address: str) -> None:
    """Sends back what a pipe hears, until it hears ``end``."""

    async def main() -> None:
        ended = asyncio.Event()

        async def answer(msg: bytes, client_tup: Any, other: pipe.Pipe) -> None:
            if msg == b"end":
                ended.set()
            else:
                await other.send(msg, client_tup)

        async with await pipe.pipe_open(int(proto), route=(address, 0), msg_cb=answer) as server:
            say(server.local_tup[1])
            await ended.wait()

    asyncio.run(main())


def pipe_node() -> None:
    """A node that sends back what it hears, until it hears ``end``."""

    async def main() -> None:
        ended = asyncio.Event()

        async def answer(msg: bytes, client_tup: Any, other: pipe.Pipe) -> None:
            await other.send(msg.upper())
            if msg == b"end":
                ended.set()

        async with pipe.P2PNode(port=0, session=sessions[0]) as node:
            node.add_msg_cb(answer)
            say(node.addr_bytes.decode())
            await ended.wait()

    asyncio.run(main())


#: The one of this process.
sessions: list[peersock.Session] = []

FUNCTIONS: dict[str, Callable[..., None]] = {
    function.__name__: function
    for function in (
        echo,
        echo_many,
        silent,
        failing,
        greeting,
        meet,
        deaf,
        throw_away,
        receive,
        datagrams,
        tls,
        connect,
        crowd,
        pipe_echo,
        pipe_node,
    )
}


def main() -> None:
    """Runs the functions that its input names."""
    path, seed = sys.argv[1:]
    with peersock.Session(path, identity=bytes.fromhex(seed), interfaces="loopback", linger=1) as session:
        sessions.append(session)
        say(session.address)
        for line in sys.stdin:
            name, *arguments = line.split()
            threading.Thread(target=FUNCTIONS[name], args=arguments, daemon=True).start()


if __name__ == "__main__":
    main()
