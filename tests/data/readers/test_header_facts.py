"""What a file says of itself, and that nothing else of it is kept."""

import json

import nibabel as nib
import numpy as np
import pytest
from dicom_files import MARKER, UID, dicom_slice, save
from PIL import Image

from anomaly_lab.data.readers.header_facts import checksum, file_facts

PIXELS = np.random.default_rng(0).integers(0, 255, (24, 32), np.uint8)


def test_of_a_series_all_bytes_and_the_fields_of_the_scanner(tmp_path):
    files = [save(dicom_slice(PIXELS, z, KVP=120, Manufacturer=" ACME "), tmp_path / f"{z}.dcm") for z in range(3)]
    facts = file_facts(files)
    assert facts["bytes"] == sum(path.stat().st_size for path in files)
    assert (facts["KVP"], facts["SliceThickness"], facts["PixelSpacing"]) == (120, 2, 0.5)
    assert facts["Manufacturer"] == checksum("ACME")


def test_nobody_is_in_them(tmp_path):
    """Whatever was typed into a listed field, and all that is not listed."""
    names = {"Manufacturer": MARKER, "ConvolutionKernel": MARKER, "BodyPartExamined": MARKER.upper()}
    dates = {"StudyDate": "19010203", "PatientAge": "077Y", "PatientSex": "F", "DeviceSerialNumber": MARKER}
    facts = file_facts([save(dicom_slice(PIXELS, **names, **dates), tmp_path / "a.dcm")])
    said = json.dumps(facts)
    assert not any(secret.lower() in said.lower() for secret in (MARKER, UID, "19010203", "077Y", 'Patient"'))
    assert not any(word in field for field in facts for word in ("Name", "Date", "ID", "UID", "Age", "Sex", "Serial"))


def test_a_field_that_is_no_number_is_left_out(tmp_path):
    dataset = dicom_slice(PIXELS)
    dataset.add_new("KVP", "LO", MARKER)
    facts = file_facts([save(dataset, tmp_path / "a.dcm")])
    assert "KVP" not in facts
    assert "SliceThickness" in facts


@pytest.mark.parametrize("mode", ["L", "RGB", "RGBA", "P", "1", "I;16"])
def test_pictures_say_their_colours_and_bits(mode, tmp_path):
    picture = Image.fromarray(PIXELS.astype(np.uint16)) if mode == "I;16" else Image.fromarray(PIXELS).convert(mode)
    picture.save(tmp_path / "a.png")
    facts = file_facts([tmp_path / "a.png"])
    assert facts["colours"] == mode
    assert facts["bits"] == {"1": 1, "I;16": 16}.get(mode, 8)


def test_jpeg_says_how_strongly_it_is_compressed(tmp_path):
    said = []
    for quality in (30, 90):
        Image.fromarray(PIXELS).save(tmp_path / "a.jpg", quality=quality)
        said.append(file_facts([tmp_path / "a.jpg"])["quantisation"])
    assert said[0] > 3 * said[1]


def test_nifti_says_its_type(tmp_path):
    nib.save(nib.Nifti1Image(PIXELS[None].astype(np.int16), np.eye(4)), tmp_path / "a.nii.gz")
    facts = file_facts([tmp_path / "a.nii.gz"])
    assert (facts["voxels"], facts["bits"]) == ("int16", 16)


@pytest.mark.parametrize("name", ["a.png", "a.dcm", "a.nii", "a.nii.gz", "a", "a.jpg"])
def test_of_broken_files_only_the_bytes_are_told(name, tmp_path):
    path = tmp_path / name
    path.write_bytes(bytes(128) + b"DICM" + b"\1" * 9 if name == "a.dcm" else b"no scan")
    assert "bytes" in file_facts([path])
    assert file_facts([tmp_path / "missing.png"]) == {}
