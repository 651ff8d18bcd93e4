"""CheXpert (Irvin et al., AAAI 2019; Stanford): 224 316 chest X-rays of 65 240 patients, labelled by their reports.

Layout: `CheXpert-v1.0/` or `CheXpert-v1.0-small/` (longer side 390 pixels) with `train.csv`, `valid.csv` and
`{train,valid}/patient#####/study#/view#_{frontal,lateral}.jpg`; the release folder may itself be the root. The column
Path may begin with the name of any release. The value of a finding is 1 (present), 0 (absent), -1 (uncertain) or blank
(not mentioned). Pictures that the lists do not name are ignored. The synthetic twin adds `masks/patient#####/…`.
No protocol has been published for one-class GANs; the defaults of `CheXpert` are ours.
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

# The first finding that is present is the class of a case: the most distinctive findings come first.
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
    """Frontal chest X-rays; normal means No Finding and no other finding present or uncertain, except support devices.

    Args:
        view: direction of the rays, "PA", "AP", or "frontal" for all frontal pictures.
        pneumonia_only: the anomalous pictures are those with pneumonia instead of those with any of ANOMALIES.
        use_valid: whether to use the official split: normals of train.csv train, and valid.csv, which radiologists
            labelled, is the test split. Otherwise valid.csv is left out and the test split is drawn from train.csv.
        arguments: arguments of PatchDataModule.

    Examples:
        >>> import tempfile
        >>> data = CheXpert(root="none", source="twin", view="frontal")
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     data.write_twin(Path(folder), seed=0, size=10)
        ...     cases = data.cases(Path(folder))
        >>> cases[0].id, cases[0].label, sorted({case.class_name for case in cases if case.label})
        ('patient00001-study1-view1_frontal', 0, ['Cardiomegaly', 'Pleural Effusion'])
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
            raise UserError(f"data.view={view}: takes PA, AP or frontal")
        self.view, self.use_valid = view, use_valid
        self.anomalies = ("Pneumonia",) if pneumonia_only else ANOMALIES
        self._census: dict[str, int] = {}

    def cases(self, root: Path) -> list[Case]:
        """List the pictures of the chosen view that are normal or anomalous, in the order of the lists."""
        release = self._release(root)
        cases, counts = self._read_list(release, "train")
        self._census = {"images": counts.total(), "frontal": counts["Frontal"], "lateral": counts["Lateral"]}
        if self.use_valid:
            extra, _ = self._read_list(release, "valid")
            shared = {case.patient for case in cases} & {case.patient for case in extra}
            if shared:
                examples = ", ".join(sorted(shared)[:5])
                raise UserError(
                    f"{release / 'valid.csv'}: patients that are also in train.csv: {examples}; "
                    "remove them from one of the lists"
                )
            cases += extra
        return cases

    def census(self, cases: Sequence[Case]) -> dict[str, int]:
        """Count all pictures in train.csv, whether they are used or not."""
        return self._census

    def write_twin(self, root: Path, seed: int, size: int) -> None:
        """Write synthetic X-rays in the official layout."""
        write_twin(root, seed, size)

    def _release(self, root: Path) -> Path:
        """Return the folder with the lists."""
        releases = [
            folder for folder in (root, *(root / name for name in RELEASES)) if (folder / "train.csv").is_file()
        ]
        if not releases:
            raise UserError(f"{root}: no train.csv, nor one in {' or '.join(RELEASES)}; {self.where_to_get}")
        if len(releases) > 1:
            raise UserError(f"{root}: two releases, {releases[0]} and {releases[1]}; set data.root to one of them")
        return releases[0]

    def _read_list(self, release: Path, split: str) -> tuple[list[Case], Counter[str]]:
        """Return the cases of `<split>.csv` and its numbers of frontal and lateral pictures."""
        lists, counts, paths = release / f"{split}.csv", Counter[str](), set[str]()
        cases: list[Case] = []
        for place, row in read_table(lists, _COLUMNS):
            match = _PATH.fullmatch(row["Path"])
            if match is None or not match[1].startswith(f"{split}/"):
                form = f"…/{split}/patient#####/study#/view#_….jpg"
                raise UserError(f"{place}: Path {row['Path']!r} is not of the form {form}; correct it")
            path, *parts = match.groups()
            if path in paths:
                raise UserError(f"{place}: Path {row['Path']} appears twice; keep one row")
            paths.add(path)
            counts[_frontal(place, row)] += 1
            findings = _findings(place, row)
            self._refuse_contradiction(place, findings)
            class_name = self._class_name(findings)
            if class_name is not None and self._in_view(row):
                cases.append(self._case(release, path, parts, class_name, self._uncertain(findings)))
        missing = [case.image for case in cases if not case.image.is_file()]
        if missing:
            examples = f"{len(missing)}, first {missing[0]}"
            raise UserError(f"{lists}: rows without a picture: {examples}; complete the data set or remove the rows")
        return cases, counts

    def _refuse_contradiction(self, place: str, findings: Mapping[str, int | None]) -> None:
        """Raise UserError if labels are learnt and a row says both that there is no finding and that there is one."""
        present = next((finding for finding in self.anomalies if findings[finding] == 1), None)
        if self.labelling is not None and findings["No Finding"] == 1 and present:
            raise UserError(f"{place}: No Finding and {present} are both 1; correct the row or remove it")

    def _uncertain(self, findings: Mapping[str, int | None]) -> tuple[str, ...]:
        return tuple(finding for finding in self.anomalies if findings[finding] == -1)

    def _case(
        self, release: Path, path: str, parts: Sequence[str], class_name: str, uncertain: tuple[str, ...]
    ) -> Case:
        mask = release / "masks" / Path(*parts).with_suffix(".png")
        is_test = path.startswith("valid/")
        return Case(
            id="-".join(parts),
            patient=parts[0],
            image=release / f"{path}.jpg",
            label=int(class_name != ""),
            mask=mask if class_name and mask.is_file() else None,
            class_name=class_name,
            split=("test" if is_test else "train") if self.use_valid else None,
            unknown=uncertain,
        )

    def _in_view(self, row: Mapping[str, str]) -> bool:
        return row["Frontal/Lateral"] == "Frontal" and self.view in {"frontal", row["AP/PA"]}

    def _class_name(self, findings: Mapping[str, int | None]) -> str | None:
        """Return the main finding of an anomalous picture, "" for a normal one, None for a picture that is neither.

        Where each class is learnt, all findings that are present are its class.
        """
        if present := [finding for finding in self.anomalies if findings[finding] == 1]:
            return "+".join(present) if self.learns_each_class else present[0]
        other_values = [
            value for finding, value in findings.items() if finding not in {"No Finding", "Support Devices"}
        ]
        return "" if findings["No Finding"] == 1 and not any(other_values) else None


def _frontal(place: str, row: Mapping[str, str]) -> str:
    if row["Frontal/Lateral"] not in {"Frontal", "Lateral"}:
        raise UserError(f"{place}: Frontal/Lateral is {row['Frontal/Lateral']!r}, not Frontal or Lateral; correct it")
    return row["Frontal/Lateral"]


def _findings(place: str, row: Mapping[str, str]) -> dict[str, int | None]:
    """Return the value of each finding: 1, 0, -1 (uncertain) or None (not mentioned)."""
    try:
        return {finding: _VALUES[row[finding]] for finding in FINDINGS}
    except KeyError as error:
        raise UserError(f"{place}: the value {error} of a finding is not 1, 0, -1 or blank; correct it") from error
