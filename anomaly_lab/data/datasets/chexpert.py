"""CheXpert (Irvin et al., AAAI 2019; Stanford): 224 316 chest X-rays of 65 240 patients, labelled by their reports.

Layout: `CheXpert-v1.0/` or `CheXpert-v1.0-small/` (longer side 390 pixels) with `train.csv`, `valid.csv` and
`{train,valid}/patient#####/study#/view#_{frontal,lateral}.jpg`; the release folder may itself be the root. The column
Path may begin with the name of any release. A finding is 1 present, 0 absent, -1 uncertain, blank not mentioned.
The lists say what there is: pictures they do not name are not looked at. The twin adds `masks/patient#####/…`.
No protocol is published for one-class GANs; ours is that of DATASETS §8.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar, Literal

from anomaly_lab.data.datamodule import PatchDataModule
from anomaly_lab.data.readers.tables import read_table
from anomaly_lab.data.twins.chexpert import FINDINGS, write_twin
from anomaly_lab.types import Case, UserError

# The first that is present names the case, so what is told apart best comes first and the general class last.
ANOMALIES = (
    "Pneumothorax",
    "Consolidation",
    "Edema",
    "Pleural Effusion",
    "Atelectasis",
    "Cardiomegaly",
    "Lung Opacity",
)
RELEASES = ("CheXpert-v1.0", "CheXpert-v1.0-small")
_VALUES = {"1": 1, "1.0": 1, "0": 0, "0.0": 0, "-1": -1, "-1.0": -1, "": None}
_COLUMNS = ("Path", "Frontal/Lateral", "AP/PA", *FINDINGS)
_PATH = re.compile(r"(?:.*/)?((?:train|valid)/(patient\d+)/(study\d+)/(view\d+_[a-z]+))\.jpg")


class CheXpert(PatchDataModule):
    """Frontal chest X-rays; normal: No Finding and nothing else present or uncertain, save support devices.

    Args:
        view: direction of the rays, "PA", "AP", or "frontal" for every frontal picture.
        pneumonia_only: judge pictures with pneumonia instead of those with any of ANOMALIES.
        use_valid: the owners' split: normals of train.csv train, valid.csv, labelled by radiologists, is judged. Else
            valid.csv is left out and patients of train.csv are judged.
        arguments: those of PatchDataModule.
    """

    name = "chexpert"
    where_to_get = (
        "get CheXpert-v1.0-small or CheXpert-v1.0 from Stanford AIMI (after its licence form) and put that folder, "
        "which holds train.csv, valid.csv, train and valid, in it"
    )
    twin_version = 1
    official: ClassVar[dict[str, int]] = {"images": 223_414, "frontal": 191_027, "lateral": 32_387}

    def __init__(
        self,
        *,
        view: Literal["PA", "AP", "frontal"] = "PA",
        pneumonia_only: bool = False,
        use_valid: bool = False,
        **arguments: Any,
    ) -> None:
        super().__init__(**arguments)
        if view not in {"PA", "AP", "frontal"}:
            raise UserError(f"data.view={view}: it is PA, AP or frontal")
        self.view, self.use_valid = view, use_valid
        self.anomalies = ("Pneumonia",) if pneumonia_only else ANOMALIES
        self._census: dict[str, int] = {}

    def cases(self, root: Path) -> list[Case]:
        """List the pictures of the chosen view that are normal or anomalous, in the order of the lists."""
        release = self._release(root)
        cases, seen = self._read_list(release, "train")
        self._census = {"images": seen.total(), "frontal": seen["Frontal"], "lateral": seen["Lateral"]}
        if self.use_valid:
            extra, _ = self._read_list(release, "valid")
            shared = {case.patient for case in cases} & {case.patient for case in extra}
            if shared:
                some = ", ".join(sorted(shared)[:5])
                raise UserError(f"{release / 'valid.csv'}: patients of train.csv too: {some}; take them out of one")
            cases += extra
        return cases

    def census(self, cases: Sequence[Case]) -> dict[str, int]:
        """Count what train.csv lists, used or not."""
        return self._census

    def write_twin(self, root: Path, seed: int, size: int) -> None:
        """Write synthetic X-rays of the same layout."""
        write_twin(root, seed, size)

    def _release(self, root: Path) -> Path:
        """The folder that holds the lists."""
        found = [folder for folder in (root, *(root / name for name in RELEASES)) if (folder / "train.csv").is_file()]
        if not found:
            raise UserError(f"{root}: no train.csv, nor one in {' or '.join(RELEASES)}; {self.where_to_get}")
        if len(found) > 1:
            raise UserError(f"{root}: two releases, {found[0]} and {found[1]}; set data.root to one of them")
        return found[0]

    def _read_list(self, release: Path, split: str) -> tuple[list[Case], Counter[str]]:
        """Cases of `<split>.csv`, and how many frontal and lateral pictures it lists."""
        lists, seen, paths = release / f"{split}.csv", Counter[str](), set[str]()
        cases: list[Case] = []
        for place, row in read_table(lists, _COLUMNS):
            match = _PATH.fullmatch(row["Path"])
            if match is None or not match[1].startswith(f"{split}/"):
                form = f"…/{split}/patient#####/study#/view#_….jpg"
                raise UserError(f"{place}: Path {row['Path']!r} is not of the form {form}; put it right")
            path, *parts = match.groups()
            if path in paths:
                raise UserError(f"{place}: Path {row['Path']} appears twice; keep one row")
            paths.add(path)
            seen[_frontal(place, row)] += 1
            kind = self._kind(_findings(place, row))
            if kind is not None and self._in_view(row):
                cases.append(self._case(release, path, parts, kind))
        missing = [case.image for case in cases if not case.image.is_file()]
        if missing:
            some = f"{len(missing)}, first {missing[0]}"
            raise UserError(f"{lists}: rows without a picture: {some}; complete the data set or take the rows out")
        return cases, seen

    def _case(self, release: Path, path: str, parts: Sequence[str], kind: str) -> Case:
        mask = release / "masks" / Path(*parts).with_suffix(".png")
        judged = path.startswith("valid/")
        return Case(
            id="-".join(parts),
            patient=parts[0],
            image=release / f"{path}.jpg",
            label=int(kind != ""),
            mask=mask if kind and mask.is_file() else None,
            class_name=kind,
            split=("test" if judged else "train") if self.use_valid else None,
        )

    def _in_view(self, row: Mapping[str, str]) -> bool:
        return row["Frontal/Lateral"] == "Frontal" and self.view in {"frontal", row["AP/PA"]}

    def _kind(self, findings: Mapping[str, int | None]) -> str | None:
        """Main finding of an anomalous picture, empty for a normal one, None for one that is neither."""
        for finding in self.anomalies:
            if findings[finding] == 1:
                return finding
        others = [value for finding, value in findings.items() if finding not in {"No Finding", "Support Devices"}]
        return "" if findings["No Finding"] == 1 and not any(others) else None


def _frontal(place: str, row: Mapping[str, str]) -> str:
    if row["Frontal/Lateral"] not in {"Frontal", "Lateral"}:
        raise UserError(f"{place}: Frontal/Lateral is {row['Frontal/Lateral']!r}, neither of these; put it right")
    return row["Frontal/Lateral"]


def _findings(place: str, row: Mapping[str, str]) -> dict[str, int | None]:
    """Value of each finding: 1, 0, -1 (uncertain) or None (not mentioned)."""
    try:
        return {finding: _VALUES[row[finding]] for finding in FINDINGS}
    except KeyError as error:
        raise UserError(f"{place}: the value {error} of a finding is not 1, 0, -1 or blank; put it right") from error
