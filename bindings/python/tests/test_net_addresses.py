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

LONG = "a" * 300


@pytest.mark.parametrize(
    ("text", "host", "port"),
    [
        ("localhost:http", "localhost", "http"),
        ("127.0.0.1:80", "127.0.0.1", "80"),
        ("[::1]:80", "::1", "80"),
        ("[fe80::1%lo]:80", "fe80::1%lo", "80"),
        ("[localhost]:80", "localhost", "80"),
        ("[localhost%lo]:80", "localhost%lo", "80"),
        (":80", "", "80"),
        ("host:", "host", ""),
        (":", "", ""),
        ("[]:", "", ""),
        ("[::1]:", "::1", ""),
        ("golang.org:https%foo", "golang.org", "https%foo"),
        ("a b:c d", "a b", "c d"),
    ],
)
def test_split_host_port(text: str, host: str, port: str) -> None:
    assert net.split_host_port(text) == (host, port)


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", "missing port in address"),
        ("localhost", "missing port in address"),
        ("127.0.0.1", "missing port in address"),
        ("[::1]", "missing port in address"),
        ("[::1]80", "missing port in address"),
        ("[fe80::1%lo]", "missing port in address"),
        ("[localhost]", "missing port in address"),
        ("[a]b:80", "missing port in address"),
        ("::1", "too many colons in address"),
        ("::1:80", "too many colons in address"),
        ("fe80::1%lo:80", "too many colons in address"),
        ("a:b:80", "too many colons in address"),
        ("[::1]::80", "too many colons in address"),
        ("[a]:b:80", "too many colons in address"),
        ("[::1:80", "missing ']' in address"),
        ("[:", "missing ']' in address"),
        ("::1]:80", "too many colons in address"),
        ("a]:80", "unexpected ']' in address"),
        ("a[:80", "unexpected '[' in address"),
        ("[[::1]:80", "unexpected '[' in address"),
        ("[a]]:80", "missing port in address"),
        ("[a[b]:80", "unexpected '[' in address"),
        ("a:[80", "unexpected '[' in address"),
        ("a:80]", "unexpected ']' in address"),
        ("[a]:[80]", "unexpected '[' in address"),
    ],
)
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


@pytest.mark.parametrize(
    ("host", "port", "text"),
    [
        ("localhost", "http", "localhost:http"),
        ("::1", 80, "[::1]:80"),
        ("fe80::1%lo", "80", "[fe80::1%lo]:80"),
        ("", "0", ":0"),
        ("golang.org", "https%foo", "golang.org:https%foo"),
    ],
)
def test_join_host_port(host: str, port: str | int, text: str) -> None:
    assert net.join_host_port(host, port) == text
    assert net.split_host_port(text) == (host, str(port))


@pytest.mark.parametrize(
    ("address", "text", "network"),
    [
        (net.IPAddr("10.0.0.1"), "10.0.0.1", "ip"),
        (net.IPAddr("fe80::1", "lo"), "fe80::1%lo", "ip"),
        (net.IPAddr(), "", "ip"),
        (net.TCPAddr("10.0.0.1", 80), "10.0.0.1:80", "tcp"),
        (net.TCPAddr(IPv6Address("fd00::1"), 80), "[fd00::1]:80", "tcp"),
        (net.TCPAddr("fe80::1%lo", 80), "[fe80::1%lo]:80", "tcp"),
        (net.TCPAddr(None, 80), ":80", "tcp"),
        (net.UDPAddr("::", 53), "[::]:53", "udp"),
        (net.UDPAddr("::ffff:10.0.0.1", 53), "10.0.0.1:53", "udp"),
        (net.UnixAddr("/tmp/x"), "/tmp/x", "unix"),
        (net.UnixAddr("@x", "unixgram"), "@x", "unixgram"),
    ],
)
def test_addresses_are_values_with_a_text(address: net.Addr, text: str, network: str) -> None:
    assert isinstance(address, net.Addr)
    assert (str(address), address.network) == (text, network)
    assert pickle.loads(pickle.dumps(address)) == address
    assert len({address, pickle.loads(pickle.dumps(address))}) == 1
    with pytest.raises(AttributeError):
        address.zone = "other"  # type: ignore[attr-defined]
    if network != "ip" and text != ":80":
        assert net.resolve_addr(text, network) == address


