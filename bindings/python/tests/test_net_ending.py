"""`peersock.net`: deadlines, timeouts, and connections that are closed while somebody waits."""

from __future__ import annotations

import contextlib
import datetime
import errno
import math
import os
import select
import signal
import socket
import threading
import time
from collections.abc import Callable, Iterator
from concurrent import futures
from pathlib import Path
from typing import Any

import pytest

import peersock
from peersock import net

from .background import background
from .conftest import Network

#: Longer than any test takes: who waits so long was not woken.
FOREVER = 60


class Ends:
    """Two connected ends, and a listener beside them."""

    def __init__(self, listener: Any) -> None:
        self.listener = listener
        address = listener.addr()
        self.client: Any = net.dial(str(address), address.network)
        self.server: Any = listener.accept()

    def waiting(self) -> list[tuple[Any, Callable[[], Any]]]:
        """Returns calls that wait for ever, each with its endpoint."""
        return [
            (self.client, self.client.read),
            (self.server, lambda: self.server.read_line()),
            (self.client, lambda: self.client.write(bytes(1 << 26))),
            (self.listener, self.listener.accept),
        ]

    def close(self) -> None:
        for one in (self.client, self.server, self.listener):
            one.close()


@pytest.fixture(params=["tcp", "unix", "overlay"])
def ends(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Ends]:
    if request.param == "unix":
        listener: Any = net.listen(str(tmp_path / "s"), "unix")
    elif request.param == "tcp":
        listener = net.listen("127.0.0.1:0")
    else:
        session: peersock.Session = request.getfixturevalue("session")
        listener = net.listen(net.join_host_port(session.address, 0))
    both = Ends(listener)
    yield both
    both.close()


@contextlib.contextmanager
def full_listener() -> Iterator[net.TCPAddr]:
    """An address that takes no more connections, and refuses none."""
    with contextlib.ExitStack() as stack:
        listener = stack.enter_context(socket.socket())
        listener.bind(("127.0.0.1", 0))
        listener.listen(0)
        while True:
            client = stack.enter_context(socket.socket())
            client.setblocking(False)
            client.connect_ex(listener.getsockname())
            if not select.select([], [client], [], 0.2)[1]:
                break
        yield net.TCPAddr(*listener.getsockname())


def until_it_waits(endpoint: Any, direction: int) -> None:
    """Returns when somebody waits for the endpoint."""
    end = time.monotonic() + FOREVER
    while not endpoint._wakers[direction]:
        assert time.monotonic() < end
        time.sleep(0.001)


@pytest.mark.parametrize("which", range(4))
def test_close_ends_what_waits_in_another_thread(ends: Ends, which: int) -> None:
    endpoint, call = ends.waiting()[which]
    fd = endpoint.fileno()
    # The second one has not even begun to wait for the descriptor.
    told = [background(call), background(call)]
    until_it_waits(endpoint, int(which == 2))
    begun = time.monotonic()
    endpoint.close()
    for one in told:
        error = one.exception(FOREVER)
        assert isinstance(error, net.ClosedError), error
        assert "use of closed network connection" in str(error)
    assert time.monotonic() - begun < FOREVER
    assert endpoint.fileno() == -1
    with pytest.raises(OSError):
        os.fstat(fd)
    with pytest.raises(net.ClosedError):
        call()
    endpoint.close()


@pytest.mark.parametrize("which", range(4))
def test_a_deadline_wakes_what_waits_in_another_thread(ends: Ends, which: int) -> None:
    endpoint, call = ends.waiting()[which]
    told = background(call)
    until_it_waits(endpoint, int(which == 2))
    endpoint.set_deadline(time.time() - 1)
    error = told.exception(FOREVER)
    assert isinstance(error, net.DeadlineError)
    assert isinstance(error, TimeoutError)
    if which == 2:
        assert 0 < error.written < 1 << 26
    # It has passed for later calls, too.
    with pytest.raises(net.DeadlineError):
        call()


def test_the_address_is_free_when_close_returns(session: peersock.Session) -> None:
    for host in ("127.0.0.1", session.address):
        addr = net.TCPAddr(host)
        for _ in range(50):
            with net.listen_tcp(addr) as listener:
                addr = listener.addr()
                told = background(listener.accept)
                until_it_waits(listener, 0)
                listener.close()
            assert isinstance(told.exception(FOREVER), net.ClosedError)


