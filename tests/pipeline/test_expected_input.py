"""A scan of another nature than the training's is told apart; one of the same nature never is."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from data_sections import sections
from dicom_files import dicom_slice, save

from anomaly_lab.data.datamodule import PatchDataModule
from anomaly_lab.data.datasets.folder import Folder
from anomaly_lab.data.datasets.nifti import Nifti
from anomaly_lab.data.readers.scan import Scan
from anomaly_lab.pipeline.expected_input import ExpectedInput, describe
from anomaly_lab.types import Case

HU = {"low": [-1024.0, -1000.0], "high": [1500.0, 3071.0], "start": [-0.4, -0.25]}
MR = {"low": [0.0, 0.0], "high": [900.0, 2400.0], "start": [0.0, 0.0]}
SPACING = [[0.4, 0.5], [0.4, 0.5], [4.0, 5.0]]


def volume(low: float, high: float, edges: tuple[float, ...] = (0.45, 0.45, 5.0)) -> Scan:
    return Scan(np.linspace(low, high, 8, dtype=np.float32).reshape(1, 2, 2, 2), affine=np.diag([*edges, 1.0]))


def picture(low: int, high: int, dtype: type = np.uint8) -> Scan:
    return Scan(np.linspace(low, high, 16).astype(dtype).reshape(1, 4, 4))


def objections(facts: dict[str, Any], scan: Scan, scaled: bool = False, name: str = "a.nii") -> str:
    return "; ".join(ExpectedInput(facts, scaled).objections(Case("a", "a", Path(name), 0), scan))


@pytest.mark.parametrize(
    ("known", "scaled", "scan", "told"),
    [
        (HU, False, volume(-1024, 2000), False),
        (HU, False, volume(-2000, 2000), False),  # padding outside the field of view
        (HU, False, volume(-1024, 20000), False),  # metal
        (HU, False, volume(0, 4095), True),  # stored values that were never rescaled
        (HU, False, volume(0, 255), True),  # somebody's window
        (HU, False, volume(0, 1), True),
        (HU, True, volume(0, 2000), True),  # MR for a run of CT
        (MR, True, volume(-1024, 3071), True),  # CT for a run of MR
        (MR, True, volume(0, 60000), False),  # another scanner's unit
        (MR, True, volume(0, 1), False),
        (MR, True, volume(-20, 1000), False),  # ringing of an interpolation
    ],
)
def test_intensities_of_volumes(known: dict[str, Any], scaled: bool, scan: Scan, told: bool) -> None:
    facts = {"kinds": {"volume": 9}, "range": known, "spacing": SPACING}
    assert ("its intensities run from" in objections(facts, scan, scaled)) == told
    assert objections({}, scan, scaled) == ""


@pytest.mark.parametrize(
    ("scan", "told"),
    [
        (picture(0, 255), False),
        (picture(10, 200), False),
        (picture(0, 65535, np.uint16), False),
        (picture(0, 4095, np.uint16), True),
        (picture(100, 120), True),
    ],
)
def test_intensities_of_pictures_are_fractions_of_white(scan: Scan, told: bool) -> None:
    known = {"low": [0.0, 0.05], "high": [0.9, 1.0], "start": [0.0, 0.06]}
    assert bool(objections({"kinds": {"picture": 9}, "range": known}, scan)) == told


@pytest.mark.parametrize(("edges", "told"), [((0.9, 0.3, 9), False), ((3.0, 0.45, 0.45), False), ((1, 1, 1), True)])
def test_voxels(edges: tuple[float, ...], told: bool) -> None:
    facts = {"kinds": {"volume": 9}, "spacing": SPACING}
    assert ("its voxels measure" in objections(facts, volume(0, 1, edges))) == told


def test_kinds_and_modalities(tmp_path: Path) -> None:
    assert "trained on pictures" in objections({"kinds": {"picture": 9}}, volume(0, 1))
    assert "it is a picture" in objections({"kinds": {"series": 9, "volume": 1}}, picture(0, 255))
    assert objections({"kinds": {"series": 9}}, volume(0, 1)) == ""
    save(dicom_slice(np.eye(8, dtype=np.uint16), Modality="MR"), tmp_path / "a.dcm")
    facts = {"kinds": {"series": 9}, "modalities": {"CT": 9}}
    assert "its modality is MR" in objections(facts, volume(0, 1), name=str(tmp_path / "a.dcm"))
    assert objections(facts | {"modalities": {"MR": 1}}, volume(0, 1), name=str(tmp_path / "a.dcm")) == ""
    assert objections(facts | {"modalities": {}}, volume(0, 1), name=str(tmp_path / "a.dcm")) == ""


def described(kind: type[PatchDataModule], tmp_path: Path, **changes: Any) -> tuple[dict[str, Any], PatchDataModule]:
    arguments = {"root": str(tmp_path / "none"), "source": "twin", "twin_size": 40, "batch_size": 4}
    data = kind(**sections(**(arguments | {"patch_size": (16, 16), "store_dir": str(tmp_path / "store")} | changes)))
    data.setup()
    return describe(data), data


@pytest.mark.parametrize("enabled", [True, False])
def test_every_training_picture_is_as_expected(tmp_path: Path, enabled: bool) -> None:
    facts, data = described(Folder, tmp_path, store={"enabled": enabled})
    trained = {data.store.index[row]["case"] for row in data.rows["train"].tolist()}
    assert facts["kinds"] == {"picture": len(trained) if enabled else min(32, len(trained))}
    assert (facts["bits"], facts["channels"], facts["modalities"]) == (8, 1, {})
    assert set(facts["range"]) == {"low", "high", "start"}
    assert len(facts["size"]) == 2
    for case in data.store_plan.cases:
        assert ExpectedInput(facts).objections(case, data.read(case)) == []


def test_only_the_training_split_is_described(tmp_path: Path) -> None:
    facts, data = described(Nifti, tmp_path, cut={"label": "mask"}, volume={"zscore": 3.0})
    trained = {data.store.index[row]["case"] for row in data.rows["train"].tolist()}
    assert facts["kinds"] == {"volume": len(trained)}
    assert len(trained) < len(data.store_plan.cases)
    ranges = [scan["range"] for scan in data.store.scans() if scan["case"] in trained]
    assert facts["range"]["high"] == [min(high for _, high in ranges), max(high for _, high in ranges)]
    assert len(facts["spacing"]) == 3
