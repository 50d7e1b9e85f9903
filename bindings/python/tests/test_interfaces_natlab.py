"""Interfaces of a machine that has two, both families, several addresses, and a NAT in front of one of them.

::

    eth0  two private IPv4 addresses, two global IPv6 ones -- home: a NAT, a firewall for IPv6, and miniupnpd
    eth1  two public IPv4 addresses and a block            -- flat: routed
"""

from __future__ import annotations

import asyncio
import ipaddress
import json
import socket
from collections.abc import Callable, Iterator
from typing import TypeVar

import pytest

import peersock
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

from .natlab import Lab, missing

T = TypeVar("T")

REASON = missing("miniupnpd")
pytestmark = pytest.mark.skipif(REASON is not None, reason=str(REASON))

PORT = 3478


class Machine:
    """The machine with both interfaces, and what is known of them."""

    def __init__(self, lab: Lab) -> None:
        self.lab = lab
        self.servers = [f"{lab.ip4('stun')}:{PORT}", f"[{lab.ip6('stun')}]:{PORT}"]
        # The network behind `flat`, of which this machine has the addresses 60 and 61 and the upper half.
        network = ipaddress.ip_network(f"{lab.ip4('flat1')}/24", strict=False)
        self.router, self.first, self.second = (str(network[host]) for host in (1, 60, 61))
        self.block = f"{network[128]}/25"
        self.private, self.global_ = (
            str(ipaddress.ip_network(f"{ip}/{bits}", strict=False)[77])
            for ip, bits in ((lab.ip4("home1"), 24), (lab.ip6("home1"), 64))
        )
        here = lab.namespace("home1")
        lab.run(
            "flat",
            f"ip link add second type veth peer name eth1 netns {here}",
            "ip link set second master lan",
            "ip link set second up",
        )
        lab.run(
            "home1",
            f"ip addr add {self.private}/24 dev eth0",
            f"ip addr add {self.global_}/64 dev eth0 nodad",
            f"ip addr add {self.first}/24 dev eth1",
            f"ip addr add {self.second}/24 dev eth1",
            f"ip addr add {self.block} dev eth1",
            f"ip route add local {self.block} dev lo",
            "ip link set eth1 up",
            # Programs that choose no interface go by the first one.
            f"ip route add default via {self.router} dev eth1 metric 500",
        )

    def within(self, work: Callable[[], T]) -> T:
        """Does something on the machine."""
        return self.lab.within("home1", work)

    def load(self, name: str | None) -> Interface:
        """An interface, with the NAT in front of it."""

        def work() -> Interface:
            nic = Interface(name, stun=self.servers).wait()
            nic.load_nat().wait()
            return nic

        return self.within(work)


@pytest.fixture(scope="module")
def machine() -> Iterator[Machine]:
    with Lab("stun=stun home=port-restricted:upnp:v6=firewall flat=routed") as lab:
        yield Machine(lab)


def external(pool: RoutePool) -> list[str]:
    return [str(block) for route in pool.routes for block in route.ext_ips]


def test_both_interfaces_are_listed_the_default_one_first(machine: Machine) -> None:
    names = machine.within(lambda: list_interfaces().wait())
    assert (names[0], sorted(names)) == ("eth0", ["eth0", "eth1", "lo"])

    async def look() -> list[str]:
        return await list_interfaces()

    assert machine.within(lambda: asyncio.run(look())) == names
    assert machine.within(lambda: Interface(stun=[]).wait().name) == "eth0"


