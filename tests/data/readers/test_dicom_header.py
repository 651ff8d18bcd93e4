import logging
import warnings

import pytest
from dicom_files import chest, dicom_slice, save

from anomaly_lab.data.readers import dicom_header
from anomaly_lab.types import UserError


def talk(path):
    with dicom_header.reading(path):
        warnings.warn("Doe^Jane", stacklevel=1)
        logging.getLogger("pydicom.some.decoder").error("Doe^Jane")
        raise KeyError("Doe^Jane")


def test_what_a_library_says_while_reading_is_kept_back(tmp_path, caplog):
    with warnings.catch_warnings(record=True) as heard:
        warnings.simplefilter("always")
        with pytest.raises(UserError, match=r"x: this is not a readable DICOM file; replace it"):
            talk(tmp_path / "x")
    assert heard == []
    assert caplog.text == ""
    logging.getLogger("pydicom").warning("heard again")
    assert "heard again" in caplog.text


def test_hashes_are_short_stable_and_apart_by_kind():
    assert dicom_header.hashed("patient", "A1") == dicom_header.hashed("patient", " A1 ")
    assert len({dicom_header.hashed(kind, value) for kind in ("patient", "study") for value in ("A1", "A2")}) == 4
    assert len(dicom_header.hashed("patient", "A1")) == 12


@pytest.mark.parametrize(
    ("value", "expected"), [(None, ()), ("", ()), ("1.5", (1.5,)), (2, (2.0,)), (["1", "2"], (1, 2))]
)
def test_numbers_of_one_or_many_values(value, expected):
    assert dicom_header.numbers(value) == expected


def test_only_what_is_asked_for_is_read(tmp_path):
    import numpy as np

    path = save(dicom_slice(np.zeros((2, 2), np.uint16)), tmp_path / "x")
    header = dicom_header.header_of(path, ["Rows"])
    assert header.Rows == 2
    assert "PatientName" not in header
    assert "PixelData" not in dicom_header.header_of(path)
    assert "PixelData" in dicom_header.whole(path)
    assert dicom_header.text(chest(np.zeros((2, 2), np.uint16)), "Modality") == "DX"
