"""Info.txt of MIAS: which film is normal, and where the abnormalities of the others lie.

Rows are `film tissue class severity x y radius`, the origin of x and y bottom-left. Normal films have three words;
calcifications spread through the breast have no place, or a note instead. A film may have several rows.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

from anomaly_lab.types import UserError

FRAME = 1024  # pixels of a side; Info.txt counts rows from its bottom
CLASSES = ("CALC", "CIRC", "SPIC", "MISC", "ARCH", "ASYM")


class Disc(NamedTuple):
    """Circle about an abnormality, in pixels of the picture, row 0 on top."""

    row: int
    column: int
    radius: int


class Finding(NamedTuple):
    """One abnormality: its class, "B" benign or "M" malignant, and where it lies, if that is known."""

    class_name: str
    severity: str
    disc: Disc | None


def read_info(path: Path) -> dict[str, tuple[Finding, ...]]:
    """Read Info.txt as {"mdb001": findings, …}; the free text around the rows is passed over.

    Raises:
        UserError: unreadable file, no rows, or a row that is short, unknown, repeated or out of the frame.
    """
    try:
        lines = path.read_text(encoding="utf-8-sig", errors="replace").splitlines()
    except OSError as error:
        raise UserError(f"{path}: Info.txt cannot be read ({error.strerror}); put it back") from error
    rows: dict[str, list[list[str]]] = {}
    listed: dict[str, tuple[Finding, ...]] = {}
    for number, line in enumerate(lines, start=1):
        film, *words = line.split() or [""]
        if film.lower().startswith("mdb"):
            earlier = rows.setdefault(film, [])
            try:
                finding = _finding(film, words, earlier)
            except ValueError as error:
                raise UserError(f"{path}, line {number}: {error}; put the row right") from error
            earlier.append(words)
            listed[film] = listed.get(film, ()) + (() if finding is None else (finding,))
    if not listed:
        raise UserError(f"{path}: not one row 'mdb001 G CIRC B 535 425 197'; put the official file back")
    return listed


def located(findings: Iterable[Finding]) -> list[Disc]:
    """Discs of the findings whose place is known."""
    return [finding.disc for finding in findings if finding.disc is not None]


def _finding(film: str, words: list[str], earlier: list[list[str]]) -> Finding | None:
    """Understand the words after the film's name; None for a normal film, ValueError for what is wrong."""
    if not re.fullmatch(r"mdb\d{3,}", film) or int(film[3:]) == 0:
        raise ValueError(f"film {film!r} is not mdb and three digits")
    if len(words) < 2 or words[0] not in {"F", "G", "D"} or words[1] not in {"NORM", *CLASSES}:
        raise ValueError(f"{' '.join(words)!r} is not tissue (F, G, D) and class ({', '.join(CLASSES)}, NORM)")
    if words in earlier or (earlier and "NORM" in (words[1], earlier[0][1])):
        raise ValueError(f"{film} appears twice")
    if words[1] == "NORM":
        if len(words) > 2:
            raise ValueError(f"{film} is normal and has {' '.join(words[2:])!r}")
        return None
    if words[2:3] not in (["B"], ["M"]):
        raise ValueError(f"severity of {film} is {' '.join(words[2:3])!r}, not B or M")
    return Finding(words[1], words[2], _disc(words[3:]))


def _disc(words: list[str]) -> Disc | None:
    """Turn x, y, radius into row, column, radius; nothing and '*NOTE 3*' stand for spread calcifications."""
    if not words or words[0].startswith("*NOTE"):
        return None
    if len(words) != 3 or not all(word.isdecimal() for word in words):
        raise ValueError(f"{' '.join(words)!r} is not x, y and radius in whole pixels")
    x, y, radius = map(int, words)
    if x >= FRAME or y > FRAME or not 0 < radius < FRAME:
        raise ValueError(f"x {x}, y {y}, radius {radius} lie out of the frame of {FRAME} pixels")
    return Disc(min(FRAME - 1, FRAME - y), x, radius)
