"""Nodes and the texts that say where they are."""

from __future__ import annotations

import asyncio
import base64
import json
import random
import threading
import zlib
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import peersock
from peersock import _peersock
from peersock._pending import Pending
from peersock.interfaces import Interface
from peersock.pipe import P2P_DIRECT, NodeAddress, P2PNode, Pipe, init_p2pd, start_p2p_node
from peersock.pipe import _node_text as text_module

from .conftest import Peer, run_python
from .pipes import PATIENCE
from .table import rows


async def test_a_node_connects_to_another_one_by_its_text(peer: Peer, session: peersock.Session) -> None:
    text = peer.start("pipe_node")
    heard: list[bytes] = []

    async def msg_cb(msg: bytes, client_tup: Any, pipe: Pipe) -> None:
        heard.append(msg)

    async with P2PNode(port=0, session=session) as node:
        node.add_msg_cb(msg_cb)
        for form in (text, text.encode(), NodeAddress.parse(text)):
            pipe = await node.connect(form, timeout=PATIENCE)
            assert pipe.client_tup[0] == peer.v6 and node.pipes == [pipe]
            await pipe.send(b"hello")
            assert await pipe.recv(timeout=PATIENCE) == b"HELLO"
            await pipe.close()
            assert node.pipes == []
        assert heard == [b"HELLO"] * 3
        node.del_msg_cb(msg_cb)
        last = await node.connect(text, timeout=PATIENCE)
        await last.send(b"end")
        assert await last.recv(timeout=PATIENCE) == b"END" and len(heard) == 3
    assert not last.is_running


async def test_a_node_connects_to_itself_as_in_p2pd_s_example(session: peersock.Session) -> None:
    async def msg_cb(msg: bytes, client_tup: Any, pipe: Pipe) -> None:
        if b"PING" in msg:
            await pipe.send(b"PONG")

    netifaces = await init_p2pd()
    assert "lo" in netifaces
    node = await start_p2p_node(netifaces=["lo"], port=0, session=session)
    assert await node is node
    node.add_msg_cb(msg_cb)
    pipe = await node.connect(node.addr_bytes)
    await pipe.send(b"PING")
    assert await pipe.recv(timeout=PATIENCE) == b"PONG"
    assert len(node.pipes) == 2
    await pipe.close()
    await node.close()
    await node.close()
    assert not session.closed
    with pytest.raises(ValueError, match="not started"):
        _ = node.addr_bytes


async def test_a_text_has_all_that_is_known_of_a_node(session: peersock.Session) -> None:
    async with P2PNode([await Interface("lo")], 0, session=session) as node:
        address = NodeAddress.parse(node.addr_bytes)
        assert address == node.address and address.id == session.id
        assert address.public_key == session.public_key
        assert address.networks == {f"{session.networks[0]:016x}": session.addresses}
        assert address.port == node.port > 0
        assert set(session.status()["endpoints"]) <= set(address.candidates)
        (nic,) = [Interface.from_dict(one) for one in address.interfaces]
        assert nic.name == "lo" and str(nic.route().nic()) in ("127.0.0.1", "::1")
        assert {"type", "delta", "nat_info", "delta_info"} <= set(nic.nat)
        assert address.roots == []


async def test_a_start_does_not_wait_for_what_is_known_of_nats(
    session: peersock.Session, monkeypatch: pytest.MonkeyPatch
) -> None:
    started = threading.Event()
    wait = Interface.wait

    def wait_for_the_start(interface: Interface) -> Interface:
        # Without servers nobody is asked.
        if interface._stun is None:
            assert started.wait(PATIENCE)
        return wait(interface)

    def load_nat(interface: Interface, timeout: float = 4.0) -> Pending[Any]:
        interface.nat = {**interface.nat, "nat_info": "found", "is_known": True}
        return Pending(lambda: interface.nat)

    monkeypatch.setenv("PEERSOCK_STUN", "127.0.0.1:9")
    monkeypatch.setattr(Interface, "wait", wait_for_the_start)
    monkeypatch.setattr(Interface, "load_nat", load_nat)
    async with await start_p2p_node(["lo"], 0, session=session) as node:
        (nic,) = node.address.interfaces
        assert not nic["nat"]["is_known"]
        started.set()
        while not node.address.interfaces[0]["nat"]["is_known"]:
            await asyncio.sleep(0.01)


