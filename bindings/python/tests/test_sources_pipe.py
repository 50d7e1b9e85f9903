"""P2PD's example programs, whose names `peersock.pipe` and `peersock.interfaces` have: their calls, with the arguments
and in the order that they have there. Servers of the Internet are replaced by ones of this machine, and ports are of
the system's choice.
"""

from __future__ import annotations

import asyncio
import binascii
import os
from typing import Any

import pytest

import peersock
from peersock.interfaces import IP4, IP6, Interface, list_interfaces, load_interfaces
from peersock.pipe import (
    NET_CONF,
    P2P_DIRECT,
    P2P_PUNCH,
    P2P_RELAY,
    P2P_REVERSE,
    SIGNAL_PIPE_NO,
    SUB_ALL,
    TCP,
    UDP,
    Daemon,
    P2PNode,
    Pipe,
    dict_child,
    init_p2pd,
    pipe_open,
    start_p2p_node,
)

from .conftest import run_python
from .test_interfaces import EXTERNAL, stun

__all__ = ["stun"]

LOOPBACK = "lo"


async def echo(msg: bytes, client_tup: Any, pipe: Pipe) -> None:
    await pipe.send(msg, client_tup)


async def protocol(msg: bytes, client_tup: Any, pipe: Pipe) -> None:
    """Answers as P2PD's demonstration does."""
    if b"PING" in msg:
        await pipe.send(b"PONG", client_tup)
    if msg[:4] == b"ECHO":
        await pipe.send(msg[5:], client_tup)


# Interfaces.


