"""`peersock.net`: addresses, hosts and ports, resolving, and what is refused."""

from __future__ import annotations

import errno
import pickle
import socket as std
from collections.abc import Callable
from ipaddress import IPv4Address, IPv6Address
from typing import Any

import pytest

from peersock import _names, net

from .table import rows

LONG = "a" * 300
RESOLVERS: dict[str, Callable[..., net.Addr]] = {
    "tcp": net.resolve_tcp_addr,
    "udp": net.resolve_udp_addr,
    "ip": net.resolve_ip_addr,
    "unix": net.resolve_unix_addr,
    "unixgram": net.resolve_unixgram_addr,
}


def claims(claim: str, *words: str) -> pytest.MarkDecorator:
    """Returns the decorator that plays each row of a claim."""
    return pytest.mark.parametrize(words, rows("net_addresses", claim, len(words)))


@claims("split", "text", "host", "port")
def test_split_host_port(text: str, host: str, port: str) -> None:
    assert net.split_host_port(text) == (host, port)


@claims("malformed", "text", "reason")
def test_malformed_hosts_and_ports_are_refused(text: str, reason: str) -> None:
    with pytest.raises(net.AddressError) as refused:
        net.split_host_port(text)
    assert reason in str(refused.value)
    assert refused.value.address == text
    for function in (net.dial, net.listen, net.resolve_tcp_addr, net.resolve_addr):
        with pytest.raises(net.AddressError, match=r"in address$"):
            function(text)
    with pytest.raises(net.AddressError):
        net.resolve_udp_addr(text)


@claims("join", "host", "port", "text")
def test_join_host_port(host: str, port: str, text: str) -> None:
    assert net.join_host_port(host, port) == text
    assert net.split_host_port(text) == (host, port)
    if port.isdigit():
        assert net.join_host_port(host, int(port)) == text


@claims("address", "network", "ip", "port", "text")
def test_addresses_are_values_with_a_text(network: str, ip: str, port: str, text: str) -> None:
    kinds = {"ip": net.IPAddr, "tcp": net.TCPAddr, "udp": net.UDPAddr}
    parts: list[Any] = [ip or None] if port == "-" else [ip or None, int(port)]
    address = kinds[network](*parts) if network in kinds else net.UnixAddr(ip, network)
    assert isinstance(address, net.Addr)
    assert (str(address), address.network) == (text, network)
    assert pickle.loads(pickle.dumps(address)) == address
    assert len({address, pickle.loads(pickle.dumps(address))}) == 1
    with pytest.raises(AttributeError):
        address.zone = "other"  # type: ignore[attr-defined]
    assert net.resolve_addr(text, network) == address


def test_kinds_of_addresses_are_not_equal() -> None:
    tcp: net.Addr = net.TCPAddr("::1", 1)
    assert tcp != net.UDPAddr("::1", 1)
    assert net.TCPAddr("::1", 1) != net.TCPAddr("::1", 1, "lo")
    assert net.TCPAddr(IPv6Address("fe80::1"), 1, "lo") == net.TCPAddr("fe80::1%lo", 1)
    assert isinstance(net.TCPAddr(), net.IPAddr)
    assert not isinstance(net.UnixAddr(""), net.IPAddr)


def test_what_ip_addresses_tell() -> None:
    v4, v6 = net.IPAddr("127.0.0.1"), net.IPAddr("fe80::1%lo", flowinfo=5)
    assert (v4.ip, v4.is_ipv6, v4.zone, v4.scope_id, v4.flowinfo) == (IPv4Address("127.0.0.1"), False, "", 0, 0)
    assert (v6.ip, v6.is_ipv6, v6.zone, v6.flowinfo) == (IPv6Address("fe80::1"), True, "lo", 5)
    assert v6.scope_id == std.if_nametoindex("lo")
    assert net.IPAddr("fe80::1", "7").scope_id == 7
    with pytest.raises(net.AddressError, match="there is no interface none0"):
        _ = net.IPAddr("fe80::1%none0").scope_id


