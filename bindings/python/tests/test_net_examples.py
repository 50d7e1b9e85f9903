"""The programs over `peersock.net`: the echo server with its client, and the check of all networks."""

from __future__ import annotations

import os
import random
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

EXAMPLES = Path(__file__).resolve().parents[1] / "examples"
PATIENCE = 60
INPUT = b"one\ntwo\n" + bytes(range(10, 256)) * 40 + b"\n"
CHECKS = ["tcp", "tcp6", "udp", "udp6", "unix-client", "unix-connect", "unix"]


class Programs:
    """Runs examples, with a node that stays on this machine where a network is given."""

    def __init__(self) -> None:
        self.servers: list[subprocess.Popen[bytes]] = []

    def command(self, example: str, *arguments: str) -> list[str]:
        loopback = Path(__file__).resolve().with_name("loopback.py")
        return [sys.executable, str(loopback), str(EXAMPLES / f"{example}.py"), *arguments]

    def environment(self, network: str) -> dict[str, str]:
        return {**os.environ, "PEERSOCK_NODE": "", "PEERSOCK_NETWORK": network}

    def serve(self, network: str, *arguments: str) -> tuple[str, str]:
        """Starts the echo server. Gives its member's address and where it listens."""
        server = subprocess.Popen(
            self.command("net_echo", "-l", *arguments),
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env=self.environment(network),
        )
        self.servers.append(server)
        assert server.stdout is not None and server.stderr is not None
        member = server.stderr.readline().decode().strip() if network else ""
        return member, server.stdout.readline().decode().strip()

    def run(self, example: str, *arguments: str, network: str = "") -> subprocess.CompletedProcess[bytes]:
        return subprocess.run(
            self.command(example, *arguments),
            input=INPUT,
            capture_output=True,
            timeout=PATIENCE,
            env=self.environment(network),
        )

    def end(self) -> None:
        for server in self.servers:
            server.kill()
            server.communicate()


@pytest.fixture
def programs() -> Iterator[Programs]:
    programs = Programs()
    yield programs
    programs.end()


@pytest.mark.parametrize("network", ["tcp", "tcp4", "tcp6", "udp", "udp4", "udp6", "unix", "unixgram"])
def test_the_echo_server_of_each_network(programs: Programs, tmp_path: Path, network: str) -> None:
    given = "[::1]:0" if network.endswith("6") else "127.0.0.1:0"
    address = programs.serve("", "-n", network, "-a", str(tmp_path / "s") if "unix" in network else given)[1]
    done = programs.run("net_echo", "-d", "-n", network, "-a", address)
    assert (done.returncode, done.stdout, done.stderr) == (0, INPUT, b"")


@pytest.mark.parametrize("network", ["tcp", "udp"])
def test_the_echo_server_over_the_overlay(programs: Programs, network: str) -> None:
    overlay = f"ff{random.randrange(1, 0x1000):04x}ffff000000"
    member, address = programs.serve(overlay, "-n", network, "-a", ":0")
    port = address.rpartition(":")[2]
    done = programs.run("net_echo", "-d", "-n", network, "-a", f"[{member}]:{port}", network=overlay)
    assert (done.returncode, done.stdout) == (0, INPUT), done.stderr


def test_the_echo_server_says_what_is_wrong(programs: Programs) -> None:
    for arguments, said in (
        (["-a", "127.0.0.1:0"], b"one of the arguments -l -d is required"),
        (["-l", "-d", "-a", "127.0.0.1:0"], b"not allowed with argument"),
        (["-l"], b"the following arguments are required: -a"),
        (["-l", "-n", "sctp", "-a", "x"], b"invalid choice: 'sctp'"),
        (["-l", "-a", "127.0.0.1"], b"address 127.0.0.1: missing port in address"),
        (["-d", "-a", "[::1]:no-such-service"], b"unknown port of tcp"),
    ):
        done = programs.run("net_echo", *arguments)
        assert done.returncode != 0
        assert said in done.stderr
        assert b"Traceback" not in done.stderr


def test_the_check_of_all_networks(programs: Programs, tmp_path: Path) -> None:
    text = tmp_path / "text"
    text.write_bytes(INPUT)
    done = programs.run("net_check", "-all", "-f", str(text))
    assert done.stdout.decode().splitlines() == [f"{name}: {len(INPUT)} bytes came back" for name in CHECKS]
    assert done.returncode == 0


def test_the_check_of_some_networks(programs: Programs, tmp_path: Path) -> None:
    path = tmp_path / "s"
    chosen = ["udp6", "unix-client", "unix", "tcp"]
    done = programs.run("net_check", "-n", *chosen, "-a", "127.0.0.2:0", "-u", str(path), "-t", "grüße")
    assert done.stdout.decode().splitlines() == [f"{name}: 7 bytes came back" for name in chosen]
    assert list(tmp_path.iterdir()) == []
    # The program reports a missing address.
    path.write_text("somebody else's")
    done = programs.run("net_check", "-n", "unix", "tcp", "-u", str(path))
    failed, worked = done.stdout.decode().splitlines()
    assert failed.startswith("unix: [Errno 98] listen unix ") and worked == "tcp: 5 bytes came back"
    assert done.returncode == 1


def test_the_check_says_what_is_wrong(programs: Programs) -> None:
    for arguments in ([], ["-n"], ["-n", "sctp"], ["-all", "-n", "tcp"], ["-all", "-t", "x", "-f", "y"]):
        done = programs.run("net_check", *arguments)
        assert done.returncode == 2
        assert b"usage:" in done.stderr
