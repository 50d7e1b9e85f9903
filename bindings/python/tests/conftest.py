"""Two members of one network: this process, and another one that the tests start."""

from __future__ import annotations

import asyncio
import contextlib
import inspect
import os
import random
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import peersock
from peersock import socket

# A process in the background of a shell script or under nohup(1) ignores these, and so would all its children.
# Tests send them.
for _number in (signal.SIGHUP, signal.SIGINT, signal.SIGQUIT):
    if signal.getsignal(_number) == signal.SIG_IGN:
        signal.signal(_number, signal.default_int_handler if _number == signal.SIGINT else signal.SIG_DFL)

# An installed program starts no node for tests, unless they ask for it.
os.environ["PEERSOCK_PROGRAM"] = "none"

#: The module that the other process runs.
PEER = f"{__package__}.peer"
#: The folder from which it is found.
ROOT = Path(__file__).parent.parent
#: Members of the network that single tests may be.
SPARE = 150


class Network:
    """A static network of the members `here` and `there`, and some to spare, with IPv4 addresses."""

    def __init__(self, folder: Path) -> None:
        names = ["here", "there", *(f"spare{number}" for number in range(SPARE))]
        self.seeds = {name: peersock.generate_seed() for name in names}
        self.v4 = {name: f"10.66.0.{number}" for number, name in enumerate(names, 1)}
        self._spare = iter(names[2:])
        self.path = folder / "network.toml"
        lines = ['network = "fe00000000000001"']
        for name, seed in self.seeds.items():
            key = peersock.public_key(seed)
            lines += ["[[member]]", f'name = "{name}"', f'key = "{key}"', f'addresses = ["{self.v4[name]}"]']
        self.path.write_text("\n".join(lines) + "\n")

    def spare(self) -> bytes:
        """The seed of a member that nobody is yet."""
        return self.seeds[next(self._spare)]


class Peer:
    """Another process: it runs the functions of `peer.py` that tests name, one at a time."""

    def __init__(self, network: Network, seed: bytes | None = None) -> None:
        seed = seed or network.seeds["there"]
        command = [sys.executable, "-m", PEER, str(network.path), seed.hex()]
        self.process = subprocess.Popen(command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        self.v4 = network.v4["there"]
        self.v6 = self.answer()

    def start(self, function: str, *arguments: object) -> str:
        """Starts a function; gives what it says first, as the port where it listens."""
        assert self.process.stdin is not None
        self.process.stdin.write(" ".join([function, *map(str, arguments)]) + "\n")
        self.process.stdin.flush()
        return self.answer()

    def port(self, function: str, *arguments: object) -> int:
        """As `start`, for functions that listen."""
        return int(self.start(function, *arguments))

    def answer(self) -> str:
        """The next line that it says."""
        assert self.process.stdout is not None
        return self.process.stdout.readline().strip()

    def close(self) -> None:
        """Ends it."""
        assert self.process.stdin is not None
        self.process.stdin.close()
        self.process.wait(10)

    def kill(self) -> None:
        """Ends it if it does nothing any more."""
        self.process.kill()
        self.process.wait(10)
        for pipe in (self.process.stdin, self.process.stdout):
            assert pipe is not None
            pipe.close()


#: Seconds that a test which is a coroutine may take. No test waits for them to pass.
_PATIENCE = 120


@pytest.hookimpl(tryfirst=True)
def pytest_pyfunc_call(pyfuncitem: pytest.Function) -> bool | None:
    """Runs a test that is a coroutine in its own event loop."""
    if not inspect.iscoroutinefunction(pyfuncitem.obj):
        return None
    names = inspect.signature(pyfuncitem.obj).parameters
    test = pyfuncitem.obj(**{name: pyfuncitem.funcargs[name] for name in names})
    asyncio.run(asyncio.wait_for(test, _PATIENCE), debug=True)
    return True


@pytest.fixture(scope="session")
def network(tmp_path_factory: pytest.TempPathFactory) -> Network:
    """The network of all tests."""
    return Network(tmp_path_factory.mktemp("network"))


@pytest.fixture(scope="session")
def session(network: Network) -> Iterator[peersock.Session]:
    """This process as a member, for all tests."""
    own = peersock.Session(network.path, identity=network.seeds["here"], interfaces="loopback", linger=1)
    yield own
    own.close()


@pytest.fixture(scope="session")
def peer(session: peersock.Session, network: Network) -> Iterator[Peer]:
    """The other member, which can be reached."""
    other = Peer(network)
    assert session.wait_peer(other.v6, 20)
    yield other
    other.close()


@contextlib.contextmanager
def fails(number: int, kind: type[OSError] = OSError) -> Iterator[None]:
    """Expects an error of the system, by its number."""
    with pytest.raises(kind) as failed:
        yield
    assert failed.value.errno == number, failed.value


def run_python(code: str, *arguments: str, timeout: float = 60, **environment: str) -> str:
    """Runs a program; gives what it prints."""
    process = subprocess.run(
        [sys.executable, "-c", code, *arguments],
        capture_output=True,
        text=True,
        timeout=timeout,
        env={**os.environ, **environment},
        check=False,
    )
    assert process.returncode == 0, process.stderr
    return process.stdout


class Place:
    """A network of a test's own, and this process's servers: on the overlay, and on the machine."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.network = f"ff{random.randrange(1, 0x1000):04x}ffff000000"
        self.run = [sys.executable, "-m", "peersock", "run", "-n", self.network, "--interface", "lo"]

    def write(self, name: str, text: str) -> str:
        """A program."""
        path = self.folder / name
        path.touch(0o600)
        path.write_text(text)
        return str(path)

    def ask(self, *command: str, timeout: float = 120, **more: str) -> subprocess.CompletedProcess[str]:
        """Runs to the end."""
        environment = {name: value for name, value in os.environ.items() if not name.startswith("PEERSOCK_")}
        return subprocess.run(
            command, capture_output=True, text=True, timeout=timeout, check=False, env={**environment, **more}
        )


@pytest.fixture
def place(tmp_path: Path) -> Place:
    """A place where programs are run."""
    return Place(tmp_path)


@pytest.fixture
def greeter(place: Place) -> Iterator[list[str]]:
    """A member and a server of the machine, which say who they are: address and port of each."""
    member = place.write(
        "member.py",
        "import socket, sys, threading\n"
        "server = socket.create_server(('::', 0), family=socket.AF_INET6); print(server.getsockname()[1], flush=True)\n"
        "while True:\n"
        "    connection, _ = server.accept(); connection.sendall(b'overlay'); connection.close()\n",
    )
    command = [*place.run, member]
    with contextlib.ExitStack() as stack:
        plain = stack.enter_context(socket.create_server(("127.0.0.1", 0)))
        serving = place.write(
            "plain.py",
            "import socket, sys\n"
            "server = socket.socket(fileno=int(sys.argv[1]))\n"
            "while True:\n"
            "    connection, _ = server.accept(); connection.sendall(b'machine'); connection.close()\n",
        )
        fd = str(plain.fileno())
        machine = subprocess.Popen([sys.executable, serving, fd], pass_fds=[plain.fileno()])
        process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        assert process.stdout is not None and process.stderr is not None
        address = process.stderr.readline().removeprefix("address: ").strip()
        port = process.stdout.readline().strip()
        yield [address, port, "127.0.0.1", str(plain.getsockname()[1])]
        process.terminate()
        process.communicate(timeout=30)
        assert process.returncode == -signal.SIGTERM
        machine.kill()
        machine.wait()
