"""Forking, multiprocessing, signals, and the end of the process."""

from __future__ import annotations

import multiprocessing
import os
import re
import signal
import struct
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from typing import Any

import pytest

import peersock
from peersock import socket

from .alone import alone
from .conftest import Network, Peer, run_python


def _ask(address: tuple[str, int]) -> bytes:
    with socket.create_connection(address, timeout=20) as sock:
        sock.sendall(b"child")
        return sock.recv(100)


def test_a_forked_child_uses_its_parent_s_node(peer: Peer, session: peersock.Session) -> None:
    address = (peer.v6, peer.port("echo", int(socket.AF_INET6)))
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            os.write(writer, _ask(address))
            session.close()
        finally:
            os._exit(0)
    os.waitpid(child, 0)
    assert os.read(reader, 100) == b"child"
    os.close(reader)
    os.close(writer)
    # The child has stopped nothing.
    assert session.address


def test_forked_children_accept_on_one_listener(session: peersock.Session) -> None:
    with socket.create_server((session.address, 0), family=socket.AF_INET6) as server:
        children = []
        for _ in range(3):
            child = os.fork()
            if child == 0:
                try:
                    connection, _ = server.accept()
                    connection.sendall(str(connection.getpeername()[1]).encode())
                    connection.close()
                finally:
                    os._exit(0)
            children.append(child)
        for _ in children:
            with socket.create_connection(server.getsockname()[:2], timeout=20) as client:
                assert client.recv(100).decode() == str(client.getsockname()[1])
        for child in children:
            os.waitpid(child, 0)


@pytest.mark.parametrize("method", ["fork", "spawn", "forkserver"])
def test_multiprocessing(peer: Peer, method: str) -> None:
    address = (peer.v6, peer.port("echo", int(socket.AF_INET6)))
    context: Any = multiprocessing.get_context(method)
    with context.Pool(1) as pool:
        assert pool.apply(_ask, (address,)) == b"child"


def test_sockets_are_passed_to_children(peer: Peer) -> None:
    sock = socket.create_connection((peer.v6, peer.port("echo", int(socket.AF_INET6))), timeout=20)
    context = multiprocessing.get_context("spawn")
    child = context.Process(target=_send, args=(sock,))
    child.start()
    assert sock.recv(100) == b"passed"
    child.join()
    sock.close()


def _send(sock: socket.socket) -> None:
    assert type(sock) is socket.socket
    assert sock.getpeername()
    sock.sendall(b"passed")


@pytest.fixture
def interrupts() -> Iterator[None]:
    """A signal every few milliseconds whose handler does nothing, and SIGUSR1, which raises."""

    def stop(_number: int, _frame: object) -> None:
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGALRM, lambda _number, _frame: None), signal.signal(signal.SIGUSR1, stop)
    signal.setitimer(signal.ITIMER_REAL, 0.002, 0.002)
    yield
    signal.setitimer(signal.ITIMER_REAL, 0)
    signal.signal(signal.SIGALRM, before[0])
    signal.signal(signal.SIGUSR1, before[1])


@pytest.mark.usefixtures("interrupts")
def test_calls_go_on_after_signals(peer: Peer, session: peersock.Session) -> None:
    for _ in range(20):
        with socket.create_connection((peer.v6, peer.port("echo", int(socket.AF_INET6))), timeout=20) as sock:
            for _ in range(20):
                sock.sendall(b"x")
                assert sock.recv(1) == b"x"
                assert sock.getsockname()[0] == session.address
    with socket.socket(socket.AF_INET6, socket.SOCK_DGRAM) as sock:
        sock.bind((session.address, 0))
        sock.settimeout(0.1)
        started = time.monotonic()
        with pytest.raises(TimeoutError):
            sock.recvfrom(1)
        assert time.monotonic() - started >= 0.1


@pytest.mark.usefixtures("interrupts")
@pytest.mark.parametrize("call", ["accept", "recv", "recvfrom", "connect", "wait_peer", "events"])
def test_a_handler_s_exception_ends_what_waits(
    peer: Peer, session: peersock.Session, network: Network, call: str
) -> None:
    stream = socket.create_connection((peer.v6, peer.port("silent")), timeout=None)
    server = socket.create_server((session.address, 0), family=socket.AF_INET6)
    datagrams = socket.socket(socket.AF_INET6, socket.SOCK_DGRAM)
    datagrams.bind((session.address, 0))
    connecting = socket.socket(socket.AF_INET6)
    # Nobody is there.
    absent = session.address.rpartition(":")[0] + ":dead"
    waits: dict[str, Any] = {
        "accept": server.accept,
        "recv": lambda: stream.recv(1),
        "recvfrom": lambda: datagrams.recvfrom(1),
        "connect": lambda: connecting.connect((absent, 80)),
        "wait_peer": lambda: session.wait_peer(absent),
        "events": lambda: [None for event in session.events() if event.kind == "never"],
    }
    timer = threading.Timer(0.2, os.kill, (os.getpid(), signal.SIGUSR1))
    timer.start()
    try:
        with pytest.raises(KeyboardInterrupt):
            waits[call]()
    except OSError:
        # In a static network it is known at once who cannot be there.
        assert call in ("connect", "wait_peer")
        with pytest.raises(KeyboardInterrupt):
            time.sleep(10)
    timer.join()
    for sock in (stream, server, datagrams, connecting):
        sock.close()


