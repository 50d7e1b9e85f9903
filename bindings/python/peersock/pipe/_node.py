"""Nodes: pipes to and from the members of networks, by an address text."""

from __future__ import annotations

import asyncio
import contextlib
import ipaddress
import os
import threading
from collections.abc import Generator, Iterable, Mapping
from typing import Any

from .. import _peersock
from ..interfaces import IP4, IP6, Interface, IPRange, Route, list_interfaces, load_interfaces
from ..session import Session
from ._addresses import TCP, Tup, family_of
from ._daemon import DAEMON_CONF, Daemon
from ._nicknames import claim, find, is_nickname, release
from ._node_text import NodeAddress
from ._open import pipe_open
from ._options import NET_CONF, Options
from ._pipe import MsgCallback, Pipe

#: The port of nodes, unless they are given another one; P2PD's.
NODE_PORT = 10001
#: Default time that a node looks for another one, seconds.
PATIENCE = 30.0
#: The ways to another node, with P2PD's numbers.
P2P_DIRECT, P2P_REVERSE, P2P_PUNCH, P2P_RELAY = 1, 2, 3, 4
#: P2PD's number of servers of signals. Roots carry all signals, whatever it is.
SIGNAL_PIPE_NO = 3
#: Interval of checks for a direct path, seconds.
_STEP = 0.05
#: The most entries of a list in the text.
_MOST = 64


