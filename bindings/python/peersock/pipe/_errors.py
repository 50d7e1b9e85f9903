"""Errors of pipes, beside the system's errors of their sockets."""

from __future__ import annotations


class PipeClosedError(ConnectionError):
    """The pipe is closed, by this program or by the other end."""


class PipeOptionWarning(UserWarning):
    """An option was given that does nothing for a pipe of this kind."""
