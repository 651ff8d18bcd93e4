"""BraTS 2017 training data (CBICA, University of Pennsylvania): skull-stripped FLAIR volumes of gliomas, 1 mm voxels.

Layout: `MICCAI_BraTS17_Data_Training/{HGG,LGG}/<subject>/<subject>_{flair,t1,t1ce,t2,seg}.nii.gz` (or `.nii`, or
without the outer folder), with subjects named `Brats17_<site>_<id>_1`. Labels of `seg`: 1 necrosis and non-enhancing
tumour, 2 oedema, 4 enhancing tumour; all of them are lesion. Protocol: axial 32×32 windows within the brain of the 210
HGG subjects, of whom 146 train and 64 are the test split. A window without tumour is normal, one with more than 75 %
tumour is anomalous, all others are left out.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar

from anomaly_lab.data.datamodule import PatchDataModule, Role
from anomaly_lab.data.readers.nifti import read_nifti, read_nifti_mask
from anomaly_lab.data.readers.scan import Scan
from anomaly_lab.data.readers.tree import is_seen
from anomaly_lab.data.twins.brats2017 import write_twin
from anomaly_lab.types import Case, UserError

OUTER = "MICCAI_BraTS17_Data_Training"
GRADES = ("HGG", "LGG")
MODALITIES = ("flair", "t1", "t1ce", "t2")
LABELS = (0, 1, 2, 4)
_ENDING = re.compile(rf"_({'|'.join((*MODALITIES, 'seg'))})\.nii(?:\.gz)?$", re.IGNORECASE)


class BraTS2017(PatchDataModule):
    """Volumes of glioma patients with tumour masks; windows without tumour are the normal ones.

    Examples:
        >>> import tempfile
        >>> data = BraTS2017(root="none", source="twin")
        >>> with tempfile.TemporaryDirectory() as root:
        ...     subject = Path(root) / OUTER / "HGG" / "Brats17_2013_2_1"
        ...     subject.mkdir(parents=True)
        ...     for modality in ("flair", "seg"):
        ...         (subject / f"{subject.name}_{modality}.nii.gz").touch()
        ...     [(case.id, case.patient, case.class_name) for case in data.cases(Path(root))]
        [('Brats17_2013_2_1', 'Brats17_2013_2', 'HGG')]
    """

    name = "brats2017"
    where_to_get = (
        f"get the BraTS 2017 training data (med.upenn.edu/sbia/brats2017) and lay it out as {OUTER}/HGG/"
        "Brats17_2013_2_1/Brats17_2013_2_1_flair.nii.gz with _seg.nii.gz beside it"
    )
    twin_version = 1
    version = 1
    official: ClassVar[dict[str, int]] = {"images": 210, "anomalous": 210, "HGG": 210}

    def __init__(self, *, grades: Sequence[str] = ("HGG",), modality: str = "flair", **arguments: Any) -> None:
        """Set the options of this data set.

        Args:
            grades: HGG (210 subjects in the official set), LGG (75) or both.
            modality: flair, t1, t1ce or t2.
            **arguments: arguments of PatchDataModule.
        """
        super().__init__(**arguments)
        if not grades or not set(grades) <= set(GRADES):
            raise UserError(f"data.grades={list(grades)}: takes one or more of {', '.join(GRADES)}")
        if modality not in MODALITIES:
            raise UserError(f"data.modality={modality}: takes one of {', '.join(MODALITIES)}")
        self.grades, self.modality = tuple(grades), modality
        self.brightness = "bright" if modality in ("flair", "t2") else None  # oedema

    def cases(self, root: Path) -> list[Case]:
        """List the subjects of the selected grades, in the order of their names."""
        outer = root / OUTER if (root / OUTER).is_dir() else root
        cases = []
        for grade in self.grades:
            folders = sorted(path for path in (outer / grade).glob("*") if path.is_dir() and is_seen(path.name))
            if not folders:
                raise UserError(f"{outer / grade}: the folder contains no subjects; {self.where_to_get}")
            cases += [self._case(folder, grade) for folder in folders]
        return cases

    def role(self, path: Path, source: Path) -> Role:
        """Return "mask" for a segmentation, "other" for another modality than the run's."""
        ending = _ENDING.search(path.name)
        if path == source or ending is None or ending[1].lower() == self.modality:
            return "scan"
        return "mask" if ending[1].lower() == "seg" else "other"

    def known_mask(self, image: Path, source: Path) -> Path | None:
        """Return the segmentation beside a volume."""
        paths = (image.with_name(_ENDING.sub(f"_seg{suffix}", image.name)) for suffix in (".nii.gz", ".nii"))
        return next((path for path in paths if path != image and path.exists()), None)

    def read(self, case: Case) -> Scan:
        """Read the volume and its tumour mask, the union of all labels."""
        tolerance = self.preprocessing.volume.tolerance
        scan = read_nifti(case.image, tolerance)
        return scan if case.mask is None else replace(scan, mask=read_nifti_mask(case.mask, scan, LABELS, tolerance))

    def write_twin(self, root: Path, seed: int, size: int) -> None:
        """Write synthetic subjects in the official layout, FLAIR and segmentation only."""
        write_twin(root, seed, size)

    def _case(self, folder: Path, grade: str) -> Case:
        image, mask = _volume(folder, self.modality), _volume(folder, "seg")
        patient = folder.name.rpartition("_")[0] or folder.name  # the last part numbers the scans of a patient
        return Case(folder.name, patient, image, label=1, mask=mask, class_name=grade)


def _volume(folder: Path, modality: str) -> Path:
    paths = [folder / f"{folder.name}_{modality}{suffix}" for suffix in (".nii.gz", ".nii")]
    volume = next((path for path in paths if path.exists()), None)
    if volume is None:
        raise UserError(f"{folder}: no {paths[0].name}; complete the subject or remove its folder")
    return volume
