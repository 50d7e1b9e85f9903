"""The programs of the Python package ``net``, whose names `peersock.net` has: their calls, with the arguments and in
the order that they have there, with ``import peersock.net as net``. Ports are of the system's choice, and servers end.

Two of its README's clients take the pair that ``read_from`` gives for bytes, which fails there as well: here the pair
is taken apart.
"""

from __future__ import annotations

import contextlib
import errno
import functools
import os
import queue
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import peersock
import peersock.net as net

from .background import background

PATIENCE = 20
TEXT = b"some random data"


class Place:
    """Runs servers, and tells where they are."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.stack = contextlib.ExitStack()

    def path(self, name: str) -> str:
        return str(self.folder / name)

    def run(self, server: Callable[[Callable[[Any], Any]], None]) -> Any:
        """Runs one, which opens what it listens with by what it is given. Gives what it has opened."""
        opened: queue.Queue[Any] = queue.Queue()

        def tell(listener: Any) -> Any:
            self.stack.callback(listener.close)
            opened.put(listener)
            return listener

        def serve() -> None:
            with contextlib.suppress(net.ClosedError):
                server(tell)

        # It ends when what it listens with is closed, and its own faults are seen.
        self.stack.callback(lambda: told.result(PATIENCE))
        told = background(serve)
        return opened.get(timeout=PATIENCE)


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Place]:
    place = Place(tmp_path)
    with place.stack:
        yield place


@pytest.fixture(params=["kernel", "overlay"])
def host(request: pytest.FixtureRequest) -> str:
    """An own address, as it stands before a port."""
    if request.param == "kernel":
        return "[::1]"
    session: peersock.Session = request.getfixturevalue("session")
    return f"[{session.address}]"


def at(host: str, listener: Any) -> str:
    """Returns the address where it listens."""
    return f"{host}:{net.split_host_port(str(listener.local_addr()))[1]}"


def echo(conn: net.TCPConn | net.UnixConn) -> None:
    buf = conn.read()
    n = conn.write(buf)
    assert len(buf) == n


# The README.


def test_readme_addresses(tmp_path: Path) -> None:
    assert net.resolve_tcp_addr("127.0.0.1:www", "tcp") == net.TCPAddr("127.0.0.1", 80)
    assert net.resolve_udp_addr("[::1]:ntp", "udp6") == net.UDPAddr("::1", 123)
    assert net.resolve_unix_addr("/tmp/test.sock", "unix") == net.UnixAddr("/tmp/test.sock", "unix")
    assert net.resolve_unix_addr("/tmp/test.sock2", "unixgram") == net.UnixAddr("/tmp/test.sock2", "unixgram")


def test_readme_tcp(place: Place, host: str) -> None:
    def server(tell: Callable[[Any], Any]) -> None:
        tcp_addr = net.resolve_tcp_addr(f"{host}:0", "tcp6")
        tcp_srv = tell(net.listen_tcp(tcp_addr, "tcp6"))
        while True:
            tcp_client = tcp_srv.accept()
            echo(tcp_client)

    raddr = net.resolve_tcp_addr(at(host, place.run(server)), "tcp6")
    tcp_client = net.dial_tcp(None, raddr, "tcp6")
    n = tcp_client.write(TEXT)
    buf = tcp_client.read()
    assert n == len(buf)
    tcp_client.close()


def test_readme_udp(place: Place, host: str) -> None:
    def server(tell: Callable[[Any], Any]) -> None:
        udp_addr = net.resolve_udp_addr(f"{host}:0", "udp")
        udp_srv = tell(net.listen_udp(udp_addr, "udp"))
        while True:
            buf, raddr = udp_srv.read_from()
            n = udp_srv.write_to(buf, raddr)
            assert len(buf) == n

    address = at(host, place.run(server))
    laddr = net.resolve_udp_addr(f"{host}:0", "udp")
    srv_addr = net.resolve_udp_addr(address, "udp")
    client_conn = net.dial_udp(laddr, None, "udp")
    client_conn.settimeout(PATIENCE)
    n = client_conn.write_to(TEXT, srv_addr)
    buf = client_conn.read_from()
    assert (n, srv_addr) == (len(buf[0]), buf[1])
    client_conn.close()


def test_readme_unix(place: Place) -> None:
    path = place.path("test.sock")

    def server(tell: Callable[[Any], Any]) -> None:
        unix_addr = net.resolve_unix_addr(path, "unix")
        unix_srv = tell(net.listen_unix(unix_addr, "unix"))
        unix_srv.set_unlink_on_close(True)
        while True:
            unix_client = unix_srv.accept()
            echo(unix_client)

    listener = place.run(server)
    raddr = net.resolve_unix_addr(path, "unix6")
    unix_client = net.dial_unix(None, raddr, "unix6")
    n = unix_client.write(TEXT)
    buf = unix_client.read()
    assert n == len(buf)
    unix_client.close()
    listener.close()
    assert not os.path.exists(path)


def test_readme_unixgram(place: Place) -> None:
    path = place.path("test.sock2")

    def server(tell: Callable[[Any], Any]) -> None:
        unixgram_addr = net.resolve_unixgram_addr(path, "unixgram")
        unixgram_srv = tell(net.listen_unixgram(unixgram_addr, "unixgram"))
        while True:
            buf, raddr = unixgram_srv.read_from()
            n = unixgram_srv.write_to(buf, raddr)
            assert len(buf) == n

    place.run(server)
    laddr = net.resolve_unix_addr(place.path("test.sock3"), "unixgram")
    srv_addr = net.resolve_unix_addr(path, "unixgram")
    client_conn = net.dial_unix(laddr, None, "unixgram")
    client_conn.settimeout(PATIENCE)
    n = client_conn.write_to(TEXT, srv_addr)
    buf = client_conn.read_from()
    assert (n, srv_addr) == (len(buf[0]), buf[1])
    client_conn.close()


# listen.py, listen_tcp.py, listen_udp.py and client_tcp.py.


def listen(address: str, network: str, tell: Callable[[Any], Any]) -> None:
    lstn = tell(net.listen(address, network))
    assert str(lstn.local_addr())
    while True:
        if network == "unix":
            lstn.unlink_on_close(True)
        if net.net_is_valid("tcp", network) or network == "unix":
            nc = lstn.accept()
            b = nc.read()
            nc.write(b)
            nc.close()
        else:
            assert net.net_is_valid("udp", network) or network == "unixgram"
            b, naddr = lstn.read_from()
            assert lstn.local_addr()
            try:
                lstn.write_to(b, naddr)
            except OSError as error:
                # A client that has its answer may be gone before its last datagram is answered.
                if error.errno not in (errno.ECONNREFUSED, errno.ENOENT):
                    raise


def handle_conn(c: Any) -> None:
    """Plays the client's part of a connection."""
    c.settimeout(PATIENCE)
    assert c.local_addr() and c.remote_addr()
    data = b"random test data"
    n = c.write(data)
    c.write(b"")
    b = c.read(n)
    assert b == data
    c.close()


