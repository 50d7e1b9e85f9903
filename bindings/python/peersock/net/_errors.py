"""The errors of `peersock.net`."""

from __future__ import annotations

import errno
import os
from typing import Any


class SocketError(OSError):
    """An operation on a network failed, as Go's `OpError`.

    Errors of the system are of this class and of Python's own class for them. A refused dial raises an error that is
    a `SocketError` and a `ConnectionRefusedError`.
    """

    #: The bytes that a `write()` had written before it failed.
    written: int = 0


class AddressError(SocketError):
    """A text is no address, an address does not fit its network, or a name or a service is not known.

    A name that was not found for the moment is an `AddressError`, too; its ``__cause__`` is what the resolver said.
    """

    def __init__(self, text: str, address: str = "") -> None:
        super().__init__(f"address {address}: {text}" if address else text)
        #: The address, as it was given.
        self.address = address


class UnknownNetworkError(SocketError):
    """There is no such network, or the function does not serve it."""

    def __init__(self, network: object) -> None:
        super().__init__(f"unknown network {network if isinstance(network, str) else repr(network)}")
        #: The network, as it was given.
        self.network = network

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self.network,)


class ClosedError(SocketError):
    """The connection or listener was closed, before the call or during it: Go's `ErrClosed`."""

    @classmethod
    def during(cls, what: str) -> ClosedError:
        """The error of an operation."""
        return cls(errno.EBADF, f"{what}: use of closed network connection")


class DeadlineError(SocketError, TimeoutError):
    """The deadline or timeout was over: Go's `ErrDeadlineExceeded`. With a new deadline the connection goes on."""

    @classmethod
    def during(cls, what: str) -> DeadlineError:
        """The error of an operation."""
        return cls(errno.ETIMEDOUT, f"{what}: deadline exceeded")


# Errors of the system, each for one of Python's classes.


class Aborted(SocketError, ConnectionAbortedError):
    pass


class Broken(SocketError, BrokenPipeError):
    pass


class Denied(SocketError, PermissionError):
    pass


class Missing(SocketError, FileNotFoundError):
    pass


class Refused(SocketError, ConnectionRefusedError):
    pass


class Reset(SocketError, ConnectionResetError):
    pass


class TimedOut(SocketError, TimeoutError):
    pass


_CLASSES = (Aborted, Broken, Denied, Missing, Refused, Reset, TimedOut)


def socket_error(what: str, error: OSError) -> OSError:
    """The system's error as one of ours, that says what failed."""
    if isinstance(error, (SocketError, BlockingIOError)):
        return error
    if error.errno is None:
        # CPython's own complaints, such as of a path that is too long.
        return AddressError(f"{what}: {error}")
    kind = next((one for one in _CLASSES if isinstance(error, one.__mro__[2])), SocketError)
    told = kind(error.errno, f"{what}: {error.strerror or os.strerror(error.errno)}")
    told.written = getattr(error, "written", 0)
    return told


def would_wait(what: str) -> BlockingIOError:
    """The error of an operation that would have to wait, and must not."""
    return BlockingIOError(errno.EAGAIN, f"{what}: {os.strerror(errno.EAGAIN)}")
