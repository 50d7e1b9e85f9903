"""`peersock.net`: Unix domain sockets."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

from peersock import net

from .background import background
from .conftest import fails


def test_listeners_remove_their_path(tmp_path: Path) -> None:
    path = net.UnixAddr(str(tmp_path / "s"))
    with net.listen_unix(path) as listener:
        assert os.path.exists(path.name)
        with fails(errno.EADDRINUSE, net.SocketError):
            net.listen_unix(path)
        with net.dial_unix(net.UnixAddr(str(tmp_path / "c")), path) as client, listener.accept() as server:
            assert isinstance(server, net.UnixConn)
            assert server.remote_addr() == client.local_addr() == net.UnixAddr(str(tmp_path / "c"))
            assert client.write(b"x") == 1
            assert server.read_from() == (b"x", server.remote_addr())
            with pytest.raises(net.SocketError):
                client.write_to(b"x", path)
        # A connection leaves its own.
        assert os.path.exists(tmp_path / "c")
    assert not os.path.exists(path.name)
    os.unlink(tmp_path / "c")
    for own in (None, net.UnixAddr(str(tmp_path / "c"))):
        with pytest.raises(FileNotFoundError) as missing:
            net.dial_unix(own, path)
        assert isinstance(missing.value, net.SocketError)
    # A failed dial removes the path that it bound.
    assert not os.path.exists(tmp_path / "c")


def test_set_unlink_on_close(tmp_path: Path) -> None:
    path = tmp_path / "s"
    listener = net.listen_unix(net.UnixAddr(str(path)))
    listener.set_unlink_on_close(False)
    listener.close()
    assert path.exists()
    path.unlink()
    with net.listen_unixgram(net.UnixAddr(str(path), "unixgram")) as server:
        server.set_unlink_on_close(True)
    assert not path.exists()
    with pytest.raises(net.ClosedError):
        server.set_unlink_on_close(True)
    # Somebody else's file may be at the path by then; one that is gone is no error.
    with net.listen_unix(net.UnixAddr(str(path))):
        path.unlink()


def test_a_forked_child_leaves_the_path(tmp_path: Path) -> None:
    path = tmp_path / "s"
    with net.listen_unix(net.UnixAddr(str(path))) as listener:
        child = os.fork()
        if not child:
            listener.close()
            os._exit(0)
        assert os.waitpid(child, 0)[1] == 0
        assert path.exists()


def test_unixgram(tmp_path: Path) -> None:
    here, there = (net.UnixAddr(str(tmp_path / name), "unixgram") for name in ("here", "there"))
    with net.listen_unixgram(there) as server, net.dial_unix(here, there, "unixgram") as client:
        assert (client.local_addr(), client.remote_addr()) == (here, there)
        client.write(b"hello")
        assert server.read_from() == (b"hello", here)
        assert server.write_to(b"back", here) == 4
        assert client.read() == b"back"
        # A sender without a path gets no answer.
        with net.dial(there.name, "unixgram") as nameless, net.dial_unix(None, None, "unixgram") as unconnected:
            nameless.write(b"1")
            assert server.read_from() == (b"1", net.UnixAddr("", "unixgram"))
            unconnected.write_to(b"2", there)
            assert server.read() == b"2"
    assert os.path.exists(there.name)


def test_unixgram_waits_for_room(tmp_path: Path) -> None:
    there = net.UnixAddr(str(tmp_path / "there"), "unixgram")
    count = 2_000
    with net.listen_unixgram(there) as server:
        for sender in (net.dial_unix(None, None, "unixgram"), net.dial(there.name, "unixgram")):
            assert isinstance(sender, net.UnixConn)

            def send(sender: net.UnixConn = sender) -> None:
                for number in range(count):
                    data = number.to_bytes(4, "big")
                    sender.write(data) if sender.remote_addr() else sender.write_to(data, there)

            with sender:
                told = background(send)
                assert [int.from_bytes(server.read(), "big") for _ in range(count)] == list(range(count))
                told.result(60)


def test_abstract_names() -> None:
    name = f"@peersock-net-{os.getpid()}"
    with net.listen(name, "unix") as listener:
        assert listener.addr() == net.UnixAddr(name)
        with net.dial(name, "unix") as client, listener.accept() as server:
            assert client.remote_addr() == server.local_addr() == net.UnixAddr(name)