class P2PNode:
    """A member of networks that takes connections from the others. Awaiting it starts it::

        node = await P2PNode(session=session)
        node.add_msg_cb(msg_cb)
        text = node.addr_bytes                  # to be given to another node
        pipe = await other.connect(text)

    Connections lead over the overlay: it finds the way, directly or through NATs or roots, and encrypts.

    Args:
        ifs: The machine's interfaces that the address text tells of. None is all, or those that the session is
            limited to. Their external addresses and NATs are added some seconds later if there are STUN servers, see
            `peersock.interfaces`.
        port: The port of the overlay at which it takes connections; 0 is any.
        conf: The options of its pipes. P2PD's options for nodes may be among them: ``enable_upnp``, since a node with
            roots has routers open ports for it, and ``sig_pipe_no``, since roots carry all signals.
        session: The session whose networks it is in. It is not closed with the node.
        net_id: Without a session, the network or networks of the session that it starts.
        options: Without a session, what else `peersock.Session` takes.

    Raises:
        TypeError, ValueError: The arguments make no sense.
    """

    def __init__(
        self,
        ifs: Iterable[Interface] | None = None,
        port: int = NODE_PORT,
        conf: Mapping[str, Any] = DAEMON_CONF,
        *,
        session: Session | None = None,
        net_id: Any = None,
        **options: Any,
    ) -> None:
        if session is not None and (net_id is not None or options):
            raise ValueError("a node has a session, or what makes one: not both")
        conf = _of_pipes(conf)
        Options.parse(conf)
        self.ifs = None if ifs is None else list(ifs)
        self.conf = conf
        self.port = port
        self._given, self._net_id, self._session_options = session, net_id, options
        self._session: Session | None = session
        self._daemon = Daemon(conf)
        self._opened: list[Pipe] = []
        self._nicknames: list[str] = []
        self._is_started = False
        # The names of the interfaces that are to be loaded; None is as above.
        self._names: list[str] | None = None
        # Starting and closing wait for each other.
        self._turn = asyncio.Lock()

    def __await__(self) -> Generator[Any, None, P2PNode]:
        return self.start().__await__()

    async def __aenter__(self) -> P2PNode:
        return await self.start()

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    async def start(self) -> P2PNode:
        """Joins the networks, if there is no session yet, and listens. Gives the node itself.

        Raises:
            OSError: The node cannot be started, or the port is used: EADDRINUSE.
        """
        async with self._turn:
            if self._is_started:
                return self
            if self._session is None:
                self._session = await Session.start(self._net_id, **self._session_options)
            try:
                if self.ifs is None:
                    await self._load_interfaces(self._session)
                for address in self._session.addresses:
                    route = await Route(family_of((address, 0)), [IPRange(address)]).bind(self.port, address)
                    # All addresses have the same port.
                    self.port, _ = await self._daemon.add_listener(TCP, route)
            except BaseException:
                await self._close()
                raise
            self._is_started = True
            return self

    async def _load_interfaces(self, session: Session) -> None:
        """Loads the addresses that they have; the rest follows, as it takes seconds to be found out."""
        names = self._names
        if names is None:
            limits = session._open().settings.interfaces
            names = await list_interfaces() if limits is None else list(limits or ("lo",))
        self.ifs = interfaces = await load_interfaces(names, stun=(), skip_nat=True)
        if not _has_stun():
            return
        loop = asyncio.get_running_loop()

        def replace(at: int, interface: Interface) -> None:
            # They are the caller's, too, who may have changed them.
            if at < len(interfaces) and interfaces[at].name == interface.name:
                interfaces[at] = interface

        def look() -> None:
            for at, name in enumerate([interface.name for interface in interfaces]):
                # It may be gone, or the loop be closed.
                with contextlib.suppress(OSError, RuntimeError):
                    interface = Interface(name).wait()
                    interface.load_nat().wait()
                    loop.call_soon_threadsafe(replace, at, interface)

        # The end of the program does not wait for it.
        threading.Thread(target=look, name="peersock-nats", daemon=True).start()

    @property
    def session(self) -> Session:
        """The session whose networks it is in.

        Raises:
            ValueError: The node is not started.
        """
        if self._session is None or not self._is_started:
            raise ValueError("the node is not started: await it first")
        return self._session

    @property
    def pipes(self) -> list[Pipe]:
        """The pipes that are open, to and from other nodes."""
        accepted = [pipe for server in self._daemon.servers for pipe in server.clients]
        return [*accepted, *self._opened]

    @property
    def address(self) -> NodeAddress:
        """The node's present address.

        Raises:
            ValueError: The node is not started.
        """
        session, interfaces = self.session, self.ifs or []
        status = session.status()
        return NodeAddress(
            id=session.id,
            public_key=session.public_key,
            networks={
                network["id"]: list(network["addresses"])
                for network in status["networks"]
                if int(network["id"], 16) in session.networks
            },
            port=self.port,
            candidates=_candidates(status, interfaces),
            interfaces=[interface.to_dict() for interface in interfaces[:_MOST]],
            roots=[root["id"] for root in status["roots"][:_MOST]],
        )

    @property
    def addr_bytes(self) -> bytes:
        """The text for `connect`, as ASCII: where the node is now, as `address` has it. Nothing in it is secret; it
        does say which addresses the machine has.

        Raises:
            ValueError: The node is not started.
        """
        return self.address.to_bytes()

    async def nickname(self, name: str, timeout: float = 10.0) -> str:
        """Claims a nickname at the roots of the session, and gives the text for `connect`: the name, the first 20
        digits of the node's ID, and ``.peersock``. Whoever comes first has it, while the node is there and an hour
        longer; `close` gives it back.

        Args:
            name: 1 to 32 letters, digits and hyphens.
            timeout: How long the roots are waited for, seconds.

        Raises:
            ValueError: It is no nickname, or this node is not started.
            OSError: Another node has it (EADDRINUSE), there are too many (EDQUOT), or the roots refuse it (EACCES).
            TimeoutError: No root has answered in time.
        """
        text = await claim(self.session, name, self.port, timeout)
        self._nicknames.append(name)
        return text

    def add_msg_cb(self, msg_cb: MsgCallback) -> P2PNode:
        """Has ``msg_cb(msg, client_tup, pipe)`` called for messages, also of connections that this node makes."""
        self._daemon.add_msg_cb(msg_cb)
        for pipe in self._opened:
            pipe.add_msg_cb(msg_cb)
        return self

    def del_msg_cb(self, msg_cb: MsgCallback) -> P2PNode:
        """Takes a callback away. It may be none."""
        self._daemon.del_msg_cb(msg_cb)
        for pipe in self._opened:
            pipe.del_msg_cb(msg_cb)
        return self

    async def connect(
        self,
        addr: bytes | str | NodeAddress,
        strategies: Iterable[int] | None = None,
        timeout: float = PATIENCE,
    ) -> Pipe:
        """Connects to the node that the text is of. Its messages are also queued for `Pipe.recv`.

        Args:
            addr: What the other node has as `addr_bytes`, or what its `nickname` gave. ``alice.peersock``, without the
                digits, leads to whomever the roots name.
            strategies: The ways that will do, of ``P2P_DIRECT``, ``P2P_REVERSE``, ``P2P_PUNCH`` and ``P2P_RELAY``. None
                is all of them. The first three are one search, so that each stands for all of them. Without the last
                one the pipe is there when the path is direct; it goes on by a relay if that path dies later.
            timeout: How long the node is looked for, and then a direct path, seconds. The option ``con_timeout`` is for
                the connection between these.

        Raises:
            TypeError, ValueError: It is no such text, there is no such way, or this node is not started.
            LookupError: The nodes have no network in common, nobody has the nickname, or several have it.
            TimeoutError: The node, or a direct path where that is wanted, was not found in time.
            OSError: It takes no connection.
        """
        may_relay = strategies is None or P2P_RELAY in _ways(strategies)
        ip, port = await self._find(addr, timeout)
        pipe = await self._open(ip, port)
        if not may_relay:
            try:
                await self._direct(ip, timeout)
            except BaseException:
                await pipe.close()
                raise
        return pipe

    async def _find(self, addr: bytes | str | NodeAddress, timeout: float) -> tuple[str, int]:
        """The overlay's address of a node that is there, and its port."""
        if not isinstance(addr, NodeAddress) and (name := is_nickname(addr)) is not None:
            return await find(self.session, name, timeout)
        where = addr if isinstance(addr, NodeAddress) else NodeAddress.parse(addr)
        session = self.session
        network = next((one for one in session.networks if where.networks.get(f"{one:016x}")), None)
        if network is None:
            raise LookupError("the nodes have no network in common")
        # It follows from the key, whatever addresses the text has.
        ip = _peersock.address_of(network, where.id)
        if ip not in session.addresses and not await session.wait_peer_async(ip, timeout):
            raise TimeoutError(f"the node was not found in {timeout:g} s")
        return ip, where.port

    async def _direct(self, ip: str, timeout: float) -> None:
        """Waits until the path to a node leads through no relay."""
        if ip in self.session.addresses:
            return
        until = asyncio.get_running_loop().time() + timeout
        while True:
            for peer in self.session.peers():
                if ip in peer.addresses and peer.connected and peer.root is None and not peer.turn:
                    return
            if asyncio.get_running_loop().time() >= until:
                raise TimeoutError(f"no direct path was found in {timeout:g} s")
            await asyncio.sleep(_STEP)

    async def _open(self, ip: str, port: int) -> Pipe:
        conf = {name: value for name, value in self.conf.items() if value != NET_CONF[name]}
        pipe = await pipe_open(TCP, (ip, port), conf={**conf, "reuse_addr": False})
        for msg_cb in self._daemon.msg_cbs:
            pipe.add_msg_cb(msg_cb)
        self._opened.append(pipe)
        pipe.add_end_cb(self._forget)
        return pipe

    def _forget(self, message: None, client_tup: Tup, pipe: Pipe) -> None:
        if pipe in self._opened:
            self._opened.remove(pipe)

    async def close(self) -> None:
        """Closes its pipes, and the session if it is its own. Calling it again does nothing."""
        async with self._turn:
            await self._close()

    async def _close(self) -> None:
        self._is_started = False
        names, self._nicknames = self._nicknames, []
        if names and self._session is not None and not self._session.closed:
            await release(self._session, names)
        await self._daemon.close()
        await asyncio.gather(*(pipe.close() for pipe in list(self._opened)))
        if self._given is None and self._session is not None:
            session, self._session = self._session, None
            await asyncio.to_thread(session.close)


