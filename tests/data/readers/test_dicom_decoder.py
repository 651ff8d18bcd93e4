import os

import numpy as np
import pytest
from dicom_files import dicom_slice, save
from pydicom.uid import JPEG2000Lossless, JPEGLSLossless

from anomaly_lab.data.readers import dicom, dicom_decoder
from anomaly_lab.types import UserError

STORED = np.random.default_rng(0).integers(0, 3000, (32, 40)).astype(np.uint16)


def written(path, syntax=JPEGLSLossless):
    dataset = dicom_slice(STORED)
    dataset.compress(syntax, generate_instance_uid=False)
    return save(dataset, path)


@pytest.mark.parametrize("syntax", [JPEGLSLossless, JPEG2000Lossless], ids=lambda uid: uid.name[:9])
def test_pixels_come_from_another_process(tmp_path, syntax):
    np.testing.assert_array_equal(dicom_decoder.decode(written(tmp_path / "ä b", syntax), 0), STORED)
    assert dicom_decoder._children[os.getpid()].pid != os.getpid()


def test_a_decoder_that_ends_its_process_costs_one_file(tmp_path):
    good, broken = written(tmp_path / "good"), written(tmp_path / "broken", JPEG2000Lossless)
    content = bytearray(broken.read_bytes())
    content[content.index(b"\xff\x51") + 40] = 255  # bits of a pixel: GDCM calls abort
    broken.write_bytes(content)
    for _ in range(2):
        with pytest.raises(UserError, match=r"broken: its pixels \(JPEG 2000.*cannot be decoded; .*on_bad=skip"):
            dicom.read_series([broken])
        assert dicom.read_series([good]).shape == (40, 32, 1)


def test_a_file_that_changes_is_read_again(tmp_path):
    path = written(tmp_path / "a")
    dicom_decoder.decode(path, 0)
    dataset = dicom_slice(STORED + 1)
    dataset.compress(JPEG2000Lossless, generate_instance_uid=False)
    np.testing.assert_array_equal(dicom_decoder.decode(save(dataset, path), 0), STORED + 1)


def test_a_frame_that_is_not_there_is_refused(tmp_path):
    with pytest.raises(ValueError, match="refuses"):
        dicom_decoder.decode(written(tmp_path / "a"), 1)
    with pytest.raises(ValueError, match="refuses"):
        dicom_decoder.decode(tmp_path / "gone", 0)


def test_a_decoder_that_somebody_ended_is_started_again(tmp_path):
    path = written(tmp_path / "a")
    dicom_decoder.decode(path, 0)
    dicom_decoder._children[os.getpid()].kill()
    np.testing.assert_array_equal(dicom_decoder.decode(path, 0), STORED)
