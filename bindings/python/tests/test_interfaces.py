"""Interfaces, routes and route pools. Everything stays on the loopback interface."""

from __future__ import annotations

import asyncio
import errno
import json
import socket
import struct
import sys
import threading
from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from peersock.interfaces import (
    IP4,
    IP6,
    DeltaType,
    Interface,
    IPRange,
    NatType,
    Route,
    RoutePool,
    list_interfaces,
    load_interfaces,
)

from .conftest import fails

COOKIE = struct.pack("!I", 0x2112A442)
#: The external address that the server claims to see.
EXTERNAL = "203.0.113.9"


class StunServer:
    """Answers binding requests (RFC 8489) as if a NAT mapped every port to itself."""

    def __init__(self) -> None:
        self.sock = socket.socket(IP4, socket.SOCK_DGRAM)
        self.sock.bind(("127.0.0.1", 0))
        self.name = f"127.0.0.1:{self.sock.getsockname()[1]}"
        self.thread = threading.Thread(target=self.serve, daemon=True)
        self.thread.start()

    def serve(self) -> None:
        while True:
            data, (ip, port) = self.sock.recvfrom(2048)
            if not data:
                return
            mapped = bytes(a ^ b for a, b in zip(socket.inet_aton(EXTERNAL), COOKIE, strict=True))
            value = struct.pack("!BBH", 0, 1, port ^ 0x2112) + mapped
            reply = (
                struct.pack("!HH", 0x0101, 4 + len(value)) + data[4:20] + struct.pack("!HH", 0x20, len(value)) + value
            )
            self.sock.sendto(reply, (ip, port))

    def stop(self) -> None:
        with socket.socket(IP4, socket.SOCK_DGRAM) as last:
            last.sendto(b"", self.sock.getsockname())
        self.thread.join()
        self.sock.close()


