"""`peersock.net`: an empty host is every own address. In processes without a session: with one it is the overlay's."""

from __future__ import annotations

from .conftest import run_python

TCP = """
from peersock import net

with net.listen_tcp(net.TCPAddr()) as listener:
    addr = listener.addr()
    assert net.TCPAddr("::", addr.port) == addr
    for host in ("127.0.0.1", "::1", ""):
        with net.dial(net.join_host_port(host, addr.port)) as client, listener.accept() as server:
            assert server.remote_addr() == client.local_addr()
for network, loopback, any_host in (("tcp4", "127.0.0.1", "0.0.0.0"), ("tcp6", "::1", "::")):
    with net.listen_tcp(None, network) as listener:
        addr = listener.addr()
        assert str(addr.ip) == any_host
        with net.dial(f":{addr.port}", network) as client:
            remote = client.remote_addr()
            assert isinstance(remote, net.TCPAddr)
            assert str(remote.ip) == loopback
with net.listen_tcp(None) as listener, net.dial_tcp(None, net.TCPAddr("::1", listener.addr().port)):
    pass
"""

UDP = """
from peersock import net

with net.listen_udp(None) as server, net.dial_udp(None, None) as unbound:
    address = server.local_addr()
    for host in ("127.0.0.1", "::1"):
        unbound.write_to(b"hi", net.UDPAddr(host, address.port))
        data, sender = server.read_from()
        assert isinstance(sender, net.UDPAddr)
        assert (data, str(sender.ip)) == (b"hi", host)
        server.write_to(b"back", sender)
        assert unbound.read_from() == (b"back", net.UDPAddr(host, address.port))
"""


def test_an_empty_host_is_every_family_and_this_machine() -> None:
    run_python(TCP, PEERSOCK_NODE="")


def test_udp_of_both_families() -> None:
    run_python(UDP, PEERSOCK_NODE="")
