"""Calls of the C library by `ctypes`, in a process that has the preloaded library.

``ctypes.CDLL("libc.so.6").getifaddrs`` is the C library's own function, not the preloaded library's replacement.
Packages that list the machine's interfaces by it, such as ifaddr and with it zeroconf, would not see the networks.
Here they get the preloaded library's function.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec
from importlib.util import find_spec
from types import ModuleType
from typing import Any

from . import _spawn

#: File names of the C library: that of glibc, and that of musl.
_C_LIBRARY = ("libc.so", "libc.musl")


def keep() -> None:
    """Has `ctypes` find the functions of the preloaded library, now or when it is imported."""
    ctypes = sys.modules.get("ctypes")
    if ctypes is not None:
        _replace(ctypes)
    else:
        sys.meta_path.insert(0, _Finder())


class _Finder(MetaPathFinder):
    """Waits for `ctypes`: importing it takes milliseconds, and most programs never do."""

    def find_spec(self, name: str, path: Sequence[str] | None, target: ModuleType | None = None) -> ModuleSpec | None:
        if name != "ctypes":
            return None
        sys.meta_path.remove(self)
        spec = find_spec(name)
        if spec is not None and spec.loader is not None:
            execute = spec.loader.exec_module

            def execute_and_replace(module: ModuleType) -> None:
                execute(module)
                _replace(module)

            spec.loader.exec_module = execute_and_replace  # type: ignore[method-assign]
        return spec


def _replace(ctypes: Any) -> None:
    library = _spawn.own_library()
    if not library or hasattr(ctypes.CDLL.__getitem__, "peersock"):
        return
    try:
        # By this handle the loader looks into the library first, and into the C library then.
        preloaded = ctypes.CDLL(library, mode=os.RTLD_NOLOAD)
    except OSError:
        # The process does not have it.
        return
    find = ctypes.CDLL.__getitem__

    def found(self: Any, name: Any) -> Any:
        is_c_library = os.path.basename(str(self._name or "")).startswith(_C_LIBRARY)
        if is_c_library and isinstance(name, str):
            try:
                function = self._FuncPtr((name, preloaded))
                function.__name__ = name
                return function
            except AttributeError:
                pass
        return find(self, name)

    found.peersock = True  # type: ignore[attr-defined]
    ctypes.CDLL.__getitem__ = found
