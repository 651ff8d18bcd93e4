"""MIAS patches of 120×120 pixels: 207 normal ones, one per normal film, and 117 around an abnormality.

Files and Info.txt are those of `mias`. Of the 119 abnormalities with a position, one is too close to the edge for a
patch (mdb144). The source paper counts 117 without stating which other one it leaves out. Two rules give that count:
"merge" merges abnormalities that are closer than half a patch (mdb005), "small" leaves out radii below 5 (mdb212). The
paper does not state the positions of the normal patches either; it reports poor results for all methods on them.
"""

from __future__ import annotations

import math
import zlib
from collections.abc import Iterable
from pathlib import Path
from typing import Any, ClassVar, Literal

import cv2
import numpy as np

from anomaly_lab.data.datamodule import PatchDataModule
from anomaly_lab.data.datasets.mias import WHERE_TO_GET, Film, breast, chest_is_left, class_of, discs, films, info_of
from anomaly_lab.data.datasets.mias_info import FRAME, Disc, located, read_info
from anomaly_lab.data.readers.pictures import read_image
from anomaly_lab.data.readers.scan import Scan
from anomaly_lab.data.twins.mias import write_twin
from anomaly_lab.types import Case, Seed

SIDE = 120  # side of a patch in pixels
NEAR = 60  # "merge" merges abnormalities whose centres are closer than this many pixels
SMALL = 5  # "small" leaves out abnormalities with a radius below this many pixels
WITHIN = 0.95  # minimum fraction of a normal patch that is breast
SKIN = 30  # minimum distance in pixels from the centre of a normal patch to the edge of the breast

Box = tuple[int, int, int, int]


class MIASPatches(PatchDataModule):
    """Patches around the abnormalities, and one from each normal film.

    Examples:
        >>> import tempfile
        >>> data = MIASPatches(root="none", source="twin")
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     data.write_twin(Path(folder), seed=0, size=4)
        ...     [(case.id, case.label) for case in data.cases(Path(folder))]
        [('mdb001', 0), ('mdb002', 0), ('mdb003', 0), ('mdb004-1', 1)]
    """

    name = "mias_patches"
    brightness = "bright"  # dense masses and calcifications
    where_to_get = WHERE_TO_GET
    twin_version = 1
    version = 1
    official: ClassVar[dict[str, int]] = {"images": 324, "normal": 207, "anomalous": 117}

    def __init__(
        self,
        *,
        rule: Literal["merge", "small"] = "merge",
        location: Literal["mask", "centre", "match"] = "mask",
        location_seed: Seed = 0,
        class_by: Literal["finding", "severity"] = "finding",
        **arguments: Any,
    ) -> None:
        """Set the options of this data set.

        Args:
            rule: which of the 118 abnormalities with a complete patch has no patch of its own (see the module).
            location: position of a normal patch: "mask" anywhere within the breast; "centre" at the centre of the
                breast; "match" at the position of an abnormality of another film, mirrored to the side of this film, so
                that the position does not reveal the label.
            location_seed: seed of the positions, separate from `seed`, so that all splits use the same patches.
            class_by: names the class of an abnormality by "finding" (such as CALC) or "severity" (benign, malignant).
            **arguments: arguments of PatchDataModule.
        """
        super().__init__(**arguments)
        self.rule, self.location, self.location_seed = rule, location, location_seed
        self.class_by: Literal["finding", "severity"] = class_by

    def cases(self, root: Path) -> list[Case]:
        """List the patches by film; `read` determines the box of a normal patch."""
        return [case for name, film in films(root).items() for case in self._patches(name, film)]

    def read(self, case: Case) -> Scan:
        """Read a patch from its film; its mask has the discs of all abnormalities that overlap it."""
        pixels = read_image(case.image, self.in_channels, self.picture)
        places = located(read_info(case.mask)[case.image.stem]) if case.mask else []
        mask = discs(places, case.image, pixels)
        row, column, height, width = case.box or self._place(case, pixels)
        cut = (slice(None), slice(row, row + height), slice(column, column + width))
        return Scan(np.ascontiguousarray(pixels[cut]), np.ascontiguousarray(mask[cut]))

    def read_new(self, case: Case) -> Scan:
        """Read a picture that is a patch as a whole; whoever has a film cuts it."""
        return PatchDataModule.read(self, case)

    def protocol(self) -> dict[str, Any]:
        """Return the options that change the pixels."""
        return {"rule": self.rule, "location": self.location, "location_seed": self.location_seed}

    def write_twin(self, root: Path, seed: int, size: int) -> None:
        """Write synthetic films in the official layout."""
        write_twin(root, seed, size)

    def _patches(self, name: str, film: Film) -> list[Case]:
        if not film.findings:
            return [Case(id=name, patient=film.patient, image=film.path, label=0)]
        return [
            Case(
                id=f"{name}-{number}",
                patient=film.patient,
                image=film.path,
                label=1,
                mask=film.info,
                class_name=class_of([film.findings[number - 1]], self.class_by),
                box=box,
            )
            for number, box in boxes([finding.disc for finding in film.findings], self.rule).items()
        ]

    def _place(self, case: Case, pixels: np.ndarray) -> Box:
        """Return the box of a normal patch, which depends on the film's name and `location_seed` only."""
        breast_mask = breast(pixels)
        rng = np.random.default_rng([self.location_seed, zlib.crc32(case.id.encode())])
        if self.location == "centre":
            corner = np.array([where.mean() for where in np.nonzero(breast_mask[0])]) - SIDE / 2
            row, column = corner.round().astype(int).clip(0, FRAME - SIDE)
        elif self.location == "mask":
            row, column = _anywhere(breast_mask, rng)
        else:
            row, column = _like_an_abnormality(breast_mask, case.image, rng)
        return int(row), int(column), SIDE, SIDE


