"""Sessions: being on networks, as long as a block of code runs."""

from __future__ import annotations

import asyncio
import json
import os
import socket as _std
from collections.abc import Iterable, Sequence
from ipaddress import IPv4Address, IPv6Address, ip_address
from types import TracebackType
from typing import Any, Literal, Union

from . import _node
from ._class import socket
from .events import Events
from .peers import Peer

#: A network: its ID as a number or in hexadecimal, or the path of a static network's file.
NetworkId = Union[int, str, "os.PathLike[str]"]

#: How often an asynchronous wait looks, seconds.
_STEP = 0.02
_AF_INET6 = int(_std.AF_INET6)


class Session:
    """Being a member of networks, with the node of this process.

    The first session starts the node, the last one that is closed stops it, unless it was asked to keep it. While there
    is one, the sockets of `peersock.socket` that go to addresses of the networks are the overlay's. A session is open
    as soon as it is made; in a ``with`` statement it is closed at the end of the block.

    Args:
        net_id: The network, or several: an ID as a number or 16 hexadecimal digits, or the file of a static network.
        secret: The passphrase of the networks (``str``), or their key (32 ``bytes``).
        static: The file of one more, static, network.
        identity: The directory that holds the node's identity, or a seed of 32 bytes. By default the node has a fresh
            identity, which is forgotten.
        interfaces: Which network interfaces the node may use: ``"all"``, ``"loopback"``, or names.
        port: The node's UDP port; 0 lets the system choose.
        discovery: Whether to find, and be found by, peers on this machine and the local networks.
        discovery_port: The UDP port of that, the same for all who shall find each other.
        buffers: The most that the send and the receive buffer of each TCP socket may hold, bytes.
        bind: Where sockets are reached that are bound to no address: at ``"overlay"`` or ``"kernel"``.
        only: Whether addresses outside the networks are refused.
        ready_timeout: How long to wait for the node's addresses, seconds; ``None`` for ever.
        linger: How long stopping the node may take to deliver what was sent, seconds.
        keep: Whether the node goes on after the last session, until the process ends or `stop()` is called.

    Raises:
        ValueError: Something of this makes no sense, or the process has a node with other settings.
        TimeoutError: The node's addresses were not there in time.
        OSError: The node cannot be started.
    """

    def __init__(
        self,
        net_id: NetworkId | Iterable[NetworkId] | None = None,
        *,
        secret: str | bytes | None = None,
        static: str | os.PathLike[str] | None = None,
        identity: str | os.PathLike[str] | bytes | None = None,
        interfaces: Literal["all", "loopback"] | Sequence[str] = "all",
        port: int = 0,
        discovery: bool = True,
        discovery_port: int | None = None,
        buffers: tuple[int, int] | None = None,
        bind: Literal["overlay", "kernel"] = "overlay",
        only: bool = False,
        ready_timeout: float | None = 30.0,
        linger: float = 5.0,
        keep: bool = False,
    ) -> None:
        self._running: _node.Running | None = None
        self._networks: list[int] = []
        self._keep = keep
        if bind not in ("overlay", "kernel"):
            raise ValueError(f"bind is 'overlay' or 'kernel', not {bind!r}")
        wanted = _listed(net_id) + ([] if static is None else [os.fspath(static)])
        if not wanted:
            raise ValueError("a session needs a network")
        settings = _node.Settings(
            state=None if identity is None or isinstance(identity, bytes) else os.fspath(identity),
            seed=identity if isinstance(identity, bytes) else None,
            interfaces=_interfaces(interfaces),
            port=port,
            discovery=discovery,
            discovery_port=discovery_port,
            buffers=buffers,
        )
        self._running = _node.use(settings, linger)
        try:
            for network in wanted:
                self._join(network, secret)
            self._running.announce(f"bind={bind}{',only' if only else ''}")
            if not self.wait_ready(ready_timeout):
                raise TimeoutError("the node has no addresses yet")
        except BaseException:
            self.close()
            raise

    def _join(self, network: int | str, secret: str | bytes | None) -> None:
        running = self._open()
        passphrase = secret if isinstance(secret, str) else None
        key = secret if isinstance(secret, bytes) else None
        try:
            if isinstance(network, int):
                joined = running.node.join_id(network, passphrase, key)
            else:
                joined = running.node.join_file(network, passphrase, key)
        except FileExistsError:
            # Another session of this process did.
            if not isinstance(network, int) or network not in running.networks:
                raise
            joined = network
        running.networks[joined] = running.networks.get(joined, 0) + 1
        self._networks.append(joined)

    def _open(self) -> _node.Running:
        if self._running is None:
            raise ValueError("the session is closed")
        return self._running

    def __enter__(self) -> Session:
        self._open()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    async def __aenter__(self) -> Session:
        self._open()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await asyncio.to_thread(self.close)

    def __repr__(self) -> str:
        if self._running is None:
            return "<peersock.Session [closed]>"
        return f"<peersock.Session networks={[f'{network:016x}' for network in self._networks]}>"

    def close(self) -> bool:
        """Ends the session, and the node with the last one. True if everything that was sent was delivered.

        Calling it again does nothing.
        """
        running, self._running = self._running, None
        if running is None or not running.node.is_here():
            return True
        networks, self._networks = self._networks, []
        return _node.release(running, networks, self._keep)

    @property
    def closed(self) -> bool:
        """Whether the session was closed."""
        return self._running is None

    def socket(self, family: int = -1, type: int = -1, proto: int = -1) -> socket:
        """A socket, as ``peersock.socket.socket()``. By default it is an IPv6 stream: what every network has."""
        self._open()
        return socket(_AF_INET6 if family == -1 else family, type, proto)

    @property
    def networks(self) -> list[int]:
        """The IDs of the session's networks."""
        return list(self._networks)

    @property
    def addresses(self) -> list[str]:
        """All own addresses in the session's networks, the self-certifying one of the first network first."""
        node = self._open().node
        return [address for network in self._networks for address in node.addresses(network)]

    @property
    def address(self) -> str:
        """The own address in the first network, which follows from the node's key: no one else can have it."""
        return self.addresses[0]

    @property
    def address4(self) -> str | None:
        """The own IPv4 address, if a network gives one."""
        return next((address for address in self.addresses if ":" not in address), None)

    @property
    def id(self) -> str:
        """The node's ID."""
        return self._open().node.id()

    @property
    def public_key(self) -> str:
        """The node's public key, as the file of a static network lists it."""
        return self._open().node.public_key()

    def peers(self) -> list[Peer]:
        """The peers known now in the session's networks."""
        known = json.loads(self._open().node.peers())
        return [peer for peer in map(Peer.from_json, known) if peer.network in self._networks]

    def status(self) -> dict[str, Any]:
        """Everything about the node, with its counters, in the form that ``peersock status --json`` prints."""
        status: dict[str, Any] = json.loads(self._open().node.status())
        return status

    def events(self) -> Events:
        """What happens from now on, to be read in a ``for`` or an ``async for`` loop."""
        return Events(self._open().node.event_fd())

    def wait_ready(self, timeout: float | None = None) -> bool:
        """Waits until the node has its addresses in all networks. False if the time, in seconds, was over."""
        node = self._open().node
        return all(node.wait_ready(network, timeout) for network in self._networks)

    def wait_peer(self, address: str | IPv4Address | IPv6Address, timeout: float | None = None) -> bool:
        """Waits until there is an encrypted session with the member that has this address. False if the time was over.

        Raises:
            OSError: No member can have the address.
        """
        return self._open().node.wait_peer(self._network_of(str(ip_address(str(address)))), str(address), timeout)

    async def wait_ready_async(self, timeout: float | None = None) -> bool:
        """As `wait_ready()`, in asyncio."""
        return await _repeat(lambda: self.wait_ready(0), timeout)

    async def wait_peer_async(self, address: str | IPv4Address | IPv6Address, timeout: float | None = None) -> bool:
        """As `wait_peer()`, in asyncio."""
        return await _repeat(lambda: self.wait_peer(address, 0), timeout)

    def _network_of(self, address: str) -> int:
        """The network that an address belongs to; the first one if that is not known."""
        node = self._open().node
        for network in self._networks:
            try:
                node.wait_peer(network, address, 0)
            except OSError:
                continue
            return network
        return self._networks[0]


