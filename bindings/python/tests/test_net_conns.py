"""`peersock.net`: connections and listeners, over the kernel."""

from __future__ import annotations

import errno
import functools
import io
import socket as std
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from peersock import net

from .background import background
from .conftest import fails

PLACES = ["127.0.0.1:0", "[::1]:0", "unix"]
LARGE = bytes(range(256)) * 10_000


def listening(place: str, folder: Path) -> net.TCPListener | net.UnixListener:
    return net.listen(str(folder / "listener"), "unix") if place == "unix" else net.listen(place)


def dialed(listener: net.TCPListener | net.UnixListener) -> tuple[Any, Any]:
    """Both ends of a connection."""
    address = listener.addr()
    client = net.dial(str(address), address.network)
    return client, listener.accept()


@pytest.fixture(params=PLACES)
def pair(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[tuple[Any, Any]]:
    with listening(request.param, tmp_path) as listener:
        client, server = dialed(listener)
        with client, server:
            yield client, server


def test_read_gives_what_is_there(pair: tuple[Any, Any]) -> None:
    client, server = pair
    assert client.write(b"hello") == 5
    # Without a size it does not wait for the end.
    assert server.read() == b"hello"
    assert server.write(bytearray(b"0123456789")) == 10
    assert client.read(4) == b"0123"
    assert client.read(0) == b""
    room = bytearray(4)
    assert client.read_into(room) == 4
    assert room == b"4567"
    assert client.read(100) == b"89"
    with pytest.raises(ValueError):
        client.read(-1)
    with pytest.raises(TypeError):
        client.read_into(b"1")
    with pytest.raises(TypeError):
        client.write("text")
    assert client.write(b"") == 0
    client.close_write()
    assert (server.read(), server.read()) == (b"", b"")


def test_write_writes_all(pair: tuple[Any, Any]) -> None:
    client, server = pair

    def send() -> int:
        written = client.write(memoryview(LARGE))
        client.close_write()
        return int(written)

    told = background(send)
    received = b"".join(server.chunks())
    assert told.result(60) == len(LARGE)
    assert received == LARGE
    with pytest.raises(BrokenPipeError):
        client.write(b"more")
    # The other direction is open.
    server.write(b"back")
    assert client.read() == b"back"


def test_writes_of_threads_do_not_mix(pair: tuple[Any, Any]) -> None:
    client, server = pair
    pieces = [bytes([letter]) * 300_000 for letter in b"abcd"]
    written = [background(functools.partial(client.write, piece)) for piece in pieces]
    received = b""
    while len(received) < 1_200_000:
        received += server.read()
    assert [one.result(60) for one in written] == [300_000] * 4
    assert sorted(received[at : at + 300_000] for at in range(0, 1_200_000, 300_000)) == pieces


def test_close_read_gives_nothing_more(pair: tuple[Any, Any]) -> None:
    client, server = pair
    waiting = background(client.read)
    client.close_read()
    assert waiting.result(20) == b""
    assert client.read() == b""
    # Writing still works.
    client.write(b"x")
    assert server.read() == b"x"


def test_close_read_drops_what_was_read_ahead(pair: tuple[Any, Any]) -> None:
    client, server = pair
    client.write(b"one\ntwo\nthree")
    assert server.read_line() == b"one\n"
    waiting = background(lambda: (server.read_line(), server.read_line()))
    server.close_read()
    assert waiting.result(20)[1] == b""
    assert (server.read_line(), server.read(), server.read_into(bytearray(9))) == (b"", b"", 0)
    assert [*server.lines()] == [*server.chunks()] == []


def test_shutdown_takes_the_numbers_of_socket(pair: tuple[Any, Any]) -> None:
    client, server = pair
    client.shutdown(std.SHUT_RDWR)
    assert (client.read(), server.read()) == (b"", b"")
    with pytest.raises(net.SocketError):
        client.shutdown(77)


def test_lines_chunks_and_files(pair: tuple[Any, Any]) -> None:
    client, server = pair
    client.write(b"one\ntwo\n\nthree")
    assert server.read_line() == b"one\n"
    # Reads get the data that was read ahead.
    assert server.read(2) == b"tw"
    client.close_write()
    assert list(server) == [b"o\n", b"\n", b"three"]
    assert server.read_line() == b""
    with server.file("w", encoding="utf-8", newline="\n") as file:
        file.write("grüße\nende")
    server.close_write()
    with client.file("r", encoding="utf-8") as file:
        assert list(file) == ["grüße\n", "ende"]
    # A file's end is not the connection's.
    assert not client.closed
    for mode in ("", "x", "b", "rr", "r+"):
        with pytest.raises(ValueError):
            client.file(mode)
    with pytest.raises(ValueError):
        client.file("r", 0)
    with pytest.raises(io.UnsupportedOperation):
        client.file("rb").write(b"")


def test_files_go_both_ways_without_a_buffer(pair: tuple[Any, Any]) -> None:
    client, server = pair
    with client.file("rwb", 0) as raw, server.file("rwb") as file:
        assert raw.write(b"question\n") == 9
        assert file.readline() == b"question\n"
        file.write(b"answer\n")
        file.flush()
        assert raw.read(100) == b"answer\n"
        assert raw.fileno() == client.fileno()


def test_a_file_sends_nothing_twice_after_a_deadline(pair: tuple[Any, Any]) -> None:
    client, server = pair
    file = client.file("wb")
    client.settimeout(0.05)
    data = LARGE * 20
    with pytest.raises(TimeoutError):
        # Most of the data bypasses the buffer, and the rest stays there.
        for at in range(0, len(data), 5000):
            before = at
            file.write(data[at : at + 5000])
    client.settimeout(60)
    told = background(lambda: (file.flush(), client.close_write()))
    received = b"".join(server.chunks())
    told.result(60)
    # The write that failed has left some of its data in the buffer, as of a socket's file.
    assert received == data[: len(received)]
    assert before <= len(received) <= before + 5000


def test_a_file_reads_no_further_after_a_deadline(pair: tuple[Any, Any]) -> None:
    client, server = pair
    with client.file("rb") as file:
        client.settimeout(0.05)
        server.write(b"begin")
        with pytest.raises(net.DeadlineError):
            file.read(8)
        # The read bytes are lost, so a further read would give the wrong ones.
        server.write(b"end")
        for _ in range(2):
            with pytest.raises(OSError, match="cannot read from timed out object"):
                file.read(3)
    # Another one goes on.
    assert client.file("rb").read(3) == b"end"


def test_files_of_connections_that_do_not_wait(pair: tuple[Any, Any]) -> None:
    client, server = pair
    client.setblocking(False)
    with client.file("rwb", 0) as raw:
        assert raw.read(10) is None
        sent = 0
        while written := raw.write(LARGE):
            sent += written
        assert written is None
    client.close_write()
    assert len(b"".join(server.chunks())) == sent


def test_lines_have_a_limit(pair: tuple[Any, Any]) -> None:
    client, server = pair
    client.write(b"1234\n12345\n")
    assert server.read_line(5) == b"1234\n"
    with fails(errno.EMSGSIZE, net.SocketError):
        server.read_line(5)
    assert server.read(5) == b"12345"
    with pytest.raises(ValueError):
        server.read_line(0)


def test_both_ends_know_their_addresses(pair: tuple[Any, Any]) -> None:
    client, server = pair
    if isinstance(client, net.UnixConn):
        assert client.remote_addr() == server.local_addr()
        assert server.remote_addr() == client.local_addr() == net.UnixAddr("", "unix")
    else:
        assert isinstance(client, net.TCPConn)
        assert client.local_addr() == server.remote_addr()
        assert client.remote_addr() == server.local_addr()
        assert isinstance(client.local_addr(), net.TCPAddr)
    local = client.local_addr()
    client.close()
    assert client.local_addr() == local
    assert "closed" in repr(client)


def test_without_waiting_calls_say_that_they_would(pair: tuple[Any, Any]) -> None:
    client, server = pair
    client.setblocking(False)
    assert client.gettimeout() == 0
    with pytest.raises(BlockingIOError):
        client.read()
    with pytest.raises(BlockingIOError) as full:
        while True:
            client.write(LARGE)
    assert full.value.characters_written > 0
    client.setblocking(True)
    client.close_write()
    assert len(b"".join(server.chunks())) >= full.value.characters_written


def test_only_what_listeners_do(tmp_path: Path) -> None:
    for place in PLACES:
        with listening(place, tmp_path) as listener:
            assert isinstance(listener, net.Listener)
            for name in (
                "read",
                "write",
                "read_from",
                "write_to",
                "connect",
                "bind",
                "remote_addr",
                "shutdown",
                "file",
            ):
                assert not hasattr(listener, name)
            own = {name for name in vars(net.Listener) if not name.startswith("_")}
            assert own == {"accept", "addr", "close"}
            address = listener.addr()
        # Programs ask connections and listeners alike where they are.
        assert listener.addr() == listener.local_addr() == address


def test_iterating_over_a_listener_ends_when_it_is_closed() -> None:
    with net.listen("127.0.0.1:0") as listener:

        def serve() -> list[bytes]:
            received = []
            for connection in listener:
                with connection:
                    received.append(connection.read())
            return received

        served = background(serve)
        for word in (b"a", b"b"):
            with net.dial(str(listener.addr())) as connection:
                connection.write(word)
                assert connection.read() == b""
        listener.close()
        assert served.result(20) == [b"a", b"b"]


def test_dial_tcp_from_an_own_address() -> None:
    with net.listen_tcp(net.TCPAddr("127.0.0.1")) as listener:
        addr = listener.addr()
        with net.dial_tcp(net.TCPAddr("127.0.0.2"), addr, "tcp4", timeout=20) as client:
            local = client.local_addr()
            assert str(local.ip) == "127.0.0.2"
        with net.dial(str(addr), local=net.TCPAddr("127.0.0.3")) as second:
            assert str(second.local_addr()).startswith("127.0.0.3:")
        with pytest.raises(net.SocketError) as taken:
            net.listen_tcp(addr)
        assert taken.value.errno == errno.EADDRINUSE
        assert f"listen tcp {addr}: " in str(taken.value)


def test_a_connection_made_by_hand() -> None:
    with net.listen("127.0.0.1:0") as listener, net.TCPConn() as client:
        for call in (client.read, client.local_addr, lambda: client.write(b"x"), client.close_write):
            with fails(errno.ENOTCONN, net.SocketError):
                call()
        assert (client.remote_addr(), client.fileno()) == (None, -1)
        client.bind(net.TCPAddr("127.0.0.1"), reuse=False)
        local = client.local_addr()
        client.connect(listener.addr())
        assert (client.remote_addr(), client.local_addr()) == (listener.addr(), local)
        with listener.accept() as server:
            assert server.remote_addr() == local
        with pytest.raises(net.AddressError):
            client.connect(net.UnixAddr("x"))
        with fails(errno.EISCONN, net.SocketError):
            client.connect(listener.addr())
    client = net.TCPConn("tcp6")
    with pytest.raises(net.AddressError, match="no address of the network tcp6"):
        client.connect(net.TCPAddr("127.0.0.1", 1))
    client.close()
    with pytest.raises(net.ClosedError):
        client.connect(net.TCPAddr("::1", 1))


def test_options_of_tcp() -> None:
    with net.listen("127.0.0.1:0") as listener:
        client, server = dialed(listener)
        with server.detach() as raw:
            assert raw.gettimeout() is None
            assert raw.getsockopt(std.IPPROTO_TCP, std.TCP_NODELAY) != 0
            assert server.closed
            client.set_no_delay(False)
            client.set_keep_alive(True)
            with pytest.raises(net.ClosedError):
                server.set_no_delay(True)
            client.set_linger(0)
            client.close()
            with pytest.raises(ConnectionResetError):
                raw.recv(1)