@pytest.mark.parametrize("which", range(4))
def test_a_deadline_comes_by_itself(ends: Ends, which: int) -> None:
    endpoint, call = ends.waiting()[which]
    begun = time.time()
    endpoint.set_deadline(begun + 0.1)
    with pytest.raises(net.DeadlineError):
        call()
    assert time.time() >= begun + 0.1


def test_an_expired_deadline_fails_also_where_something_is_there(ends: Ends) -> None:
    ends.client.write(b"here\n")
    assert select.select([ends.server.fileno()], [], [], FOREVER)[0]
    ends.server.set_read_deadline(time.time())
    for call in (ends.server.read, ends.server.read_line):
        with pytest.raises(net.DeadlineError):
            call()
    # Writes have their own.
    ends.server.write(b"x")
    # A new one, or none, and it goes on.
    ends.server.set_read_deadline(datetime.datetime.now() + datetime.timedelta(hours=1))
    assert ends.server.read(2) == b"he"
    ends.server.set_deadline(1)
    ends.server.set_deadline(None)
    assert ends.server.read_line() == b"re\n"
    ends.server.set_write_deadline(datetime.datetime(2000, 1, 1, tzinfo=datetime.timezone.utc))
    with pytest.raises(net.DeadlineError):
        ends.server.write(b"x")
    assert ends.client.read() == b"x"


def test_a_later_deadline_counts_for_who_waits(ends: Ends) -> None:
    ends.client.set_read_deadline(time.time() + FOREVER)
    told = background(ends.client.read)
    until_it_waits(ends.client, 0)
    ends.client.set_read_deadline(None)
    ends.server.write(b"late")
    assert told.result(FOREVER) == b"late"


@pytest.mark.parametrize("place", ["machine", "overlay"])
def test_a_new_deadline_does_not_end_a_connect(session: peersock.Session, network: Network, place: str) -> None:
    with contextlib.ExitStack() as stack:
        missing = net.TCPAddr(network.v4["spare60"], 80)
        addr = stack.enter_context(full_listener()) if place == "machine" else missing
        with net.TCPConn() as conn:
            told = background(lambda: conn.connect(addr))
            until_it_waits(conn, 1)
            conn.set_deadline(time.time() + FOREVER)
            with pytest.raises(futures.TimeoutError):
                told.result(0.1)
            conn.set_deadline(time.time() - 1)
            assert isinstance(told.exception(FOREVER), net.DeadlineError)
            assert conn.remote_addr() is None


def test_what_is_no_deadline_is_refused(ends: Ends) -> None:
    for wrong in (math.nan, math.inf):
        with pytest.raises(ValueError):
            ends.client.set_deadline(wrong)
    with pytest.raises(TypeError):
        ends.client.set_deadline("now")
    ends.client.close()
    for call in (ends.client.set_deadline, ends.client.set_read_deadline, ends.client.set_write_deadline):
        with pytest.raises(net.ClosedError):
            call(None)


def test_a_timeout_is_of_each_call(ends: Ends) -> None:
    ends.client.settimeout(0.05)
    for _ in range(2):
        with pytest.raises(net.DeadlineError):
            ends.client.read()
    ends.client.settimeout(FOREVER)
    ends.server.write(b"x")
    assert ends.client.read() == b"x"
    # The earlier one counts.
    ends.client.set_deadline(time.time() + 0.05)
    with pytest.raises(net.DeadlineError):
        ends.client.read()
    for wrong in (-1, math.nan):
        with pytest.raises(ValueError):
            ends.client.settimeout(wrong)


def test_a_closed_connection_refuses_everything(ends: Ends) -> None:
    ends.client.close()
    client = ends.client
    for call in (
        client.read,
        client.read_line,
        lambda: client.read_into(bytearray(1)),
        lambda: client.write(b"x"),
        lambda: next(client.chunks()),
        client.close_read,
        client.close_write,
        lambda: client.shutdown(2),
        client.detach,
        lambda: client.connect(ends.listener.addr()),
        lambda: client.bind(ends.listener.addr()),
    ):
        with pytest.raises(net.ClosedError):
            call()
    assert client.closed
    assert ends.server.read() == b""


def test_a_signals_handler_may_close_what_its_thread_waits_for(ends: Ends) -> None:
    if threading.current_thread() is not threading.main_thread():
        pytest.skip("signals come to the main thread")
    before = signal.signal(signal.SIGALRM, lambda *_: ends.client.close())
    try:
        signal.setitimer(signal.ITIMER_REAL, 0.05)
        with pytest.raises(net.ClosedError):
            ends.client.read()
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


