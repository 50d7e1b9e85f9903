"""TCP: blocking, with timeouts, and without waiting."""

from __future__ import annotations

import errno
import io
import os
import random
import select
import selectors
import signal
import tempfile
import threading
import time

import pytest

import peersock
from peersock import socket

from .conftest import Network, Peer, fails, run_python


@pytest.mark.parametrize("family", [socket.AF_INET, socket.AF_INET6])
def test_bytes_pass_in_both_directions(peer: Peer, family: socket.AddressFamily) -> None:
    address = (peer.v4 if family == socket.AF_INET else peer.v6, peer.port("echo", int(family)))
    with socket.create_connection(address, timeout=10) as sock:
        assert isinstance(sock, socket.socket)
        assert (sock.family, sock.type) == (family, socket.SOCK_STREAM)
        assert sock.getpeername()[:2] == address
        sock.sendall(b"hello")
        assert sock.recv(100) == b"hello"
        assert f"raddr={sock.getpeername()}" in repr(sock)


def test_names_of_members_resolve(peer: Peer) -> None:
    port = peer.port("echo", int(socket.AF_INET6))
    with socket.create_connection(("there", port), timeout=10) as sock:
        assert sock.getpeername()[0] in (peer.v6, peer.v4)
    assert socket.gethostbyname("there") == peer.v4
    assert socket.gethostbyaddr(peer.v4)[0] == "there"
    assert socket.getnameinfo((peer.v6, 80), socket.NI_NUMERICSERV) == ("there", "80")
    found = {entry[4][0] for entry in socket.getaddrinfo("there", 80, type=socket.SOCK_STREAM)}
    assert found == {peer.v4, peer.v6}


def test_others_connect_to_a_wildcard(peer: Peer, session: peersock.Session) -> None:
    with socket.create_server(("", 0), family=socket.AF_INET6) as server:
        server.settimeout(20)
        port = server.getsockname()[1]
        told = threading.Thread(target=peer.start, args=("connect", session.address, port))
        told.start()
        connection, address = server.accept()
        assert address[0] == peer.v6
        with connection, connection.makefile("rw") as file:
            assert file.readline() == "from there\n"
            file.write("heard\n")
            file.flush()
        told.join()


def test_refusals_and_unreachable_addresses_are_exceptions(peer: Peer) -> None:
    with fails(errno.ECONNREFUSED, ConnectionRefusedError):
        socket.create_connection((peer.v6, 9), timeout=10)
    with socket.socket(socket.AF_INET6) as sock:
        assert sock.connect_ex((peer.v6, 9)) == errno.ECONNREFUSED
    with socket.socket(socket.AF_INET6) as sock, pytest.raises(OSError) as unknown:
        sock.bind((peer.v6, 80))
    assert unknown.value.errno == errno.EADDRNOTAVAIL


@pytest.mark.parametrize("timeout", [None, 10, 0])
def test_a_refused_socket_may_try_again(session: peersock.Session, timeout: float | None) -> None:
    with socket.create_server((session.address, 0), family=socket.AF_INET6) as server:
        address = server.getsockname()[:2]
    with socket.socket(socket.AF_INET6) as sock:
        sock.settimeout(timeout)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

        def attempt() -> int:
            error = sock.connect_ex(address)
            if error == errno.EINPROGRESS:
                select.select([], [sock], [], 10)
                error = sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
            return error

        # As Linux: one that was not waited for is over with the next call.
        over = errno.ECONNREFUSED if timeout is None else errno.ECONNABORTED
        assert [attempt() for _ in range(3)] == [errno.ECONNREFUSED, over, errno.ECONNREFUSED]
        with socket.create_server(address, family=socket.AF_INET6):
            assert timeout is None or attempt() == errno.ECONNABORTED
            assert attempt() == 0
            assert sock.getpeername()[:2] == address
            assert sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY) == 1


def test_a_timeout_is_an_exception_and_the_socket_goes_on(peer: Peer) -> None:
    with socket.create_connection((peer.v6, peer.port("echo", int(socket.AF_INET6))), timeout=10) as sock:
        sock.settimeout(0.05)
        with pytest.raises(TimeoutError, match=r"^timed out$"):
            sock.recv(1)
        sock.settimeout(10)
        sock.sendall(b"x")
        assert sock.recv(1) == b"x"
    with socket.create_server(("", 0), family=socket.AF_INET6) as server:
        server.settimeout(0.05)
        server.getsockname()
        with pytest.raises(TimeoutError, match=r"^timed out$"):
            server.accept()


def test_without_waiting_calls_say_that_they_would(peer: Peer) -> None:
    sock = socket.socket(socket.AF_INET6)
    sock.setblocking(False)
    with pytest.raises(BlockingIOError):
        sock.connect((peer.v6, peer.port("echo", int(socket.AF_INET6))))
    assert select.select([], [sock], [], 10)[1] == [sock]
    assert sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR) == 0
    with pytest.raises(BlockingIOError):
        sock.recv(1)
    sock.send(b"x")
    with selectors.DefaultSelector() as selector:
        selector.register(sock, selectors.EVENT_READ)
        assert selector.select(10)
    assert sock.recv(10) == b"x"
    sock.close()


def test_much_data_arrives_whole(peer: Peer) -> None:
    data = os.urandom(1 << 20) * 4
    with socket.create_connection((peer.v6, peer.port("echo", int(socket.AF_INET6))), timeout=30) as sock:
        sender = threading.Thread(target=sock.sendall, args=(data,))
        sender.start()
        received = bytearray()
        while len(received) < len(data):
            received += sock.recv(1 << 16)
        sender.join()
    assert received == data


