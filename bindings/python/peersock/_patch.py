"""Taking the place of the standard library's sockets in code that does not know of this package."""

from __future__ import annotations

import contextlib
import os as _os
import socket as _std
import ssl as _ssl
from collections.abc import Iterator
from typing import Any

from . import _copies
from . import socket as _ours
from ._ssl import SSLSocket

#: Names of the ``socket`` module that are replaced. All else there is made of these.
_NAMES = (
    "dup",
    "getaddrinfo",
    "gethostbyaddr",
    "gethostbyname",
    "gethostbyname_ex",
    "getnameinfo",
    "if_indextoname",
    "if_nameindex",
    "if_nametoindex",
    "socket",
)

#: Replaced attributes: the module, the name, and the earlier value.
_replaced: list[tuple[Any, str, Any]] = []
_depth = 0


def _replace(place: Any, name: str, value: Any) -> None:
    _replaced.append((place, name, getattr(place, name)))
    setattr(place, name, value)


def install() -> None:
    """Puts the sockets of this process on the overlay, where their addresses are the overlay's.

    The names in the modules ``socket`` and ``ssl`` then mean those of `peersock.socket`. Code that has taken them out
    before (``from socket import socket``) keeps what it has: install before importing it.

    ``os.dup`` and ``os.dup2`` are replaced as well, by functions that take note of the sockets that they copy.
    """
    global _depth
    _depth += 1
    if _depth > 1:
        return
    for name in _NAMES:
        _replace(_std, name, getattr(_ours, name))
    _replace(_ssl, "socket", _ours.socket)
    _replace(_ssl.SSLContext, "sslsocket_class", SSLSocket)
    for name in ("dup", "dup2"):
        _replace(_os, name, _copies.noting(getattr(_os, name)))


def uninstall() -> None:
    """Undoes one `install()`. Sockets that were made stay what they are."""
    global _depth
    if _depth == 0:
        return
    _depth -= 1
    while _depth == 0 and _replaced:
        place, name, value = _replaced.pop()
        setattr(place, name, value)


@contextlib.contextmanager
def patched() -> Iterator[None]:
    """`install()` for the time of a ``with`` statement, in all threads."""
    install()
    try:
        yield
    finally:
        uninstall()
