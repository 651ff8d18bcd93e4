"""What a run was trained on tells arrays apart as well; the cases of files are in tests/pipeline."""

from pathlib import Path

import numpy as np
import pytest

from anomaly_lab.data.expected_input import ExpectedInput, modality_of
from anomaly_lab.data.readers.scan import Scan
from anomaly_lab.types import Case

ARRAY = Case("array", "", Path(), label=0)


def test_an_array_has_no_modality_and_is_judged_by_its_values() -> None:
    facts = {"kinds": {"picture": 3}, "modalities": {"CR": 3}, "range": {"low": [0, 0], "high": [0.9, 1.0]}}
    assert modality_of(ARRAY) == ""
    assert ExpectedInput(facts).objections(ARRAY, Scan(np.array([[[0, 250]]], np.uint8))) == []
    (objection,) = ExpectedInput(facts).objections(ARRAY, Scan(np.array([[[0, 9]]], np.uint8)))
    assert "its intensities run from 0" in objection


def test_a_run_that_recorded_nothing_objects_to_nothing() -> None:
    assert not ExpectedInput({}).is_known
    assert ExpectedInput({}).objections(ARRAY, Scan(np.zeros((1, 2, 2, 2)), affine=np.eye(4))) == []


@pytest.mark.parametrize(
    ("kinds", "taken"),
    [
        (["picture"], ["a.png"]),
        (["volume"], ["a.nii.gz", "001.dcm"]),
        (["series"], ["a.nii.gz", "001.dcm"]),
        (["picture", "volume"], ["a.png", "a.nii.gz", "001.dcm"]),
        ([], ["a.png", "a.nii.gz", "001.dcm"]),
    ],
)
def test_a_scan_is_of_any_kind_that_was_trained_on(kinds: list[str], taken: list[str]) -> None:
    expected = ExpectedInput({"kinds": dict.fromkeys(kinds, 3), "bits": 8})
    flat, deep = Scan(np.array([[[0, 9]]], np.uint8)), Scan(np.arange(8.0).reshape(1, 2, 2, 2), affine=np.eye(4))
    scans = {"a.png": flat, "a.nii.gz": deep, "001.dcm": deep}
    cases = {name: Case(name, name, Path(name), label=0) for name in scans}
    assert [name for name, scan in scans.items() if not expected.objections(cases[name], scan)] == taken


@pytest.mark.parametrize("scaled", [False, True])
def test_a_constant_volume_is_judged_as_the_record_has_it(scaled: bool) -> None:
    facts = {"kinds": {"volume": 3}, "range": {"low": [0, 0], "high": [100, 200], "start": [0, 0]}}
    (objection,) = ExpectedInput(facts, scaled).objections(ARRAY, Scan(np.full((1, 2, 2, 2), 7.0), affine=np.eye(4)))
    assert "its intensities run from 7 to 7" in objection