@pytest.mark.parametrize("network", ["tcp", "tcp4", "tcp6", "udp", "udp4", "udp6", "unix"])
def test_listen_and_its_client(place: Place, network: str) -> None:
    host = "[::1]" if network.endswith("6") else "127.0.0.1"
    path = place.path("s")
    given = path if network == "unix" else f"{host}:0"
    listener = place.run(lambda tell: listen(given, network, tell))
    for _ in range(2):
        handle_conn(net.dial(path if network == "unix" else at(host, listener), network))


def test_listen_to_unix_datagrams(place: Place) -> None:
    # A sender of datagrams gets answers at its own path.
    path = place.path("s")
    place.run(lambda tell: listen(path, "unixgram", tell))
    own = net.resolve_unix_addr(place.path("c"), "unixgram")
    handle_conn(net.dial_unix(own, net.resolve_unix_addr(path, "unixgram"), "unixgram"))


def test_listen_over_the_overlay(place: Place, session: peersock.Session) -> None:
    host = f"[{session.address}]"
    for network in ("tcp", "tcp6", "udp", "udp6"):
        listener = place.run(functools.partial(listen, f"{host}:0", network))
        handle_conn(net.dial(at(host, listener), network))


@pytest.mark.parametrize("network", ["tcp", "tcp4", "tcp6"])
def test_listen_tcp_and_its_client(place: Place, network: str) -> None:
    host = "[::1]" if network.endswith("6") else "127.0.0.1"

    def handle(c: net.TCPConn) -> None:
        assert c.remote_addr()
        b = c.read(1024)
        c.write(b)
        c.close()

    def server(tell: Callable[[Any], Any]) -> None:
        laddr = net.resolve_tcp_addr(f"{host}:0", network)
        lstn = tell(net.listen_tcp(laddr, network))
        assert lstn.local_addr() == lstn.addr()
        while True:
            tcp_conn = lstn.accept()
            handle(tcp_conn)

    address = at(host, place.run(server))
    for laddr in (None, net.resolve_tcp_addr(f"{host}:0", network)):
        raddr = net.resolve_tcp_addr(address, network)
        handle_conn(net.dial_tcp(laddr, raddr, network))


