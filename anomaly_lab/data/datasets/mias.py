"""MIAS mammograms (J. Suckling et al. 1994, mini-MIAS): 322 films of 161 women, 207 normal, 115 with an abnormality.

Layout: `all-mias/mdb001.pgm … mdb322.pgm` (1024×1024, 8 bit) with `Info.txt` (`mias_info`) among them or one folder up.
Films 2k−1 (right breast) and 2k (left) are one woman's (DATASETS §5).
Source protocol: training on normals only, split not stated. ≠ paper: only the 53 women with two normal films can train,
so that no woman is on both sides.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any, ClassVar, Literal, NamedTuple

import cv2
import numpy as np

from anomaly_lab.data.datamodule import PatchDataModule
from anomaly_lab.data.datasets.mias_info import FRAME, Disc, Finding, located, read_info
from anomaly_lab.data.readers.pictures import read_image
from anomaly_lab.data.readers.scan import Scan
from anomaly_lab.data.twins.mias import write_twin
from anomaly_lab.types import Case, UserError

COMPLETE = 0.9  # share of the listed films from which a missing one is a fault, not a part of the set
MARK_WIDTH = 9  # pixels; thinner marks are cut off the breast
WHERE_TO_GET = (
    "get the mini-MIAS database (peipa.essex.ac.uk) and lay it out as all-mias/mdb001.pgm and all-mias/Info.txt"
)


class Film(NamedTuple):
    """A picture with what Info.txt says of it; a normal film has no findings."""

    path: Path
    info: Path
    findings: tuple[Finding, ...]

    @property
    def patient(self) -> str:
        """Number of the woman, whose two films follow each other."""
        return f"{(int(self.path.stem[3:]) + 1) // 2:03d}"


class MIAS(PatchDataModule):
    """Whole mammograms; the mask of an abnormal one is the discs of its row."""

    name = "mias"
    where_to_get = WHERE_TO_GET
    twin_version = 1
    version = 1
    official: ClassVar[dict[str, int]] = {"images": 322, "normal": 207, "anomalous": 115}

    def __init__(self, *, crop: Literal["none", "breast"] = "none", **arguments: Any) -> None:
        """See PatchDataModule for the other arguments.

        Args:
            crop: "breast" blackens labels and scanner marks, cuts the breast out and mirrors left ones to look right.
        """
        super().__init__(**arguments)
        self.crop = crop

    def cases(self, root: Path) -> list[Case]:
        """List the films in the order of their numbers."""
        return [_case(name, film) for name, film in films(root).items()]

    def read(self, case: Case) -> Scan:
        """Read a film and draw its discs."""
        pixels = read_image(case.image, self.in_channels, self.picture)
        mask = None if case.mask is None else discs(located(read_info(case.mask)[case.id]), case.image, pixels)
        seen = breast(pixels)
        if self.crop == "none":
            return Scan(pixels, mask, foreground=seen)
        rows, columns = _box(seen)
        turn = slice(None, None, -1 if chest_is_left(case.image.stem, seen) else 1)
        cut = [None if a is None else a[:, rows, columns][..., turn] for a in (pixels * seen, mask, seen)]
        return Scan(np.ascontiguousarray(cut[0]), cut[1], foreground=cut[2])

    def protocol(self) -> dict[str, Any]:
        """Tell what changes the pictures."""
        return {"crop": self.crop}

    def write_twin(self, root: Path, seed: int, size: int) -> None:
        """Write synthetic films of the same layout."""
        write_twin(root, seed, size)


def films(root: Path) -> dict[str, Film]:
    """Match the pictures below `root` with the rows of Info.txt, by film, in the order of their numbers.

    Raises:
        UserError: no pictures, no Info.txt, a faulty row, a picture without a row, or a few rows without a picture
            (a part of the set, below COMPLETE, is taken as it is).
    """
    folder = next((f for f in (root / "all-mias", root) if any(f.glob("mdb*.pgm"))), None)
    if folder is None:
        raise UserError(f"{root}: no pictures mdb*.pgm here or in all-mias; {WHERE_TO_GET}")
    pictures = {path.stem: path for path in sorted(folder.glob("mdb*.pgm"))}
    info = info_of(folder)
    listed = read_info(info)
    _refuse(info, "pictures without a row", pictures.keys() - listed.keys())
    if len(pictures) > COMPLETE * len(listed):
        _refuse(info, f"rows without a picture in {folder}", listed.keys() - pictures.keys())
    return {name: Film(path, info, listed[name]) for name, path in pictures.items()}


def info_of(folder: Path) -> Path:
    """Find Info.txt beside the pictures in `folder` or one folder up, as some mirrors have it."""
    for place in (folder, folder.parent):
        if (place / "Info.txt").exists():
            return place / "Info.txt"
    raise UserError(f"{folder / 'Info.txt'}: no such file; it says which films are normal: {WHERE_TO_GET}")


def discs(places: Iterable[Disc], path: Path, pixels: np.ndarray) -> np.ndarray:
    """Draw filled discs, bool [1, H, W], over the picture `pixels` [C, H, W] read from `path`.

    Raises:
        UserError: the picture has not the size in which Info.txt counts.
    """
    if pixels.shape[1:] != (FRAME, FRAME):
        size = " x ".join(map(str, pixels.shape[1:]))
        raise UserError(
            f"{path}: {size} pixels, where Info.txt counts in {FRAME} x {FRAME}; "
            "replace it, or leave such files out with data.store.on_bad=skip"
        )
    canvas = np.zeros((FRAME, FRAME), np.uint8)
    for place in places:
        cv2.circle(canvas, (place.column, place.row), place.radius, 1, thickness=-1)
    return canvas[None].astype(bool)


def breast(pixels: np.ndarray) -> np.ndarray:
    """Find the breast in a film [C, H, W]: the largest bright region, thin marks cut off; bool [1, H, W].

    Otsu's threshold is taken of logarithms: of grey levels it would part dense tissue from fat, not film from breast.
    """
    grey = np.log1p(pixels.mean(0, dtype=np.float32))
    levels = (grey * (255 / max(float(grey.max()), 1e-6))).astype(np.uint8)
    _, bright = cv2.threshold(levels, 0, 1, cv2.THRESH_BINARY | cv2.THRESH_OTSU)
    bright = cv2.morphologyEx(bright, cv2.MORPH_OPEN, np.ones((MARK_WIDTH, MARK_WIDTH), np.uint8))
    _, regions, facts, _ = cv2.connectedComponentsWithStats(np.asarray(bright))
    if len(facts) == 1:  # nothing but background
        return np.ones((1, *pixels.shape[1:]), bool)
    return np.asarray(regions == 1 + facts[1:, cv2.CC_STAT_AREA].argmax())[None]


def chest_is_left(name: str, seen: np.ndarray) -> bool:
    """Tell whether the chest wall lies left: by the README in even films; else where the breast ends straight.

    Args:
        name: of the film, "mdb002", or any other.
        seen: the breast, bool [1, H, W].
    """
    if number := re.fullmatch(r"mdb(\d+)", name):
        return int(number[1]) % 2 == 0
    rows, columns = _box(seen)
    across = seen[0, rows, columns].sum(0)
    edge = max(1, len(across) // 10)
    return bool(across[:edge].sum() > across[-edge:].sum())


def _case(name: str, film: Film) -> Case:
    known = bool(film.findings) and all(finding.disc for finding in film.findings)
    return Case(
        id=name,
        patient=film.patient,
        image=film.path,
        label=int(bool(film.findings)),
        mask=film.info if known else None,  # where its discs are listed; read() draws them
        class_name=film.findings[0].class_name if film.findings else "",
    )


def _refuse(info: Path, fault: str, names: Iterable[str]) -> None:
    if some := sorted(names)[:5]:
        raise UserError(f"{info}: {fault}: {', '.join(some)}; complete the data set")


def _box(seen: np.ndarray) -> tuple[slice, slice]:
    """Rows and columns that hold all of `seen`, bool [1, H, W]."""
    column, row, width, height = cv2.boundingRect(seen[0].astype(np.uint8))
    return slice(row, row + height), slice(column, column + width)
