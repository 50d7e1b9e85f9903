"""Whoever sends is told whether everything was delivered: the table that all faces share."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import pytest

import peersock

from .conftest import Network, Peer
from .delivery import SCENARIOS, SILENCE, SIZES, Scenario, is_delivered

LIVING = [scenario for scenario in SCENARIOS if not scenario.ends_process()]
#: More than what all buffers on the way hold while nobody reads.
MUCH = 10_000_000
ENDING = [scenario for scenario in SCENARIOS if scenario.ends_process()]


@pytest.mark.parametrize("scenario", LIVING, ids=lambda scenario: scenario.name)
def test_a_sender_is_told_what_the_table_says(peer: Peer, scenario: Scenario) -> None:
    for size in SIZES:
        if scenario.steps == ["refuse"]:
            assert not is_delivered((peer.v6, 9), size)
            continue
        delivered = is_delivered((peer.v6, peer.port("receive", scenario.name, size)), size)
        read = int(peer.answer().removeprefix("read "))
        # Of what buffers hold TCP cannot tell if the receiver has ended its side first.
        if scenario.outcome != "if-much" or size >= MUCH:
            assert delivered == (scenario.outcome == "delivered"), size
            assert not delivered or read == size, size


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
