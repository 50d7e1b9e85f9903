"""CPython's ``socket`` module for overlay addresses.

Everything that the ``socket`` module of the running interpreter has is here. Sockets whose addresses are the overlay's
go through it; all others are the kernel's, as they would be without this module.
"""

from __future__ import annotations

import multiprocessing.reduction as _reduction
import socket as _std
import types as _types
from socket import *  # noqa: F403
from typing import Any, TypeVar

from . import _copies, _names, _node
from ._class import socket as socket

_Function = TypeVar("_Function")


def _ours(function: _Function) -> _Function:
    """The standard library's function, with the names of this module in place of its own."""
    assert isinstance(function, _types.FunctionType)
    copy = _types.FunctionType(
        function.__code__, globals(), function.__name__, function.__defaults__, function.__closure__
    )
    copy.__kwdefaults__ = function.__kwdefaults__
    copy.__doc__ = function.__doc__
    copy.__annotations__ = dict(function.__annotations__)
    copy.__module__ = __name__
    copy.__qualname__ = function.__qualname__
    return copy  # type: ignore[return-value]


def _complete() -> None:
    """Takes over what ``from socket import *`` leaves out, and names that are private but used."""
    own = globals()
    for name, value in vars(_std).items():
        if not name.startswith("__"):
            own.setdefault(name, value)


_complete()

dup = _copies.noting(_std.dup)
getaddrinfo = _names.getaddrinfo
getnameinfo = _names.getnameinfo
gethostbyname = _names.gethostbyname
gethostbyname_ex = _names.gethostbyname_ex
gethostbyaddr = _names.gethostbyaddr
if_nameindex = _names.if_nameindex
if_nametoindex = _names.if_nametoindex
if_indextoname = _names.if_indextoname

create_connection = _ours(_std.create_connection)
create_server = _ours(_std.create_server)
has_dualstack_ipv6 = _ours(_std.has_dualstack_ipv6)
getfqdn = _ours(_std.getfqdn)
fromfd = _ours(_std.fromfd)
socketpair = _ours(_std.socketpair)
send_fds = _ours(_std.send_fds)
recv_fds = _ours(_std.recv_fds)

__all__ = list(_std.__all__)


def _rebuild(handle: Any, family: int, kind: int, proto: int) -> socket:
    return socket(family, kind, proto, fileno=handle.detach())


def _reduce(sock: socket) -> tuple[Any, ...]:
    # The descriptor is copied for the other process.
    _copies.note()
    return _rebuild, (_reduction.DupFd(sock.fileno()), sock.family, sock.type, sock.proto)


# As for the standard library's: processes of `multiprocessing` may hand sockets to each other.
_reduction.register(socket, _reduce)

_node.adopt()