@pytest.mark.parametrize(
    ("ip", "more"),
    [
        *((ip, {}) for (ip,) in rows("net_addresses", "no-ip", 1)),
        ("", {}),
        ("127.0.0.1", {"zone": "lo"}),
        ("::1", {"flowinfo": 1 << 20}),
        ("::1", {"flowinfo": -1}),
        ("127.0.0.1", {"flowinfo": 1}),
        ("::1", {"port": -1}),
        ("::1", {"port": 1 << 16}),
    ],
)
def test_what_is_no_address_is_refused(ip: str, more: dict[str, Any]) -> None:
    with pytest.raises(net.AddressError):
        net.TCPAddr(ip, **more)


@claims("port", "text", "port")
def test_ports_are_numbers(text: str, port: str) -> None:
    for resolve in (net.resolve_tcp_addr, net.resolve_udp_addr):
        assert resolve(f"127.0.0.1:{text}").port == int(port)


@claims("no-port", "port")
def test_what_is_no_port_is_refused(port: str) -> None:
    for resolve in (net.resolve_tcp_addr, net.resolve_udp_addr):
        with pytest.raises(net.AddressError, match="port"):
            resolve(f"127.0.0.1:{port}")


@claims("no-host", "host")
def test_hosts_that_are_none_are_refused(host: str) -> None:
    with pytest.raises(net.AddressError):
        net.resolve_tcp_addr(net.join_host_port(host, 80))
    with pytest.raises(net.AddressError):
        net.resolve_ip_addr(host)


@claims("resolve", "network", "text", "result")
def test_each_network_has_its_addresses(network: str, text: str, result: str) -> None:
    kind = network.rstrip("46")
    found = RESOLVERS[kind](text, network)
    assert (str(found), found.network) == (result, kind)
    assert found == net.resolve_addr(text, network)


@claims("unresolved", "network", "text", "reason")
def test_what_a_network_does_not_resolve_has_a_reason(network: str, text: str, reason: str) -> None:
    for resolve in (RESOLVERS[network.rstrip("46")], net.resolve_addr):
        with pytest.raises(net.AddressError, match=None if reason == "-" else reason):
            resolve(text, network)


def test_paths_resolve_to_themselves() -> None:
    assert net.resolve_unix_addr("/tmp/s", "unix6") == net.UnixAddr("/tmp/s")
    assert net.resolve_unix_addr("/tmp/s") == net.UnixAddr("/tmp/s")
    assert net.resolve_unixgram_addr("/tmp/s") == net.UnixAddr("/tmp/s", "unixgram")
    with pytest.raises(net.AddressError, match="NUL"):
        net.resolve_unix_addr("a\0b")
    with pytest.raises(net.UnknownNetworkError):
        net.UnixAddr("x", "tcp")