def test_an_interface_behind_a_nat_has_a_route_of_each_family(machine: Machine) -> None:
    nic = machine.load(None)
    lab = machine.lab
    assert (nic.name, nic.supported()) == ("eth0", [IP4, IP6])
    assert (nic.nat["type"], nic.nat["is_known"]) == (NatType.RESTRICT_PORT_NAT, True)
    assert nic.nat["delta"]["type"] == DeltaType.EQUAL_DELTA
    route = nic.route(IP4)
    # Private addresses share one.
    assert (route.nic(), route.ext(), len(nic.rp[IP4])) == (lab.ip4("home1"), lab.ip4("home"), 1)
    assert [block.ip for block in route.nic_ips] == [lab.ip4("home1"), machine.private]
    # In IPv6 each global address is one, and the link-local ones are what the interface has in each.
    pool = nic.rp[IP6]
    assert sorted(external(pool)) == sorted(f"{ip}/128" for ip in (lab.ip6("home1"), machine.global_))
    assert (len(pool), len(pool.routes)) == (2, 2)
    for route in pool:
        assert len(route.nic_ips) == 1 and ipaddress.ip_address(route.nic()).is_link_local
    assert nic.route().af == IP4


def test_an_interface_with_public_addresses_has_each_of_them_as_a_route(machine: Machine) -> None:
    nic = machine.load("eth1")
    assert nic.nat["type"] == NatType.OPEN_INTERNET
    pool = nic.rp[IP4]
    # The kernel has a second address of one network behind all first ones.
    assert external(pool) == [f"{machine.first}/32", machine.block, f"{machine.second}/32"]
    # The first and the last address of a block are those of the network and of all.
    block = IPRange(*_split(machine.block))
    assert len(pool) == 1 + 1 + block.count == 2 + 126
    assert [route.ext() for route in pool[:3]] == [machine.first, str(block[0]), str(block[1])]
    assert [route.ext() for route in pool[-2:]] == [str(block[-1]), machine.second]
    assert [route.ext() for route in pool] == [pool[index].ext() for index in range(len(pool))]
    assert str(block[77]) in pool and machine.router not in pool
    # There is no router for IPv6: the link-local address is seen by nobody.
    assert external(nic.rp[IP6]) == []
    assert len(nic.rp[IP6]) == 0


def _split(block: str) -> tuple[str, int]:
    ip, _, bits = block.partition("/")
    return ip, int(bits)


def test_several_are_loaded_at_once_by_waiting_and_by_awaiting(machine: Machine) -> None:
    names = ["eth1", "no such", "eth0"]
    waited = machine.within(lambda: load_interfaces(names, stun=machine.servers).wait())
    kinds = {nic.name: nic.nat["type"] for nic in waited}
    assert list(kinds.items()) == [("eth1", NatType.OPEN_INTERNET), ("eth0", NatType.RESTRICT_PORT_NAT)]
    assert len({nic.index for nic in waited}) == 2

    async def load() -> list[Interface]:
        return await load_interfaces(names, stun=machine.servers, skip_nat=True)

    awaited = machine.within(lambda: asyncio.run(load()))
    assert [nic.rp for nic in awaited] == [nic.rp for nic in waited]
    assert not any(nic.nat["is_known"] for nic in awaited)


def test_a_server_sees_a_bound_socket_as_the_route_says(machine: Machine) -> None:
    """Asked by hand, from each interface and family: a socket goes out by the interface of its route."""
    v4, v6 = ((machine.lab.ip4("stun"), PORT), (machine.lab.ip6("stun"), PORT))
    routes = [
        (machine.load("eth0").route(IP4), v4),
        (machine.load("eth0").rp[IP6][0], v6),
        (machine.load("eth0").rp[IP6][1], v6),
        (machine.load("eth1").route(IP4), v4),
        (machine.load("eth1").rp[IP4][-1], v4),
        # The last one of the block.
        (machine.load("eth1").rp[IP4][-2], v4),
    ]

    async def seen(route: Route, server: tuple[str, int]) -> str:
        assert await route.bind() is route
        with route.socket(socket.SOCK_DGRAM) as sock:
            assert sock.getsockname()[0] == (route.ext() if route.af == IP6 else route.nic())
            return _ask(sock, server)

    for route, server in routes:
        assert machine.within(lambda: asyncio.run(seen(route, server))) == route.ext()  # noqa: B023


