"""Head-CT haemorrhage (Kaggle `head-ct-hemorrhage`, F. Kitamura): 200 slices, half of them anomalous.

Layout: `head_ct/head_ct/NNN.png` (or `head_ct/NNN.png`) and `labels.csv` with the columns `id, hemorrhage` (with the
space), where id is the number of the file. The synthetic twin adds `masks/NNN.png`, the lesion of every anomalous
slice.

The owner calls them slices of 200 patients, but neighbouring files are mostly slices of one head. Two protocols:

- "blocks" (default): 25 normals that follow each other are judged, files 100–124, 125–149, 150–174 or 175–199, by the
  seed modulo 4 or by `data.split.fold` of `folds=4`, and all haemorrhages with each of them. Normals within two files
  of a judged one, or of its patient, are left out. The validation normals follow each other, too, and are kept apart
  in the same way.
- "random", that of publications: 75 normals drawn at random train or validate, 25 and all haemorrhages are judged.
  Neighbours are on both sides, which every page says.

Patients are groups of slices that are alike (`data.group=likeness`, see `splitting/likeness.py`), compared after
cropping each to the box of its head. With `data.supervision=labels` these are dealt to the splits, without blocks.
"""

from __future__ import annotations

import csv
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar, Literal

import cv2
import numpy as np
import torch
from torch import Tensor

from anomaly_lab.data.datamodule import Group, PatchDataModule
from anomaly_lab.data.readers.files import read_scan
from anomaly_lab.data.readers.tree import is_seen
from anomaly_lab.data.twins.headct import write_twin
from anomaly_lab.experiment.tables import open_table
from anomaly_lab.types import Case, UserError

SIDE = 64  # slices are compared as SIDE x SIDE pictures of the head
DARK = 0.1  # of white: darker pixels are no part of the head
LEAKS = (
    "data.protocol=random: neighbouring files of Head-CT are slices of one head, and some of them train while others "
    "are judged. Figures are better than on new patients; data.protocol=blocks keeps them apart."
)


class HeadCT(PatchDataModule):
    """Head-CT slices; the patients are groups of slices that are alike.

    Examples:
        >>> import tempfile
        >>> data = HeadCT(root="none", source="twin")
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     data.write_twin(Path(folder), seed=0, size=4)
        ...     [(case.id, case.label) for case in data.cases(Path(folder))]
        [('000', 1), ('001', 1), ('002', 0), ('003', 0)]
    """

    name = "headct"
    brightness = "bright"  # fresh blood in CT
    where_to_get = (
        "get 'head-ct-hemorrhage' from Kaggle (felipekitamura) and lay it out as head_ct/head_ct/000.png "
        "to 199.png with labels.csv beside the outer head_ct"
    )
    twin_version = 1
    implied: ClassVar[dict[str, Any]] = {"protocol": "random", "group": "patient"}

    def __init__(
        self, *, protocol: Literal["blocks", "random"] = "blocks", group: Group = "likeness", **arguments: Any
    ) -> None:
        """Set the options of this data set.

        Args:
            protocol: "blocks" judges normals that follow each other, so that no slice of a judged head trains;
                "random" draws slices, as publications do: it leaks, which every page says.
            group: "likeness" makes one patient of slices that are alike, "patient" takes each slice for a patient.
            **arguments: arguments of PatchDataModule.
        """
        super().__init__(group=group, **arguments)
        self.leaks = protocol == "random"
        self.split_rule = replace(self.split_rule, **({"by": "image"} if self.leaks else {"blocks": True}))

    @property
    def caveats(self) -> tuple[str, ...]:
        """Warnings to print wherever numbers on these data appear."""
        return (LEAKS,) if self.leaks and self.split_rule.file is None else super().caveats

    def compared(self, case: Case) -> Tensor:
        """Return the head of a slice, cut out and stretched to SIDE x SIDE, so that no setting changes who is alike.

        The head is the largest connected part of what is brighter than DARK.
        """
        picture = read_scan(replace(case, mask=None), 1).pixels[0]
        white = float(np.iinfo(picture.dtype).max if picture.dtype.kind == "u" else 1)
        _, _, boxes, _ = cv2.connectedComponentsWithStats((picture > DARK * white).astype(np.uint8))
        if len(boxes) > 1:  # the first is the background
            x, y, width, height, _ = boxes[1 + int(boxes[1:, cv2.CC_STAT_AREA].argmax())].tolist()
            picture = picture[y : y + height, x : x + width]
        head = cv2.resize(picture.astype(np.float32), (SIDE, SIDE), interpolation=cv2.INTER_AREA)
        return torch.from_numpy(head)[None]

    def cases(self, root: Path) -> list[Case]:
        """List the slices with their labels, in the order of their numbers."""
        folders = (root / "head_ct" / "head_ct", root / "head_ct")
        folder = next((folder for folder in folders if any(is_seen(path.name) for path in folder.glob("*.png"))), None)
        if folder is None:
            raise UserError(f"{root}: no pictures in head_ct/head_ct or head_ct; {self.where_to_get}")
        pictures = {path.stem: path for path in sorted(folder.glob("*.png")) if is_seen(path.name)}
        labels_csv = root / "labels.csv"
        labels = _labels(labels_csv)
        for fault, ids in (
            ("ids without a picture", labels.keys() - pictures.keys()),
            ("pictures without a label", pictures.keys() - labels.keys()),
        ):
            if ids:
                examples = ", ".join(sorted(ids)[:5])
                raise UserError(f"{labels_csv}: {fault} in {folder}: {examples}; complete the data set")
        lesions = {path.stem: path for path in (root / "masks").glob("*.png") if is_seen(path.name)}
        unmasked = [i for i in labels if labels[i] == 1 and i not in lesions]
        if lesions and unmasked:
            examples = ", ".join(unmasked[:5])
            raise UserError(f"{root / 'masks'}: no mask for {examples}; add what is missing or remove the folder")
        return [
            Case(id=i, patient=i, image=path, label=labels[i], mask=lesions.get(i) if labels[i] else None)
            for i, path in pictures.items()
        ]

    def write_twin(self, root: Path, seed: int, size: int) -> None:
        """Write synthetic slices in the official layout."""
        write_twin(root, seed, size)


def _labels(path: Path) -> dict[str, int]:
    """Read labels.csv as {"000": 1, …}."""
    try:
        with open_table(path, "utf-8-sig") as file:
            rows = [[cell.strip() for cell in row] for row in csv.reader(file) if row]
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise UserError(f"{path}: labels.csv cannot be read ({error}); it needs the columns id, hemorrhage") from error
    header = rows[0] if rows else []
    if not {"id", "hemorrhage"} <= set(header):
        present = ", ".join(header) or "none"
        raise UserError(f"{path}: it needs the columns id and hemorrhage and has {present}; correct the header")
    labels: dict[str, int] = {}
    for line, row in enumerate(rows[1:], start=2):
        cells = dict(zip(header, row, strict=False))
        number, label = cells.get("id", ""), cells.get("hemorrhage", "")
        if not number.isdecimal():
            raise UserError(f"{path}, line {line}: id {number!r} is not the number of a picture; correct it")
        if label not in {"0", "1"}:
            raise UserError(f"{path}, line {line}: hemorrhage is {label!r}, not 0 or 1; correct it")
        name = f"{int(number):03d}"
        if name in labels:
            raise UserError(f"{path}, line {line}: id {number} appears twice; keep one row")
        labels[name] = int(label)
    return labels
