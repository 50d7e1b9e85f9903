"""One pass of the package with nothing but Python: ``python -m unittest tests.one_pass``.

`cargo xtask test` runs it with the module that was just built, so that no wheel, pytest or network is needed.
"""

from __future__ import annotations

import asyncio
import subprocess
import sys
import unittest
from pathlib import Path

import peersock

from .loopback import network

#: Sends back what one connection sends, in capital letters, and ends.
SERVER = """\
import sys
import peersock
from peersock import socket

with peersock.Session(sys.argv[1], interfaces="loopback") as session, socket.create_server(("", 7000)) as server:
    print(session.address, flush=True)
    connection, _ = server.accept()
    with connection:
        while data := connection.recv(1 << 16):
            connection.sendall(data.upper())
"""

#: A program that does not know of the overlay. It serves until its stdin ends.
PROGRAM = """\
import socket, sys, threading

server = socket.create_server(("::", 7001), family=socket.AF_INET6)
def serve():
    while True:
        connection, _ = server.accept()
        connection.sendall(b"hello")
        connection.close()
threading.Thread(target=serve, daemon=True).start()
print("ready", flush=True)
sys.stdin.read()
"""


class OnePass(unittest.TestCase):
    """Two processes of one network: this one, and one that a test starts."""

    def setUp(self) -> None:
        self.network = network()

    def start(self, *arguments: str) -> subprocess.Popen[str]:
        root = Path(__file__).parent.parent
        pipe = subprocess.PIPE
        command = [sys.executable, *arguments]
        process = subprocess.Popen(command, cwd=root, stdin=pipe, stdout=pipe, stderr=pipe, text=True)
        for stream in (process.stdin, process.stdout, process.stderr):
            assert stream is not None
            self.addCleanup(stream.close)
        self.addCleanup(process.wait, 30)
        self.addCleanup(process.kill)
        return process

    def test_sockets_reach_another_process(self) -> None:
        server = self.start("-c", SERVER, self.network)
        assert server.stdout is not None
        address = server.stdout.readline().strip()
        with peersock.Session(self.network, interfaces="loopback"):
            with peersock.socket.create_connection((address, 7000), timeout=30) as connection:
                connection.sendall(b"hello" * 10_000)
                connection.shutdown(peersock.socket.SHUT_WR)
                received = b"".join(iter(lambda: connection.recv(1 << 16), b""))
        self.assertEqual(received, b"HELLO" * 10_000)
        self.assertEqual(server.wait(30), 0)

    def test_asyncio_reaches_another_process(self) -> None:
        server = self.start("-c", SERVER, self.network)
        assert server.stdout is not None
        address = server.stdout.readline().strip()

        async def talk() -> bytes:
            reader, writer = await asyncio.open_connection(address, 7000)
            writer.write(b"hello")
            writer.write_eof()
            received = await reader.read()
            writer.close()
            await writer.wait_closed()
            return received

        with peersock.Session(self.network, interfaces="loopback"), peersock.patched():
            self.assertEqual(asyncio.run(asyncio.wait_for(talk(), 30)), b"HELLO")

    def test_a_program_that_is_run_is_reached(self) -> None:
        options = ["-n", self.network, "--interface", "lo"]
        program = self.start("-m", "peersock", "run", *options, "-m", "tests.one_pass")
        assert program.stdout is not None and program.stderr is not None
        self.assertEqual(program.stdout.readline(), "ready\n")
        words = program.stderr.readline().split()
        addresses = [word.strip("[],.;:") for word in words if word.count(":") > 3]
        self.assertTrue(addresses, words)
        with peersock.Session(self.network, interfaces="loopback"):
            with peersock.socket.create_connection((addresses[0], 7001), timeout=30) as connection:
                self.assertEqual(connection.recv(5, peersock.socket.MSG_WAITALL), b"hello")


if __name__ == "__main__":
    exec(PROGRAM)