@pytest.mark.parametrize("network", ["udp", "udp4", "udp6"])
def test_listen_udp(place: Place, network: str) -> None:
    host = "[::1]" if network.endswith("6") else "127.0.0.1"

    def server(tell: Callable[[Any], Any]) -> None:
        laddr = net.resolve_udp_addr(f"{host}:0", network)
        c = tell(net.listen_udp(laddr, network))
        assert c.local_addr()
        while True:
            b, naddr = c.read_from()
            assert c.remote_addr() is None
            c.write_to(b, naddr)

    handle_conn(net.dial(at(host, place.run(server)), network))


# testnet.py, of which listening for datagrams ends before it begins, because of its indentation.


@pytest.mark.parametrize("network", ["tcp", "tcp6", "unix"])
def test_testnet(place: Place, network: str) -> None:
    eol = b"\x05"
    host = "[::1]" if network.endswith("6") else "127.0.0.1"
    path = place.path("s")

    def server(tell: Callable[[Any], Any]) -> None:
        conn = tell(net.listen(path if network == "unix" else f"{host}:0", network))
        assert str(conn.local_addr())
        if "nix" in network:
            conn.set_unlink_on_close(True)
        while True:
            nc = conn.accept()
            b = nc.read()
            nc.write(b + eol)
            nc.close()

    listener = place.run(server)
    conn = net.dial(path if network == "unix" else at(host, listener), network)
    assert conn.local_addr() is not None
    assert conn.write(b"random data\n") == 12
    assert conn.read() == b"random data\n" + eol
    conn.close()


# listener_test.py, and its tests.


def test_listeners_are_inherited_from() -> None:
    from peersock.net import Addr, Listener

    class TCPListener(Listener[net.TCPConn]):
        def __init__(self, addr: Addr) -> None:
            self._addr = addr

        def accept(self) -> net.TCPConn:
            raise net.ClosedError.during("accept")

        def addr(self) -> Addr:
            return self._addr

        def close(self) -> None:
            pass

    with TCPListener(net.resolve_tcp_addr("127.0.0.1:5055")) as listener:
        assert str(listener.addr()) == "127.0.0.1:5055"
        assert list(listener) == []


def test_hosts_and_ports() -> None:
    for address, host, port in (
        ("python.org:http", "python.org", "http"),
        ("us.pool.ntp.org:ntp", "us.pool.ntp.org", "ntp"),
        ("192.168.116.2:5555", "192.168.116.2", "5555"),
        ("[2001:db8::1]:53", "2001:db8::1", "53"),
        ("[localhost]:80", "localhost", "80"),
        (":80", "", "80"),
        ("[::]:1234", "::", "1234"),
        ("[ffff::/128]:1199", "ffff::/128", "1199"),
        ("[2001:fed:bed::1%eth0]:65536", "2001:fed:bed::1%eth0", "65536"),
    ):
        assert net.split_host_port(address) == (host, port)
    for address in ("", "::", "[::]", "2001::1]:3333", "[2001::1:80", "[ffe8::]::4444", "127.0.0.1:::4444"):
        with pytest.raises(net.AddressError):
            net.split_host_port(address)
    # An empty port is one that the system chooses, as in Go.
    assert net.split_host_port("[::]:") == ("::", "")