def _ways(strategies: Iterable[int]) -> set[int]:
    if isinstance(strategies, (int, float)):
        raise TypeError("strategies are a list of ways; how long is said by timeout=")
    ways = set(strategies)
    if not ways or not ways <= {P2P_DIRECT, P2P_REVERSE, P2P_PUNCH, P2P_RELAY}:
        raise ValueError(f"strategies are some of P2P_DIRECT, P2P_REVERSE, P2P_PUNCH and P2P_RELAY, not {strategies!r}")
    return ways


def _of_pipes(conf: Mapping[str, Any]) -> dict[str, Any]:
    """The options that are of pipes. What P2PD's nodes have beside them, the node does by itself."""
    if not isinstance(conf, Mapping):
        raise TypeError(f"conf is a dictionary of options, not {conf!r} ({type(conf).__name__})")
    if not conf.get("enable_upnp", True):
        raise ValueError("enable_upnp cannot be switched off here: routers are asked as the session's node does")
    return {name: value for name, value in conf.items() if name not in ("enable_upnp", "sig_pipe_no")}


async def init_p2pd() -> list[str]:
    """The names of the machine's interfaces, for `start_p2p_node`. There is nothing to be prepared."""
    return await list_interfaces()


async def start_p2p_node(netifaces: Iterable[str] | None = None, port: int = NODE_PORT, **options: Any) -> P2PNode:
    """Starts a node.

    Args:
        netifaces: The names of the interfaces that its address text tells of; None is as for `P2PNode`.
        port: Its port.
        options: What else `P2PNode` takes.
    """
    node = P2PNode(None, port, **options)
    node._names = None if netifaces is None else list(netifaces)
    return await node


def _has_stun() -> bool:
    """Returns true if there is a server that can tell about NATs."""
    return any(os.environ.get(name) for name in ("PEERSOCK_STUN", "PEERSOCK_ROOTS"))


def _candidates(status: dict[str, Any], interfaces: list[Interface]) -> list[str]:
    """Returns the addresses at which others may reach the node's UDP sockets."""
    contact = status.get("contact") or {}
    found = [candidate["address"] for candidate in contact.get("candidates", ())]
    for endpoint in status["endpoints"]:
        host, _, port = endpoint.rpartition(":")
        ip = ipaddress.ip_address(host.strip("[]").partition("%")[0])
        if not ip.is_unspecified:
            found.append(endpoint)
            continue
        # A socket bound to the wildcard address is reached at all addresses of its interfaces.
        for interface in interfaces:
            for route in interface.rp[IP4 if ip.version == 4 else IP6].routes:
                own = [block[0] for block in (*route.nic_ips, *route.ext_ips) if not block[0].is_link_local]
                found += [f"{ip}:{port}" if ip.version == 4 else f"[{ip}]:{port}" for ip in own]
    return list(dict.fromkeys(found))[:_MOST]
