"""RSNA Pneumonia Detection Challenge (Kaggle, 2018): 26 684 frontal chest X-rays, 6 012 with a lung opacity.

Layout: `stage_2_train_images/<patientId>.dcm`, `stage_2_train_labels.csv` (patientId, x, y, width, height, Target; one
row per box, and a row without box for pictures without opacity) and `stage_2_detailed_class_info.csv` (patientId,
class; with as many rows). If there are no DICOM files, PNG copies are read: `<patientId>.png` in stage_2_train_images,
stage_2_train_images_png or images. The 3 000 pictures of stage_2_test_images have no labels and are not used.
Protocol of MedIAnomaly: 3 851 normal pictures train; 1 000 normal ones and 1 000 with an opacity are the test split.
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
FRAME = 1024  # side of every official picture in pixels; PNG copies may be smaller
_BOX = ("x", "y", "width", "height")
_PLACES = (
    ("stage_2_train_images", ".dcm"),
    ("stage_2_train_images", ".png"),
    ("stage_2_train_images_png", ".png"),
    ("images", ".png"),
)


class Boxes(NamedTuple):
    """Content of stage_2_train_labels.csv.

    Attributes:
        rows: number of rows.
        of: boxes of each patientId as (x, y, width, height) in pixels from the upper left; empty if Target is 0.
    """

    rows: int
    of: dict[str, list[tuple[float, ...]]]


class RSNA(PatchDataModule):
    """Chest X-rays, one per patientId; masks are unions of boxes, so pixel-wise metrics are coarse.

    Args:
        anomalies: "opacity": the anomalous pictures are those with a lung opacity, and the class
            'No Lung Opacity / Not Normal' is left out; "all_abnormal": both classes are anomalous (the latter has no
            mask).
        arguments: arguments of PatchDataModule.

    Examples:
        >>> import tempfile
        >>> data = RSNA(root="none", source="twin")
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     data.write_twin(Path(folder), seed=0, size=20)
        ...     cases = data.cases(Path(folder))
        >>> len(cases), sum(case.label for case in cases)  # three of the 20 are in the class that is left out
        (17, 5)
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
            raise UserError(f"data.anomalies={anomalies}: takes opacity or all_abnormal")
        self.anomalous = {OPACITY} if anomalies == "opacity" else {OPACITY, OTHER}
        self._census: dict[str, int] = {}

    def cases(self, root: Path) -> list[Case]:
        """List the pictures that are normal or count as anomalous, in the order of their ids."""
        labels_csv = root / "stage_2_train_labels.csv"
        boxes, classes = read_boxes(labels_csv), read_classes(root / "stage_2_detailed_class_info.csv")
        _validate_agreement(root, boxes, classes)
        pictures = self._pictures(root)
        used = {i for i, class_name in classes.items() if class_name == NORMAL or class_name in self.anomalous}
        _require_none(labels_csv, "pictures without a label", pictures.keys() - classes.keys())
        _require_none(labels_csv, "ids without a picture", used - pictures.keys())
        present = [class_name for i, class_name in classes.items() if i in pictures]
        rows = {"rows of stage_2_train_labels.csv": boxes.rows}
        self._census = {"images": len(present), **rows, **Counter(present)}
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
        """Count the rows and classes of all pictures that are present, whether they are used or not."""
        return self._census

    def read(self, case: Case) -> Scan:
        """Read the picture; the mask is the union of its boxes in the file `case.mask`."""
        scan = super().read(replace(case, mask=None))
        if case.mask is None:
            return scan
        height, width = scan.shape
        copy = case.image.suffix == ".png"  # boxes refer to the official size, whatever the size of the copy
        scale = (width / FRAME, height / FRAME) if copy else (1.0, 1.0)
        mask = np.zeros((1, height, width), bool)
        for x, y, w, h in _boxes_at(case.mask, case.mask.stat().st_mtime_ns).of[case.id]:
            left, right = round(x * scale[0]), round((x + w) * scale[0])
            top, bottom = round(y * scale[1]), round((y + h) * scale[1])
            if right > width or bottom > height:
                raise UserError(
                    f"{case.mask}: a box of {case.id} ends at column {right}, row {bottom} of {case.image}, which has "
                    f"{width} × {height}; correct it, or leave such files out with data.store.on_bad=skip"
                )
            mask[:, top:bottom, left:right] = True
        return replace(scan, mask=mask)

    def write_twin(self, root: Path, seed: int, size: int) -> None:
        """Write synthetic X-rays in the official layout."""
        write_twin(root, seed, size)

    def _pictures(self, root: Path) -> dict[str, Path]:
        """Return the picture of every id, from the first folder with pictures."""
        for folder, suffix in _PLACES:
            pictures = {path.stem: path for path in (root / folder).glob(f"*{suffix}") if is_seen(path.name)}
            if pictures:
                return pictures
        raise UserError(f"{root}: no pictures in stage_2_train_images; {self.where_to_get}")


