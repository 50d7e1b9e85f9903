"""Python's overlay sockets beside Python's kernel sockets on loopback, and beside sockets that are
descriptors without Python, in one run and interleaved round by round.

    cargo xtask bench python

builds what it needs and starts this. Figures to quote need at least 5 rounds on a machine that does nothing
else.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import random
import statistics
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

LOAD = Path(__file__).resolve().with_name("load.py")
# A server is ready, and a client has finished, within this, seconds.
PATIENCE = 120
DESCRIPTORS_PORT = 5002


@dataclass(frozen=True)
class Figure:
    """A measurement: its case, and its unit."""

    case: str
    field: str
    unit: str


FIGURES = [
    Figure("bulk", "gbps", "Gbit/s"),
    Figure("ping-pong", "p50_us", "us"),
    Figure("ping-pong", "p99_us", "us"),
    Figure("streams", "per_s", "1/s"),
    Figure("calls", "recv_us", "us"),
    Figure("calls", "recv_plain_us", "us"),
    Figure("calls", "recv_overhead_us", "us"),
    Figure("calls", "send_us", "us"),
    Figure("calls", "send_plain_us", "us"),
    Figure("calls", "send_overhead_us", "us"),
    Figure("calls", "sendto_kernels_overhead_us", "us"),
]


@dataclass(frozen=True)
class Target:
    """A figure, or its ratio to another contender's in the same round, and what its median has to be."""

    figure: Figure
    of: str
    to: str | None = None
    at_least: float | None = None
    at_most: float | None = None

    def verdict(self, median: float) -> str:
        if self.at_least is not None:
            return f">= {self.at_least:<5} {'ok' if median >= self.at_least else 'MISSED'}"
        if self.at_most is not None:
            return f"<  {self.at_most:<5} {'ok' if median < self.at_most else 'MISSED'}"
        return ""


TARGETS = [
    Target(FIGURES[0], "overlay", "descriptors", at_least=0.6),
    Target(FIGURES[0], "overlay", "kernel"),
    Target(FIGURES[1], "overlay", "descriptors"),
    Target(FIGURES[1], "overlay", "kernel"),
    Target(FIGURES[3], "overlay", "kernel"),
    Target(FIGURES[6], "overlay", at_most=3.0),
    Target(FIGURES[9], "overlay", at_most=3.0),
    Target(FIGURES[10], "overlay", at_most=3.0),
]


