"""Checks of the machine's network, on the loopback interface only, with the tests' own servers."""

from __future__ import annotations

import asyncio
import errno
import os
import socket as std
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

import peersock
from peersock.interfaces import Pending

from .conftest import fails
from .libraries.lab import launcher
from .test_interfaces import StunServer

KEY = peersock.public_key(bytes([7] * 32))


@pytest.fixture
def stun(monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    for variable in ("PEERSOCK_STUN", "PEERSOCK_ROOTS", "PEERSOCK_TURN"):
        monkeypatch.delenv(variable, raising=False)
    server = StunServer()
    yield server.name
    server.stop()


async def test_it_is_waited_for_and_awaited(stun: str) -> None:
    found = peersock.netcheck(stun=stun, interfaces="loopback").wait()
    (lo,) = found["interfaces"]
    (server,) = found["servers"]
    assert (lo["name"], found["udp"], server["target"]) == ("lo", True, stun)
    assert server["addresses"][0]["rtt_ms"] > 0
    # The server claims to see another address.
    assert (lo["ipv4"]["translated"], lo["ipv4"]["mapped"].rpartition(":")[0]) == (True, "203.0.113.9")
    assert found["advice"] and all(set(advice) == {"finding", "what_to_do"} for advice in found["advice"])

    turns = 0
    task = asyncio.ensure_future(_await(peersock.netcheck(stun=[stun], interfaces=["lo"])))
    while not task.done():
        turns += 1
        await asyncio.sleep(0.01)
    # The event loop goes on meanwhile.
    assert turns > 1
    assert task.result().keys() == found.keys()


async def _await(pending: Pending[peersock.Netcheck]) -> peersock.Netcheck:
    return await pending


def test_servers_of_the_environment_are_asked_unless_others_are_named(
    stun: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PEERSOCK_STUN", stun)
    assert peersock.netcheck(interfaces="loopback").wait()["udp"] is True
    found = peersock.netcheck(interfaces="loopback", stun=()).wait()
    assert (found["udp"], found["servers"]) == (None, [])
    monkeypatch.setenv("PEERSOCK_STUN", "nonsense")
    with pytest.raises(ValueError, match="PEERSOCK_STUN"):
        peersock.netcheck(interfaces="loopback").wait()


def test_roots_and_turn_servers_are_asked(stun: str) -> None:
    found = peersock.netcheck(
        interfaces="loopback",
        stun=(),
        roots=f"{KEY}@{stun}",
        turn="turn:alice:sesame@127.0.0.1:9?transport=tcp",
    ).wait()
    (root,) = found["roots"]
    # Something answers there, and it is not the root.
    assert (root["has_key"], root["endpoints"]) == (None, [stun])
    assert any("not as the root with the key" in advice["finding"] for advice in found["advice"])
    (server,) = found["turn"]
    assert (server["server"], server["relayed"]) == ("turn:alice@127.0.0.1:9?transport=tcp", None)
    assert "sesame" not in str(found)


@pytest.fixture
def root() -> Iterator[str]:
    command = [launcher(), "root", "--listen", "127.0.0.1:0", "--ephemeral", "--drain", "0"]
    kept = {name: value for name, value in os.environ.items() if not name.startswith("PEERSOCK")}
    with subprocess.Popen(command, env=kept, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as process:
        assert process.stdout is not None
        yield process.stdout.readline().strip()
        process.terminate()


def test_a_root_proves_its_key_and_its_round_trip_is_told(stun: str, root: str) -> None:
    found = peersock.netcheck(interfaces="loopback", stun=(), roots=root).wait()
    (checked,) = found["roots"]
    place = root.partition("@")[2]
    assert (checked["has_key"], checked["state"], checked["endpoints"]) == (True, "registered", [place])
    (server,) = found["servers"]
    (address,) = server["addresses"]
    assert (server["target"], address["address"]) == (place, place)
    assert address["rtt_ms"] is not None and address["rtt_ms"] > 0
    nat = found["interfaces"][0]["ipv4"]
    assert nat is not None and not nat["translated"]


#: In a process of its own, since one has one node.
SESSION = """
import sys
import peersock
stun, roots = sys.argv[1:]
with peersock.Session(
    "ff0001ffff000000", interfaces="loopback", discovery=False, roots=roots, turn=()
) as session:
    found = session.netcheck(stun=stun).wait()
    assert [nic["name"] for nic in found["interfaces"]] == ["lo"], found
    assert [root["endpoints"] for root in found["roots"]] == [["127.0.0.1:9"]], found
    # The look has no part in the node.
    assert session.status()["node_id"] == session.id
try:
    session.netcheck()
except ValueError as error:
    assert "closed" in str(error)
    print("refused")
"""


def test_a_session_looks_with_its_own_settings(stun: str) -> None:
    command = [sys.executable, "-c", SESSION, stun, f"{KEY}@127.0.0.1:9"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=100)
    assert done.stdout == "refused\n", done.stderr


def test_it_leaves_the_process_s_descriptors_alone() -> None:
    with std.socket(std.AF_INET, std.SOCK_DGRAM) as silent:
        silent.bind(("127.0.0.1", 0))
        before = set(os.listdir("/proc/self/fd"))
        server = f"127.0.0.1:{silent.getsockname()[1]}"
        work = threading.Thread(target=peersock.netcheck(stun=server, interfaces="loopback").wait)
        work.start()
        # The question is out: sockets are open.
        assert silent.recv(2048)
        assert set(os.listdir("/proc/self/fd")) == before
        work.join()


def test_wrong_arguments_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="HOST:PORT"):
        peersock.netcheck(stun="no port", interfaces="loopback").wait()
    with pytest.raises(TypeError, match="STUN"):
        peersock.netcheck(stun=[5])  # type: ignore[list-item]
    with pytest.raises(ValueError, match="interfaces"):
        peersock.netcheck(interfaces=[])
    with pytest.raises(ValueError, match="discovery_port"):
        peersock.netcheck(discovery_port=0)
    with fails(errno.ENODEV, OSError):
        peersock.netcheck(interfaces=["no such"], stun=()).wait()
    with pytest.raises(FileNotFoundError):
        peersock.netcheck(interfaces="loopback", roots=f"@{tmp_path}/none")
