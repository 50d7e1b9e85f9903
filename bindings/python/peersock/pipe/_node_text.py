"""The text that says where a node is: its key, its addresses in the overlay and below it, and its NATs."""

from __future__ import annotations

import base64
import binascii
import ipaddress
import json
import re
import zlib
from dataclasses import asdict, dataclass, field
from typing import Any

from .. import _peersock
from ._addresses import parse_port

#: The beginning of a text; the number is the version of the form.
PREFIX = "peersock-node:1:"
#: The longest text, and the largest that is in one, bytes.
LONGEST = 16 << 10
_LARGEST = 64 << 10
#: The most entries of a list.
_MOST = 64


@dataclass(frozen=True)
class NodeAddress:
    """The address of a node. Only the key identifies it: addresses in the overlay follow from it, so that a text that
    somebody has changed leads to nobody else."""

    #: The node's ID, 64 hexadecimal digits.
    id: str
    #: Its public key, 86 characters.
    public_key: str
    #: Its networks by their IDs, 16 hexadecimal digits, with its addresses there, the self-certifying one first.
    networks: dict[str, list[str]]
    #: The port at which it takes connections.
    port: int
    #: Addresses of its UDP sockets, own ones and mapped ones, as ``ADDRESS:PORT``, the best first.
    candidates: list[str] = field(default_factory=list)
    #: Its interfaces, each with the routes that have internal and external addresses and the NAT with its delta, in the
    #: form of `Interface.to_dict`.
    interfaces: list[dict[str, Any]] = field(default_factory=list)
    #: The roots at which it can be found, by their node IDs.
    roots: list[str] = field(default_factory=list)

    def to_bytes(self) -> bytes:
        """The text, ASCII."""
        packed = zlib.compress(json.dumps(asdict(self), separators=(",", ":")).encode(), 9)
        return PREFIX.encode() + base64.urlsafe_b64encode(packed).rstrip(b"=")

    @classmethod
    def parse(cls, text: str | bytes) -> NodeAddress:
        """Takes a text.

        Raises:
            TypeError: It is no text.
            ValueError: It is none of this form, or what is in it makes no sense.
        """
        if isinstance(text, (bytes, bytearray)):
            text = bytes(text).decode("ascii", "replace")
        if not isinstance(text, str):
            raise TypeError(f"a node's address is a text, not {type(text).__name__}")
        text = text.strip()
        if not text.startswith(PREFIX) or len(text) > LONGEST:
            raise ValueError(f"a node's address begins with {PREFIX} and has at most {LONGEST} characters")
        return cls._checked(_unpack(text[len(PREFIX) :]))

    @classmethod
    def _checked(cls, value: Any) -> NodeAddress:
        """Reads the known keys only, because a later version may write more."""
        try:
            networks = dict(value["networks"])
            address = cls(
                id=_match("[0-9a-f]{64}", value["id"]),
                public_key=_match("[A-Za-z0-9_-]{86}", value["public_key"]),
                networks={
                    _match("[0-9a-f]{16}", network): [str(ipaddress.ip_address(str(ip))) for ip in _list(ips)]
                    for network, ips in networks.items()
                },
                port=parse_port(value["port"], 1),
                candidates=[_match(r"[0-9A-Fa-f:.\[\]%\w]{3,64}", one) for one in _list(value["candidates"])],
                interfaces=[dict(one) for one in _list(value["interfaces"])],
                roots=[_match("[0-9a-f]{64}", one) for one in _list(value["roots"])],
            )
            if _peersock.node_id(address.public_key) != address.id:
                raise ValueError("the key is that of another node")
        except (KeyError, TypeError, ValueError) as error:
            raise ValueError(f"the node's address makes no sense: {error}") from None
        if not any(address.networks.values()) or len(networks) > _MOST:
            raise ValueError("the node's address has no network")
        return address


def _unpack(text: str) -> Any:
    if not re.fullmatch("[A-Za-z0-9_-]+", text):
        raise ValueError("the node's address has characters that cannot be there")
    try:
        unpacker = zlib.decompressobj()
        packed = base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))
        data = unpacker.decompress(packed, _LARGEST)
        if not unpacker.eof or unpacker.unused_data:
            raise ValueError("it is cut off or too long")
        return json.loads(data)
    except (binascii.Error, zlib.error, ValueError, RecursionError) as error:
        raise ValueError(f"the node's address is damaged: {error}") from None


def _list(value: Any) -> list[Any]:
    if not isinstance(value, list) or len(value) > _MOST:
        raise ValueError("a list is none, or is too long")
    return value


def _match(pattern: str, value: Any) -> str:
    if not isinstance(value, str) or not re.fullmatch(pattern, value):
        raise ValueError(f"{value!r:.80} is of another form")
    return value
