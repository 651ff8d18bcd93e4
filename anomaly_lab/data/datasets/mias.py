"""MIAS mammograms (J. Suckling et al. 1994, mini-MIAS): 322 films of 161 women, 207 normal, 115 with an abnormality.

Layout: `all-mias/mdb001.pgm … mdb322.pgm` (1024×1024, 8 bit) with `Info.txt` (`mias_info`) in the same folder or its
parent. Films 2k−1 (right breast) and 2k (left breast) belong to the same woman.
Protocol of the source: training on normals only, split not stated. ≠ paper: only the 53 women with two normal films can
train, so that no woman is in two splits.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, ClassVar, Literal, NamedTuple

import cv2
import numpy as np

from anomaly_lab.data.datamodule import PatchDataModule
from anomaly_lab.data.datasets.mias_info import FRAME, Disc, Finding, located, read_info
from anomaly_lab.data.readers.pictures import read_image
from anomaly_lab.data.readers.scan import Origin, Scan
from anomaly_lab.data.twins.mias import write_twin
from anomaly_lab.types import Case, UserError

COMPLETE = 0.9  # if more than this fraction of the listed films is present, a missing film is an error
MARK_WIDTH = 9  # pixels; thinner marks are separated from the breast
WHERE_TO_GET = (
    "get the mini-MIAS database (peipa.essex.ac.uk) and lay it out as all-mias/mdb001.pgm and all-mias/Info.txt"
)


class Film(NamedTuple):
    """A picture with its findings in Info.txt; a normal film has none.

    Examples:
        >>> Film(Path("mdb004.pgm"), Path("Info.txt"), findings=()).patient
        '002'
    """

    path: Path
    info: Path
    findings: tuple[Finding, ...]

    @property
    def patient(self) -> str:
        """Number of the woman; her two films have consecutive numbers."""
        return f"{(int(self.path.stem[3:]) + 1) // 2:03d}"


class MIAS(PatchDataModule):
    """Whole mammograms; the mask of an abnormal one is the union of the discs in Info.txt.

    Examples:
        >>> import tempfile
        >>> data = MIAS(root="none", source="twin")
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     data.write_twin(Path(folder), seed=0, size=4)
        ...     [(case.id, case.patient, case.label) for case in data.cases(Path(folder))]
        [('mdb001', '001', 0), ('mdb002', '001', 0), ('mdb003', '002', 0), ('mdb004', '002', 1)]
    """

    name = "mias"
    brightness = "bright"  # dense masses and calcifications
    where_to_get = WHERE_TO_GET
    twin_version = 1
    version = 1
    official: ClassVar[dict[str, int]] = {"images": 322, "normal": 207, "anomalous": 115}

    def __init__(
        self,
        *,
        crop: Literal["none", "breast"] = "none",
        class_by: Literal["finding", "severity"] = "finding",
        **arguments: Any,
    ) -> None:
        """Set the options of this data set.

        Args:
            crop: "breast" blackens labels and scanner marks, crops the picture to the breast and mirrors it such that
                the chest wall is on the right; "none" keeps the whole film.
            class_by: "finding" names the class of an abnormal film after its first finding, such as CALC; "severity"
                names it benign or malignant, the latter if one of its findings is.
            **arguments: arguments of PatchDataModule.
        """
        super().__init__(**arguments)
        self.crop = crop
        self.class_by: Literal["finding", "severity"] = class_by

    def cases(self, root: Path) -> list[Case]:
        """List the films in the order of their numbers."""
        return [_case(name, film, self.class_by) for name, film in films(root).items()]

    def read(self, case: Case) -> Scan:
        """Read a film and draw the discs of its findings as the mask."""
        pixels = read_image(case.image, self.in_channels, self.picture)
        mask = None if case.mask is None else discs(located(read_info(case.mask)[case.id]), case.image, pixels)
        breast_mask = breast(pixels)
        if self.crop == "none":
            return Scan(pixels, mask, foreground=breast_mask)
        rows, columns = _box(breast_mask)
        turn = slice(None, None, -1 if chest_is_left(case.image.stem, breast_mask) else 1)
        cut = [None if a is None else a[:, rows, columns][..., turn] for a in (pixels * breast_mask, mask, breast_mask)]
        height, width = pixels.shape[1:]
        origin = Origin((height, width), range(height)[rows], range(width)[columns][turn])
        return Scan(np.ascontiguousarray(cut[0]), cut[1], foreground=cut[2], origin=origin)

    @property
    def of_files_alone(self) -> str:
        """The crop to the breast."""
        return f"data.crop={self.crop}" if self.crop != "none" else ""

    def protocol(self) -> dict[str, Any]:
        """Return the options that change the pixels."""
        return {"crop": self.crop}

    def write_twin(self, root: Path, seed: int, size: int) -> None:
        """Write synthetic films in the official layout."""
        write_twin(root, seed, size)


def films(root: Path) -> dict[str, Film]:
    """Match the pictures in `root` with the rows of Info.txt; by film name, in the order of their numbers.

    Raises:
        UserError: there are no pictures or no Info.txt, a row is faulty, a picture has no row, or a few rows have no
            picture (a data set that is mostly missing, see COMPLETE, is accepted as a part).

    Examples:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     write_twin(Path(folder), seed=0, size=4)
        ...     {name: len(film.findings) for name, film in films(Path(folder)).items()}
        {'mdb001': 0, 'mdb002': 0, 'mdb003': 0, 'mdb004': 1}
    """
    folder = next((f for f in (root / "all-mias", root) if any(f.glob("mdb*.pgm"))), None)
    if folder is None:
        raise UserError(f"{root}: no pictures mdb*.pgm here or in all-mias; {WHERE_TO_GET}")
    pictures = {path.stem: path for path in sorted(folder.glob("mdb*.pgm"))}
    info = info_of(folder)
    listed = read_info(info)
    _require_none(info, "pictures without a row", pictures.keys() - listed.keys())
    if len(pictures) > COMPLETE * len(listed):
        _require_none(info, f"rows without a picture in {folder}", listed.keys() - pictures.keys())
    return {name: Film(path, info, listed[name]) for name, path in pictures.items()}


def info_of(folder: Path) -> Path:
    """Return the path of Info.txt in `folder` or, as in some mirrors, in its parent.

    Raises:
        UserError: the file is in neither folder.

    Examples:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     (Path(folder) / "all-mias").mkdir()
        ...     (Path(folder) / "Info.txt").touch()
        ...     info_of(Path(folder) / "all-mias") == Path(folder) / "Info.txt"
        True
    """
    for place in (folder, folder.parent):
        if (place / "Info.txt").exists():
            return place / "Info.txt"
    raise UserError(f"{folder / 'Info.txt'}: no such file, which lists the normal films; {WHERE_TO_GET}")


def discs(places: Iterable[Disc], path: Path, pixels: np.ndarray) -> np.ndarray:
    """Draw filled discs as a mask, bool [1, H, W], on the grid of a picture.

    Args:
        places: the discs.
        path: the file of the picture, for error messages.
        pixels: the picture, [C, H, W].

    Raises:
        UserError: the picture does not have the size that Info.txt refers to.

    Examples:
        >>> mask = discs([Disc(row=100, column=200, radius=1)], Path("mdb001.pgm"), np.zeros((1, FRAME, FRAME)))
        >>> np.argwhere(mask[0]).tolist()
        [[99, 200], [100, 199], [100, 200], [100, 201], [101, 200]]
    """
    if pixels.shape[1:] != (FRAME, FRAME):
        size = " x ".join(map(str, pixels.shape[1:]))
        raise UserError(
            f"{path}: {size} pixels, where Info.txt refers to {FRAME} x {FRAME}; "
            "replace it, or leave such files out with data.store.on_bad=skip"
        )
    canvas = np.zeros((FRAME, FRAME), np.uint8)
    for place in places:
        cv2.circle(canvas, (place.column, place.row), place.radius, 1, thickness=-1)
    return canvas[None].astype(bool)


def breast(pixels: np.ndarray) -> np.ndarray:
    """Segment the breast in a film as its largest bright region without thin marks.

    Otsu's threshold is applied to the logarithm: on grey levels it would separate dense tissue from fat instead of the
    breast from the film.

    Args:
        pixels: the film, [C, H, W].

    Returns:
        The mask of the breast, bool [1, H, W]; True everywhere if the film is black.

    Examples:
        >>> film = np.zeros((1, 64, 64), np.uint8)
        >>> film[:, 10:40, 20:64] = 120
        >>> int(breast(film).sum())
        1320
    """
    grey = np.log1p(pixels.mean(0, dtype=np.float32))
    levels = (grey * (255 / max(float(grey.max()), 1e-6))).astype(np.uint8)
    _, bright = cv2.threshold(levels, 0, 1, cv2.THRESH_BINARY | cv2.THRESH_OTSU)
    bright = cv2.morphologyEx(bright, cv2.MORPH_OPEN, np.ones((MARK_WIDTH, MARK_WIDTH), np.uint8))
    _, regions, facts, _ = cv2.connectedComponentsWithStats(np.asarray(bright))
    if len(facts) == 1:  # only background
        return np.ones((1, *pixels.shape[1:]), bool)
    return np.asarray(regions == 1 + facts[1:, cv2.CC_STAT_AREA].argmax())[None]


def chest_is_left(name: str, seen: np.ndarray) -> bool:
    """Return whether the chest wall is on the left.

    For films of the data set this holds for even numbers, according to its README. For other pictures it is the side
    on which the breast has a straight edge.

    Args:
        name: name of the film, such as "mdb002".
        seen: mask of the breast, bool [1, H, W].

    Examples:
        >>> chest_is_left("mdb002", np.ones((1, 8, 8), bool))
        True
    """
    if number := re.fullmatch(r"mdb(\d+)", name):
        return int(number[1]) % 2 == 0
    rows, columns = _box(seen)
    across = seen[0, rows, columns].sum(0)
    edge = max(1, len(across) // 10)
    return bool(across[:edge].sum() > across[-edge:].sum())


def class_of(findings: Sequence[Finding], by: Literal["finding", "severity"]) -> str:
    """Return the class name of a film or patch with these findings, the first of which gives it its name.

    Examples:
        >>> findings = [Finding("CALC", "B", None), Finding("CIRC", "M", None)]
        >>> class_of(findings, "finding"), class_of(findings, "severity"), class_of([], "severity")
        ('CALC', 'malignant', '')
    """
    if not findings:
        return ""
    if by == "finding":
        return findings[0].class_name
    return "malignant" if any(finding.severity == "M" for finding in findings) else "benign"


def _case(name: str, film: Film, class_by: Literal["finding", "severity"]) -> Case:
    known = bool(film.findings) and all(finding.disc for finding in film.findings)
    return Case(
        id=name,
        patient=film.patient,
        image=film.path,
        label=int(bool(film.findings)),
        mask=film.info if known else None,  # the file with the discs, from which read() draws the mask
        class_name=class_of(film.findings, class_by),
    )


def _require_none(info: Path, fault: str, names: Iterable[str]) -> None:
    if examples := sorted(names)[:5]:
        raise UserError(f"{info}: {fault}: {', '.join(examples)}; complete the data set")


def _box(breast_mask: np.ndarray) -> tuple[slice, slice]:
    """Return the rows and columns of the bounding box of `breast_mask`, bool [1, H, W]."""
    column, row, width, height = cv2.boundingRect(breast_mask[0].astype(np.uint8))
    return slice(row, row + height), slice(column, column + width)
