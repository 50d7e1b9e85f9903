"""The end of a session while its sockets are in use."""

from __future__ import annotations

import errno
import subprocess
import sys
from collections.abc import Iterator

import pytest

import peersock
from peersock import socket

from .alone import HELPERS, alone
from .conftest import Network, run_python
from .peer import CERTIFICATE

ALONE = alone()


@pytest.mark.parametrize("timeout", ["None", "1", "0", "60"])
def test_calls_after_the_end_fail_at_once(timeout: str) -> None:
    code = ALONE + (
        "server = socket.create_server((me, 0), family=socket.AF_INET6); own = datagrams()\n"
        "address = server.getsockname()[:2]\n"
        "client = socket.create_connection(address); other = server.accept()[0]\n"
        "linked = datagrams(); linked.connect(own.getsockname()[:2])\n"
        f"for sock in (server, own, client, other, linked): sock.settimeout({timeout})\n"
        "session.close()\n"
        "for _ in range(3):\n"
        "    down(server.accept); down(own.recvfrom, 1); down(own.recv, 1); down(own.recvmsg, 1)\n"
        "    down(linked.recv, 1)\n"
        "    down(own.sendto, b'x', address); down(linked.send, b'x')\n"
        "for sock in (client, other): down(sock.recv, 1); down(sock.send, b'x'); down(sock.sendall, b'x')\n"
        "down(server.getsockname)\n"
        "print('ended')\n"
    )
    assert run_python(code) == "ended\n"


#: Least number of a process's errors that are reported at once within a second. Others wait a tenth of a second.
AT_ONCE = 5


@pytest.mark.parametrize("timeout", ["None", "0", "60"])
@pytest.mark.parametrize("call", ["server.accept", "own.recvfrom, 1", "own.recvmsg, 1", "linked.recv, 1"])
def test_a_call_after_the_end_does_not_sleep_and_who_calls_for_ever_hardly_runs(call: str, timeout: str) -> None:
    code = ALONE + (
        "server = socket.create_server((me, 0), family=socket.AF_INET6); own = datagrams()\n"
        "linked = datagrams(); linked.connect(own.getsockname()[:2])\n"
        f"for sock in (server, own, linked): sock.settimeout({timeout})\n"
        "session.close()\n"
        "before = asleep()\n"
        f"for _ in range({AT_ONCE}): down({call})\n"
        "assert asleep() - before < 0.1, asleep() - before\n"
        "begun, used = time.monotonic(), time.thread_time()\n"
        f"while time.monotonic() - begun < 1: down({call})\n"
        "used = time.thread_time() - used\n"
        "assert used < spun(1) / 20, used\n"
        "print('ended')\n"
    )
    assert run_python(code) == "ended\n"


@pytest.mark.parametrize("call", ["send, b'x'", "sendall, b'x'", "write, b'x'", "unwrap"])
def test_tls_says_why_it_has_ended(call: str) -> None:
    # OpenSSL writes the descriptor itself. Where it reads, some versions of Python tell of an end in order.
    code = ALONE + (
        "server = socket.create_server((me, 0), family=socket.AF_INET6)\n"
        "client = socket.create_connection(server.getsockname()[:2]); other = server.accept()[0]\n"
        f"theirs = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER); theirs.load_cert_chain({str(CERTIFICATE)!r})\n"
        f"ours = ssl.create_default_context(cafile={str(CERTIFICATE)!r})\n"
        "wrapped = []\n"
        "accepts = threading.Thread(target=lambda: wrapped.append(theirs.wrap_socket(other, server_side=True)))\n"
        "with peersock.patched():\n"
        "    accepts.start(); client = ours.wrap_socket(client, server_hostname='here'); accepts.join()\n"
        "other = wrapped[0]; client.sendall(b'hello'); assert other.recv(5) == b'hello'\n"
        "session.close()\n"
        f"down(client.{call}); down(other.{call})\n"
        "print('ended')\n"
    )
    assert run_python(code) == "ended\n"