#: Calls in which a program may wait. The application's own shutdown may make a socket ready to the kernel for ever,
#: though there is nothing to take.
WAITS = {
    "a listener": "server.accept()",
    "a listener that was shut down": "server.shutdown(socket.SHUT_RDWR); again(server.accept)",
    "datagrams of a socket that was shut down": "shut(datagrams); again(lambda: datagrams.recvfrom(1))",
    "datagrams of a shut socket with a timeout": (
        "datagrams.settimeout(1000); shut(datagrams); again(lambda: datagrams.recvfrom(1))"
    ),
    "room in a connection that the peer does not read": "while True: client.sendall(bytes(1_000_000))",
    "a connection whose other half was shut down": "client.shutdown(socket.SHUT_WR); client.recv(1)",
}


@pytest.mark.parametrize("waits", WAITS)
def test_ctrl_c_ends_a_program_that_waits(waits: str) -> None:
    code = (
        "import peersock\nfrom peersock import socket\n"
        # Another test checks if the call waits or fails at once.
        "def again(call):\n"
        "    while True:\n"
        "        try: call()\n"
        "        except OSError: pass\n"
        "def shut(sock):\n"
        "    try: sock.shutdown(socket.SHUT_RDWR)\n"
        "    except OSError: pass\n"
        "with peersock.Session('ff0001ffff000000', interfaces='loopback', linger=0) as session:\n"
        "    server = socket.create_server((session.address, 0), family=socket.AF_INET6)\n"
        "    client = socket.create_connection(server.getsockname()[:2]); other = server.accept()[0]\n"
        "    datagrams = socket.socket(socket.AF_INET6, socket.SOCK_DGRAM)\n"
        "    datagrams.bind((session.address, 0))\n"
        "    print('ready', flush=True)\n"
        f"    {WAITS[waits]}\n"
    )
    with subprocess.Popen(
        [sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as program:
        assert program.stdout is not None
        assert program.stdout.readline() == "ready\n"
        program.send_signal(signal.SIGINT)
        _, errors = program.communicate(timeout=30)
        assert errors.strip().endswith("KeyboardInterrupt")
        assert program.returncode == -signal.SIGINT


def _run_connected(network: Network, server: socket.socket, code: str) -> threading.Thread:
    """Starts a program with a session of its own and `sock`, which is connected to the server."""
    begin = (
        "import subprocess, sys, peersock\nfrom peersock import socket\n"
        "s = peersock.Session(sys.argv[1], identity=bytes.fromhex(sys.argv[2]), interfaces='loopback')\n"
        "sock = socket.create_connection((sys.argv[3], int(sys.argv[4])), timeout=20)\n"
    )
    address, port = server.getsockname()[:2]
    arguments = (begin + code, str(network.path), network.spare().hex(), address, str(port))
    program = threading.Thread(target=run_python, args=arguments)
    program.start()
    return program


def test_what_was_written_arrives_though_the_program_ends(network: Network, session: peersock.Session) -> None:
    with socket.create_server((session.address, 0), family=socket.AF_INET6) as server:
        sender = _run_connected(network, server, "sock.sendall(bytes(500_000))\n")
        server.settimeout(30)
        connection, _ = server.accept()
        with connection, connection.makefile("rb") as stream:
            assert len(stream.read()) == 500_000
        sender.join()


@pytest.mark.parametrize("close", ["", "sock.close()\n"])
def test_what_a_child_goes_on_with_does_not_look_complete(
    network: Network, session: peersock.Session, close: str
) -> None:
    with socket.create_server((session.address, 0), family=socket.AF_INET6) as server:
        code = "sock.sendall(b'head')\nsubprocess.Popen(['sh', '-c', 'sleep 5; echo rest'], stdout=sock)\n"
        sender = _run_connected(network, server, code + close)
        server.settimeout(30)
        connection, _ = server.accept()
        with connection:
            connection.settimeout(60)
            head = b""
            while len(head) < 4:
                head += connection.recv(4)
            assert head == b"head"
            with pytest.raises(ConnectionResetError):
                connection.recv(4)
        sender.join()


#: Bytes that are left at the end of a process, and the peer's share in a hundredth of a second. The peer needs seven
#: seconds, because earlier versions gave up after five.
MUCH = 7 << 20
STEP = MUCH // 700

#: A member that sends much, and ends.
ENDS = (
    "import sys, peersock\nfrom peersock import socket\n"
    "s = peersock.Session(sys.argv[1], identity=bytes.fromhex(sys.argv[2]), interfaces='loopback')\n"
    "sock = socket.socket(socket.AF_INET6)\n"
    f"sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, {2 * MUCH})\n"
    "sock.connect((sys.argv[3], int(sys.argv[4])))\n"
    f"sock.sendall(bytes({MUCH}))\n"
)


#: Ways to end, and what is said after it.
LAST = {"exit": ("", ""), "exec": ("import os; os.execlp('echo', 'echo', 'executed')\n", "executed\n")}


@pytest.mark.parametrize("last", LAST)
@pytest.mark.parametrize("is_open", [True, False])
def test_what_is_left_at_the_end_is_delivered_while_the_peer_takes_it(
    network: Network, session: peersock.Session, is_open: bool, last: str
) -> None:
    more = "" if is_open else "sock.close()\n"
    with narrow_server(session) as server, ending(network, server, more, LAST[last][0]) as process:
        server.settimeout(30)
        connection, _ = server.accept()
        # It reads nothing before the process ends, so that much is left then.
        assert process.stdout is not None and process.stdout.readline() == "ending\n"
        begun, count = time.monotonic(), 0
        with connection:
            connection.settimeout(60)
            while part := connection.recv(STEP):
                count += len(part)
                time.sleep(0.01)
        assert count == MUCH
        assert time.monotonic() - begun > 6
        assert process.communicate(timeout=60) == (LAST[last][1], "")
        assert process.returncode == 0


@pytest.mark.parametrize("last", LAST)
def test_what_was_lost_at_the_end_is_said(network: Network, session: peersock.Session, last: str) -> None:
    with narrow_server(session) as server, ending(network, server, "sock.close()\n", LAST[last][0]) as process:
        server.settimeout(30)
        connection, _ = server.accept()
        assert process.stdout is not None and process.stdout.readline() == "ending\n"
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        connection.close()
        _, errors = process.communicate(timeout=60)
        assert re.fullmatch(r"peersock: \d+ bytes that the program has sent were not delivered\n", errors), errors
        assert process.returncode == 0


def test_programs_that_are_started_and_those_that_are_not_there_leave_the_session_alone() -> None:
    code = alone() + (
        "import subprocess\n"
        "client, other = pair()\n"
        "def passes():\n"
        "    client.sendall(b'x'); assert other.recv(1) == b'x'\n"
        "def refused(call, *arguments):\n"
        "    try: call(*arguments)\n"
        "    except OSError: passes()\n"
        "    else: raise AssertionError(arguments)\n"
        "refused(os.execvp, 'no-such-program', ['x']); refused(os.execv, '/etc/passwd', ['x'])\n"
        "refused(os.execv, b'/', [b'x'])\n"
        "subprocess.run(['true'], check=True); passes()\n"
        "assert os.system('true') == 0; passes()\n"
        "assert os.spawnlp(os.P_WAIT, 'true', 'true') == 0; passes()\n"
        "assert os.waitpid(os.posix_spawn('/bin/sh', ['sh', '-c', ''], os.environ), 0)[1] == 0; passes()\n"
        "child = os.fork() or os.execvp('true', ['true'])\n"
        "assert os.waitpid(child, 0)[1] == 0; passes()\n"
        "session.close(); print('closed')\n"
    )
    assert run_python(code) == "closed\n"


def narrow_server(session: peersock.Session) -> socket.socket:
    """A listener with little room: what is sent to it waits with who sends."""
    server = socket.socket(socket.AF_INET6)
    server.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 32768)
    server.bind((session.address, 0))
    server.listen()
    return server


def ending(network: Network, server: socket.socket, more: str, last: str) -> subprocess.Popen[str]:
    """A process that sends much to the server, says that it comes to its end, and does a last thing."""
    code = ENDS + more + "print('ending', flush=True)\n" + last
    address, port = server.getsockname()[:2]
    command = [sys.executable, "-c", code, str(network.path), network.spare().hex(), address, str(port)]
    # Unclosed sockets are expected here.
    command[1:1] = ["-W", "ignore::ResourceWarning"]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
