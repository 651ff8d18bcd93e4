"""What a run was trained on, so that a file of another nature is told apart before it gets a score.

A detector answers any array with a number. The record of a run says of its training scans whether they were pictures or
volumes, which modalities their headers named, and which sizes, spacings and intensity ranges they had.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from anomaly_lab.data.readers.nifti import is_nifti
from anomaly_lab.data.readers.scan import Scan
from anomaly_lab.types import Case, UserError

FAR = 2.0  # a spacing is far from the training's if it is this many times larger or smaller
DARKER = 3.0  # so is an intensity range that is this many times narrower
BRIGHTER = 10.0  # or reaches beyond it by this many times its width: metal does so less
SHIFTED = 0.2  # or begins this fraction of its width higher


@dataclass(frozen=True)
class ExpectedInput:
    """The nature of the scans that a run was trained on.

    Attributes:
        facts: what the record of the run holds, see `describe`; empty for runs of older versions.
        scaled: whether volumes are scaled by their own intensities, so that only the shape of their range matters.

    Examples:
        >>> facts = {"kinds": {"picture": 9}, "range": {"low": [0, 0], "high": [0.9, 1.0]}}
        >>> expected = ExpectedInput(facts)
        >>> case = Case("a.png", "a", Path("a.png"), label=0)
        >>> expected.objections(case, Scan(np.array([[[0, 4095]]], np.uint16)))
        ['its intensities run from 0 to 0.062 of white, in the training from 0 to 1']
        >>> case = Case("p1", "p1", Path("p1/001.dcm"), label=0)
        >>> expected.objections(case, Scan(np.zeros((1, 2, 2, 2)), affine=np.eye(4)))
        ['it is a DICOM series, read as a volume, the run was trained on pictures']
    """

    facts: Mapping[str, Any]
    scaled: bool = False

    @property
    def is_known(self) -> bool:
        """Whether the run recorded anything to compare with."""
        return bool(self.facts)

    def objections(self, case: Case, scan: Scan) -> list[str]:
        """Return what sets a scan apart from the training scans; empty if nothing does.

        Args:
            case: its files.
            scan: as it was read.
        """
        if not self.facts:
            return []
        kind, kinds = kind_of(case.image, scan.affine is not None), self.facts.get("kinds") or {}
        is_flat = kind == "picture"  # volumes and DICOM series are the same to the detector
        if kinds and is_flat not in {known == "picture" for known in kinds}:
            what = {"picture": "a picture", "volume": "a volume", "series": "a DICOM series, read as a volume"}[kind]
            known = " and ".join(
                {"picture": "pictures", "volume": "volumes", "series": "DICOM series"}[k] for k in kinds
            )
            return [f"it is {what}, the run was trained on {known}"]
        return [*self._modality(case), *self._spacing(scan), *self._range(scan)]

    def _modality(self, case: Case) -> Iterator[str]:
        known = self.facts.get("modalities") or {}
        modality = modality_of(case) if known else ""
        if modality and modality not in known:
            yield f"its modality is {modality}, the run was trained on {' and '.join(known)}"

    def _spacing(self, scan: Scan) -> Iterator[str]:
        bounds = self.facts.get("spacing")
        if scan.spacing is None or not bounds:
            return
        edges = sorted(scan.spacing)
        far = any(edge * FAR < low or edge > FAR * high for edge, (low, high) in zip(edges, bounds, strict=True))
        if far:
            known = " × ".join(f"{low:.3g}" if low == high else f"{low:.3g}–{high:.3g}" for low, high in bounds)
            yield f"its voxels measure {' × '.join(f'{edge:.3g}' for edge in edges)} mm, in the training {known} mm"

    def _range(self, scan: Scan) -> Iterator[str]:
        bounds = self.facts.get("range")
        if not bounds:
            return
        low, high = intensities(scan)
        (lowest, low_end), (high_end, highest) = bounds["low"], bounds["high"]
        width = highest - lowest
        far = (high - low) * DARKER < high_end - low_end
        if scan.affine is not None:
            far = far or high > highest + BRIGHTER * width or not lowest - width <= low <= low_end + SHIFTED * width
            if self.scaled:  # the unit does not matter; where the range begins, in its own width, tells HU from others
                first, last = bounds["start"]
                start = low / (high - low if high > low else 1.0)
                far = not first - SHIFTED <= start <= last + SHIFTED
        if far:
            of_white = "" if scan.affine is not None else " of white"
            there = f"{lowest:.2g} to {highest:.2g}"
            yield f"its intensities run from {low:.2g} to {high:.2g}{of_white}, in the training from {there}"


def kind_of(file: Path, is_volume: bool) -> str:
    """Return "picture", "volume" (NIfTI) or "series" (DICOM).

    Args:
        file: of the scan, or the first of its files.
        is_volume: whether the scan has a place in space.

    Examples:
        >>> kind_of(Path("a.dcm"), is_volume=False), kind_of(Path("a.dcm"), True), kind_of(Path("a.nii"), True)
        ('picture', 'series', 'volume')
    """
    if not is_volume:
        return "picture"
    return "volume" if is_nifti(file) else "series"


def intensities(scan: Scan) -> tuple[float, float]:
    """Return the lowest and highest value: of a picture as a fraction of white, of a volume in its own unit.

    Examples:
        >>> intensities(Scan(np.array([[[51, 255]]], np.uint8)))
        (0.2, 1.0)
    """
    white = 1.0 if scan.affine is not None else float(np.iinfo(scan.pixels.dtype).max)
    return float(scan.pixels.min()) / white, float(scan.pixels.max()) / white


def modality_of(case: Case) -> str:
    """Return the modality in the header of a DICOM file, such as CT; empty for other files and where it has none.

    Examples:
        >>> modality_of(Case("a.png", "a", Path("a.png"), label=0))
        ''
    """
    if is_nifti(case.image) or not case.image.is_file():
        return ""
    from anomaly_lab.data.readers import dicom  # an array is scored without the readers of files
    from anomaly_lab.data.readers.dicom_header import header_of, text

    if not dicom.is_dicom(case.image):
        return ""
    try:
        modality = text(header_of(case.image, ["Modality"]), "Modality")
    except UserError:
        return ""  # whoever reads the file reports it
    return modality if modality.isalnum() and len(modality) <= 16 else ""