def test_a_node_has_a_session_of_its_own_if_it_is_given_none() -> None:
    network = f"ff{random.randrange(1, 0x1000):04x}ffff000000"
    code = """
import asyncio, sys
from peersock.pipe import P2PNode

async def main():
    async with P2PNode(port=40000, net_id=sys.argv[1], interfaces="loopback") as node:
        session = node.session
        print([nic.name for nic in node.ifs], node.port, len(node.addr_bytes) < 1000)
    print(session.closed)

asyncio.run(main())
"""
    assert run_python(code, network) == "['lo'] 40000 True\nTrue\n"


STARTING = """
import asyncio, sys, threading
import peersock
from peersock import _node
from peersock.pipe import P2PNode

joined, going_on = threading.Event(), threading.Event()
entered, joins = _node.enter, []

def enter(*arguments):
    joins.append(arguments)
    running = entered(*arguments)
    joined.set()
    going_on.wait()
    return running

_node.enter = enter

async def started():
    while not joined.is_set():
        await asyncio.sleep(0.001)
"""


@pytest.mark.parametrize("what", ["node", "session"])
def test_a_start_that_is_cancelled_leaves_no_node(what: str) -> None:
    code = (
        STARTING
        + """
async def main():
    options = {"interfaces": "loopback", "discovery": False}
    if sys.argv[2] == "node":
        starting = asyncio.create_task(P2PNode(port=0, net_id=sys.argv[1], **options).start())
    else:
        starting = asyncio.create_task(peersock.Session.start(sys.argv[1], **options))
    await started()
    starting.cancel()
    await asyncio.wait([starting])
    print(starting.cancelled())
    going_on.set()

asyncio.run(main())
print(_node.current() is not None)
"""
    )
    network = f"ff{random.randrange(1, 0x1000):04x}ffff000000"
    assert run_python(code, network, what) == "True\nFalse\n"


def test_a_node_that_is_started_twice_at_once_has_one_session() -> None:
    code = (
        STARTING
        + """
async def main():
    going_on.set()
    async with P2PNode(port=0, net_id=sys.argv[1], interfaces="loopback", discovery=False) as node:
        pass
    joins.clear()
    starting = [asyncio.create_task(node.start()) for _ in range(2)]
    # What is started is closed.
    await asyncio.sleep(0)
    closing = asyncio.create_task(node.close())
    assert [*await asyncio.gather(*starting)] == [node] * 2
    await closing
    print(len(joins))

asyncio.run(main())
print(_node.current() is not None)
"""
    )
    network = f"ff{random.randrange(1, 0x1000):04x}ffff000000"
    assert run_python(code, network) == "1\nFalse\n"


async def test_wrong_arguments_are_refused(session: peersock.Session) -> None:
    with pytest.raises(ValueError, match="not both"):
        P2PNode(session=session, net_id=5)
    with pytest.raises(ValueError, match="option"):
        P2PNode(session=session, conf={"enable_stun": True})
    node = P2PNode(port=0, session=session)
    with pytest.raises(ValueError, match="not started"):
        await node.connect(ADDRESS)
    async with node:
        with pytest.raises(LookupError, match="in common"):
            await node.connect(ADDRESS)
        # The other one has the port.
        with pytest.raises(OSError):
            await P2PNode(port=node.port, session=session)
        nobody = replace(node.address, id="ab" * 32)
        with pytest.raises(OSError):
            await node.connect(nobody, timeout=0.05)
        with pytest.raises(TypeError):
            await node.connect(5)  # type: ignore[arg-type]
        with pytest.raises(TypeError, match="timeout="):
            await node.connect(nobody, 0.05)  # type: ignore[arg-type]
        wrong: list[list[int]] = [[], [0], [P2P_DIRECT, 5]]
        for ways in wrong:
            with pytest.raises(ValueError, match="strategies are some of"):
                await node.connect(nobody, ways)


