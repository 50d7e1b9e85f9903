"""Paths that change, and the interfaces that a node may use, on machines of the tests' own."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from .hosts import SERVER, Hosts, may_make_networks

pytestmark = pytest.mark.skipif(not may_make_networks(), reason="network namespaces need root, unshare, nsenter and ip")


@pytest.fixture
def hosts(tmp_path: Path) -> Iterator[Hosts]:
    with Hosts(tmp_path) as both:
        yield both


def changes(said: dict[str, Any]) -> list[tuple[str, bool | None]]:
    """Returns the events that are of sessions and paths."""
    assert all(event["peer"] == said["peer"]["id"] for event in said["events"])
    return [(event["kind"], event["relayed"]) for event in said["events"] if event["relayed"] is not None]


def test_events_and_the_status_say_when_a_root_relays_and_what_was_tried_to_do_without(hosts: Hosts) -> None:
    address = hosts.there.ask("open", "eth0")
    hosts.here.ask("open", "eth0")
    hosts.here.ask("connect", address, hosts.there.ask("serve"))

    # No packet goes from one machine to the other.
    relayed = hosts.here.ask("until", True)
    root = hosts.roots.split("@")[1]
    assert changes(relayed)
    assert all(is_relayed for _, is_relayed in changes(relayed))
    assert relayed["peer"]["addresses"] == [address]
    assert (relayed["peer"]["path"], relayed["peer"]["turn"]) == (root, False)
    assert relayed["peer"]["root"] is not None
    searched = hosts.here.ask("searched")
    status = searched["status"]
    assert (status["root"], status["path"], status["tcp"]) == (relayed["peer"]["root"], root, False)
    tried = status["attempts"]
    assert {attempt["address"].rsplit(":", 1)[0] for attempt in tried} == {"10.97.2.2"}
    assert not any(attempt["answered"] or attempt["outcome"] == "answered" for attempt in tried)
    sent = [attempt["outcome"] for attempt in tried if attempt["kind"] != "tcp" and attempt["sent"] > 0]
    assert set(sent) == {"no answer"}
    # A peer's object has the same, by the same names; another round may have been between the two.
    assert [list(attempt) for attempt in searched["attempts"]] == [list(attempt) for attempt in tried]
    tell = ("address", "kind", "vouched", "answered")
    assert [[attempt[name] for name in tell] for attempt in searched["attempts"]] == [
        [attempt[name] for name in tell] for attempt in tried
    ]

    hosts.forward(True)
    direct = hosts.here.ask("until", False)
    assert ("peer_reachable", True) in changes(relayed) + changes(direct)
    assert changes(direct)[-1] == ("path_changed", False)
    assert direct["peer"]["root"] is None
    assert direct["peer"]["path"].startswith("10.97.2.2:")
    tried = [attempt for attempt in direct["peer"]["attempts"] if attempt["kind"] != "tcp"]
    used = [attempt["outcome"] for attempt in tried if attempt["address"] == direct["peer"]["path"]]
    # The other side's own attempt may have opened the path before this one was answered, or after it was
    # given up.
    assert set(used) <= {"answered", "being tried", "no answer"}

    # The connection is still the same.
    hosts.forward(False)
    again = hosts.here.ask("until", True)
    assert changes(again)[-1] == ("path_changed", True)
    assert (again["peer"]["path"], again["peer"]["root"]) == (root, relayed["peer"]["root"])


OWN = {"eth0": "10.97.1.2", "eth1": "10.97.4.2"}


@pytest.mark.parametrize("interfaces", [["eth0"], ["eth1"], ["eth0", "eth1"]])
def test_a_node_uses_those_interfaces_alone_that_are_named(hosts: Hosts, interfaces: list[str]) -> None:
    said = hosts.here.ask("pinned", *interfaces)
    own = [OWN[name] for name in interfaces]
    assert said["own"] == own
    candidates = [one["address"].rsplit(":", 1)[0] for one in said["status"]["contact"]["candidates"]]
    assert {address for address in candidates if "[" not in address} == set(own)
    # Its packets leave there, also where the system would rather send them by another interface.
    (root,) = said["status"]["roots"]
    assert root["state"] == "registered"
    assert root["path"].startswith(f"{SERVER}:")
    assert root["observed"].rsplit(":", 1)[0] in own
