"""Every example does what it says, between two processes."""

from __future__ import annotations

import os
import random
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

EXAMPLES = Path(__file__).resolve().parents[1] / "examples"
PATIENCE = 60


class Pair:
    """A server and a client of a network that hardly anybody else uses."""

    def __init__(self, folder: Path) -> None:
        self.network = f"ff{random.randrange(1, 0x1000):04x}ffff000000"
        self.folder = folder
        self.servers: list[subprocess.Popen[str]] = []

    def command(self, example: str, *arguments: str) -> list[str]:
        loopback = Path(__file__).resolve().with_name("loopback.py")
        return [sys.executable, str(loopback), str(EXAMPLES / f"{example}.py"), self.network, *arguments]

    def serve(self, example: str, *arguments: str) -> str:
        """Starts a server. Returns its first line, which says where it is."""
        server = subprocess.Popen(self.command(example, *arguments), stdout=subprocess.PIPE, text=True, cwd=self.folder)
        self.servers.append(server)
        assert server.stdout is not None
        return server.stdout.readline().strip()

    def ask(self, example: str, *arguments: str) -> str:
        """Runs a client. Returns what it printed."""
        done = subprocess.run(
            self.command(example, *arguments),
            stdout=subprocess.PIPE,
            text=True,
            timeout=PATIENCE,
            env={**os.environ, "PYTHONUNBUFFERED": "1"},
        )
        assert done.returncode == 0
        return done.stdout


@pytest.fixture
def pair(tmp_path: Path) -> Iterator[Pair]:
    pair = Pair(tmp_path)
    yield pair
    for server in pair.servers:
        server.kill()
        server.wait()


@pytest.mark.parametrize("protocol", ["tcp", "udp"])
def test_smallest_client_and_server(pair: Pair, protocol: str) -> None:
    address = pair.serve(f"{protocol}_server")
    assert pair.ask(f"{protocol}_client", address) == "HELLO\n"
    assert pair.servers[0].wait(PATIENCE) == 0


def test_smallest_have_fewer_than_8_lines() -> None:
    for name in ("tcp_server", "tcp_client"):
        lines = (EXAMPLES / f"{name}.py").read_text().splitlines()
        assert len([line for line in lines if line.strip()]) < 8


def test_asyncio(pair: Pair) -> None:
    address = pair.serve("asyncio_server")
    expected = "".join(f"HELLO {number}\n" for number in range(20))
    assert pair.ask("asyncio_client", address) == expected


def test_http(pair: Pair) -> None:
    (pair.folder / "page").write_text("what is on the page")
    url = pair.serve("http_server")
    assert pair.ask("http_client", f"{url}page") == "what is on the page"


def test_ping6(pair: Pair) -> None:
    address = pair.serve("tcp_server")
    lines = pair.ask("ping6", address, "3").splitlines()
    assert [line.partition(" time=")[0] for line in lines[:-1]] == [
        f"64 bytes from {address}: icmp_seq={sequence} hlim=64" for sequence in (1, 2, 3)
    ]
    assert lines[-1] == "3 sent, 3 received"


def test_traceroute6(pair: Pair) -> None:
    address = pair.serve("tcp_server")
    (line,) = pair.ask("traceroute6", address).splitlines()
    assert line.split()[0] == "1"
    assert line.count(address) == 3


@pytest.mark.parametrize("example", ["net_check", "net_echo", "ping6", "traceroute6"])
def test_commands_say_how_they_are_used(example: str) -> None:
    for arguments, status in ((["--help"], 0), ([], 2)):
        done = subprocess.run(
            [sys.executable, str(EXAMPLES / f"{example}.py"), *arguments],
            capture_output=True,
            text=True,
            timeout=PATIENCE,
        )
        assert done.returncode == status
        assert "usage: " in (done.stderr if status else done.stdout)
        assert "Traceback" not in done.stderr


def test_pipe_echo() -> None:
    done = subprocess.run(
        [sys.executable, str(EXAMPLES / "pipe_echo.py")],
        stdout=subprocess.PIPE,
        text=True,
        timeout=PATIENCE,
        check=True,
    )
    expected = [f"{proto} {ip} b'hello'" for ip in ("127.0.0.1", "::1") for proto in ("TCP", "UDP")]
    assert done.stdout.splitlines() == expected


def test_pipes(pair: Pair) -> None:
    address = pair.serve("pipe_server")
    assert pair.ask("pipe_client", address) == "3 9\n12 144\n"
    stdout = pair.servers[0].stdout
    assert stdout is not None and stdout.readline() == "heard good day\n"


def test_pipe_relay(pair: Pair) -> None:
    address = pair.serve("asyncio_server")
    port = int(pair.serve("pipe_relay", address))
    with socket.create_connection(("127.0.0.1", port), PATIENCE) as client:
        client.settimeout(PATIENCE)
        client.sendall(b"through\nthe relay\n")
        with client.makefile("rb") as answers:
            assert [answers.readline(), answers.readline()] == [b"THROUGH\n", b"THE RELAY\n"]


def test_pipe_node(pair: Pair) -> None:
    text = pair.serve("pipe_node")
    assert pair.ask("pipe_node", text) == "PONG\n"
