"""Sessions in managed networks, which a controller admits."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from .conftest import run_python

#: A session by what is given, whose addresses it says. The arguments are the directory and the network or invite.
SESSION = """
import json, os, sys, peersock
state, given = sys.argv[1:3]
words = {"invite": given} if "/" in given else {"net_id": given}
with peersock.Session(**words, identity=state, interfaces="loopback") as own:
    shared = own.node_process != os.getpid()
    print(json.dumps({"shared": shared, "addresses": own.addresses, "networks": own.networks}))
"""

#: A server that says who has connected, before and after the connection's end, also by asyncio.
SERVER = """
import asyncio, errno, json, sys, peersock
from peersock import socket
state, invite = sys.argv[1:3]

def told(peer):
    return [peer.full_name, sorted(peer.tags), peer.claims.hex(), peer.gateway, peer.node == peer.machine]

with peersock.Session(invite=invite, identity=state, interfaces="loopback") as own:
    server = socket.create_server((own.address, 0), family=socket.AF_INET6)
    try:
        server.peer()
    except OSError as error:
        assert error.errno == errno.ENOTCONN, error
    else:
        raise AssertionError("a listener has no other end")
    with socket.create_connection(server.getsockname()[:2]) as client:
        own_end = server.accept()[0]
        assert client.peer() == own_end.peer() and client.peer().name == "beta", client.peer()
        assert client.peer().network == own.networks[0] and len(client.peer().node) == 64
    network = f"{own.networks[0]:016x}"
    assert own.address in {one[4][0] for one in socket.getaddrinfo(f"beta.{network}", 80)}
    try:
        socket.getaddrinfo(f"nobody.{network}", 80)
    except socket.gaierror as error:
        assert error.errno == socket.EAI_NONAME, error
    else:
        raise AssertionError("no member has the name")
    print(server.getsockname()[1], flush=True)
    connection = server.accept()[0]
    before = connection.peer()
    while connection.recv(100):
        pass
    assert connection.peer() == before
    connection.close()
    print(json.dumps(told(before)), flush=True)

    async def serve():
        asked = asyncio.Event()

        async def connected(reader, writer):
            await reader.read()
            print(json.dumps(told(peersock.peer_of(writer.get_extra_info("socket")))), flush=True)
            writer.close()
            asked.set()

        async with await asyncio.start_server(connected, sock=server):
            await asked.wait()

    asyncio.run(serve())
    for family in (socket.AF_UNIX, socket.AF_INET, socket.AF_INET6):
        with socket.socket(family) as systems:
            try:
                peersock.peer_of(systems)
            except OSError as error:
                assert error.errno in (errno.ENOTCONN, errno.EOPNOTSUPP, errno.ENOPROTOOPT), error
            else:
                raise AssertionError("a socket that is not connected has no other end")
"""


class Office:
    """A managed network with its controller."""

    def __init__(self, folder: Path) -> None:
        program = os.environ.get("PEERSOCK_TEST_PROGRAM")
        if program is None:
            pytest.skip("PEERSOCK_TEST_PROGRAM does not name the program peersock")
        self.program, self.folder = program, folder
        self.peersock("network", "create", "team", "--pool", "10.77.0.0/24", "--name", "alpha")
        self.controller = subprocess.Popen(
            [program, "controller", "-n", "team"], env=self.environment(), stderr=subprocess.PIPE, text=True
        )
        assert self.controller.stderr is not None
        assert any("serving team" in line for line in self.controller.stderr)

    def environment(self) -> dict[str, str]:
        """The environment of the controller's machine."""
        mine = {"PEERSOCK_STATE": str(self.folder / "alpha"), "PEERSOCK_INTERFACE": "lo", "PEERSOCK_PERSIST": "0"}
        return {**os.environ, "PEERSOCK_NODE": "", "PEERSOCK_OWN_NODE": "", **mine}

    def peersock(self, *words: str) -> str:
        """What a command on the controller's machine prints."""
        command = [self.program, *words]
        return subprocess.check_output(command, env=self.environment(), text=True, timeout=60).strip()

    def python(self, code: str, machine: str, given: str, own_node: str) -> str:
        """What a program on a machine prints."""
        environment = {"PEERSOCK_NODE": "", "PEERSOCK_OWN_NODE": own_node, "PEERSOCK_PERSIST": "0"}
        environment["PEERSOCK_PROGRAM"] = self.program
        return run_python(code, str(self.folder / machine), given, timeout=60, **environment)

    def close(self) -> None:
        """Ends the controller."""
        self.controller.kill()
        self.controller.communicate()


@pytest.fixture
def office(tmp_path: Path) -> Iterator[Office]:
    """A managed network."""
    place = Office(tmp_path)
    yield place
    place.close()


@pytest.mark.parametrize("own_node", ["1", ""])
def test_a_session_joins_by_an_invite_and_again_by_the_id(office: Office, own_node: str) -> None:
    invite = office.peersock("network", "invite", "--name", "beta")
    first = json.loads(office.python(SESSION, "beta", invite, own_node))
    assert first["shared"] == (own_node == "") and "10.77.0.2" in first["addresses"], first
    network = f"{first['networks'][0]:016x}"
    assert json.loads(office.python(SESSION, "beta", network, own_node)) == first
    # The invite is used once, and another machine is not admitted by it.
    refused = "".join(f"    {line}\n" for line in SESSION.splitlines())
    code = f"try:\n{refused}except PermissionError as error: print(error)"
    assert "the invite has been used as often" in office.python(code, "gamma", invite, own_node)


@pytest.mark.parametrize("wrong", ["'nonsense'", "'peersock://0123456789abcdef/AQ'", "5", "'', secret='horse'"])
def test_an_invite_that_makes_no_sense_is_refused(wrong: str, tmp_path: Path) -> None:
    code = (
        f"import peersock\ntry: peersock.Session(invite={wrong}, interfaces='loopback')\n"
        "except (ValueError, TypeError) as error: print('invite' in str(error))"
    )
    assert run_python(code, PEERSOCK_STATE="", XDG_STATE_HOME=str(tmp_path)) == "True\n"


@pytest.mark.parametrize("own_node", ["1", ""])
def test_a_connection_tells_who_has_opened_it(office: Office, own_node: str) -> None:
    worker = {**office.environment(), "PEERSOCK_STATE": str(office.folder / "worker")}
    of_worker = office.peersock(
        "network", "invite", "--name", "worker", "--tag", "db", "--tag", "blue", "--claims", "hex:00ff3d"
    )
    subprocess.check_call([office.program, "join", of_worker, "--as", "team"], env=worker, timeout=60)
    invite = office.peersock("network", "invite", "--name", "beta")
    environment = {"PEERSOCK_NODE": "", "PEERSOCK_OWN_NODE": own_node, "PEERSOCK_PERSIST": "0"}
    command = [sys.executable, "-c", SERVER, str(office.folder / "beta"), invite]
    mine = {**os.environ, **environment, "PEERSOCK_PROGRAM": office.program}
    with subprocess.Popen(command, env=mine, stdout=subprocess.PIPE, text=True) as server:
        assert server.stdout is not None
        port = server.stdout.readline().strip()
        for _ in range(2):
            dial = [office.program, "dial", "-n", "team", f"beta:{port}"]
            subprocess.check_output(dial, env=worker, stdin=subprocess.DEVNULL, timeout=60)
            assert json.loads(server.stdout.readline()) == ["worker", ["blue", "db"], "00ff3d", False, True]
        assert server.wait(60) == 0
