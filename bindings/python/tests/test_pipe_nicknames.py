"""Nodes that connect by nicknames, which a root keeps that is a process of its own."""

from __future__ import annotations

import asyncio
import subprocess
import sys
import threading
from collections.abc import Iterator
from typing import Any

import pytest

import peersock
from peersock.pipe import P2PNode
from peersock.pipe._nicknames import claim

from .conftest import ROOT
from .libraries.lab import launcher
from .pipes import PATIENCE

NETWORKS = ("ff0001ffff000000", "ff0002ffff000000", "ff0003ffff000000")

#: A node in another process, because all sessions of one process share a node. It runs until its input ends.
OTHER = """
import asyncio, sys
from peersock.pipe import P2PNode

async def upper(msg, client_tup, pipe):
    await pipe.send(msg.upper())

async def main():
    roots, *networks = sys.argv[1:]
    async with P2PNode(port=0, net_id=networks, interfaces="loopback", discovery=False, roots=roots) as node:
        node.add_msg_cb(upper)
        text = await node.nickname("Alice", 60)
        print(text, node.session.id, node.port, *node.session.addresses, flush=True)
        await asyncio.to_thread(sys.stdin.readline)

asyncio.run(main())
"""

#: The node that connects, in a process of its own as well: the one of the tests may have other settings.
HERE = """
import asyncio, errno, sys
import pytest
from peersock.pipe import P2P_DIRECT, P2P_PUNCH, P2P_REVERSE, P2PNode

async def told(line):
    print(line, flush=True)
    return await asyncio.to_thread(sys.stdin.readline)

async def main():
    roots, text, port, patience, networks, addresses = sys.argv[1:]
    options = {"interfaces": "loopback", "discovery": False, "roots": roots, "net_id": networks.split()}
    async with P2PNode(port=0, **options) as here:
        for form in (text, text.encode(), text.upper(), "alice.peersock"):
            pipe = await here.connect(form, timeout=float(patience))
            assert pipe.client_tup[0] in addresses.split() and pipe.client_tup[1] == int(port)
            await pipe.send(b"hello")
            assert await pipe.recv(timeout=float(patience)) == b"HELLO"
            await pipe.close()
        # Without relays the pipe is there when the path is direct, though the root is what both have in common.
        pipe = await here.connect(text, [P2P_DIRECT, P2P_REVERSE, P2P_PUNCH], float(patience))
        assert all(peer.root is None and not peer.turn for peer in here.session.peers() if peer.connected)
        await pipe.close()
        with pytest.raises(OSError, match="another node") as taken:
            await here.nickname("alice", float(patience))
        assert taken.value.errno == errno.EADDRINUSE
        for unknown in ("bob.peersock", f"alice.{here.session.id[:20]}.peersock"):
            with pytest.raises(LookupError, match="no root"):
                await here.connect(unknown, timeout=float(patience))
        for wrong in ("a b.peersock", "alice.12.peersock", ".peersock"):
            with pytest.raises(ValueError, match=r"nickname|digits"):
                await here.connect(wrong)
        with pytest.raises(ValueError, match="nickname"):
            await here.nickname("no dots.")
        # What closes gives it back.
        await told("the other one may close")
        assert await here.nickname("alice", float(patience)) == f"alice.{here.session.id[:20]}.peersock"
        await told("done")

asyncio.run(main())
"""


@pytest.fixture
def root() -> Iterator[str]:
    command = [launcher(), "root", "--ephemeral", "--listen", "127.0.0.1", "--port", "0", "--drain", "0"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        yield process.stdout.readline().strip()
        process.kill()


@pytest.fixture
def other(root: str) -> Iterator[subprocess.Popen[str]]:
    command = [sys.executable, "-c", OTHER, root, *NETWORKS[1:]]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    with subprocess.Popen(command, cwd=ROOT, text=True, **pipes) as process:  # type: ignore[call-overload]
        yield process
        process.kill()


def test_a_node_connects_to_another_one_by_its_nickname(root: str, other: subprocess.Popen[str]) -> None:
    assert other.stdout is not None
    text, id, port, *addresses = other.stdout.readline().split()
    assert text == f"alice.{id[:20]}.peersock"
    words = [root, text, port, str(PATIENCE), " ".join(NETWORKS[:2]), " ".join(addresses)]
    pipe = subprocess.PIPE
    with subprocess.Popen([sys.executable, "-c", HERE, *words], cwd=ROOT, text=True, stdin=pipe, stdout=pipe) as here:
        assert here.stdin is not None and here.stdout is not None
        try:
            assert here.stdout.readline() == "the other one may close\n"
            other.communicate("close\n", PATIENCE)
            here.stdin.write("\n")
            here.stdin.flush()
            assert here.stdout.readline() == "done\n"
            here.communicate("\n", PATIENCE)
            assert here.returncode == 0
        finally:
            here.kill()


async def test_without_a_root_there_are_no_nicknames(session: peersock.Session) -> None:
    async with P2PNode(port=0, session=session) as node:
        with pytest.raises(TimeoutError, match="there are no roots"):
            await node.nickname("alice", 0.1)
        # Nobody waits for long for what cannot come.
        with pytest.raises(TimeoutError, match="there are no roots"):
            await node.connect("alice.peersock", timeout=PATIENCE)
    with pytest.raises(ValueError, match="not started"):
        await node.nickname("alice")


async def test_nicknames_are_given_back_while_the_event_loop_runs() -> None:
    """The node may have other work: whoever closes, or gives up a claim, must not stand in its way."""
    goes_on = threading.Event()
    given_back: list[str] = []

    class Own:
        def nickname(self, name: str, port: int, timeout: float) -> None:
            pass

        def release_nickname(self, name: str) -> None:
            assert goes_on.wait(PATIENCE), "the event loop stands still"
            given_back.append(name)

    class Held:
        closed = False

        def _own(self) -> Own:
            return Own()

        def status(self) -> dict[str, list[str]]:
            return {"roots": ["one that says nothing"]}

    session: Any = Held()
    node = P2PNode(port=0, session=session)
    node._nicknames = ["alice", "bob"]
    closing = asyncio.create_task(node.close())
    while not closing.done():
        await asyncio.sleep(0)
        goes_on.set()
    await closing
    assert given_back == ["alice", "bob"]
    goes_on.clear()
    asyncio.get_running_loop().call_later(0, goes_on.set)
    with pytest.raises(TimeoutError, match="no root has answered"):
        await claim(session, "carol", 0, 0)
    assert given_back == ["alice", "bob", "carol"]
