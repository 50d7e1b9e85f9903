"""Runs one class of CPython's own tests with `peersock.socket` in place of `socket`.

``python run_class.py MODULE CLASS`` prints one JSON object: each test's name with ``ok``, ``skip``, ``fail`` or
``error``, and why. The tests' loopback addresses are replaced in their source code by this node's own addresses, which
a static network gives it: sockets to them loop back inside the node, through its whole TCP/IP stack.
"""

from __future__ import annotations

import faulthandler
import importlib
import importlib.abc
import importlib.machinery
import importlib.util
import json
import os
import re
import sys
import tempfile
import types
import unittest
from collections.abc import Sequence
from typing import Any

import peersock

V4 = "10.77.0.1"
#: Some tests fill the buffers of a connection with 10 MiB, of the kernel's size.
BUFFERS = (1 << 20, 4 << 20)
#: Modules whose addresses are replaced.
REWRITTEN = re.compile(r"test\.(support\.socket_helper|test_\w+(\..*)?|ssltests)$")


class Rewriter(importlib.abc.MetaPathFinder):
    """Replaces the loopback's addresses in the source code of tests."""

    def __init__(self, v6: str) -> None:
        self._replacements = {"127.0.0.1": V4, "::1": v6}

    def find_spec(
        self, name: str, path: Sequence[str] | None = None, target: types.ModuleType | None = None
    ) -> importlib.machinery.ModuleSpec | None:
        if not REWRITTEN.match(name):
            return None
        spec = importlib.machinery.PathFinder.find_spec(name, path, target)
        if spec is not None and isinstance(spec.loader, importlib.machinery.SourceFileLoader):
            spec.loader = Loader(spec.loader, self.rewrite)
        return spec

    def rewrite(self, source: str) -> str:
        return "\n".join(map(self._rewrite_line, source.split("\n")))

    def _rewrite_line(self, line: str) -> str:
        # Of inet_ntop() the loopback's address is wanted.
        if not re.search(r"assertEqual\('::1', f\(|IP Address", line):
            for old, new in self._replacements.items():
                line = re.sub(rf"""(?<=['"]){re.escape(old)}(?=['"])""", new, line)
        return line


class Loader(importlib.abc.SourceLoader):
    """Loads a module from changed source code."""

    def __init__(self, loader: importlib.machinery.SourceFileLoader, rewrite: Any) -> None:
        self._loader, self._rewrite = loader, rewrite

    def get_filename(self, fullname: str) -> str:
        return self._loader.get_filename(fullname)

    def get_data(self, path: str) -> bytes:
        data = self._loader.get_data(path)
        return str(self._rewrite(data.decode())).encode() if path.endswith(".py") else data

    def path_stats(self, path: str) -> Any:
        # No byte code: it would be that of the unchanged source.
        raise OSError


class Results(unittest.TestResult):
    """Outcomes of the tests."""

    def __init__(self) -> None:
        super().__init__()
        self.outcomes: dict[str, tuple[str, str]] = {}

    def startTest(self, test: unittest.TestCase) -> None:
        super().startTest(test)
        self.outcomes[_name(test)] = ("ok", "")

    def _note(self, test: Any, what: str, why: str) -> None:
        # Of a test with several errors the first tells most.
        if self.outcomes.get(_name(test), ("ok", ""))[0] == "ok":
            self.outcomes[_name(test)] = (what, why)

    def addError(self, test: unittest.TestCase, err: Any) -> None:
        super().addError(test, err)
        self._note(test, "error", self.errors[-1][1])

    def addFailure(self, test: unittest.TestCase, err: Any) -> None:
        super().addFailure(test, err)
        self._note(test, "fail", self.failures[-1][1])

    def addSubTest(self, test: unittest.TestCase, subtest: unittest.TestCase, err: Any) -> None:
        super().addSubTest(test, subtest, err)
        if err is not None:
            self._note(test, "fail", self._exc_info_to_string(err, test))  # type: ignore[attr-defined]

    def addSkip(self, test: unittest.TestCase, reason: str) -> None:
        super().addSkip(test, reason)
        self._note(test, "skip", reason)


def _name(test: Any) -> str:
    return str(test.id()).rpartition(".")[2]


def join(folder: str) -> peersock.Session:
    """A member alone in a static network, with an IPv4 address."""
    seed = peersock.generate_seed()
    path = os.path.join(folder, "network.toml")
    with open(os.open(path, os.O_WRONLY | os.O_CREAT, 0o600), "w") as file:
        file.write('network = "fe00000000000001"\n[[member]]\nname = "localhost"\n')
        file.write(f'key = "{peersock.public_key(seed)}"\naddresses = ["{V4}"]\n')
    return peersock.Session(path, identity=seed, interfaces="loopback", discovery=False, linger=0.2, buffers=BUFFERS)


def overlay(folder: str, module_name: str) -> None:
    """Puts this process on the overlay."""
    session = join(folder)
    sys.meta_path.insert(0, Rewriter(session.address))
    for name in [name for name in sys.modules if REWRITTEN.match(name)]:
        del sys.modules[name]
    peersock.install()
    if module_name == "test.test_socket":
        # The others test what is built on the standard library's module.
        sys.modules["socket"] = peersock.socket


def run(module_name: str, class_name: str, wanted: set[str]) -> dict[str, tuple[str, str]]:
    """Runs the tests of a class that are wanted, or all."""
    module = importlib.import_module(module_name)
    cases = unittest.defaultTestLoader.loadTestsFromTestCase(getattr(module, class_name))
    results = Results()
    getattr(module, "setUpModule", lambda: None)()
    unittest.TestSuite(case for case in cases if not wanted or _name(case) in wanted).run(results)
    unittest.case.doModuleCleanups()
    getattr(module, "tearDownModule", lambda: None)()
    return results.outcomes


def main() -> None:
    """Runs the class that the command line names."""
    arguments = sys.argv[1:]
    is_plain = arguments[0] == "--plain"
    module_name, class_name, *wanted = arguments[is_plain:]
    # Says where a class hangs that does not end in time.
    faulthandler.dump_traceback_later(60)
    with tempfile.TemporaryDirectory() as folder:
        if not is_plain:
            overlay(folder, module_name)
        outcomes = run(module_name, class_name, set(wanted))
        peersock.stop()
    print("\n" + json.dumps(outcomes), flush=True)
    # Threads that a test has left behind are none of ours.
    os._exit(0)


if __name__ == "__main__":
    main()
