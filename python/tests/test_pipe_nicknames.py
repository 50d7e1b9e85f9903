"""Nodes that connect by nicknames, which a root keeps that is a process of its own."""

from __future__ import annotations

import errno
import subprocess
from collections.abc import Iterator
from typing import Any

import pytest

import peersock
from peersock.pipe import P2PNode, Pipe

from .libraries.lab import launcher
from .pipes import PATIENCE, run

NETWORKS = ("ff0001ffff000000", "ff0002ffff000000", "ff0003ffff000000")


@pytest.fixture
def root() -> Iterator[str]:
    command = [launcher(), "root", "--ephemeral", "--listen", "127.0.0.1", "--port", "0", "--drain", "0"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        yield process.stdout.readline().strip()
        process.kill()


async def upper(msg: bytes, client_tup: Any, pipe: Pipe) -> None:
    await pipe.send(msg.upper())


def test_a_node_connects_to_another_one_by_its_nickname(root: str) -> None:
    options: dict[str, Any] = {"interfaces": "loopback", "discovery": False, "roots": root}

    async def main() -> None:
        async with (
            P2PNode(port=0, net_id=NETWORKS[:2], **options) as here,
            P2PNode(port=0, net_id=NETWORKS[1:], **options) as there,
        ):
            there.add_msg_cb(upper)
            text = await there.nickname("Alice", PATIENCE)
            assert text == f"alice.{there.session.id[:20]}.peersock"
            for form in (text, text.encode(), text.upper(), "alice.peersock"):
                pipe = await here.connect(form, PATIENCE)
                assert pipe.client_tup[0] in there.session.addresses and pipe.client_tup[1] == there.port
                await pipe.send(b"hello")
                assert await pipe.recv(timeout=PATIENCE) == b"HELLO"
                await pipe.close()
            with pytest.raises(OSError, match="another node") as taken:
                await here.nickname("alice", PATIENCE)
            assert taken.value.errno == errno.EADDRINUSE
            for unknown in ("bob.peersock", f"alice.{here.session.id[:20]}.peersock"):
                with pytest.raises(LookupError, match="no root"):
                    await here.connect(unknown, PATIENCE)
            for wrong in ("a b.peersock", "alice.12.peersock", ".peersock"):
                with pytest.raises(ValueError, match=r"nickname|digits"):
                    await here.connect(wrong)
            with pytest.raises(ValueError, match="nickname"):
                await here.nickname("no dots.")
            # What closes gives it back.
            await there.close()
            while True:
                try:
                    assert (await here.nickname("alice", PATIENCE)).startswith("alice.")
                    break
                except OSError as error:
                    assert error.errno == errno.EADDRINUSE

    run(main())


def test_without_a_root_there_are_no_nicknames(session: peersock.Session) -> None:
    async def main() -> None:
        async with P2PNode(port=0, session=session) as node:
            with pytest.raises(TimeoutError, match="no root has answered"):
                await node.nickname("alice", 0.1)
            with pytest.raises(TimeoutError, match="no root has answered"):
                await node.connect("alice.peersock", 0.1)
        with pytest.raises(ValueError, match="not started"):
            await node.nickname("alice")

    run(main())
