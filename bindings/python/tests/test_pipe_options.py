"""Every option of pipes does what it says, or says that it does nothing."""

from __future__ import annotations

import asyncio
import math
import socket
import ssl
import struct
import threading
from typing import Any

import pytest

from peersock import _names
from peersock.pipe import NET_CONF, TCP, UDP, Options, Pipe, PipeOptionWarning, dict_child, pipe_open
from peersock.pipe._options import TCP_ONLY, TLS_ONLY, UDP_ONLY

from .peer import CERTIFICATE
from .pipes import PATIENCE, close, echo, pair, read, until


def test_the_options_are_p2pd_s() -> None:
    names = (
        "dns_timeout use_ssl ssl_handshake sock_proto recv_timeout con_timeout max_qsize enable_msg_ids max_msg_ids"
        " reuse_addr broadcast reader_limit sock_only do_close linger send_retry"
    )
    assert set(names.split()) <= set(NET_CONF)
    child = dict_child({"recv_timeout": 7}, NET_CONF)
    assert child == {**NET_CONF, "recv_timeout": 7}
    # All of the defaults, as P2PD has them, are no reason to warn.
    assert Options.parse({**NET_CONF, "use_ssl": 0, "enable_msg_ids": 0}, TCP) == Options.parse(None, TCP)


@pytest.mark.parametrize("proto", [TCP, UDP])
async def test_options_that_do_nothing_are_warned_of(proto: int) -> None:
    others: dict[str, Any] = {
        "use_ssl": True,
        "ssl_handshake": 1,
        "con_timeout": 1,
        "reader_limit": 1,
        "linger": 1,
        "max_clients": 1,
        "max_clients_of_member": 1,
        "ssl_context": ssl.create_default_context(),
        "server_hostname": "name",
        "enable_msg_ids": True,
        "max_msg_ids": 1,
        "broadcast": True,
        "send_retry": 0,
        "loop": asyncio.get_event_loop_policy,
    }
    useless = {"loop", *TLS_ONLY, *(UDP_ONLY if proto == TCP else TCP_ONLY)}
    assert set(others) == {"loop", *TLS_ONLY, *UDP_ONLY, *TCP_ONLY}
    for name in sorted(useless):
        with pytest.warns(PipeOptionWarning, match=f"option {name} does nothing") as record:
            await close(await pipe_open(proto, route=("127.0.0.1", 0), conf={name: others[name]}))
        # It points at the call.
        assert [warning.filename for warning in record] == [__file__]


@pytest.mark.parametrize(
    "conf, error",
    [
        ({"no_such_option": 1}, ValueError),
        ({"dns_timeout": "2"}, TypeError),
        ({"dns_timeout": -1}, ValueError),
        ({"recv_timeout": math.nan}, ValueError),
        ({"ssl_handshake": 0}, ValueError),
        ({"use_ssl": "yes"}, TypeError),
        ({"use_ssl": 2}, TypeError),
        ({"max_qsize": -1}, ValueError),
        ({"max_qsize": 1.5}, TypeError),
        ({"max_msg_ids": 0}, ValueError),
        ({"reader_limit": 0}, ValueError),
        ({"linger": -1}, ValueError),
        ({"linger": "x"}, TypeError),
        ({"send_retry": -1}, ValueError),
        ({"max_clients": 0}, ValueError),
        ({"max_clients_of_member": 0}, ValueError),
        ({"ssl_context": 5}, TypeError),
        ({"server_hostname": 5}, TypeError),
        ("text", TypeError),
    ],
)
async def test_wrong_options_are_refused(conf: Any, error: type[Exception]) -> None:
    with pytest.raises(error):
        await pipe_open(TCP, ("127.0.0.1", 9), conf=conf)


async def test_dns_timeout(monkeypatch: pytest.MonkeyPatch) -> None:
    ended = threading.Event()
    monkeypatch.setattr(_names, "getaddrinfo", lambda *arguments: ended.wait(PATIENCE))
    with pytest.raises(TimeoutError, match="resolved"):
        await pipe_open(TCP, ("name.example", 9), conf={"dns_timeout": 0.01})
    ended.set()


async def test_tls() -> None:
    theirs = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    theirs.load_cert_chain(CERTIFICATE)
    ours = ssl.create_default_context(cafile=str(CERTIFICATE))
    server_conf = {"use_ssl": 1, "ssl_context": theirs}
    server = await pipe_open(TCP, route=("127.0.0.1", 0), msg_cb=echo, conf=server_conf)
    conf: dict[str, Any] = {"use_ssl": True, "ssl_context": ours, "server_hostname": "there"}
    async with await pipe_open(TCP, server.local_tup, conf=conf) as client:
        data = bytes(range(256)) * 2000
        sending = asyncio.create_task(client.send(data))
        assert await read(client, len(data)) == data
        await sending
    # The server's certificate is checked, unlike P2PD's.
    for wrong in ({"server_hostname": "elsewhere"}, {"server_hostname": None}, {"ssl_context": None}):
        with pytest.raises(ssl.SSLError):
            await pipe_open(TCP, server.local_tup, conf={**conf, **wrong})
    # A client that makes no handshake does not block others.
    silent = await pipe_open(TCP, server.local_tup)
    async with await pipe_open(TCP, server.local_tup, conf=conf) as client:
        await client.send(b"hello")
        assert await client.recv(timeout=PATIENCE) == b"hello"
    await close(silent, server)
    with pytest.raises(ValueError, match="certificate"):
        await pipe_open(TCP, route=("127.0.0.1", 0), conf={"use_ssl": True})


