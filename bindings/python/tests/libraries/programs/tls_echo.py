"""TLS by pyOpenSSL: ``serve CERTIFICATE KEY`` echoes, ``client HOST PORT CERTIFICATE`` compares."""

from __future__ import annotations

import socket
import sys
import threading

from common import SIZES, data, listener, ready
from OpenSSL import SSL

PIECE = 16_384


def serve(certificate: str, key: str) -> None:
    context = SSL.Context(SSL.TLS_SERVER_METHOD)
    context.use_certificate_file(certificate)
    context.use_privatekey_file(key)
    with listener() as plain:
        ready(plain)
        secure = SSL.Connection(context, plain)
        while True:
            connection, _ = secure.accept()
            threading.Thread(target=echo, args=(connection,), daemon=True).start()


def echo(connection: SSL.Connection) -> None:
    try:
        while True:
            connection.sendall(connection.recv(65_536))
    except SSL.ZeroReturnError:
        connection.shutdown()
    finally:
        connection.close()


def client(host: str, port: int, certificate: str) -> None:
    context = SSL.Context(SSL.TLS_CLIENT_METHOD)
    context.load_verify_locations(certificate)
    context.set_verify(SSL.VERIFY_PEER, lambda connection, cert, errno, depth, ok: bool(ok))
    plain = socket.create_connection((host, port), timeout=60)
    # pyOpenSSL does not wait on sockets with a timeout: it tells the caller to.
    plain.settimeout(None)
    connection = SSL.Connection(context, plain)
    connection.set_connect_state()
    connection.do_handshake()
    assert connection.getpeername()[:2] == (host, port)
    for seed, size in enumerate(SIZES):
        expected, received = data(seed, size), b""
        # Pieces that fit into the buffers: one thread both sends and receives.
        for end in range(PIECE, size + PIECE, PIECE):
            connection.sendall(expected[len(received) : end])
            while len(received) < min(end, size):
                received += connection.recv(PIECE)
        assert received == expected
    connection.shutdown()
    connection.close()


if __name__ == "__main__":
    if sys.argv[1] == "serve":
        serve(sys.argv[2], sys.argv[3])
    else:
        client(sys.argv[2], int(sys.argv[3]), sys.argv[4])
        print("ok")
