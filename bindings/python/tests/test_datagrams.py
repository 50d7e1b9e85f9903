"""UDP, with and without ancillary data."""

from __future__ import annotations

import errno
import struct
import threading
import time
from typing import Any

import pytest

import peersock
from peersock import socket

from .conftest import Peer, fails
from .pipes import PATIENCE


@pytest.mark.parametrize("family", [socket.AF_INET, socket.AF_INET6])
def test_datagrams_come_back(peer: Peer, family: socket.AddressFamily) -> None:
    address = (peer.v4 if family == socket.AF_INET else peer.v6, peer.port("datagrams", int(family), 3))
    with socket.socket(family, socket.SOCK_DGRAM) as sock:
        sock.settimeout(10)
        assert sock.sendto(b"hello", address) == 5
        data, sender = sock.recvfrom(100)
        assert (data, sender[:2]) == (b"hello", address)
        sock.connect(address)
        assert sock.getpeername()[:2] == address
        assert sock.send(b"again") == 5
        buffer = bytearray(10)
        assert sock.recv_into(buffer) == 5
        assert buffer[:5] == b"again"
        sock.sendall(b"")
        assert sock.recv(1) == b""


def test_cut_datagrams_tell_their_length(peer: Peer) -> None:
    address = (peer.v6, peer.port("datagrams", int(socket.AF_INET6), 1))
    with socket.socket(socket.AF_INET6, socket.SOCK_DGRAM) as sock:
        sock.settimeout(10)
        sock.sendto(bytes(range(100)), address)
        buffer = bytearray(10)
        peek = socket.MSG_PEEK | socket.MSG_TRUNC
        assert sock.recv_into(buffer, 10, peek) == 100
        assert sock.recv_into(buffer, 10, socket.MSG_PEEK) == 10
        assert sock.recvfrom_into(buffer, 10, peek)[0] == 100
        length, _, flags, _ = sock.recvmsg_into([buffer], 0, peek)
        assert (length, flags & socket.MSG_TRUNC) == (100, socket.MSG_TRUNC)
        assert sock.recv(10, socket.MSG_TRUNC) == buffer == bytes(range(10))


def test_ancillary_data_goes_with_datagrams(peer: Peer, session: peersock.Session) -> None:
    port = peer.port("datagrams", int(socket.AF_INET6), 1)
    with socket.socket(socket.AF_INET6, socket.SOCK_DGRAM) as sock:
        sock.settimeout(10)
        sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_RECVHOPLIMIT, 1)
        sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_RECVPKTINFO, 1)
        hops = (socket.IPPROTO_IPV6, socket.IPV6_HOPLIMIT, struct.pack("i", 7))
        assert sock.sendmsg([b"a", b"b"], [hops], 0, (peer.v6, port)) == 2
        data, ancillary, flags, sender = sock.recvmsg(100, 1000)
        assert (data, flags, sender[:2]) == (b"ab", 0, (peer.v6, port))
        told = {kind: value for _, kind, value in ancillary}
        assert struct.unpack("i", told[socket.IPV6_HOPLIMIT]) == (64,)
        own, index = struct.unpack("16sI", told[socket.IPV6_PKTINFO])
        assert socket.inet_ntop(socket.AF_INET6, own) == session.address
        assert index in dict(peersock._peersock.interfaces())
        with pytest.raises(OSError):
            sock.sendmsg([b"x"], [(socket.IPPROTO_IPV6, socket.IPV6_HOPLIMIT, b"")], 0, (peer.v6, port))


def test_groups_of_the_overlay_are_joined_by_an_own_address(session: peersock.Session) -> None:
    own = socket.inet_aton(session.address4 or "")
    group = "239.77.1.2"
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as receiver:
        receiver.setsockopt(socket.IPPROTO_IP, socket.IP_ADD_MEMBERSHIP, socket.inet_aton(group) + own)
        receiver.bind(("", 0))
        receiver.settimeout(10)
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender:
            sender.setsockopt(socket.IPPROTO_IP, socket.IP_MULTICAST_IF, own)
            sender.sendto(b"to all", (group, receiver.getsockname()[1]))
            data, address = receiver.recvfrom(100)
        assert (data, address[0]) == (b"to all", session.address4)


