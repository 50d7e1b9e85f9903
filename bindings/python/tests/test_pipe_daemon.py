"""Daemons: servers on several routes, ports and protocols."""

from __future__ import annotations

import errno
import warnings
from typing import Any

import pytest

from peersock.interfaces import IP4, IP6, Interface, IPRange, Route
from peersock.pipe import AF_ANY, TCP, UDP, Daemon, Pipe, dict_child, pipe_open

from .pipes import PATIENCE, echo, until


class Echo(Daemon):
    """Sends back, and notes who is there."""

    def __init__(self) -> None:
        super().__init__()
        self.events: list[str] = []

    async def msg_cb(self, msg: bytes, client_tup: Any, pipe: Pipe) -> None:
        await pipe.send(msg, client_tup)

    async def up_cb(self, msg: None, client_tup: Any, pipe: Pipe) -> None:
        self.events.append("up")

    async def end_cb(self, msg: None, client_tup: Any, pipe: Pipe) -> None:
        self.events.append("end")


async def ask(server: Pipe) -> bytes | None:
    """Returns a server's answer."""
    async with await pipe_open(server.proto, server.local_tup) as client:
        await client.send(b"hello")
        return await client.recv(timeout=PATIENCE)


def loopback() -> Route:
    return Route(IP4, [IPRange("127.0.0.1")])


async def free_ports(count: int) -> list[int]:
    """Ports that nobody has."""
    daemon = await Daemon().listen_all(loopback(), [0] * count, TCP)
    ports = [server.local_tup[1] for server in daemon.servers]
    await daemon.close()
    return ports


async def test_the_example_of_p2pd() -> None:
    ports = await free_ports(2)
    route = loopback()
    server = await Echo().listen_all([route], ports, [TCP, UDP], af=AF_ANY)
    assert isinstance(server, Echo) and len(server.servers) == 4 and route._bound is None
    at = {(one.proto, *one.local_tup) for one in server.servers}
    assert at == {(proto, "127.0.0.1", port) for proto in (TCP, UDP) for port in ports}
    for one in server.servers:
        assert await ask(one) == b"hello"
    await until(lambda: server.events.count("end") == 2)
    servers = server.servers
    await server.close()
    assert server.events.count("up") == 2 and server.events.count("end") == 6
    assert not server.servers and not any(one.is_running for one in servers)


async def test_interfaces_families_ranges_and_callbacks() -> None:
    nic = await Interface("lo")
    heard: list[bytes] = []

    def note(msg: bytes, client_tup: Any, pipe: Pipe) -> None:
        heard.append(msg)

    async with await Echo().listen_all(Interface("lo"), 0, UDP, msg_cb=note) as both:
        assert {server.local_tup[0] for server in both.servers} == {"127.0.0.1", "::1"}
        assert [await ask(server) for server in both.servers] == [b"hello"] * 2
        assert heard == [b"hello"] * 2
        both.del_msg_cb(note).del_msg_cb(note)
        assert await ask(both.servers[0]) == b"hello" and len(heard) == 2
    async with await Daemon().listen_all([nic, loopback()], 0, [TCP], af=IP6) as six:
        assert [server.local_tup[0] for server in six.servers] == ["::1"]
        six.add_msg_cb(echo)
        assert await ask(six.servers[0]) == b"hello"
    with pytest.raises(LookupError, match="family"):
        await Daemon().listen_all([nic, loopback()], 0, [TCP], af=IP6, error_on_af=True)
    with pytest.raises(LookupError, match="family"):
        await Daemon().listen_all([loopback()], 0, [TCP], af=IP6)
    (port,) = await free_ports(1)
    async with await Daemon().listen_all(loopback(), [[port, port]], TCP) as one:
        assert one.servers[0].local_tup == ("127.0.0.1", port)


async def test_listeners() -> None:
    nic = await Interface("lo")
    async with Echo() as daemon:
        port, server = await daemon.add_listener(TCP, loopback())
        assert server.local_tup == ("127.0.0.1", port) and await ask(server) == b"hello"
        found = await daemon.listen_loopback(UDP, 0, nic)
        assert [pipe.local_tup[0] for _, pipe in found] == ["127.0.0.1", "::1"]
        assert [pipe.local_tup[1] for _, pipe in found] == [port for port, _ in found]
        assert len(await daemon.listen_loopback(TCP, 0)) == 2
        # Of the loopback interface: private addresses of IPv4, and no link-local one of IPv6.
        local = await daemon.listen_local(UDP, 0, nic)
        assert [pipe.local_tup[0] for _, pipe in local] == ["127.0.0.1"]
        assert len(daemon.servers) == 6
        for one in daemon.servers:
            assert await ask(one) == b"hello"


async def test_all_or_none_listens() -> None:
    async with await Echo().listen_all(loopback(), 0, [TCP, UDP]) as first:
        for server in first.servers:
            daemon = Echo()
            (free,) = await free_ports(1)
            with pytest.raises(OSError) as error:
                await daemon.listen_all(loopback(), [free, server.local_tup[1]], server.proto)
            assert error.value.errno == errno.EADDRINUSE and not daemon.servers
            async with await Daemon().listen_all(loopback(), free, server.proto):
                pass
            # The first one goes on.
            assert await ask(server) == b"hello"
        # Once it is closed, its port can be used at once.
        port = first.servers[0].local_tup[1]
        await first.close()
        async with await Echo().listen_all(loopback(), port, TCP) as again:
            assert await ask(again.servers[0]) == b"hello"


@pytest.mark.parametrize(
    "targets, ports, protos, error",
    [
        ([5], 0, TCP, TypeError),
        ("lo", 0, TCP, TypeError),
        (loopback(), -1, TCP, ValueError),
        (loopback(), 65536, TCP, ValueError),
        (loopback(), "80", TCP, (TypeError, ValueError)),
        (loopback(), [[5, 4]], TCP, ValueError),
        (loopback(), [[1, 2, 3]], TCP, ValueError),
        (loopback(), 0, 5, ValueError),
        ([], 0, TCP, LookupError),
    ],
)
async def test_wrong_arguments_are_refused(targets: Any, ports: Any, protos: Any, error: Any) -> None:
    daemon = Daemon()
    with pytest.raises(error):
        await daemon.listen_all(targets, ports, protos)
    assert not daemon.servers


def test_wrong_options_are_refused() -> None:
    with pytest.raises(ValueError, match="option"):
        Daemon({"no_such_option": 1})


async def test_options_are_for_both_protocols() -> None:
    conf = dict_child({"max_clients": 1, "enable_msg_ids": True, "reuse_addr": True})
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        daemon = await Daemon(conf).listen_all(loopback(), 0, [TCP, UDP])
    stream, datagrams = daemon.servers
    assert stream.conf.max_clients == 1 and stream.conf.reuse_addr
    assert datagrams.conf.enable_msg_ids and not datagrams.conf.reuse_addr
    await daemon.close()
