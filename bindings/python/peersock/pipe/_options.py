"""The options of pipes, with P2PD's names and defaults."""

from __future__ import annotations

import math
import ssl
import types
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from .. import _arguments as given
from ._addresses import TCP, UDP
from ._errors import PipeOptionWarning

#: The options that pipes have if no other ones are given. `dict_child` makes others of them. Times are seconds, and
#: None is for ever.
NET_CONF: Mapping[str, Any] = types.MappingProxyType(
    {
        # Longest time to resolve a name.
        "dns_timeout": 2,
        # True wraps a TCP pipe in TLS.
        "use_ssl": False,
        # Longest time of a TLS handshake.
        "ssl_handshake": 4,
        # The protocol of the socket: 0 is what its type usually has.
        "sock_proto": 0,
        # Default time that `recv` waits.
        "recv_timeout": 2,
        # Longest time to connect. TCP only.
        "con_timeout": 2,
        # Most messages in a queue; 0 is 1024.
        "max_qsize": 0,
        # True drops a datagram that repeats an earlier one from the same address. UDP only.
        "enable_msg_ids": False,
        # Number of datagrams that are remembered for that.
        "max_msg_ids": 1000,
        # SO_REUSEADDR, for a pipe that is bound.
        "reuse_addr": False,
        # SO_BROADCAST. UDP and IPv4 only.
        "broadcast": False,
        # The most bytes of a stream that are one message. TCP only.
        "reader_limit": 1 << 16,
        # True has `pipe_open` return the socket and no pipe.
        "sock_only": False,
        # True closes a given socket that cannot become a pipe.
        "do_close": True,
        # SO_LINGER, whole seconds; None is off. TCP only.
        "linger": None,
        # Number of times that `send_recv_loop` repeats an unanswered datagram. UDP only.
        "send_retry": 2,
        # P2PD's; the running event loop is used, whatever it says.
        "loop": None,
        # Most bytes in a queue.
        "max_qbytes": 4 << 20,
        # Most clients of a TCP server at the same time.
        "max_clients": 1024,
        # Most of these clients from one member of the overlay; more are reset.
        "max_clients_of_member": 64,
        # For TLS: a server needs one, with its certificate. A client's is the system's.
        "ssl_context": None,
        # The name that the server's certificate has to have; None is the destination's.
        "server_hostname": None,
    }
)

#: The queue of a pipe that was not told.
_DEFAULT_QUEUE = 1024
_MOST = (1 << 31) - 1
#: Options that do something for one of the protocols only.
TCP_ONLY = (
    "use_ssl",
    "ssl_handshake",
    "con_timeout",
    "reader_limit",
    "linger",
    "max_clients",
    "max_clients_of_member",
)
TLS_ONLY = ("ssl_context", "server_hostname")
UDP_ONLY = ("enable_msg_ids", "max_msg_ids", "broadcast", "send_retry")


def dict_child(child: Mapping[str, Any], parent: Mapping[str, Any] = NET_CONF) -> dict[str, Any]:
    """Returns the options of `parent` with those of `child` in their place."""
    return {**parent, **child}