def test_a_port_that_nobody_has_is_told_to_connected_sockets(peer: Peer) -> None:
    with socket.socket(socket.AF_INET6, socket.SOCK_DGRAM) as sock:
        sock.settimeout(10)
        sock.connect((peer.v6, 9))
        sock.send(b"x")
        with pytest.raises(ConnectionRefusedError):
            sock.recv(1)


def test_timeouts_and_not_waiting(session: peersock.Session) -> None:
    with socket.socket(socket.AF_INET6, socket.SOCK_DGRAM) as sock:
        sock.bind((session.address, 0))
        sock.settimeout(0.02)
        with pytest.raises(TimeoutError, match=r"^timed out$"):
            sock.recvfrom(1)
        sock.setblocking(False)
        with pytest.raises(BlockingIOError):
            sock.recvmsg(1)


def test_a_socket_without_a_port_may_go_to_either_side(peer: Peer) -> None:
    with (
        socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as kernel,
        socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock,
    ):
        kernel.bind(("127.0.0.1", 0))
        kernel.settimeout(10)
        sock.bind(("", 0))
        sock.sendto(b"kernel", kernel.getsockname())
        assert kernel.recv(10) == b"kernel"
        # It has an address of the kernel's, and goes on having it.
        assert sock.getsockname()[1] == kernel.getsockname()[1] or sock.getsockname()[1] > 0
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.bind(("", 0))
        sock.settimeout(10)
        sock.sendto(b"overlay", (peer.v4, peer.port("datagrams", int(socket.AF_INET), 1)))
        assert sock.recv(10) == b"overlay"


def test_what_makes_no_sense_fails_as_in_cpython(session: peersock.Session) -> None:
    with socket.socket(socket.AF_INET6, socket.SOCK_DGRAM) as sock:
        sock.bind((session.address, 0))
        with pytest.raises(TypeError, match="a bytes-like object is required, not 'str'"):
            sock.sendto("text", (session.address, 1))  # type: ignore[call-overload]
        with pytest.raises(OverflowError):
            sock.sendto(b"", (session.address, 1 << 16))
        with pytest.raises(ValueError, match="negative buffersize"):
            sock.recvfrom(-1)
        with fails(errno.EMSGSIZE, OSError):
            sock.sendto(bytes(70000), (session.address, 1))
        with pytest.raises(TypeError):
            sock.sendto(b"x")  # type: ignore[call-overload]


def test_a_new_socket_for_each_of_many_queries_takes_no_port_and_no_memory(session: peersock.Session) -> None:
    before = 0
    # More than there are ports that the system could give.
    for number in range(35_000):
        if number == 2_000:
            before = _resident()
        with socket.socket(socket.AF_INET6, socket.SOCK_DGRAM) as query:
            query.sendto(b"query", (session.address, 9))
    assert _resident() - before < 16


def _resident() -> int:
    """Returns the process's memory, in MiB."""
    with open("/proc/self/status") as status:
        return int(status.read().partition("VmRSS:")[2].split()[0]) // 1024


@pytest.mark.parametrize("name", ["recv", "recv_into", "recvfrom", "recvfrom_into"])
def test_a_thread_that_waits_gets_what_another_one_has_asked_for(peer: Peer, name: str) -> None:
    port = peer.port("datagrams", int(socket.AF_INET), 1)
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        room = bytearray(10)
        got: list[Any] = []
        argument = room if "into" in name else 10
        waiter = threading.Thread(target=lambda: got.append(getattr(sock, name)(argument)), daemon=True)
        waiter.start()
        while not _is_asleep(waiter):
            time.sleep(0.001)
        sock.sendto(b"question", (peer.v4, port))
        waiter.join(PATIENCE)
        assert not waiter.is_alive()
        data, sender = got[0] if "from" in name else (got[0], (peer.v4, port))
        assert (bytes(room[:data]) if "into" in name else data) == b"question"
        assert sender == (peer.v4, port)


def _is_asleep(thread: threading.Thread) -> bool:
    """Returns true if it waits for the kernel, which it does for nothing else."""
    with open(f"/proc/self/task/{thread.native_id}/stat") as stat:
        return stat.read().rpartition(")")[2].split()[0] == "S"
