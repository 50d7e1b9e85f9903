"""Copies of a descriptor, made before the socket turns out to be the overlay's, are the overlay's, too."""

from __future__ import annotations

import asyncio
import errno
import multiprocessing
import os
import select
import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest

import peersock
from peersock import socket
from peersock._copies import following

from .conftest import Peer, run_python

V6, STREAM, DGRAM = int(socket.AF_INET6), int(socket.SOCK_STREAM), int(socket.SOCK_DGRAM)


@pytest.fixture(autouse=True)
def _patched(session: peersock.Session) -> Iterator[None]:
    with peersock.patched():
        yield


def _dup2(sock: socket.socket) -> socket.socket:
    with socket.socket() as other:
        number = other.detach()
    return socket.socket(fileno=os.dup2(sock.fileno(), number))


#: Ways to get a second socket object for a socket.
WAYS: dict[str, Callable[[socket.socket], socket.socket]] = {
    "socket.dup": lambda sock: sock.dup(),
    "dup": lambda sock: socket.socket(fileno=socket.dup(sock.fileno())),
    "fromfd": lambda sock: socket.fromfd(sock.fileno(), sock.family, sock.type),
    "os.dup": lambda sock: socket.socket(fileno=os.dup(sock.fileno())),
    "os.dup2": _dup2,
    "a copy of a copy": lambda sock: sock.dup().dup(),
}


@pytest.fixture(params=WAYS)
def way(request: pytest.FixtureRequest) -> Callable[[socket.socket], socket.socket]:
    """Makes the second one."""
    return WAYS[request.param]


@pytest.mark.parametrize("by_copy", [False, True])
def test_a_copy_of_what_connects_is_connected(
    peer: Peer, way: Callable[[socket.socket], socket.socket], by_copy: bool
) -> None:
    with socket.socket(V6, STREAM) as sock, way(sock) as copy:
        one, other = (copy, sock) if by_copy else (sock, copy)
        one.settimeout(20)
        other.settimeout(20)
        one.connect((peer.v6, peer.port("echo", V6)))
        assert one.getpeername() == other.getpeername()
        other.sendall(b"hello")
        assert one.recv(5) == b"hello"
        # It lives as long as one of them.
        one.close()
        other.sendall(b"again")
        assert other.recv(5) == b"again"


@pytest.mark.parametrize("bound_to", ["", "own"])
@pytest.mark.parametrize("by_copy", [False, True])
def test_a_copy_of_what_listens_accepts(
    session: peersock.Session, way: Callable[[socket.socket], socket.socket], bound_to: str, by_copy: bool
) -> None:
    with socket.socket(V6, STREAM) as sock, way(sock) as copy:
        one, other = (copy, sock) if by_copy else (sock, copy)
        one.bind((session.address if bound_to else "::", 0))
        one.listen()
        other.settimeout(20)
        assert other.getsockname() == one.getsockname()
        with socket.create_connection((session.address, one.getsockname()[1]), timeout=20) as client:
            connection, address = other.accept()
            with connection:
                assert address == client.getsockname()


@pytest.mark.parametrize("call", ["sendto", "connect", "bind"])
def test_a_copy_of_a_datagram_socket_hears_and_sends(
    peer: Peer, session: peersock.Session, way: Callable[[socket.socket], socket.socket], call: str
) -> None:
    address = (peer.v6, peer.port("datagrams", V6, 2))
    with socket.socket(V6, DGRAM) as sock, way(sock) as copy:
        copy.settimeout(20)
        if call == "bind":
            sock.bind((session.address, 0))
        if call == "connect":
            sock.connect(address)
            sock.send(b"first")
        else:
            sock.sendto(b"first", address)
        assert copy.recv(10) == b"first"
        assert copy.getsockname() == sock.getsockname()
        copy.send(b"second") if call == "connect" else copy.sendto(b"second", address)
        assert copy.recv(10) == b"second"


def test_a_descriptor_that_no_object_has_is_connected(peer: Peer) -> None:
    with socket.socket(V6, STREAM) as sock:
        copy = os.dup(sock.fileno())
        assert not os.get_inheritable(copy)
        sock.settimeout(20)
        sock.connect((peer.v6, peer.port("echo", V6)))
        os.write(copy, b"hello")
        assert sock.recv(5) == b"hello"
        assert not os.get_inheritable(copy)
        os.close(copy)


def test_a_second_attempt_is_one_for_the_copy_as_well(peer: Peer) -> None:
    with socket.socket(V6, STREAM) as sock, sock.dup() as copy:
        sock.setblocking(False)
        assert sock.connect_ex((peer.v6, 9))
        assert select.select([], [sock], [], 20)[1]
        assert sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
        assert sock.connect_ex((peer.v6, 9)) == errno.ECONNABORTED
        sock.settimeout(20)
        sock.connect((peer.v6, peer.port("echo", V6)))
        copy.settimeout(20)
        copy.sendall(b"hello")
        assert sock.recv(5) == b"hello"


def test_a_number_that_is_another_file_s_meanwhile_is_left_alone(peer: Peer) -> None:
    with socket.socket(V6, STREAM) as sock:
        copy = os.dup(sock.fileno())
        reader, writer = os.pipe()
        os.dup2(writer, copy)
        sock.settimeout(20)
        sock.connect((peer.v6, peer.port("silent")))
        os.write(copy, b"pipe")
        assert os.read(reader, 4) == b"pipe"
        for fd in (copy, reader, writer):
            os.close(fd)