@dataclass(frozen=True)
class Options:
    """Options that make sense."""

    dns_timeout: float
    use_ssl: bool
    ssl_handshake: float
    sock_proto: int
    recv_timeout: float
    con_timeout: float
    max_qsize: int
    enable_msg_ids: bool
    max_msg_ids: int
    reuse_addr: bool
    broadcast: bool
    reader_limit: int
    sock_only: bool
    do_close: bool
    linger: int | None
    send_retry: int
    max_qbytes: int
    max_clients: int
    max_clients_of_member: int
    ssl_context: ssl.SSLContext | None
    server_hostname: str | None

    @classmethod
    def parse(cls, conf: Mapping[str, Any] | None, proto: int | None = None, stacklevel: int = 3) -> Options:
        """Checks options, and warns of those that a pipe of the protocol has no use for.

        Raises:
            TypeError: An option is not of the right type.
            ValueError: There is no such option, or it is out of range.
        """
        conf = {} if conf is None else conf
        if not isinstance(conf, Mapping):
            raise TypeError(f"conf is a dictionary of options, not {conf!r} ({type(conf).__name__})")
        unknown = [str(name) for name in conf if name not in NET_CONF]
        if unknown:
            raise ValueError(f"there is no option {', '.join(unknown)}; there are {', '.join(NET_CONF)}")
        every = {**NET_CONF, **conf}
        handshake = _seconds("ssl_handshake", every["ssl_handshake"])
        if handshake == 0:
            raise ValueError("ssl_handshake is a number of seconds greater than 0")
        options = cls(
            dns_timeout=_seconds("dns_timeout", every["dns_timeout"]),
            use_ssl=_flag("use_ssl", every["use_ssl"]),
            ssl_handshake=handshake,
            sock_proto=given.number("sock_proto", every["sock_proto"], 0, 0xFFFF),
            recv_timeout=_seconds("recv_timeout", every["recv_timeout"]),
            con_timeout=_seconds("con_timeout", every["con_timeout"]),
            max_qsize=given.number("max_qsize", every["max_qsize"], 0, _MOST) or _DEFAULT_QUEUE,
            enable_msg_ids=_flag("enable_msg_ids", every["enable_msg_ids"]),
            max_msg_ids=given.number("max_msg_ids", every["max_msg_ids"], 1, _MOST),
            reuse_addr=_flag("reuse_addr", every["reuse_addr"]),
            broadcast=_flag("broadcast", every["broadcast"]),
            reader_limit=given.number("reader_limit", every["reader_limit"], 1, _MOST),
            sock_only=_flag("sock_only", every["sock_only"]),
            do_close=_flag("do_close", every["do_close"]),
            linger=None if every["linger"] is None else given.number("linger", every["linger"], 0, 0xFFFF),
            send_retry=given.number("send_retry", every["send_retry"], 0, 0xFFFF),
            max_qbytes=given.number("max_qbytes", every["max_qbytes"], 1, _MOST),
            max_clients=given.number("max_clients", every["max_clients"], 1, _MOST),
            max_clients_of_member=given.number("max_clients_of_member", every["max_clients_of_member"], 1, _MOST),
            ssl_context=_context(every["ssl_context"]),
            server_hostname=_name("server_hostname", every["server_hostname"]),
        )
        if proto is not None:
            options._warn(every, proto, stacklevel)
        return options

    def _warn(self, every: Mapping[str, Any], proto: int, stacklevel: int) -> None:
        useless = ["loop"]
        useless += UDP_ONLY if proto == TCP else TCP_ONLY
        useless += TLS_ONLY if proto == UDP or not self.use_ssl else ()
        for name in useless:
            # All of the defaults may be there, as in P2PD's programs.
            if every[name] != NET_CONF[name]:
                kind = "TCP" if proto == TCP else "UDP"
                text = f"the option {name} does nothing for this {kind} pipe"
                warnings.warn(text, PipeOptionWarning, stacklevel=stacklevel + 1)


def _seconds(name: str, value: object) -> float:
    return math.inf if value is None or value == math.inf else given.seconds(name, value)


def _flag(name: str, value: object) -> bool:
    # P2PD has numbers for some.
    return bool(value) if value in (0, 1) else given.flag(name, value)


def _context(value: object) -> ssl.SSLContext | None:
    if value is not None and not isinstance(value, ssl.SSLContext):
        raise TypeError(f"ssl_context is an ssl.SSLContext, not {value!r} ({type(value).__name__})")
    return value


def _name(name: str, value: object) -> str | None:
    if value is not None and not isinstance(value, str):
        raise TypeError(f"{name} is a str, not {value!r} ({type(value).__name__})")
    return value
