"""Networks behind real NATs, in network namespaces: the laboratory of the Rust tests, `labs/testnet/natlab`."""

from __future__ import annotations

import ctypes
import json
import os
import shutil
import subprocess
import threading
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

T = TypeVar("T")

#: This repository's own. The folder of the tests may be a link to it.
PROGRAM = Path(__file__).resolve().parents[3] / "labs" / "testnet" / "natlab" / "natlab"
_NET = 0x40000000
_NUMBERS = iter(range(1_000_000))


def missing(*programs: str) -> str | None:
    """Why no laboratory can be built here, if none can."""
    if os.geteuid() != 0:
        return "network namespaces need root"
    if not PROGRAM.exists():
        return "there is no natlab beside the package"
    # Servers are often where users' paths do not look.
    path = os.environ.get("PATH", "") + ":/usr/sbin:/sbin"
    lacks = [name for name in ("nft", "conntrack", "ip", *programs) if shutil.which(name, path=path) is None]
    return f"there is no {lacks[0]}" if lacks else None


class Lab:
    """A laboratory, until it is left."""

    def __init__(self, topology: str) -> None:
        outer = os.environ.get("NATLAB_PREFIX", "")
        self.prefix = f"{outer}py{os.getpid()}n{next(_NUMBERS)}-"
        # The command ends with its input, and natlab removes the laboratory then.
        waits = ["sh", "-c", "echo ready; cat > /dev/null"]
        self._owner = subprocess.Popen(
            [str(PROGRAM), "run", "--prefix", self.prefix, topology, "--", *waits],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        assert self._owner.stdout is not None
        assert self._owner.stdout.readline() == "ready\n", "natlab built no laboratory"
        self.nodes = json.loads(self.natlab("show", "--json"))

    def natlab(self, *words: str) -> str:
        """Returns the output of a command of natlab."""
        split = words.index("--") if "--" in words else len(words)
        command = [str(PROGRAM), *words[:split], "--prefix", self.prefix, *words[split:]]
        output: str = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout
        return output

    def run(self, node: str, *commands: str) -> None:
        """Runs commands of the shell in a node."""
        self.natlab("exec", node, "--", "sh", "-ec", "\n".join(commands))

    def namespace(self, node: str) -> str:
        """Returns ip(8)'s name of a node."""
        return self.prefix + node

    def ip4(self, node: str) -> str:
        """A node's IPv4 address."""
        return str(self.nodes[node]["ip4"])

    def ip6(self, node: str) -> str:
        """A node's IPv6 address."""
        return str(self.nodes[node]["ip6"])

    def within(self, node: str, work: Callable[[], T]) -> T:
        """Does something inside a node, in a thread of its own. The threads that it starts are inside, too."""
        results: list[T] = []
        errors: list[BaseException] = []

        def inside() -> None:
            try:
                fd = os.open(f"/run/netns/{self.namespace(node)}", os.O_RDONLY)
                try:
                    # `os.setns` came with Python 3.12.
                    libc = ctypes.CDLL(None, use_errno=True)
                    if libc.setns(fd, _NET) != 0:
                        raise OSError(ctypes.get_errno(), "setns")
                finally:
                    os.close(fd)
                results.append(work())
            except BaseException as error:
                errors.append(error)

        thread = threading.Thread(target=inside)
        thread.start()
        thread.join()
        if errors:
            raise errors[0]
        return results[0]

    def __enter__(self) -> Lab:
        return self

    def __exit__(self, *_: object) -> None:
        self.end()

    def end(self) -> None:
        """Removes it."""
        self._owner.communicate()