def boxes(places: Iterable[Disc | None], rule: Literal["merge", "small"]) -> dict[int, Box]:
    """Return the patches around the abnormalities of one film; patches that exceed the film are left out.

    Args:
        places: the abnormalities in their order; None for one without a position.
        rule: "merge" merges close abnormalities, "small" leaves out small ones.

    Returns:
        Number of the (first) abnormality of a patch, from 1, and its box (row, column, height, width).

    Examples:
        >>> boxes([Disc(500, 500, 20), Disc(520, 530, 9), None, Disc(10, 500, 9)], "merge")
        {1: (450, 455, 120, 120)}
    """
    groups: dict[int, list[Disc]] = {}
    for number, place in enumerate(places, start=1):
        if place is None or (rule == "small" and place.radius < SMALL):
            continue
        near = [n for n, group in groups.items() if rule == "merge" and any(_distance(place, o) < NEAR for o in group)]
        groups.setdefault(near[0] if near else number, []).append(place)
    corners = {n: np.mean([disc[:2] for disc in group], axis=0).astype(int) - SIDE // 2 for n, group in groups.items()}
    return {
        n: (int(c[0]), int(c[1]), SIDE, SIDE) for n, c in corners.items() if c.min() >= 0 and c.max() <= FRAME - SIDE
    }


def _distance(first: Disc, second: Disc) -> float:
    return math.hypot(first.row - second.row, first.column - second.column)


def _shares(breast_mask: np.ndarray) -> np.ndarray:
    """Return the fraction of breast in the patch at each upper left corner, [H - SIDE + 1, W - SIDE + 1]."""
    sums = cv2.integral(breast_mask[0].astype(np.uint8))
    inside = sums[SIDE:, SIDE:] - sums[:-SIDE, SIDE:] - sums[SIDE:, :-SIDE] + sums[:-SIDE, :-SIDE]
    return np.asarray(inside / SIDE**2)


def _anywhere(breast_mask: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Return the upper left corner of a random patch within the breast or, if there is none, with the most breast."""
    shares = _shares(breast_mask)
    depth = cv2.distanceTransform(breast_mask[0].astype(np.uint8), cv2.DIST_L2, 5)
    deep = depth[SIDE // 2 : SIDE // 2 + shares.shape[0], SIDE // 2 : SIDE // 2 + shares.shape[1]] > SKIN
    fit = (shares >= WITHIN) & deep
    corners = np.argwhere(fit if fit.any() else shares == shares.max())
    return np.asarray(corners[rng.integers(len(corners))])


def _like_an_abnormality(breast_mask: np.ndarray, path: Path, rng: np.random.Generator) -> np.ndarray:
    """Return the upper left corner of a patch at the position of a random abnormality of the data set.

    Positions within the breast of this film are preferred; if there are none, the one with the most breast is taken.
    """
    shares, left = _shares(breast_mask), chest_is_left(path.stem, breast_mask)
    corners = []
    for film, findings in read_info(info_of(path.parent)).items():
        mirrored = left != chest_is_left(film, breast_mask)
        for row, column, _, _ in boxes([finding.disc for finding in findings], "merge").values():
            corners.append((row, FRAME - SIDE - column if mirrored else column))
    drawn = rng.permutation(np.array(corners or [(FRAME // 2, FRAME // 2)]))
    full = shares[drawn[:, 0], drawn[:, 1]]
    return np.asarray(drawn[np.argmax(full >= min(WITHIN, float(full.max())))])