async def test_example_2_the_interface(stun: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PEERSOCK_STUN", stun)
    nic = await Interface(LOOPBACK)
    await nic.load_nat()
    shown = repr(nic)
    assert shown.startswith("Interface.from_dict(") and '"nat_info"' in shown and EXTERNAL in shown


async def test_example_3_all_interfaces(stun: str) -> None:
    if_names = await list_interfaces()
    ifs = await load_interfaces(if_names)
    assert [nic.name for nic in ifs] == if_names


def test_the_pool_of_routes() -> None:
    nic = Interface.from_dict(
        {
            "name": "eth0",
            "nat": {"type": 5, "nat_info": "restrict port", "delta": {"type": 6, "value": 0}, "delta_info": "random"},
            "rp": {
                "2": [
                    {
                        "af": 2,
                        "nic_ips": [{"ip": "192.168.21.21", "cidr": 32, "af": 2}],
                        "ext_ips": [{"ip": "1.3.3.7", "cidr": 32, "af": 2}],
                    }
                ],
                "23": [],
            },
        }
    )
    x = nic.rp[IP4]
    y = nic.rp[IP6]
    assert (len(x), len(y)) == (1, 0)
    for r in x:
        assert r.ext() == "1.3.3.7"


# Pipes.


async def test_example_4_a_route(stun: str) -> None:
    server = await pipe_open(TCP, route=("127.0.0.1", 0), msg_cb=echo)
    nic = await Interface(LOOPBACK)
    route = await nic.route(IP4).bind()
    dest = server.local_tup
    pipe = await pipe_open(TCP, dest, route)
    buf = b"Test\r\n\r\n"
    await pipe.send(buf)
    out = await pipe.recv(timeout=3)
    assert out == buf
    await pipe.close()
    await server.close()


#: In a process of its own: with a session what listens at no address is on the overlay, and ``::`` is this machine.
EXAMPLE_5 = """
import asyncio
from peersock.pipe import *

async def msg_cb(msg, client_tup, pipe):
    await pipe.send(msg, client_tup)

async def example():
    server = await pipe_open(TCP, msg_cb=msg_cb)
    dest = server.sock.getsockname()[0:2]
    client = await pipe_open(TCP, dest)
    msg = b"test msg."
    await client.send(msg)
    out = await client.recv()
    assert(msg == out)
    await client.close()
    await server.close()
    print("done")

asyncio.run(example())
"""


def test_example_5_a_server_of_echoes(monkeypatch: pytest.MonkeyPatch) -> None:
    # A session of another test, which children of this process would share: the server would be on its networks alone.
    monkeypatch.delenv("PEERSOCK_NODE", raising=False)
    assert run_python(EXAMPLE_5) == "done\n"


async def test_example_6_udp_by_await(stun: str) -> None:
    host, _, port = stun.partition(":")
    pipe = await pipe_open(UDP, (host, int(port)))
    msg_id = binascii.hexlify(os.urandom(12))
    req_hex = b"0001" + b"0000" + b"2112A442" + msg_id
    req_buf = binascii.unhexlify(req_hex)
    for _ in range(3):
        await pipe.send(req_buf)
        resp = await pipe.recv()
        if resp is None:
            continue
        break
    assert resp is not None and resp[:2] == b"\x01\x01" and resp[8:20] == req_buf[8:]
    await pipe.close()


async def test_example_7_subscriptions(stun: str) -> None:
    server = await pipe_open(TCP, route=("127.0.0.1", 0), msg_cb=echo)
    nic = await Interface(LOOPBACK)
    route = await nic.route().bind()
    echo_dest = server.local_tup
    pipe = await pipe_open(TCP, echo_dest, route)
    msg = b"do echo test"
    await pipe.send(msg + b"\r\n", echo_dest)
    data = await pipe.recv(SUB_ALL, 4)
    assert data is not None and msg in data
    pipe.unsubscribe(SUB_ALL)
    await pipe.close()
    await server.close()


# Daemons.


async def test_examples_8_and_9_listeners(stun: str) -> None:
    class EchoServer(Daemon):
        def __init__(self) -> None:
            super().__init__()

        async def msg_cb(self, msg: bytes, client_tup: Any, pipe: Pipe) -> None:
            await pipe.send(msg, client_tup)

    i = await Interface(LOOPBACK)
    route = await i.route().bind(port=0)
    echod = EchoServer()
    await echod.add_listener(
        TCP,
        route,
    )
    await echod.close()
    serv = Daemon()
    af = i.supported()[0]
    await serv.add_listener(TCP, await i.route(af).bind())
    await serv.close()


async def test_example_13_a_server_says_how_it_is_reached(stun: str) -> None:
    class NetInfoServer(Daemon):
        async def msg_cb(self, msg: bytes, client_tup: Any, pipe: Pipe) -> None:
            sock = pipe.sock
            assert pipe.route is not None and pipe.route.interface is not None
            told = {
                "fd": sock.fileno(),
                "laddr": sock.getsockname(),
                "route": pipe.route.to_dict(),
                "if": {"name": pipe.route.interface.name},
            }
            await pipe.send(repr(told).encode(), client_tup)

    nic = await Interface(LOOPBACK)
    server = NetInfoServer()
    await server.listen_all(TCP, 0, nic)
    await server.listen_all(UDP, 0, nic)
    assert len(server.servers) == 4
    for one in server.servers:
        client = await pipe_open(one.proto, one.local_tup)
        await client.send(b"/mapping")
        said = await client.recv(timeout=20)
        assert said is not None and b"'if': {'name': 'lo'}" in said and b"'nic_ips'" in said
        await client.close()
    await server.close()


async def test_examples_16_and_17_loopback(stun: str) -> None:
    nic = await Interface(LOOPBACK)
    server = Daemon()
    ((port, _), _) = await server.listen_loopback(TCP, 0, nic)
    af = nic.supported()[0]
    client_route = await nic.route(af).bind()
    client = await pipe_open(TCP, ("127.0.0.1", port), client_route)
    await client.close()
    await server.close()


# Nodes. Those with nicknames are in `test_pipe_nicknames`, with a root.


async def test_example_1_two_computers(session: peersock.Session) -> None:
    async def computer_a() -> tuple[bytes, P2PNode]:
        node = P2PNode(port=0, session=session)
        node.add_msg_cb(protocol)
        await node.start()
        return node.addr_bytes, node

    async def computer_b(node_a_url: bytes) -> P2PNode:
        node = P2PNode(port=0, session=session)
        await node.start()
        pipe = await node.connect(node_a_url)
        msg = b"test send"
        await pipe.send(b"ECHO " + msg)
        out = await pipe.recv()
        assert out is not None and msg in out
        await pipe.close()
        return node

    node_a_url, node_a = await computer_a()
    node_b = await computer_b(node_a_url)
    await node_a.close()
    await node_b.close()


@pytest.mark.parametrize(
    "strategies",
    [[P2P_DIRECT, P2P_REVERSE, P2P_PUNCH], [P2P_DIRECT], [P2P_REVERSE], [P2P_PUNCH], [P2P_RELAY]],
    ids=["11", "tcp_direct_connect", "tcp_reverse_connect", "tcp_hole_punch", "udp_turn_relay"],
)
async def test_examples_with_strategies(session: peersock.Session, strategies: list[int]) -> None:
    node = P2PNode(port=0, session=session)
    await node.start()
    pipe = await node.connect(node.addr_bytes, strategies)
    await pipe.close()
    pipe = await node.connect(node.addr_bytes, strategies=strategies)
    await pipe.close()
    await node.close()


async def test_the_node_in_a_nutshell(session: peersock.Session) -> None:
    node = await P2PNode(port=0, session=session)
    node.add_msg_cb(protocol)
    pipe = await node.connect(node.addr_bytes)
    await pipe.send(b"PING")
    assert await pipe.recv(timeout=20) == b"PONG"
    await node.close()
    netifaces = await init_p2pd()
    node = await start_p2p_node(netifaces=netifaces, port=0, session=session)
    await node.close()


async def test_the_node_with_options(session: peersock.Session, stun: str) -> None:
    node_conf = dict_child(
        {
            "enable_upnp": True,
            "sig_pipe_no": SIGNAL_PIPE_NO,
        },
        NET_CONF,
    )
    if_names = await list_interfaces()
    ifs = await load_interfaces(if_names)
    node = await P2PNode(ifs=ifs, port=0, conf=node_conf, session=session)
    await node.close()
    with pytest.raises(ValueError, match="enable_upnp"):
        P2PNode(conf={"enable_upnp": False})
    with pytest.raises(ValueError, match="no option"):
        P2PNode(conf={"enable_stun": True})


async def test_joined_pipes_go_both_ways() -> None:
    server = await pipe_open(TCP, route=("127.0.0.1", 0))
    ends = [await pipe_open(TCP, server.local_tup) for _ in range(2)]
    pipe_a, pipe_b = await server, await server
    pipe_a.add_pipe(pipe_b)
    pipe_b.add_pipe(pipe_a)
    for here, there in (ends, reversed(ends)):
        await here.send(b"across")
        assert await there.recv(timeout=20) == b"across"
    await asyncio.gather(*(pipe.close() for pipe in (*ends, pipe_a, pipe_b, server)))
