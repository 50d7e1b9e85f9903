"""`peersock.net`: of several addresses all are tried (RFC 8305)."""

from __future__ import annotations

import errno
import socket as std
from collections.abc import Collection
from typing import Any

import pytest

from peersock import _names, net
from peersock.net._race import DELAY, first_connected, interleaved
from peersock.net._steps import Steps, Wait

V4 = [net.TCPAddr(f"10.0.0.{number}", 80) for number in range(4)]
V6 = [net.TCPAddr(f"fd00::{number}", 80) for number in range(4)]


class Attempt:
    """A stand-in for a socket."""

    def __init__(self, address: net.TCPAddr, fd: int, at_once: bool) -> None:
        self.address, self.fd, self.closed = address, fd, False
        self.outcome: bool | OSError = at_once

    def fileno(self) -> int:
        return self.fd

    def close(self) -> None:
        assert not self.closed
        self.closed = True

    def finish(self) -> bool:
        if isinstance(self.outcome, OSError):
            raise self.outcome
        return self.outcome


class Race:
    """Drives the steps with a clock of its own."""

    def __init__(self, addresses: list[net.TCPAddr], **outcomes: Any) -> None:
        self.time = 0.0
        self.attempts: list[Attempt] = []
        self.outcomes = outcomes
        self.winner: Attempt | None = None
        self.wanted: Wait | None = None
        self.steps: Steps[Attempt] = first_connected(addresses, self.begin, lambda: self.time)
        self._go(())

    def begin(self, address: net.TCPAddr) -> Attempt:
        outcome = self.outcomes.get(str(address.ip).replace(".", "_"))
        if isinstance(outcome, OSError):
            raise outcome
        self.attempts.append(Attempt(address, 100 + len(self.attempts), bool(outcome)))
        return self.attempts[-1]

    def _go(self, ready: Collection[int]) -> None:
        try:
            self.wanted = self.steps.send(ready) if self.wanted is not None else next(self.steps)
        except StopIteration as done:
            self.winner, self.wanted = done.value, None

    def passes(self, seconds: float) -> None:
        """Time passes without anything else."""
        self.time += seconds
        self._go(())

    def becomes(self, outcome: bool | OSError, *which: int) -> None:
        """Attempts come to an end."""
        for number in which:
            self.attempts[number].outcome = outcome
        self._go([self.attempts[number].fd for number in which])

    def open(self) -> list[net.TCPAddr]:
        return [attempt.address for attempt in self.attempts if not attempt.closed]


def refused() -> OSError:
    return OSError(errno.ECONNREFUSED, "Connection refused")


def test_families_are_in_turn_the_first_ones_first() -> None:
    assert interleaved([*V6[:3], *V4[:2]]) == [V6[0], V4[0], V6[1], V4[1], V6[2]]
    assert interleaved([V4[0], V4[1], V6[0]]) == [V4[0], V6[0], V4[1]]
    assert interleaved(V4) == V4
    assert interleaved([]) == []


def test_one_more_begins_every_250_milliseconds() -> None:
    race = Race([*V6[:2], V4[0]])
    assert DELAY == 0.25
    assert race.open() == [V6[0]]
    assert race.wanted == Wait(writers=(100,), until=DELAY)
    race.passes(DELAY / 2)
    assert race.open() == [V6[0]]
    race.passes(DELAY / 2)
    assert race.open() == [V6[0], V4[0]]
    race.passes(DELAY)
    assert race.open() == [V6[0], V4[0], V6[1]]
    # There is nothing to begin any more.
    assert race.wanted == Wait(writers=(100, 101, 102), until=None)
    # An attempt that was woken in vain goes on.
    race.becomes(False, 0)
    assert race.winner is None
    race.becomes(True, 1)
    assert race.winner is race.attempts[1]
    assert race.open() == [V4[0]]


def test_a_failure_begins_the_next_at_once() -> None:
    race = Race(V4[:3])
    race.becomes(refused(), 0)
    assert race.open() == [V4[1]]
    assert race.wanted == Wait(writers=(101,), until=DELAY)
    race.becomes(refused(), 1)
    race.becomes(True, 2)
    assert race.winner is race.attempts[2]


def test_what_cannot_even_begin_is_passed_over() -> None:
    race = Race(V4[:3], **{"10_0_0_0": OSError(errno.ENETUNREACH, "Network is unreachable"), "10_0_0_2": True})
    assert race.open() == [V4[1]]
    race.passes(DELAY)
    assert race.winner is race.attempts[1]
    assert race.open() == [V4[2]]


def test_of_several_that_are_ready_one_is_taken_and_the_others_are_closed() -> None:
    race = Race(V4[:2])
    race.passes(DELAY)
    race.becomes(True, 0, 1)
    assert race.winner is race.attempts[0]
    assert race.open() == [V4[0]]


def test_if_all_fail_it_is_the_first_error_with_all_addresses() -> None:
    race = Race(V4[:2])
    race.passes(DELAY)
    race.becomes(OSError(errno.EHOSTUNREACH, "No route to host"), 1)
    with pytest.raises(OSError) as failed:
        race.becomes(refused(), 0)
    assert failed.value.errno == errno.EHOSTUNREACH
    assert failed.value.strerror == "10.0.0.1:80: No route to host, 10.0.0.0:80: Connection refused"
    assert race.open() == []


def test_what_ends_the_wait_ends_all_attempts() -> None:
    race = Race(V4[:2])
    race.passes(DELAY)
    with pytest.raises(KeyboardInterrupt):
        race.steps.throw(KeyboardInterrupt())
    assert race.open() == []


def named(monkeypatch: pytest.MonkeyPatch, *hosts: str) -> None:
    """Has the name ``several`` have these addresses."""

    def resolve(host: str, port: object, family: int, kind: int) -> list[Any]:
        assert host == "several"
        return [(std.AF_INET6 if ":" in one else std.AF_INET, kind, 0, "", (one, 0)) for one in hosts]

    monkeypatch.setattr(_names, "getaddrinfo", resolve)


def test_dial_tries_every_address(monkeypatch: pytest.MonkeyPatch) -> None:
    named(monkeypatch, "127.0.0.2", "::1", "127.0.0.3")
    with net.listen("127.0.0.3:0") as listener:
        address = listener.addr()
        assert isinstance(address, net.TCPAddr)
        with net.dial(f"several:{address.port}", timeout=60) as client, listener.accept() as server:
            assert client.remote_addr() == server.local_addr() == address
        # Of the own address's family only.
        with net.dial(f"several:{address.port}", local=net.TCPAddr("127.0.0.4"), timeout=60) as client:
            assert client.remote_addr() == address
    with pytest.raises(ConnectionRefusedError) as failed:
        net.dial(f"several:{address.port}")
    text = str(failed.value)
    assert all(f"{host}:{address.port}: Connection refused" in text for host in ("127.0.0.2", "[::1]", "127.0.0.3"))


def test_listen_tries_every_address(monkeypatch: pytest.MonkeyPatch) -> None:
    named(monkeypatch, "127.0.0.5", "127.0.0.6")
    with net.listen("127.0.0.5:0") as taken:
        address = taken.addr()
        assert isinstance(address, net.TCPAddr)
        with net.listen(f"several:{address.port}") as listener:
            assert listener.addr() == net.TCPAddr("127.0.0.6", address.port)
            with pytest.raises(net.SocketError, match=r"127\.0\.0\.5:\d+: .*, 127\.0\.0\.6:\d+: ") as failed:
                net.listen(f"several:{address.port}")
            assert failed.value.errno == errno.EADDRINUSE