# Listeners have deadlines only.
@pytest.mark.parametrize("which", range(3))
def test_a_timeout_counts_while_another_call_has_the_turn(ends: Ends, which: int) -> None:
    endpoint, call = ends.waiting()[which]
    first = background(call)
    until_it_waits(endpoint, int(which == 2))
    endpoint.settimeout(0.05)
    second = background(call)
    assert isinstance(second.exception(FOREVER), net.DeadlineError)
    endpoint.setblocking(False)
    with pytest.raises(BlockingIOError):
        background(call).result(FOREVER)
    assert not first.done()
    endpoint.close()
    assert isinstance(first.exception(FOREVER), net.ClosedError)


def test_a_signals_handler_cannot_read_what_its_thread_reads(ends: Ends) -> None:
    if threading.current_thread() is not threading.main_thread():
        pytest.skip("signals come to the main thread")
    errors: list[BaseException | None] = []

    def handler(*_: object) -> None:
        # The other direction is free.
        ends.client.write(b"x")
        try:
            ends.client.read()
        except OSError as error:
            errors.append(error)
        ends.server.write(b"y")

    before = signal.signal(signal.SIGALRM, handler)
    ends.client.set_read_deadline(time.time() + FOREVER)
    try:
        signal.setitimer(signal.ITIMER_REAL, 0.05)
        assert ends.client.read() == b"y"
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
    assert [getattr(error, "errno", None) for error in errors] == [errno.EDEADLK]


def test_detaching_needs_that_nobody_waits(ends: Ends) -> None:
    told = background(ends.client.read)
    until_it_waits(ends.client, 0)
    with pytest.raises(net.SocketError, match="under way"):
        ends.client.detach()
    ends.server.write(b"x")
    assert told.result(FOREVER) == b"x"
    with ends.client.detach() as sock:
        sock.sendall(b"raw")
        assert ends.server.read() == b"raw"


def test_datagrams_end_in_the_same_ways(session: peersock.Session) -> None:
    for host in ("127.0.0.1", session.address):
        with net.listen_udp(net.UDPAddr(host)) as conn:
            told = background(conn.read_from)
            until_it_waits(conn, 0)
            conn.set_read_deadline(1)
            assert isinstance(told.exception(FOREVER), net.DeadlineError)
            conn.set_read_deadline(None)
            told = background(conn.read_from)
            until_it_waits(conn, 0)
            conn.close()
            assert isinstance(told.exception(FOREVER), net.ClosedError)
            for call in (conn.read, conn.read_from, lambda conn=conn: conn.write_to(b"x", conn.local_addr())):
                with pytest.raises(net.ClosedError):
                    call()
            with pytest.raises(net.ClosedError):
                conn.local_addr()


def test_a_dial_has_a_timeout(session: peersock.Session, network: Network, tmp_path: Path) -> None:
    path = str(tmp_path / "s")
    with net.listen(path, "unix"):
        waiting = []
        with pytest.raises(net.DeadlineError, match=r"dial unix .*: deadline exceeded"):
            # Until its queue is full.
            for _ in range(100_000):
                waiting.append(net.dial(path, "unix", timeout=0.05))
        for conn in waiting:
            conn.close()
    # A member that is not there.
    with pytest.raises(net.DeadlineError, match=r"dial tcp 10\.66"):
        net.dial(f"{network.v4['spare59']}:80", timeout=0.2)


def test_a_forked_child_has_no_part_in_calls_of_its_parent(ends: Ends) -> None:
    told = background(ends.client.read)
    until_it_waits(ends.client, 0)
    child = os.fork()
    if not child:
        try:
            ends.client.settimeout(0.01)
            with pytest.raises(net.DeadlineError):
                ends.client.read()
            fd = ends.client.fileno()
            ends.client.close()
            with pytest.raises(OSError):
                os.fstat(fd)
            os._exit(0)
        finally:
            os._exit(1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    ends.server.write(b"x")
    assert told.result(FOREVER) == b"x"


def test_a_forked_child_has_its_own_alarms(ends: Ends) -> None:
    ends.client.settimeout(0.01)
    with pytest.raises(net.DeadlineError):
        ends.client.read()
    child = os.fork()
    if not child:
        try:
            with net.listen_udp(net.UDPAddr("127.0.0.1")) as conn:
                conn.settimeout(0.01)
                conn.read()
        except net.DeadlineError:
            os._exit(0)
        os._exit(1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
