"""Sessions that share the node of a state directory with other programs."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from .conftest import run_python

#: A session in a state directory, whose arguments are the directory and a network.
SESSION = """
import errno, os, select, sys, threading
import peersock
from peersock import socket
state, network = sys.argv[1:3]
def session(**settings):
    return peersock.Session(network, identity=state, interfaces="loopback", **settings)
def refused(function, *arguments, **options):
    try: function(*arguments, **options)
    except (OSError, ValueError) as error: return error
    raise AssertionError("it was not refused")
"""

#: Sends back what it gets at a port of the overlay, and says the address.
ECHO = """
import socket, sys
server = socket.create_server(("::", int(sys.argv[1])), family=socket.AF_INET6)
print("ready", flush=True)
while True:
    connection, _ = server.accept()
    while data := connection.recv(1000): connection.sendall(data)
    connection.close()
"""


class Shared:
    """A node that programs share, with its network."""

    def __init__(self, folder: Path) -> None:
        program = os.environ.get("PEERSOCK_TEST_PROGRAM")
        if program is None:
            pytest.skip("PEERSOCK_TEST_PROGRAM does not name the program peersock")
        self.program, self.state = program, str(folder / "state")
        self.network = f"ff{random.randrange(1, 0x1000):04x}ffff000000"
        hidden = ("PEERSOCK_NODE", "PEERSOCK_STATE", "PEERSOCK_NETWORK")
        self.environment = {name: value for name, value in os.environ.items() if name not in hidden}
        self.environment["PEERSOCK_INTERFACE"] = "lo"
        self.processes: list[subprocess.Popen[str]] = []
        self.node = self.start("node")
        assert self.node.stderr is not None and "share it" in self.node.stderr.readline()

    def start(self, command: str, *words: str) -> subprocess.Popen[str]:
        """Starts a command of the program with the state directory."""
        process = subprocess.Popen(
            [self.program, command, "--state", self.state, *words],
            env=self.environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        self.processes.append(process)
        return process

    def python(self, code: str, own_node: str = "", **environment: str) -> str:
        """Runs a program with a session in the state directory."""
        # The tests' own session may be a parent here, and below a session no node is started for others.
        environment |= {"PEERSOCK_NODE": "", "PEERSOCK_OWN_NODE": own_node}
        return run_python(SESSION + code, self.state, self.network, timeout=60, **environment)

    def close(self) -> None:
        """Ends everything."""
        for process in self.processes:
            process.kill()
            process.communicate()


@pytest.fixture
def shared(tmp_path: Path) -> Iterator[Shared]:
    """A node that programs share."""
    place = Shared(tmp_path)
    yield place
    place.close()


def test_a_session_beside_peersock_run_is_the_same_member(shared: Shared) -> None:
    echo = shared.start("run", "-q", "-n", shared.network, "--", sys.executable, "-c", ECHO, "7000")
    assert echo.stdout is not None and echo.stdout.readline() == "ready\n"
    said = shared.python(
        """
with session() as own, socket.create_connection((own.address, 7000)) as connection:
    assert own.node_process not in (os.getpid(), 0)
    assert own.wait_ready(1) and own.wait_peer(own.address, 5)
    assert own.id in own.status()["node_id"] and own.peers() == []
    assert own.address in own.addresses
    connection.sendall(b"hello")
    assert connection.recv(10) == b"hello"
    with socket.socket(socket.AF_INET6) as other:
        assert refused(other.bind, (own.address, 7000)).errno == errno.EADDRINUSE
        other.bind((own.address, 7001))
    events = own.events()
    assert select.select([events], [], [], 0)[0] == []
    events.close()
    assert own._own().nickname("alice", 7, 0.0) is None, "no root keeps it"
    assert own._own().release_nickname("alice") and not own._own().release_nickname("alice")
    print(own.node_process)
