"""The tables of claims in `tests/claims`, which the tests of Rust play, too."""

from __future__ import annotations

from pathlib import Path

_FOLDER = Path(__file__).resolve().parents[3] / "tests/claims"
_ESCAPES = {r"\s": " ", r"\0": "\0", r"\L": "a" * 300, r"\9": "9" * 5000}


def rows(table: str, claim: str, count: int) -> list[list[str]]:
    """Returns the words of each row of a claim. The last of the `count` words takes the rest of its row."""
    lines = (_FOLDER / f"{table}.txt").read_text().splitlines()
    found = [line.split(maxsplit=count)[1:] for line in lines if line.split(maxsplit=1)[:1] == [claim]]
    assert found and all(len(words) == count for words in found), claim
    return [[_word(word) for word in words] for words in found]


def _word(text: str) -> str:
    for escape, meaning in _ESCAPES.items():
        text = text.replace(escape, meaning)
    return "" if text == '""' else text
