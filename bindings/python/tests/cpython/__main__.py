"""Runs CPython's own tests with `peersock.socket` in place of `socket`: ``python -m tests.cpython [--full] [MODULE…]``.

Each class runs in another process, with a time limit. A failed test is run once more, as CPython does, because many
have their own time limits; the output says so. A test that fails again is run with the standard library's sockets,
because a test that fails there too says nothing about ours. The last line counts, as ``N passed, N failed``.
"""

from __future__ import annotations

import argparse
import importlib
import json
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

from .applicable import MODULES, OTHER_SELECTORS, classes

FOLDER = Path(__file__).parent
#: Seconds that one class may take.
LIMIT = 180
#: Share of the applicable tests that has to pass.
TARGET = 0.95


@dataclass
class Count:
    """Outcomes of tests."""

    passed: list[str] = field(default_factory=list)
    skipped: dict[str, str] = field(default_factory=dict)
    failed: dict[str, str] = field(default_factory=dict)
    #: Passed, but when run once more only.
    again: dict[str, str] = field(default_factory=dict)
    #: They fail with the standard library's sockets, too.
    elsewhere: dict[str, str] = field(default_factory=dict)


def run_class(module: str, name: str, only: tuple[str, ...] = (), plain: bool = False) -> dict[str, tuple[str, str]]:
    """Each test's name with what came of it, and why; the class itself as ``error`` if it did not end."""
    options = ["--plain"] if plain else []
    command = [sys.executable, str(FOLDER / "run_class.py"), *options, module, name, *only]
    try:
        process = subprocess.run(command, capture_output=True, text=True, timeout=LIMIT, check=False)
    except subprocess.TimeoutExpired as error:
        told = (error.stderr or b"").decode(errors="replace")
        return {"(class)": ("error", f"did not end within {LIMIT} s\n{told[-6000:]}")}
    try:
        outcomes: dict[str, tuple[str, str]] = json.loads(process.stdout.splitlines()[-1])
    except (IndexError, ValueError):
        return {"(class)": ("error", process.stderr[-2000:] or f"exit status {process.returncode}")}
    return outcomes


def count_class(module: str, name: str, excluded: set[str]) -> Count:
    """Runs a class, and what fails again without us."""
    count = Count()
    outcomes = run_class(module, name)
    for test, (what, why) in outcomes.items():
        full_name = f"{module}.{name}.{test}"
        if what == "ok":
            count.passed.append(full_name)
        elif what == "skip":
            count.skipped[full_name] = why
        else:
            count.failed[full_name] = why
    unknown = tuple(test for test in outcomes if f"{module}.{name}.{test}" in count.failed.keys() - excluded)
    if not unknown or unknown == ("(class)",):
        return count
    for test, (what, _) in run_class(module, name, unknown).items():
        full_name = f"{module}.{name}.{test}"
        if what == "ok" and full_name in count.failed:
            count.again[full_name] = count.failed.pop(full_name)
            count.passed.append(full_name)
    unknown = tuple(test for test in unknown if f"{module}.{name}.{test}" in count.failed)
    if unknown:
        for test, (what, why) in run_class(module, name, unknown, plain=True).items():
            full_name = f"{module}.{name}.{test}"
            if what in ("fail", "error") and full_name in count.failed:
                count.elsewhere[full_name] = why
                del count.failed[full_name]
    return count


def exclusions() -> dict[str, str]:
    """Tests that are known to fail, with the reason. A question mark behind the name says that they may pass."""
    lines = (FOLDER / "exclusions.txt").read_text().splitlines()
    pairs = (line.partition(": ") for line in lines if line and not line.startswith("#"))
    return {name: reason for name, _, reason in pairs}


def exists(name: str) -> bool:
    """Returns true if this version of Python has a test."""
    module_name, class_name, test = name.rsplit(".", 2)
    return hasattr(getattr(importlib.import_module(module_name), class_name, None), test)


def stale(excluded: dict[str, str], modules: list[str], total: Count, full: bool) -> list[str]:
    """Returns the exclusions that the run contradicts."""
    ran = {*total.passed, *total.skipped, *total.failed, *total.elsewhere}
    wrong = [f"{name} is excluded without a reason" for name, reason in excluded.items() if not reason]
    for name in excluded:
        if not full and OTHER_SELECTORS.match(name.split(".")[-2]):
            continue
        if not any(name.startswith(f"{module}.") for module in modules):
            continue
        if name in total.passed:
            wrong.append(f"{name} is excluded, but passes")
        elif name not in ran and exists(name):
            wrong.append(f"{name} is excluded, but was not run")
    return wrong


def main() -> int:
    """Runs everything."""
    parser = argparse.ArgumentParser(prog="python -m tests.cpython", description=__doc__)
    parser.add_argument("--full", action="store_true", help="asyncio's tests over all selectors")
    parser.add_argument("--jobs", type=int, default=4, help="classes that run at the same time")
    parser.add_argument("modules", nargs="*", default=list(MODULES))
    options = parser.parse_args()
    listed = exclusions()
    excluded = {name.removesuffix("?"): reason for name, reason in listed.items()}
    surely = {name: reason for name, reason in listed.items() if not name.endswith("?")}
    total = Count()
    with ThreadPoolExecutor(options.jobs) as executor:
        jobs = {
            module: [
                executor.submit(count_class, module, name, set(excluded)) for name in classes(module, options.full)
            ]
            for module in options.modules
        }
        for module, futures in jobs.items():
            started = time.monotonic()
            counts = [future.result() for future in futures]
            for count in counts:
                total.passed += count.passed
                total.skipped |= count.skipped
                total.failed |= count.failed
                total.again |= count.again
                total.elsewhere |= count.elsewhere
            numbers = [
                sum(len(getattr(count, kind)) for count in counts)
                for kind in ("passed", "failed", "skipped", "elsewhere")
            ]
            print(
                "{}: {} passed, {} failed or excluded, {} skipped, {} fail without us, too".format(module, *numbers),
                f"({time.monotonic() - started:.0f} s more)",
                flush=True,
            )
    unknown = {name: why for name, why in total.failed.items() if name not in excluded}
    for name, why in total.again.items():
        print(f"passed when run once more: {name}\n{why}")
    for name, why in total.elsewhere.items():
        print(f"fails without us, too: {name}: {why.strip().splitlines()[-1]}")
    for name, why in unknown.items():
        print(f"FAILED {name}\n{why}")
    wrong = stale(surely, options.modules, total, options.full)
    for line in wrong:
        print(f"FAILED {line}")
    applicable = len(total.passed) + len(total.failed)
    share = len(total.passed) / max(applicable, 1)
    print(f"{len(total.passed)} of {applicable} applicable tests pass: {share:.1%}")
    failures = len(unknown) + len(wrong) + (share < TARGET)
    print(f"{len(total.passed)} passed, {failures} failed")
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())