"""
    )
    assert int(said) == shared.node.pid


def test_sessions_of_two_processes_and_two_sessions_of_one(shared: Shared) -> None:
    said = shared.python(
        """
import subprocess
other_network = "ff1001ffff000000"
with session() as own:
    with peersock.Session(other_network) as second:
        assert second.address != own.address
        assert own.networks + second.networks == [int(network, 16), int(other_network, 16)]
    with socket.create_server((own.address, 0), family=socket.AF_INET6) as server:
        port = server.getsockname()[1]
        code = (
            "import sys, peersock; from peersock import socket\\n"
            "own = peersock.Session(sys.argv[2], identity=sys.argv[1], interfaces='loopback')\\n"
            "with own, socket.create_connection((own.address, int(sys.argv[3]))) as connection:\\n"
            "    connection.sendall(own.address.encode())"
        )
        environment = {name: text for name, text in os.environ.items() if name != "PEERSOCK_NODE"}
        child = subprocess.Popen([sys.executable, "-c", code, state, network, str(port)], env=environment)
        connection, _ = server.accept()
        with connection: print(connection.recv(100).decode() == own.address)
        assert child.wait() == 0
"""
    )
    assert said == "True\n"


def test_the_first_session_starts_the_node_by_the_installed_program(shared: Shared) -> None:
    shared.node.kill()
    shared.node.wait()
    code = """
import subprocess
with session() as own:
    assert own.node_process not in (0, os.getpid())
    code = (
        "import sys, peersock\\n"
        "with peersock.Session(sys.argv[2], identity=sys.argv[1], interfaces='loopback') as own:\\n"
        "    print(own.node_process, own.id)"
    )
    environment = {name: text for name, text in os.environ.items() if name != "PEERSOCK_NODE"}
    said = subprocess.check_output([sys.executable, "-c", code, state, network], env=environment, text=True)
    assert said.split() == [str(own.node_process), own.id]
    try: os.waitpid(-1, 0)
    except ChildProcessError: print("no child is left")
"""
    said = shared.python(code, PEERSOCK_PROGRAM=shared.program, PEERSOCK_PERSIST="0")
    assert said == "no child is left\n"
    # Without the program, the node is in the process.
    shared.python("with session() as own: assert own.node_process == os.getpid()")


def test_other_settings_are_refused_with_the_program_that_has_set_them(shared: Shared) -> None:
    shared.python(
        """
error = refused(session, port=7777)
assert isinstance(error, ValueError)
assert "without --overlay-port, by `peersock node`" in str(error), error
with session() as own:
    error = refused(peersock.Session, network, secret="horse")
    assert isinstance(error, ValueError), error
"""
    )


def test_a_node_of_its_own_needs_a_directory_of_its_own(shared: Shared) -> None:
    shared.python("assert refused(session).errno == errno.EBUSY", own_node="1")


def test_a_forked_child_uses_the_sockets_and_not_the_session(shared: Shared) -> None:
    shared.python(
        """
with session() as own, socket.create_server((own.address, 0), family=socket.AF_INET6) as server:
    child = os.fork()
    if child == 0:
        assert refused(own.status).errno == errno.ENETDOWN
        with socket.create_connection(server.getsockname()[:2]) as connection: connection.sendall(b"child")
        os._exit(0)
    connection, _ = server.accept()
    with connection: assert connection.recv(10) == b"child"
    assert os.waitpid(child, 0)[1] == 0
"""
    )


def test_data_is_delivered_at_the_end_of_the_process(shared: Shared) -> None:
    listen = shared.start("listen", "-n", shared.network, "7000")
    assert listen.stderr is not None and "listen" in listen.stderr.readline()
    shared.python(
        """
own = session(keep=True)
connection = socket.create_connection((own.address, 7000))
connection.sendall(b"x" * 1_000_000)
"""
    )
    assert listen.communicate(timeout=60)[0] == "x" * 1_000_000
    assert listen.returncode == 0


def test_the_end_of_the_node_is_told_and_the_next_session_has_a_new_one(shared: Shared) -> None:
    process = subprocess.Popen(
        [
            sys.executable,
            "-c",
            SESSION
            + """
