"""The process's node, and who uses it."""

from __future__ import annotations

import atexit
import contextlib
import errno
import json
import os
import socket as _std
import sys
import threading
from collections.abc import Sequence
from dataclasses import dataclass, field, fields, replace

from . import _peersock
from ._arguments import is_ad_hoc, is_invite

#: Tells child processes which node to use; see `peersock run`.
NODE, RULES = "PEERSOCK_NODE", "PEERSOCK_RULES"
#: The IDs of the node's networks, for what children say of ports.
NETWORKS = "PEERSOCK_NETWORKS"


class Usual(float):
    """A number that nobody has asked for."""


#: Default time that a closing session waits for sent data to be delivered, seconds.
LINGER = Usual(5.0)

_if_nameindex = _std.if_nameindex


#: Names of `docs/reference/SETTINGS.md` for fields of `Settings`, where they differ.
_NAMES = {"buffers": "tcp_buffers"}


@dataclass(frozen=True)
class Settings:
    """Settings of a node."""

    state: str | None = None
    seed: bytes | None = None
    interfaces: tuple[str, ...] | None = None
    port: int = 0
    discovery: bool = True
    discovery_port: int | None = None
    introduce: bool = True
    buffers: tuple[int, int] | None = None
    roots: tuple[str, ...] | None = None
    turn: tuple[str, ...] | None = field(default=None, repr=False)
    stun: tuple[str, ...] | None = None
    dht: str | None = None
    port_mapping: bool = True
    birthday: bool = True
    tcp_punch: bool = True
    busy_poll: int | None = None
    only_suite: str | None = None

    def start(self) -> _peersock.Node:
        """Starts such a node."""
        self._check_interfaces()
        return _peersock.Node(self.config())

    def for_members(self) -> Settings:
        """The same with an identity that is kept: that of the program `peersock`, if none is named."""
        if self.state is not None or self.seed is not None:
            return self
        return replace(self, state=os.fsdecode(_peersock.default_state()))

    def config(self) -> _peersock.Config:
        """The same for the native part."""
        usual = Settings()
        # Defaults are left out, because a build may lack what is on by default.
        values = {_NAMES.get(name, name): value for name, value in vars(self).items() if value != getattr(usual, name)}
        state, seed = values.pop("state", None), values.pop("seed", None)
        if self.interfaces == ():
            values["interfaces"] = "loopback"
        return _peersock.Config(json.dumps(values), state=state, seed=seed)

    def differing(self, other: Settings) -> list[str]:
        """Returns the settings in which two nodes differ, by `Session`'s names for them."""
        names = {"state": "identity", "seed": "identity"}
        differ = [one.name for one in fields(self) if getattr(self, one.name) != getattr(other, one.name)]
        return list(dict.fromkeys(names.get(name, name) for name in differ))

    def _check_interfaces(self) -> None:
        there = [name for _, name in _if_nameindex()]
        if self.interfaces and not any(name in there for name in self.interfaces):
            wanted = ", ".join(self.interfaces)
            raise OSError(errno.ENODEV, f"this machine has no network interface {wanted}; it has {', '.join(there)}")


@dataclass(frozen=True)
class Rules:
    """Settings that choose which sockets belong to the overlay."""

    bind: str = "overlay"
    only: bool = False

    def words(self) -> str:
        """As the variable has it that child processes get."""
        return f"bind={self.bind}{',only' if self.only else ''}"


@dataclass
class Running:
    """A node that runs in this process, and how many sessions use it and its networks."""

    node: _peersock.Node
    settings: Settings
    #: Seconds; ``None`` is `LINGER`, and at the end of the process as long as peers take what was sent.
    linger: float | None
    rules: Rules
    users: int = 0
    networks: dict[int, int] = field(default_factory=dict)
    kept: bool = False
    environment: dict[str, str | None] = field(default_factory=dict)

    def announce(self) -> None:
        """Has sockets of this process and of its children use the node, by its rules."""
        networks = ",".join(f"{network:016x}" for network in self.networks)
        variables = {NODE: self.node.environment(), RULES: self.rules.words(), NETWORKS: networks}
        for name, value in variables.items():
            self.environment.setdefault(name, os.environ.get(name))
            os.environ[name] = value
        _peersock.set_rules(variables[NODE], variables[RULES])

    def withdraw(self) -> None:
        """Leaves everything as it was before."""
        if not self.environment:
            return
        for name, value in self.environment.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value
        self.environment.clear()
        _peersock.clear_rules()
        adopt()


def is_inherited() -> bool:
    """Returns true if the environment names a node of another process."""
    here = _here()
    return bool(os.environ.get(NODE)) and (here is None or not here.environment)


def adopt() -> None:
    """Uses the node of a parent process, if there is one and this process has none."""
    if os.environ.get(NODE) and not _peersock.has_rules():
        # A value that names no node counts as none.
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
    """The node of this process; a parent's is none, and neither is a shared one that has ended."""
    here = _here()
    return None if here is None or here.node.is_lost() else here


def _here() -> Running | None:
    """The same, and a shared one that has ended."""
    return _running if _running is not None and _running.node.is_here() else None


