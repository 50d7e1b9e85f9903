"""Two processes on a network of a test's own, limited to the loopback interface."""

from __future__ import annotations

import json
import os
import random
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import pytest

PROGRAMS = Path(__file__).resolve().parent / "programs"
# Everything ends within this, seconds; a server that is asked to end, within this.
PATIENCE = 120
ENDS_WITHIN = 20


class Server:
    """A process that runs until the test ends."""

    def __init__(self, command: list[str], env: dict[str, str], cwd: Path) -> None:
        self.process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env=env,
            cwd=cwd,
        )
        self.lines: list[str] = []
        self._changed = threading.Condition()
        for stream in (self.process.stdout, self.process.stderr):
            threading.Thread(target=self._read, args=(stream,), daemon=True).start()

    def _read(self, stream: Any) -> None:
        for line in stream:
            with self._changed:
                self.lines.append(line.rstrip("\n"))
                self._changed.notify_all()

    @property
    def output(self) -> str:
        """All that it has printed, to both streams."""
        return "\n".join(self.lines)

    def wait_for(self, text: str, times: int = 1) -> str:
        """Waits for `count` lines with a text, and returns the last of them."""
        deadline = time.monotonic() + PATIENCE
        with self._changed:
            while True:
                found = [line for line in self.lines if text in line]
                if len(found) >= times:
                    return found[times - 1]
                if self.process.poll() is not None or not self._changed.wait(min(1, deadline - time.monotonic())):
                    assert self.process.poll() is None, f"the server has ended:\n{self.output}"
                    assert time.monotonic() < deadline, f"no {text!r} from the server:\n{self.output}"

    def port(self) -> int:
        """The address where it listens, from its output."""
        port: int = json.loads(self.wait_for('{"port"'))["port"]
        return port

    def ready(self) -> tuple[str, int]:
        """The address where it listens: the port from its output, the host from the overlay."""
        port = self.port()
        return self.wait_for("address: ").partition(": ")[2], port

    def url(self, scheme: str = "http") -> str:
        """The URL where it listens."""
        host, port = self.ready()
        return f"{scheme}://[{host}]:{port}"

    def end(self) -> None:
        """Asks it to end, and makes it if it does not."""
        if self.process.poll() is None:
            self.process.terminate()
        try:
            self.process.wait(ENDS_WITHIN)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()


class Lab:
    """A network, a folder, and the processes that were started."""

    def __init__(self, folder: Path) -> None:
        # An ad-hoc network's ID says from which port on it is open: hardly anybody else uses this one.
        self.network = f"ff{random.randrange(1, 0x1000):04x}ffff000000"
        self.folder = folder
        self.servers: list[Server] = []

    def python(self, *arguments: str) -> list[str]:
        """The command that runs a program of ours as a member of the network."""
        options = ["--network", self.network, "--interface", "lo"]
        return [sys.executable, "-m", "peersock", "run", *options, *arguments]

    def program(self, name: str, *arguments: str) -> list[str]:
        """The command of one of the programs beside this file."""
        return self.python(str(PROGRAMS / name), *arguments)

    def under_run(self, member: str, *command: str) -> list[str]:
        """The command that runs any program as a member of the network, by ``peersock run``."""
        options = [
            "--quiet",
            "--interface",
            "lo",
            "--state",
            str(self.folder / member),
            "--network",
            self.network,
        ]
        return [launcher(), "run", *options, "--", *command]

    def python_of(self, member: str, by: str, *command: str) -> list[str]:
        """The command that runs a program of Python as a member, `by` one of the two launchers."""
        if by == "peersock":
            return self.under_run(member, sys.executable, *command)
        return self.python("--quiet", "--state", str(self.folder / member), *command)

    def address(self, member: str) -> str:
        """A member's address in the network."""
        command = [launcher(), "addr", "--state", str(self.folder / member), self.network]
        return subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE, check=True).stdout.split()[0]

    def start(self, command: list[str], **env: str) -> Server:
        """Starts a server."""
        server = Server(command, {**self.environment(), **env}, self.folder)
        self.servers.append(server)
        return server

    def run(self, command: list[str], **env: str) -> str:
        """Runs a client to its end. Returns what it printed."""
        env = {**self.environment(), **env}
        try:
            done = subprocess.run(
                command,
                stdin=subprocess.DEVNULL,
                capture_output=True,
                text=True,
                timeout=PATIENCE,
                env=env,
                cwd=self.folder,
            )
        except subprocess.TimeoutExpired as error:
            raise AssertionError(f"{command} hangs: {error.stdout!r} {error.stderr!r}\n{self.others()}") from None
        assert done.returncode == 0, f"{command}: {done.returncode}\n{done.stdout}{done.stderr}\n{self.others()}"
        return done.stdout

    def client(self, name: str, *arguments: str) -> None:
        """Runs one of the programs beside this file to its end."""
        self.check(self.program(name, *arguments))

    def check(self, command: list[str]) -> None:
        """Runs a client that says at its end that everything was right."""
        assert self.run(command).endswith("ok\n")

    def others(self) -> str:
        """Returns the output of the servers."""
        return "\n".join(f"server: {server.output}" for server in self.servers)

    def environment(self) -> dict[str, str]:
        kept = {name: value for name, value in os.environ.items() if not name.startswith("PEERSOCK")}
        kept["PYTHONPATH"] = os.pathsep.join([str(PROGRAMS), *kept.get("PYTHONPATH", "").split(os.pathsep)])
        return {**kept, "PYTHONDONTWRITEBYTECODE": "1", "PYTHONUNBUFFERED": "1"}

    def end(self) -> None:
        """Ends all servers."""
        for server in self.servers:
            server.end()


def launcher() -> str:
    """The program ``peersock``. Tests that need it are skipped where it is not built."""
    target = os.environ.get("CARGO_TARGET_DIR", Path(__file__).resolve().parents[4] / "target")
    places = [os.environ.get("PEERSOCK_TEST_PROGRAM"), f"{target}/release/peersock", f"{target}/debug/peersock"]
    for place in places:
        if place and Path(place).is_file():
            return place
    pytest.skip("peersock is not built (cargo build -p peersock-cli)")