class Contender:
    """A server that runs through the whole benchmark, and one client at a time."""

    def __init__(self, name: str, command: list[str], server: list[str]) -> None:
        self.name = name
        self.command = command
        self.server = subprocess.Popen([*command, *server], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        assert self.server.stdout is not None
        self.ready: dict[str, Any] = json.loads(self.server.stdout.readline() or "{}")
        if not self.ready:
            raise SystemExit(f"the server of {name} does not start")

    def measures(self, case: str) -> bool:
        return True

    def measure(self, case: str, secs: float) -> dict[str, float]:
        output = subprocess.run(
            [*self.command, *self.arguments(case, secs)], stdout=subprocess.PIPE, timeout=PATIENCE, check=True
        )
        figures: dict[str, float] = json.loads(output.stdout)
        return figures

    def arguments(self, case: str, secs: float) -> list[str]:
        port = self.ready["streams" if case == "streams" else "port"]
        return ["client", case, self.ready["address"], str(port), f"--secs={secs}"]

    def end(self) -> None:
        self.server.kill()
        self.server.wait()


class Python(Contender):
    """A process of Python on one of the networks."""

    def __init__(self, name: str, overlay: str | None) -> None:
        network = [] if overlay is None else ["--overlay", overlay]
        super().__init__(name, [sys.executable, str(LOAD), *network], ["serve"])

    def measures(self, case: str) -> bool:
        return case != "calls" or self.name == "overlay"


class Descriptors(Contender):
    """The load program of `cargo xtask bench`, with sockets that are descriptors."""

    def __init__(self, program: Path, network: str) -> None:
        command = [str(program), "--die-with-parent", "peersock-fd", "--loopback", "--network", network]
        super().__init__("descriptors", command, ["serve", f"[::]:{DESCRIPTORS_PORT}"])

    def measures(self, case: str) -> bool:
        return case in ("bulk", "ping-pong")

    def arguments(self, case: str, secs: float) -> list[str]:
        return ["client", self.ready["address"], case, f"--secs={secs}"]


@contextlib.contextmanager
def contenders(program: Path) -> Iterator[list[Contender]]:
    # The ID of an ad-hoc network says which ports are open; hardly anybody else uses this one.
    network = f"ff{random.randrange(1, DESCRIPTORS_PORT):04x}ffff000000"
    started: list[Contender] = []
    try:
        started.append(Python("overlay", network))
        started.append(Python("kernel", None))
        started.append(Descriptors(program, network))
        yield started
    finally:
        for contender in started:
            contender.end()


Values = dict[tuple[Figure, str], list[float]]


def run(options: argparse.Namespace) -> Values:
    values: Values = {}
    with contenders(options.program) as running:
        for round in range(options.reps):
            print(f"round {round + 1} of {options.reps}", flush=True)
            for case in dict.fromkeys(figure.case for figure in FIGURES):
                # Everybody is first in some round.
                for contender in running[round % len(running) :] + running[: round % len(running)]:
                    if contender.measures(case):
                        measured = contender.measure(case, options.secs)
                        for figure in FIGURES:
                            if figure.case == case and figure.field in measured:
                                values.setdefault((figure, contender.name), []).append(measured[figure.field])
    return values


def report(values: Values) -> tuple[list[dict[str, Any]], bool]:
    """Prints the table. Returns its lines, and whether all targets are met."""
    lines: list[dict[str, Any]] = []

    def line(figure: Figure, of: str, unit: str, series: list[float], verdict: str = "") -> None:
        low, median, high = min(series), statistics.median(series), max(series)
        name = f"{figure.case} {figure.field}"
        print(f"{name:<33} {unit:<7} {of:<22} {low:>10.3f} {median:>10.3f} {high:>10.3f}  {verdict}".rstrip())
        lines.append({"name": f"{name} {of}", "unit": unit, "min": low, "median": median, "max": high})

    print(f"\n{'figure':<33} {'unit':<7} {'of':<22} {'min':>10} {'median':>10} {'max':>10}")
    for (figure, name), series in sorted(values.items(), key=lambda item: FIGURES.index(item[0][0])):
        line(figure, name, figure.unit, series)
    print(f"\n{'compared':<64} {'min':>10} {'median':>10} {'max':>10}  target (median)")
    met = True
    for target in TARGETS:
        series = values[target.figure, target.of]
        of, unit = target.of, target.figure.unit
        if target.to is not None:
            others = values[target.figure, target.to]
            series = [one / other for one, other in zip(series, others, strict=True)]
            of, unit = f"{target.of} / {target.to}", "ratio"
        verdict = target.verdict(statistics.median(series))
        met = met and "MISSED" not in verdict
        line(target.figure, of, unit, series, verdict)
    return lines, met


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--program", type=Path, required=True, help="peersock-bench, optimised")
    parser.add_argument("--reps", type=int, default=5, help="rounds [default: 5]")
    parser.add_argument("--secs", type=float, default=3.0, help="length of one transfer, seconds [default: 3]")
    parser.add_argument("--json", type=Path, help="also write the figures here, one JSON object per line")
    parser.add_argument("--check", action="store_true", help="fail if a target is missed")
    options = parser.parse_args()
    print(f"Python {sys.version.split()[0]}, {options.reps} rounds of {options.secs} s, loopback only")
    lines, met = report(run(options))
    if options.json:
        options.json.write_text("".join(json.dumps(line) + "\n" for line in lines))
    if options.check and not met:
        raise SystemExit(1)


if __name__ == "__main__":
    main()