@pytest.mark.parametrize("timeout", ["None", "60"])
@pytest.mark.parametrize("call", ["accept", "recvfrom", "recv", "recv_into", "connect"])
def test_what_waits_when_the_session_ends_fails_at_once(call: str, timeout: str) -> None:
    # Nobody is at the address that is connected to.
    code = ALONE + (
        "server = socket.create_server((me, 0), family=socket.AF_INET6); own = datagrams()\n"
        "client = socket.create_connection(server.getsockname()[:2]); other = server.accept()[0]\n"
        "connecting = socket.socket(socket.AF_INET6)\n"
        f"for sock in (server, own, client, connecting): sock.settimeout({timeout})\n"
        "calls = dict(accept=server.accept, recvfrom=lambda: own.recvfrom(1), recv=lambda: client.recv(1),\n"
        "    recv_into=lambda: client.recv_into(bytearray(1)),\n"
        "    connect=lambda: connecting.connect((me.rpartition(':')[0] + ':dead', 80)))\n"
        f"waiting = Waiting(calls['{call}'])\n"
        "waiting.sleep(); session.close()\n"
        "print(waiting.result() == errno.ENETDOWN or waiting.result())\n"
    )
    assert run_python(code) == "True\n"


def test_a_timeout_and_signals_end_what_a_shut_socket_waits_for(session: peersock.Session) -> None:
    # The application's own shutdown: to the kernel the socket is ready, and there is nothing to accept.
    with socket.create_server((session.address, 0), family=socket.AF_INET6) as server:
        server.settimeout(0.2)
        server.shutdown(socket.SHUT_RDWR)
        with pytest.raises(OSError) as caught:
            server.accept()
        assert isinstance(caught.value, TimeoutError) or caught.value.errno == errno.EINVAL


def test_an_asyncio_server_is_told_once_and_rests() -> None:
    code = ALONE + (
        "class Datagrams(asyncio.DatagramProtocol):\n"
        "    def error_received(self, error): told.append(error.errno)\n"
        "class Streams(asyncio.Protocol):\n"
        "    def connection_lost(self, error): told.append('lost' if error else 'ended')\n"
        "told, logged = [], []\n"
        "async def main(selector):\n"
        "    loop = asyncio.get_running_loop()\n"
        "    loop.set_exception_handler(lambda loop, context: logged.append(context))\n"
        "    with peersock.patched():\n"
        "        server = await asyncio.start_server(lambda reader, writer: None, me, 0)\n"
        "        await loop.create_datagram_endpoint(Datagrams, local_addr=(me, 0))\n"
        "        port = server.sockets[0].getsockname()[1]\n"
        "        await loop.create_connection(Streams, me, port)\n"
        "    await rest(selector)\n"
        "    await asyncio.to_thread(session.close)\n"
        "    while len(told) < 2: await asyncio.sleep(0.01)\n"
        "    await rest(selector)\n"
        # No other thread runs, either.
        "    used = time.process_time(); await asyncio.sleep(0.5); used = time.process_time() - used\n"
        "    assert used < spun(0.5) / 20, used\n"
        "    assert len(logged) <= 2, logged\n"
        "    assert any('node has ended' in str(context.get('exception')) for context in logged), logged\n"
        "    print(sorted(map(str, told)) == sorted(['lost', str(errno.ENETDOWN)]) or told)\n"
        "run(main)\n"
    )
    assert run_python(code) == "True\n"


