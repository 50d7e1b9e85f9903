"""What callers give: checked where it is given, and said by name."""

from __future__ import annotations

import math
import os
from collections.abc import Iterable, Sequence
from typing import Union

#: A network: its ID as a number or in hexadecimal, or the path of a static network's file.
NetworkId = Union[int, str, "os.PathLike[str]"]

_KEY = 32
_SIDES = ("overlay", "kernel", "both")


def networks(
    net_id: NetworkId | Iterable[NetworkId] | None, static: str | os.PathLike[str] | None, invite: str | None = None
) -> list[int | str]:
    """All networks that a session names: IDs as numbers, paths, and invites."""
    if net_id is None:
        found = []
    elif isinstance(net_id, (int, float, bytes, bytearray, str, os.PathLike)) or not isinstance(net_id, Iterable):
        found = [_network(net_id)]
    else:
        found = [_network(network) for network in net_id]
    if static is not None:
        found.append(_path("static", static))
    if invite is not None:
        if not isinstance(invite, str):
            raise TypeError(f"invite is a str, not {invite!r} ({type(invite).__name__})")
        if not is_invite(invite):
            raise ValueError("invite is no invite: `peersock network invite` prints one, which begins with peersock://")
        found.append(invite)
    if not found:
        raise ValueError("a session needs a network: give its ID or its file, or set PEERSOCK_NETWORK")
    return found


def is_invite(network: str) -> bool:
    """Tells if a text is an invite to a managed network, and no path."""
    return network.strip().startswith("peersock://")


def is_ad_hoc(network: int | str) -> bool:
    """Tells if a network is ad-hoc. A static one has its secret in its own file, and a managed one has none."""
    return isinstance(network, int) and network >> 56 == 0xFF


def of_environment() -> str | None:
    """The network that the environment names, if it does."""
    return os.environ.get("PEERSOCK_NETWORK") or None


def secret_of_environment(wanted: Iterable[int | str], is_inherited: bool) -> str | None:
    """The passphrase that the environment has for ad-hoc networks, as no others take one.

    Where the node is that of a launcher, an empty one says that the launcher has kept it: its network is secret here,
    too.
    """
    secret = os.environ.get("PEERSOCK_SECRET")
    if not secret and is_inherited:
        return None
    return secret if any(map(is_ad_hoc, wanted)) else None


def _network(net_id: object) -> int | str:
    if isinstance(net_id, int) and not isinstance(net_id, bool):
        if not 0 <= net_id < 1 << 64:
            raise ValueError(f"a network's ID has 64 bits, which {net_id:#x} has not")
        return net_id
    if isinstance(net_id, os.PathLike):
        return _path("net_id", net_id)
    if not isinstance(net_id, str):
        raise TypeError(
            "a network is its ID, as an int or a str of 16 hexadecimal digits, or the path of a file,"
            f" not {net_id!r} ({type(net_id).__name__})"
        )
    digits = net_id.removeprefix("0x")
    if len(digits) == 16 and all(digit in "0123456789abcdefABCDEF" for digit in digits):
        return int(digits, 16)
    if is_invite(net_id) or "/" in net_id or net_id.endswith(".toml") or os.path.isfile(net_id):
        return net_id
    raise ValueError(f"{net_id!r} is neither a network's ID (16 hexadecimal digits) nor a file")


def _path(name: str, path: object) -> str:
    if not isinstance(path, (str, os.PathLike)):
        raise TypeError(f"{name} is a path, not {path!r} ({type(path).__name__})")
    return os.fsdecode(path)


def secret(value: object) -> str | bytes | None:
    """A passphrase, or a key as bytes. Never shown in an error."""
    if value is None:
        return None
    if isinstance(value, str):
        if not value:
            raise ValueError("secret is empty: leave it out for a network without one")
        return value
    key = _octets(value)
    if key is None:
        raise TypeError(
            f"secret is a passphrase (a str) or a key ({_KEY} bytes), not an object of the type {type(value).__name__}"
        )
    if len(key) != _KEY:
        raise ValueError(f"a network's key has {_KEY} bytes, not {len(key)}; a passphrase is a str")
    if not any(key):
        raise ValueError("a key of zeros is no secret: networks without one have it")
    return key


