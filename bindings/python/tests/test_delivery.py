"""The table of deliveries that all faces share: a sender learns if everything was delivered."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import pytest

import peersock

from .background import background
from .conftest import Network, Peer
from .delivery import SCENARIOS, SILENCE, SIZES, Scenario, is_delivered, is_streamed, listening, receive

LIVING = [scenario for scenario in SCENARIOS if not scenario.ends_process()]
#: More than what all buffers on the way hold while nobody reads.
MUCH = 10_000_000
#: The longest that a sender may take, seconds: a stopped receiver is given up sooner.
PATIENCE = 120
#: Begins to receive by a scenario; gives the address, and a function that waits, and says how much was read.
Receiver = Callable[[Scenario, int], tuple[tuple[str, int], Callable[[], int]]]
ENDING = [scenario for scenario in SCENARIOS if scenario.ends_process()]


@pytest.mark.parametrize("scenario", LIVING, ids=lambda scenario: scenario.name)
def test_a_sender_is_told_what_the_table_says(peer: Peer, scenario: Scenario) -> None:
    for size in SIZES:
        if scenario.steps == ["refuse"]:
            assert not is_delivered((peer.v6, 9), size)
            continue
        delivered = is_delivered((peer.v6, peer.port("receive", scenario.name, size)), size)
        _compare(scenario, size, delivered, int(peer.answer().removeprefix("read ")))


def _compare(scenario: Scenario, size: int, delivered: bool, read: int) -> None:
    # Of what buffers hold TCP cannot tell if the receiver has ended its side first.
    if scenario.outcome != "if-much" or size >= MUCH:
        assert delivered == (scenario.outcome == "delivered"), size
        assert not delivered or read == size, size


@pytest.fixture(params=["overlay", "kernel"])
def receiver(request: pytest.FixtureRequest) -> Receiver:
    """Receives on the overlay, or on the machine's own network: both are to have the same outcomes."""
    if request.param == "kernel":
        return _receive_by_kernel
    peer: Peer = request.getfixturevalue("peer")

    def receive_by_overlay(scenario: Scenario, size: int) -> tuple[tuple[str, int], Callable[[], int]]:
        if scenario.steps == ["refuse"]:
            return (peer.v6, 9), lambda: 0
        address = (peer.v6, peer.port("receive", scenario.name, size))
        return address, lambda: int(peer.answer().removeprefix("read "))

    return receive_by_overlay


def _receive_by_kernel(scenario: Scenario, size: int) -> tuple[tuple[str, int], Callable[[], int]]:
    server = listening("::1")
    address = server.getsockname()[:2]
    if scenario.steps == ["refuse"]:
        server.close()
        return address, lambda: 0
    received = background(lambda: receive(server, scenario.name, size))
    return address, lambda: received.result(60)


@pytest.mark.parametrize("scenario", LIVING, ids=lambda scenario: scenario.name)
async def test_streams_of_asyncio_are_told_the_same(receiver: Receiver, scenario: Scenario) -> None:
    for size in SIZES:
        address, read = receiver(scenario, size)
        delivered = await asyncio.wait_for(is_streamed(address, size), PATIENCE)
        _compare(scenario, size, delivered, await asyncio.to_thread(read))


@pytest.mark.parametrize("scenario", ENDING, ids=lambda scenario: scenario.name)
def test_a_sender_is_told_that_the_receiver_has_died_or_stopped(
    session: peersock.Session, network: Network, scenario: Scenario
) -> None:
    assert ENDING

    def play(size: int) -> bool:
        victim = Peer(network, network.spare())
        try:
            return is_delivered((victim.v6, victim.port("receive", scenario.name, size)), size, SILENCE)
        finally:
            victim.kill()

    with ThreadPoolExecutor() as threads:
        assert not any(threads.map(play, SIZES))


@pytest.mark.parametrize("scenario", ENDING, ids=lambda scenario: scenario.name)
def test_streams_of_asyncio_are_told_that_the_receiver_has_died_or_stopped(
    session: peersock.Session, network: Network, scenario: Scenario
) -> None:
    def play(size: int) -> bool:
        victim = Peer(network, network.spare())
        try:
            address = (victim.v6, victim.port("receive", scenario.name, size))
            return asyncio.run(asyncio.wait_for(is_streamed(address, size, SILENCE), PATIENCE))
        finally:
            victim.kill()

    with ThreadPoolExecutor() as threads:
        assert not any(threads.map(play, SIZES))