def test_a_thread_in_accept_is_told_in_words_and_a_socketserver_rests() -> None:
    code = ALONE + (
        "import socketserver\n"
        "class Server(socketserver.TCPServer):\n"
        "    address_family = socket.AF_INET6\n"
        "    failed = 0\n"
        "    def get_request(self):\n"
        "        try: return super().get_request()\n"
        "        except OSError as error: Server.failed += 1; Server.error = error; raise\n"
        "with peersock.patched(): server = Server((me, 0), socketserver.BaseRequestHandler)\n"
        "serving = threading.Thread(target=server.serve_forever, daemon=True); serving.start()\n"
        "listener = socket.create_server((me, 0), family=socket.AF_INET6)\n"
        "errors = []\n"
        "def accept():\n"
        "    try: listener.accept()\n"
        "    except OSError as error: errors.append(error)\n"
        "accepting = threading.Thread(target=accept); accepting.start(); time.sleep(0.5); session.close()\n"
        "accepting.join(60)\n"
        "while not Server.failed: time.sleep(0.01)\n"
        "for error in (*errors, Server.error):\n"
        "    assert type(error) is OSError and error.errno == errno.ENETDOWN, repr(error)\n"
        "    assert 'node has ended' in str(error), str(error)\n"
        # The standard library's loop goes on after an error of accept(): it ends as its user ends it.
        "before, used = Server.failed, time.process_time(); time.sleep(1)\n"
        "used, failed = time.process_time() - used, Server.failed - before\n"
        "assert used < spun(1) / 10 and failed <= 20, (used, failed)\n"
        "server.shutdown(); serving.join(60); assert not serving.is_alive()\n"
        "print('ended', len(errors))\n"
    )
    assert run_python(code) == "ended 1\n"


@pytest.fixture
def leaver(network: Network) -> Iterator[subprocess.Popen[str]]:
    """A member that connects to a given address, writes, and closes its session without closing the connection."""
    code = HELPERS + (
        "seed = bytes.fromhex(sys.argv[2])\n"
        "session = peersock.Session(sys.argv[1], identity=seed, interfaces='loopback', linger=1)\n"
        "address, port, how = sys.stdin.readline().split()\n"
        "sock = socket.create_connection((address, int(port)), timeout=20)\n"
        "sock.sendall(bytes(300_000))\n"
        "if how == 'closed': sock.close()\n"
        "if how == 'blocked':\n"
        "    sock.settimeout(None); Waiting(lambda: sock.sendall(bytes(1 << 30))).sleep()\n"
        "assert session.close() == (how != 'blocked')\n"
        "print('left', flush=True)\n"
        "sys.stdin.readline()\n"
    )
    command = [sys.executable, "-c", code, str(network.path), network.spare().hex()]
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    yield process
    assert process.stdin is not None
    process.stdin.close()
    process.wait(30)
    assert process.stdout is not None
    process.stdout.close()


@pytest.mark.parametrize("how", ["open", "closed", "blocked"])
def test_a_peer_sees_a_reset_of_what_was_left_open(
    session: peersock.Session, leaver: subprocess.Popen[str], how: str
) -> None:
    with socket.create_server((session.address, 0), family=socket.AF_INET6) as server:
        assert leaver.stdin is not None
        leaver.stdin.write(f"{session.address} {server.getsockname()[1]} {how}\n")
        leaver.stdin.flush()
        server.settimeout(30)
        connection, _ = server.accept()
        with connection:
            connection.settimeout(30)
            received = 0
            if how == "blocked":
                assert leaver.stdout is not None
                assert leaver.stdout.readline() == "left\n"
            while received < 300_000:
                received += len(connection.recv(1 << 16))
            if how == "blocked":
                with pytest.raises(ConnectionResetError):
                    while data := connection.recv(1 << 16):
                        received += len(data)
                assert received < 1 << 30
            elif how == "closed":
                assert connection.recv(1) == b""
            else:
                with pytest.raises(ConnectionResetError):
                    connection.recv(1)


def test_leaving_one_network_ends_what_is_bound_to_it() -> None:
    code = ALONE + (
        "other = peersock.Session('ff00500050000000')\n"
        "server = socket.create_server((other.address, 80), family=socket.AF_INET6)\n"
        "own = socket.socket(socket.AF_INET6, socket.SOCK_DGRAM); own.bind((other.address, 0))\n"
        "client = socket.create_connection(server.getsockname()[:2]); accepted = server.accept()[0]\n"
        "for sock in (server, own, client, accepted): sock.settimeout(30)\n"
        "other.close()\n"
        "for _ in range(3): down(server.accept); down(own.recvfrom, 1)\n"
        "for sock in (client, accepted): down(sock.recv, 1); down(sock.send, b'x')\n"
        "again = socket.create_server((me, 0), family=socket.AF_INET6)\n"
        "assert socket.create_connection(again.getsockname()[:2])\n"
        "print('left')\n"
    )
    assert run_python(code) == "left\n"
