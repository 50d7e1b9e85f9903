"""Sessions: being on networks, as long as a block of code runs."""

from __future__ import annotations

import errno
import json
import os
import socket as _std
import threading
import warnings
from collections.abc import Callable, Iterable, Sequence
from ipaddress import IPv4Address, IPv6Address, ip_address
from types import TracebackType
from typing import Any, Literal

from . import _arguments as given
from . import _node, _peersock
from ._arguments import NetworkId
from ._class import socket
from ._netcheck import Netcheck, look
from ._pending import Pending
from .events import Events
from .identity import PeerIdentity, peer_of
from .peers import Peer

#: Interval at which an asynchronous wait looks, seconds.
_STEP = 0.02
#: Longest single wait of a thread for an asynchronous wait, seconds. A thread outlives a cancelled wait by that time.
_ROUND = 0.25
_AF_INET6 = int(_std.AF_INET6)
#: Errors that mean that no member of the networks is known to have an address.
_NOBODY = (
    errno.ENOTCONN,
    errno.EOPNOTSUPP,
    errno.ENOPROTOOPT,
    errno.ENETUNREACH,
    errno.EHOSTUNREACH,
    errno.EADDRNOTAVAIL,
    errno.EACCES,
    errno.EINVAL,
)


class Session:
    """Being a member of networks, with the node of this process, or with one that programs share.

    If a shared node runs in the directory of ``identity``, as that of ``peersock node`` and of the programs under
    ``peersock run``, the process uses it: it has the same identity and addresses, and its ports are that node's. It
    sees the networks of its own sessions only. If none runs there, the installed program ``peersock`` starts one: the
    one that the variable ``PEERSOCK_PROGRAM`` names, or the first in ``PATH``. When the shared node ends, calls fail
    with ENETDOWN, and the next session starts anew. `node_process` tells which node it is. The node is in this process
    where no such program can be started, or if the variable ``PEERSOCK_OWN_NODE`` is not empty.

    The first session starts the node, the last one that is closed stops it, unless it was asked to keep it. While there
    is one, the sockets of `peersock.socket` that go to addresses of the networks are the overlay's. A session is open
    as soon as it is made; in a ``with`` statement it is closed at the end of the block, which raises ConnectionError if
    not everything that was sent was delivered.

    A session that is closed before its sockets ends them: connections are reset once what was written to them is
    delivered, and whatever waits fails with ENETDOWN.

    Args:
        net_id: The network, or several: an ID as a number or 16 hexadecimal digits, or the file of a static network,
            which ``peersock network new`` makes and docs/use/NETWORKS.md describes. Without this and ``static``, that
            of the variable ``PEERSOCK_NETWORK``.
        secret: The passphrase of the networks (``str``), or their key (32 ``bytes``, also as a ``bytearray`` or a
            ``memoryview``). ``None`` means the passphrase of the variable ``PEERSOCK_SECRET``, if it is set. A network
            that another session of this process has joined is used as it is if there is neither; it must be the same
            secret otherwise. Under ``peersock run``, a network of the launcher's that has a secret there has one here,
            too, and none where it has none: otherwise ValueError. Static networks have theirs in their files, which
            stays.
        static: The file of one more, static, network, as for ``net_id``.
        invite: An invite to one more, managed, network, as ``peersock network invite`` prints it. The identity is the
            member: with the same one, a later session joins by the network's ID, or again by the invite.
        identity: The directory that holds the node's identity, or a seed of 32 bytes. By default that of the variable
            ``PEERSOCK_STATE``. Without it, a session with the file of a static network has the identity of the program
            ``peersock``, in ``$XDG_STATE_HOME/peersock`` or ``~/.local/state/peersock``, because the file lists the
            keys of its members; and one without has a fresh identity, which is forgotten.
        interfaces: Which network interfaces the node may use: ``"all"``, ``"loopback"``, or names.
        port: The node's UDP port; 0 lets the system choose.
        discovery: Whether to find, and be found by, peers on this machine and the local networks.
        discovery_port: The UDP port of that, the same for all who shall find each other.
        introduce: Whether discovery tells others who this node is. Otherwise the node stays unknown until it sends
            something.
        buffers: The most that the send and the receive buffer of each TCP socket may hold, bytes.
        roots: The roots at which the node can be found, and which relay for it: a text, or several, each one that
            ``peersock root`` prints, ``"dns:DOMAIN"`` for those that the DNS lists, ``"lan"`` for those that announce
            themselves on the local network, or ``"@"`` and the path of a file with such texts. None at all if it is
            empty; ``None`` means those of the variable ``PEERSOCK_ROOTS``.
        turn: The TURN servers that relay to the node where no direct path opens: a text, or several, each one
            ``"turn:USER:PASSWORD@HOST:PORT"``, with ``"?transport=tcp"`` behind it for TCP, or
            ``"turns:USER:PASSWORD@HOST:PORT"`` for TLS, or ``"@"`` and the path of a file of mode 0600 with such texts.
            None at all if it is empty; ``None`` means those of the variable ``PEERSOCK_TURN``. What came of it is in
            ``status()["turn"]``.
        stun: The STUN servers that are asked from where they see the node: a text ``"HOST:PORT"``, or several. None at
            all if it is empty; ``None`` means those of the variable ``PEERSOCK_STUN``.
        dht: Whether the node meets others by the BitTorrent DHT: ``"off"``, ``"public"``, or nodes of another one,
            ``"IPV4:PORT"`` with commas between them. ``None`` means what the variable ``PEERSOCK_DHT`` says, or off.
        port_mapping: Whether routers are asked to forward a port to the node.
        birthday: Whether direct paths are looked for by many ports.
        tcp_punch: Whether direct paths are looked for by TCP where there is none by UDP.
        busy_poll: How long a waiting thread polls for packets before it sleeps, microseconds up to 10000; 0 is never.
            ``None`` means what the variable ``PEERSOCK_BUSY_POLL`` says, or only where it pays.
        only_suite: The only cipher for data, ``"AES-256-GCM"`` or ``"ChaCha20-Poly1305"``; members without it are not
            reached. ``None`` means the faster one of each two nodes.
        bind: Where sockets are reached that are bound to no address: from the ``"overlay"``, from the machine's own
            network (``"kernel"``), or from ``"both"``. ``None`` is what the process has, the overlay for its first
            session.
        only: Whether addresses outside the networks are refused. ``None`` is what the process has, no for its first
            session.
        ready_timeout: How long to wait until a managed network has admitted the node, seconds; ``None`` for ever.
        linger: How long stopping the node may take to deliver what was sent, seconds. By default 5 when the last
            session is closed, and at the end of the process as long as peers take what was sent: one that takes nothing
            has 30 seconds, one that answers nothing 10, and all together 10 minutes. What is lost then is a line on
            stderr.
        keep: Whether the node goes on after the last session, until the process ends or `stop()` is called.

    Raises:
        TypeError: Something of this is not of the right type.
        ValueError: Something of this makes no sense, or the process has a node with other settings or rules, or in a
            network with another secret or without one. A shared node's text names the program that has set them.
        TimeoutError: No controller of a managed network has admitted the node in time.
        PermissionError: A controller refuses the node, as when an invite was used already.
        FileNotFoundError: There is no such file.
        OSError: The node cannot be started: EBUSY where another process has the identity, EADDRINUSE for its port,
            ENODEV for its interfaces.
    """

    def __init__(
        self,
        net_id: NetworkId | Iterable[NetworkId] | None = None,
        *,
        secret: str | bytes | bytearray | memoryview | None = None,
        static: str | os.PathLike[str] | None = None,
        invite: str | None = None,
        identity: str | os.PathLike[str] | bytes | bytearray | memoryview | None = None,
        interfaces: Literal["all", "loopback"] | Sequence[str] = "all",
        port: int = 0,
        discovery: bool = True,
        discovery_port: int | None = None,
        introduce: bool = True,
        buffers: tuple[int, int] | None = None,
        roots: str | Iterable[str] | None = None,
        turn: str | Iterable[str] | None = None,
        stun: str | Iterable[str] | None = None,
        dht: str | None = None,
        port_mapping: bool = True,
        birthday: bool = True,
        tcp_punch: bool = True,
        busy_poll: int | None = None,
        only_suite: str | None = None,
        bind: Literal["overlay", "kernel", "both"] | None = None,
        only: bool | None = None,
        ready_timeout: float | None = 30.0,
        linger: float = _node.LINGER,
        keep: bool = False,
    ) -> None:
        self._running: _node.Running | None = None
        self._networks: list[int] = []
        self._keep = given.flag("keep", keep)
        state, seed = given.identity(identity)
        settings = _node.Settings(
            state=state,
            seed=seed,
            interfaces=given.interfaces(interfaces),
            port=given.number("port", port, 0, 0xFFFF),
            discovery=given.flag("discovery", discovery),
            discovery_port=given.optional_number("discovery_port", discovery_port, 1, 0xFFFF),
            introduce=given.flag("introduce", introduce),
            buffers=given.buffers(buffers),
            roots=given.roots(roots),
            turn=given.turn(turn),
            stun=given.stun(stun),
            dht=given.dht(dht),
            port_mapping=given.flag("port_mapping", port_mapping),
            birthday=given.flag("birthday", birthday),
            tcp_punch=given.flag("tcp_punch", tcp_punch),
            busy_poll=given.optional_number("busy_poll", busy_poll, 0, 10_000),
            only_suite=given.only_suite(only_suite),
        )
        side = given.side(bind)
        restricted = None if only is None else given.flag("only", only)
        if restricted and side in ("kernel", "both"):
            raise ValueError(f"only=True leaves nothing but the overlay: it does not go with bind={side!r}")
        patience = given.optional_seconds("ready_timeout", ready_timeout)
        lingering = None if isinstance(linger, _node.Usual) else given.seconds("linger", linger)
        if net_id is None and static is None and invite is None:
            net_id = given.of_environment()
        wanted = given.networks(net_id, static, invite)
        key = given.secret(secret)
        of_environment = given.secret_of_environment(wanted, _node.is_inherited())
        usual = given.secret(of_environment) if secret is None else None
        if key is not None and not any(map(given.is_ad_hoc, wanted)):
            raise ValueError(
                "secret is for ad-hoc networks: a static one has it in its own file, and a managed one has none"
            )
        self._running, self._networks = _node.enter(settings, lingering, side, restricted, wanted, key, usual)
        try:
            node = self._running.node
            if not self.wait_ready(patience):
                # Only controllers of managed networks take time.
                reasons = filter(None, map(node.why_not_ready, self._networks))
                raise TimeoutError("; ".join(reasons) or "a controller has admitted this node too late")
            # A forked child cannot ask.
            self._known = [address for network in self._networks for address in node.addresses(network)]
            self._id, self._public_key = node.id(), node.public_key()
        except BaseException:
            self.close()
            raise

    @classmethod
    async def start(cls, *args: Any, **options: Any) -> Session:
        """As ``Session(…)``, made in a thread: the event loop goes on meanwhile::

            async with await peersock.Session.start("8056c2e21c000001") as session:
                ...

        If this is cancelled, the session is closed as soon as it is there.
        """
        import asyncio

        lock = threading.Lock()
        made: list[Session] = []
        is_wanted = True

        def make() -> Session:
            session = cls(*args, **options)
            with lock:
                made.append(session)
                if is_wanted:
                    return session
            session.close()
            return session

        try:
            return await asyncio.to_thread(make)
        except asyncio.CancelledError:
            with lock:
                is_wanted = False
                left = list(made)
            for session in left:
                # It may take its linger.
                asyncio.get_running_loop().run_in_executor(None, session.close)
            raise

    def __del__(self, warn: Callable[..., None] = warnings.warn) -> None:
        running = getattr(self, "_running", None)
        if running is not None and not self._keep and running.node.is_here() and running.node.is_running():
            warn(f"unclosed {self!r}: its node runs until the process ends", ResourceWarning, source=self)

    def _open(self) -> _node.Running:
        if self._running is None:
            raise ValueError("the session is closed")
        return self._running

    def _own(self) -> _peersock.Node:
        """The node, for what only its own process can ask."""
        node = self._open().node
        if not node.is_here():
            raise OSError(errno.ENETDOWN, "the session's node is the parent process's: ask there")
        return node

    def __enter__(self) -> Session:
        self._open()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        _tell(self.close(), error)

    async def __aenter__(self) -> Session:
        self._open()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        import asyncio

        _tell(await asyncio.to_thread(self.close), error)

    def __repr__(self) -> str:
        if self._running is None:
            return "<peersock.Session [closed]>"
        return f"<peersock.Session networks={[f'{network:016x}' for network in self._networks]}>"

    def close(self) -> bool:
        """Ends the session, and the node with the last one. True if everything that was sent was delivered.

        Connections that are still open are reset then, after what was written to them. Calling it again does nothing.
        """
        running, self._running = self._running, None
        if running is None or not running.node.is_here():
            return True
        networks, self._networks = self._networks, []
        return _node.release(running, networks, self._keep)

    @property
    def closed(self) -> bool:
        """True if the session was closed."""
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
        if not node.is_here():
            # A forked child's sockets have the parent's addresses.
            return list(self._known)
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
        self._open()
        return self._id

    @property
    def public_key(self) -> str:
        """The node's public key, as the file of a static network lists it."""
        self._open()
        return self._public_key

    @property
    def node_process(self) -> int:
        """The number of the process that holds the node: this one, or that of a node which programs share."""
        return self._open().node.process()

    def peers(self) -> list[Peer]:
        """The peers known now in the session's networks."""
        known = json.loads(self._own().peers())
        return [peer for peer in map(Peer.from_json, known) if peer.network in self._networks]

    def peer_at(self, address: str | IPv4Address | IPv6Address) -> PeerIdentity | None:
        """Who has an address in the session's networks now; None if nobody has proved it in a session.

        This is for datagrams. A connection has `peersock.peer_of`, which stays the same when the address gets another
        owner.
        """
        wanted = ip_address(str(address))
        family = _std.AF_INET if wanted.version == 4 else _std.AF_INET6
        with socket(family, _std.SOCK_DGRAM) as asking:
            try:
                # Nothing is sent; any port will do.
                asking.connect((str(wanted), 9))
                found = peer_of(asking)
                return found if found.network in self._networks else None
            except OSError as error:
                if error.errno in _NOBODY:
                    return None
                raise

    def status(self) -> dict[str, Any]:
        """Everything about the node, with its counters, in the form that ``peersock status --json`` prints."""
        status: dict[str, Any] = json.loads(self._own().status())
        return status

    def netcheck(self, *, stun: str | Iterable[str] | None = None) -> Pending[Netcheck]:
        """Looks what network the node is in, with the session's interfaces, roots and TURN servers: see
        `peersock.netcheck`. Roots see a node of another identity meanwhile."""
        self._own()
        return look(self._open().settings, given.stun(stun))

    def events(self) -> Events:
        """Returns the events from now on, for a ``for`` or an ``async for`` loop. A shared node reports those of the
        members of this process's networks."""
        return Events(self._own().event_fd())

    def wait_ready(self, timeout: float | None = None) -> bool:
        """Waits until the node has its addresses in all networks. False if the time, in seconds, was over."""
        node = self._own()
        return all(node.wait_ready(network, timeout) for network in self._networks)

    def wait_peer(self, address: str | IPv4Address | IPv6Address, timeout: float | None = None) -> bool:
        """Waits until there is an encrypted session with the member that has this address. False if the time was over.

        Raises:
            OSError: No member can have the address.
        """
        return self._own().wait_peer(self._network_of(str(ip_address(str(address)))), str(address), timeout)

    async def wait_ready_async(self, timeout: float | None = None) -> bool:
        """As `wait_ready()`, in asyncio."""
        return await _repeat(lambda: self.wait_ready(0), timeout)

    async def wait_peer_async(self, address: str | IPv4Address | IPv6Address, timeout: float | None = None) -> bool:
        """As `wait_peer()`, in asyncio."""
        import asyncio

        loop = asyncio.get_running_loop()
        deadline = None if timeout is None else loop.time() + timeout
        while True:
            left = _ROUND if deadline is None else min(max(deadline - loop.time(), 0), _ROUND)
            # Only a call that waits has the node look for the peer.
            if await asyncio.to_thread(self.wait_peer, address, left):
                return True
            if deadline is not None and loop.time() >= deadline:
                return False

    def _network_of(self, address: str) -> int:
        """The network that an address belongs to; the first one if that is not known."""
        node = self._own()
        for network in self._networks:
            try:
                node.wait_peer(network, address, 0)
            except OSError:
                continue
            return network
        return self._networks[0]


def _tell(is_delivered: bool, error: BaseException | None) -> None:
    """Says at the end of a block what its close has found out, if nothing else has ended the block."""
    if not is_delivered and error is None:
        raise ConnectionError("not everything that was sent was delivered before the session ended")


async def _repeat(attempt: Any, timeout: float | None) -> bool:
    # It takes long to load, and few need it.
    import asyncio

    loop = asyncio.get_running_loop()
    deadline = None if timeout is None else loop.time() + timeout
    while not attempt():
        if deadline is not None and loop.time() >= deadline:
            return False
        await asyncio.sleep(_STEP)
    return True
