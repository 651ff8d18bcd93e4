"""Head-CT haemorrhage (Kaggle `head-ct-hemorrhage`, F. Kitamura): 200 slices of 200 patients, half of them anomalous.

Layout: `head_ct/head_ct/NNN.png` (or `head_ct/NNN.png`) and `labels.csv` with the columns `id, hemorrhage` (with the
space), where id is the number of the file. The synthetic twin adds `masks/NNN.png`, the lesion of every anomalous
slice. Protocol of the source: training on normals only; 75 normals train, 25 normal and 100 anomalous slices are the
test split.
"""

from __future__ import annotations

import csv
from pathlib import Path

from anomaly_lab.data.datamodule import PatchDataModule
from anomaly_lab.data.readers.tree import is_seen
from anomaly_lab.data.twins.headct import write_twin
from anomaly_lab.experiment.tables import open_table
from anomaly_lab.types import Case, UserError


class HeadCT(PatchDataModule):
    """Head-CT slices, one per patient.

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
