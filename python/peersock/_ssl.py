"""TLS on overlay sockets: the standard library's class, whose socket calls are ours."""

from __future__ import annotations

import ssl as _std

from ._class import socket


class SSLSocket(_std.SSLSocket, socket):  # type: ignore[misc]
    """This class implements a subtype of socket.socket that wraps
    the underlying OS socket in an SSL context when necessary, and
    provides read and write methods over that channel."""


SSLSocket.__module__ = "ssl"