def test_a_socket_that_is_closed_while_it_connects_leaves_its_copies_alone(session: peersock.Session) -> None:
    address = (session.address, 9)
    with socket.socket(V6, STREAM) as sock, sock.dup() as copy, open(os.devnull) as other:
        identity = os.fstat(copy.fileno()).st_ino

        def call(fd: int, given: tuple[str, int]) -> None:
            assert (fd, given) == (number, address)
            # As another thread does that ends the attempt: the number is another file's then.
            sock.close()
            os.dup2(other.fileno(), fd)

        number = sock.fileno()
        following(call, sock, address)
        assert os.fstat(number).st_ino != identity
        assert os.fstat(copy.fileno()).st_ino == identity
        os.close(number)


def test_copies_of_other_sockets_stay_what_they_are(peer: Peer) -> None:
    with socket.socket(V6, STREAM) as sock, socket.socket(V6, STREAM) as other, other.dup() as copy:
        identity = os.fstat(copy.fileno()).st_ino
        sock.settimeout(20)
        sock.connect((peer.v6, peer.port("silent")))
        assert os.fstat(copy.fileno()).st_ino == os.fstat(other.fileno()).st_ino == identity


def test_a_copy_stays_in_the_epoll_sets_that_it_is_in(peer: Peer) -> None:
    with socket.socket(V6, STREAM) as sock, sock.dup() as copy, select.epoll() as known, select.epoll() as edges:
        known.register(copy, select.EPOLLIN)
        edges.register(copy, select.EPOLLIN | select.EPOLLET | select.EPOLLONESHOT)
        known.poll(0)
        edges.poll(0)
        sock.settimeout(20)
        sock.connect((peer.v6, peer.port("echo", V6)))
        # An event armed before may be of the kernel socket, which was not connected.
        edges.modify(copy, select.EPOLLIN | select.EPOLLET | select.EPOLLONESHOT)
        assert known.poll(0) == edges.poll(0) == []
        sock.sendall(b"hello")
        assert known.poll(20) == edges.poll(20) == [(copy.fileno(), select.EPOLLIN)]
        assert copy.recv(5) == b"hello"


async def test_asyncio_may_watch_a_copy(peer: Peer) -> None:
    address = (peer.v6, peer.port("datagrams", V6, 1))
    loop = asyncio.get_running_loop()
    with socket.socket(V6, DGRAM) as sock, sock.dup() as copy:
        copy.setblocking(False)
        heard: asyncio.Future[bytes] = loop.create_future()
        loop.add_reader(copy, lambda: heard.set_result(copy.recv(10)))
        await asyncio.sleep(0)
        sock.sendto(b"hello", address)
        assert await asyncio.wait_for(heard, 20) == b"hello"
        loop.remove_reader(copy)


def test_a_copy_asks_for_the_port_as_the_original_does(session: peersock.Session) -> None:
    with socket.socket(V6, DGRAM) as server, socket.socket(V6, DGRAM) as client:
        server.bind(("::", 0))
        with server.dup() as copy:
            port = copy.getsockname()[1]
            client.sendto(b"hello", (session.address, port))
            server.settimeout(20)
            assert server.recv(10) == b"hello"
            assert server.getsockname()[1] == port


def test_threads_that_copy_and_connect_at_once_do_not_disturb_each_other(peer: Peer) -> None:
    port, count = peer.port("echo_many", 40), 8
    errors: list[BaseException] = []

    def work() -> None:
        try:
            for _ in range(5):
                with socket.socket(V6, STREAM) as sock, sock.dup() as copy:
                    for one in (sock, copy):
                        one.settimeout(20)
                    sock.connect((peer.v6, port))
                    text = str(sock.getsockname()).encode()
                    copy.sendall(text)
                    got = b""
                    while len(got) < len(text):
                        got += sock.recv(100)
                    assert got == text
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=work) for _ in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert errors == []


def _connect(sock: socket.socket, address: tuple[str, int]) -> None:
    sock.settimeout(20)
    sock.connect(address)
    sock.sendall(b"child")
    assert sock.recv(5) == b"child"


@pytest.mark.parametrize("method", ["fork", "spawn"])
def test_a_child_connects_the_socket_that_it_was_given(peer: Peer, method: str) -> None:
    # The parent's stays the kernel's: `docs/reference/SOCKETS.md` says why.
    context: Any = multiprocessing.get_context(method)
    with socket.socket(V6, STREAM) as sock:
        child = context.Process(target=_connect, args=(sock, (peer.v6, peer.port("echo", V6))))
        child.start()
        child.join(60)
        assert child.exitcode == 0
        with pytest.raises(OSError):
            sock.getpeername()
        # It can still be connected.
        _connect(sock, (peer.v6, peer.port("echo", V6)))


def test_without_patching_os_is_its_own_and_socket_objects_follow(peer: Peer) -> None:
    code = (
        "import os, sys, peersock\n"
        "from peersock import socket\n"
        "before = os.dup, os.dup2\n"
        "with peersock.Session('ff0001ffff000000', interfaces='loopback') as session:\n"
        "    server = socket.create_server((session.address, 0), family=socket.AF_INET6)\n"
        "    for copied in (lambda fd: os.dup(fd), lambda fd: socket.dup(fd)):\n"
        "        sock = socket.socket(socket.AF_INET6)\n"
        "        copy = socket.socket(fileno=copied(sock.fileno()))\n"
        "        sock.connect(server.getsockname()[:2]); other = server.accept()[0]\n"
        "        copy.sendall(b'x'); print(other.recv(1))\n"
        "        for one in (sock, copy, other): one.close()\n"
        "    server.close()\n"
        "    with peersock.patched(): assert os.dup is not before[0]\n"
        "assert (os.dup, os.dup2) == before\n"
    )
    assert run_python(code) == "b'x'\nb'x'\n"