async def test_ssl_handshake() -> None:
    ours = ssl.create_default_context(cafile=str(CERTIFICATE))
    deaf = await pipe_open(TCP, route=("127.0.0.1", 0))
    conf = {"use_ssl": True, "ssl_context": ours, "ssl_handshake": 0.05}
    with pytest.raises(TimeoutError):
        await pipe_open(TCP, deaf.local_tup, conf=conf)
    await deaf.close()


async def test_con_timeout() -> None:
    # A listener whose queue is full does not answer.
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen(0)
        fillers = [socket.socket() for _ in range(3)]
        for filler in fillers:
            filler.setblocking(False)
            filler.connect_ex(listener.getsockname())
        with pytest.raises(TimeoutError, match="answered"):
            await pipe_open(TCP, listener.getsockname(), conf={"con_timeout": 0.05})
        for filler in fillers:
            filler.close()


async def test_options_of_the_socket() -> None:
    conf = {"reuse_addr": True, "linger": 3, "sock_proto": socket.IPPROTO_TCP}
    server = await pipe_open(TCP, route=("127.0.0.1", 0), conf=conf)
    assert server.sock.proto == socket.IPPROTO_TCP
    assert server.sock.getsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR) == 1
    assert server.sock.getsockopt(socket.SOL_SOCKET, socket.SO_LINGER, 8) == struct.pack("ii", 1, 3)
    client = await pipe_open(TCP, server.local_tup, conf={"linger": 0})
    accepted = await server
    # No linger: the other end sees a reset.
    await client.close()
    with pytest.raises(ConnectionError, match="failed"):
        await accepted.recv(timeout=PATIENCE)
    await close(accepted, server)
    plain = await pipe_open(UDP, route=("127.0.0.1", 0))
    wide = await pipe_open(UDP, ("127.0.0.1", 9), conf={"broadcast": True})
    for pipe, expected in ((plain, 0), (wide, 1)):
        assert pipe.sock.getsockopt(socket.SOL_SOCKET, socket.SO_BROADCAST) == expected
    with pytest.raises(PermissionError):
        await plain.send(b"to all", ("255.255.255.255", 9))
    await close(plain, wide)
    with pytest.raises(OSError):
        await pipe_open(TCP, route=("127.0.0.1", 0), conf={"sock_proto": socket.IPPROTO_UDP})


async def test_sock_only() -> None:
    server = await pipe_open(TCP, route=("127.0.0.1", 0), msg_cb=echo)
    for proto, dest in ((TCP, server.local_tup), (UDP, None), (UDP, ("127.0.0.1", 9))):
        sock: Any = await pipe_open(proto, dest, route=("127.0.0.1", 0), conf={"sock_only": True})
        with sock:
            assert isinstance(sock, socket.socket) and sock.type == proto
            assert proto == UDP or sock.getpeername() == server.local_tup
    await server.close()


async def test_do_close() -> None:
    for does in (True, False):
        with socket.socket() as sock:
            with pytest.raises(OSError):
                # It is not connected.
                await pipe_open(TCP, ("127.0.0.1", 9), sock=sock, conf={"do_close": does})
            assert (sock.fileno() == -1) == does


async def test_recv_timeout_and_queues() -> None:
    server, client, other = await pair(UDP, recv_timeout=0.01, max_qsize=2)
    assert await client.recv() is None
    await client.send(b"x")
    tup = (await other.recv(full=True, timeout=PATIENCE) or (("", 0), b""))[0]
    for digit in (b"1", b"2", b"3"):
        await other.send(digit, tup)
    await until(lambda: client.dropped == 1)
    assert [await client.recv() for _ in range(3)] == [b"2", b"3", None]
    await close(client, server)
    # None waits for ever; 0 is the usual bound.
    assert Options.parse({"recv_timeout": None}).recv_timeout == math.inf
    assert Options.parse({"max_qsize": 0}).max_qsize == 1024


async def test_datagrams_that_come_again_are_dropped() -> None:
    conf = {"enable_msg_ids": True, "max_msg_ids": 3}
    server = await pipe_open(UDP, route=("127.0.0.1", 0), conf=conf)
    clients = [await pipe_open(UDP, server.local_tup) for _ in range(2)]
    for number, data in ((0, b"a"), (0, b"a"), (1, b"a"), (0, b"b"), (0, b"a"), (0, b"c"), (0, b"d"), (0, b"a")):
        await clients[number].send(data)
    # After three others, the first one is new again.
    got = [await server.recv(timeout=PATIENCE) for _ in range(6)]
    assert got == [b"a", b"a", b"b", b"c", b"d", b"a"] and await server.recv(timeout=0) is None
    assert server.repeated == 2  # type: ignore[attr-defined]
    await close(*clients, server)


async def test_reader_limit() -> None:
    lengths: list[int] = []

    def note(msg: bytes, client_tup: Any, pipe: Pipe) -> None:
        lengths.append(len(msg))

    server = await pipe_open(TCP, route=("127.0.0.1", 0), msg_cb=note, conf={"reader_limit": 100})
    client = await pipe_open(TCP, server.local_tup)
    await client.send(bytes(950))
    await until(lambda: sum(lengths) == 950)
    assert max(lengths) == 100
    await close(client, server)