def enter(
    settings: Settings,
    linger: float | None,
    bind: str | None,
    only: bool | None,
    networks: Sequence[int | str],
    secret: str | bytes | None,
    usual: str | bytes | None = None,
) -> tuple[Running, list[int]]:
    """The process's node with one user more, in these networks, whose IDs come with it. It is started if there is none.

    ``usual`` is the secret of networks that nobody here has joined, where ``secret`` says none.

    After an error everything is as it was before.

    Raises:
        ValueError: The node that there is has other settings, other rules, or is in a network with another secret.
    """
    global _running
    with _lock:
        running = current()
        if running is None:
            if _running is not None and _running.node.is_lost():
                # The shared node has ended, and its sessions are still to be closed.
                _running.withdraw()
            rules = Rules(bind or "overlay", bool(only))
            settings = _for_networks(settings, networks)
            running = _running = Running(settings.start(), settings, linger, rules)
            _see_exec()
        elif settings not in (Settings(), running.settings) and (
            (wanted := _for_networks(settings, networks)) != running.settings
        ):
            # Invalid arguments are reported first.
            wanted.config()
            other = ", ".join(wanted.differing(running.settings))
            raise ValueError(f"this process has a node already, with other settings: {other}")
        elif bind not in (None, running.rules.bind):
            raise ValueError(f"this process has a node already, with bind={running.rules.bind!r}")
        elif only not in (None, running.rules.only):
            raise ValueError(f"this process has a node already, with only={running.rules.only}")
        running.users += 1
        joined: list[int] = []
        try:
            for network in networks:
                joined.append(_join(running, network, secret, usual))
            running.announce()
        except BaseException:
            _release(running, joined, False)
            raise
        return running, joined


def _for_networks(settings: Settings, networks: Sequence[int | str]) -> Settings:
    """The settings of a node in these networks. All but ad-hoc ones know their members, and not a fresh identity."""
    return settings if all(map(is_ad_hoc, networks)) else settings.for_members()


def _join(running: Running, network: int | str, secret: str | bytes | None, usual: str | bytes | None) -> int:
    if not is_ad_hoc(network):
        # The network has no secret, or one in its file.
        secret = usual = None
    if isinstance(network, int) and network in running.networks and secret is None:
        # As another session has joined it.
        joined = network
    else:
        secret = usual if secret is None else secret
        passphrase = secret if isinstance(secret, str) else None
        key = secret if isinstance(secret, bytes) else None
        if isinstance(network, int):
            joined = running.node.join_id(network, passphrase, key)
        elif is_invite(network):
            joined = running.node.join_invite(network)
        else:
            joined = running.node.join_file(network)
    running.networks[joined] = running.networks.get(joined, 0) + 1
    return joined


def release(running: Running, networks: list[int], keep: bool) -> bool:
    """Takes a user away. The last one stops the node, unless it is to be kept. Says whether all was delivered."""
    with _lock:
        return _release(running, networks, keep)


def _release(running: Running, networks: list[int], keep: bool) -> bool:
    running.kept |= keep
    running.users -= 1
    last = running.users == 0 and not running.kept
    for network in networks:
        running.networks[network] -= 1
        if running.networks[network] == 0 and not running.kept:
            del running.networks[network]
            if not last and running.node.is_here() and not running.node.is_lost():
                try:
                    running.node.leave(network)
                except OSError as error:
                    # A shared node may end at any time.
                    if error.errno != errno.ENETDOWN:
                        raise
                running.announce()
    return _stop(running) if last else True


def _stop(running: Running) -> bool:
    """Stops a node that has no users any more."""
    global _running
    if not running.node.is_here():
        return True
    if _running is running:
        _running = None
    try:
        return running.node.stop(LINGER if running.linger is None else running.linger)
    finally:
        running.withdraw()


def stop() -> bool:
    """Stops the process's node, also one that was kept, whoever uses it. True if everything was delivered.

    Connections that are open are reset, after what was written to them was delivered.
    """
    with _lock:
        running = _here()
        return True if running is None else _stop(running)


def finish() -> str | None:
    """The end of a process: connections that are open end in order, as the kernel's do. Says what was lost."""
    global _running
    with _lock:
        running = _here()
        if running is None:
            return None
        _running = None
        try:
            return running.node.finish(running.linger)
        finally:
            running.withdraw()


@atexit.register
def _finish() -> None:
    """Reports on stderr what was lost, because the process is ending."""
    lost: str | None = "what was still to be delivered may be lost"
    try:
        lost = finish()
    finally:
        if lost is not None and sys.stderr is not None:
            print(f"peersock: {lost}", file=sys.stderr, flush=True)


#: Time that exec waits for another thread that starts or stops the node, seconds.
_BEFORE_EXEC = 10.0

_sees_exec = False


def _see_exec() -> None:
    """Has this process deliver what it has sent before it executes another program, which ends the node's threads."""
    global _sees_exec
    # It cannot be taken away again.
    if not _sees_exec:
        _sees_exec = True
        sys.addaudithook(_audit)


def _audit(event: str, arguments: tuple[object, ...]) -> None:
    if event != "os.exec" or _here() is None or not _can_be_executed(arguments[0]):
        return
    # A signal's handler may execute while this very thread has the lock.
    if _lock.acquire(timeout=_BEFORE_EXEC):
        _lock.release()
        _finish()
    elif sys.stderr is not None:
        print("peersock: what was still to be delivered may be lost", file=sys.stderr, flush=True)


def _can_be_executed(path: object) -> bool:
    """False where exec fails for sure: `os.execvp` tries one folder after the other, and the node is to live on."""
    if isinstance(path, int):
        return True
    if not isinstance(path, str | bytes | os.PathLike):
        return False
    return os.path.isfile(path) and os.access(path, os.X_OK)


def allowed_ports() -> list[tuple[str, int, int]]:
    """The networks of the node that sockets use, and their first and last port."""
    running = current()
    ids = [f"{network:016x}" for network in running.networks] if running is not None else None
    if ids is None:
        ids = [network for network in os.environ.get(NETWORKS, "").split(",") if network]
    # An ad-hoc network's ID has them; all others allow every port.
    ports = {network: (int(network[2:6], 16), int(network[6:10], 16)) for network in ids if network[:2] == "ff"}
    return [(network, *ports.get(network, (1, 0xFFFF))) for network in ids]