def test_files_are_sent(peer: Peer) -> None:
    with socket.create_connection((peer.v6, peer.port("echo", int(socket.AF_INET6))), timeout=30) as sock:
        with tempfile.TemporaryFile() as file:
            file.write(b"file" * 1000)
            file.seek(0)
            assert sock.sendfile(file) == 4000
        assert sock.sendfile(io.BytesIO(b"memory")) == 6
        sock.shutdown(socket.SHUT_WR)
        with sock.makefile("rb") as stream:
            assert stream.read() == b"file" * 1000 + b"memory"


def test_messages_have_pieces(peer: Peer) -> None:
    with socket.create_connection((peer.v6, peer.port("echo", int(socket.AF_INET6))), timeout=30) as sock:
        assert sock.sendmsg([b"ab", bytearray(b"cd"), memoryview(b"e")]) == 5
        time.sleep(0.05)
        first, second = bytearray(2), bytearray(10)
        count, ancillary, flags, address = sock.recvmsg_into([first, second])
        assert (count, bytes(first), bytes(second[:3])) == (5, b"ab", b"cde")
        assert (ancillary, flags & ~socket.MSG_EOR, address) == ([], 0, None)


def test_a_copy_is_the_same_connection(peer: Peer) -> None:
    sock = socket.create_connection((peer.v6, peer.port("echo", int(socket.AF_INET6))), timeout=10)
    copy = sock.dup()
    number = sock.detach()
    again = socket.socket(fileno=number)
    assert (again.family, again.type) == (socket.AF_INET6, socket.SOCK_STREAM)
    assert again.getpeername() == copy.getpeername()
    again.close()
    copy.sendall(b"x")
    assert copy.recv(1) == b"x"
    copy.close()


def test_options_are_kept_when_a_socket_becomes_the_overlay_s(peer: Peer) -> None:
    with socket.socket(socket.AF_INET6) as sock:
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        sock.settimeout(10)
        sock.connect((peer.v6, peer.port("silent")))
        assert sock.gettimeout() == 10
        assert sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY) == 1
        assert sock.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE) == 1
        assert len(sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 104)) > 60
        with pytest.raises(OSError):
            sock.setsockopt(socket.IPPROTO_TCP, 12345, 1)


def test_who_only_waits_gives_up_as_the_keepalive_options_say(session: peersock.Session, network: Network) -> None:
    victim = Peer(network, network.spare())
    try:
        with socket.create_connection((victim.v6, victim.port("silent")), timeout=60) as sock:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, 2)
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, 1)
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPCNT, 2)
            # It stands longer than the options allow silence, because the peer answers.
            assert select.select([sock], [], [], 6) == ([], [], [])
            os.kill(victim.process.pid, signal.SIGSTOP)
            began = time.monotonic()
            # Not that of the timeout, which has no number.
            with fails(errno.ETIMEDOUT, TimeoutError):
                sock.recv(1)
            # 4 s at most, and what a busy machine adds; without the options it would wait for ever.
            assert time.monotonic() - began < 30
    finally:
        victim.kill()


def test_loopback_and_unix_sockets_are_the_kernel_s(session: peersock.Session) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        with socket.create_connection(server.getsockname()) as client:
            connection, _ = server.accept()
            connection.sendall(b"kernel")
            assert client.recv(10) == b"kernel"
            connection.close()
    first, second = socket.socketpair()
    assert first.family == socket.AF_UNIX
    assert isinstance(first, socket.socket)
    first.sendall(b"x")
    assert second.recv(1) == b"x"
    first.close()
    second.close()


def test_what_a_closed_socket_is_asked_fails(peer: Peer) -> None:
    sock = socket.create_connection((peer.v6, peer.port("silent")), timeout=10)
    sock.close()
    assert "[closed]" in repr(sock)
    for call in (sock.getsockname, sock.getpeername, lambda: sock.recv(1), lambda: sock.send(b"")):
        with fails(errno.EBADF, OSError):
            call()


def test_an_ipv4_server_binds_the_address_that_it_is_shown_where_there_is_ipv6_only() -> None:
    # As FTP does for passive transfers.
    code = (
        "import sys, threading, peersock\n"
        "from peersock import socket\n"
        "with peersock.Session(sys.argv[1], interfaces='loopback', ready_timeout=30) as session:\n"
        "    server = socket.create_server(('', 0))\n"
        "    client = socket.create_connection((session.address, server.getsockname()[1]))\n"
        "    connection, _ = server.accept()\n"
        "    own = connection.getsockname()[0]\n"
        "    for kind in (socket.SOCK_STREAM, socket.SOCK_DGRAM):\n"
        "        passive = socket.socket(socket.AF_INET, kind)\n"
        "        passive.bind((own, 0))\n"
        "        assert passive.getsockname()[0] == own, passive\n"
        "    server = socket.create_server((own, 0))\n"
        "    there = (session.address, server.getsockname()[1])\n"
        "    with socket.create_connection(there) as data, server.accept()[0] as accepted:\n"
        "        data.sendall(b'passive')\n"
        "        print(accepted.recv(100).decode(), accepted.getsockname()[0] == own)\n"
        "    for sock in (client, connection, server, passive): sock.close()\n"
    )
    network = f"ff{random.randrange(1, 0x1000):04x}ffff000000"
    assert run_python(code, network, PEERSOCK_NODE="") == "passive True\n"