own = session()
server = socket.create_server((own.address, 0), family=socket.AF_INET6)
print("ready", flush=True)
assert refused(server.accept).errno == errno.ENETDOWN
assert refused(own.status).errno == errno.ENETDOWN
for name in (socket.gethostname(), "alpha", "example.org"):
    assert refused(socket.getaddrinfo, name, 80).errno == socket.EAI_AGAIN
    assert refused(socket.gethostbyname, name).errno == socket.EAI_AGAIN
    assert refused(socket.gethostbyname_ex, name).errno == socket.EAI_AGAIN
    with socket.socket() as other: assert refused(other.connect, (name, 80)).errno == socket.EAI_AGAIN
address = own._known[0]
assert refused(socket.gethostbyaddr, address).errno == 2  # TRY_AGAIN
assert refused(socket.getnameinfo, (address, 80), socket.NI_NAMEREQD).errno == socket.EAI_AGAIN
assert socket.getnameinfo((address, 80), 0)[0] == address
for name in ("localhost", "127.1"): assert socket.getaddrinfo(name, 80)
assert socket.gethostbyname("localhost") == "127.0.0.1"
with session() as again:
    assert again.node_process == os.getpid() and again.address == own._known[0]
    assert not own.close()
    with socket.create_server((again.address, 0), family=socket.AF_INET6) as server:
        socket.create_connection(server.getsockname()[:2]).close()
print("over", flush=True)
""",
            shared.state,
            shared.network,
        ],
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None and process.stdout.readline() == "ready\n"
    shared.node.send_signal(signal.SIGKILL)
    assert process.communicate(timeout=60)[0] == "over\n"
    assert process.returncode == 0


def test_a_node_that_has_ended_leaves_nothing_after_stop(shared: Shared) -> None:
    process = subprocess.Popen(
        [
            sys.executable,
            "-c",
            SESSION
            + """
own = session(keep=True)
server = socket.create_server((own.address, 0), family=socket.AF_INET6)
print("ready", flush=True)
assert refused(server.accept).errno == errno.ENETDOWN
assert not peersock.stop()
assert "PEERSOCK_NODE" not in os.environ
assert peersock.stop() and own.close()
print("over", flush=True)
""",
            shared.state,
            shared.network,
        ],
        env={name: text for name, text in os.environ.items() if name != "PEERSOCK_NODE"},
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None and process.stdout.readline() == "ready\n"
    shared.node.send_signal(signal.SIGKILL)
    assert process.communicate(timeout=60)[0] == "over\n"
    assert process.returncode == 0


def test_a_file_s_member_has_the_identity_of_the_program(tmp_path: Path) -> None:
    kept = tmp_path / "peersock"
    code = (
        "import sys, peersock\nwith peersock.Session(sys.argv[1], identity=sys.argv[2]) as own: print(own.public_key)"
    )
    key = run_python(code, "ff0001ffff000000", str(kept)).strip()
    file = tmp_path / "office.toml"
    file.write_text(f'network = "fe00000000000002"\n[[member]]\nname = "alpha"\nkey = "{key}"\n')
    code = """
import sys, peersock
with peersock.Session(sys.argv[1], interfaces="loopback") as own:
    # A second one may name another network, as it has no identity of its own.
    with peersock.Session("ff0001ffff000000") as second: assert second.id == own.id
    with peersock.Session(sys.argv[1], interfaces="loopback") as third: assert third.id == own.id
    print(own.public_key)
with peersock.Session("ff0001ffff000000", interfaces="loopback") as fresh: assert fresh.public_key != sys.argv[2]
"""
    said = run_python(code, str(file), key, PEERSOCK_STATE="", XDG_STATE_HOME=str(tmp_path))
    assert said.strip() == key
