"""Machines of a test's own, with a root between them: network namespaces, which end with the programs in them.

::

    here  10.97.1.2 ---- 10.97.1.1 \\
    here  10.97.4.2 ---- 10.97.4.1  10.97.3.1, with the root
    there 10.97.2.2 ---- 10.97.2.1 /

The machine in the middle forwards nothing before `Hosts.forward`.
"""

from __future__ import annotations

import json
import os
import select
import shlex
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

from .conftest import ROOT
from .host import PATIENCE
from .libraries.lab import launcher

#: The address of the root.
SERVER = "10.97.3.1"
_FORWARD = "/proc/sys/net/ipv4/ip_forward"


def may_make_networks() -> bool:
    """Returns true if network namespaces can be made, with interfaces in them, and can forward."""
    if not all(map(shutil.which, ("unshare", "nsenter", "ip"))):
        return False
    tried = f"ip link add near type veth peer name far && echo 0 > {_FORWARD}"
    return subprocess.run(["unshare", "--net", "sh", "-c", tried], capture_output=True, check=False).returncode == 0


class _Process:
    """A program in a namespace of its own."""

    def __init__(self, command: list[str], errors: Path) -> None:
        kept = {name: value for name, value in os.environ.items() if not name.startswith("PEERSOCK")}
        self.errors = errors
        # Without a buffer: that there is nothing to read means that no line has come.
        with errors.open("w") as file:
            self.process = subprocess.Popen(
                ["unshare", "--net", *command],
                cwd=ROOT,
                env={**kept, "PYTHONDONTWRITEBYTECODE": "1"},
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=file,
                bufsize=0,
            )

    def line(self) -> str:
        """The next line that it prints."""
        assert self.process.stdout is not None
        # Each request has its own time limit, which ends first.
        assert select.select([self.process.stdout], [], [], 2 * PATIENCE)[0], self.errors.read_text()
        line = self.process.stdout.readline().decode()
        assert line, self.errors.read_text()
        return line

    def ask(self, *request: object) -> Any:
        """Returns the answer to a request; see `host.py`."""
        assert self.process.stdin is not None
        self.process.stdin.write(json.dumps(request).encode() + b"\n")
        return json.loads(self.line())

    def run(self, *commands: str) -> None:
        """Runs commands of the shell in its namespace."""
        inside = ["nsenter", f"--net=/proc/{self.process.pid}/ns/net", "sh", "-ec", "\n".join(commands)]
        subprocess.run(inside, check=True, timeout=PATIENCE)

    def end(self) -> None:
        """Ends it."""
        self.process.kill()
        self.process.wait(10)
        for pipe in (self.process.stdin, self.process.stdout):
            assert pipe is not None
            pipe.close()


class Hosts:
    """Two machines and the root between them."""

    def __init__(self, folder: Path) -> None:
        self._processes: list[_Process] = []
        self._folder = folder
        program = shlex.quote(launcher())
        root = f"ip link set lo up; ip addr add {SERVER}/32 dev lo; echo 0 > {_FORWARD}; exec "
        root += f"{program} root --ephemeral --listen {SERVER} --port 0 --drain 0"
        try:
            self._middle = self._start("root", ["sh", "-ec", root])
            self.roots = self._middle.line().strip()
            self.here = self._host("here", {"eth0": 1, "eth1": 4})
            self.there = self._host("there", {"eth0": 2})
        except BaseException:
            self.end()
            raise

    def forward(self, on: bool) -> None:
        """Has packets of one of them reach the other, or not any more."""
        self._middle.run(f"echo {int(on)} > {_FORWARD}")

    def end(self) -> None:
        """Ends all programs, and with them their namespaces."""
        for process in self._processes:
            process.end()

    def _start(self, name: str, command: list[str]) -> _Process:
        self._processes.append(_Process(command, self._folder / f"{name}.log"))
        return self._processes[-1]

    def _host(self, name: str, interfaces: dict[str, int]) -> _Process:
        host = self._start(name, [sys.executable, "-m", f"{__package__}.host", self.roots])
        assert host.ask("ready")
        host.run("ip link set lo up")
        for interface, number in interfaces.items():
            near, far = f"10.97.{number}.2", f"10.97.{number}.1"
            self._middle.run(
                f"ip link add to{number} type veth peer name {interface} netns {host.process.pid}",
                f"ip addr add {far}/24 dev to{number}",
                f"ip link set to{number} up",
            )
            host.run(
                f"ip addr add {near}/24 dev {interface}",
                f"ip link set {interface} up",
                # The first interface is the one that programs use which choose none.
                f"ip route add default via {far} dev {interface} metric {100 + number}",
            )
        return host

    def __enter__(self) -> Hosts:
        return self

    def __exit__(self, *_: object) -> None:
        self.end()
