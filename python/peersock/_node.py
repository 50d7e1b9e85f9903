"""The process's node, and who uses it."""

from __future__ import annotations

import atexit
import contextlib
import os
import threading
from dataclasses import dataclass, field

from . import _peersock

#: Tells child processes which node to use; see `peersock run`.
NODE, RULES = "PEERSOCK_NODE", "PEERSOCK_RULES"


@dataclass(frozen=True)
class Settings:
    """How a node is made."""

    state: str | None = None
    seed: bytes | None = None
    interfaces: tuple[str, ...] | None = None
    port: int = 0
    discovery: bool = True
    discovery_port: int | None = None
    buffers: tuple[int, int] | None = None

    def start(self) -> _peersock.Node:
        """Starts such a node."""
        return _peersock.Node(
            _peersock.Config(
                state=self.state,
                seed=self.seed,
                interfaces=None if self.interfaces is None else list(self.interfaces),
                port=self.port,
                discovery=self.discovery,
                discovery_port=self.discovery_port,
                buffers=self.buffers,
            )
        )


@dataclass
class Running:
    """A node that runs in this process, and how many sessions use it and its networks."""

    node: _peersock.Node
    settings: Settings
    linger: float
    users: int = 0
    networks: dict[int, int] = field(default_factory=dict)
    kept: bool = False
    environment: dict[str, str | None] = field(default_factory=dict)

    def announce(self, words: str) -> None:
        """Has sockets of this process and of its children use the node, by these rules."""
        for name, value in ((NODE, self.node.environment()), (RULES, words)):
            self.environment.setdefault(name, os.environ.get(name))
            os.environ[name] = value
        _peersock.set_rules(self.node.environment(), words)

    def withdraw(self) -> None:
        """Leaves everything as it was before."""
        for name, value in self.environment.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value
        _peersock.clear_rules()
        adopt()


def adopt() -> None:
    """Uses the node of a parent process, if there is one and this process has none."""
    if os.environ.get(NODE) and not _peersock.has_rules():
        # What does not name a node is as good as nothing.
        with contextlib.suppress(ValueError):
            _peersock.set_rules(os.environ[NODE], os.environ.get(RULES, ""))


_lock = threading.Lock()
_running: Running | None = None


def _renew_lock() -> None:
    global _lock
    _lock = threading.Lock()


# Another thread may have held it, and is not in the child.
os.register_at_fork(after_in_child=_renew_lock)


def current() -> Running | None:
    """The node of this process; a parent's is none."""
    return _running if _running is not None and _running.node.is_here() else None


def use(settings: Settings, linger: float) -> Running:
    """The process's node with one user more; it is started if there is none.

    Raises:
        ValueError: There is one with other settings.
    """
    global _running
    with _lock:
        running = current()
        if running is None:
            running = _running = Running(settings.start(), settings, linger)
        elif settings not in (Settings(), running.settings):
            raise ValueError("this process has a node already, with other settings")
        running.users += 1
        return running


def release(running: Running, networks: list[int], keep: bool) -> bool:
    """Takes a user away. The last one stops the node, unless it is to be kept. Says whether all was delivered."""
    with _lock:
        running.kept |= keep
        running.users -= 1
        for network in networks:
            running.networks[network] -= 1
            if running.networks[network] == 0 and not running.kept:
                del running.networks[network]
                if running.users and running.node.is_here():
                    running.node.leave(network)
        return stop_unused(running) if running.users == 0 and not running.kept else True


def stop_unused(running: Running) -> bool:
    """Stops a node that has no users any more."""
    global _running
    if not running.node.is_here():
        return True
    if _running is running:
        _running = None
    delivered = running.node.stop(running.linger)
    running.withdraw()
    return delivered


def stop() -> bool:
    """Stops the process's node, also one that was kept. True if everything was delivered."""
    with _lock:
        running = current()
        return True if running is None else stop_unused(running)


atexit.register(stop)