@pytest.fixture
def stun(monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    for variable in ("PEERSOCK_STUN", "PEERSOCK_ROOTS"):
        monkeypatch.delenv(variable, raising=False)
    server = StunServer()
    yield server.name
    server.stop()


def blocks(*texts: str) -> list[IPRange]:
    return [IPRange(ip, int(cidr)) for ip, cidr in (text.split("/") for text in texts)]


def pool() -> RoutePool:
    """P2PD's first worked example."""
    nat = Route(IP4, blocks("192.168.0.20/32", "193.168.0.0/16", "7.7.7.7/32"), blocks("1.3.3.7/32"))
    return RoutePool([nat, Route(IP4, blocks("8.8.0.0/16"), blocks("8.8.0.0/16"))])


async def test_an_interface_is_loaded_by_waiting_and_by_awaiting(stun: str) -> None:
    nic = Interface("lo", stun=[stun]).wait()
    assert (nic.name, nic.nat["type"], nic.nat["is_known"]) == ("lo", NatType.RESTRICT_PORT_NAT, False)
    route = nic.route(IP4)
    assert (route.nic(), route.ext(), len(nic.rp[IP4])) == ("127.0.0.1", EXTERNAL, 1)
    assert route.interface is nic
    assert await Interface("lo", stun=[stun]) == nic


async def test_the_nat_is_loaded_by_waiting_and_by_awaiting(stun: str) -> None:
    nic = Interface("lo", stun=[stun]).wait()
    assert nic.load_nat(timeout=2).wait() is nic.nat
    # One server cannot tell how the NAT maps and filters; the ports it can.
    assert (nic.nat["delta"]["type"], nic.nat["is_known"]) == (DeltaType.EQUAL_DELTA, False)
    await nic.load_nat(timeout=2)
    assert nic.nat["delta_info"] == "equal"


async def test_the_event_loop_goes_on_while_servers_are_silent() -> None:
    with socket.socket(IP4, socket.SOCK_DGRAM) as silent:
        silent.bind(("127.0.0.1", 0))
        stun = [f"127.0.0.1:{silent.getsockname()[1]}"]
        turns = 0
        task = asyncio.ensure_future(load_interfaces(["lo"], stun=stun, timeout=0.3))
        while not task.done():
            turns += 1
            await asyncio.sleep(0.01)
        (nic,) = task.result()
        assert nic.nat["nat_info"] == "filtered" and turns > 1


def test_interfaces_are_listed_and_loaded_and_missing_ones_left_out(stun: str) -> None:
    names = list_interfaces().wait()
    assert "lo" in names
    (lo,) = load_interfaces(["lo", "no such"], stun=[stun], skip_nat=True).wait()
    assert lo.name == "lo"
    with fails(errno.ENODEV, OSError):
        Interface("no such", stun=[]).wait()


def test_servers_of_the_environment_are_asked(stun: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PEERSOCK_STUN", stun)
    assert Interface("lo").wait().route(IP4).ext() == EXTERNAL
    monkeypatch.setenv("PEERSOCK_STUN", "nonsense")
    with pytest.raises(ValueError, match="PEERSOCK_STUN"):
        Interface("lo").wait()


def test_without_a_server_no_external_address_is_claimed() -> None:
    nic = Interface("lo", stun=[]).wait()
    assert (len(nic.rp[IP4]), nic.supported()[0]) == (0, IP4)
    with pytest.raises(LookupError, match="no STUN server"):
        nic.route(IP4).ext()


def test_wrong_arguments_are_refused() -> None:
    with pytest.raises(ValueError, match="HOST:PORT"):
        Interface("lo", stun=["no port"]).wait()
    with pytest.raises(ValueError, match="timeout"):
        Interface("lo", stun=[], timeout=-1).wait()
    with pytest.raises(ValueError, match="not loaded"):
        _ = Interface().name
    with pytest.raises(LookupError):
        Interface().route(IP4)


async def test_a_bound_route_makes_sockets(stun: str) -> None:
    nic = Interface("lo", stun=[stun]).wait()
    route = nic.route(IP4)
    with pytest.raises(ValueError, match="not bound"):
        _ = route.bind_tup
    assert await route.bind(port=0) is route
    assert route.bind_tup == ("127.0.0.1", 0)
    with route.socket(socket.SOCK_DGRAM) as sock:
        assert sock.getsockname()[0] == "127.0.0.1"
    # A copy of the first route: binding it does not change the pool's.
    with pytest.raises(ValueError, match="not bound"):
        _ = nic.route(IP4).bind_tup
    assert route.bind(port=5, ips="127.0.0.2").wait().bind_tup == ("127.0.0.2", 5)
    with pytest.raises(OSError, match="Cannot assign"):
        route.bind(ips="::1").wait()
    with pytest.raises(ValueError):
        route.bind(port=65536).wait()


def test_ipv6_binds_the_global_address_and_ipv4_the_interface_s() -> None:
    route = Route(IP6, blocks("fe80::1/128"), blocks("2020:deed:deed::/64"))
    assert route.bind(7).wait().bind_tup == ("2020:deed:deed::1", 7, 0, 0)
    assert pool()[0].bind(7).wait().bind_tup == ("192.168.0.20", 7)
    assert pool()[1].bind(7).wait().bind_tup == ("8.8.0.1", 7)


def test_a_pool_counts_indexes_and_iterates_every_external_address() -> None:
    routes = pool()
    assert len(routes) == 1 + 65534
    assert [route.ext() for route in routes[:3]] == ["1.3.3.7", "8.8.0.1", "8.8.0.2"]
    assert (routes[-1].ext(), next(reversed(routes)).ext()) == ("8.8.255.254", "8.8.255.254")
    assert sum(1 for _ in routes) == len(routes)
    assert "8.8.1.0" in routes and "9.9.9.9" not in routes and routes[5] in routes and "text" not in routes
    for index in (len(routes), -len(routes) - 1):
        with pytest.raises(IndexError):
            routes[index]


def test_a_pool_of_a_network_of_ipv6_is_counted_and_indexed() -> None:
    routes = RoutePool([Route(IP6, blocks("fe80::1/128"), blocks("2020:deed:beef::/128", "2020:deed:deed::/64"))])
    assert (routes.count, len(routes)) == (2**64, sys.maxsize)
    assert routes[2**64 - 1].ext() == "2020:deed:deed:0:ffff:ffff:ffff:ffff"


def test_what_is_written_is_read_again(stun: str) -> None:
    nic = Interface("lo", stun=[stun]).wait()
    value = json.loads(json.dumps(nic.to_dict()))
    assert value == nic.to_dict()
    assert Interface.from_dict(value) == nic
    assert eval(repr(nic.route(IP4)), {"Route": Route}) == nic.route(IP4)


def test_a_dictionary_of_p2pd_s_documentation_is_read() -> None:
    address = {"cidr": 32, "af": 2}
    route = {"af": 2, "nic_ips": [{"ip": "192.168.21.21", **address}], "ext_ips": [{"ip": "1.3.3.7", **address}]}
    nat = {"type": 5, "nat_info": "restrict port", "delta": {"type": 6, "value": 0}, "delta_info": "random"}
    nic = Interface.from_dict({"name": "Wi-Fi", "nat": nat, "rp": {"2": [route], "23": []}})
    assert (nic.route(IP4).ext(), nic.nat["type"], nic.supported()) == ("1.3.3.7", NatType.RESTRICT_PORT_NAT, [IP4])
    with pytest.raises(ValueError, match="no family"):
        Interface.from_dict({"name": "a", "nat": nat, "rp": {"3": []}})


@given(st.ip_addresses(), st.integers(0, 128), st.integers(0))
def test_all_addresses_of_a_block_are_in_it(ip: object, cidr: int, index: int) -> None:
    text = str(ip)
    block = IPRange(text, cidr if ":" in text else cidr % 33)
    assert text in block
    assert block[index % block.count] in block
    assert block[-1] == block[block.count - 1]
    assert IPRange.from_dict(block.to_dict()) == block