def _ask(sock: socket.socket, server: tuple[str, int]) -> str:
    """As what a STUN server (RFC 8489) sees a socket."""
    cookie, ident = bytes.fromhex("2112a442"), b"by a route  "
    sock.settimeout(1)
    for _ in range(20):
        sock.sendto(b"\x00\x01\x00\x00" + cookie + ident, server)
        try:
            answer = sock.recv(2048)
            break
        except TimeoutError:
            continue
    else:
        raise AssertionError("the server does not answer")
    at = 20
    while answer[at : at + 2] != b"\x00\x20":
        at += 4 + (int.from_bytes(answer[at + 2 : at + 4], "big") + 3) // 4 * 4
    length = int.from_bytes(answer[at + 2 : at + 4], "big")
    masked = answer[at + 8 : at + 4 + length]
    return str(ipaddress.ip_address(bytes(a ^ b for a, b in zip(masked, cookie + ident, strict=False))))


def test_a_route_is_bound_to_any_of_the_machine_s_addresses(machine: Machine) -> None:
    route = machine.load("eth0").route(IP4)

    def bind() -> tuple[str, str, int]:
        # The address of the other interface.
        bound = route.bind(port=4321, ips=machine.second).wait()
        with bound.socket(socket.SOCK_DGRAM) as sock:
            host, port = sock.getsockname()
        with route.bind(ips="127.0.0.1").wait().socket(socket.SOCK_STREAM) as local:
            return host, local.getsockname()[0], port

    assert machine.within(bind) == (machine.second, "127.0.0.1", 4321)

    def wrong() -> None:
        route.bind(ips="192.0.2.77").wait().socket()

    with pytest.raises(OSError, match="Cannot assign"):
        machine.within(wrong)


def test_a_link_local_address_is_bound_with_its_interface(machine: Machine) -> None:
    route = machine.load("eth0").route(IP6)

    def bind() -> tuple[str, int]:
        with route.bind(ips=str(route.nic_ips[0][0])).wait().socket(socket.SOCK_DGRAM) as sock:
            host, _, _, scope = sock.getsockname()
            return host.partition("%")[0], scope

    assert route.interface is not None
    assert machine.within(bind) == (route.nic(), route.interface.index)


def test_dictionaries_of_both_are_read_where_the_interfaces_are_not(machine: Machine) -> None:
    for nic in (machine.load("eth0"), machine.load("eth1")):
        value = json.loads(json.dumps(nic.to_dict()))
        copy = Interface.from_dict(value)
        assert copy == nic
        assert (copy.name, copy.index, copy.nat, copy.rp) == (nic.name, nic.index, nic.nat, nic.rp)
        assert [route.ext() for route in copy.rp[IP4]] == [route.ext() for route in nic.rp[IP4]]
        assert eval(repr(copy), {"Interface": Interface, "true": True, "false": False, "null": None}) == nic
        assert copy.route(IP4).interface is copy


def test_netcheck_sees_what_the_router_maps_ports_by(machine: Machine) -> None:
    found = machine.within(lambda: peersock.netcheck(stun=machine.servers, roots=(), turn=()).wait())
    nics = {nic["name"]: nic for nic in found["interfaces"]}
    mapping = nics["eth0"]["port_mapping"]
    assert [way["protocol"] for way in mapping] == ["pcp", "nat-pmp", "upnp"]
    # The router reports the outer address at which the servers see this machine. PCP has no such request.
    outer = machine.lab.ip4("home")
    assert [way["external"] for way in mapping] == [None, outer, outer]
    assert nics["eth0"]["ipv4"]["mapped"].rpartition(":")[0] == outer
    assert nics["eth1"]["port_mapping"] == []
    assert (nics["eth1"]["ipv4"]["translated"], found["udp"]) == (False, True)
