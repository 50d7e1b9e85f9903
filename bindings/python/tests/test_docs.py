"""The documentation builds without a warning."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

DOCS = Path(__file__).resolve().parents[1] / "docs"


def test_the_documentation_builds_without_warnings(tmp_path: Path) -> None:
    pytest.importorskip("sphinx")
    command = [sys.executable, "-m", "sphinx", "-W", "--keep-going", "-q", "-b", "html"]
    built = subprocess.run(
        [*command, "-d", str(tmp_path / "doctrees"), str(DOCS), str(tmp_path / "html")],
        stderr=subprocess.PIPE,
        text=True,
        timeout=300,
    )
    assert built.returncode == 0, built.stderr
    for page in DOCS.glob("*.rst"):
        assert (tmp_path / "html" / f"{page.stem}.html").is_file()
