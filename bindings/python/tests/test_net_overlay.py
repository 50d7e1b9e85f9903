"""`peersock.net` over the overlay: members' addresses and names, beside the kernel's."""

from __future__ import annotations

import errno
import socket as std
from typing import Any

import pytest

import peersock
from peersock import _peersock, net

from .background import background
from .conftest import Network, Peer, fails

LARGE = bytes(range(256)) * 10_000


def hosts(peer: Peer) -> dict[str, str]:
    return {"tcp6": peer.v6, "tcp4": peer.v4}


@pytest.mark.parametrize("name", ["tcp4", "tcp6"])
def test_dial_goes_over_the_overlay(peer: Peer, session: peersock.Session, name: str) -> None:
    family = std.AF_INET if name == "tcp4" else std.AF_INET6
    address = net.join_host_port(hosts(peer)[name], peer.port("echo", int(family)))
    with net.dial(address, name, timeout=60) as conn:
        assert isinstance(conn, net.TCPConn)
        assert _peersock.is_overlay(conn.fileno())
        assert str(conn.remote_addr()) == address
        local = conn.local_addr()
        assert isinstance(local, net.TCPAddr)
        assert str(local.ip) in session.addresses
        assert conn.peer().name == "there"
        assert conn.write(b"hello\n") == 6
        assert conn.read() == b"hello\n"
        sent = background(lambda: conn.write(LARGE))
        received = b""
        while len(received) < len(LARGE):
            received += conn.read()
        assert (received, sent.result(60)) == (LARGE, len(LARGE))
        conn.close_write()
        assert conn.read() == b""


def test_names_of_members_are_hosts(peer: Peer) -> None:
    port = peer.port("echo", int(std.AF_INET6))
    assert net.resolve_tcp_addr(f"there:{port}") == net.TCPAddr(peer.v4, port)
    assert net.resolve_tcp_addr(f"there:{port}", "tcp6") == net.TCPAddr(peer.v6, port)
    assert net.resolve_udp_addr("there:domain", "udp6") == net.UDPAddr(peer.v6, 53)
    assert net.resolve_ip_addr("there", "ip6") == net.IPAddr(peer.v6)
    # It listens by IPv6 alone: all addresses of the name are tried.
    with net.dial(f"there:{port}", timeout=60) as conn:
        assert conn.remote_addr() == net.TCPAddr(peer.v6, port)
        conn.write(b"x")
        assert conn.read() == b"x"


def test_listeners_of_the_overlay(peer: Peer, session: peersock.Session) -> None:
    for listener in (net.listen(":0", "tcp6"), net.listen_tcp(net.TCPAddr(session.address))):
        with listener:
            assert isinstance(listener, net.TCPListener)
            port = listener.addr().port
            told = background(lambda port=port: peer.start("connect", session.address, port))  # type: ignore[misc]
            with listener.accept() as conn:
                assert conn.read_line() == b"from there\n"
                remote = conn.remote_addr()
                assert isinstance(remote, net.TCPAddr)
                assert str(remote.ip) == peer.v6
                conn.write(b"heard\n")
                assert told.result(60) == "done heard"


def test_a_wildcard_serves_both_families(session: peersock.Session, network: Network) -> None:
    with net.listen(":0") as listener:
        assert isinstance(listener, net.TCPListener)
        for host in (session.address, network.v4["here"]):
            with net.dial(net.join_host_port(host, listener.addr().port), timeout=60) as conn:
                with listener.accept() as server:
                    assert server.remote_addr() == conn.local_addr()


def test_refusals_are_errors_of_both_kinds(peer: Peer) -> None:
    for host in hosts(peer).values():
        with pytest.raises(net.SocketError) as refused:
            net.dial(net.join_host_port(host, 9))
        assert isinstance(refused.value, ConnectionRefusedError)
        assert refused.value.errno == errno.ECONNREFUSED


@pytest.mark.parametrize("family", [std.AF_INET, std.AF_INET6])
def test_datagrams(peer: Peer, family: std.AddressFamily) -> None:
    host = peer.v4 if family == std.AF_INET else peer.v6
    there = net.UDPAddr(host, peer.port("datagrams", int(family), 3))
    network = "udp4" if family == std.AF_INET else "udp6"
    with net.dial_udp(None, there, network) as conn:
        assert _peersock.is_overlay(conn.fileno())
        conn.write(b"0123456789")
        assert conn.read(4) == b"0123"
        conn.write(b"")
        assert conn.read_from() == (b"", there)
        with fails(errno.EISCONN, net.SocketError):
            conn.write_to(b"x", there)
    with net.UDPConn(network) as unbound:
        unbound.write_to(b"hi", there)
        assert unbound.read_from() == (b"hi", there)


def test_a_socket_of_both_families(session: peersock.Session, network: Network) -> None:
    with net.listen_udp(None) as server:
        for host in (session.address, network.v4["here"]):
            with net.dial(net.join_host_port(host, server.local_addr().port), "udp") as conn:
                conn.write(b"x")
                assert server.read_from() == (b"x", conn.local_addr())
                server.write_to(b"y", conn.local_addr())
                assert conn.read() == b"y"


def test_all_others_are_the_kernels(session: peersock.Session) -> None:
    with net.listen("127.0.0.1:0") as listener, net.dial(str(listener.addr())) as conn:
        assert not _peersock.is_overlay(conn.fileno())
    with net.listen_udp(net.UDPAddr("::1")) as server, net.dial(str(server.local_addr()), "udp") as client:
        client.write(b"x")
        assert server.read_from()[0] == b"x"
        assert not _peersock.is_overlay(server.fileno())


def test_options_and_directions(peer: Peer) -> None:
    with net.dial(net.join_host_port(peer.v6, peer.port("echo", int(std.AF_INET6)))) as conn:
        assert isinstance(conn, net.TCPConn)
        conn.set_no_delay(False)
        conn.set_keep_alive(True)
        conn.set_linger(-1)
        conn.write(b"x\n")
        conn.close_write()
        assert list(conn.lines()) == [b"x\n"]
    with net.dial(net.join_host_port(peer.v6, peer.port("silent"))) as conn:
        waiting: Any = background(conn.read)
        conn.close_read()
        assert waiting.result(60) == b""
        assert conn.write(b"x") == 1