async def _repeat(attempt: Any, timeout: float | None) -> bool:
    loop = asyncio.get_running_loop()
    deadline = None if timeout is None else loop.time() + timeout
    while not attempt():
        if deadline is not None and loop.time() >= deadline:
            return False
        await asyncio.sleep(_STEP)
    return True


def _interfaces(interfaces: str | Sequence[str]) -> tuple[str, ...] | None:
    if interfaces == "all":
        return None
    if interfaces == "loopback":
        return ()
    names = (interfaces,) if isinstance(interfaces, str) else tuple(interfaces)
    if not names or not all(names):
        raise ValueError("no interface is named")
    return names


def _listed(net_id: NetworkId | Iterable[NetworkId] | None) -> list[int | str]:
    if net_id is None:
        return []
    if isinstance(net_id, (int, str, os.PathLike)):
        return [_network(net_id)]
    return [_network(network) for network in net_id]


def _network(net_id: NetworkId) -> int | str:
    """The ID as a number, or a path."""
    if isinstance(net_id, int):
        if not 0 <= net_id < 1 << 64:
            raise ValueError("a network's ID has 64 bits")
        return net_id
    if isinstance(net_id, os.PathLike):
        return os.fspath(net_id)
    digits = net_id.removeprefix("0x")
    if len(digits) == 16 and all(digit in "0123456789abcdefABCDEF" for digit in digits):
        return int(digits, 16)
    if "/" in net_id or net_id.endswith(".toml") or os.path.isfile(net_id):
        return net_id
    raise ValueError(f"{net_id!r} is neither a network's ID (16 hexadecimal digits) nor a file")