def identity(value: object) -> tuple[str | None, bytes | None]:
    """A directory, or a seed."""
    if value is None:
        return os.environ.get("PEERSOCK_STATE") or None, None
    seed = _octets(value)
    if seed is None:
        if not isinstance(value, (str, os.PathLike)):
            raise TypeError(
                f"identity is a directory's path or a seed of {_KEY} bytes,"
                f" not an object of the type {type(value).__name__}"
            )
        return os.fsdecode(value), None
    if len(seed) != _KEY:
        raise ValueError(f"a seed has {_KEY} bytes, not {len(seed)}; a directory's path is a str")
    return None, seed


def _octets(value: object) -> bytes | None:
    return bytes(value) if isinstance(value, (bytes, bytearray, memoryview)) else None


def interfaces(value: str | Sequence[str]) -> tuple[str, ...] | None:
    """Names; ``None`` for all, none for the loopback."""
    if value == "all":
        return None
    if value == "loopback":
        return ()
    names = (value,) if isinstance(value, str) else tuple(value)
    for name in names:
        if not isinstance(name, str):
            raise TypeError(f"interfaces are 'all', 'loopback' or names, not {name!r}")
    if not names or not all(names):
        raise ValueError("interfaces are 'all', 'loopback' or names, and none is named")
    return names


def roots(value: str | Iterable[str] | None) -> tuple[str, ...] | None:
    """Texts that name roots; ``None`` for those of the environment."""
    return _texts("roots", "as `peersock root` prints them", value)


def turn(value: str | Iterable[str] | None) -> tuple[str, ...] | None:
    """Texts that name TURN servers; ``None`` for those of the environment."""
    return _texts("TURN servers", "turn:USER:PASSWORD@HOST:PORT", value)


def stun(value: str | Iterable[str] | None) -> tuple[str, ...] | None:
    """Texts that name STUN servers; ``None`` for those of the environment."""
    return _texts("STUN servers", "HOST:PORT", value)


def _texts(what: str, form: str, value: str | Iterable[str] | None) -> tuple[str, ...] | None:
    """One text or several. Errors do not repeat them, because they may have passwords."""
    if value is None:
        return None
    texts = (value,) if isinstance(value, str) or not isinstance(value, Iterable) else tuple(value)
    for text in texts:
        if not isinstance(text, str):
            raise TypeError(f"{what} are texts, {form}, not {type(text).__name__}")
    return texts


def dht(value: str | None) -> str | None:
    """A text that says whether, and how, the DHT is used; ``None`` for what the environment says."""
    if value is not None and not isinstance(value, str):
        raise TypeError(f"dht is 'off', 'public' or IPV4:PORT, not {value!r} ({type(value).__name__})")
    return value


def only_suite(value: str | None) -> str | None:
    """The name of a cipher; ``None`` for the faster one."""
    if value is not None and not isinstance(value, str):
        raise TypeError(f"only_suite is the name of a cipher, not {value!r} ({type(value).__name__})")
    return value


def seconds(name: str, value: object) -> float:
    """A time that is to pass."""
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise TypeError(f"{name} is a number of seconds, not {value!r} ({type(value).__name__})")
    if not (math.isfinite(value) and value >= 0):
        raise ValueError(f"{name} is a number of seconds from 0 on, not {value!r}")
    return float(value)


def optional_seconds(name: str, value: object) -> float | None:
    """As `seconds`, or for ever."""
    return None if value is None else seconds(name, value)


def number(name: str, value: object, least: int, most: int) -> int:
    """A number within its range."""
    if isinstance(value, bool) or not isinstance(value, int):
        raise TypeError(f"{name} is an int, not {value!r} ({type(value).__name__})")
    if not least <= value <= most:
        raise ValueError(f"{name} is from {least} to {most}, not {value}")
    return value


def optional_number(name: str, value: object, least: int, most: int) -> int | None:
    """As `number`, or ``None``."""
    return None if value is None else number(name, value, least, most)


def flag(name: str, value: object) -> bool:
    """Yes or no."""
    if not isinstance(value, bool):
        raise TypeError(f"{name} is True or False, not {value!r} ({type(value).__name__})")
    return value


def buffers(value: object) -> tuple[int, int] | None:
    """Sizes of a send and a receive buffer."""
    if value is None:
        return None
    if not isinstance(value, (tuple, list)) or len(value) != 2:
        raise TypeError(f"buffers are two numbers of bytes, to send and to receive, not {value!r}")
    send, receive = (number("a buffer", size, 1, (1 << 63) - 1) for size in value)
    return send, receive


def side(value: object) -> str | None:
    """Where sockets are reached that are bound to no address."""
    if value is not None and value not in _SIDES:
        raise ValueError(f"bind is 'overlay', 'kernel' or 'both', not {value!r}")
    return None if value is None else str(value)
