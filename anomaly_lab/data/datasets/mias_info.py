"""Reader for Info.txt of MIAS, which lists the normal films and the positions of the abnormalities.

Rows have the form `film tissue class severity x y radius`, with the origin of x and y at the bottom left. Rows of
normal films have three words; diffuse calcifications have no position or a note instead. A film may have several rows.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

from anomaly_lab.experiment.regular import regular
from anomaly_lab.types import UserError

FRAME = 1024  # side of a film in pixels; y in Info.txt is counted from the bottom
CLASSES = ("CALC", "CIRC", "SPIC", "MISC", "ARCH", "ASYM")


class Disc(NamedTuple):
    """Circle around an abnormality, in pixels; row 0 is at the top."""

    row: int
    column: int
    radius: int


class Finding(NamedTuple):
    """One abnormality: its class, "B" (benign) or "M" (malignant), and its position or None if it is unknown."""

    class_name: str
    severity: str
    disc: Disc | None


def read_info(path: Path) -> dict[str, tuple[Finding, ...]]:
    """Read Info.txt as {"mdb001": findings, …}; free text around the rows is skipped.

    Raises:
        UserError: the file is unreadable or has no rows, or a row is short, unknown, repeated or outside the film.

    Examples:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     path = Path(folder) / "Info.txt"
        ...     _ = path.write_text("mdb001 G CIRC B 535 425 197")
        ...     read_info(path)["mdb001"][0].disc
        Disc(row=599, column=535, radius=197)
    """
    try:
        lines = regular(path).read_text(encoding="utf-8-sig", errors="replace").splitlines()
    except OSError as error:
        raise UserError(f"{path}: Info.txt cannot be read ({error.strerror}); restore the official file") from error
    rows: dict[str, list[list[str]]] = {}
    listed: dict[str, tuple[Finding, ...]] = {}
    for number, line in enumerate(lines, start=1):
        film, *words = line.split() or [""]
        if film.lower().startswith("mdb"):
            earlier = rows.setdefault(film, [])
            try:
                finding = _finding(film, words, earlier)
            except ValueError as error:
                raise UserError(f"{path}, line {number}: {error}; correct the row") from error
            earlier.append(words)
            listed[film] = listed.get(film, ()) + (() if finding is None else (finding,))
    if not listed:
        raise UserError(f"{path}: no row of the form 'mdb001 G CIRC B 535 425 197'; restore the official file")
    return listed


def located(findings: Iterable[Finding]) -> list[Disc]:
    """Return the discs of the findings with a known position.

    Examples:
        >>> located([Finding("CALC", "B", None), Finding("CIRC", "M", Disc(5, 6, 7))])
        [Disc(row=5, column=6, radius=7)]
    """
    return [finding.disc for finding in findings if finding.disc is not None]


def _finding(film: str, words: list[str], earlier: list[list[str]]) -> Finding | None:
    """Parse the words after the name of a film; None for a normal film.

    Raises:
        ValueError: a word is missing, unknown or contradicts an earlier row.
    """
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
    """Convert x, y, radius to a Disc; None for diffuse calcifications, which have no words or '*NOTE 3*'."""
    if not words or words[0].startswith("*NOTE"):
        return None
    if len(words) != 3 or not all(word.isdecimal() for word in words):
        raise ValueError(f"{' '.join(words)!r} is not x, y and radius in whole pixels")
    x, y, radius = map(int, words)
    if x >= FRAME or y > FRAME or not 0 < radius < FRAME:
        raise ValueError(f"x {x}, y {y}, radius {radius} are outside the film of {FRAME} pixels")
    return Disc(min(FRAME - 1, FRAME - y), x, radius)