async def test_a_text_that_somebody_has_changed_leads_to_nobody_else(peer: Peer, session: peersock.Session) -> None:
    where = NodeAddress.parse(peer.start("pipe_node"))
    changed = replace(where, networks={network: [session.address] for network in where.networks})
    other = replace(where, public_key=peersock.public_key(bytes([8] * 32)))
    with pytest.raises(ValueError, match="another node"):
        NodeAddress.parse(other.to_bytes())
    async with P2PNode(port=0, session=session) as node:
        for form in (changed, changed.to_bytes()):
            pipe = await node.connect(form, timeout=PATIENCE)
            assert pipe.client_tup[0] == peer.v6
            await pipe.close()
        last = await node.connect(where, timeout=PATIENCE)
        await last.send(b"end")
        assert await last.recv(timeout=PATIENCE) == b"END"


KEY = peersock.public_key(bytes([7] * 32))
ADDRESS = NodeAddress(
    _peersock.node_id(KEY), KEY, {"ff0001ffff000000": ["fd00::1"]}, 5, ["192.0.2.1:5"], [{"a": 1}], []
)


def encode(value: object) -> str:
    packed = zlib.compress(json.dumps(value).encode())
    return text_module.PREFIX + base64.urlsafe_b64encode(packed).decode().rstrip("=")


def test_texts_are_read_as_they_are_written() -> None:
    text = ADDRESS.to_bytes()
    assert NodeAddress.parse(text) == NodeAddress.parse(f" {text.decode()}\n") == ADDRESS
    # A later version may say more.
    assert NodeAddress.parse(encode({**vars(ADDRESS), "more": [1]})) == ADDRESS


def test_texts_of_rust_are_read() -> None:
    ours, theirs = (NodeAddress.parse(text) for (text,) in rows("node_addresses", "text", 1))
    assert ours == theirs
    assert list(theirs.networks["ff0001ffff000000"]) == ["fd00::1"] and theirs.port == 10001
    assert theirs.candidates == ["192.0.2.1:5", "[2001:db8::1]:5"] and theirs.roots == ["ab" * 32]
    (nic,) = map(Interface.from_dict, theirs.interfaces)
    assert nic.name == "eth0" and nic.route().ext() == "192.0.2.1"


@pytest.mark.parametrize(
    ("key", "value"),
    [
        *((key, json.loads(value or '""')) for key, value in rows("node_addresses", "refuse", 2)),
        ("networks", {"ff0001ffff000000": ["fd00::1"] * 65}),
        ("candidates", ["192.0.2.1:5"] * 65),
    ],
)
def test_texts_that_make_no_sense_are_refused(key: str, value: object) -> None:
    with pytest.raises(ValueError):
        NodeAddress.parse(encode({**vars(ADDRESS), key: value}))


def test_texts_that_are_damaged_are_refused() -> None:
    good = ADDRESS.to_bytes().decode()
    huge = base64.urlsafe_b64encode(zlib.compress(b" " * (10 << 20))).decode()
    deep = base64.urlsafe_b64encode(zlib.compress(b"[" * 60_000)).decode().rstrip("=")
    for text in (
        "",
        "name.tld",
        good[:-3],
        good + "AAAA",
        good.replace(":1:", ":2:"),
        good[:30] + "!" + good[30:],
        text_module.PREFIX,
        text_module.PREFIX + huge.rstrip("="),
        text_module.PREFIX + deep,
        text_module.PREFIX + "A" * (32 << 10),
        encode(5),
        encode([]),
        encode({}),
    ):
        with pytest.raises(ValueError):
            NodeAddress.parse(text)
    with pytest.raises(TypeError):
        NodeAddress.parse(None)  # type: ignore[arg-type]


@settings(max_examples=50, deadline=None)
@given(st.one_of(st.text(), st.binary(), st.recursive(st.none() | st.integers() | st.text(), st.lists)))
def test_no_text_is_too_strange(value: Any) -> None:
    for text in (value, encode(value) if not isinstance(value, bytes) else text_module.PREFIX.encode() + value):
        if isinstance(text, (str, bytes)):
            with pytest.raises(ValueError):
                NodeAddress.parse(text)