def test_kinds_of_addresses_are_not_equal() -> None:
    tcp: net.Addr = net.TCPAddr("::1", 1)
    assert tcp != net.UDPAddr("::1", 1)
    assert net.TCPAddr("::1", 1) != net.TCPAddr("::1", 1, "lo")
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
        ("", {}),
        ("127.1", {}),
        ("127.0.0.01", {}),
        ("1.2.3.256", {}),
        ("fe80::1%", {}),
        ("127.0.0.1%lo", {}),
        ("127.0.0.1", {"zone": "lo"}),
        ("::1::2", {}),
        ("localhost", {}),
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


def test_services_have_names() -> None:
    assert net.resolve_tcp_addr("127.0.0.1:www") == net.TCPAddr("127.0.0.1", 80)
    assert net.resolve_tcp_addr("[::1]:HTTPS", "tcp6") == net.TCPAddr("::1", 443)
    assert net.resolve_udp_addr("[::1]:ntp", "udp6") == net.UDPAddr("::1", 123)
    assert net.resolve_udp_addr("127.0.0.1:tftp") == net.UDPAddr("127.0.0.1", 69)
    with pytest.raises(net.AddressError, match="unknown port of tcp"):
        net.resolve_tcp_addr("127.0.0.1:tftp")


@pytest.mark.parametrize(("text", "port"), [("", 0), ("0", 0), ("-0", 0), ("+80", 80), ("00080", 80), ("65535", 65535)])
def test_ports_are_numbers(text: str, port: int) -> None:
    assert net.resolve_tcp_addr(f"127.0.0.1:{text}").port == port


@pytest.mark.parametrize(
    "port",
    ["65536", "-1", "99999999999", "9" * 5000, "no such one", "http ", " 80", "8 0", "0x50", "٨٠", "+", "\0"],
)
def test_what_is_no_port_is_refused(port: str) -> None:
    for resolve in (net.resolve_tcp_addr, net.resolve_udp_addr):
        with pytest.raises(net.AddressError, match="port"):
            resolve(f"127.0.0.1:{port}")


def test_zones_are_of_the_address() -> None:
    assert net.resolve_tcp_addr("[fe80::1%lo]:80") == net.TCPAddr("fe80::1", 80, "lo")
    assert net.resolve_udp_addr("[fe80::1%3]:80", "udp6").scope_id == 3
    assert net.resolve_ip_addr("fe80::1%lo", "ip6") == net.IPAddr("fe80::1", "lo")
    for text in ("[127.0.0.1%lo]:80", "[fe80::1%]:80", "[localhost%lo]:80"):
        with pytest.raises(net.AddressError):
            net.resolve_tcp_addr(text)


@pytest.mark.parametrize("host", ["127.1", "1.2.3.256", "0177.0.0.1", "1", "::1::", LONG, "a..b", "\0"])
def test_hosts_that_are_none_are_refused(host: str) -> None:
    with pytest.raises(net.AddressError):
        net.resolve_tcp_addr(net.join_host_port(host, 80))
    with pytest.raises(net.AddressError):
        net.resolve_ip_addr(host)


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
    for text, network in (("[::1]:80", "tcp4"), ("127.0.0.1:80", "tcp6"), ("[::ffff:1.2.3.4]:80", "tcp6")):
        with pytest.raises(net.AddressError, match=f"no address of the network {network}"):
            net.resolve_tcp_addr(text, network)


def test_each_network_has_its_addresses(tmp_path: Any) -> None:
    path = str(tmp_path / "s")
    assert net.resolve_addr("127.0.0.1:1", "tcp4") == net.TCPAddr("127.0.0.1", 1)
    assert net.resolve_addr("[::1]:1", "udp") == net.UDPAddr("::1", 1)
    assert net.resolve_addr("127.0.0.1", "ip") == net.resolve_ip_addr("127.0.0.1") == net.IPAddr("127.0.0.1")
    assert net.resolve_addr(path, "unix") == net.resolve_unix_addr(path) == net.UnixAddr(path)
    assert net.resolve_addr(path, "unixgram") == net.resolve_unixgram_addr(path) == net.UnixAddr(path, "unixgram")
    assert net.resolve_unixgram_addr(path, "unixgram") == net.resolve_unixgram_addr(path)
    assert net.resolve_unix_addr(path, "unix6") == net.UnixAddr(path)
    assert net.resolve_tcp_addr(":80") == net.TCPAddr(None, 80)
    with pytest.raises(net.AddressError, match="NUL"):
        net.resolve_unix_addr("a\0b")
    with pytest.raises(net.UnknownNetworkError):
        net.UnixAddr("x", "tcp")


@pytest.mark.parametrize("network", ["", "TCP", "tcp5", "sctp", "tcp ", 4, None, b"tcp"])
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