def read_boxes(path: Path) -> Boxes:
    r"""Read stage_2_train_labels.csv.

    Raises:
        UserError: a Target is not 0 or 1 or contradicts the box, a box is invalid, or an id has both Targets.

    Examples:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     path = Path(folder) / "stage_2_train_labels.csv"
        ...     _ = path.write_text("patientId,x,y,width,height,Target\na,1,2,3,4,1\n")
        ...     read_boxes(path).of
        {'a': [(1.0, 2.0, 3.0, 4.0)]}
    """
    boxes, rows = Boxes(0, {}), 0
    for place, row in read_table(path, ("patientId", *_BOX, "Target")):
        rows += 1
        box = _box(place, row)
        of_id = boxes.of.setdefault(row["patientId"], box)
        if of_id is not box:
            if not (of_id and box):
                raise UserError(
                    f"{place}: patientId {row['patientId']} is listed with and without a box; keep one of the rows"
                )
            of_id.extend(box)
    return boxes._replace(rows=rows)


def read_classes(path: Path) -> dict[str, str]:
    r"""Read the class of every patientId from stage_2_detailed_class_info.csv.

    Raises:
        UserError: a class is none of the three, or an id has two classes.

    Examples:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     path = Path(folder) / "stage_2_detailed_class_info.csv"
        ...     _ = path.write_text("patientId,class\na,Normal\n")
        ...     read_classes(path)
        {'a': 'Normal'}
    """
    classes: dict[str, str] = {}
    for place, row in read_table(path, ("patientId", "class")):
        class_name = row["class"]
        if class_name not in {NORMAL, OTHER, OPACITY}:
            raise UserError(f"{place}: class is {class_name!r}, not one of {NORMAL}, {OTHER}, {OPACITY}; correct it")
        if classes.setdefault(row["patientId"], class_name) != class_name:
            raise UserError(f"{place}: patientId {row['patientId']} has two classes; keep one")
    return classes


@lru_cache(maxsize=1)
def _boxes_at(path: Path, changed: int) -> Boxes:
    """Read the boxes, cached until the file changes."""
    return read_boxes(path)


def _box(place: str, row: dict[str, str]) -> list[tuple[float, ...]]:
    """Return the box of a row, or an empty list."""
    cells = [row[column] for column in _BOX]
    if not row["patientId"]:
        raise UserError(f"{place}: the patientId is empty; correct it")
    if row["Target"] not in {"0", "1"}:
        raise UserError(f"{place}: Target is {row['Target']!r}, not 0 or 1; correct it")
    if row["Target"] == "0":
        if any(cells):
            raise UserError(f"{place}: Target is 0 beside a box; correct it")
        return []
    try:
        x, y, width, height = map(float, cells)
    except ValueError as error:
        raise UserError(f"{place}: the box {', '.join(cells)} is not four numbers; correct it") from error
    if not (min(x, y) >= 0 < min(width, height) and max(x, y) + max(width, height) < math.inf):
        raise UserError(f"{place}: the box {', '.join(cells)} is empty or outside the picture; correct it")
    return [(x, y, width, height)]


def _validate_agreement(root: Path, boxes: Boxes, classes: dict[str, str]) -> None:
    """Raise UserError if the two lists have different ids, or a box contradicts a class."""
    class_info = root / "stage_2_detailed_class_info.csv"
    _require_none(class_info, "ids that stage_2_train_labels.csv does not have", classes.keys() - boxes.of.keys())
    _require_none(class_info, "no class for the ids", boxes.of.keys() - classes.keys())
    contradictory = {i for i, class_name in classes.items() if bool(boxes.of[i]) != (class_name == OPACITY)}
    _require_none(class_info, "class and Target of stage_2_train_labels.csv disagree for", contradictory)


def _require_none(path: Path, fault: str, ids: Iterable[str]) -> None:
    names = sorted(ids)
    if names:
        more = f" and {len(names) - 5} more" if len(names) > 5 else ""
        raise UserError(f"{path}: {fault}: {', '.join(names[:5])}{more}; complete the data set or remove the rows")
