"""The ssl module on overlay sockets."""

from __future__ import annotations

import ssl
import threading

import pytest

import peersock
from peersock import socket

from .conftest import Peer
from .peer import CERTIFICATE


def test_a_client_of_another_member(peer: Peer) -> None:
    context = ssl.create_default_context(cafile=str(CERTIFICATE))
    with peersock.patched(), socket.create_connection((peer.v6, peer.port("tls")), timeout=10) as sock:
        with context.wrap_socket(sock, server_hostname="there") as wrapped:
            assert isinstance(wrapped, ssl.SSLSocket)
            assert isinstance(wrapped, socket.socket)
            assert wrapped.getpeername()[0] == peer.v6
            wrapped.sendall(b"secret")
            assert wrapped.recv(100) == b"secret"
            assert wrapped.version() == "TLSv1.3"


def test_both_sides_here(session: peersock.Session) -> None:
    server_context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    server_context.load_cert_chain(CERTIFICATE)
    with peersock.patched(), socket.create_server((session.address, 0), family=socket.AF_INET6) as server:

        def serve() -> None:
            connection, _ = server.accept()
            with server_context.wrap_socket(connection, server_side=True) as wrapped:
                wrapped.sendall(wrapped.recv(100))

        thread = threading.Thread(target=serve)
        thread.start()
        context = ssl.create_default_context(cafile=str(CERTIFICATE))
        with socket.create_connection(server.getsockname()[:2], timeout=10) as sock:
            with context.wrap_socket(sock, server_hostname="here") as wrapped:
                wrapped.sendall(b"x")
                assert wrapped.recv(1) == b"x"
        thread.join()


def test_a_certificate_of_somebody_else_is_refused(peer: Peer) -> None:
    context = ssl.create_default_context(cafile=str(CERTIFICATE))
    with peersock.patched(), socket.create_connection((peer.v6, peer.port("tls")), timeout=10) as sock:
        with pytest.raises(ssl.SSLCertVerificationError):
            context.wrap_socket(sock, server_hostname="elsewhere")
