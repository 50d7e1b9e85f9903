"""TLS on overlay sockets: the standard library's class, whose socket calls are ours."""

from __future__ import annotations

import errno
import ssl as _std
from typing import Any

from . import _peersock
from ._class import _ours, _translate, socket


class SSLSocket(_std.SSLSocket, socket):  # type: ignore[misc]
    """This class implements a subtype of socket.socket that wraps
    the underlying OS socket in an SSL context when necessary, and
    provides read and write methods over that channel."""

    # All that passes by our socket calls: OpenSSL reads and writes the descriptor itself.

    def read(self, len: int = 1024, buffer: Any = None) -> Any:
        try:
            return super().read(len, buffer)
        except OSError as error:
            self._explain(error)
            raise

    def write(self, data: Any) -> int:
        try:
            return super().write(data)
        except OSError as error:
            self._explain(error, sending=True)
            raise

    def send(self, data: Any, flags: int = 0) -> int:
        # The standard library's does not go by `write`.
        try:
            return super().send(data, flags)
        except OSError as error:
            self._explain(error, sending=True)
            raise

    def do_handshake(self, block: bool = False) -> None:
        try:
            super().do_handshake(block)
        except OSError as error:
            self._explain(error)
            raise

    def unwrap(self) -> Any:
        try:
            return super().unwrap()
        except OSError as error:
            self._explain(error)
            raise

    def _explain(self, error: OSError, sending: bool = False) -> None:
        """Raises what the node knows of an error of the descriptor, and has it know that the program was told."""
        if isinstance(error, _std.SSLEOFError):
            # Some versions of Python take every error of the descriptor for this.
            if _ours(self) and _peersock.stream_error(self.fileno(), errno.ECONNRESET) == errno.ENETDOWN:
                raise OSError(errno.ENETDOWN, _peersock.strerror(errno.ENETDOWN)) from error
        elif not isinstance(error, _std.SSLError):
            _translate(self, error, sending)


SSLSocket.__module__ = "ssl"
