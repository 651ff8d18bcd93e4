"""RSNA Pneumonia Detection Challenge (Kaggle, 2018): 26 684 frontal chest X-rays, 6 012 with a lung opacity.

Layout: `stage_2_train_images/<patientId>.dcm`, `stage_2_train_labels.csv` (patientId, x, y, width, height, Target; a
row for each box, a row without box for the others) and `stage_2_detailed_class_info.csv` (patientId, class; as many
rows). Where there is no DICOM file, PNG copies are read: `<patientId>.png` in stage_2_train_images,
stage_2_train_images_png or images. The 3 000 pictures of stage_2_test_images have no labels and are not used.
Protocol of MedIAnomaly: 3 851 normal train, 1 000 normal and 1 000 with an opacity are judged (DATASETS §7).
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import replace
from functools import lru_cache
from pathlib import Path
from typing import Any, ClassVar, Literal, NamedTuple

import numpy as np

from anomaly_lab.data.datamodule import PatchDataModule
from anomaly_lab.data.readers.scan import Scan
from anomaly_lab.data.readers.tables import read_table
from anomaly_lab.data.readers.tree import is_seen
from anomaly_lab.data.twins.rsna import write_twin
from anomaly_lab.types import Case, UserError

NORMAL, OTHER, OPACITY = "Normal", "No Lung Opacity / Not Normal", "Lung Opacity"
FRAME = 1024  # pixels: side of every official picture, which PNG copies may be smaller than
_BOX = ("x", "y", "width", "height")
_PLACES = (
    ("stage_2_train_images", ".dcm"),
    ("stage_2_train_images", ".png"),
    ("stage_2_train_images_png", ".png"),
    ("images", ".png"),
)


class Boxes(NamedTuple):
    """What stage_2_train_labels.csv says.

    Attributes:
        rows: number of its rows.
        of: of each patientId (x, y, width, height) in pixels from the upper left; empty where Target is 0.
    """

    rows: int
    of: dict[str, list[tuple[float, ...]]]


class RSNA(PatchDataModule):
    """Chest X-rays, one patientId each; lesions are the union of boxes, so pixel measures are coarse.

    Args:
        anomalies: "opacity" judges lung opacities and leaves the class 'No Lung Opacity / Not Normal' out,
            "all_abnormal" judges both (the latter without a known lesion).
        arguments: those of PatchDataModule.
    """

    name = "rsna"
    where_to_get = (
        "get 'rsna-pneumonia-detection-challenge' from Kaggle and lay it out as stage_2_train_images/<patientId>.dcm "
        "(or .png) with stage_2_train_labels.csv and stage_2_detailed_class_info.csv beside that folder"
    )
    twin_version = 1
    official: ClassVar[dict[str, int]] = {
        "images": 26_684,
        "rows of stage_2_train_labels.csv": 30_227,
        NORMAL: 8_851,
        OTHER: 11_821,
        OPACITY: 6_012,
    }

    def __init__(self, *, anomalies: Literal["opacity", "all_abnormal"] = "opacity", **arguments: Any) -> None:
        super().__init__(**arguments)
        if anomalies not in {"opacity", "all_abnormal"}:
            raise UserError(f"data.anomalies={anomalies}: it is opacity or all_abnormal")
        self.anomalous = {OPACITY} if anomalies == "opacity" else {OPACITY, OTHER}
        self._census: dict[str, int] = {}

    def cases(self, root: Path) -> list[Case]:
        """List the pictures that are normal or count as anomalous, in the order of their ids."""
        labels_csv = root / "stage_2_train_labels.csv"
        boxes, classes = read_boxes(labels_csv), read_classes(root / "stage_2_detailed_class_info.csv")
        _agree(root, boxes, classes)
        pictures = self._pictures(root)
        used = {i for i, kind in classes.items() if kind == NORMAL or kind in self.anomalous}
        _refuse(labels_csv, "pictures without a label", pictures.keys() - classes.keys())
        _refuse(labels_csv, "ids without a picture", used - pictures.keys())
        there = [kind for i, kind in classes.items() if i in pictures]
        rows = {"rows of stage_2_train_labels.csv": boxes.rows}
        self._census = {"images": len(there), **rows, **Counter(there)}
        return [
            Case(
                id=i,
                patient=i,
                image=pictures[i],
                label=int(classes[i] != NORMAL),
                mask=labels_csv if boxes.of[i] else None,
                class_name=classes[i] if classes[i] != NORMAL else "",
            )
            for i in sorted(used)
        ]

    def census(self, cases: Sequence[Case]) -> dict[str, int]:
        """Count what the lists hold of the pictures that are there, used or not."""
        return self._census

    def read(self, case: Case) -> Scan:
        """Read the picture; the mask of an opacity is the union of its boxes, which `case.mask` lists."""
        scan = super().read(replace(case, mask=None))
        if case.mask is None:
            return scan
        height, width = scan.shape
        copy = case.image.suffix == ".png"  # whatever its size, its boxes are those of the official picture
        scale = (width / FRAME, height / FRAME) if copy else (1.0, 1.0)
        mask = np.zeros((1, height, width), bool)
        for x, y, w, h in _boxes_at(case.mask, case.mask.stat().st_mtime_ns).of[case.id]:
            left, right = round(x * scale[0]), round((x + w) * scale[0])
            top, bottom = round(y * scale[1]), round((y + h) * scale[1])
            if right > width or bottom > height:
                raise UserError(
                    f"{case.mask}: a box of {case.id} ends at column {right}, row {bottom} of {case.image}, which has "
                    f"{width} × {height}; put it right, or leave such files out with data.store.on_bad=skip"
                )
            mask[:, top:bottom, left:right] = True
        return replace(scan, mask=mask)

    def write_twin(self, root: Path, seed: int, size: int) -> None:
        """Write synthetic X-rays of the same layout."""
        write_twin(root, seed, size)

    def _pictures(self, root: Path) -> dict[str, Path]:
        """Path of the picture of every id, from the first place that holds any."""
        for folder, suffix in _PLACES:
            found = {path.stem: path for path in (root / folder).glob(f"*{suffix}") if is_seen(path.name)}
            if found:
                return found
        raise UserError(f"{root}: no pictures in stage_2_train_images; {self.where_to_get}")


def read_boxes(path: Path) -> Boxes:
    """Read stage_2_train_labels.csv.

    Raises:
        UserError: a Target other than 0 or 1 or at odds with the box, a box that is no box, ids with both Targets.
    """
    boxes, rows = Boxes(0, {}), 0
    for place, row in read_table(path, ("patientId", *_BOX, "Target")):
        rows += 1
        box = _box(place, row)
        of_id = boxes.of.setdefault(row["patientId"], box)
        if of_id is not box:
            if not (of_id and box):
                raise UserError(f"{place}: patientId {row['patientId']} is listed with and without a box; keep one")
            of_id.extend(box)
    return boxes._replace(rows=rows)


def read_classes(path: Path) -> dict[str, str]:
    """Read stage_2_detailed_class_info.csv: class of every patientId.

    Raises:
        UserError: a class that is none of the three, an id with two classes.
    """
    classes: dict[str, str] = {}
    for place, row in read_table(path, ("patientId", "class")):
        kind = row["class"]
        if kind not in {NORMAL, OTHER, OPACITY}:
            raise UserError(f"{place}: class is {kind!r}, not one of {NORMAL}, {OTHER}, {OPACITY}; put it right")
        if classes.setdefault(row["patientId"], kind) != kind:
            raise UserError(f"{place}: patientId {row['patientId']} has two classes; keep one")
    return classes


@lru_cache(maxsize=1)
def _boxes_at(path: Path, changed: int) -> Boxes:
    """Read the boxes once for all pictures, and again when the file has changed."""
    return read_boxes(path)


def _box(place: str, row: dict[str, str]) -> list[tuple[float, ...]]:
    """The one box of a row, or none."""
    cells = [row[column] for column in _BOX]
    if not row["patientId"]:
        raise UserError(f"{place}: there is no patientId; put it right")
    if row["Target"] not in {"0", "1"}:
        raise UserError(f"{place}: Target is {row['Target']!r}, not 0 or 1; put it right")
    if row["Target"] == "0":
        if any(cells):
            raise UserError(f"{place}: Target is 0 beside a box; put it right")
        return []
    try:
        x, y, width, height = map(float, cells)
    except ValueError as error:
        raise UserError(f"{place}: the box {', '.join(cells)} is not four numbers; put it right") from error
    if not (min(x, y) >= 0 < min(width, height) and max(x, y) + max(width, height) < math.inf):
        raise UserError(f"{place}: the box {', '.join(cells)} is empty or out of the picture; put it right")
    return [(x, y, width, height)]


def _agree(root: Path, boxes: Boxes, classes: dict[str, str]) -> None:
    """Refuse two lists that tell of other ids, or of boxes where the class has none."""
    other = root / "stage_2_detailed_class_info.csv"
    _refuse(other, "ids that stage_2_train_labels.csv does not have", classes.keys() - boxes.of.keys())
    _refuse(other, "no class for the ids", boxes.of.keys() - classes.keys())
    odd = {i for i, kind in classes.items() if bool(boxes.of[i]) != (kind == OPACITY)}
    _refuse(other, "class and Target of stage_2_train_labels.csv disagree for", odd)


def _refuse(path: Path, fault: str, ids: Iterable[str]) -> None:
    some = sorted(ids)
    if some:
        more = f" and {len(some) - 5} more" if len(some) > 5 else ""
        raise UserError(f"{path}: {fault}: {', '.join(some[:5])}{more}; complete the data set or take the rows out")
