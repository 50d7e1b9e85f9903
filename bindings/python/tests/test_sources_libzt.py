"""libzt's example for Python, by its calls on sockets: what its node does is a `peersock.Session` here. Its texts are
bytes, as CPython's sockets want them; ports are of the system's choice.
"""

from __future__ import annotations

from concurrent.futures import Future
from typing import Any

import peersock
from peersock import socket

from .background import background


def test_the_server_and_the_client(session: peersock.Session) -> None:
    serv = socket.socket(socket.AF_INET, socket.SOCK_STREAM, 0)
    serv.setblocking(True)
    serv.bind(("0.0.0.0", 0))
    serv.listen(5)
    remote_port = serv.getsockname()[1]

    def server() -> tuple[Any, list[int]]:
        sent = []
        conn, addr = serv.accept()
        while True:
            data = conn.recv(4096)
            if not data:
                break
            sent.append(conn.send(data))
        conn.close()
        return addr, sent

    served: Future[tuple[Any, list[int]]] = background(server)
    client = socket.socket(socket.AF_INET, socket.SOCK_STREAM, 0)
    client.connect((session.address4, remote_port))
    own = client.getsockname()
    data = b"Hello, network!"
    assert client.send(data) == 15
    assert client.recv(1024) == data
    client.close()
    assert served.result(20) == (own, [15])
    serv.close()
    # The node is one for the process, and says that it is there.
    assert session.addresses and session.id
