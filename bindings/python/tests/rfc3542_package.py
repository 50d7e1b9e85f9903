"""Lets the tests of ``peersock.rfc3542`` run where the extension module is not built: they import this
first."""

import sys
import types
from pathlib import Path

try:
    import peersock  # noqa: F401
except ImportError:
    package = types.ModuleType("peersock")
    package.__path__ = [str(Path(__file__).resolve().parent.parent / "peersock")]
    sys.modules["peersock"] = package
