import sys

import numpy as np
import pydicom
import pytest
from dicom_files import MARKER, write_dicom_series

from anomaly_lab.data.readers.dicom import read_series
from anomaly_lab.data.readers.dicom_parametric_map import write_parametric_map
from anomaly_lab.types import UserError

STORED = np.random.default_rng(0).integers(0, 3000, (4, 6, 8)).astype(np.uint16)
NEEDED = {"StudyID": "1", "StudyDate": "20200101", "StudyTime": "000000", "PatientSex": "O", "AccessionNumber": "1"}
NEEDED |= {"FrameOfReferenceUID": "1.2.3.4", "PositionReferenceIndicator": "", "SeriesNumber": 2, "InstanceNumber": 1}


def test_the_map_lies_on_its_series(tmp_path):
    files = _series(tmp_path)
    scan = read_series(files)
    values = np.random.default_rng(1).random(scan.shape).astype(np.float32) * 7
    write_parametric_map(tmp_path / "map.dcm", values, files[::-1])
    written = read_series([tmp_path / "map.dcm"])
    np.testing.assert_array_equal(written.pixels[0], values)
    np.testing.assert_allclose(written.affine, scan.affine, atol=1e-6)
    header = pydicom.dcmread(tmp_path / "map.dcm")
    assert header.Modality == "OT" or header.SOPClassUID.name == "Parametric Map Storage"
    assert header.StudyInstanceUID == pydicom.dcmread(files[0]).StudyInstanceUID


@pytest.mark.parametrize("shape", [(8, 6, 3), (6, 8, 4)])
def test_a_map_of_another_shape_is_refused(tmp_path, shape):
    with pytest.raises(UserError, match="does not fit a series of"):
        write_parametric_map(tmp_path / "map.dcm", np.ones(shape), _series(tmp_path))


def test_a_map_that_is_not_finite_is_refused(tmp_path):
    with pytest.raises(UserError, match="NaN"):
        write_parametric_map(tmp_path / "map.dcm", np.full((8, 6, 4), np.nan), _series(tmp_path))


@pytest.mark.parametrize(
    "elements", [{"StudyInstanceUID": None}, {"ImagePositionPatient": None}, {"NumberOfFrames": 3}]
)
def test_headers_that_lack_something_are_refused_without_a_word_of_them(tmp_path, elements):
    with pytest.raises(UserError, match="use the NIfTI map") as caught:
        write_parametric_map(tmp_path / "map.dcm", np.ones((8, 6, 4)), _series(tmp_path, **elements))
    assert MARKER not in str(caught.value)


def test_without_highdicom_its_name_is_given(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "highdicom", None)
    with pytest.raises(UserError, match="pip install highdicom"):
        write_parametric_map(tmp_path / "map.dcm", np.ones((8, 6, 4)), [tmp_path / "x"])


def _series(folder, **elements):
    return write_dicom_series(folder / "in", STORED, **(NEEDED | elements))
