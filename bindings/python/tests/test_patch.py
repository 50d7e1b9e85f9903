"""Code that does not know of the package, on the overlay."""

from __future__ import annotations

import http.server
import os
import signal
import smtplib
import socket as std
import socketserver
import ssl
import subprocess
import sys
import threading
import urllib.request
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

import peersock

from .conftest import Network, Peer, run_python


def test_patching_is_undone() -> None:
    plain = std.socket, ssl.SSLContext.sslsocket_class, std.getaddrinfo
    with peersock.patched():
        assert std.socket is peersock.socket.socket
        peersock.install()
        peersock.uninstall()
        assert std.socket is peersock.socket.socket
        with std.create_server(("127.0.0.1", 0)) as server:
            assert type(server) is peersock.socket.socket
    assert (std.socket, ssl.SSLContext.sslsocket_class, std.getaddrinfo) == plain
    peersock.uninstall()


class Upper(socketserver.StreamRequestHandler):
    """Answers in capitals."""

    def handle(self) -> None:
        self.wfile.write(self.rfile.readline().upper())


@pytest.mark.parametrize("mixin", [socketserver.ThreadingMixIn, socketserver.ForkingMixIn])
def test_socketserver(session: peersock.Session, mixin: type) -> None:
    class Server(mixin, socketserver.TCPServer):  # type: ignore[misc]
        address_family = std.AF_INET6

    with peersock.patched(), Server((session.address, 0), Upper) as server:
        assert peersock._peersock.is_overlay(server.fileno())
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        with std.create_connection((session.address, server.server_address[1]), timeout=20) as sock:
            sock.sendall(b"hello\n")
            assert sock.recv(100) == b"HELLO\n"
        server.shutdown()
        thread.join()


class Quiet(http.server.SimpleHTTPRequestHandler):
    """Without a log."""

    def log_message(self, *_: object) -> None:
        pass


def test_http_server_and_urllib(session: peersock.Session, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").write_bytes(bytes(100_000))

    class Server(http.server.ThreadingHTTPServer):
        address_family = std.AF_INET6

    monkeypatch.chdir(tmp_path)
    with peersock.patched(), Server((session.address, 0), Quiet) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        url = f"http://[{session.address}]:{server.server_address[1]}/file"
        with ThreadPoolExecutor(4) as executor:
            bodies = list(executor.map(lambda _: urllib.request.urlopen(url, timeout=20).read(), range(8)))
        assert bodies == [bytes(100_000)] * 8
        server.shutdown()
        thread.join()


def test_smtplib(session: peersock.Session) -> None:
    with peersock.patched(), std.create_server((session.address, 0), family=std.AF_INET6) as server:

        def serve() -> None:
            connection, _ = server.accept()
            with connection, connection.makefile("rwb", buffering=0) as stream:
                stream.write(b"220 here\r\n")
                while (line := stream.readline()) and not line.startswith(b"QUIT"):
                    stream.write(b"250 well\r\n")
                stream.write(b"221 bye\r\n")

        thread = threading.Thread(target=serve)
        thread.start()
        with smtplib.SMTP(session.address, server.getsockname()[1], timeout=20) as client:
            assert client.noop() == (250, b"well")
        thread.join()


def test_run_a_module(network: Network, session: peersock.Session, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("from the overlay")
    state = tmp_path / "state"
    command = [sys.executable, "-m", "peersock", "run", "-n", str(network.path), "--state", str(state)]
    command += ["--interface", "lo", "-m", "http.server", "8080", "--directory", str(tmp_path)]
    # A state directory begins with a key that the network does not know.
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as program:
        _, errors = program.communicate(timeout=30)
        assert program.returncode == 1
        assert "is not a member of network" in errors


def test_run_scripts_and_modules_as_members(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("from the overlay")
    secret = tmp_path / "secret"
    secret.touch(0o600)
    secret.write_text("for this test only\n")
    run = [sys.executable, "-m", "peersock", "run", "-n", "ff0001ffff000000", "--interface", "lo"]
    run += ["--secret-file", str(secret)]
    command = [*run, "-m", "http.server", "8080", "--directory", str(tmp_path)]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True) as server:
        assert server.stderr is not None
        address = server.stderr.readline().removeprefix("address: ").strip()
        script = tmp_path / "script.py"
        script.write_text(
            "import sys, time, urllib.error, urllib.request, socket\n"
            "assert __name__ == '__main__' and socket.socket.__module__ == 'peersock.socket'\n"
            "begun = time.monotonic()\n"
            "while True:\n"
            "    try:\n"
            "        print(urllib.request.urlopen(f'http://[{sys.argv[1]}]:8080/file', timeout=30).read().decode())\n"
            "        break\n"
            # The address is told before the server listens.
            "    except urllib.error.URLError:\n"
            "        assert time.monotonic() < begun + 30\n"
            "        time.sleep(0.05)\n"
        )
        try:
            client = subprocess.run([*run, script, address], capture_output=True, text=True, timeout=60, check=False)
            assert client.stdout == "from the overlay\n", client.stderr
            server.send_signal(signal.SIGINT)
            server.communicate(timeout=30)
        finally:
            # Otherwise a test that fails waits for the server's end.
            server.kill()


def test_run_needs_a_network() -> None:
    with pytest.raises(AssertionError, match="name a network"):
        run_python("import sys; from peersock.__main__ import main; main(['run', 'x.py'])", PEERSOCK_NODE="")


def test_run_takes_the_network_of_the_environment(tmp_path: Path) -> None:
    script = tmp_path / "names.py"
    script.write_text("import socket; print([name for _, name in socket.if_nameindex() if name.startswith('ps')])")
    run = [sys.executable, "-m", "peersock", "run", "--interface", "lo", "--quiet", str(script)]
    environment = {**os.environ, "PEERSOCK_NODE": "", "PEERSOCK_NETWORK": "ff0001ffff000000"}
    ran = subprocess.run(run, capture_output=True, text=True, timeout=60, check=False, env=environment)
    assert ran.stdout == "['ps1']\n", ran.stderr


def test_the_identity_is_told(tmp_path: Path) -> None:
    code = "import sys; from peersock.__main__ import main; main(['id', '--state', sys.argv[1]])"
    told = run_python(code, str(tmp_path / "state"))
    assert told == run_python(code, str(tmp_path / "state"))
    assert told.startswith("id:")


def test_uses_of_the_peer_s_server(peer: Peer) -> None:
    with peersock.patched(), std.create_connection(("there", peer.port("silent")), timeout=20) as sock:
        assert sock.getpeername()[0] in (peer.v6, peer.v4)