def test_names_that_do_not_resolve_say_why(monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(*_: Any) -> None:
        raise std.gaierror(std.EAI_NONAME, "Name or service not known")

    monkeypatch.setattr(_names, "getaddrinfo", fails)
    with pytest.raises(net.AddressError, match="no such host: Name or service not known") as failed:
        net.dial("name.invalid:80")
    assert isinstance(failed.value.__cause__, std.gaierror)
    assert isinstance(failed.value, net.SocketError)


def test_the_network_chooses_the_family(monkeypatch: pytest.MonkeyPatch) -> None:
    def both(host: str, port: object, family: int, kind: int) -> list[Any]:
        entries = [(std.AF_INET6, ("fd00::1", 0, 0, 0)), (std.AF_INET, ("10.0.0.1", 0))]
        return [(one, kind, 0, "", place) for one, place in entries if family in (0, one)]

    monkeypatch.setattr(_names, "getaddrinfo", both)
    v4, v6 = net.TCPAddr("10.0.0.1", 80), net.TCPAddr("fd00::1", 80)
    assert net.resolve_tcp_addr("both:80") == v4
    assert net.resolve_tcp_addr("[both]:80") == v6
    assert net.resolve_tcp_addr("both:80", "tcp6") == v6
    assert net.resolve_tcp_addr("[both]:80", "tcp4") == v4
    assert net.resolve_ip_addr("both", "ip6") == net.IPAddr("fd00::1")


@pytest.mark.parametrize("network", [*(name for (name,) in rows("net_addresses", "unknown", 1)), 4, None, b"tcp"])
def test_unknown_networks_are_refused(network: Any) -> None:
    addr = net.TCPAddr("127.0.0.1", 1)
    udp, unix = net.UDPAddr("127.0.0.1", 1), net.UnixAddr("x")
    calls: list[Callable[[], object]] = [
        lambda: net.dial("127.0.0.1:1", network),
        lambda: net.listen("127.0.0.1:1", network),
        lambda: net.resolve_addr("127.0.0.1:1", network),
        lambda: net.resolve_tcp_addr("127.0.0.1:1", network),
        lambda: net.resolve_udp_addr("127.0.0.1:1", network),
        lambda: net.resolve_ip_addr("127.0.0.1", network),
        lambda: net.resolve_unix_addr("x", network),
        lambda: net.resolve_unixgram_addr("x", network),
        lambda: net.dial_tcp(None, addr, network),
        lambda: net.dial_udp(None, udp, network),
        lambda: net.dial_unix(None, unix, network),
        lambda: net.listen_tcp(addr, network),
        lambda: net.listen_udp(udp, network),
        lambda: net.listen_unix(unix, network),
        lambda: net.listen_unixgram(unix, network),
        lambda: net.TCPConn(network),
    ]
    for call in calls:
        with pytest.raises(net.UnknownNetworkError) as unknown:
            call()
        assert unknown.value.network == network
        assert isinstance(unknown.value, net.SocketError)


def test_groups_of_networks() -> None:
    groups = {
        "tcp": ["tcp", "tcp4", "tcp6"],
        "udp": ["udp", "udp4", "udp6"],
        "ip": ["ip", "ip4", "ip6"],
        "unix": ["unix", "unixgram"],
    }
    for group in groups:
        for name in (name for names in groups.values() for name in names):
            assert net.net_is_valid(group, name) is (name in groups[group])
    assert not any(net.net_is_valid(group, name) for group in ("tcp4", "", "sctp") for name in ("tcp4", "", "sctp"))


def test_networks_are_for_what_they_can() -> None:
    for call in (
        lambda: net.dial("127.0.0.1", "ip"),
        lambda: net.listen("127.0.0.1", "ip"),
        lambda: net.resolve_unixgram_addr("x", "unix"),
        lambda: net.resolve_tcp_addr("127.0.0.1:1", "udp"),
        lambda: net.listen_unixgram(net.UnixAddr("x"), "unix"),
        lambda: net.listen_unix(net.UnixAddr("x"), "unixgram"),
        lambda: net.dial_unix(None, None, "unix"),
        lambda: net.dial_tcp(None, net.TCPAddr("::1", 1), "udp"),
    ):
        with pytest.raises(net.UnknownNetworkError):
            call()
    for call in (
        lambda: net.dial_tcp(None, net.UDPAddr("::1", 1)),  # type: ignore[arg-type]
        lambda: net.dial_tcp(None, net.TCPAddr("::1", 1), "tcp4"),
        lambda: net.dial_tcp(net.TCPAddr("127.0.0.1", 0), net.TCPAddr("::1", 1)),
        lambda: net.dial_udp(net.TCPAddr("::1", 0), net.UDPAddr("::1", 1)),  # type: ignore[arg-type]
        lambda: net.listen_tcp(net.TCPAddr("::1", 1), "tcp4"),
        lambda: net.listen_unix(net.UnixAddr("/tmp/" + LONG)),
        lambda: net.dial("/tmp/" + LONG, "unix"),
    ):
        with pytest.raises(net.AddressError):
            call()


def test_the_three_errors_and_pythons() -> None:
    assert issubclass(net.SocketError, OSError)
    for kind in (net.AddressError, net.UnknownNetworkError, net.ClosedError, net.DeadlineError):
        assert issubclass(kind, net.SocketError)
    assert issubclass(net.DeadlineError, TimeoutError)
    with net.listen("127.0.0.1:0") as listener:
        address = str(listener.addr())
    with pytest.raises(net.ClosedError) as closed:
        listener.accept()
    with pytest.raises(net.UnknownNetworkError) as unknown:
        net.dial(address, "sctp")
    with pytest.raises(net.AddressError) as malformed:
        net.dial("127.0.0.1")
    for error in (closed.value, unknown.value, malformed.value):
        copy = pickle.loads(pickle.dumps(error))
        assert (type(copy), str(copy), vars(copy)) == (type(error), str(error), vars(error))
    with pytest.raises(net.SocketError) as refused:
        net.dial(address)
    assert isinstance(refused.value, ConnectionRefusedError)
    assert refused.value.errno == errno.ECONNREFUSED
    assert f"dial tcp {address}: Connection refused" in str(refused.value)
