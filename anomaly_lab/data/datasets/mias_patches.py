"""MIAS patches: 120×120 pixels of a mammogram, 207 normal (one of each normal film), 117 about an abnormality.

Files and Info.txt as in `mias`. Of the 119 located abnormalities one lies too near the edge for a patch (mdb144). The
source counts 117 and does not say which other one it leaves out; two rules give that count: "merge" takes two that are
nearer than half a patch as one (mdb005), "small" leaves radii below 5 out (mdb212). Where it took the normal patches is
not stated either (DATASETS §6); it calls all methods poor on them.
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
from anomaly_lab.data.datasets.mias import WHERE_TO_GET, Film, breast, chest_is_left, discs, films, info_of
from anomaly_lab.data.datasets.mias_info import FRAME, Disc, located, read_info
from anomaly_lab.data.readers.pictures import read_image
from anomaly_lab.data.readers.scan import Scan
from anomaly_lab.data.twins.mias import write_twin
from anomaly_lab.types import Case, Seed

SIDE = 120  # pixels of a patch
NEAR = 60  # pixels between two centres that "merge" takes as one
SMALL = 5  # radius, in pixels, below which "small" leaves one out
WITHIN = 0.95  # share of a normal patch that is breast
SKIN = 30  # pixels that the centre of a normal patch keeps from the breast's edge

Box = tuple[int, int, int, int]


class MIASPatches(PatchDataModule):
    """Patches about the abnormalities, and one from each normal film."""

    name = "mias_patches"
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
        **arguments: Any,
    ) -> None:
        """See PatchDataModule for the other arguments.

        Args:
            rule: which of the 118 abnormalities within the frame is not a patch of its own.
            location: where a normal patch lies: "mask" anywhere within the breast, "centre" at the breast's centre,
                "match" where some abnormality lies, mirrored to the film's side, so that its place tells nothing.
            location_seed: of that draw, apart from `seed` so that all splits see the same patches.
        """
        super().__init__(**arguments)
        self.rule, self.location, self.location_seed = rule, location, location_seed

    def cases(self, root: Path) -> list[Case]:
        """List the patches by film; a normal one has no box yet, `read` finds it."""
        return [case for name, film in films(root).items() for case in self._patches(name, film)]

    def read(self, case: Case) -> Scan:
        """Cut the patch out of its film, with the discs of all abnormalities of the film that reach into it."""
        pixels = read_image(case.image, self.in_channels, self.picture)
        places = located(read_info(case.mask)[case.image.stem]) if case.mask else []
        mask = discs(places, case.image, pixels)
        row, column, height, width = case.box or self._place(case, pixels)
        cut = (slice(None), slice(row, row + height), slice(column, column + width))
        return Scan(np.ascontiguousarray(pixels[cut]), np.ascontiguousarray(mask[cut]))

    def protocol(self) -> dict[str, Any]:
        """Tell what changes the pictures."""
        return {"rule": self.rule, "location": self.location, "location_seed": self.location_seed}

    def write_twin(self, root: Path, seed: int, size: int) -> None:
        """Write synthetic films of the same layout."""
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
                class_name=film.findings[number - 1].class_name,
                box=box,
            )
            for number, box in boxes([finding.disc for finding in film.findings], self.rule).items()
        ]

    def _place(self, case: Case, pixels: np.ndarray) -> Box:
        """Find a normal patch, by the film's name and `location_seed` alone."""
        seen = breast(pixels)
        rng = np.random.default_rng([self.location_seed, zlib.crc32(case.id.encode())])
        if self.location == "centre":
            corner = np.array([where.mean() for where in np.nonzero(seen[0])]) - SIDE / 2
            row, column = corner.round().astype(int).clip(0, FRAME - SIDE)
        elif self.location == "mask":
            row, column = _anywhere(seen, rng)
        else:
            row, column = _like_an_abnormality(seen, case.image, rng)
        return int(row), int(column), SIDE, SIDE


def boxes(places: Iterable[Disc | None], rule: Literal["merge", "small"]) -> dict[int, Box]:
    """Patches of one film: number of the (first) abnormality from 1, and (row, column, height, width).

    Args:
        places: of the film's abnormalities in their order; None where one has no place.
        rule: what to leave out besides patches that reach over the frame.
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


def _distance(one: Disc, other: Disc) -> float:
    return math.hypot(one.row - other.row, one.column - other.column)


def _shares(seen: np.ndarray) -> np.ndarray:
    """Share of breast in the patch at each corner, [H - SIDE + 1, W - SIDE + 1]."""
    sums = cv2.integral(seen[0].astype(np.uint8))
    inside = sums[SIDE:, SIDE:] - sums[:-SIDE, SIDE:] - sums[SIDE:, :-SIDE] + sums[:-SIDE, :-SIDE]
    return np.asarray(inside / SIDE**2)


def _anywhere(seen: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Corner of a patch that lies in the breast, its centre well away from the edge; else the fullest there is."""
    shares = _shares(seen)
    depth = cv2.distanceTransform(seen[0].astype(np.uint8), cv2.DIST_L2, 5)
    deep = depth[SIDE // 2 : SIDE // 2 + shares.shape[0], SIDE // 2 : SIDE // 2 + shares.shape[1]] > SKIN
    fit = (shares >= WITHIN) & deep
    corners = np.argwhere(fit if fit.any() else shares == shares.max())
    return np.asarray(corners[rng.integers(len(corners))])


def _like_an_abnormality(seen: np.ndarray, path: Path, rng: np.random.Generator) -> np.ndarray:
    """Corner of a patch where some abnormality lies, among those that are breast here; else the fullest of them."""
    shares, left = _shares(seen), chest_is_left(path.stem, seen)
    corners = []
    for film, findings in read_info(info_of(path.parent)).items():
        mirrored = left != chest_is_left(film, seen)
        for row, column, _, _ in boxes([finding.disc for finding in findings], "merge").values():
            corners.append((row, FRAME - SIDE - column if mirrored else column))
    drawn = rng.permutation(np.array(corners or [(FRAME // 2, FRAME // 2)]))
    full = shares[drawn[:, 0], drawn[:, 1]]
    return np.asarray(drawn[np.argmax(full >= min(WITHIN, float(full.max())))])
