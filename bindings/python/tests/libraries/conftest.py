"""The libraries are those of ``requirements-libraries.txt``."""

from __future__ import annotations

from collections.abc import Iterator
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import pytest

from tests.libraries.lab import Lab

REQUIREMENTS = Path(__file__).resolve().parents[2] / "requirements-libraries.txt"


def missing() -> list[str]:
    """The libraries that are not installed, or in another version."""
    names = []
    for line in REQUIREMENTS.read_text().splitlines():
        if line and not line.startswith("#"):
            name, _, wanted = line.partition("==")
            try:
                found = version(name.partition("[")[0])
            except PackageNotFoundError:
                found = ""
            if found != wanted:
                names.append(line)
    return names


@pytest.fixture(scope="session")
def libraries() -> None:
    """Skips the tests where the libraries are not those that are listed."""
    if names := missing():
        pytest.skip(f"not installed (requirements-libraries.txt): {', '.join(names)}")


@pytest.fixture
def lab(tmp_path: Path, libraries: None) -> Iterator[Lab]:
    """A network of this test's own."""
    lab = Lab(tmp_path)
    try:
        yield lab
    finally:
        lab.end()
