"""Subscriptions: queues for messages that match a pattern, from sources that match another."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Callable
from typing import Any, NamedTuple, TypeAlias

from ..interfaces import IPRange
from ._addresses import Tup, parse_ip, parse_port, plain
from ._queue import Message, MessageQueue

Pattern: TypeAlias = bytes | str | re.Pattern[bytes] | None
Source: TypeAlias = tuple[Any, int] | str | IPRange | re.Pattern[str] | None


class Sub(NamedTuple):
    """A subscription: messages in which the pattern is found, from sources that match.

    The pattern is a regular expression, of bytes; a str stands for its UTF-8. The source is one of

    * ``(ADDRESS, PORT)``; port 0 is any port, and the address may be a block, as ``"192.0.2.0/24"``,
    * an address, a block or an `IPRange`, with any port,
    * a compiled regular expression of str that is to be found in ``ADDRESS:PORT`` (in IPv6 ``[ADDRESS]:PORT``).

    ``None`` is any.
    """

    pattern: Pattern = None
    addr: Source = None


#: All messages from everybody.
SUB_ALL = Sub()


class _Sources(NamedTuple):
    """Sources in the form in which they are compared."""

    block: ipaddress.IPv4Network | ipaddress.IPv6Network | None
    port: int
    pattern: re.Pattern[str] | None

    @classmethod
    def of(cls, addr: Source) -> _Sources | None:
        if addr is None:
            return None
        if isinstance(addr, re.Pattern):
            if not isinstance(addr.pattern, str):
                raise TypeError("a pattern of sources is a regular expression of str")
            return cls(None, 0, addr)
        host, port = addr[:2] if isinstance(addr, (tuple, list)) and len(addr) in (2, 4) else (addr, 0)
        return cls(_block(host), parse_port(port), None)

    def match(self, tup: Tup) -> bool:
        host, port = tup
        if self.pattern is not None:
            return self.pattern.search(f"[{host}]:{port}" if ":" in host else f"{host}:{port}") is not None
        ip = parse_ip(host.partition("%")[0])
        return self.port in (0, port) and ip is not None and self.block is not None and ip in self.block


def _block(host: object) -> ipaddress.IPv4Network | ipaddress.IPv6Network:
    if isinstance(host, IPRange):
        host = str(host)
    if isinstance(host, bytes):
        host = host.decode("ascii")
    if isinstance(host, str):
        host = re.sub("%[^/]*", "", host)
    ip = parse_ip(host)
    if ip is not None:
        return ipaddress.ip_network(plain(ip))
    if not isinstance(host, str):
        raise TypeError(f"a source is an address, a block of them, or a pattern, not {host!r}")
    try:
        return ipaddress.ip_network(host, strict=False)
    except ValueError:
        raise ValueError(f"{host!r} is no address and no block: sources are compared by their addresses") from None


class Subscription:
    """A queue of the messages that match; `dropped` counts those that its bounds have it drop."""

    # The types are none of the interface.
    def __init__(self, sub: Sub, pattern: Any, sources: Any, queue: Any) -> None:
        #: The subscription that it was made for.
        self.sub = sub
        self._pattern: re.Pattern[bytes] | None = pattern
        self._sources: _Sources | None = sources
        self._queue: MessageQueue = queue

    def __len__(self) -> int:
        return len(self._queue)

    def __bool__(self) -> bool:
        return True

    def __repr__(self) -> str:
        return f"<Subscription {tuple(self.sub)!r}: {len(self)} messages, {self.dropped} dropped>"

    @property
    def dropped(self) -> int:
        """Messages that were dropped because the queue was full, the oldest ones first."""
        return self._queue.dropped

    def _matches(self, message: Message) -> bool:
        tup, data = message
        if self._sources is not None and not self._sources.match(tup):
            return False
        return self._pattern is None or self._pattern.search(data) is not None


class Subscriptions:
    """The subscriptions of a pipe."""

    def __init__(self, most: int, most_bytes: int) -> None:
        self._bounds = most, most_bytes
        self._all: dict[tuple[re.Pattern[bytes] | None, _Sources | None], Subscription] = {}
        self._error: Exception | None = None
        # Those that are removed have dropped, too.
        self._dropped = 0

    def __len__(self) -> int:
        return len(self._all)

    @property
    def dropped(self) -> int:
        """Messages that all queues have dropped."""
        return self._dropped + sum(one.dropped for one in self._all.values())

    def add(self, sub: object, addr: Source = None) -> Subscription:
        """Subscribes. What is there already stays as it is."""
        wanted = parse(sub, addr)
        key = _key(wanted)
        if key not in self._all:
            queue = MessageQueue(*self._bounds, "the queue of a subscription")
            if self._error is not None:
                queue.end(self._error)
            self._all[key] = Subscription(wanted, *key, queue)
        return self._all[key]

    def remove(self, sub: object, addr: Source = None) -> None:
        """Ends a subscription, if there is such a one. Who waits there has LookupError."""
        found = self._all.pop(_key(parse(sub, addr)), None)
        if found is None:
            return
        self._dropped += found.dropped
        found._queue.clear()
        found._queue.end(LookupError("the subscription was removed"))

    def find(self, sub: object) -> Subscription:
        """The subscription of this description."""
        found = self._all.get(_key(parse(sub)))
        if found is None:
            raise LookupError("there is no such subscription: call subscribe() first")
        return found

    def deliver(self, message: Message, drops: Callable[[Subscription], bool]) -> None:
        """Puts a message into each queue that it matches. Where one has no room and `drops`, its oldest ones go."""
        for one in self._all.values():
            if one._matches(message):
                one._queue.put(message, drops(one))

    def full(self) -> list[Subscription]:
        """Those whose queues have no room."""
        return [one for one in self._all.values() if one._queue.is_full]

    @property
    def is_awaited(self) -> bool:
        """True if a task waits for a message in one of the queues."""
        return any(one._queue.is_awaited for one in self._all.values())

    def end(self, error: Exception) -> None:
        """Has those raise an error who want more messages than there are."""
        self._error = error
        for one in self._all.values():
            one._queue.end(error)


def parse(sub: object, addr: Source = None) -> Sub:
    """A description of a subscription, in any of the forms: a pattern with or without a source, or both as a pair."""
    if isinstance(sub, Subscription):
        return sub.sub
    if isinstance(sub, (tuple, list)):
        if len(sub) != 2:
            raise ValueError(f"a subscription is a pattern and a source, not {sub!r}")
        return Sub(sub[0], sub[1] if addr is None else addr)
    if sub is not None and not isinstance(sub, (bytes, str, re.Pattern)):
        raise TypeError(f"a subscription is a pattern and a source, not {sub!r} ({type(sub).__name__})")
    return Sub(sub, addr)


def _key(sub: Sub) -> tuple[re.Pattern[bytes] | None, _Sources | None]:
    pattern: Any = sub.pattern
    if isinstance(pattern, str):
        pattern = pattern.encode()
    if isinstance(pattern, re.Pattern):
        if not isinstance(pattern.pattern, bytes):
            raise TypeError("a pattern of messages is a regular expression of bytes")
    elif pattern is not None and not isinstance(pattern, bytes):
        raise TypeError(f"a pattern is bytes or str, not {pattern!r} ({type(pattern).__name__})")
    elif pattern:
        try:
            pattern = re.compile(pattern)
        except re.error as error:
            raise ValueError(f"{pattern!r} is no regular expression: {error}") from None
    return pattern or None, _Sources.of(sub.addr)
